"""Whose credential it is that an Azure fetch tries, and the command that mends it."""

from __future__ import annotations

import os
import shlex
from dataclasses import dataclass
from typing import Literal

#: Azure DevOps, in every tenant (Azure DevOps documentation, "Use Microsoft Entra tokens").
RESOURCE = "499b84ac-1321-427f-aa17-267ca6975798"
SCOPE = f"{RESOURCE}/.default"

Method = Literal["cli", "developer-cli", "powershell", "environment", "managed-identity", "workload-identity", "other"]

_NAMES: dict[Method, str] = {
    "cli": "the login of az",
    "developer-cli": "the login of azd",
    "powershell": "the login of Azure PowerShell",
    "environment": "the credential of the environment (AZURE_…)",
    "managed-identity": "the managed identity",
    "workload-identity": "the workload identity",
    "other": "this credential",
}
#: Where a plain login hands out the old token again, the login has to be for Azure DevOps itself.
_NEEDS_SCOPE = frozenset({"mfa-required", "conditional-access", "interaction-required"})


@dataclass(frozen=True, slots=True)
class Who:
    """A way to sign in.

    Args:
        method: Which one.
        tenant: The tenant that belongs to it, where known.
        client: The application's id, where known.
    """

    method: Method
    tenant: str | None = None
    client: str | None = None

    @property
    def name(self) -> str:
        """What people call it."""
        return _NAMES[self.method]

    @property
    def is_user(self) -> bool:
        """Whether a person logs in there; else it is an application's own identity."""
        return self.method in {"cli", "developer-cli", "powershell", "other"}

    def hint(self, reason: str) -> str | None:
        """Return the command that mends a failure, or None where there is none."""
        if self.method in {"cli", "other"}:
            scope = ["--scope", SCOPE] if reason in _NEEDS_SCOPE else []
            return _command("az login", "--tenant", self.tenant, *scope)
        if self.method == "developer-cli":
            return _command("azd auth login", "--tenant-id", self.tenant)
        if self.method == "powershell":
            return _command("Connect-AzAccount", "-Tenant", self.tenant)
        client = self.client or os.environ.get("AZURE_CLIENT_ID") or "CLIENT-ID"
        if reason in {"secret-expired", "wrong-secret"}:
            return _command("az ad app credential reset", "--id", client)
        if reason in {"federation-refused", "bad-certificate"}:
            verb = "federated-credential list" if reason == "federation-refused" else "credential list"
            return _command(f"az ad app {verb}", "--id", client)
        if reason == "assertion-expired":
            return "timedatectl status"
        return None


def _command(verb: str, option: str, value: str | None, *more: str) -> str:
    return shlex.join([*verb.split(), *([option, value] if value else []), *more])

"""The sign-ins that an Azure fetch tries, and the command that fixes each."""

from __future__ import annotations

import os
import shlex
from dataclasses import dataclass
from typing import Literal

from uvtokend.plugin import show_clock

#: Azure DevOps in every tenant (Azure DevOps documentation, "Use Microsoft Entra tokens").
RESOURCE = "499b84ac-1321-427f-aa17-267ca6975798"
SCOPE = f"{RESOURCE}/.default"

Method = Literal["cli", "developer-cli", "powershell", "environment", "managed-identity", "workload-identity", "other"]

_NAMES: dict[Method, str] = {
    "cli": "the az sign-in",
    "developer-cli": "the azd sign-in",
    "powershell": "the Azure PowerShell sign-in",
    "environment": "the credential in the environment (AZURE_…)",
    "managed-identity": "the managed identity",
    "workload-identity": "the workload identity",
    "other": "this credential",
}
#: A plain sign-in would return the old token again, so the new one must be for Azure DevOps itself.
_NEEDS_SCOPE = frozenset({"mfa-required", "conditional-access", "interaction-required"})
#: Only applications cause these errors: a tool that reports one is signed in as a service principal.
_SECRET = frozenset({"secret-expired", "wrong-secret"})
_APPLICATION = _SECRET | {"bad-certificate", "application-disabled", "no-such-application"}


@dataclass(frozen=True, slots=True)
class Who:
    """A way to sign in.

    Args:
        method: The method of the sign-in.
        tenant: The tenant of the sign-in, if known.
        client: The application's client id, if known.
    """

    method: Method
    tenant: str | None = None
    client: str | None = None

    @property
    def name(self) -> str:
        """Its name for people."""
        return _NAMES[self.method]

    @property
    def is_user(self) -> bool:
        """Whether a person usually signs in this way; otherwise it is an application's own identity."""
        return self.method in {"cli", "developer-cli", "powershell", "other"}

    def hint(self, reason: str) -> str | None:
        """Return the command that fixes a failure, or None if no command does."""
        if self.is_user and reason in _APPLICATION:
            return self._service_principal()
        if self.method in {"cli", "other"}:
            scope = ["--scope", SCOPE] if reason in _NEEDS_SCOPE else []
            return _command("az login", "--tenant", self.tenant, *scope)
        if self.method == "developer-cli":
            return _command("azd auth login", "--tenant-id", self.tenant)
        if self.method == "powershell":
            return _command("Connect-AzAccount", "-Tenant", self.tenant)
        client = self.client or os.environ.get("AZURE_CLIENT_ID") or "CLIENT-ID"
        if reason in _SECRET:
            return _command("az ad app credential reset", "--id", client)
        if reason in {"federation-refused", "bad-certificate"}:
            verb = "federated-credential list" if reason == "federation-refused" else "credential list"
            return _command(f"az ad app {verb}", "--id", client)
        if reason == "assertion-expired":
            return show_clock()
        return None

    def _service_principal(self) -> str:
        """Return the sign-in command of a tool for a service principal; the tools ask for the secret themselves."""
        client, tenant = self.client or "CLIENT-ID", self.tenant or "TENANT-ID"
        if self.method == "developer-cli":
            return _command("azd auth login", "--client-id", client, "--client-secret", "", "--tenant-id", tenant)
        if self.method == "powershell":
            return f"Connect-AzAccount -ServicePrincipal -Credential (Get-Credential {client}) -Tenant {tenant}"
        return _command("az login --service-principal", "--username", client, "--tenant", tenant)


def _command(verb: str, option: str, value: str | None, *more: str) -> str:
    return shlex.join([*verb.split(), *([option, value] if value else []), *more])

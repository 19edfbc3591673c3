"""Load Google credential files: the loader and the sign-in command of each type, and the files that it depends on.

The types are those of google-auth ``google/auth/_default.py``. Its `load_credentials_from_dict` is deprecated because
it trusts the type in the file, so each type is loaded with its own loader.
"""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from uvtokend.plugin import FetchFailed, login_required, rejected, transient
from uvtokend.providers.google.responses import SIGN_IN

_AWS = "urn:ietf:params:aws:token-type:aws4_request"


def credentials(info: Mapping[str, Any]) -> Any:
    """Return the google-auth credentials for the content of a file.

    Args:
        info: The JSON object in the file.

    Raises:
        Exception: Whatever google-auth raises for invalid content.
    """
    module, load = _loader(info)
    return getattr(import_module(module).Credentials, load)(info)


def _loader(info: Mapping[str, Any]) -> tuple[str, str]:
    """Return the module of a type, and the method of its credentials that loads them; nobody needs all of them."""
    match info.get("type"):
        case "authorized_user":
            return "google.oauth2.credentials", "from_authorized_user_info"
        case "service_account":
            return "google.oauth2.service_account", "from_service_account_info"
        case "external_account_authorized_user":
            return "google.auth.external_account_authorized_user", "from_info"
        case "impersonated_service_account":
            return "google.auth.impersonated_credentials", "from_impersonated_service_account_info"
        case "external_account" if info.get("subject_token_type") == _AWS:
            return "google.auth.aws", "from_info"
        case "external_account" if "executable" in _source(info):
            return "google.auth.pluggable", "from_info"
        case "external_account":
            return "google.auth.identity_pool", "from_info"
    raise ValueError("unknown type")


def sign_in_command(info: Mapping[str, Any]) -> str:
    """Return the command that recreates such a file. Its option keeps an impersonated identity."""
    url = info.get("service_account_impersonation_url")
    if info.get("type") != "impersonated_service_account" or not isinstance(url, str):
        return SIGN_IN
    target = url.rpartition("/")[2].removesuffix(":generateAccessToken")
    return f"{SIGN_IN} --impersonate-service-account={shlex.quote(target)}"


@dataclass(frozen=True, slots=True)
class Subject:
    """The source of the token that an external account exchanges.

    Args:
        file: The path of a file, or empty.
        command: A program with its arguments, or empty.
    """

    file: str = ""
    command: str = ""

    def problem(self, error: BaseException) -> FetchFailed | None:
        """Return the failure if the source itself is unusable, which waiting would not change; otherwise None.

        Args:
            error: The exception that google-auth raised.
        """
        if self.file and not os.path.exists(self.file):
            message = f"The token file {self.file} of the external account does not exist."
            return rejected("no-subject-token", message, f"ls -l {shlex.quote(os.path.dirname(self.file) or '.')}")
        if self.file:
            message = f"The token file {self.file} of the external account has no token in the configured format."
            return rejected("bad-subject-token", message, f"ls -l {shlex.quote(self.file)}")
        if self.command:
            program = os.path.basename(next(iter(self.command.split()), ""))
            if isinstance(error, subprocess.TimeoutExpired):
                return transient("timeout", f"{program}, which the external account runs for its token, took too long.")
            message = f"{program}, which the external account runs for its token, failed."
            return login_required("executable-failed", message, f"run {program} at a terminal to see why")
        return None


def subject(info: Mapping[str, Any]) -> Subject | None:
    """Return the source of an external account's token; None for other credentials, and for a URL."""
    source = _source(info)
    executable = source.get("executable")
    command = executable.get("command") if isinstance(executable, dict) else None
    if isinstance(command, str):
        return Subject(command=command)
    file = source.get("file")
    return Subject(file=file) if isinstance(file, str) else None


def _source(info: Mapping[str, Any]) -> Mapping[str, Any]:
    source = info.get("credential_source")
    return source if isinstance(source, dict) else {}

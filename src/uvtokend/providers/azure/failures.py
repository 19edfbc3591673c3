"""Say why a credential of azure-identity returned no token, with the fix."""

from __future__ import annotations

import os
import shlex
import subprocess

from azure.core.exceptions import ClientAuthenticationError
from azure.identity import CredentialUnavailableError

from uvtokend.plugin import FetchFailed, login_required, rejected, transient
from uvtokend.providers.azure import responses
from uvtokend.providers.azure.fixes import Who
from uvtokend.providers.azure.transport import Line, is_machine
from uvtokend.providers.kit.programs import find_fix

#: Seconds that az, azd and PowerShell may take; az needs a few for a cold start.
TOOL_TIMEOUT = 20
#: If one of these is set, this machine should have a managed identity.
_IDENTITY_ENDPOINTS = ("IDENTITY_ENDPOINT", "MSI_ENDPOINT", "AZURE_POD_IDENTITY_AUTHORITY_HOST")


def unavailable(error: CredentialUnavailableError, who: Who, tool: str | None, line: Line, named: bool) -> FetchFailed:
    """Return why a credential is not available.

    Args:
        error: azure-identity's.
        who: Who signs in.
        tool: The program that keeps the sign-in; None if there is none.
        line: The connection, which remembers the responses.
        named: The index names this credential, so it should be there.
    """
    cause = error.__cause__
    if tool is not None:
        if isinstance(cause, subprocess.TimeoutExpired):
            return transient("timeout", f"{tool} did not answer within {TOOL_TIMEOUT} s.")
        if isinstance(cause, OSError):
            return rejected(f"no-{tool}", f"{tool} could not be started.", find_fix(tool))
        trouble = responses.unreachable(_said(error), tool)
        return trouble or login_required("not-logged-in", f"{tool} is not signed in.", who.hint("not-logged-in"))
    if who.method == "managed-identity":
        return _no_identity(who, line, named)
    if who.method == "environment":
        return rejected("not-configured", _missing_variables())
    return rejected("not-configured", f"{who.name.capitalize()} is not configured.")


def _no_identity(who: Who, line: Line, named: bool) -> FetchFailed:
    """Return why the machine's own identity returned no token: ``no-identity`` if it has none."""
    last, trouble = line.last, line.trouble
    meant = named or any(os.environ.get(name) for name in _IDENTITY_ENDPOINTS)
    if last is None:
        unknown = rejected("no-identity", "This machine has no identity endpoint.")
        return trouble if trouble is not None and meant else unknown
    if last.status in {404, 410}:  # its documentation advises a retry
        return transient("server-error", f"This machine's identity endpoint is not ready (HTTP {last.status}).")
    if last.status < 400 or (last.status == 403 and not last.body):  # 403: Docker Desktop, without an endpoint
        return rejected("no-identity", "This machine's identity endpoint is not one of Azure's.")
    if last.status == 400 and "multiple user assigned" in str(last.body.get("error_description", "")).lower():
        # "Multiple user assigned identities exist, please specify the clientId / resourceId …" (public logs)
        message = "This machine has several user-assigned managed identities, and the index does not say which."
        return rejected(
            "several-identities", message, 'add client-id = "CLIENT-ID" to the index; to see them: az identity list'
        )
    if last.status == 400:
        wanted = f"the managed identity {who.client}" if who.client else "a managed identity"
        return rejected("no-identity", f"This machine does not have {wanted}.")
    message = f"This machine's identity endpoint refused to give a token (HTTP {last.status})."
    return trouble or rejected("refused", message)


def failed(error: Exception, who: Who, tool: str | None, line: Line, named: bool) -> FetchFailed:
    """Return why a credential that is there returned no token; see `unavailable`."""
    last, trouble = line.last, line.verdict or line.trouble
    if tool is not None and not isinstance(error, ClientAuthenticationError):
        return _no_token(tool)
    if tool is not None:
        return _tool_failed(_said(error), who, tool)
    if isinstance(error, FileNotFoundError | PermissionError | IsADirectoryError):
        return unreadable(error)
    if line.verdict is not None:
        return line.verdict
    refusal = line.refusal
    if refusal is not None and not is_machine(refusal.url):
        return responses.refused("", refusal.body, who)
    if last is not None and is_machine(last.url):
        return _no_identity(who, line, named)
    if trouble is not None:
        return trouble
    if last is not None and 300 <= last.status < 400:
        return transient("captive-portal", "Something between this machine and Entra answered instead of Entra.")
    if last is not None and last.status < 400:
        return transient("bad-answer", "Entra's response did not contain a valid token.")
    return responses.refused(str(error), last.body if last else {}, who)


def _said(error: BaseException) -> str:
    """Return the output of a tool, for classification only. It is never repeated."""
    cause = error.__cause__
    if isinstance(cause, subprocess.CalledProcessError):
        return f"{cause.stdout or ''}\n{cause.stderr or ''}"
    return str(error)


def _tool_failed(text: str, who: Who, tool: str) -> FetchFailed:
    if trouble := responses.unreachable(text, tool):
        return trouble
    if text.startswith("Unexpected output"):  # azure-identity's own message for an invalid token
        return _no_token(tool)
    if "AADSTS" in text:
        return responses.refused(text, {}, who)
    if "azd auth login" in text:
        return login_required("not-logged-in", "The azd sign-in has expired.", who.hint("not-logged-in"))
    return transient("tool-failed", f"{tool} failed for an unknown reason.", f"{tool} version")


def unreadable(error: OSError) -> FetchFailed:
    """Return that a file of the identity cannot be read."""
    file = error.filename if isinstance(error.filename, str) else "with the identity's token"
    hint = shlex.join(["ls", "-l", file]) if file == error.filename else None
    return rejected("missing-file", f"The file {file} cannot be read: {error.strerror or 'the system refused'}.", hint)


def _no_token(tool: str) -> FetchFailed:
    return transient("bad-answer", f"The output of {tool} did not contain a valid token.", f"{tool} version")


def _missing_variables() -> str:
    needed = ("AZURE_TENANT_ID", "AZURE_CLIENT_ID")
    missing = [name for name in needed if not os.environ.get(name)]
    if not os.environ.get("AZURE_CLIENT_SECRET") and not os.environ.get("AZURE_CLIENT_CERTIFICATE_PATH"):
        missing.append("AZURE_CLIENT_SECRET (or AZURE_CLIENT_CERTIFICATE_PATH)")
    return f"Missing in the environment of uvtokend: {', '.join(missing)}."

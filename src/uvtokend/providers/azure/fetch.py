"""azure-artifacts: a session token of Azure DevOps, or an Entra token, for the login ``VssSessionToken``.

Who signs in follows from `credential` alone. ``default`` goes through the chain of azure-identity's
``DefaultAzureCredential`` in its order, and the first credential that is there decides: one that is there and fails, is
a failure (the chain itself would go on to the next tool after a timeout, and so change the identity silently).
"""

from __future__ import annotations

import contextvars
import dataclasses
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from azure.core.credentials import AccessTokenInfo, TokenRequestOptions
from azure.core.exceptions import ClientAuthenticationError
from azure.core.pipeline.transport import RequestsTransport
from azure.identity import (
    AzureCliCredential,
    AzureDeveloperCliCredential,
    AzurePowerShellCredential,
    CredentialUnavailableError,
    DefaultAzureCredential,
    EnvironmentCredential,
    ManagedIdentityCredential,
    WorkloadIdentityCredential,
)

from uvtokend.core.model import Credential, Request, Secret
from uvtokend.errors import FetchFailed
from uvtokend.providers.azure import responses
from uvtokend.providers.azure.devops import USER_NAME, Organisation, organisation, session_token, tenant_of
from uvtokend.providers.azure.fixes import SCOPE, Method, Who
from uvtokend.providers.azure.transport import Line, is_machine
from uvtokend.providers.kit import jwt
from uvtokend.providers.kit.failures import login_required, rejected, transient
from uvtokend.providers.kit.quiet import quiet
from uvtokend.providers.kit.secrets import end_of, read_secret
from uvtokend.providers.kit.skew import skew

#: Seconds that az, azd and PowerShell may take; az needs a few on a cold start.
TOOL_TIMEOUT = 20
_ID = re.compile(r"[0-9A-Za-z][0-9A-Za-z.-]*")
_METHODS: dict[type, Method] = {
    AzureCliCredential: "cli",
    AzureDeveloperCliCredential: "developer-cli",
    AzurePowerShellCredential: "powershell",
    EnvironmentCredential: "environment",
    ManagedIdentityCredential: "managed-identity",
    WorkloadIdentityCredential: "workload-identity",
}
_TOOLS: dict[Method, str] = {"cli": "az", "developer-cli": "azd", "powershell": "pwsh"}
_TAKES_CLIENT = frozenset({"default", "managed-identity", "workload-identity"})
#: Where one of these is set, this machine is meant to have a managed identity.
_IDENTITY_ENDPOINTS = ("IDENTITY_ENDPOINT", "MSI_ENDPOINT", "AZURE_POD_IDENTITY_AUTHORITY_HOST")


@quiet
def fetch(request: Request) -> Credential:
    """Get a token.

    Args:
        request: Its service is the organisation's prefix; its options are ``credential``, ``tenant-id``,
            ``client-id``, ``token`` (``session`` or ``entra``), ``pat`` (a secret reference), ``expires``, and
            ``username``: Azure lets any in, and uv tells two organisations on one host apart by nothing else.

    Raises:
        FetchFailed: With a failure that says what mends it.
    """
    # azure-identity keeps in a context variable that it is within its chain, also after a failure there.
    return contextvars.copy_context().run(_fetch, request)


def _fetch(request: Request) -> Credential:
    with Line() as line:
        found = _Fetch(request, line).run()
    return dataclasses.replace(found, login=str(request.option("username") or found.login))


class _Fetch:
    def __init__(self, request: Request, line: Line) -> None:
        self._line = line
        self._pat = request.option("pat")
        self._how = str(request.option("credential") or ("pat" if self._pat is not None else "default"))
        self._expires = request.option("expires")
        self._kind = request.option("token")
        self._tenant = _identifier(request, "tenant-id")
        self._client = _identifier(request, "client-id")
        self._discovered = False
        if (self._how == "pat") != (self._pat is not None):
            raise rejected("bad-options", 'credential = "pat" and pat = { … } go together.')
        if self._expires is not None and self._pat is None:
            raise rejected("bad-options", "expires goes with pat only; every other token tells its own end.")
        self._service = request.service
        if self._pat is None:  # which is good for a server of one's own, too
            self._place: Organisation = organisation(request.service)
        if self._client and self._how not in _TAKES_CLIENT:
            advice = "; the environment says AZURE_CLIENT_ID instead" if self._how == "environment" else ""
            raise rejected("bad-options", f"client-id does not go with credential = {self._how!r}{advice}.")

    def run(self) -> Credential:
        if self._how == "pat":
            return self._personal()
        for credential in self._chain():
            who = self._who(credential)
            found = self._token(credential, who)
            if found is not None:
                return self._delivered(found, who)
        raise self._nobody()

    def _personal(self) -> Credential:
        """Return the personal access token; one of a pipeline is a JWT, and tells its end and whose it is."""
        now, token = datetime.now(UTC), read_secret(self._pat)
        ends = end_of(token, self._expires, now)
        renew = f"make a new one{_where(self._service)}, and put it where pat says"
        identity = _identity(jwt.claims(token.reveal()))
        return Credential(USER_NAME, token, now, ends, identity=identity, renew=renew if ends else None)

    # ------------------------------------------------------------------------------------------- who signs in

    def _chain(self) -> Sequence[Any]:
        # Nothing is tried again here: the daemon knows when.
        common: dict[str, Any] = {"transport": RequestsTransport(session=self._line), "retry_total": 0}
        try:
            match self._how:
                case "default":
                    return self._default_chain(common)
                case "cli":
                    return [AzureCliCredential(process_timeout=TOOL_TIMEOUT)]
                case "developer-cli":
                    return [AzureDeveloperCliCredential(process_timeout=TOOL_TIMEOUT)]
                case "environment":
                    return [EnvironmentCredential(additionally_allowed_tenants=["*"], **common)]
                case "managed-identity":
                    return [ManagedIdentityCredential(client_id=self._client, **common)]
                case "workload-identity":
                    return [WorkloadIdentityCredential(tenant_id=self._tenant, client_id=self._client, **common)]
        except (ValueError, OSError) as error:
            raise self._misconfigured(error) from None
        raise rejected("bad-options", f"There is no credential called {self._how!r}.")

    def _default_chain(self, common: dict[str, Any]) -> Sequence[Any]:
        more = {
            "managed_identity_client_id": self._client,
            "workload_identity_client_id": self._client,
            "workload_identity_tenant_id": self._tenant,
        }
        named = {name: value for name, value in more.items() if value}
        # These would ask a desktop, which a background process does not have.
        without = ("shared_token_cache", "visual_studio_code", "interactive_browser", "broker")
        excluded = {f"exclude_{name}_credential": True for name in without}
        return DefaultAzureCredential(
            process_timeout=TOOL_TIMEOUT, additionally_allowed_tenants=["*"], **common, **named, **excluded
        ).credentials

    def _misconfigured(self, error: Exception) -> FetchFailed:
        if isinstance(error, OSError):
            return _unreadable(error)
        if "AZURE_TOKEN_CREDENTIALS" in str(error):
            return rejected("bad-options", "AZURE_TOKEN_CREDENTIALS names no credential that azure-identity knows.")
        if self._how == "workload-identity":
            message = (
                "A workload identity needs tenant-id, client-id and a file with its token: AZURE_TENANT_ID, "
                "AZURE_CLIENT_ID and AZURE_FEDERATED_TOKEN_FILE in the environment."
            )
            return rejected("not-configured", message)
        path = os.environ.get("AZURE_CLIENT_CERTIFICATE_PATH")
        if path:
            return rejected("bad-certificate", f"{path} (AZURE_CLIENT_CERTIFICATE_PATH) holds no usable certificate.")
        return rejected("not-configured", "What the environment says (AZURE_…) is no usable configuration.")

    def _who(self, credential: object) -> Who:
        method = _METHODS.get(type(credential), "other")
        if method in _TOOLS:
            self._discover()
        tenant = self._tenant or (None if method in _TOOLS else os.environ.get("AZURE_TENANT_ID"))
        return Who(method, tenant, self._client)

    def _discover(self) -> None:
        """Look up the organisation's tenant: a guest's login has to be for that one, not for his own."""
        if self._tenant is None and not self._discovered:
            self._discovered = True
            self._tenant = tenant_of(self._place, self._line)

    # ------------------------------------------------------------------------------------------ the Entra token

    def _token(self, credential: Any, who: Who) -> AccessTokenInfo | None:
        """Return a token, or None where this credential is not there and another one may be.

        Raises:
            FetchFailed: It is there and fails, or it is the only one.
        """
        tool = _TOOLS.get(who.method)
        if tool is not None and shutil.which(tool) is None:
            self._go_on(rejected(f"no-{tool}", f"There is no {tool} on the PATH that uvtokend runs with."))
            return None
        options: TokenRequestOptions = {"tenant_id": self._tenant} if self._tenant else {}
        self._line.forget()
        try:
            found: AccessTokenInfo = credential.get_token_info(SCOPE, options=options)
        except CredentialUnavailableError as error:
            self._go_on(self._unavailable(error, who, tool))
            return None
        except Exception as error:  # noqa: BLE001 - azure-identity lets builtins out; its texts may hold secrets
            failure = self._failed(error, who, tool)
            if failure.failure.reason != "no-identity":
                raise failure from None
            self._go_on(failure)
            return None
        return found

    def _go_on(self, failure: FetchFailed) -> None:
        """Go on to the next credential of the chain, unless there is none, or this one is there and fails."""
        if self._how != "default" or failure.failure.kind == "transient":
            raise failure from None

    def _unavailable(self, error: CredentialUnavailableError, who: Who, tool: str | None) -> FetchFailed:
        cause = error.__cause__
        if tool is not None:
            if isinstance(cause, subprocess.TimeoutExpired):
                return transient("timeout", f"{tool} did not answer within {TOOL_TIMEOUT} s.")
            if isinstance(cause, OSError):
                return rejected(f"no-{tool}", f"{tool} cannot be started.")
            trouble = responses.unreachable(_said(error), tool)
            return trouble or login_required("not-logged-in", f"{tool} has no login.", who.hint("not-logged-in"))
        if who.method == "managed-identity":
            return self._no_identity()
        if who.method == "environment":
            return rejected("not-configured", _missing_variables())
        return rejected("not-configured", f"{who.name.capitalize()} is not configured.")

    def _no_identity(self) -> FetchFailed:
        """Return why the machine's own identity gave no token; ``no-identity`` where it has none."""
        last, trouble = self._line.last, self._line.trouble
        meant = self._how != "default" or any(os.environ.get(name) for name in _IDENTITY_ENDPOINTS)
        if last is None:
            unknown = rejected("no-identity", "This machine has no identity endpoint.")
            return trouble if trouble is not None and meant else unknown
        if last.status in {404, 410}:  # its documentation says to ask again
            return transient("server-error", f"The identity endpoint of this machine is not ready ({last.status}).")
        if last.status < 400 or (last.status == 403 and not last.body):  # Docker Desktop answers 403 for an absent one
            return rejected("no-identity", "What answers as the identity endpoint of this machine is none.")
        if last.status == 400:
            wanted = f"the managed identity {self._client}" if self._client else "a managed identity"
            return rejected("no-identity", f"This machine does not have {wanted}.")
        message = f"The identity endpoint of this machine refused to give a token ({last.status})."
        return trouble or rejected("refused", message)

    def _failed(self, error: Exception, who: Who, tool: str | None) -> FetchFailed:
        last, trouble = self._line.last, self._line.trouble
        if tool is not None and not isinstance(error, ClientAuthenticationError):
            return _no_token(tool)
        if tool is not None:
            return _tool_failed(_said(error), who, tool)
        if isinstance(error, FileNotFoundError | PermissionError | IsADirectoryError):
            return _unreadable(error)
        refusal = self._line.refusal
        if refusal is not None and not is_machine(refusal.url):
            return responses.refused("", refusal.body, who)
        if last is not None and is_machine(last.url):
            return self._no_identity()
        if trouble is not None:
            return trouble
        if last is not None and 300 <= last.status < 400:
            return transient("captive-portal", "Something on the way answered instead of Entra.")
        if last is not None and last.status < 400:
            return transient("bad-answer", "Entra answered something that is no token.")
        return responses.refused(str(error), last.body if last else {}, who)

    def _nobody(self) -> FetchFailed:
        self._discover()
        tool: Method = "developer-cli" if shutil.which("az") is None and shutil.which("azd") else "cli"
        message = (
            "No credential of azure-identity is there: none in the environment, no managed identity, and no login of "
            "az, PowerShell or azd."
        )
        return login_required("no-credentials", message, Who(tool, self._tenant).hint("no-credentials"))

    # ------------------------------------------------------------------------------------------- what is delivered

    def _delivered(self, found: AccessTokenInfo, who: Who) -> Credential:
        now = datetime.now(UTC)
        token, ends = _checked(found, now)
        claims = jwt.claims(found.token)
        identity = _identity(claims)
        kind = self._kind or ("session" if _is_person(claims, who) else "entra")
        if kind == "session":
            return session_token(self._place, token, identity, who, self._line)
        after = datetime.fromtimestamp(found.refresh_on, UTC) if found.refresh_on else None
        last = self._line.last
        ahead = None if last is None else skew(last.date, last.at)
        return Credential(USER_NAME, token, now, ends, after, identity, skew=ahead)


#: Claims that tell a person's or an application's name (Entra documentation, "Access token claims reference").
_NAMES = ("upn", "unique_name", "preferred_username", "appid", "azp")


def _identity(claims: dict[str, Any]) -> str | None:
    return next((claims[name] for name in _NAMES if isinstance(claims.get(name), str)), None)


def _where(service: str) -> str:
    """Return where a person makes a PAT; nothing for a server of one's own, whose pages are not known."""
    try:
        return f" at {organisation(service).portal}/_usersSettings/tokens"
    except FetchFailed:
        return ""


def _identifier(request: Request, name: str) -> str | None:
    found = request.option(name)
    if found is None:
        return None
    if not isinstance(found, str) or not _ID.fullmatch(found):
        raise rejected("bad-options", f"{name} is letters, digits, dots and hyphens.")
    return found


def _said(error: BaseException) -> str:
    """Return what a tool said; it is read, and never repeated."""
    cause = error.__cause__
    if isinstance(cause, subprocess.CalledProcessError):
        return f"{cause.stdout or ''}\n{cause.stderr or ''}"
    return str(error)


def _tool_failed(text: str, who: Who, tool: str) -> FetchFailed:
    if trouble := responses.unreachable(text, tool):
        return trouble
    if text.startswith("Unexpected output"):  # azure-identity's own words for what is no token
        return _no_token(tool)
    if "AADSTS" in text:
        return responses.refused(text, {}, who)
    if "azd auth login" in text:
        return login_required("not-logged-in", "The login of azd has ended.", who.hint("not-logged-in"))
    return transient("tool-failed", f"{tool} failed without a reason that we know.", f"{tool} version")


def _unreadable(error: OSError) -> FetchFailed:
    file = error.filename if isinstance(error.filename, str) else "that the identity is read from"
    hint = shlex.join(["ls", "-l", file]) if file == error.filename else None
    return rejected("missing-file", f"The file {file} cannot be read: {error.strerror or 'the system refused'}.", hint)


def _no_token(tool: str) -> FetchFailed:
    return transient("bad-answer", f"{tool} answered something that is no token.", f"{tool} version")


def _missing_variables() -> str:
    needed = ("AZURE_TENANT_ID", "AZURE_CLIENT_ID")
    missing = [name for name in needed if not os.environ.get(name)]
    if not os.environ.get("AZURE_CLIENT_SECRET") and not os.environ.get("AZURE_CLIENT_CERTIFICATE_PATH"):
        missing.append("AZURE_CLIENT_SECRET (or AZURE_CLIENT_CERTIFICATE_PATH)")
    return f"The environment of uvtokend lacks {', '.join(missing)}."


def _checked(found: AccessTokenInfo, now: datetime) -> tuple[Secret, datetime]:
    token = found.token
    if not isinstance(token, str) or not token or not token.isprintable() or " " in token:
        raise transient("bad-answer", "What came as a token is none.")
    ends = datetime.fromtimestamp(found.expires_on, UTC)
    if ends <= now:
        message = (
            "The token that came has already ended; if this machine's clock is right, a tool handed out an old one."
        )
        raise transient("expired-on-arrival", message)
    return Secret(token), ends


def _is_person(claims: dict[str, Any], who: Who) -> bool:
    """Tell whether a token is a person's: az and azd may be logged in as a service principal too.

    An application's token names its kind, or has no scopes and is its own subject (Entra documentation, "Access token
    claims reference").
    """
    if claims.get("idtyp") in {"user", "app"}:
        return bool(claims["idtyp"] == "user")
    if any(name in claims for name in ("scp", "upn", "unique_name", "preferred_username")):
        return True
    if "roles" in claims or "xms_mirid" in claims or (claims.get("oid") and claims.get("oid") == claims.get("sub")):
        return False
    return who.is_user

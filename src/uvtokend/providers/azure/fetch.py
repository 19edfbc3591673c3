"""azure-artifacts: fetch a session token of Azure DevOps, or an Entra token, for the login ``VssSessionToken``.

Only the option ``credential`` decides which sign-in is used. ``default`` tries the credentials of azure-identity's
``DefaultAzureCredential`` in its order, and the first one that is configured decides: if it fails, the fetch fails.
(The chain itself would try the next tool after a timeout, and so silently change the identity.)
"""

from __future__ import annotations

import contextvars
import dataclasses
import os
import re
import shutil
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from azure.core.credentials import AccessTokenInfo, TokenRequestOptions
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

from uvtokend.core.clouds.azure_artifacts import Organization
from uvtokend.plugin import (
    Credential,
    FetchFailed,
    Frozen,
    Request,
    Secret,
    end_of,
    login_required,
    quiet,
    read_secret,
    rejected,
    skew,
    transient,
)
from uvtokend.providers.azure import failures
from uvtokend.providers.azure.devops import (
    SCOPES,
    USER_NAME,
    Access,
    organization,
    session_token,
    tenant_of,
)
from uvtokend.providers.azure.fixes import SCOPE, Method, Who
from uvtokend.providers.azure.transport import Line
from uvtokend.providers.kit import jwt

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


@quiet
def fetch(request: Request) -> Credential:
    """Get a token.

    Args:
        request: Its service is the organization's prefix; its options are ``credential``, ``tenant-id``, ``client-id``,
            ``token`` (``session`` or ``entra``), ``access`` (``write`` or ``read``: the scope of a session token),
            ``pat`` (a secret reference), ``expires``, and ``username``: Azure accepts any user name, and only the user
            name lets uv distinguish two organizations on one host.

    Raises:
        FetchFailed: With the fix.
    """
    # azure-identity sets a context variable while its chain runs, and does not reset it after a failure.
    return contextvars.copy_context().run(_fetch, request)


def _fetch(request: Request) -> Credential:
    with Line() as line:
        credential = _AzureFetch(request, line).run()
    return dataclasses.replace(credential, login=str(request.option("username") or credential.login))


class _AzureFetch:
    def __init__(self, request: Request, line: Line) -> None:
        self._line = line
        self._pat = request.option("pat")
        self._how = str(request.option("credential") or ("pat" if self._pat is not None else "default"))
        self._expires = request.option("expires")
        self._kind = request.option("token")
        self._access = _access(request.option("access"))
        self._tenant = _identifier(request, "tenant-id")
        self._client = _identifier(request, "client-id")
        self._discovered = False
        self._several: FetchFailed | None = None
        if (self._how == "pat") != (self._pat is not None):
            raise rejected("bad-options", 'credential = "pat" and pat = { … } only work together.')
        if self._expires is not None and self._pat is None:
            raise rejected("bad-options", "expires only works with pat: every other token names its own end of life.")
        if self._access == "read" and (self._pat is not None or self._kind == "entra"):
            message = 'access = "read" limits session tokens only; the scope of any other token was set by its issuer.'
            raise rejected("bad-options", message, 'remove access = "read"')
        self._service = request.service
        if self._pat is None:  # a personal access token works with a self-hosted server, too
            self._place: Organization = organization(request.service)
        if self._client and self._how not in _TAKES_CLIENT:
            advice = "; set AZURE_CLIENT_ID instead" if self._how == "environment" else ""
            raise rejected("bad-options", f"client-id does not work with credential = {self._how!r}{advice}.")

    def run(self) -> Credential:
        if self._how == "pat":
            return self._personal()
        for credential in self._chain():
            who = self._who(credential)
            info = self._token(credential, who)
            if info is not None:
                return self._delivered(info, who)
        raise self._nobody()

    def _personal(self) -> Credential:
        """Return the personal access token. A pipeline's token is a JWT, which names its end of life and identity."""
        now, token = datetime.now(UTC), read_secret(self._pat)
        ends = end_of(token, self._expires, now)
        renew = f"create a new one{_where(self._service)}, and put it where pat points to"
        identity = _identity(jwt.claims(token.reveal()))
        return Credential(USER_NAME, token, now, ends, identity=identity, renew=renew if ends else None)

    # ------------------------------------------------------------------------------------------- who signs in

    def _chain(self) -> Sequence[Any]:
        # Nothing is retried here: the daemon decides when.
        common: dict[str, Any] = {"transport": RequestsTransport(session=self._line), "retry_total": 0}
        try:
            match self._how:
                case "default":
                    return self._default_chain(common)
                case "cli":
                    return [AzureCliCredential(process_timeout=failures.TOOL_TIMEOUT)]
                case "developer-cli":
                    return [AzureDeveloperCliCredential(process_timeout=failures.TOOL_TIMEOUT)]
                case "environment":
                    return [EnvironmentCredential(additionally_allowed_tenants=["*"], **common)]
                case "managed-identity":
                    return [ManagedIdentityCredential(client_id=self._client, **common)]
                case "workload-identity":
                    return [WorkloadIdentityCredential(tenant_id=self._tenant, client_id=self._client, **common)]
        except (ValueError, OSError) as error:
            raise self._misconfigured(error) from None
        raise rejected("bad-options", f"Unknown credential {self._how!r}.")

    def _default_chain(self, common: dict[str, Any]) -> Sequence[Any]:
        more = {
            "managed_identity_client_id": self._client,
            "workload_identity_client_id": self._client,
            "workload_identity_tenant_id": self._tenant,
        }
        named = {name: value for name, value in more.items() if value}
        # These need a desktop, and a background process has none.
        without = ("shared_token_cache", "visual_studio_code", "interactive_browser", "broker")
        excluded = {f"exclude_{name}_credential": True for name in without}
        return DefaultAzureCredential(
            process_timeout=failures.TOOL_TIMEOUT, additionally_allowed_tenants=["*"], **common, **named, **excluded
        ).credentials

    def _misconfigured(self, error: Exception) -> FetchFailed:
        if isinstance(error, OSError):
            return failures.unreadable(error)
        if "AZURE_TOKEN_CREDENTIALS" in str(error):
            return rejected(
                "bad-options", "AZURE_TOKEN_CREDENTIALS names a credential that azure-identity does not know."
            )
        if self._how == "workload-identity":
            message = (
                "A workload identity needs a tenant id, a client id and a token file: set AZURE_TENANT_ID, "
                "AZURE_CLIENT_ID and AZURE_FEDERATED_TOKEN_FILE in the environment."
            )
            return rejected("not-configured", message)
        path = os.environ.get("AZURE_CLIENT_CERTIFICATE_PATH")
        if path:
            return rejected("bad-certificate", f"{path} (AZURE_CLIENT_CERTIFICATE_PATH) is not a usable certificate.")
        return rejected("not-configured", "The AZURE_… variables in the environment are not a usable configuration.")

    def _who(self, credential: object) -> Who:
        method = _METHODS.get(type(credential), "other")
        if method in _TOOLS:
            self._discover()
        tenant = self._tenant or (None if method in _TOOLS else os.environ.get("AZURE_TENANT_ID"))
        return Who(method, tenant, self._client)

    def _discover(self) -> None:
        """Look up the organization's tenant, because a guest must sign in to that tenant."""
        if self._tenant is None and not self._discovered:
            self._discovered = True
            self._tenant = tenant_of(self._place, self._line)

    # ------------------------------------------------------------------------------------------ the Entra token

    def _token(self, credential: Any, who: Who) -> AccessTokenInfo | None:
        """Return a token, or None if this credential is not configured and another one may be.

        Raises:
            FetchFailed: The credential is configured and fails, or it is the only one.
        """
        tool = _TOOLS.get(who.method)
        if tool is not None and shutil.which(tool) is None:
            self._go_on(rejected(f"no-{tool}", f"{tool} was not found on the PATH that uvtokend runs with."))
            return None
        options: TokenRequestOptions = {"tenant_id": self._tenant} if self._tenant else {}
        self._line.forget()
        try:
            info: AccessTokenInfo = credential.get_token_info(SCOPE, options=options)
        except CredentialUnavailableError as error:
            self._go_on(failures.unavailable(error, who, tool, self._line, self._how != "default"))
            return None
        except Exception as error:  # noqa: BLE001 - azure-identity lets built-in exceptions escape; their texts may hold secrets
            failure = failures.failed(error, who, tool, self._line, self._how != "default")
            if failure.failure.reason != "no-identity":
                raise failure from None
            self._go_on(failure)
            return None
        return info

    def _go_on(self, failure: FetchFailed) -> None:
        """Continue with the next credential of the chain, unless there is none, or this one is configured and fails."""
        if failure.failure.reason == "several-identities":
            self._several = failure
        if self._how != "default" or failure.failure.kind == "transient":
            raise failure from None

    def _nobody(self) -> FetchFailed:
        if self._several is not None:
            return self._several
        self._discover()
        tool: Method = "developer-cli" if shutil.which("az") is None and shutil.which("azd") else "cli"
        message = (
            "No Azure credential found: none in the environment, no managed identity, and az, PowerShell and azd are "
            "not signed in."
        )
        return login_required("no-credentials", message, Who(tool, self._tenant).hint("no-credentials"))

    # ------------------------------------------------------------------------------------------- what is delivered

    def _delivered(self, info: AccessTokenInfo, who: Who) -> Credential:
        now = datetime.now(UTC)
        token, ends = _checked(info, who, now)
        claims = jwt.claims(info.token)
        identity = _identity(claims)
        kind = self._kind or ("session" if _is_person(claims, who) else "entra")
        if kind == "session":
            return session_token(self._place, token, identity, who, self._line, self._access)
        if self._access == "read":
            message = (
                f'access = "read" limits session tokens only, and {who.name} gets an Entra token with all its scopes.'
            )
            raise rejected(
                "bad-options", message, 'remove access = "read", and limit the identity in the feed settings'
            )
        after = datetime.fromtimestamp(info.refresh_on, UTC) if info.refresh_on else None
        last = self._line.last
        ahead = None if last is None else skew(last.date, last.at)
        return Credential(USER_NAME, token, now, ends, after, identity, skew=ahead)


#: Claims with a person's or an application's name (Entra documentation, "Access token claims reference").
_NAMES = ("upn", "unique_name", "preferred_username", "appid", "azp")


def _identity(claims: dict[str, Any]) -> str | None:
    return next((claims[name] for name in _NAMES if isinstance(claims.get(name), str)), None)


def _where(service: str) -> str:
    """Return the page on which a person creates a PAT; empty for a self-hosted server, whose pages are unknown."""
    try:
        return f" at {organization(service).portal}/_usersSettings/tokens"
    except FetchFailed:
        return ""


def _access(told: Frozen) -> Access:
    match told:
        case None | "write":
            return "write"
        case "read":
            return "read"
    raise rejected("bad-options", f"access must be one of {', '.join(SCOPES)}.")


def _identifier(request: Request, name: str) -> str | None:
    value = request.option(name)
    if value is None:
        return None
    if not isinstance(value, str) or not _ID.fullmatch(value):
        raise rejected("bad-options", f"{name} may only contain letters, digits, dots and hyphens.")
    return value


def _checked(info: AccessTokenInfo, who: Who, now: datetime) -> tuple[Secret, datetime]:
    """Return a token and its end of life.

    azd prints the end in UTC (``auth_token.go``), but azure-identity 1.27 reads it as local time (``azd_cli.py``), so a
    token of azd says itself when it expires.

    Raises:
        FetchFailed: It is not a token, or it has expired.
    """
    token = info.token
    if not isinstance(token, str) or not token or not token.isprintable() or " " in token:
        raise transient("bad-answer", "The response did not contain a valid token.")
    told = jwt.end(token) if who.method == "developer-cli" else None
    ends = told or datetime.fromtimestamp(info.expires_on, UTC)
    if ends <= now:
        message = "The token has already expired. If this machine's clock is right, a tool returned an old one."
        raise transient("expired-on-arrival", message)
    return Secret(token), ends


def _is_person(claims: dict[str, Any], who: Who) -> bool:
    """Return whether a token is a person's: az and azd may also be signed in as a service principal.

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

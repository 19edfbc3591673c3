"""A loopback Azure: Entra's token endpoint, Azure DevOps' token service and package host, and a machine's identity.

Serve `sites` through `clouds.tls.TlsProxy`, and `machine` through a plain `uvtokend.sandbox.web.Server` (for
``AZURE_POD_IDENTITY_AUTHORITY_HOST`` or ``IDENTITY_ENDPOINT``). Each response names where it was seen or documented;
responses without evidence say so.
"""

from __future__ import annotations

import base64
import json
import secrets
import time
import uuid
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Literal

from clouds.issuer import Issuer, Token
from uvtokend.sandbox.index import PackageIndex
from uvtokend.sandbox.registries import AZURE
from uvtokend.sandbox.web import Answer, Call, Site

Endpoint = Literal["login", "packages", "session", "machine"]

LOGIN_HOST = "login.microsoftonline.com"
#: Its former name, which Azure DevOps still uses.
LOGIN_ALIAS = "login.windows.net"
PACKAGES_HOST = "pkgs.dev.azure.com"
SECURITY_HOST = "vssps.dev.azure.com"
#: The resource of Azure DevOps in every tenant (its documentation, "Use Microsoft Entra tokens").
RESOURCE = "499b84ac-1321-427f-aa17-267ca6975798"
ORGANIZATION = "sandbox"
PERSON = "person@example.com"
#: A feed with the layout of the loopback index for Azure, but in our organization.
FEED = replace(
    AZURE,
    **{
        name: getattr(AZURE, name).replace("/acme/", f"/{ORGANIZATION}/")
        for name in ("root", "upload", "files", "path")
    },
)
#: The resources that Entra issues tokens for. az also requests Azure's management, whose identifier ends in a slash
#: (azure-cli ``_profile.py`` and ``cloud.py``).
RESOURCES = (RESOURCE, "https://management.core.windows.net/", "https://management.azure.com")
#: Scopes that do not name a resource (OpenID Connect Core 1.0).
_OPENID = frozenset({"openid", "profile", "offline_access", "email"})
#: azure-cli's own application (its source, ``AZURE_CLI_CLIENT_ID``).
CLI_CLIENT = "04b07795-8ddb-461a-bbee-02f9e1bf7b46"
_NOBODY = "00000000-0000-0000-0000-000000000000"


def refusal(code: int, text: str, error: str = "invalid_client", status: int = 401) -> Answer:
    """Return an error of Entra; status, members and line ends as in four public logs of AADSTS7000222, 2019 to 2026."""
    trace, correlation, at = str(uuid.uuid4()), str(uuid.uuid4()), f"{datetime.now(UTC):%Y-%m-%d %H:%M:%SZ}"
    description = f"AADSTS{code}: {text}\r\nTrace ID: {trace}\r\nCorrelation ID: {correlation}\r\nTimestamp: {at}"
    body = {
        "error": error,
        "error_description": description,
        "error_codes": [code],
        "timestamp": at,
        "trace_id": trace,
        "correlation_id": correlation,
        "error_uri": f"https://{LOGIN_HOST}/error?code={code}",
    }
    return Answer.json(body, status)


def problem(message: str, status: int = 401, **headers: str) -> Answer:
    """Return an error of Azure DevOps' REST API; members as in public logs of an expired personal access token."""
    body = {
        "$id": "1",
        "innerException": None,
        "message": message,
        "typeName": "Microsoft.TeamFoundation.Framework.Server.UnauthorizedRequestException, "
        "Microsoft.TeamFoundation.Framework.Server",
        "typeKey": "UnauthorizedRequestException",
        "errorCode": 0,
        "eventId": 3000,
    }
    return Answer.json(body, status, **headers)


#: The text in the source and the tests of artifacts-keyring-nofuss.
FIRST_SIGN_IN = problem("TF401444: Please sign-in at least once as person@example.com in a web browser.")
#: The response to unknown tokens without ``X-TFS-FedAuthRedirect: Suppress`` (public probe of dev.azure.com, 2026).
SIGN_IN = Answer(302, b"", {"Location": "https://spsprodweu1.vssps.visualstudio.com/_signin?realm=dev.azure.com"})
#: The same for POST (azure-devops-auth-samples issue 52).
SIGN_IN_PAGE = Answer(
    203, b"<html><title>Azure DevOps Services | Sign In</title></html>", {"Content-Type": "text/html"}
)
#: The sentence as users quote it; two users each report it with 401 and with 403.
POLICY = (
    "VS403463: The conditional access policy defined by your Microsoft Entra administrator has failed because the "
    "client network/proxy was not connected."
)
#: A network's login page.
PORTAL = Answer(200, b"<html>Welcome to our WLAN</html>", {"Content-Type": "text/html; charset=utf-8"})


class AzureCloud(Issuer[Endpoint]):
    """The emulator; see the module's docstring.

    Attributes:
        tenant: The tenant that the organization belongs to.
        life: Seconds that a new Entra token is valid; 3599 in all seven recordings of azure-sdk-for-js.
        session_life: Seconds that a session token is valid if the request names no end (artifacts-credprovider: 4 h).
        session_limit: The most seconds that a request may ask for (artifacts-credprovider: 24 h).
        machine_life: Seconds that a managed identity's token is valid (Entra documentation: 24 h).
        machine_clients: The client IDs of this machine's identities; empty if it has none.
        machine_default: Whether the first identity is used if the request names none; otherwise it must name one.
        assertions: The federated tokens that Entra accepts for the workload.
        interval: Seconds that a device waits between two requests.
        approving: Whether a person signs in on every device at once.
        personal: Whether the organization belongs to a personal Microsoft account, and to no tenant.
        identity_header: The required value of ``X-IDENTITY-HEADER`` (``IDENTITY_HEADER``).
        feed: The packages that the package host serves with a valid credential; None for none.
        unsaved: Packages that the feed lists but has not saved from upstream.
    """

    def __init__(self, life: float = 3599) -> None:
        super().__init__()
        self.tenant = str(uuid.uuid4())
        self.life = life
        self.session_life = 4 * 3600.0
        self.session_limit = 24 * 3600.0
        self.machine_life = 86399.0
        self.machine_clients = [str(uuid.uuid4())]
        self.machine_default = True
        self.assertions: set[str] = set()
        self.personal = False
        self.interval = 5
        self.approving = False
        self.identity_header = secrets.token_urlsafe(24)
        self.feed: PackageIndex | None = None
        self.unsaved: set[str] = set()
        self._clients: dict[str, str] = {}
        self._scopes: dict[str, set[str]] = {}
        self._elsewhere: set[str] = set()
        self._devices: dict[str, str | None] = {}

    @property
    def sites(self) -> Mapping[str, Site]:
        """Host -> the function that answers its calls."""
        packages, session = self.guarded("packages", self._packages), self.guarded("session", self._security)
        return {
            LOGIN_HOST: self.guarded("login", self._login),
            LOGIN_ALIAS: self.guarded("login", self._login),
            PACKAGES_HOST: packages,
            f"{ORGANIZATION}.pkgs.visualstudio.com": packages,
            SECURITY_HOST: session,
            f"{ORGANIZATION}.vssps.visualstudio.com": session,
        }

    @property
    def machine(self) -> Site:
        """The identity endpoint of a machine, for virtual machines and for App Service."""
        return self.guarded("machine", self._machine)

    def kind(self, token: str) -> str:
        """Return the kind of a token: ``user`` or ``app`` (both from Entra), or ``session``."""
        return self._tokens[token].kind

    def scopes(self, token: str) -> set[str]:
        """Return the scopes of a session token."""
        return self._scopes[token]

    def opens(self, token: str) -> bool:
        """Return whether Azure DevOps accepts a token: it must be valid, and for this resource."""
        return self.valid(token) and token not in self._elsewhere

    def devices(self) -> list[str]:
        """Return the device codes that wait for a person."""
        return [device for device, name in self._devices.items() if name is None]

    def approve(self, device_code: str, name: str = PERSON) -> None:
        """Sign a person in on a device, as the page of the verification URL does."""
        self._devices[device_code] = name

    def application(self) -> tuple[str, str]:
        """Create an application and return its client ID and secret."""
        client = str(uuid.uuid4())
        self._clients[client] = secrets.token_urlsafe(30)
        return client, self._clients[client]

    def user_token(self, name: str = PERSON, life: float | None = None) -> str:
        """Return an Entra token of a person, as az has it after a sign-in."""
        # Claims: Entra documentation, "Access token claims reference", version 1.0.
        more = {"appid": CLI_CLIENT, "scp": "user_impersonation", "unique_name": name, "upn": name, "idtyp": "user"}
        return self._entra(name, "user", self.life if life is None else life, more)

    def az_answer(self, token: str) -> str:
        """Return the output of ``az account get-access-token`` (az 2.89.1, a public probe of 2026)."""
        ends = self._tokens[token].ends
        answer = {
            "accessToken": token,
            "expiresOn": f"{datetime.fromtimestamp(ends):%Y-%m-%d %H:%M:%S}.000000",  # noqa: DTZ006 - az prints local time
            "expires_on": int(ends),
            "subscription": str(uuid.uuid4()),
            "tenant": self.tenant,
            "tokenType": "Bearer",
        }
        return json.dumps(answer, indent=2)

    def azd_answer(self, token: str) -> str:
        """Return the output of ``azd auth token --output json``, as azure-identity's ``azd_cli.py`` reads it."""
        ends = datetime.fromtimestamp(self._tokens[token].ends, UTC)
        return json.dumps({"token": token, "expiresOn": f"{ends:%Y-%m-%dT%H:%M:%SZ}"})

    def _entra(self, holder: str, kind: Literal["user", "app"], life: float, claims: dict[str, Any]) -> str:
        now = time.time()
        known = {"aud": RESOURCE, "iss": f"https://sts.windows.net/{self.tenant}/", "tid": self.tenant, "ver": "1.0"}
        subject = str(uuid.uuid4())
        times = {"iat": int(now), "nbf": int(now), "exp": int(now + life)}
        token = _jwt(
            {**known, **times, "oid": subject, "sub": subject if kind == "app" else secrets.token_hex(16), **claims}
        )
        self._tokens[token] = Token(holder, now + life, kind)
        return token

    # ---------------------------------------------------------------------------------------------------- Entra

    def _login(self, call: Call) -> Answer:
        tenant, _, rest = call.path.strip("/").partition("/")
        if call.path == "/common/discovery/instance":
            # msal calls this after a refusal; the members are those it reads (``authority.py``, ``application.py``).
            # MSAL.NET also needs the URL of the tenant's document.
            aliases = [LOGIN_HOST, LOGIN_ALIAS, "login.microsoft.com", "sts.windows.net"]
            named = {"preferred_network": LOGIN_HOST, "preferred_cache": LOGIN_ALIAS, "aliases": aliases}
            endpoint = f"https://{LOGIN_HOST}/{self.tenant}/v2.0/.well-known/openid-configuration"
            return Answer.json({"tenant_discovery_endpoint": endpoint, "api-version": "1.1", "metadata": [named]})
        if rest == "v2.0/.well-known/openid-configuration":
            # OpenID Connect Discovery 1.0; the addresses are those of the real document.
            base = f"https://{LOGIN_HOST}/{tenant}"
            document = {
                "token_endpoint": f"{base}/oauth2/v2.0/token",
                "issuer": f"{base}/v2.0",
                "authorization_endpoint": f"{base}/oauth2/v2.0/authorize",
                "device_authorization_endpoint": f"{base}/oauth2/v2.0/devicecode",
            }
            return Answer.json(document)
        if call.method != "POST" or rest not in {"oauth2/v2.0/token", "oauth2/v2.0/devicecode"}:
            return Answer(404)
        if tenant != self.tenant:
            return refusal(90002, f"Tenant '{tenant}' not found.", "invalid_request", 400)
        form = call.form()
        if rest == "oauth2/v2.0/devicecode":
            return self._device()
        if form.get("grant_type") in {
            "urn:ietf:params:oauth:grant-type:device_code",
            "device_code",
        }:  # MSAL.NET's value
            return self._device_granted(form)
        return self._granted(form)

    def _device(self) -> Answer:
        # Members and the life of 15 minutes: Entra documentation, "OAuth 2.0 device authorization grant flow".
        code, device = secrets.token_hex(4).upper(), secrets.token_urlsafe(60)
        self._devices[device] = PERSON if self.approving else None
        page = "https://login.microsoft.com/device"
        message = f"To sign in, use a web browser to open the page {page} and enter the code {code} to authenticate."
        started = {"user_code": code, "device_code": device, "verification_uri": page, "message": message}
        return Answer.json({**started, "expires_in": 900, "interval": self.interval})

    def _device_granted(self, form: dict[str, str]) -> Answer:
        # Errors: RFC 8628 3.5, and the numbers on the same page.
        name = self._devices.get(form.get("device_code", ""), "")
        if name is None:
            return refusal(
                70016, "OAuth 2.0 device flow error. Authorization is pending.", "authorization_pending", 400
            )
        if not name:
            return refusal(70019, "Verification code expired.", "expired_token", 400)
        del self._devices[form["device_code"]]
        # The identity token: members that msal and azure-identity check ("ID token claims reference").
        token, now, subject = self.user_token(name), int(time.time()), str(uuid.uuid4())
        person = {
            "oid": subject,
            "sub": subject,
            "tid": self.tenant,
            "preferred_username": name,
            "aud": form["client_id"],
        }
        issuer = f"https://{LOGIN_HOST}/{self.tenant}/v2.0"
        known = base64.urlsafe_b64encode(json.dumps({"uid": subject, "utid": self.tenant}).encode()).decode()
        more = {
            "id_token": _jwt({**person, "iss": issuer, "iat": now, "nbf": now, "exp": now + 3600}),
            "client_info": known.rstrip("="),
            "refresh_token": secrets.token_urlsafe(200),
            "scope": f"{RESOURCE}/.default",
        }
        return self._issued(token, self.life, **more)

    def _granted(self, form: dict[str, str]) -> Answer:
        client = form.get("client_id", "")
        named = [scope for scope in form.get("scope", "").split() if scope not in _OPENID]
        resource = named[0].removesuffix("/.default") if len(named) == 1 else ""
        if form.get("grant_type") != "client_credentials" or resource not in RESOURCES:
            return refusal(70011, "The provided request must include a valid scope.", "invalid_scope", 400)
        if client not in self._clients:
            text = f"Application with identifier '{client}' was not found in the directory 'Sandbox'."
            return refusal(700016, text, "unauthorized_client", 400)
        if "client_assertion" in form and form["client_assertion"] not in self.assertions:
            return refusal(700024, "Client assertion is not within its valid time range.")
        if "client_assertion" not in form and form.get("client_secret") != self._clients[client]:
            return refusal(7000215, f"Invalid client secret provided for app '{client}'.")
        claims = {"appid": client, "appidacr": "1", "idtyp": "app", "aud": resource}
        token = self._entra(client, "app", self.life, claims)
        if resource != RESOURCE:
            self._elsewhere.add(token)
        return self._issued(token, self.life)

    def _issued(self, token: str, life: float, **more: str) -> Answer:
        # Members and headers: seven recordings in azure-sdk-for-js, 2019 to 2022.
        body = {"token_type": "Bearer", "expires_in": int(life), "ext_expires_in": int(life)}
        return Answer.json(
            {**body, "access_token": token, **more},
            Content_Type="application/json; charset=utf-8",
            Cache_Control="no-store, no-cache",
        )

    # --------------------------------------------------------------------------------------------- Azure DevOps

    def _challenge(self) -> dict[str, str]:
        basic = 'Basic realm="https://pkgsprodweu0.pkgs.visualstudio.com/"'
        if self.personal:
            # Two header lines, Basic first, and no tenant (a public probe of 2026); one line here, which is equivalent
            # (RFC 9110 5.3).
            return {"WWW-Authenticate": f"{basic}, Bearer", "X-VSS-ResourceTenant": _NOBODY}
        # Reported by four users, 2019 to 2022. artifacts-keyring-nofuss and artifacts-credprovider read the token
        # service from the package host's response.
        uri = f"https://{LOGIN_ALIAS}/{self.tenant}"
        return {
            "WWW-Authenticate": f"Bearer authorization_uri={uri}, {basic}, TFS-Federated",
            "X-VSS-AuthorizationEndpoint": f"https://{SECURITY_HOST}/{ORGANIZATION}/",
        }

    def _packages(self, call: Call) -> Answer:
        scheme, _, credential = call.headers.get("Authorization", "").partition(" ")
        password = base64.b64decode(credential).decode().partition(":")[2] if scheme.lower() == "basic" else credential
        if not password:
            # ``Basic Og==`` (an empty user and password) counts as no credential: Microsoft's provider 1.4.1 repeats
            # its first call with it, and reads the authority and the token service from the second response.
            return Answer(401, b"", self._challenge())
        if not self.opens(password):
            # An invalid credential gets only this challenge (three users, azure-pipelines-tasks issue 11649).
            return Answer(
                401, b"", {"WWW-Authenticate": 'Basic realm="https://pkgsprodsu3weu.app.pkgs.visualstudio.com/"'}
            )
        if missing := self._missing(call, password):
            # Sentence and members: azure-devops-docs issue 4626, NuGet/Home issue 9259.
            text = f"User '{uuid.uuid4()}' lacks permission to complete this action. You need to have '{missing}'."
            return problem(text, 403)
        return Answer(404) if self.feed is None else self.feed.answer(call)  # 404: uv issue 8167

    def _missing(self, call: Call, token: str) -> str:
        """Return the permission that a token's scope does not include, or an empty text.

        Uploading a package and saving one from upstream need ``vso.packaging_write`` (microsoft/ado-npm-auth pull
        request 90; a 403 for the file of an unsaved package: azure-pipelines-tasks issue 12193). There is no
        evidence for the name of the permission for saving.
        """
        unsaved = next((name for name in self.unsaved if f"/download/{name}/" in call.path), None)
        if call.method != "POST" and unsaved is None:
            return ""
        if "vso.packaging_write" not in self._scopes.get(token, {"vso.packaging_write"}):
            return "AddPackage" if unsaved is None else "AddUpstreamPackage"
        self.unsaved.discard(unsaved or "")
        return ""

    def _security(self, call: Call) -> Answer:
        path = call.path.removeprefix(f"/{ORGANIZATION}")
        if path in {"", "/"}:
            # HEAD answered 200 with these headers in a recording of azure-devops-cli-extension.
            headers = self._challenge()
            return Answer(200, b"", {"X-VSS-ResourceTenant": self.tenant, **headers})
        if call.method != "POST" or path != "/_apis/Token/SessionTokens":
            return Answer(404)
        token = call.headers.get("Authorization", "").removeprefix("Bearer ")
        if self.personal:
            return SIGN_IN  # the response to any Entra token there (a public probe of 2026)
        # There is no evidence how an application's token is refused; the clients never send one.
        if not self.opens(token) or self.kind(token) != "user":
            if call.headers.get("X-TFS-FedAuthRedirect") != "Suppress":
                return SIGN_IN_PAGE
            # Text: azure-devops-auth-samples issue 52, there with PATCH.
            return problem(
                "TF400813: The user 'aaaaaaaa-aaaa-aaaa-aaaa-aaaaaaaaaaaa' is not authorized to access this resource."
            )
        return self._session(json.loads(call.body), self.holder(token))

    def _session(self, asked: dict[str, Any], holder: str) -> Answer:
        now = time.time()
        ends = now + self.session_life
        if asked.get("validTo") is not None:  # Microsoft's provider sends null in its second request
            ends = datetime.fromisoformat(asked["validTo"]).timestamp() - self.clock_ahead
            if ends > now + self.session_limit:
                # After a 400, artifacts-credprovider repeats the request without validTo. No evidence for the body.
                return problem("The requested expiration is not allowed.", 400)
        # tokenType=SelfDescribing means that the session token is a JWT; there is no public recording of one.
        claims = {"iss": "app.vstoken.visualstudio.com", "aud": "app.vstoken.visualstudio.com", "exp": int(ends)}
        token = _jwt({**claims, "nbf": int(now), "scp": asked["scope"], "jti": str(uuid.uuid4())})
        self._tokens[token] = Token(holder, ends, "session")
        self._scopes[token] = set(asked["scope"].split())
        shown = datetime.fromtimestamp(ends + self.clock_ahead, UTC)
        # Members: artifacts-credprovider VstsSessionToken; seven digits are .NET's form of a fraction.
        body = {"displayName": asked["displayName"], "scope": asked["scope"], "token": token}
        return Answer.json({**body, "validTo": f"{shown:%Y-%m-%dT%H:%M:%S.%f}0Z"})

    # ----------------------------------------------------------------------------------------------- the machine

    def _machine(self, call: Call) -> Answer:
        # "How to use managed identities to get an access token" and "Use managed identities for App Service": both
        # forms' paths, headers and members; numbers are strings.
        is_vm = call.path == "/metadata/identity/oauth2/token"
        if is_vm and call.headers.get("Metadata") != "true":
            text = "Required metadata header not specified"
            return Answer.json({"error": "invalid_request", "error_description": text}, 400)
        if not is_vm and call.headers.get("X-IDENTITY-HEADER") != self.identity_header:
            return Answer.json({"statusCode": 401, "message": "Unauthorized"}, 401)
        if "client_id" not in call.query and not self.machine_default and len(self.machine_clients) > 1:
            # Text: public logs of IMDS on machines with several user-assigned identities.
            text = "Multiple user assigned identities exist, please specify the clientId / resourceId of the identity"
            return Answer.json({"error": "invalid_request", "error_description": f"{text} in the token request"}, 400)
        client = call.query.get("client_id") or next(iter(self.machine_clients), "")
        if client not in self.machine_clients or call.query.get("resource") != RESOURCE:
            return Answer.json({"error": "invalid_request", "error_description": "Identity not found"}, 400)
        life = self.machine_life
        named = {"appid": client, "idtyp": "app", "xms_mirid": "/subscriptions/sandbox/resourcegroups/sandbox"}
        token = self._entra(client, "app", life, named)
        body: dict[str, Any] = {
            "access_token": token,
            "client_id": client,
            "resource": RESOURCE,
            "token_type": "Bearer",
        }
        body |= {"expires_on": str(int(time.time() + life)), "not_before": str(int(time.time()))}
        if is_vm:
            body |= {"expires_in": str(int(life)), "ext_expires_in": str(int(life))}
        return Answer.json(body)


def _jwt(claims: dict[str, Any]) -> str:
    header = {"typ": "JWT", "alg": "RS256", "kid": "sandbox"}
    parts = (json.dumps(part).encode() for part in (header, claims))
    signed = [base64.urlsafe_b64encode(part).decode().rstrip("=") for part in parts]
    return ".".join([*signed, secrets.token_urlsafe(256)])

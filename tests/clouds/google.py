"""A loopback Google: token endpoint, security token service, IAM credentials, projects and metadata server.

Serve `sites` through `clouds.tls.TlsProxy`, and `metadata` through a plain `uvtokend.sandbox.web.Server` (for
``GCE_METADATA_HOST``). Each response names where it was seen or documented; responses without evidence say so.
"""

from __future__ import annotations

import base64
import json
import secrets
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Literal
from urllib.parse import unquote

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from clouds.issuer import Issuer, Token
from uvtokend.sandbox.web import Answer, Call, Site

Endpoint = Literal["token", "sts", "iam", "projects", "metadata"]

OAUTH_HOST = "oauth2.googleapis.com"
STS_HOST = "sts.googleapis.com"
IAM_HOST = "iamcredentials.googleapis.com"
PROJECTS_HOST = "cloudresourcemanager.googleapis.com"
SCOPE = "https://www.googleapis.com/auth/cloud-platform"
PROJECT = "sandbox-project"
MACHINE = f"machine@{PROJECT}.iam.gserviceaccount.com"
PROJECT_NUMBER = "123456789012"
POOL = (
    f"//iam.googleapis.com/projects/{PROJECT_NUMBER}/locations/global/workloadIdentityPools/sandbox/providers/loopback"
)
WORKFORCE = "//iam.googleapis.com/locations/global/workforcePools/sandbox/providers/loopback"
#: The metadata server returns the same token until this many seconds before its expiry (Compute Engine documentation,
#: "Authenticate workloads using service accounts").
METADATA_WINDOW = 300
#: Google refuses signed claims whose time differs by 8 minutes (several public logs).
SKEW = 300

#: A JSON Web Token as a subject token (RFC 8693 3).
JWT = "urn:ietf:params:oauth:token-type:jwt"
#: A signed AWS request as a subject token (google-auth ``google/auth/_default.py``).
AWS_REQUEST = "urn:ietf:params:aws:token-type:aws4_request"

_JWT_BEARER = "urn:ietf:params:oauth:grant-type:jwt-bearer"  # RFC 7523 2.1
_EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"  # RFC 8693 2.1


def refusal(error: str, description: str = "", subtype: str = "", status: int = 400) -> Answer:
    """Return an error of a token endpoint (RFC 6749 5.2; `subtype` as in Chromium's gaia test constants)."""
    members = {"error": error, "error_description": description, "error_subtype": subtype}
    return Answer.json({name: text for name, text in members.items() if text}, status)


def problem(code: int, status: str, message: str, **details: Any) -> Answer:
    """Return an error of a Google API (AIP-193)."""
    error: dict[str, Any] = {"code": code, "message": message, "status": status}
    if details:
        error["details"] = [{"@type": "type.googleapis.com/google.rpc.ErrorInfo", **details}]
    return Answer.json({"error": error}, code)


#: The texts are from public logs of google-auth, gcloud and others.
REVOKED = refusal("invalid_grant", "Token has been expired or revoked.")
REAUTHENTICATE = refusal("invalid_grant", "reauth related error (invalid_rapt)", "invalid_rapt")
SKEWED = refusal(
    "invalid_grant",
    "Invalid JWT: Token must be a short-lived token (60 minutes) and in a reasonable timeframe. "
    "Check your iat and exp values in the JWT claim.",
)
BAD_SIGNATURE = refusal("invalid_grant", "Invalid JWT Signature.")
UNKNOWN_ACCOUNT = refusal("invalid_grant", "Invalid grant: account not found")


class GoogleCloud(Issuer[Endpoint]):
    """The emulator; see the module's docstring.

    Attributes:
        life: Seconds that a new token is valid. Google was seen to return 3599 for an hour.
        impersonable: The service accounts that any identity may impersonate.
        longest: The most seconds that an impersonated token may be valid; an organization's policy may allow 43200.
        subjects: The subject tokens that the security token service accepts.
    """

    def __init__(self, life: float = 3599) -> None:
        super().__init__()
        self.life = life
        self.impersonable: set[str] = set()
        self.longest = 3600
        self.subjects: set[str] = set()
        self._keys: dict[str, rsa.RSAPublicKey] = {}
        self._users: dict[str, str] = {}
        self._cached = ""

    @property
    def sites(self) -> Mapping[str, Site]:
        """Host -> the function that answers its calls."""
        return {
            OAUTH_HOST: self.guarded("token", self._token),
            STS_HOST: self.guarded("sts", self._sts),
            IAM_HOST: self.guarded("iam", self._iam),
            PROJECTS_HOST: self.guarded("projects", self._projects),
        }

    @property
    def metadata(self) -> Site:
        """The metadata server of a machine."""
        return self.guarded("metadata", self._machine)

    def user_token(self, email: str) -> str:
        """Return a token of a user, as gcloud would have it."""
        return self._issue(email)

    def service_account(self, email: str = f"builder@{PROJECT}.iam.gserviceaccount.com") -> dict[str, Any]:
        """Create a service account, and return the key file that a user would download."""
        key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        self._keys[email] = key.public_key()
        plain = serialization.NoEncryption()
        pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
        return {
            "type": "service_account",
            "project_id": PROJECT,
            "private_key_id": secrets.token_hex(20),
            "private_key": pem.decode(),
            "client_email": email,
            "client_id": "100000000000000000001",
            "token_uri": f"https://{OAUTH_HOST}/token",
        }

    def user(self, email: str = "person@example.com") -> dict[str, Any]:
        """Create a user, and return the file that ``gcloud auth application-default login`` would write."""
        refresh = "1//" + secrets.token_urlsafe(60)
        self._users[refresh] = email
        return {
            "type": "authorized_user",
            "client_id": "100000000000-sandbox.apps.googleusercontent.com",
            "client_secret": "d-" + secrets.token_urlsafe(18),
            "refresh_token": refresh,
            "universe_domain": "googleapis.com",
        }

    def workforce_user(self) -> dict[str, Any]:
        """Create a user of a workforce pool, and return the file that a login of that kind would write."""
        known = self.user("workforce@example.com")
        return {
            "type": "external_account_authorized_user",
            "audience": WORKFORCE,
            "token_url": f"https://{STS_HOST}/v1/oauthtoken",
            "token_info_url": f"https://{STS_HOST}/v1/introspect",
            **{name: known[name] for name in ("client_id", "client_secret", "refresh_token")},
        }

    def external_account(self, source: dict[str, Any], impersonate: str = "", audience: str = POOL) -> dict[str, Any]:
        """Return a workload identity configuration, or a workforce one.

        Args:
            source: Its ``credential_source``: where the subject token comes from.
            impersonate: The service account that is impersonated after the exchange.
            audience: `POOL` or `WORKFORCE`.
        """
        configuration: dict[str, Any] = {
            "type": "external_account",
            "audience": audience,
            "subject_token_type": JWT,
            "token_url": f"https://{STS_HOST}/v1/token",
            "token_info_url": f"https://{STS_HOST}/v1/introspect",
            "credential_source": source,
        }
        if audience == WORKFORCE:
            configuration["workforce_pool_user_project"] = PROJECT_NUMBER
        if impersonate:
            configuration["service_account_impersonation_url"] = impersonation_url(impersonate)
        return configuration

    def _issue(self, holder: str, life: float | None = None) -> str:
        token = "ya29." + secrets.token_urlsafe(150)  # only the prefix of their form is public
        self._tokens[token] = Token(holder, time.time() + (self.life if life is None else life))
        return token

    def _grant(self, holder: str, **more: Any) -> Answer:
        # RFC 6749 5.1; members and their order as in many public fixtures of this endpoint.
        token = {"access_token": self._issue(holder), "expires_in": self._whole_life(), "scope": SCOPE}
        return Answer.json({**token, "token_type": "Bearer", **more})

    def _whole_life(self) -> int:
        return max(int(self.life), 1)

    def _token(self, call: Call) -> Answer:
        form = call.form()
        if call.method != "POST" or call.path != "/token":
            return Answer(404)
        if form.get("grant_type") == _JWT_BEARER:
            return self._signed(form.get("assertion", ""))
        if form.get("grant_type") == "refresh_token":
            email = self._users.get(form.get("refresh_token", ""))
            if email is None:
                return REVOKED
            # A login for ADC also requests openid, so its responses contain an ID token (OpenID Connect Core 12.2).
            return self._grant(email, id_token=_id_token(email, self.now()))
        return refusal("unsupported_grant_type", f"Invalid grant_type: {form.get('grant_type')}")

    def _signed(self, assertion: str) -> Answer:
        signed, _, signature = assertion.rpartition(".")
        try:
            claims = json.loads(_unpadded(signed.partition(".")[2]))
            key = self._keys.get(claims["iss"])
            if key is None:
                return UNKNOWN_ACCOUNT
            key.verify(_unpadded(signature), signed.encode(), padding.PKCS1v15(), hashes.SHA256())
        except InvalidSignature:
            return BAD_SIGNATURE
        except (KeyError, TypeError, ValueError):
            return refusal("invalid_grant", "Bad Request")
        if not claims["iat"] - SKEW <= self.now() <= claims["exp"] or claims["exp"] - claims["iat"] > 3600:
            return SKEWED
        if claims.get("aud") != f"https://{OAUTH_HOST}/token" or not claims.get("scope"):
            return refusal("invalid_scope", "Invalid OAuth scope or ID token audience provided.")
        return self._grant(claims["iss"])

    def _sts(self, call: Call) -> Answer:
        form = call.form()
        if call.path == "/v1/oauthtoken" and form.get("grant_type") == "refresh_token":
            email = self._users.get(form.get("refresh_token", ""))
            return REVOKED if email is None else self._grant(email)
        if call.path == "/v1/introspect":
            return self._introspected(call)
        if call.path != "/v1/token" or form.get("grant_type") != _EXCHANGE:
            return Answer(404)
        audience = form.get("audience", "")
        if audience not in {POOL, WORKFORCE}:
            # RFC 8693 2.2.2; the text is from the service's reference, "Troubleshoot Workload Identity Federation".
            return refusal("invalid_target", 'The target service indicated by the "audience" parameters is invalid.')
        signed = form.get("subject_token_type") == AWS_REQUEST and _is_signed_by_aws(form.get("subject_token", ""))
        if not signed and form.get("subject_token") not in self.subjects:
            return refusal("invalid_grant", "ID Token issued at 1700000000 is stale to sign-in.")
        issued = "urn:ietf:params:oauth:token-type:access_token"
        return self._grant("principal:" + audience, issued_token_type=issued)  # RFC 8693 2.2.1

    def _introspected(self, call: Call) -> Answer:
        # RFC 7662 2; members: reference of the Security Token Service, v1.introspect. It accepts gcloud's own client.
        if not call.headers.get("Authorization", "").startswith("Basic "):
            return refusal("invalid_client", "The OAuth client was not found.", status=401)
        token = call.form().get("token", "")
        if not self.valid(token):
            return Answer.json({"active": False})
        ends = int(self._tokens[token].ends)
        about = {"active": True, "iss": f"https://{STS_HOST}/", "scope": SCOPE, "exp": ends, "iat": int(self.now())}
        return Answer.json({**about, "username": self.holder(token), "sub": self.holder(token)})

    def _projects(self, call: Call) -> Answer:
        # projects.get of the Cloud Resource Manager API v1; google-auth calls it with a project's number.
        if not self.valid(call.headers.get("Authorization", "").removeprefix("Bearer ")):
            return problem(401, "UNAUTHENTICATED", "Request had invalid authentication credentials.")
        if call.method != "GET" or call.path not in {f"/v1/projects/{name}" for name in (PROJECT, PROJECT_NUMBER)}:
            return problem(403, "PERMISSION_DENIED", "The caller does not have permission")
        return Answer.json({"projectNumber": PROJECT_NUMBER, "projectId": PROJECT, "lifecycleState": "ACTIVE"})

    def _iam(self, call: Call) -> Answer:
        # Method and both bodies: reference of projects.serviceAccounts.generateAccessToken. Texts: public logs.
        start, end = "/v1/projects/-/serviceAccounts/", ":generateAccessToken"
        email = call.path.removeprefix(start).removesuffix(end)
        if call.path != start + email + end:
            return Answer(404)
        if not self.valid(call.headers.get("Authorization", "").removeprefix("Bearer ")):
            return problem(401, "UNAUTHENTICATED", "Request had invalid authentication credentials.")
        if email not in self.impersonable:
            message = "Permission 'iam.serviceAccounts.getAccessToken' denied on resource (or it may not exist)."
            return problem(
                403, "PERMISSION_DENIED", message, reason="IAM_PERMISSION_DENIED", domain="iam.googleapis.com"
            )
        asked = json.loads(call.body)
        life = float(asked.get("lifetime", "3600s").removesuffix("s"))
        if life > self.longest or not asked["scope"]:
            message = (
                f"Access token lifetime exceeds the allowed {self.longest}s."  # the code is documented, the text is not
            )
            return problem(400, "INVALID_ARGUMENT", message)
        ends = datetime.fromtimestamp(int(self.now() + life), UTC)
        return Answer.json({"accessToken": self._issue(email, life), "expireTime": f"{ends:%Y-%m-%dT%H:%M:%SZ}"})

    def _machine(self, call: Call) -> Answer:
        # Headers and the token's body: public captures of the metadata server.
        headers = {"Metadata-Flavor": "Google", "Server": "Metadata Server for VM"}
        if call.headers.get("Metadata-Flavor") != "Google":
            return Answer(403, b"Missing Metadata-Flavor:Google header.\n", headers)
        text = {
            "/": "computeMetadata/\n",
            "/computeMetadata/v1/project/project-id": PROJECT,
            "/computeMetadata/v1/universe/universe-domain": "googleapis.com",
        }.get(call.path)
        if text is not None:
            return Answer(200, text.encode(), {**headers, "Content-Type": "application/text"})
        accounts, _, rest = call.path.partition("/computeMetadata/v1/instance/service-accounts/")[2].partition("/")
        if accounts not in {"default", MACHINE}:
            return Answer(404, b"<!DOCTYPE html>\n", {**headers, "Content-Type": "text/html; charset=UTF-8"})
        value: Any = {"aliases": ["default"], "email": MACHINE, "scopes": [SCOPE]}
        if rest == "token":
            value = self._machine_token()
        return Answer(200, json.dumps(value).encode(), {**headers, "Content-Type": "application/json"})

    def _machine_token(self) -> dict[str, Any]:
        known = self._tokens.get(self._cached)
        if known is None or known.ends - time.time() <= min(METADATA_WINDOW, self.life / 12):
            self._cached = self._issue(MACHINE)
            known = self._tokens[self._cached]
        return {"access_token": self._cached, "expires_in": int(known.ends - time.time()), "token_type": "Bearer"}


def impersonation_url(email: str) -> str:
    """Return the URL that issues tokens of a service account."""
    return f"https://{IAM_HOST}/v1/projects/-/serviceAccounts/{email}:generateAccessToken"


def hanging(until: Callable[[], object]) -> Site:
    """Return a site that accepts requests and does not answer before `until` returns."""

    def site(_: Call) -> Answer:
        until()
        return Answer(503)

    return site


def _is_signed_by_aws(subject: str) -> bool:
    """Return whether a subject token is a signed GetCallerIdentity for our pool; only AWS could check the signature."""
    try:
        headers = {header["key"].lower(): header["value"] for header in json.loads(unquote(subject))["headers"]}
    except (KeyError, TypeError, ValueError):
        return False
    resource = headers.get("x-goog-cloud-target-resource")
    return resource == POOL and headers.get("authorization", "").startswith("AWS4-HMAC-SHA256 ")


def _id_token(email: str, now: float) -> str:
    claims = {"iss": "https://accounts.google.com", "email": email, "email_verified": True, "iat": int(now)}
    parts = (json.dumps({"alg": "RS256", "typ": "JWT"}), json.dumps(claims), "sandbox")
    return ".".join(base64.urlsafe_b64encode(part.encode()).decode().rstrip("=") for part in parts)


def _unpadded(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))

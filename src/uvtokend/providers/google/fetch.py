"""google-artifact-registry: fetch a Google access token for the login ``oauth2accesstoken``.

One token works for every repository that its identity can read. The source alone determines the identity: Application
Default Credentials in the order of google-auth's ``google.auth.default``, or gcloud if it is named. That function is
not called, because it also looks for a project: it runs ``gcloud config get project`` or calls another API. If the
source fails, the fetch fails; there is no fallback to another source.
"""

from __future__ import annotations

import json
import os
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from google.auth import compute_engine, impersonated_credentials, jwt
from google.auth.credentials import with_scopes_if_required
from google.oauth2.credentials import Credentials as UserCredentials

from uvtokend.core.clouds.google_artifact_registry import CLOUD
from uvtokend.plugin import Credential, FetchFailed, Request, Secret, login_required, quiet, rejected, skew, transient
from uvtokend.providers.google import files, gcloud
from uvtokend.providers.google.responses import SIGN_IN, refused
from uvtokend.providers.google.transport import Transport
from uvtokend.providers.kit.http import Exchange, bounded, on_our_clock

SCOPES = ("https://www.googleapis.com/auth/cloud-platform",)
#: Seconds that a fetch may take in total, whatever the SDK, DNS or a helper program does.
TIMEOUT = 50.0
#: The longest validity of an impersonated token, in seconds (reference of generateAccessToken).
LONGEST_LIFE = 43200
_FILE_VARIABLE = "GOOGLE_APPLICATION_CREDENTIALS"
_PRODUCT_NAME = Path("/sys/class/dmi/id/product_name")


@quiet
def fetch(request: Request) -> Credential:
    """Return a credential with a fresh access token.

    Args:
        request: A request with the options ``source`` (``adc`` or ``gcloud``), ``credentials-file``,
            ``impersonate-service-account`` and ``lifetime`` (seconds, of an impersonated token).

    Raises:
        FetchFailed: Google issued no token; the failure says why and contains the fix.
    """
    late = transient("timeout", f"Google did not give a token within {TIMEOUT:g} s.")
    return bounded(TIMEOUT, lambda: _fetch(request), late)


def _fetch(request: Request) -> Credential:
    transport = Transport()
    try:
        return _GoogleFetch(request, transport).run()
    finally:
        transport.close()


class _GoogleFetch:
    def __init__(self, request: Request, transport: Transport) -> None:
        self._transport = transport
        self._source = str(request.option("source") or "adc")
        self._file = _text(request, "credentials-file")
        self._target = _text(request, "impersonate-service-account")
        self._lifetime = request.option("lifetime")
        self._identity: str | None = None
        self._login = SIGN_IN
        self._subject: files.Subject | None = None
        self._check_options()

    def _check_options(self) -> None:
        life = self._lifetime
        if self._source not in {"adc", "gcloud"}:
            raise rejected("bad-options", f"source is {self._source!r}; it is adc or gcloud.")
        if self._file is not None and self._source != "adc":
            raise rejected("bad-options", "credentials-file goes with source = adc only.")
        if life is None:
            return
        if self._target is None:
            raise rejected("bad-options", "lifetime only works with impersonate-service-account.")
        if isinstance(life, bool) or not isinstance(life, (int, float)) or not 1 <= life <= LONGEST_LIFE:
            raise rejected("bad-options", f"lifetime is between 1 and {LONGEST_LIFE} seconds.")

    def run(self) -> Credential:
        if self._source == "gcloud":
            return self._gcloud()
        credentials = self._default()
        if self._target is not None:
            self._identity = _known(credentials, None) or self._identity
            credentials = self._impersonated(credentials)
        return self._refreshed(credentials)

    def _gcloud(self) -> Credential:
        token = gcloud.token()
        self._identity = token.account
        if self._target is not None:
            # google-auth uses naive UTC times.
            expiry = token.expires_at.replace(tzinfo=None) if token.expires_at else None
            return self._refreshed(self._impersonated(UserCredentials(token.token.reveal(), expiry=expiry)))  # type: ignore[no-untyped-call]
        return _credential(token.token.reveal(), token.expires_at, datetime.now(UTC), token.account)

    def _default(self) -> Any:
        file = self._file or os.environ.get(_FILE_VARIABLE)
        if file:
            named_by = "credentials-file" if self._file else _FILE_VARIABLE
            return self._from_file(Path(file).expanduser(), f"{file} (named by {named_by})", None)
        well_known = _well_known_file()
        if well_known.is_file():
            return self._from_file(well_known, str(well_known), SIGN_IN)
        return self._from_machine()

    def _from_file(self, path: Path, name: str, login: str | None) -> Any:
        info = _read(path, name, login)
        if _needs_permission(info):
            message = (
                f"{name} runs a program for its token, which google-auth does only if the environment contains "
                "GOOGLE_EXTERNAL_ACCOUNT_ALLOW_EXECUTABLES=1."
            )
            hint = 'set env = { GOOGLE_EXTERNAL_ACCOUNT_ALLOW_EXECUTABLES = "1" } for this index'
            raise rejected("executable-not-allowed", message, hint)
        try:
            scoped = with_scopes_if_required(files.credentials(info), list(SCOPES))  # type: ignore[no-untyped-call]
        except FetchFailed:
            raise
        except Exception as error:  # noqa: BLE001 - an invalid file raises DefaultCredentialsError, AttributeError …
            message = f"{name} does not contain credentials that google-auth knows ({type(error).__name__})."
            raise _bad_file(message, login) from None
        self._identity = _identity_of(info)
        self._login = files.sign_in_command(info)
        self._subject = files.subject(info)
        return scoped

    def _from_machine(self) -> Any:
        named = os.environ.get("GCE_METADATA_HOST") or os.environ.get("GCE_METADATA_ROOT")
        host = named or os.environ.get("GCE_METADATA_IP") or "169.254.169.254"
        if os.environ.get("NO_GCE_CHECK") != "true":
            if self._transport.is_metadata_server(host):
                # If the universe is given, google-auth does not ask for it, which it would do without our time limits.
                return compute_engine.Credentials(scopes=list(SCOPES), universe_domain="googleapis.com")  # type: ignore[no-untyped-call]
            if named or _is_google_machine():
                raise transient("unreachable", "The metadata server of this machine does not answer.")
        if accounts := gcloud.accounts():
            message = f"No Application Default Credentials found, but gcloud is signed in as {' and '.join(accounts)}."
            raise login_required("no-credentials", message, f'set source = "gcloud" for this index, or run: {SIGN_IN}')
        raise login_required("no-credentials", "No Google credentials found.", SIGN_IN)

    def _impersonated(self, source: Any) -> Any:
        life = int(self._lifetime) if isinstance(self._lifetime, (int, float)) else 3600
        return impersonated_credentials.Credentials(  # type: ignore[no-untyped-call]
            source_credentials=source, target_principal=self._target, target_scopes=list(SCOPES), lifetime=life
        )

    def _refreshed(self, credentials: Any) -> Credential:
        try:
            credentials.refresh(self._transport)
        except FetchFailed:
            raise
        except Exception as error:  # noqa: BLE001 - google-auth also raises builtin exceptions, and their texts may contain secrets
            raise self._explained(error) from None
        last = self._transport.last
        at = datetime.now(UTC) if last is None else last.at
        who = _known(credentials, self._identity)
        credential = _credential(credentials.token, _end(credentials.expiry, last), at, who)
        return replace(credential, skew=None if last is None else skew(last.date, last.at))

    def _explained(self, error: Exception) -> FetchFailed:
        last, kind = self._transport.last, type(error).__name__
        if last is None or (last.status == 200 and not _is_ours(last)):
            wrong = self._subject.problem(error) if self._subject is not None else None
            message = f"The token to exchange for one of Google's is not available ({kind})."
            return wrong or transient("subject-token", message)
        if 400 <= last.status < 500:
            return refused(last, self._identity, self._login)
        return transient("bad-answer", f"google-auth does not understand Google's answer ({kind}).")


def _text(request: Request, key: str) -> str | None:
    value = request.option(key)
    return value if isinstance(value, str) and value else None


def _well_known_file() -> Path:
    """Return the path where gcloud stores ADC (google-auth ``google/auth/_cloud_sdk.py``)."""
    directory = os.environ.get("CLOUDSDK_CONFIG")
    root = Path(directory).expanduser() if directory else Path("~/.config/gcloud").expanduser()
    return root / "application_default_credentials.json"


def _read(path: Path, name: str, login: str | None) -> dict[str, Any]:
    try:
        info = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise rejected("no-credentials-file", f"{name} does not exist.") from None
    except OSError as error:
        raise rejected("bad-credentials-file", f"{name} cannot be read: {error.strerror}.") from None
    except (ValueError, RecursionError):
        raise _bad_file(f"{name} is not JSON.", login) from None
    if not isinstance(info, dict):
        raise _bad_file(f"{name} does not contain credentials.", login)
    return info


def _bad_file(message: str, login: str | None) -> FetchFailed:
    """Return the failure for an unusable file. Signing in only fixes the file that the sign-in command writes."""
    if login is None:
        return rejected("bad-credentials-file", message)
    return login_required("bad-credentials-file", message, login)


def _needs_permission(info: dict[str, Any]) -> bool:
    source = info.get("credential_source")
    allowed = os.environ.get("GOOGLE_EXTERNAL_ACCOUNT_ALLOW_EXECUTABLES") == "1"
    return isinstance(source, dict) and "executable" in source and not allowed


def _is_google_machine() -> bool:
    try:
        return _PRODUCT_NAME.read_text(encoding="utf-8", errors="replace").startswith("Google")
    except OSError:
        return False


def _identity_of(info: dict[str, Any]) -> str | None:
    for key in ("client_email", "account", "audience"):
        value = info.get(key)
        if isinstance(value, str) and value:
            return value
    inner = info.get("source_credentials")
    return _identity_of(inner) if isinstance(inner, dict) else None


def _known(credentials: Any, otherwise: str | None) -> str | None:
    email = getattr(credentials, "service_account_email", None)
    if isinstance(email, str) and "@" in email:
        return email
    token = getattr(credentials, "id_token", None)
    if isinstance(token, str):
        try:
            claimed = jwt.decode(token, verify=False).get("email")  # type: ignore[no-untyped-call]
        except Exception:  # noqa: BLE001 - the ID token is optional and only used for display
            return otherwise
        return claimed if isinstance(claimed, str) else otherwise
    return otherwise


def _is_ours(exchange: Exchange) -> bool:
    """Return whether this call requested the token itself, not a subject token or a machine's own keys."""
    return bool(exchange.grant) or "/computeMetadata/" in exchange.url or exchange.url.endswith(":generateAccessToken")


def _end(expiry: datetime | None, last: Exchange | None) -> datetime | None:
    """Return the expiry on this machine's clock. google-auth computes it as naive UTC from a relative value."""
    if expiry is None:
        return None
    ends = expiry.replace(tzinfo=UTC)
    return on_our_clock(ends, last) if last is not None and last.url.endswith(":generateAccessToken") else ends


def _credential(token: Any, ends: datetime | None, at: datetime, identity: str | None) -> Credential:
    if not isinstance(token, str) or not token or not token.isprintable() or " " in token:
        raise transient("bad-answer", "The response did not contain a valid token.")
    return Credential(CLOUD.login, Secret(token), at, ends, identity=identity)

"""Use the identity of ``gcloud auth login`` if the configuration names gcloud as the source. It is never a fallback."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from uvtokend.plugin import FetchFailed, Secret, login_required, rejected, set_clock, transient
from uvtokend.providers.kit.programs import find_fix

SIGN_IN = "gcloud auth login"
#: Seconds that gcloud may take. It needs one or two, and retries failed calls itself.
TIMEOUT = 40.0
#: The output includes the account of the gcloud configuration, so that the status can say whose token it is.
_FIELDS = (
    "credential.access_token",
    "credential.token_expiry",
    "configuration.properties.core.account",
    "configuration.properties.auth.impersonate_service_account",
)
_NETWORK = (
    "max retries exceeded",
    "unable to find the server",
    "connection aborted",
    "connection refused",
    "timed out",
)
_REAUTHENTICATION = ("reauthentication", "invalid_rapt", "rapt_required")
_NO_ACCOUNT = ("active account selected", "does not have any valid credentials", "credentialed account")


@dataclass(frozen=True, slots=True)
class GcloudToken:
    """The output of gcloud.

    Args:
        token: The access token.
        expires_at: The expiry of the token, UTC. gcloud documents that it may be unknown.
        account: The account of the token, if gcloud's configuration says so.
    """

    token: Secret
    expires_at: datetime | None
    account: str | None


def token() -> GcloudToken:
    """Return a new token from gcloud. Without a forced refresh, gcloud may return a token that is about to expire.

    Raises:
        FetchFailed: gcloud is missing, hangs, needs a sign-in or prints invalid output.
    """
    program = shutil.which("gcloud")
    if program is None:
        raise rejected("no-gcloud", "gcloud is not on the PATH that uvtokend runs with.")
    fields = ",".join(_FIELDS)
    command = [program, "config", "config-helper", "--force-auth-refresh", f"--format=json({fields})"]
    status, said, complaint = _run(command)
    if status != 0:
        raise _explained(complaint.lower())
    return _parsed(said)


def accounts() -> list[str]:
    """Return the accounts in gcloud's own credential store; empty if the store cannot be read.

    The store is a SQLite file (gcloud ``googlecloudsdk/core/credentials/creds.py``). Only names are read from it.
    """
    root = os.environ.get("CLOUDSDK_CONFIG") or os.path.expanduser("~/.config/gcloud")
    if shutil.which("gcloud") is None:
        return []
    import sqlite3  # noqa: PLC0415 - only the fix of a failure needs it

    with contextlib.suppress(sqlite3.Error):
        uri = f"{Path(root, 'credentials.db').absolute().as_uri()}?mode=ro"
        with contextlib.closing(sqlite3.connect(uri, timeout=1, uri=True)) as store:
            return [str(name) for (name,) in store.execute("SELECT account_id FROM credentials ORDER BY account_id")]
    return []


def _run(command: list[str]) -> tuple[int, str, str]:
    """Run gcloud in our process group, so that it and its children are killed together with the worker."""
    try:
        process = subprocess.Popen(  # noqa: S603 - the gcloud that the user named as the source
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=_environment(),
            encoding="utf-8",
            errors="replace",
        )
    except OSError as error:
        message = f"gcloud cannot be started: {error.strerror or 'the system refused'}."
        raise rejected("no-gcloud", message, find_fix("gcloud")) from None
    with process:
        try:
            said, complaint = process.communicate(timeout=TIMEOUT)
        except subprocess.TimeoutExpired:
            process.kill()  # its children may keep the pipes open, so do not continue reading
            raise transient("timeout", f"gcloud did not answer within {TIMEOUT:g} s.") from None
    return process.returncode, said, complaint


def _environment() -> dict[str, str]:
    env = {**os.environ, "CLOUDSDK_CORE_DISABLE_PROMPTS": "1"}
    bundle = env.get("REQUESTS_CA_BUNDLE")
    if bundle:  # gcloud knows only its own setting (gcloud reference, core/custom_ca_certs_file)
        env.setdefault("CLOUDSDK_CORE_CUSTOM_CA_CERTS_FILE", bundle)
    return env


def _explained(complaint: str) -> FetchFailed:
    # gcloud advises a login even if it only could not reach Google, so check for that first.
    if "certificate_verify_failed" in complaint:
        return transient("untrusted-certificate", "gcloud does not trust the TLS certificate presented for Google.")
    if any(word in complaint for word in _NETWORK):
        return transient("unreachable", "gcloud could not reach Google.")
    if any(word in complaint for word in _REAUTHENTICATION):
        message = "The organization requires this user to sign in again (reauthentication)."
        return login_required("reauthentication", message, SIGN_IN)
    if any(word in complaint for word in _NO_ACCOUNT):
        return login_required("no-account", "gcloud has no active account.", SIGN_IN)
    if "short-lived token" in complaint:
        message = "This machine's clock is wrong by minutes, so Google refuses what gcloud signs."
        return transient("clock-skew", message, set_clock())
    if "invalid_grant" in complaint:
        login = f"{SIGN_IN} --cred-file=KEY.json" if "activate-service-account" in complaint else SIGN_IN
        return login_required("login-expired", "The sign-in of gcloud has expired or was revoked.", login)
    if "failed to impersonate" in complaint:
        return rejected(
            "impersonation-denied", "gcloud's account is not allowed to impersonate the account that gcloud is set to."
        )
    message = "gcloud failed for an unknown reason."
    return transient("gcloud-failed", message, "gcloud config config-helper --format='value(credential.token_expiry)'")


def _parsed(said: str) -> GcloudToken:
    try:
        answer = json.loads(said)
        access = answer["credential"]["access_token"]
        expiry = answer["credential"].get("token_expiry")
        expires_at = datetime.strptime(expiry, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC) if expiry else None
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError):
        raise transient("bad-answer", "gcloud answered something that is not a credential.") from None
    properties = _member(_member(answer, "configuration"), "properties")
    impersonated = _member(properties, "auth").get("impersonate_service_account")
    account = impersonated or _member(properties, "core").get("account")
    return GcloudToken(Secret(access), expires_at, account if isinstance(account, str) else None)


def _member(value: dict[str, Any], name: str) -> dict[str, Any]:
    member = value.get(name)
    return member if isinstance(member, dict) else {}

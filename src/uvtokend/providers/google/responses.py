"""Classify the error responses of Google: the kind of failure, and its fix.

Sources: RFC 6749 5.2 and RFC 8693 2.2.2 (error codes), google-auth ``google/oauth2/reauth.py`` (reauthentication),
AIP-193 (errors of Google's APIs), the reference of ``generateAccessToken``, and texts in public logs.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from uvtokend.plugin import FetchFailed, excerpt, login_required, rejected, set_clock, transient
from uvtokend.providers.kit.http import Exchange

SIGN_IN = "gcloud auth application-default login"
#: A placeholder in a fix for a name that only the administrator of a pool knows.
_SUBJECT = "SUBJECT"
_REAUTHENTICATION = frozenset({"invalid_rapt", "rapt_required"})
_POLICY = frozenset({"access_denied", "admin_policy_enforced", "org_internal", "disabled_client"})
#: Errors of the security token service that a new token of the same kind would not change.
_WRONG_TOKEN = ("audience", "issuer", "attribute condition")
_CLIENT = frozenset({"invalid_client", "unauthorized_client", "deleted_client"})


def refused(exchange: Exchange, identity: str | None, login: str = SIGN_IN) -> FetchFailed:
    """Return the failure for a response with a 4xx status.

    Args:
        exchange: The call and its response.
        identity: The identity that sent the request, if known.
        login: The user's sign-in command.
    """
    if exchange.url.endswith(":generateAccessToken"):
        return _impersonation(exchange, identity)
    if "/computeMetadata/" in exchange.url:
        return _metadata(exchange)
    code, text = _code(exchange.body), str(exchange.body.get("error_description", ""))
    if code == "rate_limit_exceeded":
        return transient("throttled", "Google is throttling requests.")
    if code in _POLICY:
        return rejected("policy", f"A policy of the organization forbids this sign-in ({code}).")
    match exchange.grant:
        case "jwt-bearer":
            return _service_account(code, text, identity)
        case "token-exchange":
            return _federation(code, text)
        case "refresh_token":
            return _user(exchange.body, code, login)
    host = urlsplit(exchange.url).hostname
    return transient("subject-token", f"{host} did not give the token to exchange (HTTP {exchange.status}).")


def _code(body: Mapping[str, Any]) -> str:
    error = body.get("error")
    code = error.get("status", "") if isinstance(error, dict) else error
    return excerpt(code, 40) if isinstance(code, str) and code else "without a reason"


def _user(body: Mapping[str, Any], code: str, login: str) -> FetchFailed:
    if body.get("error_subtype") in _REAUTHENTICATION:
        message = "The organization requires this user to sign in again (reauthentication)."
        return login_required("reauthentication", message, login)
    if code == "invalid_grant":
        return login_required("login-expired", "The sign-in of this user has expired or was revoked.", login)
    if code in _CLIENT:
        message = f"Google no longer accepts the OAuth client of this sign-in ({code})."
        return login_required("client-refused", message, login)
    return rejected("refused", f"Google refused the sign-in of this user ({code}).", login)


def _service_account(code: str, text: str, identity: str | None) -> FetchFailed:
    who = identity or "the service account"
    if code == "invalid_grant" and ("short-lived token" in text or "iat and exp" in text):
        message = "This machine's clock is wrong by minutes, so Google refuses what it signs."
        return transient("clock-skew", message, set_clock())
    if code == "invalid_grant" and "account not found" in text:
        return rejected("account-gone", f"{who} no longer exists.", _command("describe", identity))
    if code == "invalid_grant":
        message = f"Google does not accept this key of {who}: it was deleted, or the account is disabled."
        return rejected("key-revoked", message, _command("keys create new-key.json --iam-account", identity))
    return rejected("refused", f"Google refused {who} ({code}).")


def _federation(code: str, text: str) -> FetchFailed:
    if code == "invalid_grant" and any(word in text.lower() for word in _WRONG_TOKEN):
        message = f"The workload identity pool does not accept this kind of token: {excerpt(text).removesuffix('.')}."
        return rejected("wrong-subject-token", message, "compare the token with the provider's issuer and audiences")
    if code == "invalid_grant":
        message = "Google does not accept the token to exchange: it has probably expired."
        return transient("subject-token", message)
    return rejected("federation-refused", f"The workload identity pool refused the exchange ({code}).")


def _impersonation(exchange: Exchange, identity: str | None) -> FetchFailed:
    target = exchange.url.rpartition("/")[2].removesuffix(":generateAccessToken")
    code, error = _code(exchange.body), exchange.body.get("error")
    text = str(error.get("message", "")) if isinstance(error, dict) else ""
    if "SERVICE_DISABLED" in str(exchange.body):
        message = "The API that impersonates service accounts is not enabled."
        return rejected("api-disabled", message, "gcloud services enable iamcredentials.googleapis.com")
    if exchange.status == 403:
        member, role = _member(identity)
        hint = _command("add-iam-policy-binding", target, f"--member={member}", f"--role=roles/iam.{role}")
        message = f"{identity or 'This identity'} is not allowed to impersonate {target}."
        if _SUBJECT in member:
            message += f" In the fix, {_SUBJECT} means the value of google.subject that the pool gives this identity."
        return rejected("impersonation-denied", message, hint)
    if exchange.status == 404:
        message = f"The service account {target} does not exist."
        return rejected("account-gone", message, _command("describe", target))
    if exchange.status == 400 and "lifetime" in text.lower():
        message = (
            f"{target} is not allowed to have tokens that live so long; more than 1 h needs the organization policy "
            "constraints/iam.allowServiceAccountCredentialLifetimeExtension."
        )
        return rejected("lifetime", message)
    return rejected("refused", f"Google refused to impersonate {target} ({code}).")


def _metadata(exchange: Exchange) -> FetchFailed:
    if exchange.status == 404:
        return rejected("no-service-account", "This machine has no service account.")
    return rejected("refused", f"The metadata server refused to give a token (HTTP {exchange.status}).")


def _command(verb: str, account: str | None, *more: str) -> str | None:
    if account is None:
        return None
    return shlex.join(["gcloud", "iam", "service-accounts", *verb.split(), account, *more])


def _member(identity: str | None) -> tuple[str, str]:
    """Return the IAM name of an identity, and the role that allows impersonation (IAM, "Principal identifiers")."""
    if identity is None:
        return "user:ACCOUNT", "serviceAccountTokenCreator"
    if identity.startswith("//"):  # a provider of a pool, whose other identities must not get the role
        return f"principal:{identity.partition('/providers/')[0]}/subject/{_SUBJECT}", "workloadIdentityUser"
    kind = "serviceAccount" if identity.endswith(".gserviceaccount.com") else "user"
    return f"{kind}:{identity}", "serviceAccountTokenCreator"

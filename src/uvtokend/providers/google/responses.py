"""What a refusal of Google means: which kind of failure it is, and what mends it.

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

LOGIN = "gcloud auth application-default login"
_REAUTHENTICATION = frozenset({"invalid_rapt", "rapt_required"})
_POLICY = frozenset({"access_denied", "admin_policy_enforced", "org_internal", "disabled_client"})
_CLIENT = frozenset({"invalid_client", "unauthorized_client", "deleted_client"})


def refused(exchange: Exchange, identity: str | None) -> FetchFailed:
    """Return what an answer with a 4xx status means.

    Args:
        exchange: The call and its answer.
        identity: Who asked, where known.
    """
    if exchange.url.endswith(":generateAccessToken"):
        return _impersonation(exchange, identity)
    if "/computeMetadata/" in exchange.url:
        return _metadata(exchange)
    code, text = _code(exchange.body), str(exchange.body.get("error_description", ""))
    if code == "rate_limit_exceeded":
        return transient("throttled", "Google asks us to come again later.")
    if code in _POLICY:
        return rejected("policy", f"A policy of the organisation forbids this login ({code}).")
    by_grant = {"jwt-bearer": _service_account, "token-exchange": _federation, "refresh_token": _user}
    if exchange.grant in by_grant:
        return by_grant[exchange.grant](exchange.body, code, text, identity)
    host = urlsplit(exchange.url).hostname
    return transient("subject-token", f"{host} did not give the token that is to be exchanged ({exchange.status}).")


def _code(body: Mapping[str, Any]) -> str:
    error = body.get("error")
    found = error.get("status", "") if isinstance(error, dict) else error
    return excerpt(found, 40) if isinstance(found, str) and found else "without a reason"


def _user(body: Mapping[str, Any], code: str, _text: str, _identity: str | None) -> FetchFailed:
    if body.get("error_subtype") in _REAUTHENTICATION:
        message = "The organisation asks this user to log in again (reauthentication)."
        return login_required("reauthentication", message, LOGIN)
    if code == "invalid_grant":
        return login_required("login-expired", "The login of this user has expired or was revoked.", LOGIN)
    if code in _CLIENT:
        return login_required("client-refused", f"Google no longer accepts the client of this login ({code}).", LOGIN)
    return rejected("refused", f"Google refused this user's login ({code}).", LOGIN)


def _service_account(_body: Mapping[str, Any], code: str, text: str, identity: str | None) -> FetchFailed:
    who = identity or "the service account"
    if code == "invalid_grant" and ("short-lived token" in text or "iat and exp" in text):
        message = "This machine's clock is wrong by minutes, so Google refuses what it signs."
        return transient("clock-skew", message, set_clock())
    if code == "invalid_grant" and "account not found" in text:
        return rejected("account-gone", f"{who} does not exist any more.", _command("describe", identity))
    if code == "invalid_grant":
        message = f"Google does not accept this key of {who}: it was deleted, or the account is disabled."
        return rejected("key-revoked", message, _command("keys create new-key.json --iam-account", identity))
    return rejected("refused", f"Google refused {who} ({code}).")


def _federation(_body: Mapping[str, Any], code: str, _text: str, _identity: str | None) -> FetchFailed:
    if code == "invalid_grant":
        message = "Google does not accept the token that is to be exchanged: it has expired, or another issuer made it."
        return transient("subject-token", message)
    return rejected("federation-refused", f"The workload identity pool refused the exchange ({code}).")


def _impersonation(exchange: Exchange, identity: str | None) -> FetchFailed:
    target = exchange.url.rpartition("/")[2].removesuffix(":generateAccessToken")
    code, error = _code(exchange.body), exchange.body.get("error")
    text = str(error.get("message", "")) if isinstance(error, dict) else ""
    if "SERVICE_DISABLED" in str(exchange.body):
        message = "The API that impersonates service accounts is not switched on."
        return rejected("api-disabled", message, "gcloud services enable iamcredentials.googleapis.com")
    if exchange.status == 403:
        hint = _command("add-iam-policy-binding", target, f"--member={_member(identity)}")
        message = f"{identity or 'This identity'} may not impersonate {target}."
        return rejected("impersonation-denied", message, f"{hint} --role=roles/iam.serviceAccountTokenCreator")
    if exchange.status == 404:
        message = f"There is no service account {target}."
        return rejected("account-gone", message, _command("describe", target))
    if exchange.status == 400 and "lifetime" in text.lower():
        message = (
            f"{target} may not have tokens that live so long; more than 3600 s needs the organisation policy "
            "constraints/iam.allowServiceAccountCredentialLifetimeExtension."
        )
        return rejected("lifetime", message)
    return rejected("refused", f"Google refused to impersonate {target} ({code}).")


def _metadata(exchange: Exchange) -> FetchFailed:
    if exchange.status == 404:
        return rejected("no-service-account", "This machine has no service account.")
    return rejected("refused", f"The metadata server refused to give a token ({exchange.status}).")


def _command(verb: str, account: str | None, *more: str) -> str | None:
    if account is None:
        return None
    return shlex.join(["gcloud", "iam", "service-accounts", *verb.split(), account, *more])


def _member(identity: str | None) -> str:
    if identity is None:
        return "user:ACCOUNT"
    if identity.startswith("//"):  # a workload identity provider: its pool's members are named by the attribute
        return f"principalSet:{identity.partition('/providers/')[0]}/*"
    return f"serviceAccount:{identity}" if identity.endswith(".gserviceaccount.com") else f"user:{identity}"

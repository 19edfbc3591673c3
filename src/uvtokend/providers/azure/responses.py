"""Classify the refusals of Microsoft Entra: the kind of failure, and its fix.

Sources: "Microsoft Entra authentication and authorization error codes" (AADSTS numbers; they may change, so a number
that is not in the table is shown to the user as it is), RFC 6749 5.2, and public logs of azure-cli, azd and
azure-identity.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from uvtokend.plugin import Failure, FailureKind, FetchFailed, transient
from uvtokend.providers.azure.fixes import Who

_CODE = re.compile(r"AADSTS(\d{4,8})")
_LOGIN: FailureKind = "login-required"
_NO: FailureKind = "rejected"
_LATER: FailureKind = "transient"

_Meaning = tuple[FailureKind, str, str]
_MFA: _Meaning = (_LOGIN, "mfa-required", "Entra requires a second factor from this user.")
_EXPIRED: _Meaning = (_LOGIN, "login-expired", "This user's sign-in has expired or was revoked.")
_TALK: _Meaning = (_LOGIN, "interaction-required", "Entra requires this user to answer a question.")
_POLICY: _Meaning = (_NO, "conditional-access", "A conditional access policy of the organization blocks this sign-in.")
_NO_USER: _Meaning = (_NO, "no-such-user", "This user does not exist in the tenant and is not a guest there.")
_NO_APP: _Meaning = (_NO, "no-such-application", "The tenant does not know this application.")
_NO_TENANT: _Meaning = (_NO, "no-such-tenant", "The tenant does not exist.")
_NOT_TRUSTED: _Meaning = (
    _NO,
    "federation-refused",
    "The application has no federated credential that matches the issuer, subject and audience of this assertion.",
)
_BUSY: _Meaning = (_LATER, "throttled", "Entra is throttling requests.")
_DOWN: _Meaning = (_LATER, "server-error", "Entra is temporarily unavailable.")
_BAD_KEY: _Meaning = (_NO, "bad-certificate", "Entra rejected the certificate: it does not belong to this application.")

_MEANINGS: Mapping[int, _Meaning] = {
    **dict.fromkeys((50072, 50074, 50076, 50078, 50079, 50158, 500121), _MFA),
    **dict.fromkeys((50058, 50132, 50133, 50173, 50089, 70008, 70043, 700081, 700082, 700084, 135010), _EXPIRED),
    **dict.fromkeys((16000, 16001, 50055, 50144, 65001, 65004, 90072), _TALK),
    **dict.fromkeys((53000, 53001, 53002, 53003, 53004, 530003, 530004, 530084, 50005, 50097, 50131), _POLICY),
    **dict.fromkeys((50020, 50034, 51004), _NO_USER),
    **dict.fromkeys((700016, 70001), _NO_APP),
    **dict.fromkeys((90002, 900023, 50059), _NO_TENANT),
    **dict.fromkeys((70021, 700211, 700212, 700213, 700214, 700223, 700238), _NOT_TRUSTED),
    **dict.fromkeys((90055, 50196, 90025), _BUSY),
    **dict.fromkeys((90033, 50000, 90006, 90024), _DOWN),
    **dict.fromkeys((700027, 700021), _BAD_KEY),
    50053: (_LATER, "account-locked", "This account is locked temporarily after too many failed sign-ins."),
    50057: (_NO, "account-disabled", "This account is disabled."),
    50105: (_NO, "not-assigned", "An administrator must first assign this user to the application."),
    50126: (_NO, "wrong-password", "Entra rejected this user's password."),
    500011: (_NO, "no-azure-devops", "This tenant does not know Azure DevOps; it is probably the wrong tenant."),
    700024: (_LATER, "assertion-expired", "The workload's assertion has expired, or this machine's clock is wrong."),
    7000112: (_NO, "application-disabled", "The application is disabled."),
    7000215: (_NO, "wrong-secret", "Entra rejected the client secret of this application."),
    7000222: (_NO, "secret-expired", "The client secret of this application has expired."),
    7000216: (_NO, "wrong-secret", "Entra requires a client secret or an assertion, and did not get a usable one."),
}
#: az reports this for a federated sign-in whose assertion is not renewed (public CI logs).
_OLD_ASSERTION = 700024
#: How Entra names the application in its texts: "for app '…'" (public logs of AADSTS7000222), "identifier '…'".
_APP = re.compile(r"(?:app|application|identifier) '([0-9a-fA-F-]{36})'")

_NETWORK = (
    "max retries exceeded",
    "newconnectionerror",
    "connection aborted",
    "connection refused",
    "connection error",
    "connection reset",
    "failed to establish a new connection",
    "getaddrinfo failed",
    "name or service not known",
    "temporary failure in name resolution",
    "network is unreachable",
    "no such host",
    "dial tcp",
    "timed out",
    "i/o timeout",
)
_CERTIFICATE = ("certificate_verify_failed", "certificate verify failed", "x509: certificate", "sslerror")


def refused(text: str, body: Mapping[str, Any], who: Who) -> FetchFailed:
    """Return the failure for a refusal.

    Args:
        text: The message of the library or tool; only its error numbers and client IDs are ever repeated.
        body: The JSON of Entra's response, if there was any.
        who: The credential that was refused.
    """
    said = f"{body.get('error_description', '')} {text}"
    match = _CODE.search(said)
    code = int(match[1]) if match else 0
    if who.is_user and (app := _APP.search(said)):
        who = replace(who, client=app[1])
    if code == _OLD_ASSERTION and who.is_user:
        meaning: _Meaning | None = _EXPIRED
    else:
        meaning = _MEANINGS.get(code)
    if meaning is None:
        return _unknown(code, str(body.get("error", "")), who)
    kind, reason, message = meaning
    hint = who.hint(reason)
    return FetchFailed(Failure(kind, reason, f"{message.removesuffix('.')} (AADSTS{code}).", hint))


def policy(text: str) -> bool:
    """Return whether a text of Entra or Azure DevOps reports a conditional access policy."""
    match = _CODE.search(text)
    return "VS403463" in text or (match is not None and _MEANINGS.get(int(match[1])) is _POLICY)


def unreachable(text: str, tool: str) -> FetchFailed | None:
    """Return the failure for a tool's message about the network, or None if the message is about something else."""
    lower = text.lower()
    if "aadsts" in lower:
        return None
    if any(word in lower for word in _CERTIFICATE):
        return transient("untrusted-certificate", f"{tool} does not trust the TLS certificate that it was shown.")
    if any(word in lower for word in _NETWORK):
        return transient("unreachable", f"{tool} could not reach Entra.")
    return None


def _unknown(code: int, error: str, who: Who) -> FetchFailed:
    if error in {"temporarily_unavailable", "server_error"}:
        return FetchFailed(Failure(*_DOWN))
    if error in {"invalid_grant", "interaction_required", "login_required", "consent_required"} and who.is_user:
        return FetchFailed(Failure(*_EXPIRED, who.hint("login-expired")))
    about = f" (AADSTS{code}, see https://login.microsoftonline.com/error?code={code})" if code else ""
    message = f"Entra refused {who.name}{about}."
    if who.is_user:
        return FetchFailed(Failure(_LOGIN, "login-refused", message, who.hint("login-refused")))
    return FetchFailed(Failure(_NO, "refused", message, who.hint("refused")))

"""What a refusal of Microsoft Entra means: which kind of failure it is, and what mends it.

Sources: "Microsoft Entra authentication and authorization error codes" (AADSTS numbers; they may change, so what is not
in the table is told by its number), RFC 6749 5.2, and texts in public logs of azure-cli, azd and azure-identity.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from uvtokend.core.model import Failure, FailureKind
from uvtokend.errors import FetchFailed
from uvtokend.providers.azure.fixes import Who
from uvtokend.providers.kit.failures import transient

_CODE = re.compile(r"AADSTS(\d{4,8})")
_LOGIN: FailureKind = "login-required"
_NO: FailureKind = "rejected"
_LATER: FailureKind = "transient"

_Meaning = tuple[FailureKind, str, str]
_MFA: _Meaning = (_LOGIN, "mfa-required", "Entra asks this user for a second factor.")
_EXPIRED: _Meaning = (_LOGIN, "login-expired", "The login of this user has expired or was revoked.")
_TALK: _Meaning = (_LOGIN, "interaction-required", "Entra has a question for this user.")
_POLICY: _Meaning = (_NO, "conditional-access", "A conditional access policy of the organisation forbids this sign-in.")
_NO_USER: _Meaning = (_NO, "no-such-user", "This user does not exist in the tenant, or is not a guest of it.")
_NO_APP: _Meaning = (_NO, "no-such-application", "The tenant knows no such application.")
_NO_TENANT: _Meaning = (_NO, "no-such-tenant", "There is no such tenant.")
_NOT_TRUSTED: _Meaning = (
    _NO,
    "federation-refused",
    "The application has no federated credential that matches the issuer, subject and audience of this assertion.",
)
_BUSY: _Meaning = (_LATER, "throttled", "Entra asks us to come again later.")
_DOWN: _Meaning = (_LATER, "server-error", "Entra cannot answer at the moment.")
_BAD_KEY: _Meaning = (_NO, "bad-certificate", "Entra does not accept this certificate: it is not the application's.")

_MEANINGS: Mapping[int, _Meaning] = {
    **dict.fromkeys((50072, 50074, 50076, 50078, 50079, 50158, 500121), _MFA),
    **dict.fromkeys((50058, 50132, 50133, 50173, 50089, 70008, 70043, 700081, 700082, 700084, 135010), _EXPIRED),
    **dict.fromkeys((16000, 16001, 50055, 50144, 65001, 65004, 90072), _TALK),
    **dict.fromkeys((53000, 53001, 53002, 53003, 53004, 530003, 530004, 50005, 50097, 50131), _POLICY),
    **dict.fromkeys((50020, 50034, 51004), _NO_USER),
    **dict.fromkeys((700016, 70001), _NO_APP),
    **dict.fromkeys((90002, 900023, 50059), _NO_TENANT),
    **dict.fromkeys((70021, 700211, 700212, 700213, 700214, 700223, 700238), _NOT_TRUSTED),
    **dict.fromkeys((90055, 50196, 90025), _BUSY),
    **dict.fromkeys((90033, 50000, 90006, 90024), _DOWN),
    **dict.fromkeys((700027, 700021), _BAD_KEY),
    50053: (_LATER, "account-locked", "This account is locked for a while, after too many wrong sign-ins."),
    50057: (_NO, "account-disabled", "This account is disabled."),
    50105: (_NO, "not-assigned", "An administrator has to assign this user to the application first."),
    50126: (_NO, "wrong-password", "Entra does not accept this user's password."),
    500011: (_NO, "no-azure-devops", "Azure DevOps is not known in this tenant; most likely it is the wrong tenant."),
    700024: (_LATER, "assertion-expired", "The workload's assertion has expired, or this machine's clock is wrong."),
    7000112: (_NO, "application-disabled", "The application is disabled."),
    7000215: (_NO, "wrong-secret", "Entra does not accept the client secret of this application."),
    7000222: (_NO, "secret-expired", "The client secret of this application has expired."),
    7000216: (_NO, "wrong-secret", "Entra wants a client secret or an assertion, and got none that it can use."),
}
#: az answers these for a login by federated token, which nobody renews (public CI logs).
_OLD_ASSERTION = 700024

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
    """Return what a refusal means.

    Args:
        text: What the library or tool said; only numbers of it are ever repeated.
        body: The JSON of Entra's answer, as far as there was one.
        who: The credential that was refused.
    """
    found = _CODE.search(f"{body.get('error_description', '')} {text}")
    code = int(found[1]) if found else 0
    if code == _OLD_ASSERTION and who.is_user:
        meaning: _Meaning | None = _EXPIRED
    else:
        meaning = _MEANINGS.get(code)
    if meaning is None:
        return _unknown(code, str(body.get("error", "")), who)
    kind, reason, message = meaning
    hint = who.hint(reason)
    return FetchFailed(Failure(kind, reason, f"{message.removesuffix('.')} (AADSTS{code}).", hint))


def unreachable(text: str, tool: str) -> FetchFailed | None:
    """Return what a tool's complaint about the network means, or None where it is about something else."""
    lower = text.lower()
    if "aadsts" in lower:
        return None
    if any(word in lower for word in _CERTIFICATE):
        return transient("untrusted-certificate", f"{tool} does not trust the certificate that it was shown.")
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

"""What the author of a provider imports: everything in ``__all__``, and nothing else of uvtokend.

A provider is a function behind the entry-point group ``uvtokend.providers``::

    from datetime import UTC, datetime, timedelta

    from uvtokend.plugin import Credential, Request, quiet, read_secret, rejected

    @quiet
    def fetch(request: Request) -> Credential:
        key = read_secret(request.option("key"))
        token = ...  # or: raise rejected("wrong-key", "acme does not accept the key.", "acme keys renew")
        now = datetime.now(UTC)
        return Credential("acme", token, now, now + timedelta(hours=1))

It runs in a process of its own, which is ended at its deadline. `uvtokend.testing.ProviderContract` checks it.
uvtokend's own providers import this module too, besides what they share in ``uvtokend.providers.kit``. These names stay
where they are; everything else may move from one version to the next.
"""

from __future__ import annotations

from uvtokend.core.fixes import set_clock, show_clock
from uvtokend.core.model import Credential, Failure, FailureKind, Frozen, Notice, Request, Secret, SignInEnd
from uvtokend.core.rfc3339 import parse_zulu, zulu
from uvtokend.errors import FetchFailed, UvtokendError
from uvtokend.providers.kit.failures import (
    excerpt,
    login_required,
    parse_http_date,
    parse_retry_after,
    rejected,
    too_much,
    transient,
)
from uvtokend.providers.kit.quiet import quiet
from uvtokend.providers.kit.secrets import RENEW, checked, end_of, place, read_secret
from uvtokend.providers.kit.skew import skew

__all__ = [
    "RENEW",
    "Credential",
    "Failure",
    "FailureKind",
    "FetchFailed",
    "Frozen",
    "Notice",
    "Request",
    "Secret",
    "SignInEnd",
    "UvtokendError",
    "checked",
    "end_of",
    "excerpt",
    "login_required",
    "parse_http_date",
    "parse_retry_after",
    "parse_zulu",
    "place",
    "quiet",
    "read_secret",
    "rejected",
    "set_clock",
    "show_clock",
    "skew",
    "too_much",
    "transient",
    "zulu",
]

"""Notices about valid tokens: what the user should know in advance."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from uvtokend.core import fixes, notices
from uvtokend.core.model import Credential, Notice, Secret, SignInEnd

NOW = datetime(2026, 1, 31, 8, tzinfo=UTC)
RENEW = "put a new password where password says"
GOOD = Credential("me", Secret("token"), NOW, NOW + timedelta(hours=1), skew=0.5)


def reported(credential: Credential | None) -> list[tuple[str, str, str | None]]:
    return [(notice.reason, notice.message, notice.hint) for notice in notices.of(credential, NOW)]


def test_no_notice_for_a_token_that_is_refreshed() -> None:
    """A missing token, a token without an expiry, and one that the next fetch replaces get no notice."""
    assert reported(GOOD) == reported(None) == reported(replace(GOOD, expires_at=None, renew=RENEW)) == []


@pytest.mark.parametrize(
    ("left", "words"),
    [
        (timedelta(days=7), "7 days"),
        (timedelta(days=2, hours=5), "2 days"),
        (timedelta(hours=48), "2 days"),
        (timedelta(hours=47), "47 hours"),
    ],
)
def test_a_notice_precedes_the_end_of_a_static_secret_by_a_week(left: timedelta, words: str) -> None:
    """From a week before its expiry, a secret that only a person can renew has a notice with the time left and the
    fix."""
    static = replace(GOOD, expires_at=NOW + left, renew=RENEW)
    assert reported(static) == [("ends-soon", f"This secret ends in {words}, and no fetch can renew it.", RENEW)]
    assert reported(replace(static, expires_at=NOW + timedelta(days=7, seconds=1))) == []


def test_the_providers_notice_comes_first() -> None:
    """A provider may attach a notice to a valid token; it comes before the others."""
    notice = Notice("missing-scope", "It cannot rotate itself.", "create another")
    credential = replace(GOOD, skew=300.0, notice=notice)
    assert [each.reason for each in notices.of(credential, NOW)] == ["missing-scope", "clock-skew"]


@pytest.mark.parametrize(("skew", "words"), [(300.0, "5 minutes ahead of"), (-121.0, "2 minutes behind")])
def test_a_clock_that_is_wrong_by_more_than_two_minutes(skew: float, words: str) -> None:
    """The notice says in which direction the clock is wrong and by how much. Up to 2 minutes there is none."""
    message = f"This machine's clock is about {words} the issuer's."
    assert reported(replace(GOOD, skew=skew)) == [("clock-skew", message, fixes.show_clock())]
    assert reported(replace(GOOD, skew=120.0)) == reported(replace(GOOD, skew=None)) == []


@pytest.mark.parametrize(
    ("left", "words"),
    [
        (timedelta(hours=1), "expires in 60 min"),
        (timedelta(seconds=59), "expires in 0 min"),
        (timedelta(seconds=-1), "has expired"),
    ],
)
def test_a_sign_in_that_ends_soon(left: timedelta, words: str) -> None:
    """From an hour before its end, a sign-in has a notice with the sign-in command, even if the token is valid for
    longer."""
    end = SignInEnd("the temporary keys of the AWS profile 'dev'", NOW + left, "saml2aws login --profile dev")
    message = f"The temporary keys of the AWS profile 'dev' {words}."
    assert reported(replace(GOOD, sign_in_end=end)) == [("sign-in-ends", message, end.command)]
    assert reported(replace(GOOD, sign_in_end=replace(end, at=NOW + timedelta(minutes=61)))) == []

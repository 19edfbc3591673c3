"""What a person should know in time, although the token is good."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from uvtokend.core import fixes, notices
from uvtokend.core.model import Credential, Notice, Secret, SignInEnd

NOW = datetime(2026, 1, 31, 8, tzinfo=UTC)
RENEW = "put a new password where password says"
GOOD = Credential("me", Secret("token"), NOW, NOW + timedelta(hours=1), skew=0.5)


def told(credential: Credential | None) -> list[tuple[str, str, str | None]]:
    return [(notice.reason, notice.message, notice.hint) for notice in notices.of(credential, NOW)]


def test_nothing_is_said_of_what_renews_itself() -> None:
    """A token that the next fetch renews may end as soon as it likes; so may none at all."""
    assert told(GOOD) == told(None) == told(replace(GOOD, expires_at=None, renew=RENEW)) == []


@pytest.mark.parametrize(
    ("left", "words"),
    [(timedelta(days=7), "7 days"), (timedelta(days=2, hours=5), "2 days"), (timedelta(hours=47), "47 hours")],
)
def test_a_secret_that_only_a_person_renews_is_spoken_of_a_week_before(left: timedelta, words: str) -> None:
    """It says how long is left and what to do, from a week before the end on, and not before."""
    static = replace(GOOD, expires_at=NOW + left, renew=RENEW)
    assert told(static) == [("ends-soon", f"This secret ends in {words}, and no fetch can renew it.", RENEW)]
    assert told(replace(static, expires_at=NOW + timedelta(days=7, seconds=1))) == []


def test_what_the_provider_wants_to_say_comes_first() -> None:
    """A valid token may have a notice of its own."""
    notice = Notice("missing-scope", "It cannot rotate itself.", "create another")
    credential = replace(GOOD, skew=300.0, notice=notice)
    assert [each.reason for each in notices.of(credential, NOW)] == ["missing-scope", "clock-skew"]


@pytest.mark.parametrize(("skew", "words"), [(300.0, "5 minutes ahead of"), (-121.0, "2 minutes behind")])
def test_a_clock_that_is_off_by_more_than_two_minutes_is_named(skew: float, words: str) -> None:
    """Which side and by how much; two minutes are nothing."""
    message = f"This machine's clock is about {words} the issuer's."
    assert told(replace(GOOD, skew=skew)) == [("clock-skew", message, fixes.show_clock())]
    assert told(replace(GOOD, skew=120.0)) == told(replace(GOOD, skew=None)) == []


@pytest.mark.parametrize(
    ("left", "words"), [(timedelta(hours=1), "expires in 60 min"), (timedelta(seconds=-90), "has expired")]
)
def test_a_sign_in_that_ends_soon_is_named(left: timedelta, words: str) -> None:
    """From an hour before its end on, with the command that signs in again; the token may live for longer."""
    end = SignInEnd("the temporary keys of the AWS profile 'dev'", NOW + left, "saml2aws login --profile dev")
    message = f"The temporary keys of the AWS profile 'dev' {words}."
    assert told(replace(GOOD, sign_in_end=end)) == [("sign-in-ends", message, end.command)]
    assert told(replace(GOOD, sign_in_end=replace(end, at=NOW + timedelta(minutes=61)))) == []

"""The state file: tokens that are still good are kept over a restart, and no file can do harm."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uvtokend.core import state
from uvtokend.core.model import Credential, Entry, Record, Request, Secret
from uvtokend.core.state import Boot, State

NOW = datetime(2026, 1, 31, 8, tzinfo=UTC)
HOUR = timedelta(hours=1)
REQUEST = Request("static", options=(("username", "me"),))
TOKEN = Credential("me", Secret("hunter2"), NOW, NOW + HOUR, NOW + HOUR / 3, "me@example.com")
RECORD = state.record(REQUEST, TOKEN, NOW + HOUR / 2, ("a.example", "b.example"))
STATE = State("netrc", (RECORD,), created=True)
STANDING = {"b.example": Entry("b.example", "me", Secret("hunter2"))}


def test_it_survives_the_disk_and_holds_no_secret() -> None:
    """What is written is read back, and the token is not in it."""
    text = state.encode(STATE)
    assert state.decode(text) == STATE
    assert b"hunter2" not in text
    assert STATE.ours() == {host: {("me", RECORD.sha256)} for host in ("a.example", "b.example")}
    endless = State("n", (state.record(REQUEST, Credential("", Secret("x"), NOW), NOW, ("h",)),))
    assert state.decode(state.encode(endless)) == endless


def test_the_last_tokens_are_remembered() -> None:
    """The new one comes first and each but once; of a host's former ones the oldest are forgotten, others' are not."""
    other = state.record(REQUEST, TOKEN, NOW, ("c.example",))
    known: tuple[Record, ...] = (other,)
    for number in range(2 * state.KEPT):
        record = replace(RECORD, sha256=str(number))
        known = state.remember([record], state.remember([record], known))
    newest = [str(number) for number in range(2 * state.KEPT)][: -state.KEPT - 1 : -1]
    assert [one.sha256 for one in known if one != other] == newest
    assert other in known
    assert State("n", known).ours()["b.example"] == {("me", digest) for digest in newest}


def test_a_place_is_forgotten() -> None:
    """A token that stands elsewhere, too, is still known there; one that stands nowhere else is not known any more."""
    other = state.record(REQUEST, TOKEN, NOW, ("c.example",))
    known = replace(STATE, records=(RECORD, other))
    left = state.without(known, {"a.example", "c.example"})
    assert left == replace(STATE, records=(replace(RECORD, targets=("b.example",)),))
    assert state.without(known, ()) == known


def test_a_living_token_is_recovered() -> None:
    """An entry that matches its record is kept with all that was known of it."""
    assert state.recover(STATE, STANDING, (REQUEST,), NOW + HOUR / 4) == {REQUEST: (TOKEN, NOW + HOUR / 2)}


def test_a_record_from_the_future_is_due_at_once() -> None:
    """A clock that was wrong does not put the refresh off."""
    before = NOW - HOUR
    assert state.recover(STATE, STANDING, (REQUEST,), before) == {REQUEST: (TOKEN, before)}


@pytest.mark.parametrize(
    ("standing", "request_", "at"),
    [
        ({}, REQUEST, NOW),
        ({"b.example": Entry("b.example", "me", Secret("other"))}, REQUEST, NOW),
        ({"b.example": Entry("b.example", "you", Secret("hunter2"))}, REQUEST, NOW),
        (STANDING, Request("static", options=(("username", "you"),)), NOW),
        (STANDING, REQUEST, NOW + HOUR),
    ],
    ids=["entry gone", "other token", "other login", "other configuration", "dead"],
)
def test_what_does_not_match_is_fetched_anew(standing: dict[str, Entry], request_: Request, at: datetime) -> None:
    """Nothing is recovered unless entry, record and configuration agree."""
    assert state.recover(STATE, standing, (request_,), at) == {}


@pytest.mark.parametrize("change", [{"version": 2}, {"tokens": [{}]}, {"tokens": 7}, {"netrc": ...}])
def test_a_file_that_does_not_fit_counts_as_not_there(change: dict[str, object]) -> None:
    """Unknown versions and missing keys are forgotten."""
    document = json.loads(state.encode(STATE)) | change
    document = {key: value for key, value in document.items() if value is not ...}
    assert state.decode(json.dumps(document).encode()) == State()


def test_times_without_a_zone_or_missing_are_refused() -> None:
    """A record needs to know when its token was issued, in UTC."""
    document = json.loads(state.encode(STATE))
    for bad in (None, "2026-01-31T08:00:00", "soon"):
        document["tokens"][0]["issued_at"] = bad
        assert state.decode(json.dumps(document).encode()) == State()


def test_a_clock_that_was_set_between_two_runs_kills_no_token() -> None:
    """The records move with the wall clock, as far as the same boot tells how far it was set; else they stay."""
    before = replace(STATE, boot=Boot("b", NOW))
    assert state.decode(state.encode(before)) == before
    ahead = state.on_clock(before, Boot("b", NOW + 30 * HOUR))
    assert (ahead.boot, ahead.records) == (Boot("b", NOW + 30 * HOUR), (state.shifted(RECORD, 30 * HOUR),))
    assert state.on_clock(ahead, Boot("b", NOW)) == before
    assert state.recover(ahead, STANDING, (REQUEST,), NOW + 30 * HOUR).keys() == {REQUEST}
    for stays in (before, replace(before, boot=None), replace(before, boot=Boot("", NOW))):
        for boot in (Boot("other", NOW + HOUR), Boot("", NOW + HOUR), Boot("b", NOW + timedelta(seconds=0.9))):
            assert state.on_clock(stays, boot) == stays


@given(st.binary(max_size=300))
def test_no_file_raises(text: bytes) -> None:
    """Any bytes are a state."""
    assert isinstance(state.decode(text), State)


def test_shifting_moves_every_time() -> None:
    """A record can be moved between two clocks and back."""
    moved = state.shifted(RECORD, HOUR)
    assert (moved.issued_at, moved.expires_at, moved.refresh_after) == (NOW + HOUR, NOW + 2 * HOUR, NOW + HOUR * 4 / 3)
    assert state.shifted(moved, -HOUR) == RECORD
    endless = state.record(REQUEST, Credential("", Secret("x"), NOW), NOW, ("h",))
    assert state.shifted(endless, HOUR).expires_at is None


def test_times_are_written_with_z() -> None:
    """RFC 3339 in UTC, milliseconds only where there are any."""
    assert state.zulu(NOW) == "2026-01-31T08:00:00Z"
    assert state.zulu(NOW.replace(microsecond=5000)) == "2026-01-31T08:00:00.005Z"
    assert state.zulu(None) is None

"""The state file: good tokens are kept over a restart, every written file is remembered, and no file can do harm."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from support.known_state import ENTRY, HOUR, NETRC, NOW, RECORD, REQUEST, STATE, TOKEN
from uvtokend.core import state, state_json
from uvtokend.core.model import Credential, Entry, Request, Secret
from uvtokend.core.state import Boot, Netrc, State

STANDING = {"b.example": ENTRY}


def test_a_digest_counts_from_the_moment_its_delivery_begins() -> None:
    """The new one comes first, each once; of a host's former ones the oldest are forgotten, those of others are not."""
    known = state.joined(
        State(), state.began(State(), "/n", [Entry("c.example", "me", Secret("other"))], [], "/c", created=True)
    )
    entries = [Entry("b.example", "me", Secret(str(number))) for number in range(2 * state.KEPT)]
    for entry in entries:
        for _ in range(2):
            known = state.joined(known, state.began(known, "/n", [entry], [RECORD], "/c", created=False))
    newest = tuple(entry.digest for entry in entries[: -state.KEPT - 1 : -1])
    assert known.ours("/n")["b.example"] == newest
    assert known.ours("/n").keys() == {"b.example", "c.example"}
    assert known.netrc("/n").created
    assert known.records == (RECORD,)


def test_only_what_is_new_is_noted() -> None:
    """An entry whose digest is known as the latest is not new, nor is a record that is in the state already."""
    second = Entry("c.example", "me", Secret("other"))
    news = state.began(STATE, "/home/me/.netrc", [ENTRY, second], STATE.records, "/c", created=False)
    assert news.netrcs["/home/me/.netrc"].delivered == {"c.example": (second.digest,)}
    assert (news.records, news.boot) == ((), STATE.boot)
    assert state.joined(STATE, news).records is STATE.records
    again = state.joined(state.joined(STATE, news), news)
    assert again == state.joined(STATE, news)


def test_news_name_more_only_with_another_host_or_netrc() -> None:
    """Another token for a known host names nothing that the state does not name."""
    for path, host, more in (
        ("/home/me/.netrc", "a.example", False),
        ("/home/me/.netrc", "c.example", True),
        ("/home/me/other", "a.example", True),
    ):
        news = state.began(STATE, path, [Entry(host, "me", Secret("new"))], [], "/etc/config.toml", created=False)
        assert state.names_more(STATE, news) == more
    assert not state.names_more(STATE, State())


def test_only_what_was_delivered_to_a_netrc_is_ours_in_it() -> None:
    """A token that was fetched or delivered elsewhere is nobody's proof; a configured host counts inside the block."""
    assert STATE.ours("/home/me/.netrc") == NETRC.delivered
    assert STATE.ours("/other") == {}
    assert STATE.ours("/other", ["x.example"]) == {"x.example": ()}
    assert STATE.ours("/home/me/.netrc", ["b.example"])["b.example"] == (ENTRY.digest,)


def test_a_delivery_replaces_the_records_of_its_sink_alone() -> None:
    """Records of the other sink stay, and one that served both loses only the targets of this sink."""
    both = replace(RECORD, targets=("a.example", "https://a.example/x"))
    stored = replace(RECORD, targets=("https://b.example/y",))
    new = replace(RECORD, targets=("c.example",))
    known = replace(STATE, records=(both, stored))
    assert state.with_records(known, [new], "netrc").records == (
        new,
        replace(both, targets=("https://a.example/x",)),
        stored,
    )
    assert state.with_records(known, [], "uv-store").records == (replace(both, targets=("a.example",)),)


def test_a_target_is_forgotten() -> None:
    """A token that is delivered elsewhere is still known there; one that is nowhere else is not known any more."""
    other = state.record(REQUEST, TOKEN, NOW, ("c.example",))
    known = replace(STATE, records=(RECORD, other))
    left = state.without(known, {"a.example", "c.example"})
    assert left.records == (replace(RECORD, targets=("b.example",)),)
    assert left.ours("/home/me/.netrc") == {"b.example": (ENTRY.digest,)}
    assert state.without(known, ()) == known


def test_a_written_file_is_remembered_until_it_is_clean() -> None:
    """A netrc or store of a former configuration is known by its path; that of another configuration is not former."""
    known = state.joined(STATE, state.began(STATE, "/new", [], [], "/etc/config.toml", created=False))
    known = state.joined(known, state.began(known, "/other", [], [], "/other.toml", created=False))
    assert state.former(known, "/new", "/etc/config.toml") == ("/home/me/.netrc",)
    assert state.former(known, "/home/me/.netrc", "/other.toml") == ("/other",)
    unnamed = replace(known, netrcs={**known.netrcs, "/home/me/.netrc": Netrc()})
    assert state.former(unnamed, "/new", "/third.toml") == ("/home/me/.netrc",)
    stored = state.began_store(state.began_store(known, "/s", [RECORD]), "/s", [])
    assert (stored.stores, stored.records) == (("/home/me/credentials.toml", "/s"), (RECORD,))
    left = state.cleaned(state.cleaned(stored, "/home/me/.netrc"), "/s")
    assert (set(left.netrcs), left.stores) == ({"/new", "/other"}, ("/home/me/credentials.toml",))


# -------------------------------------------------------------------------------------------------------- recovery


def test_a_valid_token_is_recovered() -> None:
    """An entry that matches its record is kept with all that was known about it."""
    assert state.recover([RECORD], STANDING, (REQUEST,), NOW + HOUR / 4) == {REQUEST: (TOKEN, NOW + HOUR / 2)}


def test_a_record_from_the_future_is_due_at_once() -> None:
    """A clock that was wrong does not put the refresh off."""
    before = NOW - HOUR
    assert state.recover([RECORD], STANDING, (REQUEST,), before) == {REQUEST: (TOKEN, before)}


def test_a_damaged_record_does_not_put_the_refresh_off_for_ever() -> None:
    """Whatever the file says, a recovered token is refreshed within a day."""
    endless = replace(RECORD, expires_at=None, refresh_at=NOW.replace(year=8999))
    ((_, due),) = state.recover([endless], STANDING, (REQUEST,), NOW).values()
    assert due == NOW + state.LONGEST


@pytest.mark.parametrize(
    ("standing", "request_", "at"),
    [
        ({}, REQUEST, NOW),
        ({"b.example": Entry("b.example", "me", Secret("other"))}, REQUEST, NOW),
        ({"b.example": Entry("b.example", "you", Secret("hunter2"))}, REQUEST, NOW),
        (STANDING, Request("static", options=(("username", "you"),)), NOW),
        (STANDING, REQUEST, NOW + HOUR),
    ],
    ids=["entry gone", "other token", "other login", "other configuration", "expired"],
)
def test_what_does_not_match_is_fetched_anew(standing: dict[str, Entry], request_: Request, at: datetime) -> None:
    """Nothing is recovered unless entry, record and configuration agree."""
    assert state.recover([RECORD], standing, (request_,), at) == {}


# ---------------------------------------------------------------------------------------------------------- clocks


def test_after_a_clock_step_every_token_is_due_at_once() -> None:
    """The clock was set, or the machine was paused and the tokens expired: the entries stay, and all are fetched."""
    for step in (30 * HOUR, -30 * HOUR, timedelta(seconds=1)):
        known = state.on_clock(STATE, Boot("b", NOW + step))
        assert known.boot == Boot("b", NOW + step)
        assert known.records == (replace(state.shifted(RECORD, step), refresh_at=NOW + step),)
        ((credential, due),) = state.recover(known.records, STANDING, (REQUEST,), NOW + step + HOUR / 4).values()
        assert (credential.expires_at, credential.wall_end, due) == (NOW + HOUR + step, NOW + HOUR, NOW + step)


def test_the_end_on_the_wall_clock_stays() -> None:
    """It is the one that the issuer named, however often the clock is set. A file of a former version does not name it,
    and there it is the end that was written."""
    (known,) = state.on_clock(state.on_clock(STATE, Boot("b", NOW + HOUR)), Boot("b", NOW + 3 * HOUR)).records
    assert (known.expires_at, known.wall_end) == (NOW + 4 * HOUR, NOW + HOUR)
    document = json.loads(state_json.encode(STATE))
    del document["tokens"][0]["wall_end"]
    assert state_json.decode(json.dumps(document).encode()).records[0].wall_end == NOW + HOUR
    assert state.record(REQUEST, replace(TOKEN, wall_end=NOW), NOW, ("h",)).wall_end == NOW


def test_without_a_clock_step_nothing_moves() -> None:
    """Less than a second, another boot or an unknown one says nothing about the clock."""
    for stays in (STATE, replace(STATE, boot=None), replace(STATE, boot=Boot("", NOW))):
        for boot in (Boot("other", NOW + HOUR), Boot("", NOW + HOUR), Boot("b", NOW + timedelta(seconds=0.9))):
            assert state.on_clock(stays, boot) == stays


def test_a_step_beyond_the_calendar_costs_the_records_alone() -> None:
    """Times that cannot be shifted are forgotten; the files that were written are not."""
    far = NOW.replace(year=8999)
    known = replace(STATE, records=(replace(RECORD, expires_at=far),), boot=Boot("b", NOW - timedelta(days=700_000)))
    assert state.on_clock(known, Boot("b", far)) == replace(STATE, records=(), boot=Boot("b", far))


def test_shifting_moves_every_time() -> None:
    """A record can be moved between two clocks and back."""
    moved = state.shifted(RECORD, HOUR)
    assert (moved.issued_at, moved.expires_at, moved.refresh_after) == (NOW + HOUR, NOW + 2 * HOUR, NOW + HOUR * 4 / 3)
    assert state.shifted(moved, -HOUR) == RECORD
    endless = state.record(REQUEST, Credential("", Secret("x"), NOW), NOW, ("h",))
    assert (state.shifted(endless, HOUR).expires_at, state.shifted(endless, HOUR).refresh_after) == (None, None)


# ---------------------------------------------------------------------------------------------------------- damage


def test_a_netrc_that_nothing_is_known_of_is_not_ours() -> None:
    """So it is never deleted because it is empty."""
    assert not State().netrc("/home/me/.netrc").created

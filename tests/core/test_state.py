"""The state file: good tokens are kept over a restart, every written file is remembered, and no file can do harm."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uvtokend.core import state
from uvtokend.core.model import Credential, Entry, Request, Secret
from uvtokend.core.state import Boot, Netrc, State

NOW = datetime(2026, 1, 31, 8, tzinfo=UTC)
HOUR = timedelta(hours=1)
REQUEST = Request("static", options=(("username", "me"),))
TOKEN = Credential("me", Secret("hunter2"), NOW, NOW + HOUR, NOW + HOUR / 3, "me@example.com", wall_end=NOW + HOUR)
RECORD = state.record(REQUEST, TOKEN, NOW + HOUR / 2, ("a.example", "b.example"))
ENTRY = Entry("b.example", "me", Secret("hunter2"))
STANDING = {"b.example": ENTRY}
NETRC = Netrc("/etc/config.toml", created=True, delivered={"a.example": (ENTRY.digest,), "b.example": (ENTRY.digest,)})
STATE = State((RECORD,), {"/home/me/.netrc": NETRC}, ("/home/me/credentials.toml",), Boot("b", NOW))


def edited(change: Callable[[Any], object]) -> State:
    """Return what is read from a state file after a change of its JSON."""
    document = json.loads(state.encode(STATE))
    change(document)
    return state.decode(json.dumps(document).encode())


def test_it_survives_the_disk_and_holds_neither_token_nor_login() -> None:
    """What is written is read back. A login may be a secret, too, so a digest represents both."""
    secret = replace(TOKEN, login="name-code")
    known = replace(STATE, records=(state.record(REQUEST, secret, NOW + HOUR / 2, ("a.example",)),))
    text = state.encode(known)
    assert state.decode(text) == known
    assert b"hunter2" not in text
    assert b"name-code" not in text
    endless = State((state.record(REQUEST, Credential("", Secret("x"), NOW), NOW, ("h",)),))
    assert state.decode(state.encode(endless)) == endless


def test_version_1_is_still_read() -> None:
    """Its one netrc, its ``places`` and its logins become what this version knows; a ledger names uv's store."""
    sha256 = hashlib.sha256(b"hunter2").hexdigest()
    tokens = [
        {
            "request": state.request_key(REQUEST),
            "places": ["a.example", "b.example"],
            "login": "me",
            "sha256": sha256,
            "issued_at": "2026-01-31T08:00:00Z",
            "expires_at": "2026-01-31T09:00:00Z",
            "refresh_at": "2026-01-31T08:30:00Z",
            "refresh_after": "2026-01-31T08:20:00Z",
            "identity": "me@example.com",
        }
    ]
    tokens.append({**tokens[0], "places": ["https://a.example/x"]})
    boot = {"id": "b", "at": "2026-01-31T08:00:00Z"}
    document = {"version": 1, "netrc": "/home/me/.netrc", "created": True, "boot": boot, "tokens": tokens}
    read = state.decode(json.dumps(document).encode())
    assert read.records == (RECORD, replace(RECORD, targets=("https://a.example/x",)))
    assert read.netrcs == {"/home/me/.netrc": replace(NETRC, config="")}
    assert (read.stores, read.boot) == ((), STATE.boot)
    never = state.decode(json.dumps({**document, "netrc": "", "tokens": []}).encode())
    assert never == State(boot=STATE.boot)


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
    document = json.loads(state.encode(STATE))
    del document["tokens"][0]["wall_end"]
    assert state.decode(json.dumps(document).encode()).records[0].wall_end == NOW + HOUR
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


@pytest.mark.parametrize("change", [{"version": 3}, {"version": ...}, {"tokens": 7}, {"netrcs": []}, {"stores": 7}])
def test_a_file_that_does_not_fit_counts_as_missing(change: dict[str, object]) -> None:
    """Unknown versions and missing sections are forgotten."""
    document = json.loads(state.encode(STATE)) | change
    document = {key: value for key, value in document.items() if value is not ...}
    assert state.decode(json.dumps(document).encode()) == State()


@pytest.mark.parametrize(
    ("key", "bad"),
    [
        *(("issued_at", bad) for bad in (None, 7, "2026-01-31T08:00:00", "soon", "1970-12-31T00:00:00Z")),
        ("expires_at", "9999-12-31T23:59:59Z"),
        ("expires_at", "0001-01-01T00:00:00+14:00"),
        ("refresh_at", "9000-01-01T00:00:00Z"),
        ("identity", {}),
        ("targets", [7]),
    ],
)
def test_a_damaged_record_is_forgotten_alone(key: str, bad: object) -> None:
    """It costs one fetch: every other part of the file is still read."""

    def damage(document: Any) -> None:
        document["tokens"].insert(0, {**document["tokens"][0], key: bad})

    assert edited(damage) == STATE


@pytest.mark.parametrize("path", ["relative", "/with\0nul", "/with\ud800surrogate", ""])
def test_a_path_that_cannot_be_one_is_forgotten_alone(path: str) -> None:
    """Nothing is given to the system that it would refuse with an exception of its own; undecodable names are fine."""

    def damage(document: Any) -> None:
        document["netrcs"][path] = document["netrcs"]["/home/me/.netrc"]
        document["netrcs"]["/undecodable\udcff"] = document["netrcs"]["/home/me/.netrc"]
        document["stores"].append(path)

    known = edited(damage)
    assert known.netrcs == {"/home/me/.netrc": NETRC, "/undecodable\udcff": NETRC}
    assert known.stores == STATE.stores


@pytest.mark.parametrize("boot", [None, 7, {}, {"id": "b", "at": "9999-12-31T23:59:59Z"}])
def test_a_damaged_boot_is_forgotten_alone(boot: object) -> None:
    """Nothing can be said about the clock then."""
    assert edited(lambda document: document.update(boot=boot)) == replace(STATE, boot=None)


def test_a_long_list_of_digests_is_cut() -> None:
    """No file makes an edit of the netrc slow."""

    def damage(document: Any) -> None:
        document["netrcs"]["/home/me/.netrc"]["delivered"]["a.example"] *= 1000

    assert edited(damage).ours("/home/me/.netrc")["a.example"] == (ENTRY.digest,) * state.KEPT


@given(st.binary(max_size=300))
def test_no_file_raises(text: bytes) -> None:
    """Any bytes are a state."""
    assert isinstance(state.decode(text), State)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=9) | st.just("9999-12-31T23:59:59Z"),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    ),
    st.sampled_from(["version", "boot", "netrcs", "stores", "tokens"]),
    st.sampled_from([1, 2]),
)
def test_no_json_raises(value: object, key: str, version: int) -> None:
    """Any value in any section is a state, also after a clock step."""
    document = {**json.loads(state.encode(STATE)), "netrc": "/n", "created": 1, "version": version, key: value}
    known = state.decode(json.dumps(document).encode())
    moved = state.on_clock(known, Boot("b", NOW + 100 * HOUR))
    assert isinstance(state.recover(moved.records, STANDING, (REQUEST,), NOW), dict)


def test_a_netrc_that_nothing_is_known_of_is_not_ours() -> None:
    """So it is never deleted because it is empty."""
    assert not State().netrc("/home/me/.netrc").created

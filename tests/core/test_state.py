"""The state file: valid tokens survive a restart, every written file is recorded, and a damaged file does no harm."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from support.known_state import ENTRY, HOUR, NETRC, NOW, RECORD, REQUEST, STATE, TOKEN
from uvtokend.core import state, state_json
from uvtokend.core.model import Credential, Entry, Record, Request, Secret, sha256
from uvtokend.core.state import Boot, Netrc, State

STANDING = {"b.example": ENTRY}


def test_a_record_contains_what_a_restart_needs() -> None:
    """A record contains the request, the targets and the times of a token, and a digest instead of the login and the
    token."""
    known = state.record(REQUEST, TOKEN, NOW + HOUR / 2, ("a.example",))
    assert known == Record(
        state.request_key(REQUEST),
        ("a.example",),
        ENTRY.digest,
        NOW,
        NOW + HOUR,
        NOW + HOUR / 2,
        NOW + HOUR / 3,
        "me@example.com",
        NOW + HOUR,
    )


def test_a_digest_is_recorded_when_its_delivery_begins() -> None:
    """The newest digest of a host is first, each appears once, and the oldest are dropped. Other hosts are
    unaffected."""
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


def test_only_changes_are_recorded() -> None:
    """An entry whose digest is already the latest, or a record already in the state, is not recorded again."""
    second = Entry("c.example", "me", Secret("other"))
    news = state.began(STATE, "/home/me/.netrc", [ENTRY, second], STATE.records, "/c", created=False)
    assert news.netrcs["/home/me/.netrc"].delivered == {"c.example": (second.digest,)}
    assert (news.records, news.boot) == ((), STATE.boot)
    assert state.joined(STATE, news).records is STATE.records
    again = state.joined(state.joined(STATE, news), news)
    assert again == state.joined(STATE, news)


def test_news_name_more_only_with_another_host_or_netrc() -> None:
    """A delivery names more than the state only if its host or its netrc is new, not if only the token is."""
    for path, host, more in (
        ("/home/me/.netrc", "a.example", False),
        ("/home/me/.netrc", "c.example", True),
        ("/home/me/other", "a.example", True),
    ):
        news = state.began(STATE, path, [Entry(host, "me", Secret("new"))], [], "/etc/config.toml", created=False)
        assert state.names_more(STATE, news) == more
    assert not state.names_more(STATE, State())


def test_what_other_processes_wrote_is_kept() -> None:
    """A netrc or store that other processes added is kept, and so is a netrc that only they changed. Everything else
    stays as this daemon knows it, even if they do not have it."""
    known = {path: Netrc("/c", delivered={"a.example": (path,)}) for path in ("/same", "/theirs", "/ours", "/cleaned")}
    changed = Netrc("/c", delivered={"a.example": ("new",)})
    base = State(netrcs=known, stores=("/store", "/cleaned"))
    new = State(netrcs={path: known[path] for path in ("/same", "/theirs")} | {"/ours": changed}, stores=("/store",))
    others = replace(base, netrcs={**known, "/theirs": changed, "/more": changed}, stores=("/cleaned", "/more"))
    both = state.with_others(new, base, others)
    assert both.netrcs == {"/same": known["/same"], "/theirs": changed, "/ours": changed, "/more": changed}
    assert both.stores == ("/store", "/more")
    assert state.with_others(new, base, State()) == new


def test_only_delivered_digests_make_an_entry_ours() -> None:
    """Only digests delivered to this netrc make its entries ours. A configured host without one is ours only inside
    the block."""
    assert STATE.ours("/home/me/.netrc") == NETRC.delivered
    assert STATE.ours("/other") == {}
    assert STATE.ours("/other", ["x.example"]) == {"x.example": ()}
    assert STATE.ours("/home/me/.netrc", ["b.example"])["b.example"] == (ENTRY.digest,)


def test_a_delivery_replaces_only_the_records_of_its_sink() -> None:
    """Records of the other sink stay, and a record with targets in both loses only those of this sink."""
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
    """Removing a target keeps the record for its other targets; a record without targets is dropped."""
    other = state.record(REQUEST, TOKEN, NOW, ("c.example",))
    known = replace(STATE, records=(RECORD, other))
    left = state.without(known, {"a.example", "c.example"})
    assert left.records == (replace(RECORD, targets=("b.example",)),)
    assert left.ours("/home/me/.netrc") == {"b.example": (ENTRY.digest,)}
    assert state.without(known, ()) == known


def test_a_written_file_is_recorded_until_it_is_clean() -> None:
    """A netrc or store that this configuration formerly wrote is returned as former; those of other configurations
    are not."""
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
    """If the entry in the netrc matches its record, the token is recovered with everything recorded about it."""
    assert state.recover([RECORD], STANDING, (REQUEST,), NOW + HOUR / 4) == {REQUEST: (TOKEN, NOW + HOUR / 2)}


def test_a_record_from_the_future_is_due_at_once() -> None:
    """A record with a time in the future comes from a wrong clock, so the token is refreshed at once."""
    before = NOW - HOUR
    assert state.recover([RECORD], STANDING, (REQUEST,), before) == {REQUEST: (TOKEN, before)}


def test_a_recovered_token_is_refreshed_within_a_day() -> None:
    """Whatever refresh time a damaged record contains, the refresh is due within a day."""
    unlimited = replace(RECORD, expires_at=None, refresh_at=NOW.replace(year=8999))
    ((_, due),) = state.recover([unlimited], STANDING, (REQUEST,), NOW).values()
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
def test_a_token_that_does_not_match_is_not_recovered(
    standing: dict[str, Entry], request_: Request, at: datetime
) -> None:
    """A token is recovered only if the entry, the record and the configuration agree and it has not expired."""
    assert state.recover([RECORD], standing, (request_,), at) == {}


# ---------------------------------------------------------------------------------------------------------- clocks


def test_after_a_clock_step_every_token_is_due_at_once() -> None:
    """If the clock was set or the machine was paused, the entries stay and all tokens are refreshed at once."""
    for step in (30 * HOUR, -30 * HOUR, timedelta(seconds=1)):
        known = state.on_clock(STATE, Boot("b", NOW + step))
        assert known.boot == Boot("b", NOW + step)
        assert known.records == (replace(state.shifted(RECORD, step), refresh_at=NOW + step),)
        ((credential, due),) = state.recover(known.records, STANDING, (REQUEST,), NOW + step + HOUR / 4).values()
        assert (credential.expires_at, credential.wall_end, due) == (NOW + HOUR + step, NOW + HOUR, NOW + step)


def test_the_expiry_on_the_wall_clock_does_not_move() -> None:
    """The expiry on the wall clock is the one that the issuer gave, however often the clock is set. In a file of an
    older version it is the stored expiry."""
    (known,) = state.on_clock(state.on_clock(STATE, Boot("b", NOW + HOUR)), Boot("b", NOW + 3 * HOUR)).records
    assert (known.expires_at, known.wall_end) == (NOW + 4 * HOUR, NOW + HOUR)
    document = json.loads(state_json.encode(STATE))
    del document["tokens"][0]["wall_end"]
    assert state_json.decode(json.dumps(document).encode()).records[0].wall_end == NOW + HOUR
    assert state.record(REQUEST, replace(TOKEN, wall_end=NOW), NOW, ("h",)).wall_end == NOW


def test_without_a_clock_step_nothing_changes() -> None:
    """A difference below a second, another boot or an unknown boot is not a clock step."""
    for stays in (STATE, replace(STATE, boot=None), replace(STATE, boot=Boot("", NOW))):
        for boot in (Boot("other", NOW + HOUR), Boot("", NOW + HOUR), Boot("b", NOW + timedelta(seconds=0.9))):
            assert state.on_clock(stays, boot) == stays


def test_a_step_beyond_the_calendar_drops_only_the_records() -> None:
    """If shifted times would leave the calendar, the records are dropped, but not the list of written files."""
    far = NOW.replace(year=8999)
    known = replace(STATE, records=(replace(RECORD, expires_at=far),), boot=Boot("b", NOW - timedelta(days=700_000)))
    assert state.on_clock(known, Boot("b", far)) == replace(STATE, records=(), boot=Boot("b", far))


def test_shifting_moves_every_time() -> None:
    """A record can be moved to another clock and back without change."""
    moved = state.shifted(RECORD, HOUR)
    assert (moved.issued_at, moved.expires_at, moved.refresh_after) == (NOW + HOUR, NOW + 2 * HOUR, NOW + HOUR * 4 / 3)
    assert state.shifted(moved, -HOUR) == RECORD
    unlimited = state.record(REQUEST, Credential("", Secret("x"), NOW), NOW, ("h",))
    assert (state.shifted(unlimited, HOUR).expires_at, state.shifted(unlimited, HOUR).refresh_after) == (None, None)


# ---------------------------------------------------------------------------------------------------------- damage


def test_an_unknown_netrc_was_not_created_by_us() -> None:
    """An unknown netrc does not count as created by uvtokend, so it is never deleted when empty."""
    assert not State().netrc("/home/me/.netrc").created


def test_every_part_of_a_request_makes_another_key() -> None:
    """A different provider, service, option or variable yields a different key. A key is a SHA-256 digest, so it
    reveals nothing."""
    one = Request("p", "s", (("a", "b"),), (("E", "f"),))
    others = [
        replace(one, provider="q"),
        replace(one, service="t"),
        replace(one, options=(("a", "c"),)),
        replace(one, options=()),
        replace(one, env=(("E", "g"),)),
    ]
    keys = [state.request_key(each) for each in (one, *others)]
    assert len({*keys}) == len(keys)
    assert keys[0] == hashlib.sha256(b'["p", "s", [["a", "b"]], [["E", "f"]]]').hexdigest()


def test_all_times_of_a_record_are_shifted_except_the_wall_end() -> None:
    """A shift moves every known time of a record except its end on the wall clock. Unknown times stay unknown."""
    assert state.shifted(RECORD, HOUR) == replace(
        RECORD,
        issued_at=NOW + HOUR,
        expires_at=NOW + 2 * HOUR,
        refresh_at=NOW + 1.5 * HOUR,
        refresh_after=NOW + HOUR / 3 + HOUR,
    )
    unlimited = replace(RECORD, expires_at=None, refresh_after=None)
    assert state.shifted(unlimited, -HOUR) == replace(unlimited, issued_at=NOW - HOUR, refresh_at=NOW - HOUR / 2)


def test_a_store_is_remembered_with_its_records_before_it_is_written() -> None:
    """The state contains a store and its new records before the store is written. Each record and each store is kept
    once."""
    new = replace(RECORD, targets=("https://a.example/x",))
    known = state.began_store(STATE, "/s", [new, RECORD])
    assert (known.records, known.stores) == ((new, RECORD), ("/home/me/credentials.toml", "/s"))
    assert state.began_store(known, "/home/me/credentials.toml", [RECORD]).records == (RECORD, new)


def test_a_record_without_a_request_does_not_hide_another() -> None:
    """Each record is matched by itself. A state that was written and read again is unchanged, including ends on the
    wall clock."""
    gone = replace(RECORD, request_key="gone")
    expected = {REQUEST: (TOKEN, NOW + HOUR / 2)}
    assert state.recover([gone, RECORD, gone], STANDING, (REQUEST,), NOW) == expected
    known = State((replace(RECORD, wall_end=NOW + 3 * HOUR), replace(RECORD, wall_end=None)))
    assert state_json.decode(state_json.encode(known)) == known


def test_the_limits_and_defaults_of_the_state() -> None:
    """The state keeps 16 digests per host, and a recovered token is refreshed within a day. A new netrc contains
    nothing of uvtokend."""
    assert (16, timedelta(days=1)) == (state.KEPT, state.LONGEST)
    assert (Netrc().config, Netrc().created, Netrc().delivered, State().netrcs) == ("", False, {}, {})


def test_any_text_has_a_digest() -> None:
    """Any text has a digest, even a path or a token with a byte that is not UTF-8."""
    assert len({sha256(text) for text in ("", "a", "\ud800", "\udcff")}) == 4

"""The state file is JSON without any secret, and reading it never raises an error, whatever it contains."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.known_state import ENTRY, HOUR, NETRC, NOW, RECORD, REQUEST, STATE, TOKEN
from uvtokend.core import state, state_json
from uvtokend.core.model import Credential, Secret
from uvtokend.core.state import Boot, Netrc, State


def edited(change: Callable[[Any], object]) -> State:
    """Return the state that is read from a state file after this change of its JSON."""
    document = json.loads(state_json.encode(STATE))
    change(document)
    return state_json.decode(json.dumps(document).encode())


def test_the_state_survives_the_disk_without_secrets() -> None:
    """The state is read back unchanged. The file contains a digest instead of the token and the login, which may be
    secret too."""
    secret = replace(TOKEN, login="name-code")
    known = replace(STATE, records=(state.record(REQUEST, secret, NOW + HOUR / 2, ("a.example",)),))
    text = state_json.encode(known)
    assert state_json.decode(text) == known
    assert b"hunter2" not in text
    assert b"name-code" not in text
    endless = State((state.record(REQUEST, Credential("", Secret("x"), NOW), NOW, ("h",)),))
    assert state_json.decode(state_json.encode(endless)) == endless


@pytest.mark.parametrize("size", [0, 1, state_json.PIECE, 2 * state_json.PIECE + 1])
def test_many_tokens_are_encoded_in_pieces(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The encoder never gets more than a few tokens or hosts at once, since no other thread runs meanwhile. The text is
    that of the whole document."""
    records = tuple(replace(RECORD, targets=(f"h{n}.example",)) for n in range(size))
    hosts = {f"h{n}.example": ("d", "e") for n in range(size)}
    known = State(records, {"/a": Netrc("c", created=True, delivered=hosts), "/b\udcff": Netrc("", False, {})}, ("/s",))
    pieces: list[int] = []
    honest = json.dumps

    def dumps(value: object) -> str:
        pieces.append(len(value) if isinstance(value, (list, dict)) else 1)
        return honest(value)

    monkeypatch.setattr(json, "dumps", dumps)
    text = state_json.encode(known)
    monkeypatch.undo()
    assert max(pieces) <= state_json.PIECE
    assert state_json.decode(text) == known
    assert json.dumps(json.loads(text)).encode() + b"\n" == text


def test_version_1_is_still_read() -> None:
    """The netrc, ``places`` and logins of version 1 are converted to the current format."""
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
    read = state_json.decode(json.dumps(document).encode())
    assert read.records == (RECORD, replace(RECORD, targets=("https://a.example/x",)))
    assert read.netrcs == {"/home/me/.netrc": replace(NETRC, config="")}
    assert (read.stores, read.boot) == ((), STATE.boot)
    never = state_json.decode(json.dumps({**document, "netrc": "", "tokens": []}).encode())
    assert never == State(boot=STATE.boot)


@pytest.mark.parametrize("change", [{"version": 3}, {"version": ...}, {"tokens": 7}, {"netrcs": []}, {"stores": 7}])
def test_a_file_that_does_not_fit_counts_as_missing(change: dict[str, object]) -> None:
    """A file of an unknown version or with an invalid section is treated as missing."""
    document = json.loads(state_json.encode(STATE)) | change
    document = {key: value for key, value in document.items() if value is not ...}
    assert state_json.decode(json.dumps(document).encode()) == State()


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
def test_only_the_damaged_record_is_dropped(key: str, bad: object) -> None:
    """A damaged record is dropped, and the rest of the file is still read."""

    def damage(document: Any) -> None:
        document["tokens"].insert(0, {**document["tokens"][0], key: bad})

    assert edited(damage) == STATE


@pytest.mark.parametrize("path", ["relative", "/with\0nul", "/with\ud800surrogate", ""])
def test_only_the_invalid_path_is_dropped(path: str) -> None:
    """A path that the system would refuse with an exception is dropped. Undecodable file names are kept."""

    def damage(document: Any) -> None:
        document["netrcs"][path] = document["netrcs"]["/home/me/.netrc"]
        document["netrcs"]["/undecodable\udcff"] = document["netrcs"]["/home/me/.netrc"]
        document["stores"].append(path)

    known = edited(damage)
    assert known.netrcs == {"/home/me/.netrc": NETRC, "/undecodable\udcff": NETRC}
    assert known.stores == STATE.stores


@pytest.mark.parametrize("boot", [None, 7, {}, {"id": "b", "at": "9999-12-31T23:59:59Z"}])
def test_a_damaged_boot_is_dropped(boot: object) -> None:
    """If the boot is invalid, only the boot is dropped, and no clock step is detected."""
    assert edited(lambda document: document.update(boot=boot)) == replace(STATE, boot=None)


def test_a_long_list_of_digests_is_cut() -> None:
    """The number of digests per host is limited, so that editing the netrc stays fast."""

    def damage(document: Any) -> None:
        document["netrcs"]["/home/me/.netrc"]["delivered"]["a.example"] *= 1000

    assert edited(damage).ours("/home/me/.netrc")["a.example"] == (ENTRY.digest,) * state.KEPT


@given(st.binary(max_size=300))
def test_no_file_raises(text: bytes) -> None:
    """Decoding any bytes returns a state."""
    assert isinstance(state_json.decode(text), State)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=9) | st.just("9999-12-31T23:59:59Z"),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    ),
    st.sampled_from(["version", "boot", "netrcs", "stores", "tokens"]),
    st.sampled_from([1, 2]),
)
def test_no_json_raises(value: object, key: str, version: int) -> None:
    """Decoding any JSON value in any section returns a state that can be shifted and recovered."""
    document = {**json.loads(state_json.encode(STATE)), "netrc": "/n", "created": 1, "version": version, key: value}
    known = state_json.decode(json.dumps(document).encode())
    moved = state.on_clock(known, Boot("b", NOW + 100 * HOUR))
    assert isinstance(state.recover(moved.records, {"b.example": ENTRY}, (REQUEST,), NOW), dict)


@pytest.mark.parametrize(("year", "good"), [(1970, False), (1971, True), (8999, True), (9000, False)])
def test_a_record_with_an_absurd_year_is_dropped(year: int, good: bool) -> None:
    """A time outside the years 1971 to 8999 would overflow when a clock is set, so its record is dropped."""
    record = replace(RECORD, expires_at=NOW.replace(year=year))
    text = state_json.encode(replace(STATE, records=(record,)))
    assert state_json.decode(text).records == ((record,) if good else ())
    assert json.loads(text)["version"] == 2


def test_a_target_that_no_file_can_contain_is_damage() -> None:
    """A host with a lone surrogate has no UTF-8 form, so that every delivery would fail. Its netrc is forgotten, like a
    damaged one, and so is a record with such a target. A path that is not UTF-8 is kept."""

    (here,) = STATE.netrcs

    def host(document: Any) -> None:
        document["netrcs"][here]["delivered"]["\ud800.example"] = [ENTRY.digest]

    def target(document: Any) -> None:
        document["tokens"][0]["targets"].append("\ud800.example")

    def path(document: Any) -> None:
        document["netrcs"]["/home/\udcff"] = document["netrcs"].pop(here)

    assert edited(host).netrcs.keys() == STATE.netrcs.keys() - {here}
    assert edited(target).records == STATE.records[1:]
    assert edited(path).netrcs.keys() == STATE.netrcs.keys() - {here} | {"/home/\udcff"}

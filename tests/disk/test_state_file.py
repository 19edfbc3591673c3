"""The state file on disk: no other kind of file in its place can block a command, and its size limit follows the
configuration."""

from __future__ import annotations

import os
import stat
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from uvtokend.core import state
from uvtokend.core.model import Credential, Entry, Request, Secret
from uvtokend.core.state import State
from uvtokend.disk import files, locks, state_file
from uvtokend.disk.state_file import Store

NOW = datetime(2026, 1, 31, 8, tzinfo=UTC)


def full(leases: int) -> State:
    """Return the state after many deliveries of many leases."""
    known = State()
    entries = [Entry(f"host-{number}.example", "me", Secret("x")) for number in range(leases)]
    for day in range(state.KEPT):
        tokens = [Entry(entry.host, "me", Secret(f"{day}")) for entry in entries]
        known = state.joined(known, state.began(known, "/home/me/.netrc", tokens, [], "/c", created=False))
    records = [
        state.record(
            Request("static", entry.host),
            Credential("me", Secret("x"), NOW, NOW + timedelta(hours=1)),
            NOW,
            (entry.host,),
        )
        for entry in entries
    ]
    return state.with_records(known, records, "netrc")


@pytest.mark.parametrize("leases", [150, 2000])
def test_the_state_of_many_leases(tmp_path: Path, leases: int) -> None:
    """The whole state is read back, with mode 0600, even if it is larger than 1 MiB."""
    known = full(leases)
    store = Store(str(tmp_path), leases)
    store.save(known)
    assert store.load() == known
    status = (tmp_path / "state.json").stat()
    assert stat.S_IMODE(status.st_mode) == 0o600
    assert status.st_size > (1 << 20 if leases > 500 else 0)


def test_a_note_belongs_to_one_state_file(tmp_path: Path) -> None:
    """After a crash, the note about a delivery is added to the state, even without a state file. A partial note, or
    one that is older than the state file, is ignored."""
    path, note = tmp_path / "state.json", tmp_path / "state.json.began"
    known, new = full(2), Entry("host-0.example", "me", Secret("new"))
    news = state.began(known, "/home/me/.netrc", [new], [], "/c", created=False)
    store = Store(str(tmp_path))
    store.note(news)
    assert Store(str(tmp_path)).load().ours("/home/me/.netrc") == {"host-0.example": (new.digest,)}
    store.save(known)
    assert os.listdir(tmp_path) == ["state.json"]
    store.note(news)
    assert Store(str(tmp_path)).load() == state.joined(known, news) != known
    assert stat.S_IMODE(note.stat().st_mode) == 0o600
    after = Store(str(tmp_path))
    more = state.began(
        after.load(), "/home/me/.netrc", [Entry("b.example", "me", Secret("b"))], [], "/c", created=False
    )
    after.note(more)  # the note of a killed daemon is kept in the note of the next one
    assert Store(str(tmp_path)).load() == state.joined(state.joined(known, news), more)
    stale = note.read_bytes()
    note.write_bytes(stale[:-20])
    assert store.load() == known
    store.save(full(1))
    note.write_bytes(stale)
    assert store.load() == full(1)
    path.unlink()
    assert store.load() == State()


def test_a_note_of_a_new_host_survives_a_power_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The note of a delivery to a new host is synced, and so is each later note, until the state file names the
    host. A note of another token for a known host is not synced, to save time."""
    synced: list[int] = []
    honest = files.fsync

    def fsync(file: int) -> None:
        synced.append(os.fstat(file).st_ino)
        honest(file)

    monkeypatch.setattr(files, "fsync", fsync)

    def is_synced(store: Store, host: str, token: str) -> bool:
        news = state.began(known, "/home/me/.netrc", [Entry(host, "me", Secret(token))], [], "/c", created=False)
        synced.clear()
        store.note(news)
        return (tmp_path / "state.json.began").stat().st_ino in synced

    known, store = full(1), Store(str(tmp_path))
    assert is_synced(store, "host-0.example", "new")  # there is no state file
    store.save(known)
    assert not is_synced(store, "host-0.example", "new")
    assert is_synced(store, "b.example", "b")
    assert is_synced(store, "host-0.example", "newer")
    after = Store(str(tmp_path))
    known = after.load()
    assert is_synced(after, "host-0.example", "newest")
    after.save(known)
    assert not is_synced(after, "b.example", "b2")


def test_two_daemons_with_one_state_directory(tmp_path: Path) -> None:
    """Two daemons with one state directory have a netrc each, and the state file keeps both. If the file is deleted,
    the next save writes both again."""
    stores, states = [Store(str(tmp_path)) for _ in range(2)], [State(), State()]
    for number in (0, 1, 0, 1, 0):
        entry = Entry("a.example", "me", Secret(f"token {number}"))
        news = state.began(states[number], f"/home/me/{number}", [entry], [], "/c", created=False)
        states[number] = stores[number].save(state.joined(states[number], news))
    assert Store(str(tmp_path)).load().netrcs.keys() == {"/home/me/0", "/home/me/1"}
    (tmp_path / "state.json").unlink()
    assert stores[0].save(states[0]).netrcs.keys() == {"/home/me/0", "/home/me/1"}


def news_of(number: int) -> State:
    """Return what is new when one of several daemons delivers to its own netrc."""
    entry = Entry("a.example", "me", Secret(f"token {number}"))
    return state.began(State(), f"/home/me/{number}", [entry], [], "/c", created=False)


def test_two_saves_at_the_same_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If two processes save at the same moment, one waits for the other, and the file keeps the netrcs of both."""
    writing, go_on, second_is_on = threading.Event(), threading.Event(), threading.Event()
    replace, flocked = files.replace, locks._flocked

    def slow(*args: Any) -> None:
        if threading.current_thread() is first:
            writing.set()
            go_on.wait(60)
        replace(*args)

    def looked(file: int) -> bool:
        taken = flocked(file)
        if not taken:
            second_is_on.set()
        return taken

    def save(number: int) -> None:
        Store(str(tmp_path)).save(news_of(number))
        if number == 1:
            second_is_on.set()

    monkeypatch.setattr(files, "replace", slow)
    monkeypatch.setattr(locks, "_flocked", looked)
    first, second = (threading.Thread(target=save, args=(number,)) for number in (0, 1))
    first.start()
    assert writing.wait(60)
    second.start()
    assert second_is_on.wait(60)
    go_on.set()
    for thread in (first, second):
        thread.join()
    assert Store(str(tmp_path)).load().netrcs.keys() == {"/home/me/0", "/home/me/1"}


@pytest.mark.parametrize("order", ["note save", "note note", "save note"])
def test_the_notes_of_two_daemons(tmp_path: Path, order: str) -> None:
    """If two daemons with one state directory are killed after these steps, the netrcs of both are known."""
    stores = [Store(str(tmp_path)) for _ in range(2)]
    for store in stores:
        store.load()
    for number, step in enumerate(order.split()):
        getattr(stores[number], step)(news_of(number))
    assert Store(str(tmp_path)).load().netrcs.keys() == {"/home/me/0", "/home/me/1"}


def test_a_lock_on_the_state_directory_is_not_waited_for_forever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If another program keeps the state directory locked, the state is noted and saved all the same."""
    monkeypatch.setattr(state_file, "_PATIENCE", 0.02)
    store = Store(str(tmp_path))
    with locks.changing_state(str(tmp_path), 60):
        store.note(news_of(0))
        assert Store(str(tmp_path)).load() == news_of(0)
        store.save(news_of(1))
    assert Store(str(tmp_path)).load() == news_of(1)


def test_a_file_that_is_too_large_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that is too large counts as missing. The limit grows with the number of configured indexes."""
    monkeypatch.setattr(state_file, "_LIMIT", 1 << 10)
    known = full(20)
    Store(str(tmp_path)).save(known)
    assert Store(str(tmp_path)).load() == State()
    assert Store(str(tmp_path), 20).load() == known


@pytest.mark.parametrize("kind", ["pipe", "directory", "symlink", "missing", "device"])
def test_other_kinds_of_files_are_ignored(tmp_path: Path, kind: str) -> None:
    """A pipe or another kind of file counts as missing without waiting, and is replaced if possible."""
    path = tmp_path / "state.json"
    match kind:
        case "pipe":
            os.mkfifo(path)
            os.mkfifo(tmp_path / "state.json.new")
        case "directory":
            path.mkdir()
        case "symlink":
            path.symlink_to(tmp_path / "other")
        case "device":
            path.symlink_to("/dev/zero")
    store = Store(str(tmp_path))
    assert store.load() == State()
    if kind == "directory":
        with pytest.raises(OSError, match="directory"):
            store.save(full(1))
        return
    store.save(full(1))
    assert store.load() == full(1)
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize("flags", [os.O_RDONLY, os.O_WRONLY | os.O_APPEND | os.O_CREAT])
def test_a_pipe_is_not_opened(tmp_path: Path, flags: int) -> None:
    """A pipe is not opened for reading or writing, with or without a process at its other end."""
    path = tmp_path / "pipe"
    os.mkfifo(path)
    with pytest.raises(OSError, match=r"supported|device"):
        files.open_regular(str(path), flags)
    other = os.open(path, os.O_RDWR | os.O_NONBLOCK)
    with pytest.raises(OSError, match="supported"):
        files.open_regular(str(path), flags)
    os.close(other)

"""The state file on disk: nothing in its place can hang or stop a command, and its size follows the configuration."""

from __future__ import annotations

import os
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from uvtokend.core import state
from uvtokend.core.model import Credential, Entry, Request, Secret
from uvtokend.core.state import State
from uvtokend.disk import files, state_file
from uvtokend.disk.state_file import Store

NOW = datetime(2026, 1, 31, 8, tzinfo=UTC)


def full(leases: int) -> State:
    """Return the state after a day of many leases."""
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
def test_any_number_of_leases_is_remembered(tmp_path: Path, leases: int) -> None:
    """The whole state is read back, mode 0600, also where it is longer than a megabyte."""
    known = full(leases)
    store = Store(str(tmp_path), leases)
    store.save(known)
    assert store.load() == known
    status = (tmp_path / "state.json").stat()
    assert stat.S_IMODE(status.st_mode) == 0o600
    assert status.st_size > (1 << 20 if leases > 500 else 0)


def test_a_note_is_read_with_the_file_that_it_belongs_to(tmp_path: Path) -> None:
    """It counts after a crash, also before there is a state file. Half of one counts for nothing, nor does one that was
    left beside a newer state file."""
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
    after.note(more)  # what a daemon noted that was killed stays in the note of the next one
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
    """It is synced, and so is each later note, which repeats it, until the state file names the host. A note of another
    token for a known host is not synced, since somebody waits for that token."""
    synced: list[int] = []
    honest = files.fsync

    def fsync(file: int) -> None:
        synced.append(os.fstat(file).st_ino)
        honest(file)

    monkeypatch.setattr(files, "fsync", fsync)

    def lasts(store: Store, host: str, token: str) -> bool:
        news = state.began(known, "/home/me/.netrc", [Entry(host, "me", Secret(token))], [], "/c", created=False)
        synced.clear()
        store.note(news)
        return (tmp_path / "state.json.began").stat().st_ino in synced

    known, store = full(1), Store(str(tmp_path))
    assert lasts(store, "host-0.example", "new")  # there is no state file
    store.save(known)
    assert not lasts(store, "host-0.example", "new")
    assert lasts(store, "b.example", "b")
    assert lasts(store, "host-0.example", "newer")
    after = Store(str(tmp_path))
    known = after.load()
    assert lasts(after, "host-0.example", "newest")
    after.save(known)
    assert not lasts(after, "b.example", "b2")


def test_a_file_beyond_reason_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It counts as missing; the limit grows with the number of configured indexes."""
    monkeypatch.setattr(state_file, "_LIMIT", 1 << 10)
    known = full(20)
    Store(str(tmp_path)).save(known)
    assert Store(str(tmp_path)).load() == State()
    assert Store(str(tmp_path), 20).load() == known


@pytest.mark.parametrize("kind", ["pipe", "directory", "symlink", "missing", "device"])
def test_what_is_not_a_file_is_never_waited_for(tmp_path: Path, kind: str) -> None:
    """A pipe in its place counts as a missing file, and is replaced where that is possible."""
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
    """Neither for reading nor for writing, with or without somebody at its other end."""
    path = tmp_path / "pipe"
    os.mkfifo(path)
    with pytest.raises(OSError, match=r"supported|device"):
        files.open_regular(str(path), flags)
    other = os.open(path, os.O_RDWR | os.O_NONBLOCK)
    with pytest.raises(OSError, match="supported"):
        files.open_regular(str(path), flags)
    os.close(other)

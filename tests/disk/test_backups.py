"""Backups of the entries that `adopt` removes: written first, with mode 0600, in order, and never overwritten."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest

from uvtokend.disk import backups, files
from uvtokend.errors import UvtokendError


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the state directory."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    return tmp_path / "uvtokend"


def test_each_backup_is_a_file_of_its_own(state: Path) -> None:
    """Each backup is a new private file, and the newest is listed first."""
    for number in range(12):
        assert backups.keep("/n", f"{number}".encode()).parent == state / "adopted"
    assert [backup.text for backup in backups.newest_first()] == [f"{number}".encode() for number in range(11, -1, -1)]
    assert {stat.S_IMODE(backup.file.stat().st_mode) for backup in backups.newest_first()} == {0o600}


def test_two_simultaneous_backups_are_both_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """If another process has just taken a number, the next one is used."""
    create = files.create

    def slower(path: str, text: bytes, mode: int = 0o600) -> None:
        monkeypatch.setattr(files, "create", create)
        backups.keep("/n", b"theirs")
        create(path, text, mode)

    monkeypatch.setattr(files, "create", slower)
    backups.keep("/n", b"ours")
    assert [backup.text for backup in backups.newest_first()] == [b"ours", b"theirs"]


def test_a_full_disk_leaves_no_partial_backup(monkeypatch: pytest.MonkeyPatch) -> None:
    """If the disk is full, the backup fails with a fix and leaves no file, so that `adopt` removes nothing."""

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(files, "write_all", full)
    with pytest.raises(UvtokendError, match="no space left") as caught:
        backups.keep("/n", b"ours")
    assert str(caught.value.hint).startswith("df -h ")
    assert backups.newest_first() == []


def test_a_damaged_backup_is_reported(state: Path) -> None:
    """A damaged backup is an error with a fix; it is never skipped silently."""
    file = backups.keep("/n", b"ours")
    file.write_text("{}")
    with pytest.raises(UvtokendError, match=str(file)) as caught:
        backups.newest_first()
    assert str(caught.value.hint).startswith(f"mv {file} ")

"""``uvtokend adopt`` under failures: the foreign entry is always in the netrc, in a backup, or in both."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from support import places
from uvtokend.cli.adopt import adopt
from uvtokend.cli.purge import purge
from uvtokend.disk import backups, files
from uvtokend.errors import UvtokendError

OWN = b"# mine\nmachine a.example login old password old-secret\nmachine ftp.example login me password mine\n"


@pytest.fixture
def netrc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make a home directory whose netrc has a foreign entry for the host of an index, and return the netrc."""
    for name in [name for name in os.environ if name.startswith(("XDG_", "UVTOKEND_", "UV_"))]:
        monkeypatch.delenv(name)
    monkeypatch.delenv("NETRC", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("UVTOKEND_SOCKET", str(tmp_path / "run" / "s"))
    config = places.config_file(tmp_path)
    config.parent.mkdir(parents=True)
    config.write_text(
        '[[index]]\nname = "a"\nurl = "https://a.example/simple/"\nprovider = "static"\nusername = "me"\n'
        'password = { env = "SECRET" }\n'
    )
    config.chmod(0o600)
    (tmp_path / ".netrc").write_bytes(OWN)
    return tmp_path / ".netrc"


def failing(code: int) -> Callable[..., None]:
    """Return a function that raises an OSError with this code."""

    def fail(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    return fail


def test_an_edit_that_fails_late_keeps_its_backup(netrc: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the sync after the edit fails, the backup stays, because the entry may be gone: purge still restores it."""
    with monkeypatch.context() as patch:
        real = backups.keep

        def keep(path: str, text: bytes) -> Path:
            file = real(path, text)
            patch.setattr(files, "sync_directory", failing(errno.EIO))
            return file

        patch.setattr(backups, "keep", keep)
        with pytest.raises(UvtokendError):
            adopt("a", None)
    assert [b"old-secret" in netrc.read_bytes(), len(backups.newest_first())] == [False, 1]
    purge(None)
    assert netrc.read_bytes() == OWN


def test_without_a_backup_nothing_is_removed(netrc: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the disk is full, adopt says so and leaves the netrc unchanged byte for byte."""
    with monkeypatch.context() as patch:
        patch.setattr(files, "create", failing(errno.ENOSPC))
        with pytest.raises(UvtokendError, match=r"The backup .* could not be written: there is no space left"):
            adopt("a", None)
    assert netrc.read_bytes() == OWN


def test_an_entry_that_changes_meanwhile_is_restored_once(netrc: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the entry changes during adopt, each attempt writes its own backup, and purge restores the removed entry."""
    real = backups.keep
    changed = OWN.replace(b"old-secret", b"new-secret")

    def keep(path: str, text: bytes) -> Path:
        monkeypatch.setattr(backups, "keep", real)
        netrc.write_bytes(changed)
        return real(path, text)

    monkeypatch.setattr(backups, "keep", keep)
    adopt("a", None)
    assert netrc.read_bytes() == OWN.replace(b"machine a.example login old password old-secret\n", b"")
    assert len(os.listdir(backups.directory())) == 2
    purge(None)
    assert netrc.read_bytes() == changed
    assert not backups.directory().exists()

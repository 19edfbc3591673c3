"""Every fix that names a program has a form for each platform, and quotes the path in it."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from uvtokend.core import fixes

PATH = "/Users/me/My Files/.netrc"


@pytest.mark.parametrize(
    ("linux", "darwin"),
    [
        (fixes.file_system(PATH, "linux"), fixes.file_system(PATH, "darwin")),
        (fixes.show_clock("linux"), fixes.show_clock("darwin")),
        (fixes.set_clock("linux"), fixes.set_clock("darwin")),
        (fixes.users_of(PATH, "linux"), fixes.users_of(PATH, "darwin")),
        (fixes.daemons("linux"), fixes.daemons("darwin")),
        (fixes.make_mutable(PATH, "linux"), fixes.make_mutable(PATH, "darwin")),
    ],
)
def test_each_platform_has_its_own_command(linux: str, darwin: str) -> None:
    """A Mac has neither findmnt, timedatectl, fuser -v, pgrep -a nor chattr; a path with a space is quoted."""
    assert linux != darwin
    for gone in ("findmnt", "timedatectl", "fuser -v", "pgrep -a", "chattr"):
        assert gone not in darwin
    for command in (linux, darwin):
        assert PATH not in command.replace(f"'{PATH}'", "")


def test_a_secret_is_written_privately(tmp_path: Path) -> None:
    """The command takes the secret from standard input and makes a file with mode 0600."""
    file = tmp_path / "my secret"
    shell = shutil.which("sh")
    assert shell is not None
    subprocess.run([shell, "-c", fixes.write_secret(str(file))], input=b"s3cr3t", check=True)
    assert (file.read_bytes(), file.stat().st_mode & 0o777) == (b"s3cr3t", 0o600)

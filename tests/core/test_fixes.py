"""Every fix that runs a program has a form for each platform, and quotes the paths in it."""

from __future__ import annotations

import ast
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
        (fixes.mounted_at(PATH, "linux"), fixes.mounted_at(PATH, "darwin")),
        (fixes.make_writable(PATH, "linux"), fixes.make_writable(PATH, "darwin")),
        (fixes.show_clock("linux"), fixes.show_clock("darwin")),
        (fixes.set_clock("linux"), fixes.set_clock("darwin")),
        (fixes.users_of(PATH, "linux"), fixes.users_of(PATH, "darwin")),
        (fixes.daemons("linux"), fixes.daemons("darwin")),
        (fixes.show_processes([1, 2], "linux"), fixes.show_processes([1, 2], "darwin")),
        (fixes.clear_attributes(PATH, "ia"), fixes.clear_flags(PATH, by_root=False)),
        (fixes.clear_attributes(PATH, "i"), fixes.clear_flags(PATH, by_root=True)),
    ],
)
def test_each_platform_has_its_own_command(linux: str, darwin: str) -> None:
    """The macOS commands use no Linux-only program, and a path with a space is quoted on both platforms."""
    assert linux != darwin
    for gone in ("findmnt", "timedatectl", "fuser -v", "pgrep -a", "chattr"):
        assert gone not in darwin
    for command in (linux, darwin):
        assert PATH not in command.replace(f"'{PATH}'", "")


def test_platform_programs_are_named_only_in_fixes() -> None:
    """No other module names a program that exists on only one platform, or /dev/stdin, which `install` cannot read
    on a Mac."""
    only = (
        "findmnt",
        "timedatectl",
        "fuser ",
        "pgrep ",
        "chattr ",
        "chflags ",
        "/dev/stdin",
        "lsof ",
        "sntp ",
        "wchan",
    )
    source = Path(fixes.__file__).parent.parent
    named = [
        f"{file.name}: {word}"
        for file in source.rglob("*.py")
        if file != Path(fixes.__file__)
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and "\n" not in node.value
        for word in only
        if word in node.value
    ]
    assert named == []


def test_a_secret_is_written_privately(tmp_path: Path) -> None:
    """The command takes the secret from standard input and makes a file with mode 0600."""
    file = tmp_path / "my secret"
    shell = shutil.which("sh")
    assert shell is not None
    subprocess.run([shell, "-c", fixes.write_secret(str(file))], input=b"s3cr3t", check=True)
    assert (file.read_bytes(), file.stat().st_mode & 0o777) == (b"s3cr3t", 0o600)


def test_a_keychain_entry_is_read_by_the_systems_program() -> None:
    """The fix names `security` by its full path, so that another program of that name on PATH cannot read the
    secret."""
    words = '["/usr/bin/security", "find-generic-password", "-s", "svc", "-a", "me", "-w"]'
    assert f"{{ command = {words} }}" in fixes.read_keychain("svc", "me")


def test_a_program_that_the_shell_finds() -> None:
    """The fix restarts the daemon, which copies the shell's PATH, only if the shell finds the program."""
    assert fixes.find_program("corp token") == "command -v 'corp token' && uvtokend restart"


@pytest.mark.parametrize(
    ("command", "text"),
    [
        (fixes.show_processes([1, 22], "linux"), "ps -o pid,stat,wchan:32,args -p 1 -p 22"),
        (fixes.show_processes([1], "darwin"), "ps -o pid,stat,wchan,args -p 1"),
        (fixes.daemons("linux"), "pgrep -af uvtokend"),
        (fixes.daemons("darwin"), "pgrep -fl uvtokend"),
        (fixes.clear_attributes("a b", "ia"), "sudo chattr -ia 'a b'"),
        (fixes.clear_flags("a b", True), "sudo chflags noschg,nosappnd 'a b'"),
        (fixes.clear_flags("a b", False), "chflags nouchg,nouappnd 'a b'"),
    ],
)
def test_commands_of_each_platform(command: str, text: str) -> None:
    """A fix uses the options of the platform's own tools (ps(1), pgrep(1), chattr(1), chflags(1)), and quotes paths."""
    assert command == text

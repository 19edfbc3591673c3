"""Fixes that differ by platform, one row each: the command that a person runs on Linux and on macOS.

Pure: the platform is a value of ``sys.platform``, with the running one as the default.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from shlex import quote


def file_system(path: str, platform: str = sys.platform) -> str:
    """Return the command that shows the file system of a path, and whether it is read-only."""
    return f"df {quote(path)} && mount" if platform == "darwin" else f"findmnt -T {quote(path)}"


def mounted_at(mount: str, platform: str = sys.platform) -> str:
    """Return the command that shows what is mounted somewhere, without asking a file system that does not answer.

    Args:
        mount: The mount point.
        platform: As in ``sys.platform``.
    """
    return f"mount | grep -F {quote(mount)}" if platform == "darwin" else f"findmnt -M {quote(mount)}"


def make_writable(mount: str, platform: str = sys.platform) -> str:
    """Return the command that makes a read-only file system writable.

    Args:
        mount: Its mount point.
        platform: As in ``sys.platform``.
    """
    return f"sudo mount -uw {quote(mount)}" if platform == "darwin" else f"sudo mount -o remount,rw {quote(mount)}"


def show_clock(platform: str = sys.platform) -> str:
    """Return the command that shows whether this machine's clock is right."""
    return "sntp time.apple.com" if platform == "darwin" else "timedatectl status"


def set_clock(platform: str = sys.platform) -> str:
    """Return the command that sets this machine's clock right."""
    return "sudo sntp -sS time.apple.com" if platform == "darwin" else "sudo timedatectl set-ntp true"


def users_of(path: str, platform: str = sys.platform) -> str:
    """Return the command that shows which programs have a file open."""
    return f"{'lsof' if platform == 'darwin' else 'fuser -v'} {quote(path)}"


def find_program(name: str) -> str:
    """Return the command that lets the daemon find a program which the shell finds: a restart takes over its PATH.

    It does nothing where the shell does not find the program either. A service has a PATH of its own; see `doctor`.
    """
    return f"command -v {quote(name)} && uvtokend restart"


def daemons(platform: str = sys.platform) -> str:
    """Return the command that lists running daemons."""
    return f"pgrep {'-fl' if platform == 'darwin' else '-af'} uvtokend"


def show_processes(pids: Iterable[int], platform: str = sys.platform) -> str:
    """Return the command that shows what processes wait for in the kernel; ps(1) of macOS has no width of a column."""
    wanted = " ".join(f"-p {pid}" for pid in pids)
    return f"ps -o pid,stat,{'wchan' if platform == 'darwin' else 'wchan:32'},args {wanted}"


def clear_attributes(path: str, letters: str) -> str:
    """Return the Linux command after which a file can be changed; chattr(1).

    Args:
        path: The file.
        letters: Its attributes: ``i`` immutable, ``a`` append-only.
    """
    return f"sudo chattr -{letters} {quote(path)}"


def clear_flags(path: str, by_root: bool) -> str:
    """Return the macOS command after which a file can be changed; chflags(1).

    Args:
        path: The file, which is immutable or append-only.
        by_root: Whether the flags are the system's, not the user's.
    """
    return f"sudo chflags noschg,nosappnd {quote(path)}" if by_root else f"chflags nouchg,nouappnd {quote(path)}"


def read_keychain(service: str, username: str) -> str:
    """Return the edit of config.toml that reads a Keychain entry with macOS's own program; security(1)."""
    words = ("/usr/bin/security", "find-generic-password", "-s", service, "-a", username, "-w")
    return f"in config.toml, read it by the system's program: {{ command = {json.dumps(words)} }}"


def write_secret(path: str) -> str:
    """Return the command that writes a secret from the terminal to a private file, without an argument."""
    return f"(umask 077; cat > {quote(path)})"

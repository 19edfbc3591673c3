"""Fixes that differ by platform, one row each: the command that a person runs on Linux and on macOS.

Pure: the platform is a value of ``sys.platform``, with the running one as the default.
"""

from __future__ import annotations

import sys
from shlex import quote


def file_system(path: str, platform: str = sys.platform) -> str:
    """Return the command that shows which file system a path lies in, and whether that is read-only."""
    return f"df {quote(path)} && mount" if platform == "darwin" else f"findmnt -T {quote(path)}"


def show_clock(platform: str = sys.platform) -> str:
    """Return the command that shows whether this machine's clock is right."""
    return "sntp time.apple.com" if platform == "darwin" else "timedatectl status"


def set_clock(platform: str = sys.platform) -> str:
    """Return the command that sets this machine's clock right."""
    return "sudo sntp -sS time.apple.com" if platform == "darwin" else "sudo timedatectl set-ntp true"


def users_of(path: str, platform: str = sys.platform) -> str:
    """Return the command that shows which programs have a file open."""
    return f"{'lsof' if platform == 'darwin' else 'fuser -v'} {quote(path)}"


def daemons(platform: str = sys.platform) -> str:
    """Return the command that lists running daemons."""
    return f"pgrep {'-fl' if platform == 'darwin' else '-af'} uvtokend"


def make_mutable(path: str, platform: str = sys.platform) -> str:
    """Return the command that lets a file be changed that is marked immutable."""
    return f"chflags nouchg {quote(path)}" if platform == "darwin" else f"sudo chattr -i {quote(path)}"


def write_secret(path: str) -> str:
    """Return the command that writes a secret from the terminal into a private file: no argument holds it."""
    return f"(umask 077; cat > {quote(path)})"

"""Functions that Python has only on Linux, for tests with that marker; type checks for macOS skip their bodies."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path

import psutil


def set_attribute(path: Path, name: str, value: bytes) -> None:
    """Set an extended attribute of a file."""
    if sys.platform == "linux":
        os.setxattr(path, name, value)


def attribute(path: Path, name: str) -> bytes:
    """Return an extended attribute of a file."""
    if sys.platform == "linux":
        return os.getxattr(path, name)
    raise OSError


def core_limits(process: int) -> tuple[int, int]:
    """Return the soft and the hard limit on core dumps of a process, in bytes."""
    if sys.platform == "linux":
        return psutil.Process(process).rlimit(psutil.RLIMIT_CORE)
    raise OSError


def routing() -> socket.socket:
    """Return a netlink socket for the kernel's routing messages."""
    if sys.platform == "linux":
        return socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
    raise OSError

"""The file systems below our files: is there room, and may we write?"""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator

from uvtokend import paths
from uvtokend.core import fixes
from uvtokend.disk import files
from uvtokend.doctor.facts import Facts
from uvtokend.doctor.finding import Finding, error

#: Fewer free bytes than this cannot hold a netrc and its successor.
_ROOM = 64 * 1024


def writable(facts: Facts) -> Iterator[Finding]:
    """A directory that uvtokend writes to is full, read-only or closed."""
    if not facts.indexes:
        return
    wanted = {"netrc": os.path.dirname(facts.netrc_path), "state file": os.path.realpath(paths.state_directory())}
    if any(index.sink == "uv-store" for index in facts.indexes):
        wanted["credential store of uv"] = os.path.dirname(os.path.realpath(paths.uv_credentials_file()))
    for what, path in wanted.items():
        yield from directory(what, _existing(path))


def directory(what: str, path: str) -> Iterator[Finding]:
    """Look at one directory.

    Args:
        what: What is in it, for people.
        path: The directory, with symlinks resolved.
    """
    quoted = shlex.quote(path)
    try:
        system = os.statvfs(path)
    except OSError as problem:
        yield error(
            "directory",
            f"The directory of the {what} cannot be reached: {problem.strerror}.",
            path,
            f"ls -ld {quoted}",
        )
        return
    if system.f_flag & os.ST_RDONLY:
        message = f"The {what} is in {path}, a read-only file system, so no new token can be written."
        yield error("read-only", message, path, fixes.make_writable(mount_point(path)))
    elif system.f_bavail * system.f_frsize < _ROOM:
        message = f"The file system of the {what}, {path}, is full, so no new token can be written."
        yield error("disk-full", message, path, f"delete what you do not need there: df -h {quoted}")
    elif not os.access(path, os.W_OK | os.X_OK):
        message = f"You may not write to {path}, the directory of the {what}, so no new token can be written."
        yield error("directory-closed", message, path, f"chmod u+wx {quoted}")


def mount_point(path: str) -> str:
    """Return where the file system of a directory is mounted."""
    while not os.path.ismount(path) and not files.is_mounted(path) and os.path.dirname(path) != path:
        path = os.path.dirname(path)
    return path


def _existing(directory: str) -> str:
    while not os.path.exists(directory) and os.path.dirname(directory) != directory:
        directory = os.path.dirname(directory)
    return directory


CHECKS = (writable,)

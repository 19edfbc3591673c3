"""The file systems of our files: is there room, and can we write?"""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Iterator

from uvtokend import paths
from uvtokend.core import fixes
from uvtokend.disk import files
from uvtokend.doctor.facts import Facts
from uvtokend.doctor.finding import Finding, error, note

#: The directory that only this user may access.
_STATE = "state file"
#: The least free bytes: room for a netrc and its successor.
_ROOM = 64 * 1024


def writable(facts: Facts) -> Iterator[Finding]:
    """A directory that uvtokend writes to is full, read-only or forbidden."""
    if not facts.indexes:
        return
    deliver, start = "no new token can be delivered", "the daemon cannot start"
    wanted = {
        "netrc": (os.path.dirname(facts.netrc_path), deliver),
        _STATE: (os.path.realpath(paths.state_directory()), start),
    }
    if any(index.sink == "uv-store" for index in facts.indexes):
        wanted["credential store of uv"] = (os.path.dirname(os.path.realpath(paths.uv_credentials_file())), deliver)
    works = all(facts.has_token(index) and index.target not in facts.expired for index in facts.indexes)
    for what, (path, consequence) in wanted.items():
        yield from directory(what, _existing(path), consequence, note if works else error)


def directory(
    what: str, path: str, consequence: str = "no new token can be delivered", report: Callable[..., Finding] = error
) -> Iterator[Finding]:
    """Check one directory.

    Args:
        what: Its content, for people.
        path: The directory, with symlinks resolved.
        consequence: What cannot be done without it.
        report: Returns the finding: a note while uv still works.
    """
    quoted = shlex.quote(path)
    if not os.path.isdir(path):
        message = f"{path}, a directory of the {what}, is not a directory, so {consequence}."
        yield report("not-a-directory", message, path, f"mv {quoted} {quoted}.old")
        return
    try:
        system = os.statvfs(path)
    except OSError as problem:
        message = f"The directory of the {what} cannot be reached: {problem.strerror}."
        yield report("directory", message, path, f"ls -ld {quoted}")
        return
    if system.f_flag & os.ST_RDONLY:
        message = f"The {what} is in {path}, a read-only file system, so {consequence}."
        yield report("read-only", message, path, fixes.make_writable(mount_point(path)))
    elif system.f_bavail * system.f_frsize < _ROOM:
        message = f"The file system of the {what}, {path}, is full, so {consequence}."
        yield report("disk-full", message, path, f"delete what you do not need there: df -h {quoted}")
    elif not os.access(path, os.W_OK | os.X_OK):
        message = f"You may not write to {path}, the directory of the {what}, so {consequence}."
        yield report("directory-closed", message, path, f"chmod {'700' if what == _STATE else 'u+wx'} {quoted}")


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

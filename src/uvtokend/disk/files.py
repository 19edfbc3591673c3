"""Files that others change too: reading one that nobody is in the middle of writing, and writing one whole."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import stat
import sys
import time
from dataclasses import dataclass

#: The longest netrc that we take for one, in bytes.
LIMIT = 16 << 20
#: How long to wait for a program that has the file open for writing, in seconds, and how often to look.
PATIENCE = 1.0
_LOOK = 0.002


@dataclass(frozen=True, slots=True)
class Content:
    """A file as it was read.

    Args:
        held: Somebody still has it open for writing.
    """

    text: bytes
    status: os.stat_result
    held: bool


def read_settled(path: str) -> Content | None:
    """Read a regular file when nobody is writing it, or after `PATIENCE` as it is; None if it is missing.

    Raises:
        OSError: EISDIR for a folder, ENOTSUP for what is no regular file, EFBIG above `LIMIT`, ELOOP for a symlink.
    """
    try:
        file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        mode = os.fstat(file).st_mode
        if not stat.S_ISREG(mode):
            code = errno.EISDIR if stat.S_ISDIR(mode) else errno.ENOTSUP
            raise OSError(code, os.strerror(code), path)
        deadline = time.monotonic() + PATIENCE
        while (held := _has_writer(file)) and time.monotonic() < deadline:
            time.sleep(_LOOK)
        return Content(read_all(file, path), os.fstat(file), held)
    finally:
        os.close(file)


def read(path: str, limit: int = LIMIT) -> bytes:
    """Return the content of a regular file that only uvtokend writes. A pipe or device is never waited for.

    Args:
        path: The file; a symlink is not followed.
        limit: In bytes.

    Raises:
        OSError: It is missing or cannot be read; ENOTSUP for a file that is not regular, EFBIG above the limit.
    """
    file = open_regular(path, os.O_RDONLY)
    try:
        return read_all(file, path, limit)
    finally:
        os.close(file)


def open_regular(path: str, flags: int, mode: int = 0o600) -> int:
    """Open a regular file without ever waiting for the other end of a pipe, and return its descriptor.

    Args:
        path: The file; a symlink is not followed.
        flags: As for `os.open`.
        mode: Of a new file.

    Raises:
        OSError: It cannot be opened; ENOTSUP or ENXIO for a file that is not regular.
    """
    file = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, mode)
    if not stat.S_ISREG(os.fstat(file).st_mode):
        os.close(file)
        raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP), path)
    return file


def read_all(file: int, path: str, limit: int = LIMIT) -> bytes:
    """Read an open file from its start.

    Raises:
        OSError: EFBIG above the limit, in bytes.
    """
    pieces: list[bytes] = []
    size = 0
    while piece := os.pread(file, 1 << 20, size):
        pieces.append(piece)
        size += len(piece)
        if size > limit:
            raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), path)
    return b"".join(pieces)


def write_all(file: int, text: bytes, at: int = 0) -> None:
    """Write all of a text: a full disk lets `write` write less without a complaint, and complain only next time."""
    while text:
        written = os.pwrite(file, text, at)
        text, at = text[written:], at + written


def overwrite(path: str, old: bytes, new: bytes) -> bool:
    """Write a file in place, where it cannot be replaced; False if it no longer holds the old text.

    What is longer is written first, so that a full disk is noticed before anything is lost.
    """
    file = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        if read_all(file, path) != old:
            return False
        try:
            write_all(file, new[len(old) :], len(old))
        except OSError:
            os.ftruncate(file, len(old))
            raise
        write_all(file, new[: len(old)])
        os.ftruncate(file, len(new))
        os.fsync(file)
        return True
    finally:
        os.close(file)


def fingerprint(path: str) -> tuple[int, ...]:
    """Return something cheap that changes whenever a file does; empty if it is missing."""
    try:
        status = os.stat(path)
    except OSError:
        return ()
    return status.st_dev, status.st_ino, status.st_mtime_ns, status.st_size


def replace(path: str, text: bytes) -> None:
    """Replace a file by one with mode 0600, whole and durably. Its directory must be ours alone.

    Raises:
        OSError: It could not be written; the old file is still there.
    """
    temporary = f"{path}.new"
    with contextlib.suppress(FileNotFoundError):
        os.unlink(temporary)
    try:
        create(temporary, text)
        os.replace(temporary, path)
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    sync_folder(os.path.dirname(path))


def create(path: str, text: bytes, mode: int = 0o600) -> None:
    """Create a file durably.

    Raises:
        OSError: FileExistsError if there is one; a file that could not be written may be left incomplete.
    """
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        os.fchmod(file, mode)
        write_all(file, text)
        os.fsync(file)
    finally:
        os.close(file)


def sync(path: str) -> None:
    """Make what another program has put in a file's place last."""
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(file)
    finally:
        os.close(file)
    sync_folder(os.path.dirname(path))


def sync_folder(folder: str) -> None:
    """Make a rename last."""
    file = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(file)
    finally:
        os.close(file)


def _has_writer(file: int) -> bool:
    """Return whether somebody has an open file open for writing, as far as the system can tell.

    Linux grants a read lease on a file only if nobody has it open for writing (fcntl(2), F_SETLEASE). It is given back
    at once; who asks for the file in that instant is only delayed until then, and the signal that tells us so is made
    one that is ignored, since SIGIO would end the process.
    """
    if sys.platform != "linux":
        return False
    import fcntl  # noqa: PLC0415 - Linux only

    try:
        fcntl.fcntl(file, fcntl.F_SETSIG, signal.SIGURG)
        fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    except OSError as error:
        return error.errno == errno.EAGAIN  # else: no leases here, or the file is another user's
    return False

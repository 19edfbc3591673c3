"""Files that other programs change too: read one when nobody is writing it, and write one completely."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import stat
import sys
import time
from dataclasses import dataclass

#: The largest file that is accepted as a netrc, in bytes.
LIMIT = 16 << 20
#: How long to wait for a program that has the file open for writing, in seconds, and how often to look.
PATIENCE = 1.0
_LOOK = 0.002
#: The longest time, in seconds, in which two writes may get the same modification time: one tick of the slowest kernel
#: clock (CONFIG_HZ=100), twice.
TICK = 0.02

#: Device, inode, modification time and size of a file; empty for a missing file, or for one that is still changing.
Fingerprint = tuple[int, ...]


class TornError(OSError):
    """A write in place failed, and the old text could not be written back either."""


@dataclass(frozen=True, slots=True)
class Content:
    """A file as it was read.

    Args:
        text: All of it.
        status: Taken before the text was read, so a later change gives another fingerprint.
        held: Another program still has the file open for writing.
        sure: The system tells of every program that does. Otherwise `held` is what is known.
    """

    text: bytes
    status: os.stat_result
    held: bool
    sure: bool = True


def read_settled(path: str) -> Content | None:
    """Read a regular file when nobody is writing it, or after `PATIENCE` as it is; return None if it is missing.

    Raises:
        OSError: EISDIR for a directory, ENOTSUP for anything else that is not a regular file, EFBIG above `LIMIT`,
            ELOOP for a symbolic link.
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
        while ((held := _has_writer(file, path)) or _may_be_filling(file, held)) and time.monotonic() < deadline:
            time.sleep(_LOOK)
        status = os.fstat(file)
        return Content(read_all(file, path), status, bool(held), held is not None)
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
        OSError: It cannot be opened; ENOTSUP, EOPNOTSUPP or ENXIO for a file that is not regular.
    """
    file = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, mode)
    if not stat.S_ISREG(os.fstat(file).st_mode):
        os.close(file)
        raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP), path)
    return file


def real_path(path: str) -> str:
    """Return the path of a file as its volume knows it: without symbolic links and, on macOS, in the volume's own case.

    Most volumes of macOS take ``~/.NETRC`` and ``~/.netrc`` for the same file.
    """
    real = os.path.realpath(path)
    if sys.platform == "darwin":
        from uvtokend import darwin  # noqa: PLC0415 - macOS only

        real = darwin.known_path(real)
    return real


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
    """Write all of a text: on a full disk, `write` writes less than it was given and fails only the next time.

    Raises:
        OSError: Part of the text may have been written.
    """
    rest = memoryview(text)
    while rest:
        written = os.pwrite(file, rest, at)
        if not written:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        rest, at = rest[written:], at + written


def overwrite(path: str, old: bytes, new: bytes) -> Fingerprint | None:
    """Write a file in place, where it cannot be replaced, and return its fingerprint.

    The part beyond the old end is written first, so a full disk is noticed before anything is lost. After any later
    error the old text is written back.

    Returns:
        None, with nothing written, if the file no longer holds the old text.

    Raises:
        TornError: The old text could not be written back, so the file holds a mixture of both.
        OSError: The file is as it was.
    """
    file = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        if read_all(file, path) != old:
            return None
        try:
            write_all(file, new[len(old) :], len(old))
            write_all(file, new[: len(old)])
            os.ftruncate(file, len(new))
            fsync(file)
        except OSError as error:
            _write_back(file, old, error)
            raise
        return fingerprint_of(file, new)
    finally:
        os.close(file)


def _write_back(file: int, old: bytes, reason: OSError) -> None:
    try:
        write_all(file, old)
        os.ftruncate(file, len(old))
    except OSError as error:
        raise TornError(reason.errno, reason.strerror) from error


def fingerprint_of(file: int, text: bytes) -> Fingerprint:
    """Return the fingerprint of an open file that was just written, if it holds this text and nothing newer.

    A program that writes the file right after us may get the same modification time as we did, because the kernel's
    clock moves in ticks. So wait for the next tick, then compare.
    """
    status = os.fstat(file)
    deadline = time.monotonic() + TICK
    while _recent(status) and time.monotonic() < deadline:
        time.sleep(_LOOK)
    same = fingerprint_from(os.fstat(file)) == fingerprint_from(status) and read_all(file, "") == text
    return fingerprint_from(status) if same else ()


def fingerprint_with(path: str, text: bytes) -> Fingerprint:
    """Return the fingerprint of a file that holds this text and nothing newer; empty if it is missing or does not."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return ()
    try:
        return fingerprint_of(file, text)
    finally:
        os.close(file)


def _recent(status: os.stat_result) -> bool:
    clock = getattr(time, "CLOCK_REALTIME_COARSE", time.CLOCK_REALTIME)
    return bool(time.clock_gettime_ns(clock) <= status.st_mtime_ns)


def fingerprint_from(status: os.stat_result) -> Fingerprint:
    """Return the fingerprint of a file with this status."""
    return status.st_dev, status.st_ino, status.st_mtime_ns, status.st_size


def fingerprint(path: str) -> Fingerprint:
    """Return something cheap that changes whenever a file does; empty if it is missing."""
    try:
        return fingerprint_from(os.stat(path))
    except OSError:
        return ()


def is_mounted(path: str) -> bool:
    """Return whether a file is a mount point itself, as containers and systemd mount single files.

    Linux only (proc(5), mountinfo): `os.path.ismount` answers for directories alone.
    """
    with contextlib.suppress(OSError), open("/proc/self/mountinfo", "rb") as table:
        wanted = os.fsencode(path).replace(b"\\", b"\\134")
        for plain, escape in ((b" ", b"\\040"), (b"\t", b"\\011"), (b"\n", b"\\012")):
            wanted = wanted.replace(plain, escape)
        return any(line.split(b" ", 5)[4] == wanted for line in table)
    return False


def replace(path: str, text: bytes, durable: bool = True) -> None:
    """Replace a file completely by one with mode 0600. Its directory must be ours alone.

    Args:
        path: The file.
        text: Its new content.
        durable: It must outlast a power cut; otherwise only our own end, which takes a fraction of the time.

    Raises:
        OSError: The old file stands.
    """
    temporary = f"{path}.new"
    with contextlib.suppress(FileNotFoundError):
        os.unlink(temporary)
    try:
        create(temporary, text, durable=durable)
        os.replace(temporary, path)
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    if durable:
        sync_directory(os.path.dirname(path))


def create(path: str, text: bytes, mode: int = 0o600, durable: bool = True) -> None:
    """Create a file, durably unless that is not needed.

    Raises:
        OSError: FileExistsError if there is one, or it could not be written; then nothing is left of it.
    """
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        os.fchmod(file, mode)
        write_all(file, text)
        if durable:
            fsync(file)
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(path)
        raise
    finally:
        os.close(file)


def sync(path: str) -> None:
    """Make a file durable that another program has put in place."""
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fsync(file)
    finally:
        os.close(file)
    sync_directory(os.path.dirname(path))


def sync_directory(directory: str) -> None:
    """Make a rename in a directory durable."""
    file = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fsync(file)
    finally:
        os.close(file)


def fsync(file: int) -> None:
    """Write an open file to the medium.

    Raises:
        OSError: It cannot be written.
    """
    if sys.platform == "darwin":
        from uvtokend import darwin  # noqa: PLC0415 - macOS only

        darwin.full_sync(file)
    else:
        os.fsync(file)


def _may_be_filling(file: int, held: bool | None) -> bool:
    """Return whether a program that the system does not show may have emptied a file to write it anew."""
    status = os.fstat(file)
    age = time.clock_gettime_ns(time.CLOCK_REALTIME) - status.st_mtime_ns
    return held is None and status.st_size == 0 and 0 <= age < PATIENCE * 1e9


def _has_writer(file: int, path: str) -> bool | None:
    """Return whether a program has an open file open for writing; None if the system does not show every program.

    Linux grants a read lease on a file only if nobody has it open for writing (fcntl(2), F_SETLEASE). It is given back
    at once. A program that opens the file in that instant is only delayed until then. The signal that reports such a
    program to us is set to SIGURG, which is ignored: the default, SIGIO, would end this process. Where there are no
    leases, or on a file of another user, it refuses otherwise. macOS lists the writers among this user's processes.
    """
    if sys.platform == "linux":
        held = _refuses_lease(file)
    elif sys.platform == "darwin":
        held = _has_writer_on_macos(file, path)
    else:
        held = None
    return held


if sys.platform == "linux":

    def _refuses_lease(file: int) -> bool | None:
        import fcntl  # noqa: PLC0415 - only after a file is open

        try:
            fcntl.fcntl(file, fcntl.F_SETSIG, signal.SIGURG)
            fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_RDLCK)
            fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_UNLCK)
        except OSError as error:
            return True if error.errno == errno.EAGAIN else None
        return False


def _has_writer_on_macos(file: int, path: str) -> bool | None:
    from uvtokend import darwin  # noqa: PLC0415 - macOS only

    status = os.fstat(file)
    with contextlib.suppress(OSError):
        return True if darwin.writers(path, status.st_dev, status.st_ino) else None
    return None

"""Files that other programs change, too: read one when no program is writing it, and write one completely."""

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
        text: The whole text.
        status: The status before the text was read, so that a later change gives another fingerprint.
        held: Whether another program still has the file open for writing.
        sure: Whether the system shows every such program. Otherwise `held` covers only the visible ones.
        settled: Whether the text has this status, and every later change is expected to give the file another
            `identity`. In the clock tick of the last change it may not.
    """

    text: bytes
    status: os.stat_result
    held: bool
    sure: bool = True
    settled: bool = False


def read_settled(path: str) -> Content | None:
    """Read a regular file when no program is writing it, or after `PATIENCE` seconds; return None if it is missing.

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
        settled = not _recent(status)
        text = read_all(file, path, expected=status.st_size)
        settled = settled and identity(os.fstat(file)) == identity(status)  # no program wrote it meanwhile
        return Content(text, status, bool(held), held is not None, settled)
    finally:
        os.close(file)


def read(path: str, limit: int = LIMIT) -> bytes:
    """Return the content of a regular file that only uvtokend writes. A pipe or device is never waited for.

    Args:
        path: The file; a symlink is not followed.
        limit: The most bytes.

    Raises:
        OSError: The file is missing or cannot be read; ENOTSUP for a file that is not regular, EFBIG above the limit.
    """
    file = open_regular(path, os.O_RDONLY)
    try:
        return read_all(file, path, limit)
    finally:
        os.close(file)


def open_regular(path: str, flags: int, mode: int = 0o600) -> int:
    """Open a regular file and return its descriptor. A pipe is never waited for.

    Args:
        path: The file; a symlink is not followed.
        flags: The flags for `os.open`.
        mode: The mode of a new file.

    Raises:
        OSError: The file cannot be opened; ENOTSUP, EOPNOTSUPP or ENXIO for a file that is not regular.
    """
    file = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, mode)
    if not stat.S_ISREG(os.fstat(file).st_mode):
        os.close(file)
        raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP), path)
    return file


def real_path(path: str) -> str:
    """Return the path of a file on its volume: without symbolic links and, on macOS, in the volume's own case.

    On most volumes of macOS, ``~/.NETRC`` and ``~/.netrc`` are the same file.
    """
    real = os.path.realpath(path)
    if sys.platform == "darwin":
        from uvtokend import darwin  # noqa: PLC0415 - macOS only

        real = darwin.known_path(real)
    return real


def leads_to(path: str, real: str) -> bool:
    """Return whether a path leads to a regular file that `real_path` has found before, which takes two calls.

    Args:
        path: The path; it may be a symbolic link.
        real: The path of the file.
    """
    try:
        there = os.lstat(real)
        return stat.S_ISREG(there.st_mode) and (path == real or os.path.samestat(os.stat(path), there))
    except OSError:
        return False


def read_all(file: int, path: str, limit: int = LIMIT, expected: int = 0) -> bytes:
    """Read an open file from the start.

    Args:
        file: The file.
        path: Its name in an error.
        limit: The most bytes.
        expected: The size of the file, if it is known: then the text is read in one piece and not copied.

    Raises:
        OSError: EFBIG above the limit, in bytes.
    """
    pieces: list[bytes] = []
    size, most = 0, min(max(expected, 1 << 16), limit) + 1
    while piece := os.pread(file, most, size):
        pieces.append(piece)
        size, most = size + len(piece), 1 << 20
        if size > limit:
            raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), path)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def write_all(file: int, text: bytes, at: int = 0) -> None:
    """Write a whole text. On a full disk, `os.write` writes only a part, and fails only the next time.

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
    """Write a file in place, for a file that cannot be replaced, and return its fingerprint.

    The part beyond the old end is written first, so a full disk is noticed before anything is lost. After any later
    error the old text is written back.

    Returns:
        None, with nothing written, if the file no longer holds the old text.

    Raises:
        TornError: The old text could not be written back, so the file contains a mixture of both.
        OSError: The file is unchanged.
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
    """Return the fingerprint of an open file that was just written, if it still contains this text.

    A program that writes the file right after us may get the same times as we did, because the kernel's clock moves in
    ticks. So this function waits for the next tick and then compares.
    """
    status = os.fstat(file)
    deadline = time.monotonic() + TICK
    while _recent(status) and time.monotonic() < deadline:
        time.sleep(_LOOK)
    same = identity(os.fstat(file)) == identity(status) and read_all(file, "", expected=status.st_size) == text
    return fingerprint_from(status) if same else ()


def unchanged(path: str, content: Content) -> bool:
    """Return whether a file looks, without being opened, as if it contained what was read from it before.

    It is no proof; see `identity`. A program may have opened it to write.

    Args:
        path: The file.
        content: What was read.

    Raises:
        OSError: The file is missing.
    """
    return content.settled and identity(os.lstat(path)) == identity(content.status)


def fingerprint_with(path: str, text: bytes) -> Fingerprint:
    """Return the fingerprint of a file if it contains this text; empty if it does not, or is missing."""
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
    return bool(time.clock_gettime_ns(clock) <= max(status.st_mtime_ns, status.st_ctime_ns))


def fingerprint_from(status: os.stat_result) -> Fingerprint:
    """Return the fingerprint of a file with this status."""
    return status.st_dev, status.st_ino, status.st_mtime_ns, status.st_size


def identity(status: os.stat_result) -> Fingerprint:
    """Return what changes with every change of a file: unlike its fingerprint, no program can set it back.

    It includes the time of the last change of the inode (``st_ctime_ns``), which no call sets. But two changes in one
    tick of the kernel's clock may have the same times, a network disk has a clock of its own, and a program that has
    mapped the file changes the time late. So an equal identity proves nothing: nothing may be written because of it.
    """
    return *fingerprint_from(status), status.st_ctime_ns


def fingerprint(path: str) -> Fingerprint:
    """Return a cheap fingerprint that changes whenever a file does; empty if the file is missing."""
    try:
        return fingerprint_from(os.stat(path))
    except OSError:
        return ()


def is_mounted(path: str) -> bool:
    """Return whether a file is a mount point itself, as containers and systemd mount single files.

    Linux only (proc(5), mountinfo): `os.path.ismount` works only for directories.
    """
    with contextlib.suppress(OSError), open("/proc/self/mountinfo", "rb") as table:
        wanted = os.fsencode(path).replace(b"\\", b"\\134")
        for plain, escape in ((b" ", b"\\040"), (b"\t", b"\\011"), (b"\n", b"\\012")):
            wanted = wanted.replace(plain, escape)
        return any(line.split(b" ", 5)[4] == wanted for line in table)
    return False


def replace(path: str, text: bytes, durable: bool = True, mode: int = 0o600) -> None:
    """Replace a file as a whole. Nobody else may write its directory.

    Args:
        path: The file.
        text: Its new content.
        durable: Whether the file must survive a power cut. Otherwise it survives only the end of the process, which is
            much faster.
        mode: The permissions of the new file.

    Raises:
        OSError: The file could not be written; the old one is still there.
    """
    temporary = f"{path}.new"
    try:
        try:
            create(temporary, text, mode, durable)
        except FileExistsError:  # a crash has left it
            os.unlink(temporary)
            create(temporary, text, mode, durable)
        os.replace(temporary, path)
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    if durable:
        sync_directory(os.path.dirname(path))


def create(path: str, text: bytes, mode: int = 0o600, durable: bool = True) -> None:
    """Create a file; it survives a power cut if `durable` is set.

    Raises:
        OSError: FileExistsError if the file exists; otherwise it could not be written, and nothing of it is left.
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
    """Return whether a program that the system does not show may have emptied a file to write it again."""
    if held is not None:
        return False
    status = os.fstat(file)
    age = time.clock_gettime_ns(time.CLOCK_REALTIME) - status.st_mtime_ns
    return status.st_size == 0 and 0 <= age < PATIENCE * 1e9


def _has_writer(file: int, path: str) -> bool | None:
    """Return whether a program has an open file open for writing; None if the system does not show every program.

    Linux grants a read lease on a file only if no program has it open for writing (fcntl(2), F_SETLEASE). The lease is
    returned at once. A program that opens the file in that instant is only delayed until then. The signal that reports
    such a program is set to SIGURG, which is ignored: the default, SIGIO, would end this process. If there are no
    leases, or the file belongs to another user, Linux returns another error. macOS lists the writers among this user's
    processes.
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

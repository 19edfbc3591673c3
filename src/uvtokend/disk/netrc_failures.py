"""Explain a system error for the netrc: a sentence that names the culprit, and the command that fixes it."""

from __future__ import annotations

import contextlib
import errno
import os
import shlex
import stat
import sys
from collections.abc import Iterator, Sequence

from uvtokend.core import fixes
from uvtokend.disk import files
from uvtokend.disk.holders import Holder, named
from uvtokend.errors import DeliveryFailed

#: The owner that root has in a user namespace such as systemd's PrivateUsers (kernel.overflowuid).
_NOBODY = 65534
#: linux/fs.h: FS_IOC_GETFLAGS on 64-bit systems, FS_IMMUTABLE_FL and FS_APPEND_FL.
_GET_FLAGS, _IMMUTABLE, _APPEND_ONLY = 0x80086601, 0x10, 0x20


@contextlib.contextmanager
def explained(path: str) -> Iterator[None]:
    """Turn a system error into a `DeliveryFailed` that explains it for a netrc.

    Args:
        path: The netrc, resolved.
    """
    try:
        yield
    except OSError as error:
        raise of(error, path) from error


def held(path: str, holders: Sequence[Holder], *, emptied: bool) -> DeliveryFailed:
    """Return the failure of a delivery that waits for another program.

    Args:
        path: The netrc, resolved.
        holders: The programs that have it open for writing, as far as they are known.
        emptied: Whether they have emptied or shortened it, so that their text is still to come.
    """
    who = ", ".join(map(str, holders)) or "Another program"
    verb = "have" if len(holders) > 1 else "has"
    why = f" and {verb} not written all of it yet" if emptied else ""
    message = f"{who} {verb} {path} open for writing{why}, so uvtokend waits."
    hint = f"let it finish, or: kill {' '.join(str(holder.pid) for holder in holders)}" if holders else None
    return DeliveryFailed("held", message, hint or fixes.users_of(path))


def locked(path: str, locker: int | None, seconds: float) -> DeliveryFailed:
    """Return the failure of a delivery that waited for another program's lock.

    Args:
        path: The netrc, resolved.
        locker: The process ID of that program; None if it is unknown.
        seconds: How long the delivery has waited.
    """
    directory = os.path.dirname(path)
    who = None if locker is None else named(locker)
    message = f"{who or 'Another program'} has kept the directory {directory} of the netrc locked for {seconds:g} s."
    return DeliveryFailed("busy", message, f"let it finish, or: kill {locker}" if who else fixes.users_of(directory))


def check_directory(directory: str) -> None:
    """Refuse a directory in which other users could replace our file by one of theirs.

    Raises:
        DeliveryFailed: Other users could do so, or the path is not a directory.
        OSError: The directory cannot be checked.
    """
    status = os.stat(directory)
    if not stat.S_ISDIR(status.st_mode):
        message = f"{directory}, where the netrc should be, is not a directory."
        raise DeliveryFailed("directory-missing", message, f"ls -ld {shlex.quote(directory)}")
    user = os.geteuid()
    if user != 0 and status.st_uid not in (user, 0, _NOBODY):
        message = f"The directory {directory} of the netrc belongs to another user, so no token is written there."
        raise DeliveryFailed("open-directory", message, f"sudo chown {user} {shlex.quote(directory)}")
    if status.st_mode & 0o022:
        message = f"Others may write to the directory {directory} of the netrc, so no token is written there."
        raise DeliveryFailed("open-directory", message, f"chmod go-w {shlex.quote(directory)}")


def not_ours(path: str, user: int) -> DeliveryFailed:
    """Return the failure of a delivery to another user's file."""
    return DeliveryFailed("not-ours", f"{path} belongs to another user.", f"sudo chown {user} {shlex.quote(path)}")


def of(error: OSError, path: str) -> DeliveryFailed:
    """Return the failure that explains a system error for a netrc.

    Args:
        error: The error.
        path: The netrc, resolved.
    """
    directory = os.path.dirname(path)
    file, place = shlex.quote(path), shlex.quote(directory)
    match error.errno:
        case errno.EISDIR:
            return DeliveryFailed("is-a-directory", f"{path} is a directory, not a netrc.", f"mv {file} {file}.old")
        case errno.ENOTSUP | errno.EOPNOTSUPP | errno.ENXIO:  # the last two: macOS and Linux of a socket (open(2))
            message = f"{path} is not a regular file; uvtokend does not write to a pipe, socket or device."
            return DeliveryFailed("not-a-file", message, f"mv {file} {file}.old")
        case errno.EFBIG:
            message = f"{path} is longer than {files.LIMIT >> 20} MiB, so it is not a netrc."
            return DeliveryFailed("too-large", message, f"ls -l {file}")
        case errno.ELOOP:
            return DeliveryFailed("symlink-loop", f"{path} is a symbolic link to itself.", f"rm {file}")
        case errno.ENOTDIR:
            message = f"{directory}, where the netrc should be, is not a directory."
            return DeliveryFailed("directory-missing", message, f"ls -ld {place}")
        case errno.ENOSPC | errno.EDQUOT:
            message = f"The disk is full, so {path} could not be written; it is unchanged."
            return DeliveryFailed("disk-full", message, f"df -h {place}")
        case errno.EROFS:
            message = f"{path} is on a read-only file system."
            return DeliveryFailed("read-only", message, fixes.file_system(directory))
        case errno.EACCES | errno.EPERM:
            return _no_permission(path, error.errno == errno.EPERM)
        case _:
            message = f"{path} could not be written: {os.strerror(error.errno or errno.EIO)}."
            return DeliveryFailed("io-error", message)


def _no_permission(path: str, by_policy: bool) -> DeliveryFailed:
    """Return why a file or its directory cannot be used.

    Args:
        path: The netrc, resolved.
        by_policy: Whether the error is EPERM, which is not about the mode of a file.
    """
    directory = os.path.dirname(path)
    for name in (path, directory):
        if (command := _unlocked_by(name)) is not None:
            message = f"{name} is immutable, so {path} cannot be written."
            return DeliveryFailed("immutable", message, command)
    if by_policy and (place := _private_place(path)) is not None:
        message = f"macOS does not let uvtokend use {path}: its privacy settings protect {place}."
        hint = f"move the netrc out of {place}, or allow it in System Settings > Privacy & Security > Full Disk Access"
        return DeliveryFailed("protected", message, hint)
    if os.access(directory, os.W_OK | os.X_OK):
        if os.path.exists(path) and not _is_ours(path):
            return not_ours(path, os.geteuid())
        message = f"You have no permission to read and write {path}."
        return DeliveryFailed("no-permission", message, f"chmod u+rw {shlex.quote(path)}")
    message = f"You have no permission to write {path} in the directory {directory}."
    return DeliveryFailed(
        "no-permission", message, f"chmod u+rwx {shlex.quote(directory)}" if _is_ours(directory) else None
    )


def _unlocked_by(path: str) -> str | None:
    """Return the command that clears a file's immutable and append-only flags; None if it has none.

    Source: ioctl_iflags(2) and chattr(1); chflags(1) of macOS.
    """
    with contextlib.suppress(OSError, ValueError):
        flags = getattr(os.stat(path), "st_flags", 0)
        if flags & (stat.UF_IMMUTABLE | stat.UF_APPEND | stat.SF_IMMUTABLE | stat.SF_APPEND):
            return fixes.clear_flags(path, by_root=bool(flags & (stat.SF_IMMUTABLE | stat.SF_APPEND)))
        if sys.platform == "linux":
            return _linux_flags(path)
    return None


def _linux_flags(path: str) -> str | None:
    import fcntl  # noqa: PLC0415 - only after a failure
    import struct  # noqa: PLC0415

    file = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        (flags,) = struct.unpack("l", fcntl.ioctl(file, _GET_FLAGS, bytes(struct.calcsize("l"))))
    finally:
        os.close(file)
    letters = "".join(letter for letter, flag in (("i", _IMMUTABLE), ("a", _APPEND_ONLY)) if flags & flag)
    return fixes.clear_attributes(path, letters) if letters else None


def _private_place(path: str) -> str | None:
    """Return the directory of a file if macOS protects it from programs; otherwise None."""
    place = None
    if sys.platform == "darwin":
        from uvtokend import darwin  # noqa: PLC0415 - macOS only

        place = darwin.private_place(path, os.path.expanduser("~"))
    return place


def _is_ours(path: str) -> bool:
    try:
        return os.stat(path).st_uid == os.geteuid()
    except OSError:
        return False

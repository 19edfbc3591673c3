"""Locks: each netrc has at most one owner, and at most one change at a time.

Numbered facts:

1. The kernel releases a ``flock`` when the process ends, even if it is killed. The text in a lock file is for people
   and for `owner`.
2. The owner's lock is beside the netrc, so two daemons use the same lock even with different state directories.
3. If no file can be created beside the netrc, or the netrc is a single-file mount (another container sees the same file
   in another directory), the lock is on the netrc itself. It would be lost with the inode, so the netrc is then written
   only in place.
4. `purge` deletes lock files. A lock on a deleted file guards nothing, so its inode is compared afterwards, and again
   before each change.
5. A change is guarded by a lock on the netrc's directory, which needs no file. It is held for milliseconds. If the file
   system has no such lock (NFS refuses one on a file that is not open for writing), changes are not serialized. Any
   program can lock that directory. The state directory is locked in the same way, while the state file is changed.
6. On a file system without ``flock``, such as some network homes (ENOTSUP on macOS, ENOLCK on Linux), a netrc has no
   owner, and every lock succeeds.
7. The owner is on this machine if its lock file names this host. macOS gives a machine another name in each network, so
   the boot session counts there.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import re
import shlex
import socket
import sys
import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass

from uvtokend.disk import files, netrc_failures
from uvtokend.errors import AlreadyOwned, UvtokendError

#: Seconds between two tries to take a lock.
_LOOK = 0.01
#: Seconds to wait for another process that has locked the netrc's directory.
PATIENCE = 10.0

_NO_SIBLING = frozenset({errno.EROFS, errno.EACCES, errno.EPERM})
#: A file system has no locks.
_WITHOUT_LOCKS = frozenset({errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.ENOLCK})
#: A directory, a symbolic link or a socket.
_NOT_A_FILE = frozenset({errno.EISDIR, errno.ELOOP, errno.EMLINK, errno.ENXIO, errno.EOPNOTSUPP})
_WRITTEN = re.compile(r"pid (\d{1,9}) on (\S+)(?: boot (\S+))?\n")


@dataclass(frozen=True, slots=True)
class Owner:
    """The process that holds a lock.

    Args:
        pid: Its process ID, on its own host and in its own container.
        host: The host's name, as the process saw it.
        boot: The boot session of the machine, on macOS.
    """

    pid: int
    host: str
    boot: str = ""

    def __str__(self) -> str:
        return f"pid {self.pid} on {self.host}"

    @property
    def is_here(self) -> bool:
        """Whether the process runs on this machine."""
        return self.boot == _boot_session() if self.boot else self.host == socket.gethostname()


class Lock:
    """Holds a lock from its creation until `release`, `remove` or the end of the process.

    Args:
        path: The lock file, in a directory of ours. It is created if it is missing.
        what: The name of the guarded file in the message of a refusal.

    Raises:
        AlreadyOwned: Another process holds the lock.
        OSError: The lock file cannot be created or opened.
    """

    #: Whether the lock is on the netrc itself, which must then keep its inode.
    in_place = False

    def __init__(self, path: str, what: str) -> None:
        self._path = path
        while True:
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            self._take(what)
            if _same_file(self._file, path):
                break
            os.close(self._file)
        with contextlib.suppress(OSError):  # the lock also holds on a full disk
            os.ftruncate(self._file, 0)
            os.pwrite(self._file, _text(Owner(os.getpid(), socket.gethostname(), _boot_session())).encode(), 0)

    def _take(self, what: str) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = self._owner()
            os.close(self._file)
            message = f"{what} already has an owner: {owner or 'another process'}."
            raise AlreadyOwned(message, "uvtokend status") from None
        except OSError as error:
            if error.errno in _WITHOUT_LOCKS:
                return  # see fact 6
            os.close(self._file)
            raise

    def _owner(self) -> Owner | None:
        return _written(self._file)

    def guards(self, netrc: str) -> bool:
        """Return whether this is the lock of a netrc, and others that want it would find it.

        Args:
            netrc: The resolved path.
        """
        return self._path == (netrc if self.in_place else beside(netrc)) and _same_file(self._file, self._path)

    def release(self) -> None:
        """Release the lock. The file stays, because another process may already wait for it."""
        os.close(self._file)

    def remove(self) -> None:
        """Delete the lock file, unless another process has made a new one, and release the lock."""
        try:
            if _same_file(self._file, self._path):
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(self._path)
        finally:
            self.release()


class _NetrcItself(Lock):
    """A lock on the netrc itself, which this class neither writes nor deletes."""

    in_place = True

    def __init__(self, path: str, what: str) -> None:
        self._path = path
        while True:
            self._file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
            self._take(what)
            if _same_file(self._file, path):
                break
            os.close(self._file)

    def _owner(self) -> Owner | None:
        return _listed(self._file)

    def remove(self) -> None:
        """Give the lock up."""
        self.release()


def netrc_lock(netrc: str) -> Lock:
    """Take the ownership of one netrc.

    Args:
        netrc: The resolved path.

    Raises:
        AlreadyOwned: Another process owns the netrc.
        OSError: The netrc can be neither owned nor written, for example because its directory is missing.
        UvtokendError: The lock file's name is taken by something else, so that nobody could own the netrc.
    """
    what = f"The netrc {netrc}"
    if files.is_mounted(netrc):
        return _NetrcItself(netrc, what)
    try:
        return Lock(beside(netrc), what)
    except OSError as error:
        if error.errno in _NOT_A_FILE:
            message = f"{beside(netrc)} prevents uvtokend from owning {netrc}: it is not a file of uvtokend."
            raise UvtokendError(message, f"rm -r {shlex.quote(beside(netrc))}") from error
        if error.errno not in _NO_SIBLING or not os.path.isfile(netrc):
            raise
        return _NetrcItself(netrc, what)


def netrc_owner(netrc: str) -> Owner | None:
    """Return the process that owns a netrc; None if there is no owner, or the system does not show it.

    Args:
        netrc: The resolved path.
    """
    for path, tell in ((beside(netrc), _written), (netrc, _listed)):
        with contextlib.suppress(OSError):
            file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return tell(file)
            finally:
                os.close(file)
    return None


@contextlib.contextmanager
def changing(netrc: str) -> Iterator[None]:
    """Keep every other uvtokend process from changing a netrc: the daemon, ``adopt``, ``purge`` and ``once``.

    Args:
        netrc: The resolved path; its directory exists.

    Raises:
        DeliveryFailed: Another process kept the directory locked for `PATIENCE` seconds.
        OSError: The directory cannot be opened.
    """
    file = os.open(os.path.dirname(netrc), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if not _flocked_within(file, PATIENCE):
            locker = _listed(file, ("READ", "WRITE"))
            raise netrc_failures.locked(netrc, None if locker is None else locker.pid, PATIENCE)
        yield
    finally:
        os.close(file)


@contextlib.contextmanager
def changing_state(directory: str, patience: float) -> Iterator[None]:
    """Keep other uvtokend processes from changing the state file, unless one of them does not finish in time.

    Args:
        directory: The state directory.
        patience: The most seconds to wait. The file is then changed all the same: an old state costs a fetch, and no
            state could cost an entry.

    Raises:
        OSError: The directory cannot be opened.
    """
    file = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        _flocked_within(file, patience)
        yield
    finally:
        os.close(file)


def _flocked_within(file: int, patience: float) -> bool:
    deadline = time.monotonic() + patience
    while not _flocked(file):
        if time.monotonic() > deadline:
            return False
        time.sleep(_LOOK)
    return True


def _flocked(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True  # see fact 5
    return True


def store_lock(directory: str, path: str) -> Lock:
    """Take the ownership of our records in one credential store of uv's.

    Args:
        directory: The state directory.
        path: The resolved path of the store.

    Raises:
        AlreadyOwned: Another process owns the records.
    """
    return _state_lock(directory, "store", path, f"The credential store {path}")


def config_lock(directory: str, path: str, patience: float) -> Lock:
    """Wait until no other uvtokend process edits a configuration file. The arguments are those of `store_lock`.

    Args:
        patience: The most seconds to wait.
    """
    deadline = time.monotonic() + patience
    while True:
        try:
            return _state_lock(directory, "config", path, f"The configuration {path}")
        except UvtokendError:
            if time.monotonic() > deadline:
                raise
        time.sleep(_LOOK)


def _state_lock(directory: str, kind: str, path: str, what: str) -> Lock:
    digest = hashlib.sha256(os.fsencode(path)).hexdigest()[:16]
    return Lock(os.path.join(directory, f"{kind}-{digest}.lock"), what)


def beside(netrc: str) -> str:
    """Return the lock file of a netrc.

    Args:
        netrc: The resolved path.
    """
    directory, name = os.path.split(netrc)
    return os.path.join(directory, f".{name}.uvtokend.lock")


def _same_file(file: int, path: str) -> bool:
    with contextlib.suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(file), os.lstat(path))
    return False


def named_owner(path: str) -> Owner | None:
    """Return the owner that a lock file names, even if it no longer holds the lock; None if the file names no owner."""
    with contextlib.suppress(OSError):
        file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            return _written(file)
        finally:
            os.close(file)
    return None


def _text(owner: Owner) -> str:
    return f"{owner} boot {owner.boot}\n" if owner.boot else f"{owner}\n"


def _written(file: int) -> Owner | None:
    """Return the owner that a lock file names."""
    match = _WRITTEN.fullmatch(os.pread(file, 300, 0).decode(errors="replace"))
    return Owner(int(match[1]), match[2], match[3] or "") if match else None


def _boot_session() -> str:
    session = ""
    if sys.platform == "darwin":
        from uvtokend import darwin  # noqa: PLC0415 - macOS only

        session = darwin.boot_session()
    return session


def _listed(file: int, kinds: Collection[str] = ("WRITE",)) -> Owner | None:
    """Return the process that holds a lock on an open file, from proc_locks(5): type, pid, then device and inode.

    Args:
        file: The file.
        kinds: ``WRITE`` for an exclusive lock, ``READ`` for a shared one.
    """
    status = os.fstat(file)
    wanted = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
    with contextlib.suppress(OSError), open("/proc/locks", encoding="ascii") as table:
        for line in table:
            words = line.split()  # a process that waits for the lock has "->" as its second word
            if words[1] == "FLOCK" and words[3] in kinds and words[5] == wanted and int(words[4]) > 0:
                return Owner(int(words[4]), socket.gethostname())
    return None

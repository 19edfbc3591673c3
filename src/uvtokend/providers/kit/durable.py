"""Private, locked and crash-safe files for secrets that work only once.

Every other fetch leaves nothing on disk, because the next fetch must not depend on it.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shlex
from collections.abc import Iterator

from uvtokend import paths
from uvtokend.core.model import Secret, sha256
from uvtokend.errors import FetchFailed, UvtokendError
from uvtokend.providers.kit.failures import rejected, transient


def file_for(*identity: str) -> str:
    """Return the file for an identity, in a directory of ours that only the user can read.

    Args:
        identity: The words that identify the secret. They are hashed, so they may be secret themselves.

    Raises:
        FetchFailed: The state directory cannot be used.
    """
    directory = paths.chains_directory()
    try:
        paths.private_directory(directory)
    except UvtokendError as error:
        hint = error.hint if error.hint and directory in error.hint else shlex.join(["ls", "-ld", directory])
        raise rejected("state-directory", f"{error.message}.", hint) from None
    name = hashlib.sha256("\n".join(identity).encode()).hexdigest()[:32]
    return os.path.join(directory, f"{name}.json")


@contextlib.contextmanager
def locked(file: str) -> Iterator[None]:
    """Lock a file against all other workers. Wait for the lock without a time limit.

    Raises:
        FetchFailed: The lock file cannot be opened.
    """
    try:
        lock = os.open(f"{file}.lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise failed(file, error) from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def read(file: str) -> bytes | None:
    """Return the content of a file; None if the file does not exist.

    Raises:
        FetchFailed: The file cannot be read.
    """
    try:
        with open(file, "rb", opener=_existing) as opened:
            return opened.read()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise failed(file, error) from None


def reserve(file: str, size: int) -> None:
    """Reserve disk space for a file, so that a later write of that size cannot fail because the disk is full.

    Args:
        file: The path of the file; see `replace`.
        size: The size in bytes.

    Raises:
        OSError: There is not enough space.
    """
    with open(file, "wb", opener=_private) as room:
        room.write(b" " * size)
        room.flush()
        os.fsync(room.fileno())


def digest(secret: Secret) -> str:
    """Return the SHA-256 of a secret, in hex: whether a secret is still the same can be told without keeping it."""
    return sha256(secret.reveal())


def replace(file: str, data: bytes, into: str, mode: int = 0o600) -> None:
    """Replace the content of a file atomically. After the return, the new content survives any crash.

    Args:
        file: The path of the file.
        data: The new content.
        into: A path in the same directory that is written first and then renamed; it may have been reserved.
        mode: The permissions of the new file.

    Raises:
        OSError: The new content could not be written to disk.
    """
    with open(into, "r+b", opener=_private) as opened:
        opened.write(data)
        opened.truncate()
        os.fchmod(opened.fileno(), mode)
        opened.flush()
        os.fsync(opened.fileno())
    os.replace(into, file)
    directory = os.open(os.path.dirname(file), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def failed(file: str, error: OSError) -> FetchFailed:
    """Return the failure of a fetch that sent no request, because it could not have stored the response."""
    directory = os.path.dirname(file)
    why = error.strerror or "unknown error"
    message = f"The successor of a secret that works only once could not be stored in {directory}: {why}. "
    return transient("chain-file", f"{message}No request was sent.", shlex.join(["df", directory]))


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)


def _existing(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC)

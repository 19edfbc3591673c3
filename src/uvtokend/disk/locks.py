"""One owner: a lock file that is held for life and says by whom.

``flock`` goes with the process, also when it is killed; the text in the file is for people only.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import socket
import time

from uvtokend.errors import AlreadyOwned, UvtokendError

#: Seconds between two looks at a lock that is waited for.
_LOOK = 0.01


class Lock:
    """Holds a lock from its creation until `release` or the end of the process.

    Args:
        path: The lock file, in a folder of ours.
        what: What it guards, as the sentence of the refusal names it.

    Raises:
        UvtokendError: Somebody else holds it.
    """

    def __init__(self, path: str, what: str) -> None:
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            owner = os.read(self._file, 300).decode(errors="replace").strip() or "another process"
            os.close(self._file)
            message = f"{what} already has an owner: {owner}."
            raise AlreadyOwned(message, "uvtokend status") from None
        os.ftruncate(self._file, 0)
        os.pwrite(self._file, f"pid {os.getpid()} on {socket.gethostname()}\n".encode(), 0)

    def release(self) -> None:
        """Let it go; the file stays, since another process may already wait for it."""
        os.close(self._file)


def netrc_lock(folder: str, netrc: str) -> Lock:
    """Take the ownership of one netrc.

    Args:
        folder: The state folder.
        netrc: The resolved path.
    """
    return _lock(folder, "netrc", netrc, f"The netrc {netrc}")


def store_lock(folder: str, path: str) -> Lock:
    """Take the ownership of our records in one credential store of uv's; arguments as for `netrc_lock`."""
    return _lock(folder, "store", path, f"The credential store {path}")


def config_lock(folder: str, path: str, patience: float) -> Lock:
    """Wait until no other uvtokend edits a configuration file; arguments as for `netrc_lock`.

    Args:
        patience: Seconds.
    """
    deadline = time.monotonic() + patience
    while True:
        try:
            return _lock(folder, "config", path, f"The configuration {path}")
        except UvtokendError:
            if time.monotonic() > deadline:
                raise
        time.sleep(_LOOK)


def _lock(folder: str, kind: str, path: str, what: str) -> Lock:
    digest = hashlib.sha256(os.fsencode(path)).hexdigest()[:16]
    return Lock(os.path.join(folder, f"{kind}-{digest}.lock"), what)

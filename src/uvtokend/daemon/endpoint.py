"""Keep the daemon reachable: its control socket and the lock beside it.

The runtime directory may be removed while the daemon runs: logind removes it at the last logout, and creates it again
at the next login. A missing socket is bound again at the next guard tick.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable

from uvtokend import paths
from uvtokend.core.events import Report
from uvtokend.daemon.control import ControlHandler, ControlServer
from uvtokend.disk.locks import Lock
from uvtokend.errors import UvtokendError


class SocketLock:
    """Holds the lock of the control socket's path.

    Args:
        socket: The path.

    Raises:
        UvtokendError: Its directory is not private, or another daemon holds the lock.
    """

    def __init__(self, socket: str) -> None:
        self.socket = socket
        self._take()

    def _take(self) -> None:
        paths.private_directory(os.path.dirname(self.socket))
        self._lock = Lock(f"{self.socket}.lock", f"The socket {self.socket}")
        self._inode = paths.inode(f"{self.socket}.lock")

    def renew(self) -> None:
        """Take the lock again if its file is gone.

        Raises:
            UvtokendError: The directory is not private, or another daemon holds the lock.
            OSError: The lock file cannot be created.
        """
        if paths.inode(f"{self.socket}.lock") != self._inode:
            former = self._lock
            self._take()
            former.release()

    def release(self) -> None:
        """Release the lock."""
        self._lock.release()


class Endpoint:
    """Serves the control socket, and keeps it reachable.

    Args:
        lock: The lock of the socket's path, which the daemon holds.
        handler: Answers the clients.
        report: Called with each report for the event log.
    """

    def __init__(self, lock: SocketLock, handler: ControlHandler, report: Callable[[Report], None]) -> None:
        self._path_lock = lock
        self._report = report
        self.server = ControlServer(lock.socket, handler)
        self._loop = asyncio.get_running_loop()
        self._binding: asyncio.Task[None] | None = None

    def look(self) -> None:
        """Bind the socket again soon if it is gone; called in a thread, since its file system may not answer."""
        if not self.server.reachable():
            with contextlib.suppress(RuntimeError):  # the loop has ended
                self._loop.call_soon_threadsafe(self._bind)

    def _bind(self) -> None:
        if self._binding is None or self._binding.done():
            self._binding = self._loop.create_task(self.keep())

    async def keep(self) -> None:
        """Bind the socket again if it is missing. A failure is retried at the next guard tick."""
        if self.server.reachable():
            return
        try:
            self._path_lock.renew()
            await self.server.open()
        except (UvtokendError, OSError):
            return
        message = f"The control socket {self._path_lock.socket} was removed by another program and is bound again."
        self._report(Report("warning", "socket", (), message))

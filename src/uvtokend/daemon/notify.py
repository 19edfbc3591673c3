"""Notifications for systemd: READY, STATUS, WATCHDOG, STOPPING (sd_notify(3)); without NOTIFY_SOCKET there are none."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Callable

#: Seconds that the status line may be out of date.
LATER = 1.0


def notify(message: str) -> bool:
    """Send one notification, and return whether systemd took it.

    Args:
        message: One assignment per line.
    """
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return False
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.setblocking(False)
        sender.sendto(message.encode(), address.replace("@", "\0", 1) if address[0] == "@" else address)
        return True
    return False


class StatusLine:
    """Keeps the line up to date that ``systemctl status`` shows. Many changes within `LATER` seconds send one line.

    Args:
        compose: Returns the line. Without NOTIFY_SOCKET it is never called.
    """

    def __init__(self, compose: Callable[[], str]) -> None:
        self._compose = compose
        self._loop = asyncio.get_running_loop()
        self._due: asyncio.TimerHandle | None = None
        self._told: str | None = None

    def again(self) -> None:
        """Send the line if systemd did not take the last one; called at each guard tick."""
        if self._told is None:
            self.changed()

    def changed(self) -> None:
        """Send a new line soon, if systemd asked for notifications."""
        if "NOTIFY_SOCKET" in os.environ and self._due is None:
            self._due = self._loop.call_later(LATER, self._send)

    def close(self) -> None:
        """Send nothing more."""
        if self._due is not None:
            self._due.cancel()

    def _send(self) -> None:
        self._due = None
        line = self._compose()
        if line != self._told:
            self._told = line if notify(f"STATUS={line}") else None

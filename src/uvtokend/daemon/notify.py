"""What systemd wants to hear: READY, STATUS, WATCHDOG, STOPPING (sd_notify(3)). Nothing where it did not ask."""

from __future__ import annotations

import contextlib
import os
import socket


def notify(message: str) -> None:
    """Send one notification, several lines in one if need be."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.setblocking(False)
        sender.sendto(message.encode(), address.replace("@", "\0", 1) if address[0] == "@" else address)

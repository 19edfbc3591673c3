"""Desktop notifications by the system's own programs: notify-send (libnotify) on Linux, osascript on macOS.

The desktop's own service shows them, so no process of ours has to keep running. ``notify-send --print-id`` and
``--replace-id`` exist since libnotify 0.8 (2022). On macOS (untested), a script's notification cannot be withdrawn.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import sys
from functools import partial

from uvtokend.daemon.aside import aside

#: Seconds that the desktop gets to accept a notification.
_DEADLINE = 10.0
_SCRIPT = ("on run argv", "display notification (item 2 of argv) with title (item 1 of argv)", "end run")
_SERVICE = "org.freedesktop.Notifications"
_OBJECT = ("--dest", _SERVICE, "--object-path", "/org/freedesktop/Notifications")
_CLOSE = ("gdbus", "call", "--session", *_OBJECT, "--method", f"{_SERVICE}.CloseNotification")


async def show(title: str, body: str) -> str | None:
    """Show a notification.

    Args:
        title: Its headline.
        body: Its text.

    Returns:
        The number for `withdraw`; None if the notification was not shown, or cannot be withdrawn.
    """
    if sys.platform == "darwin":
        script = [word for line in _SCRIPT for word in ("-e", line)]
        await _run("osascript", *script, "--", f"uvtokend: {title}", body)
        said = ""
    else:
        flags = ("--app-name=uvtokend", "--icon=dialog-password", "--print-id")
        said = await _run("notify-send", *flags, "--", f"uvtokend: {title}", _without_markup(body))
    return said.strip() or None


async def withdraw(number: str) -> None:
    """Withdraw a notification.

    Args:
        number: The number that `show` returned.
    """
    await _run(*_CLOSE, number)


def _without_markup(text: str) -> str:
    """Escape text that the desktop would read as markup (Desktop Notifications Specification, "Markup")."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


async def _run(program: str, *args: str) -> str:
    """Run a program and return its output; empty if it is missing, fails or takes too long."""
    path = await aside(partial(shutil.which, program), "desktop")  # PATH may name a directory that does not answer
    if path is None:
        return ""
    try:
        process = await asyncio.create_subprocess_exec(
            path,
            *args,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            start_new_session=True,
        )
    except OSError:
        return ""
    try:
        said, _ = await asyncio.wait_for(process.communicate(), _DEADLINE)
    except TimeoutError:
        return ""
    finally:
        if process.returncode is None:  # it takes too long, or we end
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
    return said.decode(errors="replace") if process.returncode == 0 else ""

"""Wait for actions of another process that sends no event."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from typing import Any

import psutil

#: Seconds after which a step counts as hung, even on a busy machine.
PATIENCE = 60.0


def until(condition: Callable[[], Any]) -> Any:
    """Return the value of a condition as soon as it is true."""
    deadline = time.monotonic() + PATIENCE
    while not (value := condition()):
        assert time.monotonic() < deadline, "the condition did not become true"
        time.sleep(0.02)
    return value


async def until_async(condition: Callable[[], bool]) -> None:
    """Wait until another thread's work has been processed by the loop."""
    async with asyncio.timeout(PATIENCE):
        while not condition():
            await asyncio.sleep(0.01)


def runs(pid: int) -> bool:
    """Return whether a process runs; a zombie does not."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    return False

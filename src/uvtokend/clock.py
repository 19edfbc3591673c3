"""The daemon's clock: UTC that neither stops in sleep nor is ever set.

A token's life runs from the moment of its receipt, so it is measured on the boot-time clock: a wall clock that is wrong
or stepped while we run never deletes a good token. The wall clock only gives the name of the moment at which we
started; and the state file tells the moment of the boot, so that a step between two runs is seen as well.
"""

from __future__ import annotations

import sys
import time
from datetime import UTC, datetime, timedelta

from uvtokend.core.state import Boot

#: Linux counts sleep in CLOCK_BOOTTIME (clock_gettime(2)). macOS has CLOCK_MONOTONIC_RAW for that: Apple documents it
#: as equal to mach_continuous_time. Untested there.
_CLOCK: int = getattr(time, "CLOCK_BOOTTIME", getattr(time, "CLOCK_MONOTONIC_RAW", time.CLOCK_MONOTONIC))


#: A clock that stands still in sleep; macOS has CLOCK_UPTIME_RAW for that. Untested there.
_AWAKE: int = getattr(time, "CLOCK_UPTIME_RAW", time.CLOCK_MONOTONIC)
#: Linux, proc(5).
_BOOT_ID = "/proc/sys/kernel/random/boot_id"


def boot() -> Boot:
    """Return which boot this is, and when it was by the wall clock as it is now."""
    at = datetime.now(UTC) - timedelta(seconds=time.clock_gettime(_CLOCK))
    if sys.platform == "darwin":
        from uvtokend import darwin  # noqa: PLC0415 - macOS only

        return Boot(darwin.boot_session(), at)
    try:
        with open(_BOOT_ID, encoding="ascii") as file:
            return Boot(file.read().strip(), at)
    except (OSError, ValueError):
        return Boot("", at)


class Clock:
    """See the module's text."""

    def __init__(self) -> None:
        self.started = datetime.now(UTC)
        self._origin = time.clock_gettime(_CLOCK)

    def now(self) -> datetime:
        """Return the moment, aware UTC."""
        return self.started + timedelta(seconds=time.clock_gettime(_CLOCK) - self._origin)

    def slept(self) -> timedelta:
        """Return how long the machine has slept since some fixed moment."""
        return timedelta(seconds=time.clock_gettime(_CLOCK) - time.clock_gettime(_AWAKE))

    def shift(self) -> timedelta:
        """Return what to add to `now` to get the wall clock that people read; zero until somebody sets it."""
        shift = datetime.now(UTC) - self.now()
        return shift if abs(shift) >= timedelta(seconds=1) else timedelta()

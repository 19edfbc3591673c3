"""The daemon's clock: UTC that continues while the machine sleeps and ignores changes of the wall clock.

1. The validity of a token is counted from its receipt on the boot-time clock, so a wall clock that is wrong or is set
   while the daemon runs never invalidates a good token. But a machine that is paused from outside stops that clock:
   where the wall clock then says that a token has expired, none could be fetched, and a time service keeps the wall
   clock, it is right.
2. The wall clock is read only once, at startup, to name that moment.
3. The state file records the time of the boot, so that the daemon also notices when the wall clock was set between two
   runs.
"""

from __future__ import annotations

import sys
import time
from datetime import UTC, datetime, timedelta
from functools import cache

from uvtokend.core.state import Boot

#: A clock that includes sleep. Linux: CLOCK_BOOTTIME (clock_gettime(2)). macOS: CLOCK_MONOTONIC_RAW, which Apple
#: documents as equal to mach_continuous_time; untested.
_CLOCK: int = getattr(time, "CLOCK_BOOTTIME", getattr(time, "CLOCK_MONOTONIC_RAW", time.CLOCK_MONOTONIC))


#: A clock that stops during sleep. macOS: CLOCK_UPTIME_RAW; untested.
_AWAKE: int = getattr(time, "CLOCK_UPTIME_RAW", time.CLOCK_MONOTONIC)
#: Linux, proc(5).
_BOOT_ID = "/proc/sys/kernel/random/boot_id"
#: More bytes than any struct timex has; all 0 asks, and changes nothing. The state TIME_ERROR: <sys/timex.h>.
_TIMEX, _TIME_ERROR = 1024, 5


def boot() -> Boot:
    """Return the id of this boot, and its time according to the current wall clock."""
    at = datetime.now(UTC) - timedelta(seconds=time.clock_gettime(_CLOCK))
    if sys.platform == "darwin":
        from uvtokend import darwin  # noqa: PLC0415 - macOS only

        name = darwin.boot_session()
    else:
        name = _boot_id()
    return Boot(name, at)


@cache
def _boot_id() -> str:
    """Return the id of this boot, which stays the same while this process runs."""
    try:
        with open(_BOOT_ID, encoding="ascii") as file:
            return file.read().strip()
    except (OSError, ValueError):
        return ""


def synchronized() -> bool:
    """Return whether a time service keeps the wall clock, as the kernel says: ntp_adjtime(3).

    A person who sets the clock ends that, until the service has checked it again.
    """
    import ctypes  # noqa: PLC0415 - only after the clock was set

    try:
        state: int = ctypes.CDLL(None).ntp_adjtime(ctypes.create_string_buffer(_TIMEX))
    except (OSError, AttributeError):
        return False
    return 0 <= state < _TIME_ERROR


class Clock:
    """The daemon's clock; see the module's docstring."""

    def __init__(self) -> None:
        self.started = datetime.now(UTC)
        self._origin = time.clock_gettime(_CLOCK)

    def now(self) -> datetime:
        """Return the current time, aware UTC."""
        return self.started + timedelta(seconds=time.clock_gettime(_CLOCK) - self._origin)

    def slept(self) -> timedelta:
        """Return how long the machine has slept since a fixed moment."""
        return timedelta(seconds=time.clock_gettime(_CLOCK) - time.clock_gettime(_AWAKE))

    def shift(self) -> timedelta:
        """Return the difference between the wall clock and `now`; zero until the wall clock is set."""
        shift = datetime.now(UTC) - self.now()
        return shift if abs(shift) >= timedelta(seconds=1) else timedelta()

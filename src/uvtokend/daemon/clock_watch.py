"""Notice that the machine slept, that the wall clock was set, or that the process was stopped.

Linux reports it at once: a timer on the wall clock that never fires is canceled when the clock is set, and when the
machine wakes up (timerfd_create(2), TFD_TIMER_CANCEL_ON_SET; seen in a QEMU guest 0.2 s after it resumed). On other
systems, and if the kernel reports nothing, the guard tick compares the clocks.
"""

from __future__ import annotations

import asyncio
import errno
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from uvtokend.clock import Clock
from uvtokend.core.events import Report
from uvtokend.core.text import duration

#: A guard tick that is this late means that the process was stopped, or that it slept and no clock shows it.
LATE = timedelta(seconds=10)
#: Sleep that is shorter than this changes nothing.
NAP = timedelta(seconds=1)
#: If the wall clock moved this much, it was set, or the machine was paused from outside while its clocks stood still.
STEPPED = timedelta(seconds=30)
#: When the timer would fire: in the year 2100, in Unix seconds.
NEVER = 4102444800
#: <bits/timerfd.h>, <linux/timerfd.h>.
_ABSTIME, _CANCEL_ON_SET = 1, 2
_CLOCK_REALTIME = 0


@dataclass(frozen=True, slots=True)
class ClockChange:
    """What happened to the clocks since the last look.

    Args:
        away: How long the machine slept, or the process was stopped.
        step: How far the wall clock was set.
    """

    away: timedelta
    step: timedelta

    @property
    def slept(self) -> bool:
        """Whether timers may be late and connections broken."""
        return self.away > NAP

    @property
    def stepped(self) -> bool:
        """Whether the wall clock was set, or the machine was paused from outside while its own clocks stood still."""
        return abs(self.step) > STEPPED

    def reports(self) -> Iterator[Report]:
        """Yield what to write to the event log."""
        if self.slept:
            away = duration(self.away.total_seconds())
            yield Report("info", "woke", (), f"The machine or the daemon was suspended for about {away}.")
        if self.stepped:
            step = self.step.total_seconds()
            how = f"{'forward' if step > 0 else 'back'} by {duration(abs(step))}"
            yield Report("warning", "clock", (), f"The wall clock was set {how}, so all tokens are fetched again.")


class ClockWatch:
    """Compare the clocks, and call back at once if the kernel reports a change.

    Args:
        clock: The daemon's clock.
        told: Called in the loop when the kernel reports a change.
        expires: When the timer fires by itself, in Unix seconds.
    """

    def __init__(self, clock: Clock, told: Callable[[], None], expires: float = NEVER) -> None:
        self._clock = clock
        self._told = told
        self._expires = expires
        self._seen = self._read()
        self._loop = asyncio.get_running_loop()
        self._timer: int | None = None
        if sys.platform == "linux":
            try:
                self._timer = _create()
                _arm(self._timer, expires)
            except OSError:
                return  # the guard tick looks anyway
            self._loop.add_reader(self._timer, self._fired)

    def look(self, planned: timedelta | None = None) -> ClockChange:
        """Return what happened to the clocks since the last look.

        Args:
            planned: The planned time since the last look; None if it is unknown.
        """
        before, self._seen = self._seen, self._read()
        late = timedelta() if planned is None else self._seen[0] - before[0] - planned
        return ClockChange(
            max(late if late > LATE else timedelta(), self._seen[2] - before[2]), self._seen[1] - before[1]
        )

    def close(self) -> None:
        """Close the timer."""
        if self._timer is not None:
            self._loop.remove_reader(self._timer)
            os.close(self._timer)

    def _read(self) -> tuple[datetime, timedelta, timedelta]:
        return self._clock.now(), self._clock.shift(), self._clock.slept()

    def _fired(self) -> None:
        if self._timer is None:
            return
        try:
            os.read(self._timer, 8)
        except OSError as error:
            if error.errno != errno.ECANCELED:
                return
        _arm(self._timer, NEVER)
        self._told()


if sys.platform == "linux" and sys.version_info >= (3, 13):

    def _create() -> int:
        return os.timerfd_create(_CLOCK_REALTIME, flags=os.TFD_NONBLOCK | os.TFD_CLOEXEC)

    def _arm(timer: int, expires: float) -> None:
        os.timerfd_settime(timer, flags=_ABSTIME | _CANCEL_ON_SET, initial=expires)

else:

    def _create() -> int:
        return _call("timerfd_create", _CLOCK_REALTIME, os.O_NONBLOCK | os.O_CLOEXEC)

    def _arm(timer: int, expires: float) -> None:
        import ctypes  # noqa: PLC0415 - Python before 3.13 alone needs it

        whole = int(expires)
        times = (ctypes.c_long * 4)(0, 0, whole, int((expires - whole) * 1e9))  # struct itimerspec: interval, then time
        _call("timerfd_settime", timer, _ABSTIME | _CANCEL_ON_SET, times, None)


def _call(name: str, *args: object) -> int:
    """Call a function of libc.

    Raises:
        OSError: It failed.
    """
    import ctypes  # noqa: PLC0415 - Python before 3.13 alone needs it

    result: int = ctypes.CDLL(None, use_errno=True)[name](*args)
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result

"""When to look again: APScheduler holds the deadline, a guard tick makes up for what no scheduler can know.

APScheduler 3.11 loses jobs that come more than a second late (``misfire_grace_time``), runs late ones as often as they
were missed (``coalesce``) and keeps its times on the wall clock, while the event loop's timers stand still in sleep and
do not notice when the clock is set. So its defaults are mended here, and every 30 s of waking time a guard tick plans
the deadline anew: a suspend or a clock step costs one tick at the most.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from apscheduler.schedulers.asyncio import AsyncIOScheduler
from apscheduler.triggers.date import DateTrigger

GUARD_TICK = 30.0
_JOB = "deadline"


class Timer:
    """Calls `due` at the planned moment and `tick` every `GUARD_TICK` seconds, in the running loop."""

    def __init__(self, due: Callable[[], None], tick: Callable[[], None]) -> None:
        self._due = due
        self._tick = tick
        self._loop = asyncio.get_running_loop()
        self._scheduler = AsyncIOScheduler(
            timezone=UTC,
            event_loop=self._loop,
            job_defaults={"misfire_grace_time": None, "coalesce": True, "max_instances": 1},
        )
        self._scheduler.start()
        self._guard = self._loop.call_later(GUARD_TICK, self._guard_tick)

    def plan(self, delay: float | None) -> None:
        """Set the one deadline, `delay` seconds from now; None takes it away."""
        if delay is None:
            if self._scheduler.get_job(_JOB) is not None:
                self._scheduler.remove_job(_JOB)
            return
        at = datetime.now(UTC) + timedelta(seconds=max(0.0, delay))
        self._scheduler.add_job(self._fire, DateTrigger(at), id=_JOB, replace_existing=True)

    def close(self) -> None:
        """Stop both clocks."""
        self._guard.cancel()
        self._scheduler.shutdown(wait=False)

    async def _fire(self) -> None:
        self._due()

    def _guard_tick(self) -> None:
        self._guard = self._loop.call_later(GUARD_TICK, self._guard_tick)
        self._tick()

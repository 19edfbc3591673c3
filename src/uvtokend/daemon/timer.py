"""Keep the schedule: APScheduler runs the jobs, and a guard tick notices what no scheduler can.

There is one job for each lease and each delivery that wants to act, with a name that a person recognizes (``refresh
private-registry``, ``deliver netrc``).

APScheduler 3.11 drops jobs that are more than a second late (``misfire_grace_time``), runs late ones as often as they
were missed (``coalesce``) and compares wall-clock times, while the event loop's timers stop during sleep and do not
notice that the clock was set. So its defaults are changed here. After every clock step, and at every guard tick, all
jobs are planned again: a suspend or a step that no event reported costs at most one tick.

The scheduler is opened after the first workers were started, because importing it takes a tenth of the daemon's start.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial

from uvtokend.core.events import Job, Plan

TYPE_CHECKING = False
if TYPE_CHECKING:
    from apscheduler.schedulers.asyncio import AsyncIOScheduler

#: 144 wake-ups per hour; a tick, a fetch and its delivery fit into 30 s.
GUARD_TICK = 25.0
#: A job that would run this much too early or too late is planned again.
OFF = timedelta(seconds=0.5)


class Timer:
    """Call `due` at the planned times and `tick` every `GUARD_TICK` seconds, in the running loop, once it was opened.

    Args:
        now: The daemon's clock, on which plans are made: it is never set and does not stop in sleep.
        due: Called with a job at its time.
        tick: Called at each guard tick.
    """

    def __init__(self, now: Callable[[], datetime], due: Callable[[Job], None], tick: Callable[[], None]) -> None:
        self._now = now
        self._due = due
        self._tick = tick
        self._plans: dict[Job, Plan] = {}
        self._when_due = partial(self._fire)  # APScheduler keeps a name for each job of any other function
        self._loop = asyncio.get_running_loop()
        self._scheduler: AsyncIOScheduler | None = None
        self._shift = datetime.now(UTC) - now()
        self._guard = self._loop.call_later(GUARD_TICK, self._guard_tick)

    def open(self) -> None:
        """Open the scheduler with all plans that were made before."""
        from apscheduler.schedulers.asyncio import AsyncIOScheduler  # noqa: PLC0415 - see the module's docstring

        self._scheduler = AsyncIOScheduler(
            timezone=UTC,
            event_loop=self._loop,
            # A job that plans itself again at once counts as another instance until its coroutine has ended, and is
            # dropped if there are too many.
            job_defaults={"misfire_grace_time": None, "coalesce": True, "max_instances": 1000},
        )
        self._scheduler.start()
        for plan in self._plans.values():
            self._schedule(self._scheduler, plan)

    @property
    def jobs(self) -> dict[str, datetime]:
        """The time of each job in APScheduler, by its name."""
        jobs = () if self._scheduler is None else self._scheduler.get_jobs()
        return {job.id: job.next_run_time for job in jobs}

    def plan(self, plan: Plan) -> None:
        """Replace the earlier plan of a job."""
        before = self._plans.pop(plan.job, None)
        if plan.at is not None:
            self._plans[plan.job] = plan
        if self._scheduler is None:
            return
        if before is not None and (plan.at is None or plan.label != before.label):
            with contextlib.suppress(LookupError):  # APScheduler's JobLookupError: its time has just come
                self._scheduler.remove_job(before.label)
        if plan.at is not None:
            self._schedule(self._scheduler, plan)

    def again(self) -> None:
        """Plan all jobs again if the wall clock was set."""
        shift = datetime.now(UTC) - self._now()
        if self._scheduler is not None and abs(shift - self._shift) >= OFF:
            self._shift = shift
            for plan in self._plans.values():
                self._schedule(self._scheduler, plan)

    def close(self) -> None:
        """Stop both clocks."""
        self._guard.cancel()
        if self._scheduler is not None:
            self._scheduler.shutdown(wait=False)

    def _schedule(self, scheduler: AsyncIOScheduler, plan: Plan) -> None:
        from apscheduler.triggers.date import DateTrigger  # noqa: PLC0415 - loaded with the scheduler

        assert plan.at is not None  # noqa: S101 - for the type checker: plans without a time are not kept
        at = datetime.now(UTC) + max(plan.at - self._now(), timedelta())
        name = plan.label  # and one function: otherwise APScheduler makes a name and a method for each job
        scheduler.add_job(self._when_due, DateTrigger(at, UTC), (plan,), id=name, name=name, replace_existing=True)

    async def _fire(self, plan: Plan) -> None:
        if self._plans.get(plan.job) is plan:  # otherwise it has been planned again
            del self._plans[plan.job]
            self._due(plan.job)

    def _guard_tick(self) -> None:
        self._guard = self._loop.call_later(GUARD_TICK, self._guard_tick)
        self.again()
        self._tick()

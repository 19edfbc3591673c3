"""The schedule: one APScheduler job per lease and per delivery retry."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta

from uvtokend.core.events import Job, Plan
from uvtokend.core.model import Request
from uvtokend.daemon import timer
from uvtokend.daemon.timer import Timer

ACME, CORP = Request("a"), Request("b")


class Stage:
    """A timer on a clock that a test moves, and the jobs that fired."""

    def __init__(self) -> None:
        self.ahead = timedelta()
        self.fired: asyncio.Queue[Job] = asyncio.Queue()
        self.again: Callable[[Job], None] = lambda _: None
        self.timer = Timer(self.now, self._due, lambda: None)
        self.timer.open()

    def now(self) -> datetime:
        return datetime.now(UTC) + self.ahead

    def plan(self, job: Job, label: str, seconds: float | None) -> None:
        self.timer.plan(Plan(job, label, None if seconds is None else self.now() + timedelta(seconds=seconds)))

    def _due(self, job: Job) -> None:
        self.again(job)
        self.fired.put_nowait(job)


def play(story: Callable[[Stage], Awaitable[None]]) -> None:
    async def main() -> None:
        stage = Stage()
        try:
            await asyncio.wait_for(story(stage), 60)
        finally:
            stage.timer.close()

    asyncio.run(main())


def test_one_job_per_lease_with_a_readable_name() -> None:
    """A new plan or a new label replaces the job, and a plan without a time removes it."""

    async def story(stage: Stage) -> None:
        stage.plan(ACME, "refresh prod", 1000)
        stage.plan(CORP, "refresh corp", 2000)
        stage.plan("netrc", "deliver netrc", 500)
        assert list(stage.timer.jobs) == ["deliver netrc", "refresh prod", "refresh corp"]
        stage.plan(ACME, "refresh dev", 3000)
        stage.plan("netrc", "deliver netrc", None)
        stage.plan("netrc", "deliver netrc", None)
        assert list(stage.timer.jobs) == ["refresh corp", "refresh dev"]

    play(story)


def test_plans_from_before_the_scheduler_was_opened() -> None:
    """What was planned before the scheduler was opened fires, by its last plan. Closing it unopened does no harm."""

    async def main() -> None:
        fired: asyncio.Queue[Job] = asyncio.Queue()
        early = Timer(lambda: datetime.now(UTC), fired.put_nowait, lambda: None)
        plans: list[tuple[Job, float | None]]
        plans = [(ACME, 0.0), (CORP, 0.0), (CORP, None), ("netrc", 1e6), ("netrc", 0.1)]
        for job, at in plans:
            early.plan(Plan(job, f"{job}", None if at is None else datetime.now(UTC) + timedelta(seconds=at)))
        assert early.jobs == {}
        early.again()
        early.open()
        assert [await fired.get(), await fired.get()] == [ACME, "netrc"]
        assert early.jobs == {}
        early.close()
        Timer(lambda: datetime.now(UTC), fired.put_nowait, lambda: None).close()

    asyncio.run(asyncio.wait_for(main(), 60))


def test_each_job_fires_once_at_its_time() -> None:
    """Overdue jobs fire first, and a job that fired is removed."""

    async def story(stage: Stage) -> None:
        stage.plan(ACME, "refresh prod", 0.05)
        stage.plan(CORP, "refresh corp", -3600)
        assert [await stage.fired.get(), await stage.fired.get()] == [CORP, ACME]
        assert stage.timer.jobs == {}

    play(story)


def test_a_job_that_plans_itself_again_at_once_is_not_lost() -> None:
    """APScheduler would treat the new plan as a second instance of the running job and drop it."""

    async def story(stage: Stage) -> None:
        left = 20

        def again(job: Job) -> None:
            nonlocal left
            left -= 1
            if left:
                stage.plan(job, "refresh prod", 0)

        stage.again = again
        stage.plan(ACME, "refresh prod", 0)
        for _ in range(20):
            assert await stage.fired.get() == ACME

    play(story)


def test_a_plan_removed_as_it_fires_does_nothing() -> None:
    """A job was removed from the scheduler, but its coroutine has not run yet; it then does nothing."""

    async def story(stage: Stage) -> None:
        stage.plan(ACME, "refresh prod", 0)
        await stage.timer._fire(Plan(ACME, "refresh prod", stage.now()))
        assert stage.fired.empty()
        assert stage.timer._scheduler is not None
        stage.timer._scheduler.remove_job("refresh prod")
        stage.plan(ACME, "refresh prod", None)
        stage.plan(CORP, "refresh corp", 0)
        assert await stage.fired.get() == CORP

    play(story)


def test_all_jobs_are_planned_again_after_a_clock_step() -> None:
    """APScheduler compares wall-clock times, so after a clock step or a sleep each job gets a new wall-clock time."""

    async def story(stage: Stage) -> None:
        stage.plan(ACME, "refresh prod", 7200)
        stage.plan(CORP, "refresh corp", 9000)
        before = stage.timer.jobs
        stage.timer.again()
        assert stage.timer.jobs == before
        stage.ahead = timedelta(hours=1)  # the wall clock was set back by an hour
        stage.timer.again()
        after = stage.timer.jobs
        for name, at in before.items():
            assert abs(at - after[name] - timedelta(hours=1)) < timedelta(minutes=1)
        stage.ahead = timedelta(hours=3)
        stage.timer.again()
        assert {await stage.fired.get(), await stage.fired.get()} == {ACME, CORP}

    play(story)


def test_a_guard_tick_leaves_time_for_a_fetch() -> None:
    """A guard tick, the fetch it starts and the delivery fit into the promised 30 s."""
    assert timer.GUARD_TICK + 5.0 <= 30.0

"""Clock steps and sleep, as reported by the kernel and as detected by comparing clocks."""

from __future__ import annotations

import asyncio
import ctypes
import time
from datetime import timedelta
from pathlib import Path

import pytest

from uvtokend import clock
from uvtokend.clock import Clock
from uvtokend.daemon import clock_watch
from uvtokend.daemon.clock_watch import ClockChange, ClockWatch


@pytest.mark.linux("only Linux has timers that report a clock step")
def test_the_kernel_reports_every_clock_step() -> None:
    """The timer is on the wall clock, absolute, and canceled when the clock is set (proc(5): settime flags 03)."""

    async def main() -> str:
        watch = ClockWatch(Clock(), lambda: None)
        try:
            return Path(f"/proc/self/fdinfo/{watch._timer}").read_text()
        finally:
            watch.close()

    lines = dict(line.split(":", 1) for line in asyncio.run(main()).splitlines())
    assert lines["clockid"].strip() == "0"
    assert lines["settime flags"].strip() == "03"


@pytest.mark.linux("only Linux has timers that report a clock step")
def test_the_timer_calls_back_and_is_armed_again() -> None:
    """A timer that becomes readable calls back in the loop and is armed again."""

    async def main() -> None:
        called = asyncio.Event()
        watch = ClockWatch(Clock(), called.set, expires=time.time() - 1)
        try:
            await asyncio.wait_for(called.wait(), 60)
            armed = Path(f"/proc/self/fdinfo/{watch._timer}").read_text()
            assert "settime flags: 03" in armed
            assert "it_value: (0, 0)" not in armed
        finally:
            watch.close()

    asyncio.run(main())


def test_without_a_timer_the_guard_tick_compares_the_clocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """If the system refuses the timer, only the guard tick detects clock steps."""

    def refused() -> int:
        raise OSError(1, "no")

    monkeypatch.setattr(clock_watch, "_create", refused)

    async def main() -> ClockChange:
        watch = ClockWatch(Clock(), lambda: None)
        try:
            return watch.look()
        finally:
            watch.close()

    change = asyncio.run(main())
    assert (change.slept, change.stepped) == (False, False)


@pytest.mark.parametrize(
    ("passed", "shift", "slept", "planned", "seen"),
    [
        (25.2, 0.0, 0.0, 25.0, (False, False)),
        (34.0, 0.0, 0.0, 25.0, (False, False)),  # a busy machine
        (36.0, 0.0, 0.0, 25.0, (True, False)),  # the process was stopped
        (36.0, 0.0, 0.0, None, (False, False)),  # the kernel reported a change, so nothing is late
        (7000.0, 0.0, 6990.0, None, (True, False)),  # a sleep
        (5.0, 40.0, 0.0, None, (False, True)),  # set forward, or paused
        (5.0, -40.0, 0.0, None, (False, True)),
        (5.0, 2.0, 0.0, None, (False, False)),  # a correction
    ],
)
def test_how_clock_changes_are_classified(
    passed: float,
    shift: float,
    slept: float,
    planned: float | None,
    seen: tuple[bool, bool],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A late guard tick or time slept counts as a wake-up. A wall clock that moved by half a minute counts as a
    step."""

    async def main() -> ClockChange:
        watch = ClockWatch(Clock(), lambda: None)
        try:
            now, before, idle = watch._seen
            after = now + timedelta(seconds=passed), before + timedelta(seconds=shift), idle + timedelta(seconds=slept)
            monkeypatch.setattr(watch, "_read", lambda: after)
            return watch.look(None if planned is None else timedelta(seconds=planned))
        finally:
            watch.close()

    change = asyncio.run(main())
    assert (change.slept, change.stepped) == seen


def test_a_wake_up_is_reported_once() -> None:
    """The comparison that follows a wake-up does not report it again."""

    async def main() -> bool:
        watch = ClockWatch(Clock(), lambda: None)
        try:
            moment, shift, slept = watch._seen
            watch._seen = (moment - timedelta(hours=9), shift, slept - timedelta(hours=9))
            assert watch.look().slept
            return watch.look().slept
        finally:
            watch.close()

    assert not asyncio.run(main())


@pytest.mark.parametrize(("state", "kept"), [(0, True), (4, True), (5, False), (-1, False), (None, False)])
def test_when_the_clock_is_synchronized(state: int | None, kept: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """ntp_adjtime(3) returns 5 (TIME_ERROR) if no time service keeps the clock, and -1 if the call is forbidden."""

    class Libc:
        if state is not None:

            @staticmethod
            def ntp_adjtime(_: object) -> int | None:
                return state

    monkeypatch.setattr(ctypes, "CDLL", lambda _: Libc)
    assert clock.synchronized() is kept

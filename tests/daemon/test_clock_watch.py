"""What happened to the clocks, as the kernel tells it and as a look finds out."""

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


@pytest.mark.linux("only Linux has timers that tell of a clock step")
def test_the_kernel_is_asked_to_tell_of_every_step() -> None:
    """The timer is on the wall clock, absolute, and canceled when that is set (proc(5): settime flags 03)."""

    async def main() -> str:
        watch = ClockWatch(Clock(), lambda: None)
        try:
            return Path(f"/proc/self/fdinfo/{watch._timer}").read_text()
        finally:
            watch.close()

    lines = dict(line.split(":", 1) for line in asyncio.run(main()).splitlines())
    assert lines["clockid"].strip() == "0"
    assert lines["settime flags"].strip() == "03"


@pytest.mark.linux("only Linux has timers that tell of a clock step")
def test_what_the_timer_tells_arrives_and_it_is_armed_again() -> None:
    """A timer that becomes readable calls back in the loop, and is armed for the next time."""

    async def main() -> None:
        told = asyncio.Event()
        watch = ClockWatch(Clock(), told.set, expires=time.time() - 1)
        try:
            await asyncio.wait_for(told.wait(), 60)
            armed = Path(f"/proc/self/fdinfo/{watch._timer}").read_text()
            assert "settime flags: 03" in armed
            assert "it_value: (0, 0)" not in armed
        finally:
            watch.close()

    asyncio.run(main())


def test_without_such_a_timer_a_look_finds_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """A system that refuses it is looked at by the guard tick alone."""

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
        (36.0, 0.0, 0.0, None, (False, False)),  # the kernel told of something; nothing is late
        (7000.0, 0.0, 6990.0, None, (True, False)),  # a sleep
        (5.0, 40.0, 0.0, None, (False, True)),  # set forward, or paused
        (5.0, -40.0, 0.0, None, (False, True)),
        (5.0, 2.0, 0.0, None, (False, False)),  # a correction
    ],
)
def test_what_a_look_makes_of_the_clocks(
    passed: float,
    shift: float,
    slept: float,
    planned: float | None,
    seen: tuple[bool, bool],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A late guard tick or time slept is a wake-up; a wall clock that moved by half a minute was set."""

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


def test_a_look_forgets_what_it_has_seen() -> None:
    """A wake-up is told once."""

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
def test_only_a_clock_that_is_in_step_is_trusted(
    state: int | None, kept: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ntp_adjtime(3) returns 5 (TIME_ERROR) when nobody keeps the clock, and -1 where it is forbidden."""

    class Libc:
        if state is not None:

            @staticmethod
            def ntp_adjtime(_: object) -> int | None:
                return state

    monkeypatch.setattr(ctypes, "CDLL", lambda _: Libc)
    assert clock.synchronized() is kept

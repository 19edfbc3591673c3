"""Run the user's program after each change of a sink; `uvtokend.core.hook` decides when.

It runs in its own session with a deadline, after which its whole process group is killed. Its output is discarded: a
program that prints the netrc would otherwise write a token to our log.

It is started in a thread, since the file systems of the program and of the netrc may not answer.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from uvtokend.core import hook
from uvtokend.core.hook import Hook
from uvtokend.daemon.aside import aside

#: Seconds that a killed program gets to end.
KILLED = 0.5
_HANGS: str | None = "cannot be started or ended, because a file system does not answer"


class HookProgram:
    """Runs one command, never twice at the same time.

    Args:
        command: Called at each run; returns the program and its arguments, or nothing.
        environment: Called at each run, in a thread; returns its environment.
        deadline: Seconds until it is killed.
        told: Called in the loop with a sentence when a run failed, and with None when one succeeded.

    Attributes:
        problem: Why the last run failed; None if it succeeded, or if there was no run.
    """

    def __init__(
        self,
        command: Callable[[], Sequence[str]],
        environment: Callable[[], Mapping[str, str]],
        deadline: float,
        told: Callable[[str | None], None],
    ) -> None:
        self.problem: str | None = None
        self._command = command
        self._environment = environment
        self._deadline = deadline
        self._told = told
        self._state = Hook()
        self._loop = asyncio.get_running_loop()
        self._running: _HookRun | None = None
        self._following: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._ended = asyncio.Event()
        self._ended.set()

    def changed(self) -> None:
        """Run the program now, or once more after the run under way."""
        if not self._command():
            return
        self._state, run = hook.changed(self._state)
        if run:
            self._run()

    async def finished(self) -> None:
        """Wait until no run is under way. A planned repetition does not count."""
        await self._ended.wait()

    async def close(self) -> None:
        """Kill a run under way and forget a planned one."""
        if self._timer is not None:
            self._timer.cancel()
        if self._following is not None:
            self._following.cancel()
        if self._running is not None:
            self._running.kill()
            await asyncio.wait({aside(partial(self._running.ended.wait, KILLED), "hook")})

    def _run(self) -> None:
        self._timer = None
        command = list(self._command())
        if not command:  # the program was removed from the configuration meanwhile
            self._state, self.problem = Hook(), None
            return
        self._state = hook.due(self._state)
        self._ended.clear()
        if self._running is not None and not self._running.ended.is_set():  # it hangs, and so would another one
            self._end(command[0], _HANGS)
            return
        run = self._running = _HookRun(command, self._environment)
        self._following = self._loop.create_task(self._follow(run))

    async def _follow(self, run: _HookRun) -> None:
        """Run the program, and wait for its end or until it should have been killed."""
        result, problem = aside(partial(run.result, self._deadline), "hook"), _HANGS
        with contextlib.suppress(TimeoutError):
            problem = await asyncio.wait_for(result, self._deadline + KILLED)
        self._end(run.command[0], problem)

    def _end(self, name: str, problem: str | None) -> None:
        self._ended.set()
        self.problem = None if problem is None else f"The program of on-delivered, {name!r}, {problem}."
        self._state, wait = hook.ended(self._state, problem is None, random.random())
        if wait == 0:
            self._run()
        elif wait is not None:
            self._timer = self._loop.call_later(wait, self._run)
        self._told(self.problem)


class _HookRun:
    """One run of the program.

    Args:
        command: The program and its arguments.
        environment: Returns its environment.

    Attributes:
        ended: Set when the program has ended.
    """

    def __init__(self, command: list[str], environment: Callable[[], Mapping[str, str]]) -> None:
        self.command = command
        self.ended = threading.Event()
        self._environment = environment
        self._process: subprocess.Popen[bytes] | None = None
        self._killed = False
        self._lock = threading.Lock()

    def result(self, deadline: float) -> str | None:
        """Run the program and return why it failed; None if it succeeded."""
        try:
            return self._wait(self._start(), deadline)
        except OSError as error:
            return f"cannot be started: {error.strerror}"
        finally:
            self.ended.set()

    def kill(self) -> None:
        """Kill the program with its group, now or as soon as it has started."""
        with self._lock:
            self._killed = True
            if self._process is not None:
                _kill(self._process)

    def _start(self) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(  # noqa: S603 - the user's own configuration
            self.command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            cwd="/",
            env=dict(self._environment()),
        )
        with self._lock:
            self._process = process
            if self._killed:
                _kill(process)
        return process

    def _wait(self, process: subprocess.Popen[bytes], deadline: float) -> str | None:
        try:
            status = process.wait(deadline)
        except subprocess.TimeoutExpired:
            _kill(process)
            process.wait()
            return f"did not end within {deadline:g} s and was killed"
        if status < 0:
            return f"was ended by signal {-status}"
        return f"exited with status {status}" if status else None


def _kill(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):  # EPERM: macOS, if the leader has ended
        os.killpg(process.pid, signal.SIGKILL)

"""Run the user's program after each change of a sink; `uvtokend.core.hook` decides when.

It runs in its own session with a deadline, after which its whole process group is killed. Its output is discarded: a
program that prints the netrc would otherwise write a token to our log.
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

from uvtokend.core import hook
from uvtokend.core.hook import Hook

#: Seconds that a killed program gets to end.
KILLED = 0.5


class HookProgram:
    """Runs one command, never twice at the same time.

    Args:
        command: Called at each run; returns the program and its arguments, or nothing.
        environment: Called at each run; returns its environment.
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
        self._process: subprocess.Popen[bytes] | None = None
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

    def close(self) -> None:
        """Kill a run under way and forget a planned one."""
        if self._timer is not None:
            self._timer.cancel()
        if self._process is not None:
            self._kill(self._process)
            with contextlib.suppress(subprocess.TimeoutExpired):  # only the kernel could end it
                self._process.wait(KILLED)
            self._process = None

    def _run(self) -> None:
        self._timer = None
        command = list(self._command())
        if not command:  # the program was removed from the configuration meanwhile
            self._state, self.problem = Hook(), None
            return
        self._state = hook.due(self._state)
        self._ended.clear()
        try:
            process = subprocess.Popen(  # noqa: S603 - the user's own configuration
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
                cwd="/",
                env=dict(self._environment()),
            )
        except OSError as error:
            self._end(command[0], f"cannot be started: {error.strerror}")
            return
        self._process = process
        threading.Thread(target=self._look_after, args=(command[0], process), name="hook", daemon=True).start()

    def _look_after(self, name: str, process: subprocess.Popen[bytes]) -> None:
        """Wait until the program ends, in a thread that does not delay the end of the daemon."""
        problem = self._wait(process)
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(self._reaped, name, process, problem)

    def _wait(self, process: subprocess.Popen[bytes]) -> str | None:
        """Wait until the program ends; return why it failed."""
        try:
            status = process.wait(self._deadline)
        except subprocess.TimeoutExpired:
            self._kill(process)
            process.wait()
            return f"did not end within {self._deadline:g} s and was killed"
        if status < 0:
            return f"was ended by signal {-status}"
        return f"exited with status {status}" if status else None

    def _reaped(self, name: str, process: subprocess.Popen[bytes], problem: str | None) -> None:
        if self._process is process:  # else it was closed meanwhile
            self._process = None
            self._end(name, problem)

    def _end(self, name: str, problem: str | None) -> None:
        self._ended.set()
        self.problem = None if problem is None else f"The program of on-delivered, {name!r}, {problem}."
        self._state, wait = hook.ended(self._state, problem is None, random.random())
        if wait == 0:
            self._run()
        elif wait is not None:
            self._timer = self._loop.call_later(wait, self._run)
        self._told(self.problem)

    @staticmethod
    def _kill(process: subprocess.Popen[bytes]) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):  # EPERM: macOS, if the leader has ended
            os.killpg(process.pid, signal.SIGKILL)

"""Run one child process for each fetch, with a deadline, and leave no process behind.

A child runs in its own session with its standard input closed, so that no prompt can hang. Its output is read up to a
limit. When it has answered, ended or passed its deadline, its whole process group is killed before it is reaped: until
then no other process can have its process ID. A helper that left the group on purpose keeps running.

A worker that spends a one-time secret is asked to end (SIGTERM to its group), and killed only after `SAVING` seconds:
if the secret has been sent, it finishes and saves the successor.

The kernel does not end a child that waits for a disk that does not answer. The daemon gives up such a child, so that it
can end itself.

Which fetch runs when is decided in `uvtokend.core.slots`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from functools import partial

from uvtokend.core import wire
from uvtokend.core.clouds import spends_one_time_secret
from uvtokend.core.model import Credential, Failure, Request
from uvtokend.core.slots import Slots

#: Seconds that a worker which spends a one-time secret gets to end after SIGTERM: its call takes at most
#: `uvtokend.providers.kit.once.TIMEOUT`, and saving the answer a moment. With `KILLED` this is less than the 20 s that
#: the daemon's end may take.
SAVING = 18.0
#: Seconds that a killed child gets to end.
KILLED = 1.0
_REAP_AGAIN = 0.1

Outcome = Credential | Failure


class Workers:
    """Run at most `limit` fetches at once; the others wait in a queue.

    Args:
        limit: The most fetches at once.
        timeout: Seconds until a worker is killed.
        environment: Returns the environment of a request's worker.
        ended: Called in the loop with each request and its outcome.
    """

    def __init__(
        self,
        limit: int,
        timeout: float,
        environment: Callable[[Request], Mapping[str, str]],
        ended: Callable[[Request, Outcome], None],
    ) -> None:
        self.timeout = timeout
        self._environment = environment
        self._ended = ended
        self._loop = asyncio.get_running_loop()
        self._slots: Slots[Request] = Slots(limit)
        self._limits: dict[Request, float | None] = {}
        self._running: dict[Request, _Worker] = {}
        self._ending: list[subprocess.Popen[bytes]] = []
        self._saving: set[int] = set()  # the process IDs of the children that spend a one-time secret
        self._reaped: asyncio.Future[None] | None = None
        self._look: asyncio.TimerHandle | None = None

    @property
    def limit(self) -> int:
        """The most fetches at once."""
        return self._slots.limit

    @limit.setter
    def limit(self, limit: int) -> None:
        self._slots.limit = limit
        self._fill()

    def start(self, request: Request, limit: float | None = None, hung: bool = False) -> None:
        """Fetch as soon as a slot is free.

        Args:
            request: The request.
            limit: Seconds that the fetch may take; None for the configured timeout.
            hung: Whether its last try hung, so that other requests go first.
        """
        self._limits[request] = limit
        self._slots.ask(request, hung, spends_one_time_secret(request))
        self._fill()

    def restart(self, request: Request, limit: float | None = None) -> None:
        """Kill the worker of a request and start it again in its slot. A waiting request keeps waiting."""
        self._limits[request] = limit
        if request in self._running:
            self._end(request)
            self._spawn(request)

    def cancel(self, request: Request) -> None:
        """Forget a request and end its worker; `ended` is not called for it."""
        self._slots.leave(request)
        self._limits.pop(request, None)
        if request in self._running:
            self._end(request)
        self._fill()

    async def close(self) -> tuple[int, ...]:
        """End all workers and forget all requests; wait for those that spend a one-time secret.

        Returns:
            The process IDs of workers that do not end although they were killed.
        """
        for request in tuple(self._limits):
            self._slots.leave(request)
        self._limits.clear()
        if self._look is not None:
            self._look.cancel()
        saving = bool(self._saving) or any(map(spends_one_time_secret, self._running))
        for request in tuple(self._running):
            self._end(request)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(SAVING + KILLED if saving else KILLED):
                await self._all_ended()
        return tuple(process.pid for process in self._ending)

    async def _all_ended(self) -> None:
        if self._ending:
            self._reaped = self._loop.create_future()
            await self._reaped

    # ------------------------------------------------------------------------------------------------------- slots

    def _fill(self) -> None:
        for request in self._slots.starts(self._loop.time()):
            self._spawn(request)
        self._look_later()

    def _look_later(self) -> None:
        """Plan a check for the time at which a fetch may have to give way to another."""
        if self._look is not None:
            self._look.cancel()
            self._look = None
        if (at := self._slots.look_at()) is not None:
            self._look = self._loop.call_at(at, self._make_way)

    def _make_way(self) -> None:
        self._look = None
        while (request := self._slots.gives_way(self._loop.time())) is not None:
            self._end(request)
            self._fill()
        self._look_later()

    # ----------------------------------------------------------------------------------------------------- workers

    def _spawn(self, request: Request) -> None:
        limit = self._limits[request]
        timeout = self.timeout if limit is None else min(self.timeout, limit)
        done = partial(self._done, request)
        try:
            self._running[request] = _Worker(request, self._environment(request), timeout, done)
        except OSError as error:
            message = f"The worker could not be started: {error.strerror or 'the system refused'}."
            self._loop.call_soon(self._done, request, Failure("transient", "no-worker", message))

    def _done(self, request: Request, outcome: Outcome) -> None:
        if request not in self._limits:
            return  # canceled meanwhile
        process = self._running.pop(request).end() if request in self._running else None
        del self._limits[request]
        self._slots.leave(request)
        self._ended(request, outcome)  # first: uv waits for the token, and nothing waits for the rest
        if process is not None:
            self._dismiss(request, process)
        self._fill()

    def _end(self, request: Request) -> None:
        self._dismiss(request, self._running.pop(request).end())

    def _dismiss(self, request: Request, process: subprocess.Popen[bytes]) -> None:
        """Make a child end, and reap it."""
        self._ending.append(process)
        if spends_one_time_secret(request):
            self._saving.add(process.pid)
            _signal(process, signal.SIGTERM)
            self._loop.call_later(SAVING, self._kill, process)
        else:
            _signal(process, signal.SIGKILL)
        self._reap()

    def _kill(self, process: subprocess.Popen[bytes]) -> None:
        if process.returncode is None:  # not reaped, so the process ID is still its own
            _signal(process, signal.SIGKILL)

    def _reap(self) -> None:
        """Reap the children that were told to end; a child that has not ended yet is checked again."""
        self._ending = [process for process in self._ending if process.poll() is None]
        self._saving.intersection_update(process.pid for process in self._ending)
        if self._ending:
            self._loop.call_later(_REAP_AGAIN, self._reap)
        elif self._reaped is not None and not self._reaped.done():
            self._reaped.set_result(None)


class _Worker:
    def __init__(
        self, request: Request, environment: Mapping[str, str], timeout: float, done: Callable[[Outcome], None]
    ) -> None:
        self._done = done
        self._timeout = timeout
        self._buffer = bytearray()
        self._loop = asyncio.get_running_loop()
        self._process = subprocess.Popen(  # our own interpreter
            [sys.executable, "-P", "-m", "uvtokend.providers.worker"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # helpers print secrets there
            start_new_session=True,
            cwd="/",
            env={
                **environment,
                "UVTOKEND_REQUEST": wire.encode_request(request),
                "UVTOKEND_FETCH_TIMEOUT": str(timeout),
            },
        )
        assert self._process.stdout is not None  # noqa: S101 - for the type checker: it is a pipe
        self._pipe = self._process.stdout.fileno()
        os.set_blocking(self._pipe, False)
        self._loop.add_reader(self._pipe, self._read)
        self._deadline = self._loop.call_later(timeout, self._late)

    def end(self) -> subprocess.Popen[bytes]:
        """Stop listening, and return the child, which must be signaled and reaped."""
        self._deadline.cancel()
        self._loop.remove_reader(self._pipe)
        if self._process.stdout is not None:
            self._process.stdout.close()
        return self._process

    def _read(self) -> None:
        try:
            data = os.read(self._pipe, wire.WORKER_LIMIT)
        except BlockingIOError:
            return
        self._buffer += data
        line, newline, _ = self._buffer.partition(b"\n")
        if newline:
            self._done(wire.decode_answer(bytes(line)))
        elif len(self._buffer) > wire.WORKER_LIMIT:
            self._done(Failure("rejected", "too-much", "The response of the provider is far larger than a credential."))
        elif not data:
            self._done(Failure("transient", "no-answer", "The worker ended without an answer."))

    def _late(self) -> None:
        message = f"The fetch did not end within {self._timeout:g} s and was killed."
        self._done(Failure("transient", "deadline", message))


def _signal(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    """Signal a child's whole group."""
    with contextlib.suppress(ProcessLookupError, PermissionError):  # macOS returns EPERM if the leader has ended
        os.killpg(process.pid, number)

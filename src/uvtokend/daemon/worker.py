"""The workers: one child process for each fetch, with a deadline, and nothing of it left behind.

A child runs in its own session with its standard input closed, so that no prompt can ever hang. What it says is read up
to a limit. When it has answered, ended or passed its deadline, its whole process group is killed before it is reaped:
as long as it is not, its process id cannot belong to anybody else. A helper that left the group on purpose lives on.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Mapping
from functools import partial

from uvtokend.core import wire
from uvtokend.core.model import Credential, Failure, Request

_REAP_AGAIN = 0.1

Outcome = Credential | Failure


class Workers:
    """Runs at most `limit` fetches side by side; the others wait in line.

    Args:
        limit: How many at once.
        timeout: Seconds until a worker is killed.
        environment: What a request's worker gets as its environment.
        ended: Called in the loop with each request and its outcome.
    """

    def __init__(
        self,
        limit: int,
        timeout: float,
        environment: Callable[[Request], Mapping[str, str]],
        ended: Callable[[Request, Outcome], None],
    ) -> None:
        self.limit = limit
        self.timeout = timeout
        self._environment = environment
        self._ended = ended
        self._waiting: deque[Request] = deque()
        self._running: dict[Request, _Worker] = {}
        self._dying: list[subprocess.Popen[bytes]] = []

    def start(self, request: Request) -> None:
        """Fetch as soon as there is room."""
        self._waiting.append(request)
        self._fill()

    def cancel(self, request: Request) -> None:
        """Forget a request and kill its worker; `ended` is not called for it."""
        if request in self._waiting:
            self._waiting.remove(request)
        if request in self._running:
            self._end(request)
            self._fill()

    def close(self) -> None:
        """Kill all workers and forget all requests."""
        self._waiting.clear()
        for request in tuple(self._running):
            self._end(request)
        for process in self._dying:
            process.wait()

    def _fill(self) -> None:
        while self._waiting and len(self._running) < self.limit:
            request = self._waiting.popleft()
            try:
                done = partial(self._done, request)
                self._running[request] = _Worker(request, self._environment(request), self.timeout, done)
            except OSError as error:
                message = f"The worker could not be started: {error.strerror or 'the system refused'}."
                self._ended(request, Failure("transient", "no-worker", message))

    def _done(self, request: Request, outcome: Outcome) -> None:
        self._end(request)
        self._fill()
        self._ended(request, outcome)

    def _end(self, request: Request) -> None:
        self._dying.append(self._running.pop(request).end())
        self._reap()

    def _reap(self) -> None:
        """Take the dead children's status; one that the kernel does not let die yet is looked at again."""
        self._dying = [process for process in self._dying if process.poll() is None]
        if self._dying:
            asyncio.get_running_loop().call_later(_REAP_AGAIN, self._reap)


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
        """Kill the group and return the child, which is still to be reaped."""
        self._deadline.cancel()
        self._loop.remove_reader(self._pipe)
        with contextlib.suppress(ProcessLookupError, PermissionError):  # macOS answers EPERM for a dead leader
            os.killpg(self._process.pid, signal.SIGKILL)
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
            self._done(Failure("rejected", "too-much", "The provider answered far more than a credential."))
        elif not data:
            self._done(Failure("transient", "no-answer", "The worker ended without an answer."))

    def _late(self) -> None:
        message = f"The fetch did not end within {self._timeout:g} s and was killed."
        self._done(Failure("transient", "deadline", message))

"""Run fetches in child processes, each with a deadline, and leave no process behind.

A child runs in its own session with its standard input closed, so that no prompt can hang. Its output is read up to a
limit. When it has answered, ended or passed its deadline, its whole process group is killed before it is reaped: until
then no other process can have its process ID. A helper that left the group on purpose keeps running.

A child that has answered gets another request through a pipe, instead of being killed, if one of its kind waits for a
slot at that moment (`uvtokend.core.worker_environment.worker_kind`), and the child says that it can take it. It has one
request at a time, each with a deadline of its own. Once anything is wrong with a child, it gets no further request. It
ends when the daemon does, since the pipe is closed then.

A worker that spends a one-time secret is asked to end (SIGTERM to its group), and killed only after `SAVING` seconds:
if the secret has been sent, it finishes and saves the successor.

The kernel does not end a child that waits for a disk that does not answer. The daemon gives up such a child, so that it
can end itself.

Which fetch runs when, and in which child, is decided in `uvtokend.core.slots`.
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
from uvtokend.core.model import Credential, Failure, FailureKind, Request
from uvtokend.core.slots import Slots
from uvtokend.core.worker_environment import worker_kind

#: Seconds that a worker which spends a one-time secret gets to end after SIGTERM: its call takes at most
#: `uvtokend.providers.kit.once.TIMEOUT`, and saving the answer a moment. With `KILLED` this is less than the 20 s that
#: the daemon's end may take.
SAVING = 18.0
#: Seconds that a killed child gets to end.
KILLED = 1.0
_REAP_AGAIN = 0.1

Outcome = Credential | Failure
Done = Callable[[Outcome, bool], None]


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
        self._slots: Slots[Request] = Slots(limit, _cpus())
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
        spends = spends_one_time_secret(request)
        self._slots.ask(request, self._loop.time(), kind=worker_kind(request), hung=hung, spends=spends)
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
        """Plan a check for the time at which a fetch may have to give way to another, or waits no longer for one."""
        if self._look is not None:
            self._look.cancel()
            self._look = None
        if (at := self._slots.look_at(self._loop.time())) is not None:
            self._look = self._loop.call_at(at, self._make_way)

    def _make_way(self) -> None:
        self._look = None
        while (request := self._slots.gives_way(self._loop.time())) is not None:
            self._end(request)
            self._fill()
        self._fill()

    # ----------------------------------------------------------------------------------------------------- workers

    def _timeout(self, request: Request) -> float:
        limit = self._limits[request]
        return self.timeout if limit is None else min(self.timeout, limit)

    def _spawn(self, request: Request) -> None:
        done = partial(self._done, request)
        try:
            self._running[request] = _Worker(request, self._environment(request), self._timeout(request), done)
        except OSError as error:
            message = f"The worker could not be started: {error.strerror or 'the system refused'}."
            self._loop.call_soon(self._done, request, Failure("transient", "no-worker", message))

    def _done(self, request: Request, outcome: Outcome, again: bool = False) -> None:
        if request not in self._limits:
            return  # canceled meanwhile
        worker = self._running.pop(request, None)
        del self._limits[request]
        if worker is not None and again and self._pass_on(request, worker):
            worker = None
        self._slots.leave(request)
        self._ended(request, outcome)  # first: uv waits for the token, and nothing waits for the rest
        if worker is not None:
            self._dismiss(request, worker.end())
        self._fill()

    def _pass_on(self, request: Request, worker: _Worker) -> bool:
        """Let the worker of a request that has ended fetch for another one; return whether it does.

        The child works while the daemon delivers the first token.
        """
        heir = self._slots.passes_on(request, self._loop.time())
        if heir is None:
            return False
        if not worker.take(heir, self._environment(heir), self._timeout(heir), partial(self._done, heir)):
            self._spawn(heir)
            return False
        self._running[heir] = worker
        return True

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
    """A child process, and the fetch that it runs.

    Args:
        request: The first request.
        environment: The environment.
        timeout: Seconds until the first fetch has failed.
        done: Called with the outcome, and with whether the child can take another request.
    """

    def __init__(self, request: Request, environment: Mapping[str, str], timeout: float, done: Done) -> None:
        self._environment = environment
        self._loop = asyncio.get_running_loop()
        theirs, self._orders = _pipe()
        try:
            self._process = subprocess.Popen(  # our own interpreter
                [sys.executable, "-P", "-m", "uvtokend.providers.worker"],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,  # helpers print secrets there
                start_new_session=True,
                cwd="/",
                pass_fds=(theirs,),
                env={
                    **environment,
                    "UVTOKEND_ORDERS": str(theirs),
                    "UVTOKEND_REQUEST": wire.encode_request(request),
                    "UVTOKEND_FETCH_TIMEOUT": str(timeout),
                },
            )
        except BaseException:
            os.close(self._orders)
            raise
        finally:
            os.close(theirs)
        assert self._process.stdout is not None  # noqa: S101 - for the type checker: it is a pipe
        self._pipe = self._process.stdout.fileno()
        os.set_blocking(self._pipe, False)
        self._loop.add_reader(self._pipe, self._read)
        self._begin(timeout, done)

    def take(self, request: Request, environment: Mapping[str, str], timeout: float, done: Done) -> bool:
        """Give another request to the child; return False if it cannot have it. The arguments are those of the class.

        A request that the pipe does not take at once is not worth waiting for.
        """
        if environment != self._environment:
            return False
        line = wire.encode_order(request, timeout)
        try:
            if os.write(self._orders, line) != len(line):
                return False
        except OSError:  # the child has ended
            return False
        self._deadline.cancel()
        self._begin(timeout, done)
        return True

    def end(self) -> subprocess.Popen[bytes]:
        """Stop listening, and return the child, which must be signaled and reaped."""
        self._deadline.cancel()
        self._loop.remove_reader(self._pipe)
        os.close(self._orders)
        if self._process.stdout is not None:
            self._process.stdout.close()
        return self._process

    def _begin(self, timeout: float, done: Done) -> None:
        self._done = done
        self._timeout = timeout
        self._buffer = bytearray()
        self._deadline = self._loop.call_later(timeout, self._late)

    def _read(self) -> None:
        try:
            data = os.read(self._pipe, wire.WORKER_LIMIT)
        except BlockingIOError:
            return
        self._buffer += data
        line, newline, rest = self._buffer.partition(b"\n")
        if newline:
            outcome, again = wire.decode_reply(bytes(line))
            self._done(outcome, again and not rest)
        elif len(self._buffer) > wire.WORKER_LIMIT:
            self._fail("rejected", "too-much", "The response of the provider is far larger than a credential.")
        elif not data:
            self._fail("transient", "no-answer", "The worker ended without an answer.")

    def _late(self) -> None:
        self._fail("transient", "deadline", f"The fetch did not end within {self._timeout:g} s and was killed.")

    def _fail(self, kind: FailureKind, reason: str, message: str) -> None:
        self._done(Failure(kind, reason, message), False)


def _pipe() -> tuple[int, int]:
    """Return the two ends of a pipe, the second of which never blocks."""
    theirs, ours = os.pipe()
    os.set_blocking(ours, False)
    return theirs, ours


def _cpus() -> int:
    """Return how many CPUs this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)  # not on macOS
    return len(affinity(0)) if affinity is not None else os.cpu_count() or 1


def _signal(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    """Signal a child's whole group."""
    with contextlib.suppress(ProcessLookupError, PermissionError):  # macOS returns EPERM if the leader has ended
        os.killpg(process.pid, number)

"""Decide which fetches run, and in which process: at most `limit` at once, and those that hang must not starve others.

The rules, in prose:

* There are two queues. Requests whose last try hung, and requests that had to give way, wait in the second queue; all
  others wait in the first. The first queue is served first; each queue is served in order of arrival.
* The second queue never takes the last slot, if there is more than one slot: it is reserved for the first queue.
* A fetch that has run for `SLICE` seconds gives way if a request waits in the first queue and no slot is free: its
  worker is killed, and it moves to the second queue. This happens at most once per fetch, and never to a fetch that
  spends a one-time secret.

A worker that has answered can fetch again, which saves the start of an interpreter and the import of an SDK. Fetches
have a kind; only fetches of the same kind share a worker, one after the other, and a fetch without a kind never does.

* A worker that has answered gets the oldest waiting fetch of its kind and keeps its slot. It ends if there is none.
* It also ends if a fetch of another kind, of which none is running, has waited for `SLICE` seconds in the first queue:
  that one needs the slot. So the kinds take turns, and none of them starves another.
* While at least as many fetches run as there are CPUs, a fetch does not get a worker of its own if a new worker of its
  kind has not answered yet: two starts at once would only delay each other. It waits for that worker. But it does not
  wait once any fetch of its kind has run for `START` seconds, since the issuer may be slow.

Nothing here reads a clock: times are seconds on any clock that only goes forward.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

#: Seconds that a fetch may run while others wait for their first try.
SLICE = 5.0
#: Seconds in which a new worker most likely imports its SDK and answers.
START = 1.5

Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True, slots=True)
class _Waiting:
    kind: Hashable
    since: float
    may_yield: bool


@dataclass(frozen=True, slots=True)
class _Running:
    kind: Hashable
    began: float
    first: bool  # came from the first queue
    may_yield: bool
    new: bool  # the first fetch of its worker


class _Queue(Generic[Key]):
    """Waiting fetches, each kind in order of arrival: looking for the next one costs as much as there are kinds."""

    def __init__(self) -> None:
        self._arrived = 0
        self._kinds: dict[Key, Hashable] = {}
        self._lines: dict[Hashable, dict[Key, tuple[int, _Waiting]]] = {}

    def __contains__(self, key: object) -> bool:
        return key in self._kinds

    def __bool__(self) -> bool:
        return bool(self._kinds)

    @property
    def kinds(self) -> Collection[Hashable]:
        """The kinds of which a fetch waits."""
        return self._lines.keys()

    def add(self, key: Key, waiting: _Waiting) -> None:
        """Add a fetch behind the others of its kind."""
        self._kinds[key] = waiting.kind
        self._arrived += 1
        self._lines.setdefault(waiting.kind, {})[key] = (self._arrived, waiting)

    def remove(self, key: Key) -> _Waiting:
        """Remove a fetch."""
        kind = self._kinds.pop(key)
        line = self._lines[kind]
        _, waiting = line.pop(key)
        if not line:
            del self._lines[kind]
        return waiting

    def oldest(self, kind: Hashable) -> Key:
        """Return the oldest fetch of a kind that waits."""
        return next(iter(self._lines[kind]))

    def head(self, without: Collection[Hashable]) -> tuple[Key, _Waiting] | None:
        """Return the oldest fetch of all kinds but some."""
        lines = [line for kind, line in self._lines.items() if kind not in without]
        if not lines:
            return None
        key, (_, waiting) = min((next(iter(line.items())) for line in lines), key=lambda head: head[1][0])
        return key, waiting


class Slots(Generic[Key]):
    """The two queues and the running fetches.

    Args:
        limit: How many fetches may run at once.
        cpus: How many processes can compute at once.
    """

    def __init__(self, limit: int, cpus: int) -> None:
        self.limit = limit
        self._cpus = cpus
        self._first: _Queue[Key] = _Queue()
        self._second: _Queue[Key] = _Queue()
        self._running: dict[Key, _Running] = {}

    def __contains__(self, key: Key) -> bool:
        return key in self._first or key in self._second or key in self._running

    def ask(self, key: Key, now: float, *, kind: Hashable = None, hung: bool = False, spends: bool = False) -> None:
        """Add a fetch to its queue.

        Args:
            key: The fetch.
            now: The time in seconds.
            kind: What it has in common with the fetches that may share its worker; None if it shares none.
            hung: Whether its last try hung.
            spends: Whether it spends a one-time secret, so that it is never killed to give way.
        """
        (self._second if hung else self._first).add(key, _Waiting(kind, now, not spends))

    def leave(self, key: Key) -> None:
        """Remove a fetch that ended, or that is no longer needed, from its slot or its queue."""
        self._running.pop(key, None)
        for queue in (self._first, self._second):
            if key in queue:
                queue.remove(key)

    def starts(self, now: float) -> Iterator[Key]:
        """Yield the fetches that get a slot and a new worker now.

        Args:
            now: The time in seconds.
        """
        while len(self._running) < self.limit:
            held = self._held(now)
            head = self._first.head(held) or (self._second.head(held) if self._second_may_run() else None)
            if head is None:
                return
            self._run(head[0], now, new=True)
            yield head[0]

    def passes_on(self, key: Key, now: float) -> Key | None:
        """Remove a fetch whose worker can fetch again, and return the fetch that gets worker and slot.

        Args:
            key: The fetch that has ended.
            now: The time in seconds.

        Returns:
            None if the worker must end.
        """
        kind = self._running.pop(key).kind
        if kind is None or len(self._running) >= self.limit or self._is_slot_needed(kind, now):
            return None
        if kind in self._first.kinds:
            heir = self._first.oldest(kind)
        elif kind in self._second.kinds and self._second_may_run() and self._first.head(self._held(now)) is None:
            heir = self._second.oldest(kind)
        else:
            return None
        self._run(heir, now, new=False)
        return heir

    def gives_way(self, now: float) -> Key | None:
        """Return a fetch whose worker must be killed so that another one starts, and move it to the second queue.

        Args:
            now: The time in seconds.
        """
        if not self._first or len(self._running) < self.limit:
            return None
        for key, running in self._running.items():  # the oldest first
            if running.may_yield and now >= running.began + SLICE:
                del self._running[key]
                self._second.add(key, _Waiting(running.kind, now, may_yield=False))
                return key
        return None

    def look_at(self, now: float) -> float | None:
        """Return when `gives_way` or `starts` may return a fetch although nothing has ended, or None.

        Args:
            now: The time in seconds.
        """
        if len(self._running) < self.limit:
            held = {*self._held(now)} & {*self._first.kinds, *self._second.kinds}
            return min((one.began + START for one in self._running.values() if one.kind in held), default=None)
        if not self._first:
            return None
        return min((one.began + SLICE for one in self._running.values() if one.may_yield), default=None)

    def _run(self, key: Key, now: float, *, new: bool) -> None:
        first = key in self._first
        waiting = (self._first if first else self._second).remove(key)
        self._running[key] = _Running(waiting.kind, now, first, waiting.may_yield and first, new)

    def _second_may_run(self) -> bool:
        return sum(not running.first for running in self._running.values()) < max(1, self.limit - 1)

    def _held(self, now: float) -> Collection[Hashable]:
        """Return the kinds that wait for a new worker instead of getting another one."""
        if len(self._running) < self._cpus:
            return ()
        slow = {one.kind for one in self._running.values() if now >= one.began + START}
        return {one.kind for one in self._running.values() if one.new} - slow - {None}

    def _is_slot_needed(self, kind: Hashable, now: float) -> bool:
        """Return whether a fetch of another kind has waited so long that a worker of this kind must end."""
        served = {kind, *(one.kind for one in self._running.values())} - {None}
        head = self._first.head(served)
        return head is not None and now >= head[1].since + SLICE

"""Decide which fetches run: at most `limit` at once, and those that hang must not starve the others.

The rules, in prose:

* There are two queues. Requests whose last try hung, and requests that had to give way, wait in the second queue; all
  others wait in the first. The first queue is served first; each queue is served in order of arrival.
* The second queue never takes the last slot, if there is more than one slot: it is reserved for the first queue.
* A fetch that has run for `SLICE` seconds gives way if a request waits in the first queue and no slot is free: its
  worker is killed, and it moves to the second queue. This happens at most once per fetch, and never to a fetch that
  spends a one-time secret.

Nothing here reads a clock: times are seconds on any clock that only goes forward.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

#: Seconds that a fetch may run while others wait for their first try.
SLICE = 5.0

Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True, slots=True)
class _Running:
    began: float
    first: bool  # came from the first line
    may_yield: bool


class Slots(Generic[Key]):
    """The two queues and the running fetches.

    Args:
        limit: How many fetches may run at once.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._first: dict[Key, bool] = {}  # in order of arrival; the value tells whether the fetch may give way
        self._second: dict[Key, bool] = {}
        self._running: dict[Key, _Running] = {}

    def __contains__(self, key: Key) -> bool:
        return key in self._first or key in self._second or key in self._running

    def ask(self, key: Key, hung: bool, spends: bool) -> None:
        """Add a fetch to its queue.

        Args:
            key: The fetch.
            hung: Whether its last try hung.
            spends: Whether it spends a one-time secret, so that it is never killed to give way.
        """
        (self._second if hung else self._first)[key] = not spends

    def leave(self, key: Key) -> None:
        """Remove a fetch that ended, or that is no longer needed, from its slot or its queue."""
        for holder in (self._first, self._second, self._running):
            holder.pop(key, None)

    def starts(self, now: float) -> Iterator[Key]:
        """Yield the fetches that get a slot now.

        Args:
            now: The time in seconds.
        """
        while len(self._running) < self.limit:
            later = sum(not running.first for running in self._running.values())
            line = self._first or (self._second if later < max(1, self.limit - 1) else {})
            if not line:
                return
            key = next(iter(line))
            first = line is self._first
            self._running[key] = _Running(now, first, line.pop(key) and first)
            yield key

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
                self._second[key] = False
                return key
        return None

    def look_at(self) -> float | None:
        """Return when `gives_way` may return a fetch, or None."""
        if not self._first or len(self._running) < self.limit:
            return None
        return min((one.began + SLICE for one in self._running.values() if one.may_yield), default=None)

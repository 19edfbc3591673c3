"""Who gets a worker: at most `limit` fetches run at once, and those that hang must not starve the others.

The rules, in prose:

* There are two lines. Requests whose last try hung, and requests that had to give way, stand in the second line; all
  others stand in the first. The first line goes first; each line is served in order of arrival.
* The second line never takes the last slot, if there is more than one: that one is kept for the first line.
* A fetch that has run for `SLICE` seconds gives way if somebody in the first line waits and no slot is free: its worker
  is killed, and it goes to the second line. This happens at most once per fetch, and never to one that spends a
  one-time secret.

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
    """Hold the two lines and the running fetches.

    Args:
        limit: How many fetches may run at once.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._first: dict[Key, bool] = {}  # in order of arrival; the value: it may give way
        self._second: dict[Key, bool] = {}
        self._running: dict[Key, _Running] = {}

    def __contains__(self, key: Key) -> bool:
        return key in self._first or key in self._second or key in self._running

    def ask(self, key: Key, hung: bool, spends: bool) -> None:
        """Stand in line.

        Args:
            key: The fetch.
            hung: Its last try hung.
            spends: It spends a one-time secret, so it is never killed to give way.
        """
        (self._second if hung else self._first)[key] = not spends

    def leave(self, key: Key) -> None:
        """Take a fetch that ended, or that nobody needs any more, out of its slot or its line."""
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
        """Return a fetch whose worker must be killed so that another one starts, and send it to the second line.

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
        """Return when `gives_way` may have an answer, or None."""
        if not self._first or len(self._running) < self.limit:
            return None
        return min((one.began + SLICE for one in self._running.values() if one.may_yield), default=None)

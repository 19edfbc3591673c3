"""Clients that wait until indexes are settled: the token is delivered, or the fetch or the delivery has failed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from uvtokend.core import events


class Waiters:
    """Waits on behalf of clients. The agent says who is done (`events.Settled`).

    Args:
        feed: Gives an event to the agent.
    """

    def __init__(self, feed: Callable[[events.Event], None]) -> None:
        self._feed = feed
        self._waiting: dict[int, asyncio.Future[None]] = {}
        self._last = 0

    def __len__(self) -> int:
        return len(self._waiting)

    async def settled(self, names: tuple[str, ...], fetch: bool) -> None:
        """Wait until indexes are settled.

        Args:
            names: The names of the indexes; empty to wait only for the deliveries under way.
            fetch: Fetch now. Otherwise only what is due or under way is waited for.
        """
        self._last += 1
        waiter = self._last
        settled = self._waiting[waiter] = asyncio.get_running_loop().create_future()
        try:
            self._feed(events.RefreshAsked(names, waiter) if fetch else events.WaitAsked(names, waiter))
            await settled
        finally:
            if self._waiting.pop(waiter, None) is not None:  # the wait was cancelled
                self._feed(events.WaiterLeft(waiter))

    def end(self, waiter: int) -> None:
        """End the wait of one client.

        Args:
            waiter: The number in `events.Settled`.
        """
        self._waiting.pop(waiter).set_result(None)

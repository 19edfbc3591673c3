"""The clients that wait until the indexes they asked about are settled: delivered, or failed.

A client waits first for the fetches that were under way when it came, then for the deliveries that were necessary when
the last of these fetches ended.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

from uvtokend.core.delivery import Delivery
from uvtokend.core.model import Request, Sink


@dataclass(slots=True)
class _Waiter:
    """A client that waits.

    Args:
        requests: The requests whose fetches have not ended yet.
        deliveries: Once they have: how many deliveries of each sink must have ended.
    """

    requests: set[Request]
    deliveries: dict[Sink, int] | None = None


class Waiting:
    """Remembers which client waits for what."""

    def __init__(self) -> None:
        self._waiters: dict[int, _Waiter] = {}

    def begins(self, waiter: int, requests: Collection[Request]) -> None:
        """Note that a client waits for the fetches of some requests, and then for the deliveries."""
        self._waiters[waiter] = _Waiter(set(requests))

    def leaves(self, waiter: int) -> None:
        """Note that a client no longer waits."""
        self._waiters.pop(waiter, None)

    def fetch_ended(self, request: Request) -> None:
        """Note that the fetch of a request has ended, or is no longer needed."""
        for waiter in self._waiters.values():
            waiter.requests.discard(request)

    def settled(self, deliveries: Mapping[Sink, Delivery], hopeless: Collection[Request]) -> Iterator[int]:
        """Yield and forget the clients for which everything is delivered or has failed.

        Args:
            deliveries: The deliveries.
            hopeless: Requests that cannot be fetched now, so that nobody waits for them.
        """
        for number, waiter in tuple(self._waiters.items()):
            if waiter.requests.difference(hopeless):
                continue
            needed = {sink: delivery.settles_at for sink, delivery in deliveries.items()}
            if waiter.deliveries is None:
                waiter.deliveries = {sink: serial for sink, serial in needed.items() if serial is not None}
            if not any(
                needed.get(sink) is not None and deliveries[sink].ended < serial
                for sink, serial in waiter.deliveries.items()
            ):
                del self._waiters[number]
                yield number

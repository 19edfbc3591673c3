"""Make the records of delivered tokens for the state file."""

from __future__ import annotations

from collections.abc import Callable, Set
from dataclasses import dataclass
from datetime import timedelta
from functools import partial

from uvtokend.core import events, state
from uvtokend.core.agent import Agent
from uvtokend.core.lease import Lease
from uvtokend.core.model import Record, Request, Sink

#: A shift that moved by less is the same: two readings of two clocks are never quite equal.
_SAME = timedelta(seconds=1)


@dataclass(slots=True)
class _Made:
    """The records of one sink, as they were last made.

    Args:
        targets: All targets of the sink.
        shift: The shift of their times.
        served: The targets of each request, sorted.
        records: The record of each request that has a token.
        changed: The requests whose tokens are new since, in order.
        leases: The leases whose records are to be made.
    """

    targets: frozenset[str]
    shift: timedelta
    served: dict[Request, tuple[str, ...]]
    records: dict[Request, Record]
    changed: dict[Request, None]
    leases: dict[Request, Lease]


class Records:
    """Makes records, and keeps them: for one new token one record is made, however many there are.

    Args:
        agent: The leases. `take` must see each event before the agent does.
    """

    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self._made: dict[Sink, _Made] = {}

    def take(self, event: events.Event) -> None:
        """Note what an event changes: a fetch changes one token, a new configuration or a trusted clock any of them."""
        if isinstance(event, events.FetchEnded):
            for made in self._made.values():
                made.changed[event.request] = None
        elif isinstance(event, events.Configured | events.ClockTrusted):
            self._made.clear()

    def changes(self, sink: Sink) -> int:
        """Return for how many requests `of` may return another record than last time."""
        made = self._made.get(sink)
        return len(self._agent.leases if made is None else made.changed)

    def of(self, sink: Sink, targets: Set[str], shift: timedelta) -> Callable[[], tuple[Record, ...]]:
        """Return a function that returns the records of the tokens that some targets of a sink should hold.

        The function may be called in another thread, so that the loop need not wait for a thousand records, but only
        until `of` is called again for this sink. It returns the tokens of now, in wall-clock time.

        Args:
            sink: The sink.
            targets: The targets.
            shift: The difference between the wall clock and the daemon's own.
        """
        made = self._made.get(sink)
        if made is None or not made.targets <= targets or abs(made.shift - shift) >= _SAME:
            made = self._made[sink] = _Made(frozenset(), shift, {}, {}, {}, {})
        if added := targets - made.targets:
            self._add(made, added)
        made.leases |= {request: self._agent.leases[request] for request in made.changed if request in made.served}
        made.changed.clear()
        return partial(_all, made)

    def _add(self, made: _Made, added: Set[str]) -> None:
        """Add targets of tokens that are new."""
        made.targets = made.targets | added
        new = dict.fromkeys(index.request for index in self._agent.indexes if index.target in added)
        served: dict[Request, set[str]] = {request: set() for request in new}
        for index in self._agent.indexes:
            if index.target in made.targets and index.request in served:
                served[index.request].add(index.target)
        made.served |= {request: tuple(sorted(its_targets)) for request, its_targets in served.items()}
        made.changed |= new


def _all(made: _Made) -> tuple[Record, ...]:
    """Return all records, after making those that are missing."""
    for request, lease in made.leases.items():
        record = _one(lease, made)
        if record is None:
            made.records.pop(request, None)
        else:
            made.records[request] = record
    made.leases.clear()
    return tuple(made.records.values())


def _one(lease: Lease, made: _Made) -> Record | None:
    if lease.credential is None or lease.refresh_at is None:
        return None
    targets, former = made.served[lease.request], made.records.get(lease.request)
    record = state.record(lease.request, lease.credential, lease.refresh_at, targets, former)
    return state.shifted(record, made.shift) if made.shift else record  # otherwise it would get times of its own

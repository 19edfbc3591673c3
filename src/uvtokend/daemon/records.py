"""Make the records of delivered tokens for the state file."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime, timedelta

from uvtokend.core import state
from uvtokend.core.agent import Agent
from uvtokend.core.model import Credential, Record, Request


class Records:
    """Makes records, and keeps them: a record is made again only if its token or its targets have changed.

    Args:
        agent: The leases.
    """

    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self._made: dict[Request, tuple[tuple[Credential, datetime, tuple[str, ...], timedelta], Record]] = {}

    def of(self, targets: Collection[str], shift: timedelta) -> tuple[Record, ...]:
        """Return the records of the tokens that some targets should hold, in wall-clock time.

        Args:
            targets: The targets.
            shift: The difference between the wall clock and the daemon's own.
        """
        served: dict[Request, set[str]] = {}
        for index in self._agent.indexes:
            if index.target in targets:
                served.setdefault(index.request, set()).add(index.target)
        records = (self._of(request, tuple(sorted(its_targets)), shift) for request, its_targets in served.items())
        return tuple(record for record in records if record is not None)

    def clear(self) -> None:
        """Forget the records that were made."""
        self._made.clear()

    def _of(self, request: Request, targets: tuple[str, ...], shift: timedelta) -> Record | None:
        lease = self._agent.leases[request]
        if lease.credential is None or lease.refresh_at is None:
            return None
        made_of = (lease.credential, lease.refresh_at, targets, shift)
        if request not in self._made or self._made[request][0] != made_of:
            record = state.record(request, lease.credential, lease.refresh_at, targets)
            self._made[request] = made_of, state.shifted(record, shift)
        return self._made[request][1]

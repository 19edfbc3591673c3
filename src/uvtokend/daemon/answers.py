"""The socket method `credential`: return a credential to a program that asks for a URL, and log who asked.

1. A program gets only the credential of the index that its URL belongs to; `uvtokend.core.url_match` decides.
2. A token with less life than promised (or than `min_life`) is returned only after a fetch: the fetch in flight, or one
   that is started now. The wait is bounded; afterwards the current token is returned if it is valid.
3. Programs cannot flood an issuer: for one request, they start a fetch at most every 30 s, and none while the lease is
   blocked or the issuer's ``Retry-After`` runs.
4. Every answer is counted and logged with the asking process, never with the token.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta

from uvtokend.clock import Clock
from uvtokend.core import policy, url_match
from uvtokend.core.agent import Agent
from uvtokend.core.events import Report
from uvtokend.core.lease import Lease
from uvtokend.core.model import Credential, Index, Json, Request
from uvtokend.core.rfc3339 import zulu
from uvtokend.daemon.processes import Process
from uvtokend.errors import UvtokendError

#: Seconds to wait for a token if none is valid, or if the program says how much life it needs.
PATIENCE = 20.0
#: Seconds to wait for a better token if a valid one is already there.
SOON = 5.0


class NoMatchError(Exception):
    """No index is configured for a URL, or the index has another login."""


class Answers:
    """Returns the agent's credentials to programs.

    Args:
        agent: The agent whose leases hold the credentials.
        clock: The daemon's clock.
        settled: Waits until the named indexes are settled; with True it starts a fetch first (`Waiters.settled`).
        emit: Writes a report to the event log.

    Attributes:
        counts: How many answers each index gave since the daemon started.
    """

    def __init__(
        self,
        agent: Agent,
        clock: Clock,
        settled: Callable[[tuple[str, ...], bool], Awaitable[None]],
        emit: Callable[[Report], None],
    ) -> None:
        self.counts: Counter[str] = Counter()
        self._agent = agent
        self._clock = clock
        self._settled = settled
        self._emit = emit
        self._started: dict[Request, datetime] = {}

    async def credential(
        self, url: str, username: str | None, min_life: float | None, asker: Process, name: str | None = None
    ) -> dict[str, Json]:
        """Return login, token and end of life of the credential for a URL.

        Args:
            url: The URL that the program wants to open, or a bare host.
            username: The login that the credential must have; None for any.
            min_life: Seconds of life that the token should have; None for the promised life.
            asker: The process that asks.
            name: The name of the index with this URL, since two may have the same URL; None for any.

        Raises:
            NoMatchError: The URL belongs to no index, or to one with another login.
            UvtokendError: There is no valid token for the URL; the message says why.
        """
        asked = url_match.asked_url(url)
        users = {user for user in (username, asked.user if asked else None) if user is not None}
        if name is not None:
            meant = tuple(index for index in self._agent.indexes if (index.name, index.url) == (name, url))
        else:
            meant = url_match.matching(asked, self._agent.indexes) if asked else ()
        for index in meant:
            if not self._fits(index, users):
                continue
            await self._refreshed(index, min_life)
            if self._fits(index, users):  # otherwise the first token came with another login
                return self._answer(index, asker)
        raise NoMatchError

    def _fits(self, index: Index, users: set[str]) -> bool:
        """Return whether an index is configured, which may change during a wait, and has no other login."""
        if index not in self._agent.indexes:
            return False
        credential = self._agent.leases[index.request].credential
        return credential is None or all(user == credential.login for user in users)

    def _answer(self, index: Index, asker: Process) -> dict[str, Json]:
        lease = self._agent.leases[index.request]
        credential = lease.valid(self._clock.now())
        if credential is None:
            raise _nothing(index, lease)
        self.counts[index.name] += 1
        number = self.counts[index.name]
        message = f"Answered {asker}; {number} {'answer' if number == 1 else 'answers'} since the daemon started."
        self._emit(Report("info", "answered", (index.name,), message))
        ends = None if credential.expires_at is None else credential.expires_at + self._clock.shift()
        return {"login": credential.login, "token": credential.password.reveal(), "expires_at": zulu(ends)}

    async def _refreshed(self, index: Index, min_life: float | None) -> None:
        """Wait for a fetch if the token has too little life left, for a bounded time."""
        now = self._clock.now()
        lease = self._agent.leases[index.request]
        valid = lease.valid(now)
        wanted = _promised(valid, lease) if valid is not None and min_life is None else min_life or 0.0
        if valid is not None and _life(valid, now, self._clock.shift()) >= wanted:
            return
        start = lease.state != "fetching"
        if start and not self._may_start(lease, now):
            return
        if start:
            self._started[index.request] = now
        patience = PATIENCE if valid is None or min_life is not None else SOON
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._settled((index.name,), start), patience)

    def _may_start(self, lease: Lease, now: datetime) -> bool:
        told = lease.last_failure.retry_after if lease.last_failure is not None else None
        if lease.state == "blocked" or (told is not None and lease.act_at is not None and now < lease.act_at):
            return False
        before = self._started.get(lease.request)
        return before is None or now - before >= timedelta(seconds=policy.MIN_INTERVAL)


def _life(credential: Credential, now: datetime, shift: timedelta) -> float:
    """Return the seconds of life that a credential surely has left."""
    if credential.expires_at is None:
        return float("inf")
    return (credential.expires_at - policy.doubt(credential, shift) - now).total_seconds()


def _promised(credential: Credential, lease: Lease) -> float:
    return (policy.min_life(credential, lease.refresh_at) or 0.0) if lease.refresh_at is not None else 0.0


def _nothing(index: Index, lease: Lease) -> UvtokendError:
    if lease.last_failure is None:
        return UvtokendError(f"The index {index.name!r} has no valid token yet.", f"uvtokend status {index.name}")
    hint = lease.last_failure.hint or f"uvtokend status {index.name}"
    return UvtokendError(f"The index {index.name!r} has no valid token: {lease.last_failure.message}", hint)

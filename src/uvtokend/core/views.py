"""The state of each index at one moment, from its lease and its delivery. The status document is made from it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from uvtokend.core import notices
from uvtokend.core.delivery import Delivery
from uvtokend.core.lease import Lease
from uvtokend.core.model import Credential, Entry, Index, LastError, Notice, Request, Sink, State

Leases = Mapping[Request, Lease]
Deliveries = Mapping[Sink, Delivery]
#: The delivery of memory, which is not a file.
_NONE = Delivery()


@dataclass(frozen=True, slots=True)
class IndexView:
    """One index at one moment.

    Args:
        index: The index.
        lease: Its lease.
        state: The state of its lease; its delivery is taken into account.
        delivered: Whether its valid credential is in its sink, and uv can read it there.
        last_error: The last failure.
        notices: The notices about its valid token.
        retry_at: When the failed fetch, or else the failed delivery, is retried; None if no retry is planned.
    """

    index: Index
    lease: Lease
    state: State
    delivered: bool
    last_error: LastError | None
    notices: tuple[Notice, ...] = ()
    retry_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything at one moment.

    Args:
        indexes: The indexes, in the order of the configuration.
        delivery_ok: Whether all sinks hold the wanted entries.
        delivery_problem: A sentence about a problem with the sinks, or None.
    """

    indexes: tuple[IndexView, ...]
    delivery_ok: bool
    delivery_problem: str | None


def snapshot(
    indexes: Iterable[Index],
    leases: Leases,
    deliveries: Deliveries,
    told: Mapping[Request, tuple[Notice, ...]],
    now: datetime,
) -> Snapshot:
    """Return the state of everything at one moment.

    Args:
        indexes: The indexes to show.
        leases: All leases.
        deliveries: All deliveries.
        told: The notices about each request that follow from the daemon's environment.
        now: Aware UTC.
    """
    indexes = tuple(indexes)
    hosts: dict[str, list[Index]] = {}
    for index in indexes:
        hosts.setdefault(index.host, []).append(index)
    occupied = any(delivery.foreign for delivery in deliveries.values())
    views = []
    for index in indexes:
        lease, delivery = leases[index.request], _delivery(index, deliveries)
        valid = lease.valid(now)
        foreign = foreign_error(index, deliveries) if occupied else None
        said = notices.of(valid, now)
        if told:
            said = told.get(lease.request, ()) + said
        if index.sink == "uv-store":
            said += _alike(index, hosts[index.host], leases, now)
        views.append(
            IndexView(
                index,
                lease,
                _state(lease, delivery, foreign),
                foreign is None and _delivered(index, valid, delivery, now),
                foreign or _last_error(index, lease, delivery, deliveries),
                said,
                _retry_at(lease, delivery),
            )
        )
    problem = "; ".join(delivery.problem for delivery in deliveries.values() if delivery.problem is not None)
    return Snapshot(tuple(views), all(delivery.ok for delivery in deliveries.values()), problem or None)


def one_line(indexes: Sequence[IndexView]) -> str:
    """Return the state of the indexes in one line, for ``systemctl status``."""
    if not indexes:
        return "waiting for a configuration: uvtokend init"
    good = sum(view.delivered for view in indexes)
    error = next((view.last_error for view in indexes if view.last_error is not None), None)
    problem = f"; {error.message}{f' -> {error.hint}' if error.hint else ''}" if error else ""
    return f"{good} of {len(indexes)} indexes have a valid token{problem}"


def entry(index: Index, lease: Lease, now: datetime) -> Entry | None:
    """Return the entry that an index's sink should hold; None while its lease has no valid credential."""
    credential = lease.valid(now)
    return None if credential is None else Entry(index.host, credential.login, credential.password, index.service)


def lease_notices(lease: Lease, told: Mapping[Request, tuple[Notice, ...]], now: datetime) -> tuple[Notice, ...]:
    """Return the notices about a lease whose token is valid."""
    return told.get(lease.request, ()) + notices.of(lease.valid(now), now)


def foreign_error(index: Index, deliveries: Deliveries) -> LastError | None:
    """Return the error if a foreign entry occupies the target of an index."""
    netrc, own = deliveries["netrc"], _delivery(index, deliveries)
    adopt = f"uvtokend adopt {index.name}"
    if index.sink == "netrc" and index.host in netrc.foreign:
        message = f"The netrc already holds an entry for {index.host} that is not ours; it is left alone."
        return _delivery_error("foreign-entry", message, adopt, netrc)
    instead = "it asks keyring" if index.sink == "memory" else "any record of its own store"
    if index.host in netrc.foreign:
        message = f"The netrc holds an entry for {index.host}, which uv uses before {instead}."
        return _delivery_error("foreign-entry", message, adopt, netrc)
    if index.sink != "netrc" and "default" in netrc.foreign:
        message = f"The netrc holds a default entry, which uv uses before {instead}."
        hint = "delete it, or name the host it is meant for: machine HOST"
        return _delivery_error("foreign-entry", message, hint, netrc)
    if index.target in own.foreign:
        problem = next(problem for problem in own.problems if problem.where == index.target)
        return _delivery_error("foreign-record", problem.message, problem.hint, own)
    return None


def _delivery(index: Index, deliveries: Deliveries) -> Delivery:
    """Return the delivery of an index's sink; for memory an empty one, because nothing is delivered there."""
    return deliveries.get(index.sink, _NONE)


def _delivered(index: Index, valid: Credential | None, delivery: Delivery, now: datetime) -> bool:
    """Return whether the valid credential of an index is in its sink, which no foreign entry occupies."""
    if valid is None or delivery.voided:
        return False
    if index.sink == "memory":
        return True
    if delivery.standing is None:
        return False
    target = index.target
    there = delivery.standing.get(target)
    same = there is not None and (there.login, there.password) == (valid.login, valid.password)
    return same or (delivery.held and delivery.valid(target, now))


def _state(lease: Lease, delivery: Delivery, foreign: LastError | None) -> State:
    if foreign is not None or delivery.contested:
        return "blocked"
    return "retrying" if delivery.failure is not None and lease.state == "waiting" else lease.state


def _retry_at(lease: Lease, delivery: Delivery) -> datetime | None:
    if lease.state in {"retrying", "blocked"}:
        return lease.act_at
    return delivery.retry_at if lease.state == "waiting" else None


def _last_error(index: Index, lease: Lease, delivery: Delivery, deliveries: Deliveries) -> LastError | None:
    """Return the last failure of an index whose target no foreign entry occupies."""
    if lease.last_failure is not None and lease.failed_at is not None:
        failure = lease.last_failure
        return LastError(failure.kind, failure.reason, failure.message, failure.hint, lease.failed_at)
    fatal = next((problem for problem in delivery.problems if problem.fatal), None)
    if fatal is not None:
        message = f"{fatal.file}, {fatal.where}: {fatal.message}."
        return _delivery_error("netrc-unreadable", message, fatal.hint, delivery)
    if index.sink == "memory" and lease.credential is None:  # the lease waits until its former sink is clean
        delivery = next((each for each in deliveries.values() if each.failure is not None), delivery)
    if delivery.failure is not None and delivery.failed_at is not None:
        failure = delivery.failure
        return LastError("delivery", failure.reason, failure.message, failure.hint, delivery.failed_at)
    return None


def _delivery_error(reason: str, message: str, hint: str, delivery: Delivery) -> LastError | None:
    return None if delivery.seen_at is None else LastError("delivery", reason, message, hint, delivery.seen_at)


def _alike(index: Index, neighbors: Iterable[Index], leases: Leases, now: datetime) -> tuple[Notice, ...]:
    """Return a notice if uv cannot distinguish the index by its user name from another one on its host."""
    login = _login(index, leases, now)
    for other in neighbors if index.sink == "uv-store" and login is not None else ():
        theirs = _login(other, leases, now)
        if other.request != index.request and theirs is not None and (theirs == login or "" in {theirs, login}):
            shown = "****" if login and index.login_is_secret else login or ""
            return (notices.alike(shown, theirs, other.name),)
    return ()


def _login(index: Index, leases: Leases, now: datetime) -> str | None:
    credential = leases[index.request].valid(now)
    return None if credential is None else credential.login

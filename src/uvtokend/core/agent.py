"""The agent: events come in with a time, actions go out. It decides everything that the daemon does.

``handle(event, now)`` is pure but for the agent's own memory: no clock, no dice, no file, no socket. ``deadline()``
says when it wants to be called again at the latest; a `Tick` may come at any time and is always harmless.

Getting and delivering are two loops that fail apart: a full disk never causes a new fetch, and a cloud that is away
never touches the netrc, until a token dies: then its entry is delivered away.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import TypeAlias

from uvtokend.core import lease as leases
from uvtokend.core import netrc, policy
from uvtokend.core.lease import Lease
from uvtokend.core.model import Credential, Entry, Failure, Index, LastError, Problem, Request, Settings, State
from uvtokend.errors import DeliveryFailed

# ---------------------------------------------------------------------------------------------------------- events


@dataclass(frozen=True, slots=True)
class Configured:
    """New settings are in force. `recovered` are credentials that a former daemon delivered and that still stand."""

    settings: Settings
    recovered: Mapping[Request, tuple[Credential, datetime]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Tick:
    """Time has passed."""


@dataclass(frozen=True, slots=True)
class Woke:
    """The machine slept, or the process was stopped."""


@dataclass(frozen=True, slots=True)
class FetchEnded:
    """A worker is done."""

    request: Request
    outcome: Credential | Failure
    roll: float


@dataclass(frozen=True, slots=True)
class DeliveryEnded:
    """The sink is done. `failure` is set if nothing was written."""

    wanted: tuple[Entry, ...]
    roll: float
    failure: Failure | None = None
    foreign: frozenset[str] = frozenset()
    problems: tuple[Problem, ...] = ()
    note: str | None = None


@dataclass(frozen=True, slots=True)
class RefreshAsked:
    """A person or a script asks for fresh tokens; `waiter` is answered when they are delivered or have failed.

    With `due_only`, tokens that are not due are left alone: the waiter only waits for what is under way.
    """

    names: tuple[str, ...]
    waiter: int | None = None
    due_only: bool = False


@dataclass(frozen=True, slots=True)
class LoginChanged:
    """The login's own files changed: a person may have logged in."""


@dataclass(frozen=True, slots=True)
class SinkDrifted:
    """Somebody else changed the netrc."""


Event: TypeAlias = Configured | Tick | Woke | FetchEnded | DeliveryEnded | RefreshAsked | LoginChanged | SinkDrifted

# --------------------------------------------------------------------------------------------------------- actions


@dataclass(frozen=True, slots=True)
class StartFetch:
    """Spawn a worker for this request."""

    request: Request


@dataclass(frozen=True, slots=True)
class CancelFetch:
    """Kill the worker of a request that nobody needs any more."""

    request: Request


@dataclass(frozen=True, slots=True)
class Deliver:
    """Make the sink hold exactly these entries of ours."""

    wanted: tuple[Entry, ...]


@dataclass(frozen=True, slots=True)
class Answer:
    """What a waiter asked for has been settled."""

    waiter: int


@dataclass(frozen=True, slots=True)
class Report:
    """Tell the event log."""

    level: str
    event: str
    names: tuple[str, ...]
    message: str
    hint: str | None = None


Action: TypeAlias = StartFetch | CancelFetch | Deliver | Answer | Report

# ------------------------------------------------------------------------------------------------------- snapshots


@dataclass(frozen=True, slots=True)
class IndexView:
    """One index at one moment, as the status shows it."""

    index: Index
    lease: Lease
    state: State
    delivered: bool
    last_error: LastError | None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything at one moment."""

    indexes: tuple[IndexView, ...]
    delivery_ok: bool
    delivery_problem: str | None


@dataclass(frozen=True, slots=True)
class Delivery:
    """What we know of the sink.

    Args:
        standing: The entries that the sink holds, as far as we know; None before the first delivery.
        in_flight: A delivery is under way.
        failure: Why the last one failed, and `failed_at` its time.
        retry_at: When to try again.
        foreign: Hosts that somebody else's entries hold.
        problems: What uv could not read in the file, or would read instead of our entries.
        note: What else a person should know of the file.
        seen_at: When foreign hosts and problems were seen.
    """

    standing: tuple[Entry, ...] | None = None
    in_flight: bool = False
    failures: int = 0
    failure: Failure | None = None
    failed_at: datetime | None = None
    retry_at: datetime | None = None
    foreign: frozenset[str] = frozenset()
    problems: tuple[Problem, ...] = ()
    note: str | None = None
    seen_at: datetime | None = None


class Agent:
    """Holds the leases and decides. See the module's text."""

    def __init__(self) -> None:
        self.indexes: tuple[Index, ...] = ()
        self.leases: dict[Request, Lease] = {}
        self.delivery = Delivery()
        self._waiters: dict[int, set[Request]] = {}
        self._actions: list[Action] = []

    def handle(self, event: Event, now: datetime) -> list[Action]:
        """Take one event and return what is to be done, in order.

        Args:
            event: What happened.
            now: When, in aware UTC on a clock that neither stops in sleep nor is ever set.
        """
        self._actions = []
        match event:
            case Configured():
                self._configure(event, now)
            case FetchEnded():
                self._fetch_ended(event, now)
            case DeliveryEnded():
                self._delivery_ended(event, now)
            case RefreshAsked():
                self._refresh_asked(event)
            case LoginChanged():
                self.leases = {key: leases.login_changed(lease, now) for key, lease in self.leases.items()}
            case Woke():
                self.leases = {key: leases.woke(lease, now) for key, lease in self.leases.items()}
                self.delivery = replace(self.delivery, retry_at=None)
            case SinkDrifted():
                self.delivery = replace(self.delivery, standing=None, retry_at=None)
        self._deliver_due(now)
        self._start_due(now)
        self._answer_settled()
        return self._actions

    def deadline(self, now: datetime) -> datetime | None:
        """Return when the next thing is due, or None."""
        times = [lease.act_at for lease in self.leases.values() if lease.act_at is not None]
        times += [lease.credential.expires_at for lease in self._living(now) if lease.credential.expires_at is not None]
        if self.delivery.retry_at is not None:
            times.append(self.delivery.retry_at)
        return min(times, default=None)

    def snapshot(self, now: datetime) -> Snapshot:
        """Return everything as it is at this moment."""
        views = tuple(self._view(index, now) for index in self.indexes)
        return Snapshot(views, self.delivery.failure is None and not self._voided(), self._delivery_problem())

    # ------------------------------------------------------------------------------------------------ event by event

    def _configure(self, event: Configured, now: datetime) -> None:
        self.indexes = event.settings.indexes
        requests = dict.fromkeys(index.request for index in self.indexes)
        for request, lease in self.leases.items():
            if request not in requests and lease.state == "fetching":
                self._actions.append(CancelFetch(request))
        self.leases = {request: self._adopted(request, event, now) for request in requests}
        for waiting in self._waiters.values():
            waiting.intersection_update(requests)
        self.delivery = replace(self.delivery, standing=None, retry_at=None)

    def _adopted(self, request: Request, event: Configured, now: datetime) -> Lease:
        if request in self.leases:
            return self.leases[request]
        if request in event.recovered:
            credential, due = event.recovered[request]
            return Lease(request, "waiting", credential, due, due)
        return Lease(request, act_at=now)

    def _fetch_ended(self, event: FetchEnded, now: datetime) -> None:
        lease = self.leases.get(event.request)
        if lease is None or lease.state != "fetching":
            return
        host = next(index.host for index in self.indexes if index.request == event.request)
        outcome = admit(event.outcome, host, now)
        if isinstance(outcome, Credential):
            self.leases[event.request] = leases.fetched(lease, outcome, now, event.roll)
            self._report("info", "refreshed", event.request, _life_sentence(outcome, now))
        else:
            self.leases[event.request] = leases.failed(lease, outcome, now, event.roll)
            level = "warning" if outcome.kind == "transient" else "error"
            self._report(level, outcome.reason, event.request, outcome.message, outcome.hint)
        for waiting in self._waiters.values():
            waiting.discard(event.request)

    def _delivery_ended(self, event: DeliveryEnded, now: datetime) -> None:
        if event.failure is not None:
            failures = self.delivery.failures + 1
            wait = policy.backoff(failures, event.failure, False, event.roll)
            if self.delivery.failure != event.failure:
                self._report_all("error", event.failure.reason, event.failure.message, event.failure.hint)
            self.delivery = replace(
                self.delivery,
                in_flight=False,
                failures=failures,
                failure=event.failure,
                failed_at=now,
                retry_at=now + timedelta(seconds=wait),
            )
            return
        before, after = self._standing_hosts(), {entry.host for entry in event.wanted} - event.foreign
        if event.problems and event.problems != self.delivery.problems:
            for problem in event.problems:
                self._report_all("warning", "netrc", str(problem))
        self.delivery = Delivery(
            standing=event.wanted,
            foreign=event.foreign,
            problems=event.problems,
            note=event.note,
            seen_at=now,
        )
        if before - after:
            self._report_hosts("warning", "removed", before - after, "The entry was removed: its token has died.")
        if event.foreign:
            message = "The netrc already holds an entry for this host that is not ours; it is left alone."
            self._report_hosts("error", "foreign-entry", event.foreign, message)

    def _refresh_asked(self, event: RefreshAsked) -> None:
        wanted = dict.fromkeys(index.request for index in self.indexes if index.name in event.names)
        if event.due_only:
            wanted = {request: None for request in wanted if self.leases[request].state == "fetching"}
        for request in wanted:
            self._start(request)
        if event.waiter is not None:
            self._waiters[event.waiter] = set(wanted)

    # ------------------------------------------------------------------------------------------- after every event

    def _start_due(self, now: datetime) -> None:
        for request, lease in self.leases.items():
            if lease.act_at is not None and now >= lease.act_at:
                self._start(request)

    def _start(self, request: Request) -> None:
        if self.leases[request].state != "fetching":
            self._actions.append(StartFetch(request))
        self.leases[request] = leases.ask(self.leases[request])

    def _deliver_due(self, now: datetime) -> None:
        if self.delivery.in_flight:
            return
        wanted = self._wanted(now)
        if self.delivery.standing == wanted:  # whatever failed in between has become pointless
            self.delivery = replace(self.delivery, failures=0, failure=None, retry_at=None)
        elif self.delivery.retry_at is None or now >= self.delivery.retry_at:
            self.delivery = replace(self.delivery, in_flight=True, retry_at=None)
            self._actions.append(Deliver(wanted))

    def _answer_settled(self) -> None:
        pending = self.delivery.in_flight
        settled = [waiter for waiter, waiting in self._waiters.items() if not waiting and not pending]
        for waiter in settled:
            del self._waiters[waiter]
            self._actions.append(Answer(waiter))

    # -------------------------------------------------------------------------------------------------- derivations

    def _living(self, now: datetime) -> Iterable[_Living]:
        for lease in self.leases.values():
            credential = lease.valid(now)
            if credential is not None:
                yield _Living(lease.request, credential)

    def _wanted(self, now: datetime) -> tuple[Entry, ...]:
        living = {alive.request: alive.credential for alive in self._living(now)}
        entries = {
            index.host: Entry(index.host, living[index.request].login, living[index.request].password)
            for index in self.indexes
            if index.request in living
        }
        return tuple(entries[host] for host in sorted(entries))

    def _standing_hosts(self) -> set[str]:
        return {entry.host for entry in self.delivery.standing or ()} - self.delivery.foreign

    def _delivered(self, index: Index, now: datetime) -> bool:
        alive = self.leases[index.request].valid(now)
        if alive is None or index.host in self.delivery.foreign or self._voided():
            return False
        return Entry(index.host, alive.login, alive.password) in (self.delivery.standing or ())

    def _voided(self) -> bool:
        return any(problem.fatal for problem in self.delivery.problems)

    def _view(self, index: Index, now: datetime) -> IndexView:
        lease = self.leases[index.request]
        error = self._last_error(index, lease)
        state: State = lease.state
        if index.host in self.delivery.foreign:
            state = "blocked"
        elif self.delivery.failure is not None and state == "waiting":
            state = "retrying"
        return IndexView(index, lease, state, self._delivered(index, now), error)

    def _last_error(self, index: Index, lease: Lease) -> LastError | None:
        delivery = self.delivery
        if index.host in delivery.foreign and delivery.seen_at is not None:
            message = f"The netrc already holds an entry for {index.host} that is not ours; it is left alone."
            hint = f"uvtokend adopt {index.name}"
            return LastError("delivery", "foreign-entry", message, hint, delivery.seen_at)
        if lease.last_failure is not None and lease.failed_at is not None:
            failure = lease.last_failure
            return LastError(failure.kind, failure.reason, failure.message, failure.hint, lease.failed_at)
        fatal = next((problem for problem in delivery.problems if problem.fatal), None)
        if fatal is not None and delivery.seen_at is not None:
            message = f"{fatal.file}, {fatal.where}: {fatal.message}."
            return LastError("delivery", "netrc-unreadable", message, fatal.mend, delivery.seen_at)
        if delivery.failure is not None and delivery.failed_at is not None:
            failure = delivery.failure
            return LastError("delivery", failure.reason, failure.message, failure.hint, delivery.failed_at)
        return None

    def _delivery_problem(self) -> str | None:
        if self.delivery.failure is not None:
            return self.delivery.failure.message
        sentences = [str(problem) for problem in self.delivery.problems]
        if self.delivery.note is not None:
            sentences.append(self.delivery.note)
        return "; ".join(sentences) or None

    def _names(self, request: Request) -> tuple[str, ...]:
        return tuple(index.name for index in self.indexes if index.request == request)

    def _report(self, level: str, event: str, request: Request, message: str, hint: str | None = None) -> None:
        self._actions.append(Report(level, event, self._names(request), message, hint))

    def _report_all(self, level: str, event: str, message: str, hint: str | None = None) -> None:
        self._actions.append(Report(level, event, tuple(index.name for index in self.indexes), message, hint))

    def _report_hosts(self, level: str, event: str, hosts: Iterable[str], message: str) -> None:
        names = tuple(index.name for index in self.indexes if index.host in hosts)
        hint = f"uvtokend adopt {names[0]}" if event == "foreign-entry" and names else None
        self._actions.append(Report(level, event, names, message, hint))


@dataclass(frozen=True, slots=True)
class _Living:
    request: Request
    credential: Credential


def admit(outcome: Credential | Failure, host: str, now: datetime) -> Credential | Failure:
    """Refuse a credential that is dead on arrival, or that no netrc can carry: and would only harm others."""
    if isinstance(outcome, Failure):
        return outcome
    try:
        netrc.check(Entry(host, outcome.login, outcome.password))
    except DeliveryFailed as error:
        return Failure("rejected", error.reason, error.message, error.hint)
    if outcome.expires_at is None or outcome.expires_at > now:
        return outcome
    message = "The issuer handed out a token whose end of life is in the past."
    return Failure("transient", "expired-on-arrival", message, "check this machine's clock: timedatectl status")


def _life_sentence(credential: Credential, now: datetime) -> str:
    if credential.expires_at is None:
        return "A new token was fetched; its end of life is not known."
    return f"A new token was fetched; it lives for {(credential.expires_at - now).total_seconds():.0f} s."

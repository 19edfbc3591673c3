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
from uvtokend.core import notices, policy
from uvtokend.core.lease import Lease
from uvtokend.core.model import (
    Credential,
    Entry,
    Failure,
    Index,
    LastError,
    Notice,
    Problem,
    Request,
    Settings,
    Sink,
    State,
)
from uvtokend.core.netrc import block
from uvtokend.errors import DeliveryFailed

#: Within this time of a rival's change, another one is a fight, and we yield.
FIGHT = timedelta(seconds=60)
#: Why a delivery failed that yielded.
CONTESTED = "contested"

# ---------------------------------------------------------------------------------------------------------- events


@dataclass(frozen=True, slots=True)
class Configured:
    """New settings are in force.

    Args:
        settings: They.
        recovered: Credentials that a former daemon delivered and that still stand.
        notices: What there is to say of a request for as long as the daemon's own environment is what it is.
        sinks: Those that hold something of ours, or shall.
    """

    settings: Settings
    recovered: Mapping[Request, tuple[Credential, datetime]] = field(default_factory=dict)
    notices: Mapping[Request, tuple[Notice, ...]] = field(default_factory=dict)
    sinks: tuple[Sink, ...] = ("netrc",)


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
    """A sink is done.

    Args:
        wanted: What it was to hold.
        roll: A dice roll, for the back-off.
        failure: Set if nothing was written.
        foreign: Places that somebody else's entries hold; in a netrc also hosts of uv's store, which they shadow.
        problems: What uv could not read in the file, or would read instead of our entries.
        note: What else a person should know of the file.
        rival: What we had left there was changed by somebody else.
        sink: Which one.
    """

    wanted: tuple[Entry, ...]
    roll: float
    failure: Failure | None = None
    foreign: frozenset[str] = frozenset()
    problems: tuple[Problem, ...] = ()
    note: str | None = None
    rival: bool = False
    sink: Sink = "netrc"


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
    """Somebody else changed a sink."""

    sink: Sink = "netrc"


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
    """Make a sink hold exactly these entries of ours.

    Args:
        wanted: They.
        sink: Which one.
        left: What we left there, None where we do not know it.
        yielding: Write nothing if somebody has changed what we left: they did so a moment ago, too.
    """

    wanted: tuple[Entry, ...]
    sink: Sink = "netrc"
    left: tuple[Entry, ...] | None = None
    yielding: bool = False


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
    notices: tuple[Notice, ...] = ()


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything at one moment."""

    indexes: tuple[IndexView, ...]
    delivery_ok: bool
    delivery_problem: str | None


@dataclass(frozen=True, slots=True)
class Delivery:
    """What we know of a sink.

    Args:
        standing: What we had wanted it to hold, as far as we know that it does; None if it may have changed.
        left: Those entries that we wrote there last; None before the first delivery.
        in_flight: A delivery is under way.
        failure: Why the last one failed, and `failed_at` its time.
        retry_at: When to try again.
        foreign: Places that somebody else's entries hold.
        problems: What uv could not read in the file, or would read instead of our entries.
        note: What else a person should know of the file.
        seen_at: When foreign places and problems were seen.
        rival_at: When somebody last changed what we had left.
    """

    standing: tuple[Entry, ...] | None = None
    left: tuple[Entry, ...] | None = None
    in_flight: bool = False
    failures: int = 0
    failure: Failure | None = None
    failed_at: datetime | None = None
    retry_at: datetime | None = None
    foreign: frozenset[str] = frozenset()
    problems: tuple[Problem, ...] = ()
    note: str | None = None
    seen_at: datetime | None = None
    rival_at: datetime | None = None

    @property
    def voided(self) -> bool:
        """Tell whether uv cannot use anything of it."""
        return any(problem.fatal for problem in self.problems)

    @property
    def ok(self) -> bool:
        """Tell whether it holds what it shall."""
        return self.failure is None and not self.voided

    @property
    def problem(self) -> str | None:
        """What a person should know of it."""
        if self.failure is not None:
            return self.failure.message
        sentences = [str(problem) for problem in self.problems]
        return "; ".join([*sentences, self.note] if self.note is not None else sentences) or None


class Agent:
    """Holds the leases and decides. See the module's text."""

    def __init__(self) -> None:
        self.indexes: tuple[Index, ...] = ()
        self.leases: dict[Request, Lease] = {}
        self.deliveries: dict[Sink, Delivery] = {"netrc": Delivery()}
        self._surroundings: Mapping[Request, tuple[Notice, ...]] = {}
        self._noticed: dict[Request, frozenset[str]] = {}
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
                self._deliver_again()
            case SinkDrifted(sink) if sink in self.deliveries:
                self.deliveries[sink] = replace(self.deliveries[sink], standing=None, retry_at=None)
        for sink in self.deliveries:
            self._deliver_due(sink, now)
        self._start_due(now)
        self._answer_settled()
        return self._actions

    def deadline(self, now: datetime) -> datetime | None:
        """Return when the next thing is due, or None."""
        times = [lease.act_at for lease in self.leases.values() if lease.act_at is not None]
        times += [lease.credential.expires_at for lease in self._living(now) if lease.credential.expires_at is not None]
        times += [delivery.retry_at for delivery in self.deliveries.values() if delivery.retry_at is not None]
        return min(times, default=None)

    def snapshot(self, now: datetime) -> Snapshot:
        """Return everything as it is at this moment."""
        views = tuple(self._view(index, now) for index in self.indexes)
        deliveries = self.deliveries.values()
        problem = "; ".join(delivery.problem for delivery in deliveries if delivery.problem is not None)
        return Snapshot(views, all(delivery.ok for delivery in deliveries), problem or None)

    # ------------------------------------------------------------------------------------------------ event by event

    def _configure(self, event: Configured, now: datetime) -> None:
        self.indexes = event.settings.indexes
        self._surroundings = event.notices
        requests = dict.fromkeys(index.request for index in self.indexes)
        for request, lease in self.leases.items():
            if request not in requests and lease.state == "fetching":
                self._actions.append(CancelFetch(request))
        self.leases = {request: self._adopted(request, event, now) for request in requests}
        self._noticed = {request: said for request, said in self._noticed.items() if request in requests}
        for request in requests:
            self._notice(request, now)
        for waiting in self._waiters.values():
            waiting.intersection_update(requests)
        known = {sink: self.deliveries.get(sink, Delivery()) for sink in event.sinks}
        self.deliveries = {sink: replace(delivery, standing=None, retry_at=None) for sink, delivery in known.items()}

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
        index = next(index for index in self.indexes if index.request == event.request)
        outcome = admit(event.outcome, index.host, now)
        if isinstance(outcome, Credential):
            self.leases[event.request] = leases.fetched(lease, outcome, now, event.roll)
            self._report("info", "refreshed", event.request, _life_sentence(outcome, now))
            self._notice(event.request, now)
        else:
            self.leases[event.request] = leases.failed(lease, outcome, now, event.roll)
            level = "warning" if outcome.kind == "transient" else "error"
            self._report(level, outcome.reason, event.request, outcome.message, outcome.hint)
        for waiting in self._waiters.values():
            waiting.discard(event.request)

    def _notice(self, request: Request, now: datetime) -> None:
        """Tell the event log of what is newly noticed."""
        found = self._notices(request, now)
        for notice in found:
            if notice.reason not in self._noticed.get(request, ()):
                self._report("warning", notice.reason, request, notice.message, notice.hint)
        self._noticed[request] = frozenset(notice.reason for notice in found)

    def _delivery_ended(self, event: DeliveryEnded, now: datetime) -> None:
        before = self.deliveries.get(event.sink)
        if before is None:
            return
        if event.failure is not None:
            self._delivery_failed(event.sink, before, event.failure, now, event.roll)
            return
        left = tuple(entry for entry in event.wanted if entry.target not in event.foreign)
        if event.problems and event.problems != before.problems:
            for problem in event.problems:
                self._report_sink(event.sink, "warning", "sink", str(problem))
        self.deliveries[event.sink] = Delivery(
            standing=event.wanted,
            left=left,
            foreign=event.foreign,
            problems=event.problems,
            note=event.note,
            seen_at=now,
            rival_at=now if event.rival else before.rival_at,
        )
        removed = {entry.target for entry in before.left or ()} - {entry.target for entry in left} - event.foreign
        removed &= {index.target for index in self.indexes}  # the others went with their indexes
        if removed:
            self._report_targets("warning", "removed", removed, "The entry was removed: its token has died.")
        if event.foreign:
            self._report_foreign()

    def _delivery_failed(self, sink: Sink, before: Delivery, failure: Failure, now: datetime, roll: float) -> None:
        if failure.reason == CONTESTED and before.rival_at is None:  # it yielded, but somebody has asked meanwhile
            self.deliveries[sink] = replace(before, in_flight=False)
            return
        failures = before.failures + 1
        wait = policy.probe(roll) if failure.reason == CONTESTED else policy.backoff(failures, failure, False, roll)
        if before.failure != failure:
            self._report_sink(sink, "error", failure.reason, failure.message, failure.hint)
        self.deliveries[sink] = replace(
            before,
            in_flight=False,
            failures=failures,
            failure=failure,
            failed_at=now,
            retry_at=now + timedelta(seconds=wait),
        )

    def _deliver_again(self) -> None:
        """Wait no longer for the next try of a delivery, and yield to no rival of before."""
        known = self.deliveries.items()
        self.deliveries = {sink: replace(delivery, retry_at=None, rival_at=None) for sink, delivery in known}

    def _refresh_asked(self, event: RefreshAsked) -> None:
        wanted = dict.fromkeys(index.request for index in self.indexes if index.name in event.names)
        if event.due_only:
            wanted = {request: None for request in wanted if self.leases[request].state == "fetching"}
        else:
            self._deliver_again()
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

    def _deliver_due(self, sink: Sink, now: datetime) -> None:
        delivery = self.deliveries[sink]
        if delivery.in_flight:
            return
        wanted = self._wanted(sink, now)
        if delivery.standing == wanted:  # whatever failed in between has become pointless
            self.deliveries[sink] = replace(delivery, failures=0, failure=None, retry_at=None)
        elif delivery.retry_at is None or now >= delivery.retry_at:
            fought = delivery.rival_at is not None and now - delivery.rival_at < FIGHT
            self.deliveries[sink] = replace(delivery, in_flight=True, retry_at=None)
            self._actions.append(Deliver(wanted, sink, delivery.left, fought))

    def _answer_settled(self) -> None:
        pending = any(delivery.in_flight for delivery in self.deliveries.values())
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

    def _wanted(self, sink: Sink, now: datetime) -> tuple[Entry, ...]:
        living = {alive.request: alive.credential for alive in self._living(now)}
        entries = {
            index.target: Entry(index.host, living[index.request].login, living[index.request].password, index.service)
            for index in self.indexes
            if index.request in living and index.sink == sink
        }
        return tuple(entries[target] for target in sorted(entries))

    def _delivered(self, index: Index, now: datetime) -> bool:
        alive = self.leases[index.request].valid(now)
        delivery = self.deliveries[index.sink]
        if alive is None or delivery.voided or self._foreign(index) is not None:
            return False
        return Entry(index.host, alive.login, alive.password, index.service) in (delivery.standing or ())

    def _view(self, index: Index, now: datetime) -> IndexView:
        lease = self.leases[index.request]
        failure = self.deliveries[index.sink].failure
        error = self._last_error(index, lease)
        state: State = lease.state
        if self._foreign(index) is not None or (failure is not None and failure.reason == CONTESTED):
            state = "blocked"
        elif failure is not None and state == "waiting":
            state = "retrying"
        said = self._notices(index.request, now) + self._alike(index, now)
        return IndexView(index, lease, state, self._delivered(index, now), error, said)

    def _notices(self, request: Request, now: datetime) -> tuple[Notice, ...]:
        return self._surroundings.get(request, ()) + notices.of(self.leases[request].valid(now), now)

    def _alike(self, index: Index, now: datetime) -> tuple[Notice, ...]:
        login = self._login(index, now)
        for other in self.indexes if index.sink == "uv-store" and login is not None else ():
            theirs = self._login(other, now)
            elsewhere = other.host != index.host or other.request == index.request
            if not elsewhere and theirs is not None and (theirs == login or "" in {theirs, login}):
                shown = "****" if login and index.login_is_secret else login or ""
                return (notices.alike(shown, theirs, other.name),)
        return ()

    def _login(self, index: Index, now: datetime) -> str | None:
        alive = self.leases[index.request].valid(now)
        return None if alive is None else alive.login

    def _foreign(self, index: Index) -> LastError | None:
        """Return whose entry stands in the way of an index's own."""
        first, own = self.deliveries["netrc"], self.deliveries[index.sink]
        adopt = f"uvtokend adopt {index.name}"
        if index.sink == "netrc" and index.host in first.foreign:
            message = f"The netrc already holds an entry for {index.host} that is not ours; it is left alone."
            return _delivery_error("foreign-entry", message, adopt, first)
        if index.host in first.foreign:
            message = f"The netrc holds an entry for {index.host}, which uv takes before any of its own store."
            return _delivery_error("foreign-entry", message, adopt, first)
        if index.sink != "netrc" and "default" in first.foreign:
            message = "The netrc holds a default entry, which uv takes before any of its own store."
            hint = "delete it, or name the host it is meant for: machine HOST"
            return _delivery_error("foreign-entry", message, hint, first)
        if index.target in own.foreign:
            found = next(problem for problem in own.problems if problem.where == index.target)
            return _delivery_error("foreign-record", found.message, found.hint, own)
        return None

    def _last_error(self, index: Index, lease: Lease) -> LastError | None:
        delivery = self.deliveries[index.sink]
        if (foreign := self._foreign(index)) is not None:
            return foreign
        if lease.last_failure is not None and lease.failed_at is not None:
            failure = lease.last_failure
            return LastError(failure.kind, failure.reason, failure.message, failure.hint, lease.failed_at)
        fatal = next((problem for problem in delivery.problems if problem.fatal), None)
        if fatal is not None:
            message = f"{fatal.file}, {fatal.where}: {fatal.message}."
            return _delivery_error("netrc-unreadable", message, fatal.hint, delivery)
        if delivery.failure is not None and delivery.failed_at is not None:
            failure = delivery.failure
            return LastError("delivery", failure.reason, failure.message, failure.hint, delivery.failed_at)
        return None

    def _names(self, request: Request) -> tuple[str, ...]:
        return tuple(index.name for index in self.indexes if index.request == request)

    def _report(self, level: str, event: str, request: Request, message: str, hint: str | None = None) -> None:
        self._actions.append(Report(level, event, self._names(request), message, hint))

    def _report_sink(self, sink: Sink, level: str, event: str, message: str, hint: str | None = None) -> None:
        names = tuple(index.name for index in self.indexes if index.sink == sink)
        self._actions.append(Report(level, event, names, message, hint))

    def _report_foreign(self) -> None:
        found: dict[str, tuple[LastError, list[str]]] = {}
        for index in self.indexes:
            if (error := self._foreign(index)) is not None:
                found.setdefault(index.target, (error, []))[1].append(index.name)
        for error, names in found.values():
            self._actions.append(Report("error", error.reason, tuple(names), error.message, error.hint))

    def _report_targets(self, level: str, event: str, targets: Iterable[str], message: str) -> None:
        names = tuple(index.name for index in self.indexes if index.target in targets)
        self._actions.append(Report(level, event, names, message))


@dataclass(frozen=True, slots=True)
class _Living:
    request: Request
    credential: Credential


def admit(outcome: Credential | Failure, host: str, now: datetime) -> Credential | Failure:
    """Refuse a credential that is dead on arrival, or that no netrc can carry: and would only harm others."""
    if isinstance(outcome, Failure):
        return outcome
    try:
        block.check(Entry(host, outcome.login, outcome.password))
    except DeliveryFailed as error:
        return Failure("rejected", error.reason, error.message, error.hint)
    if outcome.expires_at is None or outcome.expires_at > now:
        return outcome
    message = "The issuer handed out a token whose end of life is in the past."
    return Failure("transient", "expired-on-arrival", message, "check this machine's clock: timedatectl status")


def _delivery_error(reason: str, message: str, hint: str, seen: Delivery) -> LastError | None:
    return None if seen.seen_at is None else LastError("delivery", reason, message, hint, seen.seen_at)


def _life_sentence(credential: Credential, now: datetime) -> str:
    if credential.expires_at is None:
        return "A new token was fetched; its end of life is not known."
    return f"A new token was fetched; it lives for {(credential.expires_at - now).total_seconds():.0f} s."

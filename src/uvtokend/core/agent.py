"""The agent: events come in with a time, actions go out. It decides everything that the daemon does.

``handle(event, now)`` is pure but for the agent's own memory: no clock, no dice, no file, no socket. ``deadline()``
says when it must be called again at the latest; a `Tick` may come at any time and does no harm.

Getting and delivering are two loops that fail apart (see `lease` and `delivery`): a full disk never causes a new fetch,
and a cloud that does not answer never touches the netrc, until a token expires: then its entry is removed.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from uvtokend.core import delivery as deliveries
from uvtokend.core import lease as leases
from uvtokend.core import views
from uvtokend.core.delivery import Delivery
from uvtokend.core.events import (
    Action,
    CancelFetch,
    Configured,
    DeliveryEnded,
    Event,
    FetchEnded,
    LoginChanged,
    RefreshAsked,
    Report,
    Settled,
    SinkDrifted,
    StartFetch,
    Tick,
    WaitAsked,
    Woke,
)
from uvtokend.core.lease import Lease
from uvtokend.core.model import Credential, Entry, Failure, Index, LastError, Notice, Request, Sink
from uvtokend.core.netrc import block
from uvtokend.core.views import Snapshot
from uvtokend.errors import DeliveryFailed


class Agent:
    """Hold the leases and deliveries, and decide."""

    def __init__(self) -> None:
        self.indexes: tuple[Index, ...] = ()
        self.leases: dict[Request, Lease] = {}
        self.deliveries: dict[Sink, Delivery] = {"netrc": Delivery()}
        self._told: Mapping[Request, tuple[Notice, ...]] = {}
        self._noticed: dict[Request, frozenset[str]] = {}
        self._waiters: dict[int, set[Request]] = {}
        self._actions: list[Action] = []

    def handle(self, event: Event, now: datetime) -> list[Action]:
        """Take one event and return what is to be done, in order.

        Args:
            event: What happened.
            now: When, in aware UTC, on a clock that neither stops in sleep nor is ever set.
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
            case WaitAsked(names, waiter):
                asked = {index.request for index in self.indexes if index.name in names}
                self._waiters[waiter] = {request for request in asked if self.leases[request].state == "fetching"}
            case LoginChanged():
                self.leases = {key: leases.login_changed(lease, now) for key, lease in self.leases.items()}
            case Woke():
                self.leases = {key: leases.woke(lease, now) for key, lease in self.leases.items()}
                self._urge_deliveries()
            case SinkDrifted(sink) if sink in self.deliveries:
                self.deliveries[sink] = deliveries.drifted(self.deliveries[sink])
            case SinkDrifted() | Tick():
                pass
        for sink in self.deliveries:
            self._deliver_due(sink, now)
        self._start_due(now)
        self._answer_settled()
        return self._actions

    def deadline(self, now: datetime) -> datetime | None:
        """Return when the next thing is due, or None."""
        living = [lease.valid(now) for lease in self.leases.values()]
        times = [lease.act_at for lease in self.leases.values()]
        times += [credential.expires_at for credential in living if credential is not None]
        times += [delivery.retry_at for delivery in self.deliveries.values()]
        return min((time for time in times if time is not None), default=None)

    def snapshot(self, now: datetime) -> Snapshot:
        """Return everything as it is at this moment."""
        return views.snapshot(self.indexes, self.leases, self.deliveries, self._told, now)

    # ------------------------------------------------------------------------------------------------ event by event

    def _configure(self, event: Configured, now: datetime) -> None:
        self.indexes = event.settings.indexes
        self._told = event.notices
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
        self.deliveries = {sink: deliveries.drifted(delivery) for sink, delivery in known.items()}

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
        """Tell the event log what is newly noticed."""
        noticed = views.lease_notices(self.leases[request], self._told, now)
        for notice in noticed:
            if notice.reason not in self._noticed.get(request, ()):
                self._report("warning", notice.reason, request, notice.message, notice.hint)
        self._noticed[request] = frozenset(notice.reason for notice in noticed)

    def _delivery_ended(self, event: DeliveryEnded, now: datetime) -> None:
        before = self.deliveries.get(event.sink)
        if before is None:
            return
        if event.failure is not None:
            after = deliveries.failed(before, event.failure, now, event.roll)
            if after.failure is not None and after.failure != before.failure:
                self._report_sink(event.sink, "error", after.failure.reason, after.failure.message, after.failure.hint)
            self.deliveries[event.sink] = after
            return
        if event.problems != before.problems:
            for problem in event.problems:
                self._report_sink(event.sink, "warning", "sink", str(problem))
        after = self.deliveries[event.sink] = deliveries.succeeded(before, event, now)
        removed = {entry.target for entry in before.left or ()} - {entry.target for entry in after.left or ()}
        names = tuple(index.name for index in self.indexes if index.target in removed - event.foreign)
        if names:  # entries of removed indexes go without a word
            self._actions.append(Report("warning", "removed", names, "The entry was removed: its token has expired."))
        if event.foreign:
            self._report_foreign()

    def _urge_deliveries(self) -> None:
        self.deliveries = {sink: deliveries.urged(delivery) for sink, delivery in self.deliveries.items()}

    def _refresh_asked(self, event: RefreshAsked) -> None:
        self._urge_deliveries()
        asked = dict.fromkeys(index.request for index in self.indexes if index.name in event.names)
        for request in asked:
            self._start(request)
        if event.waiter is not None:
            self._waiters[event.waiter] = set(asked)

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
        self.deliveries[sink], action = deliveries.step(self.deliveries[sink], sink, self._wanted(sink, now), now)
        if action is not None:
            self._actions.append(action)

    def _answer_settled(self) -> None:
        pending = any(delivery.in_flight for delivery in self.deliveries.values())
        settled = [waiter for waiter, waiting in self._waiters.items() if not waiting and not pending]
        for waiter in settled:
            del self._waiters[waiter]
            self._actions.append(Settled(waiter))

    def _wanted(self, sink: Sink, now: datetime) -> tuple[Entry, ...]:
        ours = [index for index in self.indexes if index.sink == sink]
        entries = {index.target: views.entry(index, self.leases[index.request], now) for index in ours}
        return tuple(entry for _, entry in sorted(entries.items()) if entry is not None)

    # ------------------------------------------------------------------------------------------------------ reports

    def _report(self, level: str, event: str, request: Request, message: str, hint: str | None = None) -> None:
        names = tuple(index.name for index in self.indexes if index.request == request)
        self._actions.append(Report(level, event, names, message, hint))

    def _report_sink(self, sink: Sink, level: str, event: str, message: str, hint: str | None = None) -> None:
        names = tuple(index.name for index in self.indexes if index.sink == sink)
        self._actions.append(Report(level, event, names, message, hint))

    def _report_foreign(self) -> None:
        errors: dict[str, tuple[LastError, list[str]]] = {}
        for index in self.indexes:
            if (error := views.foreign_error(index, self.deliveries)) is not None:
                errors.setdefault(index.target, (error, []))[1].append(index.name)
        for error, names in errors.values():
            self._actions.append(Report("error", error.reason, tuple(names), error.message, error.hint))


def admit(outcome: Credential | Failure, host: str, now: datetime) -> Credential | Failure:
    """Refuse a credential that has expired on arrival, or that no netrc can hold: it would only harm the others.

    Args:
        outcome: What the worker answered.
        host: A host that it is for.
        now: Aware UTC.
    """
    if isinstance(outcome, Failure):
        return outcome
    try:
        block.check(Entry(host, outcome.login, outcome.password))
    except DeliveryFailed as error:
        return Failure("rejected", error.reason, error.message, error.hint)
    if outcome.expires_at is None or outcome.expires_at > now:
        return outcome
    message = "The issuer handed out a token that has already expired."
    return Failure("transient", "expired-on-arrival", message, "check this machine's clock: timedatectl status")


def _life_sentence(credential: Credential, now: datetime) -> str:
    if credential.expires_at is None:
        return "Fetched a new token; when it expires is not known."
    return f"Fetched a new token, valid for {(credential.expires_at - now).total_seconds():.0f} s."

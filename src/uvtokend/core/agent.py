"""The agent: events come in with a time, actions go out. It decides everything that the daemon does.

``handle(event, now)`` is pure except for the agent's own memory: no clock, no dice, no file, no socket. Each lease and
each delivery says with a `Plan` when it wants to be called again, with a `Due`. A `Tick` handles everything that is
overdue; it may come at any time and does no harm. An event costs what it touches, however many leases there are.

Fetching and delivering are two loops that fail independently (see `lease` and `delivery`). A full disk never causes a
new fetch. A cloud that does not answer never changes the netrc, until a token expires and its entry is removed.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from datetime import datetime, timedelta

from uvtokend.core import delivery as deliveries
from uvtokend.core import fixes, policy, views
from uvtokend.core import lease as leases
from uvtokend.core.delivery import Delivery
from uvtokend.core.events import (
    Action,
    CancelFetch,
    ClockTrusted,
    Configured,
    DeliveryEnded,
    Due,
    Event,
    FetchEnded,
    Job,
    LoginChanged,
    NetworkReturned,
    Plan,
    RefreshAsked,
    Report,
    RestartFetch,
    Settled,
    SinkDrifted,
    StartFetch,
    Tick,
    WaitAsked,
    WaiterLeft,
    Woke,
)
from uvtokend.core.lease import Lease
from uvtokend.core.model import Credential, Entry, Failure, Index, LastError, Notice, Request, Sink
from uvtokend.core.netrc import block
from uvtokend.core.text import duration
from uvtokend.core.views import Snapshot
from uvtokend.core.waiting import Waiting
from uvtokend.errors import DeliveryFailed


class Agent:
    """Hold the leases and deliveries, and decide.

    Args:
        only: The only requests to fetch; None for all.
    """

    def __init__(self, only: Collection[Request] | None = None) -> None:
        self.indexes: tuple[Index, ...] = ()
        self.leases: dict[Request, Lease] = {}
        self.deliveries: dict[Sink, Delivery] = {"netrc": Delivery()}
        #: Leases that need a person.
        self.blocked: set[Request] = set()
        self._fetching: set[Request] = set()
        self._named: dict[str, Index] = {}
        self._served: dict[Request, tuple[Index, ...]] = {}
        self._wanted: dict[Sink, dict[str, Entry]] = {}
        #: The lives of the tokens in `_wanted`, by target.
        self._lives: dict[Sink, dict[str, leases.Life]] = {}
        self._planned: dict[Job, datetime] = {}
        #: No job is planned before this time; None if none is planned.
        self._first_at: datetime | None = None
        #: The last answer of `doubts` and the shift that it is for; None if a lease has changed since.
        self._doubted: tuple[timedelta, bool] | None = None
        self._told: Mapping[Request, tuple[Notice, ...]] = {}
        self._noticed: dict[Request, frozenset[str]] = {}
        #: Leases of indexes that move to memory; they fetch nothing while a sink is in `_unclean`.
        self._kept_back: set[Request] = set()
        self._only = only
        self._unclean: set[Sink] = set()
        self._waiting = Waiting()
        self._actions: list[Action] = []

    def handle(self, event: Event, now: datetime) -> list[Action]:
        """Handle one event and return the actions, in order.

        Args:
            event: What happened.
            now: The time of the event, aware UTC, on a clock that neither stops during sleep nor is ever set.
        """
        self._actions = []
        touched = self._take(event, now)
        for request in touched:
            self._refresh_wanted(request, now)
        for sink in self.deliveries:
            self._deliver(sink, now)
        for request in touched:
            self._start_if_due(request, now)
            at = self.leases[request].next_at(now) if self._may_fetch(request) else None
            self._plan(request, self._served[request][0].name, at)
        self._actions += map(Settled, self._waiting.settled(self.deliveries, self._stopped))
        return self._actions

    def snapshot(self, now: datetime, indexes: Iterable[Index] | None = None) -> Snapshot:
        """Return the state of everything at one moment.

        Args:
            now: Aware UTC.
            indexes: The indexes to show; None for all.
        """
        return views.snapshot(
            self.indexes if indexes is None else indexes, self.leases, self.deliveries, self._told, now
        )

    @property
    def fetching(self) -> bool:
        """Whether a fetch is in flight."""
        return bool(self._fetching)

    def doubts(self, shift: timedelta) -> bool:
        """Return whether the wall clock says of a token that it expires earlier.

        Args:
            shift: The difference between the wall clock and the daemon's own.
        """
        if self._doubted is None or self._doubted[0] != shift:
            self._doubted = shift, any(policy.doubt(lease.credential, shift) for lease in self.leases.values())
        return self._doubted[1]

    @property
    def delivering(self) -> bool:
        """Whether a delivery is in flight."""
        return any(delivery.in_flight for delivery in self.deliveries.values())

    @property
    def stuck(self) -> bool:
        """Whether a delivery hangs, so that only a restart may help."""
        return any(delivery.hung for delivery in self.deliveries.values())

    # ------------------------------------------------------------------------------------------------ event by event

    def _take(self, event: Event, now: datetime) -> Collection[Request]:
        """Apply an event to leases and deliveries, and return the requests that it touches."""
        match event:
            case Configured():
                self._configure(event, now)
                return self.leases
            case Due(job):
                self._planned.pop(job, None)
                return (job,) if isinstance(job, Request) and job in self.leases else ()
            case Tick():
                return self._overdue(now)
            case Woke() | NetworkReturned():
                return self._begin_anew(event, now)
            case ClockTrusted(shift):
                self._change({request: leases.judged(lease, shift) for request, lease in self.leases.items()})
                return self.leases
            case FetchEnded(request):
                return (request,) if self._fetch_ended(event, now) else ()
            case DeliveryEnded():
                return self._delivery_ended(event, now)
            case RefreshAsked(names, waiter):
                return self._refresh_asked(names, waiter, now)
            case WaitAsked(names=names, waiter=waiter):
                asked = self._requests(names)
                fetching = {request for request in asked if self.leases[request].state == "fetching"}
                self._waiting.begins(waiter, fetching | self._kept_back.intersection(asked))
            case WaiterLeft(waiter):
                self._waiting.leaves(waiter)
            case LoginChanged(requests):
                known = [request for request in requests if request in self.leases]
                self._change({request: leases.login_changed(self.leases[request], now) for request in known})
                return known
            case SinkDrifted(sink) if sink in self.deliveries:
                self.deliveries[sink] = deliveries.drifted(self.deliveries[sink])
        return ()

    def _configure(self, event: Configured, now: datetime) -> None:
        self._keep_back({index.request for index in event.settings.indexes if index.sink == "memory"}, event.sinks)
        self.indexes = event.settings.indexes
        self._named = {index.name: index for index in self.indexes}
        self._told = event.notices
        served: dict[Request, list[Index]] = {}
        for index in self.indexes:
            served.setdefault(index.request, []).append(index)
        self._served = {request: tuple(indexes) for request, indexes in served.items()}
        self._wanted = {sink: {} for sink in event.sinks}  # memory is not a file and has no delivery
        self._lives = {sink: {} for sink in event.sinks}
        for request in [request for request in self.leases if request not in served]:
            self._forget(request)
        self._planned.clear()  # a lease may have another name now
        self._change({request: self._adopted(request, event, now) for request in served})
        for request in served:
            self._notice(request, now)
        known = {sink: self.deliveries.get(sink, Delivery()) for sink in event.sinks}
        self.deliveries = {sink: deliveries.drifted(delivery) for sink, delivery in known.items()}

    def _keep_back(self, memory: set[Request], sinks: Iterable[Sink]) -> None:
        """Fetch nothing for an index that moves to memory before its former sinks are clean."""
        new = memory - {index.request for index in self.indexes if index.sink == "memory"}
        self._kept_back = new | (self._kept_back & memory)
        self._unclean = set(sinks) if new else self._unclean

    def _cleaned(self, event: DeliveryEnded) -> Collection[Request]:
        """Note that a sink is clean, and return the requests that may be fetched now."""
        hosts = {index.host for request in self._kept_back for index in self._served[request]}
        if any(entry.host in hosts for entry in event.wanted):
            return ()  # it began before the change
        self._unclean.discard(event.sink)
        released, self._kept_back = (set(), self._kept_back) if self._unclean else (self._kept_back, set())
        return released

    def _forget(self, request: Request) -> None:
        self._doubted = None
        if self.leases.pop(request).state == "fetching":
            self._actions.append(CancelFetch(request))
        self._noticed.pop(request, None)
        self.blocked.discard(request)
        self._fetching.discard(request)
        self._plan(request, "", None)
        self._waiting.fetch_ended(request)

    def _adopted(self, request: Request, event: Configured, now: datetime) -> Lease:
        if request in self.leases:
            return self.leases[request]
        if request in event.recovered:
            credential, due = event.recovered[request]
            return Lease(request, "waiting", credential, due, due)
        return Lease(request, act_at=now)

    def _begin_anew(self, event: Woke | NetworkReturned, now: datetime) -> Collection[Request]:
        """Restart the fetches in flight, and retry everything that failed at once."""
        take = leases.woke if isinstance(event, Woke) else leases.network_returned
        stepped = isinstance(event, Woke) and event.stepped
        before = self.leases.copy()
        self._change({request: take(lease, now) for request, lease in before.items()})
        for request, lease in self.leases.items():
            if lease.state == "fetching" and lease != before[request]:
                self._actions.append(RestartFetch(request, self._limit(lease, now, stepped)))
        if isinstance(event, Woke):
            self._urge_deliveries()
        if stepped:
            for request, lease in self.leases.items():
                if not lease.obeys:
                    self._start(request, now, doubtful=True)
        return self.leases

    def _fetch_ended(self, event: FetchEnded, now: datetime) -> bool:
        lease = self.leases.get(event.request)
        if lease is None or lease.state != "fetching":
            return False
        outcome = admit(event.outcome, self._served[event.request][0].host, now)
        if isinstance(outcome, Credential):
            self._change({event.request: leases.fetched(lease, outcome, now, event.roll)})
            self._report("info", "refreshed", event.request, _life_sentence(outcome, now))
            self._notice(event.request, now)
        else:
            self._change({event.request: leases.failed(lease, outcome, now, event.roll)})
            level = "warning" if outcome.kind == "transient" else "error"
            self._report(level, outcome.reason, event.request, outcome.message, outcome.hint)
        self._waiting.fetch_ended(event.request)
        return True

    def _notice(self, request: Request, now: datetime) -> None:
        """Report new notices to the event log."""
        noticed = views.lease_notices(self.leases[request], self._told, now)
        for notice in noticed:
            if notice.reason not in self._noticed.get(request, ()):
                self._report("warning", notice.reason, request, notice.message, notice.hint)
        if noticed:
            self._noticed[request] = frozenset(notice.reason for notice in noticed)
        else:
            self._noticed.pop(request, None)

    def _delivery_ended(self, event: DeliveryEnded, now: datetime) -> Collection[Request]:
        before = self.deliveries.get(event.sink)
        if before is None:
            return ()
        if event.failure is not None:
            after = deliveries.failed(before, event.failure, now, event.roll)
            self._report_failure(event.sink, before, after)
            self.deliveries[event.sink] = after
            return ()
        if event.problems != before.problems:
            for problem in event.problems:
                self._report_sink(event.sink, "warning", "sink", str(problem))
        after = self.deliveries[event.sink] = deliveries.succeeded(before, event, now)
        removed = {entry.target for entry in before.left or ()} - {entry.target for entry in after.left or ()}
        removed -= event.foreign
        names = tuple(index.name for index in self.indexes if index.target in removed) if removed else ()
        if names:  # entries of removed indexes are removed without a report
            self._actions.append(Report("warning", "removed", names, "The entry was removed: its token has expired."))
        if event.foreign:
            self._report_foreign()
        return self._cleaned(event)

    def _urge_deliveries(self) -> None:
        self.deliveries = {sink: deliveries.urged(delivery) for sink, delivery in self.deliveries.items()}

    def _refresh_asked(self, names: Iterable[str], waiter: int | None, now: datetime) -> Collection[Request]:
        self._urge_deliveries()
        asked = self._requests(names)
        for request in asked:
            self._start(request, now)
        if waiter is not None:
            self._waiting.begins(waiter, asked)
        return asked

    def _requests(self, names: Iterable[str]) -> dict[Request, None]:
        return dict.fromkeys(self._named[name].request for name in names if name in self._named)

    # -------------------------------------------------------------------------------------------------- each lease

    def _change(self, changed: Mapping[Request, Lease]) -> None:
        self._doubted = None
        for request, lease in changed.items():
            self.leases[request] = lease
            (self.blocked.add if lease.state == "blocked" else self.blocked.discard)(request)
            (self._fetching.add if lease.state == "fetching" else self._fetching.discard)(request)
        if not self._fetching:
            self._fetching.clear()  # an empty set keeps the memory of a thousand

    def _start_if_due(self, request: Request, now: datetime) -> None:
        act_at = self.leases[request].act_at
        if act_at is not None and now >= act_at:
            self._start(request, now)

    def _start(self, request: Request, now: datetime, doubtful: bool = False) -> None:
        lease = self.leases[request]
        if not self._may_fetch(request):
            return  # it is due as soon as it may be fetched
        if lease.state != "fetching":
            hung = lease.last_failure is not None and lease.last_failure.reason == "deadline"
            self._actions.append(StartFetch(request, self._limit(lease, now, doubtful), hung))
        self._change({request: leases.ask(lease, now)})

    def _limit(self, lease: Lease, now: datetime, doubtful: bool) -> float | None:
        """Return the seconds that a fetch may take; few if the current token may have expired."""
        return policy.FETCH_URGENT if doubtful else policy.fetch_limit(lease.promise_left(now))

    def _may_fetch(self, request: Request) -> bool:
        return request not in self._kept_back and (self._only is None or request in self._only)

    @property
    def _stopped(self) -> set[Request]:
        """Return the leases that wait for a sink that cannot be cleaned now."""
        failing = any(self.deliveries[sink].failure is not None for sink in self._unclean & self.deliveries.keys())
        return self._kept_back if failing else set()

    def _plan(self, job: Job, name: str, at: datetime | None) -> None:
        """Plan when a lease or a delivery wants to act, if that plan is new."""
        if self._planned.get(job) == at:
            return
        if at is None:
            del self._planned[job]
        else:
            self._planned[job] = at
            self._first_at = at if self._first_at is None else min(at, self._first_at)
        self._actions.append(Plan(job, f"refresh {name}" if isinstance(job, Request) else f"deliver {name}", at))

    def _overdue(self, now: datetime) -> Collection[Request]:
        """Return the leases whose time has come. Nearly always there are none, and no lease is looked at."""
        if self._first_at is None or now < self._first_at:
            return ()
        self._first_at = min(self._planned.values(), default=None)
        return [job for job, at in self._planned.items() if isinstance(job, Request) and at <= now]

    # ----------------------------------------------------------------------------------------------- each delivery

    def _refresh_wanted(self, request: Request, now: datetime) -> None:
        """Update what the sinks should hold for one lease."""
        for index in (index for index in self._served[request] if index.sink != "memory"):
            wanted, lives, target = self._wanted[index.sink], self._lives[index.sink], index.target
            lease = self.leases[request]
            entry = views.entry(index, lease, now)
            if entry is not None:
                lives[target] = lease.life
            if wanted.get(target) != entry:
                if entry is None:
                    del wanted[target], lives[target]
                else:
                    wanted[target] = entry
                self.deliveries[index.sink] = deliveries.touched(self.deliveries[index.sink])

    def _deliver(self, sink: Sink, now: datetime) -> None:
        delivery = self.deliveries[sink]
        if deliveries.begins(delivery, now, self.fetching):
            wanted, lives = self._wanted[sink], self._lives[sink].copy()
            delivery, action = deliveries.begin(delivery, sink, wanted, lives, now)
            if action is not None:
                self._actions.append(action)
        elif deliveries.hangs(delivery, now):
            before, delivery = delivery, deliveries.hung(delivery, sink, now)
            self._report_failure(sink, before, delivery)
        self.deliveries[sink] = delivery
        self._plan(sink, sink, delivery.next_at(now, self.fetching))

    # ------------------------------------------------------------------------------------------------------ reports

    def _report(self, level: str, event: str, request: Request, message: str, hint: str | None = None) -> None:
        names = tuple(index.name for index in self._served[request])
        self._actions.append(Report(level, event, names, message, hint))

    def _report_failure(self, sink: Sink, before: Delivery, after: Delivery) -> None:
        """Report once to the event log why a delivery failed."""
        if after.failure is not None and after.failure != before.failure:
            self._report_sink(sink, "error", after.failure.reason, after.failure.message, after.failure.hint)

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
    """Refuse a credential that expired on arrival, or that a netrc cannot hold: it would harm the other entries.

    Args:
        outcome: The worker's outcome.
        host: A host that the credential is for.
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
    message = "The issuer returned a token that has already expired."
    return Failure("transient", "expired-on-arrival", message, f"check this machine's clock: {fixes.show_clock()}")


def _life_sentence(credential: Credential, now: datetime) -> str:
    if credential.expires_at is None:
        return "Fetched a new token; its end of life is unknown."
    left = (credential.expires_at - now).total_seconds()
    return f"Fetched a new token, valid for {duration(left if left < 120 else 60 * round(left / 60))}."

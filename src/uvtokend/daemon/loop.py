"""The loop: feeds events to the agent and carries out its actions. It decides nothing.

Everything slow happens elsewhere: fetches in child processes, deliveries in a thread of their own.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta

from uvtokend import __version__
from uvtokend.core import agent as core
from uvtokend.core import environment, state, status
from uvtokend.core.agent import Agent, Report
from uvtokend.core.model import Credential, Entry, Failure, Index, Json, Record, Request, Settings
from uvtokend.core.netrc import block_entries
from uvtokend.daemon import logins
from uvtokend.daemon.clock import Clock
from uvtokend.daemon.control import UnknownNamesError
from uvtokend.daemon.events import EventLog
from uvtokend.daemon.notify import notify
from uvtokend.daemon.sinks import NetrcSink
from uvtokend.daemon.store import Store
from uvtokend.daemon.timer import GUARD_TICK, Timer
from uvtokend.daemon.worker import Workers
from uvtokend.errors import DeliveryFailed, UvtokendError

#: How often the login's files and a missing configuration are looked at; only while somebody waits for them.
WATCH = 2.0
#: A tick that comes this much late means that the machine slept or the process was stopped.
LATE = 10.0
#: A wall clock that moved this much was set, or the machine was paused from outside.
STEPPED = timedelta(seconds=30)

#: How long a status waits for a delivery that is under way.
SOON = 2.0

Load = Callable[[], Settings]


class Daemon:
    """One running agent with its world.

    Args:
        load: Reads the configuration; raises ConfigError.
        settings: The first one.
        sink: The netrc.
        store: The state file.
        log: The event log.
        socket: The control socket's path, for the status; None where there is none.
    """

    def __init__(
        self, load: Load, settings: Settings, sink: NetrcSink, store: Store, log: EventLog, socket: str | None
    ) -> None:
        self.stopped = asyncio.Event()
        self._load = load
        self._settings = settings
        self._sink = sink
        self._store = store
        self._log = log
        self._socket = socket
        self._agent = Agent()
        self._clock = Clock()
        self._loop = asyncio.get_running_loop()
        self._disk = ThreadPoolExecutor(1, "delivery")
        self._workers = Workers(settings.max_workers, settings.fetch_timeout, self._environment, self._fetch_ended)
        self._timer = Timer(self._due, self._tick)
        self._state = store.load()
        self._fingerprint: object = None
        self._waiters: dict[int, asyncio.Future[None]] = {}
        self._last_waiter = 0
        self._last_tick = (self._clock.now(), self._clock.shift())
        self._pictures: dict[str, logins.Look] = {}
        self._watch: asyncio.TimerHandle | None = None

    # ----------------------------------------------------------------------------------------------------- life

    def start(self) -> None:
        """Take up what a former daemon left, and begin."""
        self._log.level = self._settings.log_level
        try:
            self._sink.check_writable()
        except DeliveryFailed as error:
            self._feed(core.DeliveryEnded((), random.random(), _delivery_failure(error)))
        self._feed(core.Configured(self._settings, self._recover()))
        self._notices()

    async def close(self) -> None:
        """Stop everything; living entries stay where they are."""
        if self._watch is not None:
            self._watch.cancel()
        self._workers.close()
        self._timer.close()
        await self._loop.run_in_executor(None, self._disk.shutdown)

    def _recover(self) -> state.Recovered:
        try:
            standing = block_entries(self._sink.read(), self._state.ours())
        except (OSError, DeliveryFailed):
            return {}  # the first delivery will say what is wrong
        requests = tuple(index.request for index in self._settings.indexes)
        return state.recover(self._state, standing, requests, self._clock.now())

    def _notices(self) -> None:
        for notice in self._settings.notices:
            self._log.emit(Report("warning", "configuration", (), notice))

    # ------------------------------------------------------------------------------------------------- the loop

    def _feed(self, event: core.Event) -> None:
        for action in self._agent.handle(event, self._clock.now()):
            match action:
                case core.StartFetch(request):
                    self._workers.start(request)
                case core.CancelFetch(request):
                    self._workers.cancel(request)
                case core.Deliver(wanted):
                    self._deliver(wanted)
                case core.Answer(waiter):
                    self._waiters.pop(waiter).set_result(None)
                case Report():
                    self._log.emit(action)
        now = self._clock.now()
        deadline = self._agent.deadline(now)
        self._timer.plan(None if deadline is None else (deadline - now).total_seconds())
        self._watch_if_needed()
        notify(f"STATUS={self._sentence()}")

    def _due(self) -> None:
        self._feed(core.Tick())

    def _tick(self) -> None:
        notify("WATCHDOG=1")
        before, shift = self._last_tick
        self._last_tick = (self._clock.now(), self._clock.shift())
        late = (self._last_tick[0] - before).total_seconds() - GUARD_TICK
        if late > LATE:
            self._feed(core.Woke())
        if abs(self._last_tick[1] - shift) > STEPPED:
            # Set, or a paused machine whose own clocks stood still: no token is judged by it, all are fetched anew.
            self._log.emit(Report("warning", "clock", (), "The wall clock was set; all tokens are fetched anew."))
            self._feed(core.RefreshAsked(tuple(index.name for index in self._agent.indexes)))
        self._look_for_drift()
        self._feed(core.Tick())

    def _look_for_drift(self) -> None:
        if not self._agent.delivery.in_flight and self._sink.fingerprint() != self._fingerprint:
            self._feed(core.SinkDrifted())

    def _fetch_ended(self, request: Request, outcome: Credential | Failure) -> None:
        if isinstance(outcome, Credential):
            outcome = self._on_our_clock(outcome)
        elif outcome.kind != "transient":
            self._pictures |= self._look_at(request)
        self._feed(core.FetchEnded(request, outcome, random.random()))

    def _on_our_clock(self, credential: Credential) -> Credential:
        """Move the issuer's times from the wall clock, on which they came in, to ours."""
        shift = self._clock.shift()
        return replace(
            credential,
            issued_at=min(credential.issued_at - shift, self._clock.now()),
            expires_at=None if credential.expires_at is None else credential.expires_at - shift,
            refresh_after=None if credential.refresh_after is None else credential.refresh_after - shift,
        )

    def _environment(self, request: Request) -> dict[str, str]:
        return environment.worker_environment(os.environ, request, self._settings)

    # ------------------------------------------------------------------------------------------------- delivery

    def _deliver(self, wanted: tuple[Entry, ...]) -> None:
        records = tuple(self._records(wanted))
        result = self._disk.submit(self._deliver_now, wanted, records)
        result.add_done_callback(lambda done: self._loop.call_soon_threadsafe(self._feed, done.result()))

    def _records(self, wanted: tuple[Entry, ...]) -> list[Record]:
        shift = self._clock.shift()
        records = []
        for request, lease in self._agent.leases.items():
            hosts = {index.host for index in self._agent.indexes if index.request == request}
            hosts &= {entry.host for entry in wanted}
            if hosts and lease.credential is not None and lease.refresh_at is not None:
                record = state.record(request, lease.credential, lease.refresh_at, tuple(sorted(hosts)))
                records.append(state.shifted(record, shift))
        return records

    def _deliver_now(self, wanted: tuple[Entry, ...], records: tuple[Record, ...]) -> core.DeliveryEnded:
        """Write the netrc, between two writes of the state file.

        Before it, the state knows the old tokens and the new ones; after it, the new ones alone. So whenever we are
        killed, the entry that stands is known.
        """
        before = self._state
        created = before.created or not os.path.lexists(self._sink.path)
        both = state.State(self._sink.path, tuple(dict.fromkeys(before.records + records)), created)
        roll = random.random()
        try:
            self._save(both)
            delivery = self._sink.deliver(wanted, self._configured_hosts() | both.ours())
            self._save(state.State(self._sink.path, records, created))
        except DeliveryFailed as error:
            return core.DeliveryEnded(wanted, roll, _delivery_failure(error))
        except Exception as error:  # noqa: BLE001 - a delivery must end one way or the other
            message = f"The netrc could not be written ({type(error).__name__})."
            return core.DeliveryEnded(wanted, roll, Failure("transient", "unexpected", message))
        finally:
            self._fingerprint = self._sink.fingerprint()
        note = "The netrc is a single-file mount, so it is written in place." if delivery.in_place else None
        return core.DeliveryEnded(wanted, roll, None, delivery.foreign, delivery.problems, note)

    def _configured_hosts(self) -> dict[str, tuple[str, str]]:
        """Return our hosts with an empty digest: within the block the host alone tells what is ours."""
        return {index.host: ("", "") for index in self._settings.indexes}

    def _save(self, new: state.State) -> None:
        """A state file that cannot be written costs a fetch after the next start, no more."""
        self._state = new
        try:
            self._store.save(new)
        except OSError as error:
            report = Report("warning", "state-file", (), f"The state file could not be written: {error.strerror}.")
            self._loop.call_soon_threadsafe(self._log.emit, report)

    # -------------------------------------------------------------------------------------------- what we wait for

    def _watch_if_needed(self) -> None:
        needed = not self._settings.indexes or any(lease.state == "blocked" for lease in self._agent.leases.values())
        if needed and self._watch is None:
            self._watch = self._loop.call_later(WATCH, self._look)

    def _look(self) -> None:
        self._watch = None
        if not self._settings.indexes:
            self._look_for_configuration()
        for request, lease in tuple(self._agent.leases.items()):
            now = self._look_at(request) if lease.state == "blocked" else {}
            if any(look != self._pictures.get(place) for place, look in now.items()):
                self._pictures |= now
                self._feed(core.LoginChanged())
                break
        self._watch_if_needed()

    def _look_for_configuration(self) -> None:
        try:
            settings = self._load()
        except UvtokendError:
            return  # `reload` and the next start say what is wrong with it
        if settings.indexes:
            self._take(settings)

    def _look_at(self, request: Request) -> dict[str, logins.Look]:
        return logins.pictures(request, {**os.environ, **dict(request.env)})

    # ------------------------------------------------------------------------------------------ the control's wishes

    async def status(self, names: list[str] | None) -> dict[str, Json]:
        """Return the status document, of the netrc as it is now."""
        self._look_for_drift()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._settled((), due_only=True), SOON)
        return self._document(names)

    def _document(self, names: list[str] | None) -> dict[str, Json]:
        wanted = {index.name for index in self._chosen(names)}
        now = self._clock.now()
        snapshot = self._agent.snapshot(now)
        shift = self._clock.shift()
        views = tuple(view for view in snapshot.indexes if view.index.name in wanted)
        return {
            "version": __version__,
            "pid": os.getpid(),
            "started_at": state.zulu(self._clock.started + shift),
            "config": self._settings.file,
            "netrc": self._sink.path,
            "socket": self._socket,
            "delivery": {"ok": snapshot.delivery_ok, "problem": snapshot.delivery_problem},
            "indexes": status.indexes(core.Snapshot(views, snapshot.delivery_ok, None), now, shift),
        }

    async def refresh(self, names: list[str] | None, wait: bool) -> dict[str, Json]:
        """Fetch now and return the status document once it is delivered or has failed."""
        chosen = tuple(index.name for index in self._chosen(names))
        if not wait:
            self._feed(core.RefreshAsked(chosen))
            return self._document(names)
        self._look_for_drift()
        await self._settled(chosen, due_only=False)
        return self._document(names)

    async def settle(self, names: list[str] | None) -> dict[str, Json]:
        """Wait until what is due is delivered or has failed, and return the status document."""
        await self._settled(tuple(index.name for index in self._chosen(names)), due_only=True)
        return self._document(names)

    async def _settled(self, names: tuple[str, ...], due_only: bool) -> None:
        self._last_waiter += 1
        settled: asyncio.Future[None] = self._loop.create_future()
        self._waiters[self._last_waiter] = settled
        self._feed(core.RefreshAsked(names, self._last_waiter, due_only))
        await asyncio.shield(settled)  # a client that goes away must not take the answer from under the agent

    def reload(self) -> dict[str, Json]:
        """Read the configuration again; a bad one is refused whole and the old one stays in force."""
        self._take(self._load())
        return {"indexes": len(self._settings.indexes), "notices": list(self._settings.notices)}

    def stop(self) -> dict[str, Json]:
        """End the daemon."""
        self.stopped.set()
        return {"pid": os.getpid()}

    def version(self) -> dict[str, Json]:
        """Return who answers."""
        return {"version": __version__, "pid": os.getpid()}

    def listen(self, listener: Callable[[dict[str, Json]], None]) -> Callable[[], None]:
        """Tell the listener of events until the returned function is called."""
        return self._log.listen(listener)

    def _take(self, settings: Settings) -> None:
        if settings.netrc != self._settings.netrc:
            message = "The netrc was changed in the configuration, which takes a new start."
            raise UvtokendError(message, "uvtokend restart")
        self._settings = settings
        self._log.level = settings.log_level
        self._workers.limit, self._workers.timeout = settings.max_workers, settings.fetch_timeout
        self._log.emit(Report("info", "reloaded", (), f"The configuration names {len(settings.indexes)} indexes."))
        self._feed(core.Configured(settings))
        self._notices()

    def _chosen(self, names: list[str] | None) -> tuple[Index, ...]:
        known = {index.name: index for index in self._agent.indexes}
        unknown = [name for name in names or () if name not in known]
        if unknown:
            raise UnknownNamesError(unknown, list(known))
        return tuple(known.values()) if not names else tuple(known[name] for name in dict.fromkeys(names))

    def _sentence(self) -> str:
        """Return the one line that ``systemctl status`` shows."""
        now = self._clock.now()
        views = self._agent.snapshot(now).indexes
        if not views:
            return "waiting for a configuration: uvtokend init"
        good = sum(view.delivered for view in views)
        broken = next((view.last_error for view in views if view.last_error is not None), None)
        trouble = f"; {broken.message}{f' -> {broken.hint}' if broken.hint else ''}" if broken else ""
        return f"{good} of {len(views)} indexes have a valid token{trouble}"


def _delivery_failure(error: DeliveryFailed) -> Failure:
    return Failure("transient", error.reason, error.message, error.hint)

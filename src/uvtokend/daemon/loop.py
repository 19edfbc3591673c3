"""Feed events to the agent and carry out its actions. The loop decides nothing.

Everything slow happens elsewhere: fetches in child processes, deliveries in a thread of their own.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from typing import cast

from uvtokend import __version__, clock
from uvtokend.clock import Clock
from uvtokend.core import clouds, events, fixes, state, status, views
from uvtokend.core.agent import Agent
from uvtokend.core.events import Report
from uvtokend.core.model import Credential, Failure, Index, Json, Record, Request, Settings, Sink
from uvtokend.core.report import duration
from uvtokend.core.status import StatusDocument
from uvtokend.core.worker_environment import Environments, shown
from uvtokend.daemon import login_watch, memory
from uvtokend.daemon.answers import Answers
from uvtokend.daemon.clock_watch import ClockWatch
from uvtokend.daemon.config_files import ConfigFiles, Load
from uvtokend.daemon.control import UnknownNamesError
from uvtokend.daemon.deliveries import Deliveries, FirstLook, Order
from uvtokend.daemon.events import EventLog
from uvtokend.daemon.file_watch import FilesSeen, FileWatch
from uvtokend.daemon.hook import HookProgram
from uvtokend.daemon.installation import Installation, InstalledFiles
from uvtokend.daemon.network_watch import NetworkWatch
from uvtokend.daemon.notify import StatusLine, notify
from uvtokend.daemon.orphans import Orphans
from uvtokend.daemon.outlook import Outlook
from uvtokend.daemon.processes import Process
from uvtokend.daemon.timer import GUARD_TICK, Timer
from uvtokend.daemon.waiters import Waiters
from uvtokend.daemon.worker import Workers
from uvtokend.disk.netrc_sink import NetrcSink
from uvtokend.disk.state_file import Store
from uvtokend.errors import UvtokendError

#: Seconds between checks of sign-in files and of a missing configuration, while a lease or the daemon waits for them.
WATCH = 2.0
#: Seconds that a status waits for a delivery under way.
SOON = 2.0
#: Seconds that the program of ``on-delivered`` may run.
HOOK_LIMIT = 60.0


class Daemon:
    """A running agent with everything around it.

    Args:
        load: Reads the configuration; raises ConfigError.
        settings: The settings at the start.
        sink: The netrc.
        store: The state file.
        log: The event log.
        socket: The control socket's path, for the status; None if there is no socket.
        only: The only requests to fetch; None for all.

    Attributes:
        stopped: Set when the daemon should end.
        at_tick: Called at each guard tick.
    """

    def __init__(
        self,
        load: Load,
        settings: Settings,
        sink: NetrcSink,
        store: Store,
        log: EventLog,
        socket: str | None,
        only: Collection[Request] | None = None,
    ) -> None:
        self.stopped = asyncio.Event()
        self.end_reason = ""
        self.at_tick: Callable[[], None] = _nothing
        self._files = ConfigFiles(load, settings)
        self._settings = settings
        self._log = log
        self._socket = socket
        self._agent = Agent(only)
        self._clock = Clock()
        self._loop = asyncio.get_running_loop()
        self._deliveries = Deliveries(sink, store, self._delivery_ended, self._log.emit)
        self._hook = HookProgram(lambda: self._settings.on_delivered, self._of_hook, HOOK_LIMIT, self._hook_ended)
        self._environments = Environments(os.environ, settings)
        self._workers = Workers(settings.max_workers, settings.fetch_timeout, self._environment, self._fetch_ended)
        self._timer = Timer(self._clock.now, lambda job: self._feed(events.Due(job)), self._tick)
        self._clocks = ClockWatch(self._clock, self._clock_moved)
        self._installation = Installation(self.end, log.emit)
        self._orphans = Orphans()
        self._files_watch = FileWatch(
            self._deliveries.seem_drifted, InstalledFiles().look, self._files.check, self._files_seen
        )
        self._network = NetworkWatch(lambda: self._feed(events.NetworkReturned()))
        self._waiters = Waiters(self._feed)
        self._closed = False
        self._worked = False
        self._records_made: dict[Request, tuple[tuple[Credential, datetime, tuple[str, ...], timedelta], Record]] = {}
        self._looking: asyncio.Task[bool] | None = None
        self._loading: asyncio.Task[None] | None = None
        self._status_line = StatusLine(lambda: views.one_line(self._agent.snapshot(self._clock.now()).indexes))
        self._logins = login_watch.Watch(self._environment)
        self._outlook = None if socket is None else Outlook(self._whole, lambda: self._settings, log.emit)
        self._answers = Answers(self._agent, self._clock, self._waiters.settled, log.emit)
        self._watch: asyncio.TimerHandle | None = None

    # ----------------------------------------------------------------------------------------------------- life

    def start(self) -> None:
        """Recover the previous daemon's tokens and begin, after at most `deliveries.FIRST_LOOK` seconds."""
        self._log.level = self._settings.log_level
        first_look = self._deliveries.look(self._settings.indexes)
        if first_look.failure is not None:
            self._feed(events.DeliveryEnded((), random.random(), first_look.failure))
        self._feed(self._configured(self._recover(first_look)))
        self._judge()
        self._notices()

    async def close(self) -> None:
        """Stop everything, within 5 s, or 20 s if a worker spends a one-time secret.

        Entries that have not expired stay where they are.
        """
        self._closed = True
        for handle in (self._watch, self._looking, self._loading):
            if handle is not None:
                handle.cancel()
        self._status_line.close()
        self._hook.close()
        self._timer.close()
        self._clocks.close()
        self._files_watch.close()
        self._network.close()
        outlooks = () if self._outlook is None else (self._outlook.close(),)
        left, *_ = await asyncio.gather(self._workers.close(), self._deliveries.close(), *outlooks)
        if left:
            message = (
                f"{len(left)} {'worker does' if len(left) == 1 else 'workers do'} not end although killed, so the "
                "kernel waits for something that does not answer, probably a file system."
            )
            self._log.emit(Report("warning", "worker-hung", (), message, fixes.show_processes(left)))

    def _configured(self, recovered: state.Recovered) -> events.Configured:
        said = clouds.notices(os.environ, dict.fromkeys(index.request for index in self._settings.indexes))
        return events.Configured(self._settings, recovered, said, self._deliveries.sinks(self._settings.indexes))

    def _recover(self, first_look: FirstLook) -> state.Recovered:
        # A token that was in a file is not kept in memory: a new one is fetched when the file is clean.
        requests = tuple(index.request for index in self._settings.indexes if index.sink != "memory")
        return state.recover(first_look.records, first_look.standing, requests, self._clock.now())

    def _notices(self) -> None:
        for notice in self._settings.notices:
            self._log.emit(Report("warning", "configuration", (), notice))

    # ------------------------------------------------------------------------------------------------- the loop

    def _feed(self, event: events.Event) -> None:
        if self._closed:
            return
        if not isinstance(event, events.Tick):
            self._worked = True
        actions = self._agent.handle(event, self._clock.now())
        for action in sorted(actions, key=lambda action: not isinstance(action, events.Deliver)):  # uv waits for it
            match action:
                case events.StartFetch(request, limit, hung):
                    self._logins.begins(request)
                    self._workers.start(request, limit, hung)
                case events.RestartFetch(request, limit):
                    self._workers.restart(request, limit)
                case events.CancelFetch(request):
                    self._workers.cancel(request)
                case events.Deliver():
                    self._deliver(action)
                case events.Plan():
                    self._timer.plan(action)
                case events.Settled(waiter):
                    self._waiters.end(waiter)
                case Report():
                    self._log.emit(action)
        self._watch_if_needed()
        if actions or not isinstance(event, events.Tick):
            self._changed()

    def _changed(self) -> None:
        """Update everything that shows the status."""
        if self._outlook is not None:
            self._outlook.changed()
        self._status_line.changed()

    def _tick(self) -> None:
        """Handle the guard tick: check everything that may have changed without an event."""
        if not self._agent.stuck:
            notify("WATCHDOG=1")
        self._look_at_clocks(timedelta(seconds=GUARD_TICK))
        self._look_at_files()
        self._orphans.reap()
        self._feed(events.Tick())
        self._judge()
        if self._outlook is not None:
            self._outlook.ticked()
        self._status_line.again()
        if self._worked and not self._agent.fetching:
            self._worked = False
            memory.give_back()
        self.at_tick()

    def _look_at_files(self) -> None:
        """Check whether a sink or the installation has changed, and whether the disk answers at all."""
        sinks = tuple(self._agent.deliveries)
        if self._files_watch.sinks_hang or not (self._looking is None or self._looking.done()):
            # The disk has not answered for a whole tick: a delivery ends, or is reported as hung.
            for sink in sinks:
                self._feed(events.SinkDrifted(sink))
        elif self._files_watch.busy:  # the installation or the configuration hangs, but the sinks need not
            self._looking = self._loop.create_task(self._look_for_drift())
        else:
            self._files_watch.look(sinks)

    def _files_seen(self, seen: FilesSeen) -> None:
        if self._closed:
            return
        self._installation.seen(seen.installed)
        if seen.drifted and (self._looking is None or self._looking.done()):
            self._looking = self._loop.create_task(self._look_for_drift())

    def _clock_moved(self) -> None:
        """Handle the kernel's report that the machine woke up, or that its clock was set."""
        self._look_at_clocks(None)

    def _look_at_clocks(self, planned: timedelta | None) -> None:
        self._timer.again()
        change = self._clocks.look(planned)
        if change.slept:
            away = duration(change.away.total_seconds())
            self._log.emit(Report("info", "woke", (), f"The machine or the daemon was suspended for about {away}."))
            if self._outlook is not None:
                self._outlook.woke()
        if change.stepped:
            step = change.step.total_seconds()
            how = f"{'forward' if step > 0 else 'back'} by {duration(abs(step))}"
            message = f"The wall clock was set {how}, so all tokens are fetched again."
            self._log.emit(Report("warning", "clock", (), message))
        if change.slept or change.stepped:
            self._feed(events.Woke(change.stepped))

    async def _look_for_drift(self) -> bool:
        """Check the sinks for drift, and return whether one has drifted."""
        return self._drift(await self._deliveries.drifted(tuple(self._agent.deliveries)))

    def _drift(self, sinks: tuple[Sink, ...]) -> bool:
        drifted = False
        for sink in sinks:
            if sink in self._agent.deliveries and not self._agent.deliveries[sink].in_flight:
                self._feed(events.SinkDrifted(sink))
                drifted = True
        return drifted

    def _fetch_ended(self, request: Request, outcome: Credential | Failure) -> None:
        logged_in = False
        if isinstance(outcome, Credential):
            outcome = self._on_our_clock(outcome)
            self._logins.succeeds(request)
        elif outcome.kind != "transient":
            logged_in = self._logins.fails(request)
        self._feed(events.FetchEnded(request, outcome, random.random()))
        if logged_in:
            self._feed(events.LoginChanged((request,)))
        if isinstance(outcome, Failure):
            self._judge()

    def _judge(self) -> None:
        """Remove tokens that have expired by a correct wall clock, if no fetch has replaced them."""
        shift = self._clock.shift()
        if self._agent.doubts(shift) and clock.synchronized():
            self._feed(events.ClockTrusted(shift))

    def _on_our_clock(self, credential: Credential) -> Credential:
        """Convert the issuer's times from the wall clock to the daemon's clock."""
        shift, end, behind = self._clock.shift(), credential.expires_at, min(0.0, credential.skew or 0.0)
        return replace(
            credential,
            wall_end=None if end is None else end - timedelta(seconds=behind),
            issued_at=min(credential.issued_at - shift, self._clock.now()),
            expires_at=None if end is None else end - shift,
            refresh_after=None if credential.refresh_after is None else credential.refresh_after - shift,
        )

    def _environment(self, request: Request) -> dict[str, str]:
        return self._environments.of(request)

    # ------------------------------------------------------------------------------------------------- delivery

    def _deliver(self, action: events.Deliver) -> None:
        records = tuple(self._records(action))
        self._deliveries.begin(Order(action, records, self._settings.indexes, random.random(), self._settings.file))

    def _delivery_ended(self, event: events.DeliveryEnded) -> None:
        self._feed(event)
        if event.changed and not self._closed:
            self._hook.changed()

    def _of_hook(self) -> dict[str, str]:
        names = (index.name for index in self._settings.indexes)
        return self._environments.of_hook(names, self._deliveries.netrc.path)

    def _hook_ended(self, problem: str | None) -> None:
        if problem is not None:
            self._log.emit(Report("error", "on-delivered", (), problem))
        self._changed()

    def _records(self, action: events.Deliver) -> Iterator[Record]:
        shift = self._clock.shift()
        wanted = {entry.target for entry in action.wanted}
        targets: dict[Request, set[str]] = {}
        for index in self._agent.indexes:
            if index.target in wanted:
                targets.setdefault(index.request, set()).add(index.target)
        for request, places in targets.items():
            lease = self._agent.leases[request]
            if lease.credential is not None and lease.refresh_at is not None:
                made_of = (lease.credential, lease.refresh_at, tuple(sorted(places)), shift)
                if request not in self._records_made or self._records_made[request][0] != made_of:
                    record = state.record(request, *made_of[:3])
                    self._records_made[request] = made_of, state.shifted(record, shift)
                yield self._records_made[request][1]

    # -------------------------------------------------------------------------------------------- what we wait for

    def _watch_if_needed(self) -> None:
        if self._watch is None and (self._agent.blocked or not self._settings.indexes):
            self._watch = self._loop.call_later(WATCH, self._look)

    def _look(self) -> None:
        self._watch = None
        if not self._settings.indexes and (self._loading is None or self._loading.done()):
            self._loading = self._loop.create_task(self._look_for_configuration())
        if any(self._logins.changed(request) for request in self._agent.blocked):
            failed = [
                request for request, lease in self._agent.leases.items() if lease.state in {"blocked", "retrying"}
            ]
            self._feed(events.LoginChanged(tuple(request for request in failed if self._logins.changed(request))))
        self._watch_if_needed()

    async def _look_for_configuration(self) -> None:
        try:
            settings = await self._files.load()
        except UvtokendError:
            return  # `reload` and the next start report the error
        if settings.indexes and not self._settings.indexes and not self._closed:
            self._take(settings)

    # ------------------------------------------------------------------------------------------ the control's wishes

    async def status(self, names: list[str] | None) -> dict[str, Json]:
        """Return the status document for the current state of the netrc.

        While more tokens are being fetched, `status` waits only for a delivery that undoes another program's change.
        Otherwise more deliveries would follow at once, and a thousand of them would delay every `status`.
        """
        self._worked = True
        await self._files.look(SOON)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(SOON):
                drifted = not self._agent.delivering and await self._look_for_drift()
                if drifted or not self._agent.fetching:
                    await self._waiters.settled((), fetch=False)
        return self._document(names, self._settings.disabled)

    def _document(self, names: list[str] | None, disabled: tuple[Index, ...] = ()) -> dict[str, Json]:
        _check_names(names, (*self._agent.indexes, *disabled))
        return cast("dict[str, Json]", status.chosen(self._whole(disabled, names), names or ()))

    def _whole(self, disabled: tuple[Index, ...] = (), names: Collection[str] | None = None) -> StatusDocument:
        """Return the status document, with the named indexes and those that share a host with them; None means all."""
        now, shift = self._clock.now(), self._clock.shift()
        frame = status.Frame(
            __version__,
            self._settings.file,
            self._deliveries.netrc.path,
            self._socket,
            self._files.stale((now + shift).timestamp()),
            os.getpid(),
            self._clock.started + shift,
        )
        hosts = {index.host for index in self._agent.indexes if not names or index.name in names}
        snapshot = self._agent.snapshot(now, (index for index in self._agent.indexes if index.host in hosts))
        if snapshot.delivery_problem is None:
            snapshot = replace(snapshot, delivery_problem=self._hook.problem)
        return status.of_daemon(frame, snapshot, disabled, now, shift)

    async def refresh(self, names: list[str] | None, wait: bool) -> dict[str, Json]:
        """Fetch now and return the status document once it is delivered or has failed."""
        chosen = tuple(index.name for index in self._chosen(names))
        if not wait:
            self._feed(events.RefreshAsked(chosen))
            return self._document(names)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._look_for_drift(), SOON)
        await self._waiters.settled(chosen, fetch=True)
        return self._document(names)

    async def credential(
        self, url: str, username: str | None, min_life: float | None, asker: Process, name: str | None = None
    ) -> dict[str, Json]:
        """Return the credential for a URL. See `Answers.credential`."""
        return await self._answers.credential(url, username, min_life, asker, name)

    async def settle(self, names: list[str] | None) -> dict[str, Json]:
        """Wait until everything due is delivered or has failed, and return the status document."""
        chosen = tuple(index.name for index in self._chosen(names))
        await self._waiters.settled(chosen, fetch=False)
        return self._document(names)

    async def finished(self) -> None:
        """Wait until the ``on-delivered`` program has ended."""
        await self._hook.finished()

    async def reload(self) -> dict[str, Json]:
        """Reload the configuration. An invalid one is refused as a whole, and the previous settings stay loaded."""
        self._take(await self._files.load())
        settings = self._settings
        return {"config": settings.file, "indexes": len(settings.indexes), "notices": list(settings.notices)}

    def end(self, reason: str) -> None:
        """End the daemon.

        Args:
            reason: The reason, for the log.
        """
        self.end_reason = self.end_reason or reason
        self.stopped.set()

    def stop(self) -> dict[str, Json]:
        """End the daemon because a client asked for it."""
        self.end("uvtokend stop")
        return {"pid": os.getpid()}

    def version(self) -> dict[str, Json]:
        """Return the version, process ID and files of this daemon, and its PATH and network settings."""
        environment: dict[str, Json] = {**shown(os.environ)}
        return {
            "version": __version__,
            "pid": os.getpid(),
            "stopping": self.stopped.is_set(),
            "config": self._settings.file,
            "netrc": self._deliveries.netrc.path,
            "environment": environment,
        }

    def listen(self, listener: Callable[[dict[str, Json]], None]) -> Callable[[], None]:
        """Pass events to the listener until the returned function is called."""
        return self._log.listen(listener)

    def _take(self, settings: Settings) -> None:
        if settings.netrc != self._settings.netrc:
            message = "The configuration names another netrc, which requires a restart."
            raise UvtokendError(message, "uvtokend restart")
        self._settings = settings
        self._environments = Environments(os.environ, settings)
        self._records_made.clear()
        self._log.level = settings.log_level
        self._workers.limit, self._workers.timeout = settings.max_workers, settings.fetch_timeout
        count = len(settings.indexes)
        message = f"Configuration reloaded ({count} {'index' if count == 1 else 'indexes'})."
        self._log.emit(Report("info", "reloaded", (), message))
        self._feed(self._configured({}))
        self._notices()

    def _chosen(self, names: list[str] | None) -> tuple[Index, ...]:
        off = next((index.name for index in self._settings.disabled if index.name in (names or ())), None)
        if off is not None:
            message = f"The index {off!r} is disabled."
            raise UvtokendError(message, f"remove its line enabled = false from {self._settings.file}, then reload")
        _check_names(names, self._agent.indexes)
        known = {index.name: index for index in self._agent.indexes}
        return tuple(known.values()) if not names else tuple(known[name] for name in dict.fromkeys(names))


def _check_names(names: list[str] | None, indexes: Iterable[Index]) -> None:
    known = [index.name for index in indexes]
    unknown = [name for name in names or () if name not in known]
    if unknown:
        raise UnknownNamesError(unknown, known)


def _nothing() -> None:
    """Do nothing: without a control socket there is no work at a tick."""

"""Feed events to the agent and carry out its actions. The loop decides nothing.

Everything slow happens elsewhere: fetches in child processes, deliveries in a thread of their own.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Callable, Collection
from datetime import timedelta

from uvtokend import clock
from uvtokend.clock import Clock
from uvtokend.core import clouds, events, fixes, policy, state, views
from uvtokend.core.agent import Agent
from uvtokend.core.events import Report
from uvtokend.core.model import Credential, Failure, Request, Settings, Sink
from uvtokend.core.worker_environment import Environments
from uvtokend.daemon import memory
from uvtokend.daemon.answers import Answers
from uvtokend.daemon.aside import aside
from uvtokend.daemon.clock_watch import ClockWatch
from uvtokend.daemon.config_files import ConfigFiles, Load
from uvtokend.daemon.deliveries import Deliveries, FirstLook, Order
from uvtokend.daemon.documents import Documents
from uvtokend.daemon.events import EventLog
from uvtokend.daemon.file_watch import FilesSeen, FileWatch
from uvtokend.daemon.hook import HookProgram
from uvtokend.daemon.installation import Installation, InstalledFiles
from uvtokend.daemon.login_watch import SignIns, Watch
from uvtokend.daemon.network_watch import NetworkWatch
from uvtokend.daemon.notify import StatusLine, notify
from uvtokend.daemon.orphans import Orphans
from uvtokend.daemon.outlook import Outlook
from uvtokend.daemon.records import Records
from uvtokend.daemon.requests import Requests
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
#: How many new tokens are so few that the loop stands still for their delivery: it takes about a millisecond more.
FEW = 16
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
        stopped: Set when the daemon should end, and `end_reason` why.
        at_tick: Called at each guard tick, in a thread: it may use a file system that does not answer.
        agent: The leases and deliveries.
        settings: The loaded settings.
        worked: Something was done since memory was last given back to the system.
        requests: Answers clients.
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
        self.agent = Agent(only)
        self.settings = settings
        self.worked = False
        self._log = log
        self._clock = Clock()
        self._loop = asyncio.get_running_loop()
        self._closed = False
        self._looking: asyncio.Task[bool] | None = None
        self._loading: asyncio.Task[None] | None = None
        self._at_tick: asyncio.Future[None] | None = None
        self._watch: asyncio.TimerHandle | None = None
        # What carries out the agent's actions.
        self._environments = Environments(os.environ, settings)
        self._workers = Workers(settings.max_workers, settings.fetch_timeout, self._environment, self._fetch_ended)
        self._deliveries = Deliveries(sink, store, self._delivery_ended, log.emit)
        self._records = Records(self.agent)
        self._hook = HookProgram(lambda: self.settings.on_delivered, self._of_hook, HOOK_LIMIT, self._hook_ended)
        self._timer = Timer(self._clock.now, lambda job: self.feed(events.Due(job)), self._tick)
        self._waiters = Waiters(self.feed)
        self._build_watchers(load)
        self._build_views(lambda: sink.last_path, socket)

    def _build_watchers(self, load: Load) -> None:
        """Build what notices that the world has changed."""
        self._clocks = ClockWatch(self._clock, self._clock_moved)
        self._network = NetworkWatch(lambda: self.feed(events.NetworkReturned()))
        self._files = ConfigFiles(load, self.settings)
        self._installation = Installation(self.end, self._log.emit)
        self._files_watch = FileWatch(
            self._deliveries.seem_drifted, InstalledFiles().look, self._files.check, self._files_seen
        )
        self._sign_ins = SignIns(
            Watch(self._environment), self._files_watch.run, lambda requests: self.feed(events.LoginChanged(requests))
        )
        self._orphans = Orphans()

    def _build_views(self, netrc: Callable[[], str], socket: str | None) -> None:
        """Build what shows the status, and answers clients."""
        documents = self._documents = Documents(
            self.agent, self._clock, lambda: self.settings, self._files, self._hook, netrc, socket
        )
        self._status_line = StatusLine(lambda: views.one_line(self.agent.snapshot(self._clock.now()).indexes))
        self._outlook = None if socket is None else Outlook(documents.whole, lambda: self.settings, self._log.emit)
        answers = Answers(self.agent, self._clock, self._waiters.settled, self._log.emit)
        self.requests = Requests(self, documents, self._files, self._waiters, answers, self._log)

    # ----------------------------------------------------------------------------------------------------- life

    def start(self) -> None:
        """Recover the previous daemon's tokens and begin, after at most `deliveries.FIRST_LOOK` seconds."""
        self._log.level = self.settings.log_level
        first_look = self._deliveries.look(self.settings.indexes)
        if first_look.failure is not None:
            self.feed(events.DeliveryEnded((), random.random(), first_look.failure))
        self.feed(self._configured(self._recover(first_look)))
        self._timer.open()  # after the first workers were started
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
        self._timer.close()
        self._clocks.close()
        self._files_watch.close()
        self._network.close()
        outlooks = () if self._outlook is None else (self._outlook.close(),)
        left, *_ = await asyncio.gather(self._workers.close(), self._deliveries.close(), self._hook.close(), *outlooks)
        if left:
            message = (
                f"{len(left)} {'worker does' if len(left) == 1 else 'workers do'} not end although killed, so the "
                "kernel waits for something that does not answer, probably a file system."
            )
            self._log.emit(Report("warning", "worker-hung", (), message, fixes.show_processes(left)))

    def _configured(self, recovered: state.Recovered) -> events.Configured:
        said = clouds.notices(os.environ, dict.fromkeys(index.request for index in self.settings.indexes))
        return events.Configured(self.settings, recovered, said, self._deliveries.sinks(self.settings.indexes))

    def _recover(self, first_look: FirstLook) -> state.Recovered:
        # A token that was in a file is not kept in memory: a new one is fetched when the file is clean.
        requests = tuple(index.request for index in self.settings.indexes if index.sink != "memory")
        return state.recover(first_look.records, first_look.standing, requests, self._clock.now())

    def _notices(self) -> None:
        for notice in self.settings.notices:
            self._log.emit(Report("warning", "configuration", (), notice))

    # ------------------------------------------------------------------------------------------------- the loop

    def feed(self, event: events.Event) -> None:
        """Give an event to the agent and carry out its actions, unless the daemon has been closed."""
        if self._closed:
            return
        if not isinstance(event, events.Tick):
            self.worked = True
        self._records.take(event)
        actions = self.agent.handle(event, self._clock.now())
        for action in sorted(actions, key=lambda action: not isinstance(action, events.Deliver)):  # uv waits for it
            match action:
                case events.StartFetch(request, limit, hung):
                    self._sign_ins.begins(request)
                    self._workers.start(request, limit, hung)
                case events.RestartFetch(request, limit):
                    self._workers.restart(request, limit)
                case events.CancelFetch(request):
                    self._workers.cancel(request)
                case events.Deliver():
                    self._deliver(action, ahead=isinstance(event, events.FetchEnded))
                case events.Plan():
                    self._timer.plan(action)
                case events.Settled(waiter=waiter):
                    self._waiters.end(waiter)
                case Report():
                    self._log.emit(action)
        self._watch_if_needed()
        silent = isinstance(event, events.Tick | events.WaitAsked | events.WaiterLeft)  # they themselves change nothing
        if not silent or any(not isinstance(action, events.Settled) for action in actions):
            self._changed()

    def _changed(self) -> None:
        """Update everything that shows the status."""
        if self._outlook is not None:
            self._outlook.changed()
        self._status_line.changed()

    def _tick(self) -> None:
        """Handle the guard tick: check everything that may have changed without an event."""
        if not self.agent.stuck:
            notify("WATCHDOG=1")
        self._look_at_clocks(timedelta(seconds=GUARD_TICK))
        self._orphans.reap()
        self.feed(events.Tick())
        self._judge()
        if self._outlook is not None:
            self._outlook.ticked()
        self._status_line.again()
        if self.worked and not self.agent.fetching:
            self.worked = False
            self._documents.forget()
            memory.give_back()
        self._look_at_files()  # last, so that its thread does not compete with this one

    def _look_at_files(self) -> None:
        """Check whether a sink or the installation has changed, and whether the disk answers at all."""
        busy = self._files_watch.busy
        sinks = tuple(self.agent.deliveries)
        if self._files_watch.sinks_hang or not (self._looking is None or self._looking.done()):
            # The disk has not answered for a whole tick: a delivery ends, or is reported as hung.
            for sink in sinks:
                self.feed(events.SinkDrifted(sink))
        elif busy:  # the installation or the configuration hangs, but the sinks need not
            self._looking = self._loop.create_task(self.look_for_drift())
        else:
            self._files_watch.look(sinks)
        if not busy:
            self._files_watch.run(self.at_tick)
        elif self._at_tick is None or self._at_tick.done():
            self._at_tick = aside(self.at_tick, "tick")

    def _files_seen(self, seen: FilesSeen) -> None:
        if self._closed:
            return
        self._installation.seen(seen.installed)
        if seen.drifted and (self._looking is None or self._looking.done()):
            self._looking = self._loop.create_task(self.look_for_drift())

    def _clock_moved(self) -> None:
        """Handle the kernel's report that the machine woke up, or that its clock was set."""
        self._timer.again()
        self._look_at_clocks(None)

    def _look_at_clocks(self, planned: timedelta | None) -> None:
        change = self._clocks.look(planned)
        for report in change.reports():
            self._log.emit(report)
        if change.slept and self._outlook is not None:
            self._outlook.woke()
        if change.slept or change.stepped:
            self.feed(events.Woke(change.stepped))

    async def look_for_drift(self) -> bool:
        """Check the sinks for drift, and return whether one has drifted."""
        return self._drift(await self._deliveries.drifted(tuple(self.agent.deliveries)))

    def _drift(self, sinks: tuple[Sink, ...]) -> bool:
        drifted = False
        for sink in sinks:
            if sink in self.agent.deliveries and not self.agent.deliveries[sink].in_flight:
                self.feed(events.SinkDrifted(sink))
                drifted = True
        return drifted

    def _fetch_ended(self, request: Request, outcome: Credential | Failure) -> None:
        if isinstance(outcome, Credential):
            outcome = policy.on_our_clock(outcome, self._clock.shift(), self._clock.now())
            self.feed(events.FetchEnded(request, outcome, random.random()))  # first: uv waits for the token
            self._sign_ins.succeeds(request)
            return
        if outcome.kind != "transient":
            self._sign_ins.fails(request)
        self.feed(events.FetchEnded(request, outcome, random.random()))
        self._judge()

    def _judge(self) -> None:
        """Remove tokens that have expired by a correct wall clock, if no fetch has replaced them."""
        shift = self._clock.shift()
        if self.agent.doubts(shift) and clock.synchronized():
            self.feed(events.ClockTrusted(shift))

    def _environment(self, request: Request) -> dict[str, str]:
        return self._environments.of(request)

    # ------------------------------------------------------------------------------------------------- delivery

    def _deliver(self, action: events.Deliver, ahead: bool) -> None:
        targets = self.agent.deliveries[action.sink].offered.keys()
        ahead = ahead and self._records.changes(action.sink) <= FEW  # most of many tokens have waited
        records = self._records.of(action.sink, targets, self._clock.shift())
        self._deliveries.begin(
            Order(action, records, self.settings.indexes, random.random(), self.settings.file), ahead
        )

    def _delivery_ended(self, event: events.DeliveryEnded) -> None:
        self.feed(event)
        if event.changed and not self._closed:
            self._hook.changed()

    def _of_hook(self) -> dict[str, str]:
        names = (index.name for index in self.settings.indexes)
        return self._environments.of_hook(names, self._deliveries.netrc.last_path)

    def _hook_ended(self, problem: str | None) -> None:
        if problem is not None:
            self._log.emit(Report("error", "on-delivered", (), problem))
        self._changed()

    # -------------------------------------------------------------------------------------------- what we wait for

    def _watch_if_needed(self) -> None:
        if self._watch is None and (self.agent.blocked or not self.settings.indexes):
            self._watch = self._loop.call_later(WATCH, self._look)

    def _look(self) -> None:
        self._watch = None
        if not self.settings.indexes and (self._loading is None or self._loading.done()):
            self._loading = self._loop.create_task(self._look_for_configuration())
        if self.agent.blocked and not self._files_watch.busy:
            failed = [request for request, lease in self.agent.leases.items() if lease.state in {"blocked", "retrying"}]
            self._sign_ins.look(self.agent.blocked, failed)
        self._watch_if_needed()

    async def _look_for_configuration(self) -> None:
        await self._files.look(WATCH)
        if not self._files.differ:
            return
        try:
            settings = await self._files.load()
        except UvtokendError:
            return  # `reload` and the next start report the error
        if settings.indexes and not self.settings.indexes and not self._closed:
            self.take(settings)

    # ------------------------------------------------------------------------------------- what others ask of it

    async def finished(self) -> None:
        """Wait until the ``on-delivered`` program has ended."""
        await self._hook.finished()

    def end(self, reason: str) -> None:
        """End the daemon.

        Args:
            reason: The reason, for the log.
        """
        self.end_reason = self.end_reason or reason
        self.stopped.set()

    def take(self, settings: Settings) -> None:
        """Replace the settings with those that were read.

        Raises:
            UvtokendError: They name another netrc; the previous settings stay loaded.
        """
        if settings.netrc != self.settings.netrc:
            message = "The configuration names another netrc, which requires a restart."
            raise UvtokendError(message, "uvtokend restart")
        self.settings = settings
        self._environments = Environments(os.environ, settings)
        self._log.level = settings.log_level
        self._workers.limit, self._workers.timeout = settings.max_workers, settings.fetch_timeout
        count = len(settings.indexes)
        message = f"Configuration reloaded ({count} {'index' if count == 1 else 'indexes'})."
        self._log.emit(Report("info", "reloaded", (), message))
        self.feed(self._configured({}))
        self._notices()


def _nothing() -> None:
    """Do nothing: without a control socket there is no work at a tick."""

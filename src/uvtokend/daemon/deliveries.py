"""Write the sinks and the state file, in a thread of their own, one after another.

The disk thread works on an `Order`, a frozen copy of everything that it needs, so a `reload` meanwhile cannot change
the delivery. `uvtokend.core.state` decides what it remembers. The same thread checks the sinks for drift. A file system
that does not answer may block this thread forever, but never the loop or the end of the daemon.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shlex
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from queue import Empty, SimpleQueue
from typing import Self

from uvtokend import clock, paths
from uvtokend.core import delivery, state
from uvtokend.core.events import Deliver, DeliveryEnded, Report
from uvtokend.core.model import Entry, Failure, Index, Problem, Record, Sink
from uvtokend.core.netrc.block import Ours, block_entries
from uvtokend.core.state import State
from uvtokend.daemon.alongside import Alongside
from uvtokend.disk import cleanup, files
from uvtokend.disk.netrc_sink import DeliveryResult, NetrcSink
from uvtokend.disk.state_file import Store
from uvtokend.errors import DeliveryFailed, UvtokendError

#: Seconds that a delivery in flight gets when the daemon ends.
LAST = 3.0
#: Seconds that the loop stands still for the delivery of a token that has just come. Python runs one thread at a time,
#: and a thread that returns from the system waits up to 5 ms for a busy one: without the head start, a token that is a
#: millisecond away would wait for the log and for the next worker. A delivery that had to wait gets no head start.
HEAD_START = 0.02
#: Seconds that the file systems get to answer at the start.
FIRST_LOOK = 5.0

TYPE_CHECKING = False
if TYPE_CHECKING:
    from uvtokend.disk.uv_store_sink import UvStoreSink


@dataclass(frozen=True, slots=True)
class Order:
    """One delivery, with everything that the disk thread needs for it.

    Args:
        deliver: The delivery.
        records: Returns the records of its tokens, in wall-clock time; the same ones each time.
        indexes: The configured indexes.
        roll: A dice roll in [0, 1), for the back-off.
        config: The configuration file.
    """

    deliver: Deliver
    records: Callable[[], tuple[Record, ...]]
    indexes: tuple[Index, ...]
    roll: float
    config: str


@dataclass(frozen=True, slots=True)
class FirstLook:
    """What the daemon finds on disk when it starts.

    Args:
        failure: Why a delivery could not be written, or None.
        records: The records of the state file.
        standing: Our entries in the sinks, by target.
    """

    failure: Failure | None
    records: tuple[Record, ...] = ()
    standing: Mapping[str, Entry] = field(default_factory=dict)


class Deliveries:
    """Write sinks and state file in order.

    Args:
        netrc: The netrc.
        store: The state file.
        ended: Called in the loop when a delivery has ended.
        report: Called in the loop with each report for the event log.
    """

    def __init__(
        self, netrc: NetrcSink, store: Store, ended: Callable[[DeliveryEnded], None], report: Callable[[Report], None]
    ) -> None:
        self.netrc = netrc
        self._store = store
        self._ended = ended
        self._report = report
        self._loop = asyncio.get_running_loop()
        self._tasks: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        #: Gets something when the delivery that began last is visible, or has ended. `threading.Event` would do, but it
        #: is written in Python, which the disk thread would have to wait for.
        self._visible: SimpleQueue[None] = SimpleQueue()
        netrc.visible = self._show
        netrc.together = self._alongside = Alongside()
        threading.Thread(target=self._work, name="delivery", daemon=True).start()
        self._state = State()
        self._fingerprints: dict[Sink, object] = {}
        self._noticed: dict[Sink, object] = {}
        self._uv_store: UvStoreSink | None = None
        self._had_records = False  # uv's store may hold records of the previous daemon
        self._unsaved: tuple[Problem, ...] = ()
        #: Entries whose digests the state knows, by host, and in which netrc.
        self._saved: dict[str, Entry] = {}
        self._saved_in = ""
        self._hosts = _Hosts()

    def look(self, indexes: tuple[Index, ...]) -> FirstLook:
        """Return the records and entries of the previous daemon, and whether a delivery can be written.

        If a file system does not answer within `FIRST_LOOK` seconds, that is the failure. Then nothing is known about
        the previous daemon. Every token is fetched again, and is delivered when the file system answers.

        Args:
            indexes: The configured indexes.
        """
        answer: SimpleQueue[FirstLook] = SimpleQueue()
        self._tasks.put(lambda: answer.put(self._first_look(indexes)))
        try:
            return answer.get(timeout=FIRST_LOOK)
        except Empty:
            message = (
                f"The file system of the netrc, or of the state directory, has not answered for {FIRST_LOOK:g} s. "
                "Until it does, nothing is delivered, and it is unknown what uv finds in the netrc."
            )
            hint = "make its file system answer again (dmesg says more), then: uvtokend restart"
            return FirstLook(Failure("transient", delivery.DELIVERY_HUNG, message, hint))

    def sinks(self, indexes: tuple[Index, ...]) -> tuple[Sink, ...]:
        """Return the sinks that contain our entries, or will.

        Args:
            indexes: The configured indexes.
        """
        used = self._had_records or self._uv_store is not None
        return ("netrc", "uv-store") if used or any(index.sink == "uv-store" for index in indexes) else ("netrc",)

    def begin(self, order: Order, ahead: bool) -> None:
        """Deliver in the disk thread, and call `ended`.

        Args:
            order: The delivery.
            ahead: Whether a token has just come. Then return when it is visible, or after `HEAD_START`.
        """
        visible = self._visible = SimpleQueue()
        self._tasks.put(lambda: self._tell(self._ended, self._deliver(order)))
        if ahead:
            with contextlib.suppress(Empty):
                visible.get(timeout=HEAD_START)

    async def drifted(self, sinks: Sequence[Sink]) -> tuple[Sink, ...]:
        """Return the sinks that have changed since the last delivery.

        Args:
            sinks: The sinks to check.
        """
        answer: asyncio.Future[tuple[Sink, ...]] = self._loop.create_future()
        self._tasks.put(lambda: self._tell(_resolve, answer, self._look(sinks)))
        return await answer

    def seem_drifted(self, sinks: Sequence[Sink]) -> bool:
        """Return whether a sink looks different from how the last delivery left it, or a delivery is under way.

        It may be called in any thread, and waits for the file system, but for no delivery.

        Args:
            sinks: The sinks to check.
        """
        return any(self._fingerprint(sink) != self._fingerprints.get(sink) for sink in sinks)

    async def close(self) -> None:
        """Wait a moment for the delivery in flight. Entries stay in their sinks."""
        done: asyncio.Future[None] = self._loop.create_future()
        self._tasks.put(lambda: self._tell(_resolve, done, None))
        self._tasks.put(self._alongside.close)
        self._tasks.put(None)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(done, LAST)
            if self._uv_store is not None:
                self._uv_store.close()

    # ------------------------------------------------------------------------------------------ in the disk thread

    def _work(self) -> None:
        while (task := self._tasks.get()) is not None:
            task()

    def _tell(self, function: Callable[..., None], *args: object) -> None:
        """Call a function in the loop, if the loop still runs."""
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(function, *args)

    def _first_look(self, indexes: tuple[Index, ...]) -> FirstLook:
        self._state = self._store.load()
        self._had_records = os.path.exists(paths.uv_ledger_file())
        failure = None
        try:
            self.netrc.check_writable()
        except DeliveryFailed as error:
            failure = _failure(error)
        standing: dict[str, Entry] = {}
        with contextlib.suppress(OSError, DeliveryFailed):  # the first delivery reports the error
            standing |= block_entries(self.netrc.read(), self._state.ours(self.netrc.path))
        with contextlib.suppress(OSError, DeliveryFailed):
            standing |= self._store_sink().entries() if "uv-store" in self.sinks(indexes) else {}
        return FirstLook(failure, self._state.records, standing)

    def _look(self, sinks: Sequence[Sink]) -> tuple[Sink, ...]:
        return tuple(sink for sink in sinks if self._drifted(sink))

    def _drifted(self, sink: Sink) -> bool:
        """Return whether a sink has changed since the last delivery, and log each change once."""
        fingerprint = self._fingerprint(sink)
        drifted = fingerprint != self._fingerprints.get(sink)
        if drifted and sink in self._fingerprints and fingerprint != self._noticed.get(sink):
            self._noticed[sink] = fingerprint
            self._tell_of_edit(sink)
        return drifted

    def _tell_of_edit(self, sink: Sink) -> None:
        path = self.netrc.path if sink == "netrc" else paths.uv_credentials_file()
        self._tell(self._report, Report("info", "changed", (), f"Another program changed {path}."))

    def _deliver(self, order: Order) -> DeliveryEnded:
        try:
            return self._written(order)
        finally:
            self._show()

    def _show(self) -> None:
        self._visible.put(None)

    def _written(self, order: Order) -> DeliveryEnded:
        """Write a sink, between two writes of the state file.

        The first write names the entries that are about to be written, the second the entries in place. So our entries
        stay known whenever the daemon is killed, and even if another program writes an older text back. Before a netrc,
        the first write is only a note, which is not waited for unless it names a new host. Otherwise a program would
        have to wait for the disk three times until it finds its token (`uvtokend.disk.state_file`).
        """
        action = order.deliver
        ended = partial(DeliveryEnded, action.wanted, order.roll, sink=action.sink)
        self._unsaved = ()
        self._drifted(action.sink)  # otherwise an edit that this delivery reads would never be logged
        try:
            result = self._write_store(order) if action.sink == "uv-store" else self._write_netrc(order)
            written = [known for known in order.records() if not result.foreign.issuperset(known.targets)]
            self._save(state.with_records(self._state, written, action.sink))
        except DeliveryFailed as error:
            self._fingerprints[action.sink] = self._fingerprint(action.sink)
            return ended(_failure(error))
        except Exception as error:  # noqa: BLE001 - a delivery must end one way or the other
            self._fingerprints[action.sink] = self._fingerprint(action.sink)
            message = f"The {action.sink} could not be written ({type(error).__name__})."
            return ended(Failure("transient", "unexpected", message))
        if result.overtaken:
            self._tell_of_edit(action.sink)
        own = result.fingerprint if action.sink == "netrc" else self._fingerprint(action.sink)
        self._fingerprints[action.sink] = own  # later changes are another program's
        return ended(
            None, result.foreign, (*result.problems, *self._unsaved), result.note, result.rival, changed=result.changed
        )

    def _write_store(self, order: Order) -> DeliveryResult:
        self._set_clock()
        urls: dict[str, list[str]] = {}
        for index in order.indexes:
            urls.setdefault(index.service, []).append(index.url)
        private = {index.service for index in order.indexes if index.login_is_secret}
        self._save(state.began_store(self._state, paths.uv_credentials_file(), order.records()))
        return self._store_sink().deliver(order.deliver.wanted, urls, private)

    def _write_netrc(self, order: Order) -> DeliveryResult:
        action, path = order.deliver, self.netrc.path
        if order.indexes is not self._hosts.indexes:
            self._hosts = _Hosts.of(order.indexes)
        hosts, shadowing = self._hosts.all, self._hosts.shadowing
        known = path in self._state.netrcs
        ours = self._state.ours(path, hosts) if known else cleanup.ours(self.netrc, self._state, hosts)
        saved = self._saved if self._saved_in == path else {}

        def news(foreign: Collection[str]) -> State:
            self._set_clock()
            new = [entry for entry in action.wanted if saved.get(entry.host) is not entry]
            entries = [entry for entry in new if entry.host not in foreign]
            created = not os.path.lexists(path)
            return state.began(self._state, path, entries, order.records(), order.config, created)

        def begin(foreign: Collection[str]) -> Ours:
            self._note(news(foreign))
            return self._state.ours(path, ours)

        result = self.netrc.deliver(action.wanted, ours, action.left, action.yielding, shadowing, begin, action.urgent)
        if not result.changed:  # nothing was written, so nothing was noted
            self._state = state.joined(self._state, news(result.foreign))
        self._saved = {entry.host: entry for entry in action.wanted if entry.host not in result.foreign}
        self._saved_in = path
        self._state = state.without(self._state, self._state.ours(path).keys() - hosts)
        return replace(result, problems=(*result.problems, *self._clean_former(path, order.config)))

    def _set_clock(self) -> None:
        """Note the wall clock of this delivery, and adapt to it what is known from another one."""
        boot = clock.boot()
        self._state = replace(state.on_clock(self._state, boot), boot=boot)

    def _clean_former(self, current: str, config: str) -> list[Problem]:
        """Clean the files that were used before, and return a problem for each that still contains our entries."""
        problems = []
        directory = paths.state_directory()
        stores = [path for path in self._state.stores if path != paths.uv_credentials_file()]
        for path in (*state.former(self._state, current, config), *stores):
            try:
                if path in stores:
                    cleanup.clean_store(path, directory)
                elif os.path.realpath(path) != os.path.realpath(current):  # a link to the netrc in use now is clean
                    cleanup.clean_former(path, self._state)
                self._state = state.cleaned(self._state, path)
            except UvtokendError as error:
                problems.append(cleanup.problem(path, error.message, error.hint))
        return problems

    def _fingerprint(self, sink: Sink) -> object:
        return self.netrc.fingerprint() if sink == "netrc" else files.fingerprint(paths.uv_credentials_file())

    def _store_sink(self) -> UvStoreSink:
        """Return uv's store. Most daemons never use it, so its code is loaded only here."""
        if self._uv_store is None:
            from uvtokend.disk.uv_store_sink import UvStoreSink  # noqa: PLC0415

            self._uv_store = UvStoreSink(paths.uv_credentials_file(), paths.state_directory())
        return self._uv_store

    def _note(self, news: State) -> None:
        """Note what is new. If that fails, it costs a fetch after the next start, no more."""
        self._state = state.joined(self._state, news)
        with self._told_of_failure():
            self._store.note(news)

    def _save(self, new: State) -> None:
        """Write the state file. If that fails, it costs a fetch after the next start, no more."""
        self._state = new
        with self._told_of_failure():
            self._state = self._store.save(new)

    @contextlib.contextmanager
    def _told_of_failure(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            path = paths.state_file()
            message = f"The state file could not be written: {error.strerror}."
            hint = f"df -h {shlex.quote(os.path.dirname(path))}"
            self._unsaved = (Problem(path, "the file", message, hint, fatal=False),)
            self._tell(self._report, Report("warning", "state-file", (), message, hint))


@dataclass(frozen=True, slots=True)
class _Hosts:
    """The hosts of the configured indexes, kept from one delivery to the next.

    Args:
        indexes: The indexes.
        all: The hosts of all of them.
        shadowing: The hosts whose credentials are delivered elsewhere, so that an entry would shadow them.
    """

    indexes: tuple[Index, ...] = ()
    all: frozenset[str] = frozenset()
    shadowing: frozenset[str] = frozenset()

    @classmethod
    def of(cls, indexes: tuple[Index, ...]) -> Self:
        """Return the hosts of some indexes."""
        shadowing = frozenset(index.host for index in indexes if index.sink != "netrc")
        return cls(indexes, frozenset(index.host for index in indexes), shadowing)


def _resolve(future: asyncio.Future[object], result: object) -> None:
    if not future.done():
        future.set_result(result)


def _failure(error: DeliveryFailed) -> Failure:
    return Failure("transient", error.reason, error.message, error.hint)

"""Deliveries: write the sinks and the state file, in a thread of their own, one after another.

The disk thread works on an `Order`, a frozen copy of all that it needs: a `reload` that comes meanwhile cannot change
what is being written. What it remembers is decided in `uvtokend.core.state`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

from uvtokend import clock, paths
from uvtokend.core import state
from uvtokend.core.events import Deliver, DeliveryEnded, Report
from uvtokend.core.model import Entry, Failure, Index, Record, Sink
from uvtokend.core.netrc.block import block_entries
from uvtokend.core.state import State
from uvtokend.disk.netrc_sink import DeliveryResult, NetrcSink
from uvtokend.disk.state_file import Store
from uvtokend.errors import DeliveryFailed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from uvtokend.disk.uv_store_sink import UvStoreSink


@dataclass(frozen=True, slots=True)
class Order:
    """One delivery, with all that the disk thread needs for it.

    Args:
        deliver: What to deliver.
        records: What to remember of the tokens in it, in wall-clock time.
        indexes: The configured indexes.
        roll: A dice roll in [0, 1), for the back-off.
    """

    deliver: Deliver
    records: tuple[Record, ...]
    indexes: tuple[Index, ...]
    roll: float

    @property
    def targets(self) -> frozenset[str]:
        """The targets of the configured indexes."""
        return frozenset(index.target for index in self.indexes)


class Deliveries:
    """Write sinks and state file in order.

    Args:
        netrc: The netrc.
        store: The state file.
        ended: Called in the loop when a delivery has ended.
        report: Called in the loop with what the event log should say.
    """

    def __init__(
        self, netrc: NetrcSink, store: Store, ended: Callable[[DeliveryEnded], None], report: Callable[[Report], None]
    ) -> None:
        self.netrc = netrc
        self._store = store
        self._ended = ended
        self._report = report
        self._loop = asyncio.get_running_loop()
        self._disk = ThreadPoolExecutor(1, "delivery")
        self._state = store.load()
        self._fingerprints: dict[Sink, object] = {}
        self._uv_store: UvStoreSink | None = None

    def check_writable(self) -> Failure | None:
        """Return why a delivery to the netrc could not write where it will write, or None."""
        try:
            self.netrc.check_writable()
        except DeliveryFailed as error:
            return _failure(error)
        return None

    def recovered(self, indexes: tuple[Index, ...]) -> tuple[State, dict[str, Entry]]:
        """Return what the state file says, and our entries as they stand, by target.

        Args:
            indexes: The configured indexes.
        """
        standing: dict[str, Entry] = {}
        with contextlib.suppress(OSError, DeliveryFailed):  # the first delivery says what is wrong
            standing |= block_entries(self.netrc.read(), self._state.ours())
        with contextlib.suppress(OSError, DeliveryFailed):
            standing |= self._store_sink().entries() if "uv-store" in self.sinks(indexes) else {}
        return self._state, standing

    def sinks(self, indexes: tuple[Index, ...]) -> tuple[Sink, ...]:
        """Return the sinks that hold something of ours, or will.

        Args:
            indexes: The configured indexes.
        """
        used = any(index.sink == "uv-store" for index in indexes)
        return ("netrc", "uv-store") if used or os.path.exists(paths.uv_ledger_file()) else ("netrc",)

    def begin(self, order: Order) -> None:
        """Deliver in the disk thread, and call `ended`."""
        result = self._disk.submit(self._deliver, order)
        result.add_done_callback(lambda done: self._loop.call_soon_threadsafe(self._ended, done.result()))

    def drifted(self, sink: Sink) -> bool:
        """Return whether a sink is another one than the last delivery left."""
        return self._fingerprint(sink) != self._fingerprints.get(sink)

    async def close(self) -> None:
        """Wait for the delivery in flight; entries stay where they are."""
        await self._loop.run_in_executor(None, self._disk.shutdown)
        if self._uv_store is not None:
            self._uv_store.close()

    # ------------------------------------------------------------------------------------------ in the disk thread

    def _deliver(self, order: Order) -> DeliveryEnded:
        """Write a sink, between two writes of the state file.

        Before it, the state knows the old tokens and the new ones; after it, the new ones and the last few before
        them. So whenever we are killed, and whatever others write back, the entry that stands is known.
        """
        action = order.deliver
        ended = partial(DeliveryEnded, action.wanted, order.roll, sink=action.sink)
        path = self.netrc.path
        boot = clock.boot()
        before = state.on_clock(self._state, boot)
        during = state.before_delivery(before, path, not os.path.lexists(path), order.records, boot)
        try:
            self._save(during)
            result = self._write(order, during)
            self._save(state.after_delivery(before, during, order.records, result.foreign, action.sink, order.targets))
        except DeliveryFailed as error:
            return ended(_failure(error))
        except Exception as error:  # noqa: BLE001 - a delivery must end one way or the other
            message = f"The {action.sink} could not be written ({type(error).__name__})."
            return ended(Failure("transient", "unexpected", message))
        finally:
            self._fingerprints[action.sink] = self._fingerprint(action.sink)
        return ended(None, result.foreign, result.problems, result.note, result.rival)

    def _write(self, order: Order, known: State) -> DeliveryResult:
        action = order.deliver
        if action.sink == "uv-store":
            urls: dict[str, list[str]] = {}
            for index in order.indexes:
                urls.setdefault(index.service, []).append(index.url)
            private = {index.service for index in order.indexes if index.login_is_secret}
            return self._store_sink().deliver(action.wanted, urls, private)
        # Within the block the host alone tells what is ours.
        hosts: dict[str, set[tuple[str, str]]] = {index.host: set() for index in order.indexes}
        shadowing = {index.host for index in order.indexes if index.sink == "uv-store"}
        return self.netrc.deliver(action.wanted, hosts | known.ours(), action.left, action.yielding, shadowing)

    def _fingerprint(self, sink: Sink) -> object:
        return self.netrc.fingerprint() if sink == "netrc" else self._store_sink().fingerprint()

    def _store_sink(self) -> UvStoreSink:
        """Return uv's store, which most daemons never touch, nor load the code for it."""
        if self._uv_store is None:
            from uvtokend.disk.uv_store_sink import UvStoreSink  # noqa: PLC0415

            self._uv_store = UvStoreSink(paths.uv_credentials_file(), paths.state_folder())
        return self._uv_store

    def _save(self, new: State) -> None:
        """Write the state file. If that fails it costs a fetch after the next start, no more."""
        self._state = new
        try:
            self._store.save(new)
        except OSError as error:
            report = Report("warning", "state-file", (), f"The state file could not be written: {error.strerror}.")
            self._loop.call_soon_threadsafe(self._report, report)


def _failure(error: DeliveryFailed) -> Failure:
    return Failure("transient", error.reason, error.message, error.hint)

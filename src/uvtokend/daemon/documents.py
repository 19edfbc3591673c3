"""Make the status document of a running daemon."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from uvtokend import __version__
from uvtokend.clock import Clock
from uvtokend.core import status
from uvtokend.core.agent import Agent
from uvtokend.core.model import Index, Settings
from uvtokend.core.status import StatusDocument
from uvtokend.core.status_rows import Rows
from uvtokend.core.views import Snapshot
from uvtokend.core.wire import Encoded
from uvtokend.daemon.config_files import ConfigFiles
from uvtokend.daemon.hook import HookProgram

#: How many rows are made at once.
PIECE = 50


class Documents:
    """Makes status documents.

    Args:
        agent: The leases and deliveries.
        clock: The daemon's clock.
        settings: Returns the loaded settings.
        files: The configuration files.
        hook: The program of ``on-delivered``.
        netrc: Returns the path of the netrc.
        socket: The control socket's path; None if there is no socket.
    """

    def __init__(
        self,
        agent: Agent,
        clock: Clock,
        settings: Callable[[], Settings],
        files: ConfigFiles,
        hook: HookProgram,
        netrc: Callable[[], str],
        socket: str | None,
    ) -> None:
        self._agent = agent
        self._clock = clock
        self._settings = settings
        self._files = files
        self._hook = hook
        self.netrc = netrc
        self._socket = socket
        self._rows = Rows()

    def whole(self, disabled: tuple[Index, ...] = (), names: Collection[str] | None = None) -> StatusDocument:
        """Return the status document.

        Args:
            disabled: The disabled indexes to show.
            names: Show these indexes, and those that share a host with them; None means all.
        """
        now, shift = self._clock.now(), self._clock.shift()
        hosts = {index.host for index in self._agent.indexes if not names or index.name in names}
        snapshot = self._snapshot(now, (index for index in self._agent.indexes if index.host in hosts))
        return status.of_daemon(self._frame(now, shift), snapshot, disabled, now, shift)

    def text(self, disabled: tuple[Index, ...] = ()) -> Encoded:
        """Return the status document of all indexes as JSON. Only rows that have changed since the last one are made.

        Args:
            disabled: The disabled indexes to show.
        """
        agent, now, shift = self._agent, self._clock.now(), self._clock.shift()
        for piece in pieces(self._rows.outdated(agent.indexes, agent.leases, agent.deliveries, now, shift)):
            snapshot = self._snapshot(now, piece)
            self._rows.take(status.rows(snapshot, now, shift), snapshot.indexes, now)
        document = status.of_daemon(self._frame(now, shift), self._snapshot(now, ()), disabled, now, shift)
        return Encoded(self._rows.text(document, agent.indexes, now))

    def forget(self) -> None:
        """Free the memory of what is kept for the next status."""
        self._rows.forget()

    def _frame(self, now: datetime, shift: timedelta) -> status.Frame:
        return status.Frame(
            __version__,
            self._settings().file,
            self.netrc(),
            self._socket,
            self._files.stale((now + shift).timestamp()),
            os.getpid(),
            self._clock.started + shift,
        )

    def _snapshot(self, now: datetime, indexes: Iterable[Index]) -> Snapshot:
        snapshot = self._agent.snapshot(now, indexes)
        return snapshot if snapshot.delivery_problem else replace(snapshot, delivery_problem=self._hook.problem)


def pieces(indexes: Sequence[Index]) -> Iterator[Sequence[Index]]:
    """Yield indexes in pieces, so that the rows of a thousand are never in memory at once.

    Those of uv's store are one piece, because their notices depend on each other.
    """
    others = [index for index in indexes if index.sink != "uv-store"]
    if len(others) < len(indexes):
        yield [index for index in indexes if index.sink == "uv-store"]
    for start in range(0, len(others), PIECE):
        yield others[start : start + PIECE]

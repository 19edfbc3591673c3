"""Make the status document of a running daemon."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection
from dataclasses import replace

from uvtokend import __version__
from uvtokend.clock import Clock
from uvtokend.core import status
from uvtokend.core.agent import Agent
from uvtokend.core.model import Index, Settings
from uvtokend.core.status import StatusDocument
from uvtokend.daemon.config_files import ConfigFiles
from uvtokend.daemon.hook import HookProgram


class Documents:
    """Makes status documents.

    Args:
        agent: The leases and deliveries.
        clock: The daemon's clock.
        settings: Returns the loaded settings.
        files: The configuration files.
        hook: The program of ``on-delivered``.
        netrc: The path of the netrc.
        socket: The control socket's path; None if there is no socket.
    """

    def __init__(
        self,
        agent: Agent,
        clock: Clock,
        settings: Callable[[], Settings],
        files: ConfigFiles,
        hook: HookProgram,
        netrc: str,
        socket: str | None,
    ) -> None:
        self._agent = agent
        self._clock = clock
        self._settings = settings
        self._files = files
        self._hook = hook
        self.netrc = netrc
        self._socket = socket

    def whole(self, disabled: tuple[Index, ...] = (), names: Collection[str] | None = None) -> StatusDocument:
        """Return the status document.

        Args:
            disabled: The disabled indexes to show.
            names: Show these indexes, and those that share a host with them; None means all.
        """
        now, shift = self._clock.now(), self._clock.shift()
        frame = status.Frame(
            __version__,
            self._settings().file,
            self.netrc,
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

"""Answer the requests of clients, and those of ``uvtokend once``: status, refresh, reload, stop and the rest."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from collections.abc import Callable, Iterable, Iterator
from typing import cast

from uvtokend import __version__
from uvtokend.core import events, status
from uvtokend.core.model import Index, Json
from uvtokend.core.wire import Encoded
from uvtokend.core.worker_environment import shown
from uvtokend.daemon.answers import Answers
from uvtokend.daemon.config_files import ConfigFiles
from uvtokend.daemon.control import UnknownNamesError
from uvtokend.daemon.documents import Documents
from uvtokend.daemon.events import EventLog
from uvtokend.daemon.processes import Process
from uvtokend.daemon.waiters import Waiters
from uvtokend.errors import UvtokendError

#: Seconds that a status waits for a delivery under way.
SOON = 2.0

TYPE_CHECKING = False
if TYPE_CHECKING:
    from uvtokend.daemon.loop import Daemon


class Requests:
    """Answers requests; the methods are those of `uvtokend.daemon.control.ControlHandler`.

    Args:
        daemon: The daemon that is asked.
        documents: Its status documents.
        files: Its configuration files.
        waiters: The clients that wait.
        answers: The credentials for programs.
        log: The event log.
    """

    def __init__(
        self,
        daemon: Daemon,
        documents: Documents,
        files: ConfigFiles,
        waiters: Waiters,
        answers: Answers,
        log: EventLog,
    ) -> None:
        self._daemon = daemon
        self._documents = documents
        self._files = files
        self._waiters = waiters
        self._answers = answers
        self._log = log

    async def status(self, names: list[str] | None) -> Encoded:
        """Return the status document, as JSON, for the current state of the netrc.

        While more tokens are being fetched, `status` waits only for a delivery that undoes another program's change.
        Otherwise more deliveries would follow at once, and a thousand of them would delay every `status`.
        """
        daemon = self._daemon
        daemon.worked = True
        await self._files.look(SOON)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(SOON):
                drifted = not daemon.agent.delivering and await daemon.look_for_drift()
                if drifted or not daemon.agent.fetching:
                    await self._waiters.settled((), fetch=False)
        if not names:
            return self._documents.text(daemon.settings.disabled)
        return Encoded(json.dumps(self._document(names, daemon.settings.disabled)))

    async def refresh(self, names: list[str] | None, wait: bool) -> dict[str, Json]:
        """Fetch now and return the status document once it is delivered or has failed."""
        chosen = tuple(self._chosen(names))
        if not wait:
            self._daemon.feed(events.RefreshAsked(chosen))
            return self._document(names)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._daemon.look_for_drift(), SOON)
        await self._waiters.settled(chosen, fetch=True)
        return self._document(names)

    async def settle(self, names: list[str] | None) -> dict[str, Json]:
        """Wait until everything due is delivered or has failed, and return the status document."""
        await self._waiters.settled(tuple(self._chosen(names)), fetch=False)
        return self._document(names)

    async def credential(
        self, url: str, username: str | None, min_life: float | None, asker: Process, name: str | None = None
    ) -> dict[str, Json]:
        """Return the credential for a URL. See `Answers.credential`."""
        return await self._answers.credential(url, username, min_life, asker, name)

    async def reload(self) -> dict[str, Json]:
        """Reload the configuration. An invalid one is refused as a whole, and the previous settings stay loaded."""
        settings = await self._files.load()
        self._daemon.take(settings)
        return {"config": settings.file, "indexes": len(settings.indexes), "notices": list(settings.notices)}

    def stop(self) -> dict[str, Json]:
        """End the daemon because a client asked for it."""
        self._daemon.end("uvtokend stop")
        return {"pid": os.getpid()}

    def version(self) -> dict[str, Json]:
        """Return the version, process ID and files of this daemon, and its PATH and network settings."""
        settings = self._daemon.settings
        environment: dict[str, Json] = {**shown(os.environ)}
        return {
            "version": __version__,
            "pid": os.getpid(),
            "stopping": self._daemon.stopped.is_set(),
            "config": settings.file,
            "netrc": self._documents.netrc(),
            "environment": environment,
        }

    def listen(self, listener: Callable[[dict[str, Json]], None]) -> Callable[[], None]:
        """Pass events to the listener until the returned function is called."""
        return self._log.listen(listener)

    def _document(self, names: list[str] | None, disabled: tuple[Index, ...] = ()) -> dict[str, Json]:
        _check_names(names, (*self._daemon.agent.indexes, *disabled))
        whole = self._documents.whole(disabled, names)
        return cast("dict[str, Json]", status.chosen(whole, names or ()))

    def _chosen(self, names: list[str] | None) -> Iterator[str]:
        """Yield the names of the enabled indexes that a client means."""
        settings = self._daemon.settings
        off = next((index.name for index in settings.disabled if index.name in (names or ())), None)
        if off is not None:
            message = f"The index {off!r} is disabled."
            raise UvtokendError(message, f"remove its line enabled = false from {settings.file}, then reload")
        _check_names(names, self._daemon.agent.indexes)
        yield from dict.fromkeys(names) if names else (index.name for index in self._daemon.agent.indexes)


def _check_names(names: list[str] | None, indexes: Iterable[Index]) -> None:
    known = [index.name for index in indexes]
    unknown = [name for name in names or () if name not in known]
    if unknown:
        raise UnknownNamesError(unknown, known)

"""Check the sinks, the installation and the configuration at each guard tick, in one thread that always exists.

At rest a tick costs one wake-up of this thread and one stat call per file, and the loop is called only after a change.
A file system that does not answer blocks this thread, but neither the loop nor a delivery. The sinks are checked first,
so the loop can tell whether they cause a hang.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from queue import SimpleQueue

from uvtokend.core.model import Sink
from uvtokend.daemon.installation import OnDisk


@dataclass(frozen=True, slots=True)
class FilesSeen:
    """The result of a check.

    Args:
        drifted: Whether a sink seems to have changed since the last delivery.
        installed: The state of the installation on disk.
    """

    drifted: bool
    installed: OnDisk


class FileWatch:
    """Checks the files when `look` is called.

    Args:
        drifted: Returns whether one of these sinks seems to have drifted; called in the thread.
        installed: Returns the state of the installation on disk; called in the thread.
        config: Checks whether the configuration has changed; called in the thread.
        told: Called in the loop if a sink seems to have drifted, and if the installation is incomplete or has changed.
    """

    def __init__(
        self,
        drifted: Callable[[Sequence[Sink]], bool],
        installed: Callable[[], OnDisk],
        config: Callable[[], None],
        told: Callable[[FilesSeen], None],
    ) -> None:
        self._drifted = drifted
        self._installed = installed
        self._config = config
        self._told = told
        self._loop = asyncio.get_running_loop()
        self._asked: SimpleQueue[Sequence[Sink] | None] = SimpleQueue()
        self._before: OnDisk | None = None
        #: The progress of the check under way: the loop clears these before it asks, the thread sets them.
        self._sinks_done = self._done = True
        threading.Thread(target=self._work, name="file watch", daemon=True).start()

    @property
    def busy(self) -> bool:
        """Whether a check is under way."""
        return not self._done

    @property
    def sinks_hang(self) -> bool:
        """Whether the check under way has not yet finished the sinks."""
        return not self._sinks_done

    def look(self, sinks: Sequence[Sink]) -> None:
        """Check the installation, the configuration and these sinks. No check may be under way."""
        self._sinks_done = self._done = False
        self._asked.put(sinks)

    def close(self) -> None:
        """End the thread, unless it hangs."""
        self._asked.put(None)

    def _work(self) -> None:
        while (sinks := self._asked.get()) is not None:
            drifted = self._drifted(sinks)
            self._sinks_done = True
            installed = self._installed()
            self._config()
            if drifted or installed.missing is not None or installed != self._before:
                self._before = installed
                with contextlib.suppress(RuntimeError):  # the loop has ended
                    self._loop.call_soon_threadsafe(self._told, FilesSeen(drifted, installed))
            self._done = True

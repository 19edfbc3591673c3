"""Check the sinks and the installation at each guard tick, in one thread that always exists.

At rest a tick costs one wake-up of this thread and one stat call per file, and the loop is called only after a change.
A file system that does not answer blocks this thread, but neither the loop nor a delivery. The sinks are checked first,
so the loop can tell whether they are what hangs.
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
    """What a look found.

    Args:
        drifted: A sink seems to be different from how the last delivery left it.
        installed: What is on disk of the installation.
    """

    drifted: bool
    installed: OnDisk


class FileWatch:
    """Looks when it is asked to.

    Args:
        drifted: Returns whether one of these sinks seems to have drifted; called in the thread.
        installed: Returns what is on disk of the installation; called in the thread.
        told: Called in the loop if a sink seems to have drifted, and if the installation is incomplete or not as the
            last look found it.
    """

    def __init__(
        self,
        drifted: Callable[[Sequence[Sink]], bool],
        installed: Callable[[], OnDisk],
        told: Callable[[FilesSeen], None],
    ) -> None:
        self._drifted = drifted
        self._installed = installed
        self._told = told
        self._loop = asyncio.get_running_loop()
        self._asked: SimpleQueue[Sequence[Sink] | None] = SimpleQueue()
        self._before: OnDisk | None = None
        #: How far the look under way has come: the loop clears them before it asks, the thread sets them.
        self._sinks_done = self._done = True
        threading.Thread(target=self._work, name="file watch", daemon=True).start()

    @property
    def busy(self) -> bool:
        """Whether the last look has not ended."""
        return not self._done

    @property
    def sinks_hang(self) -> bool:
        """Whether the last look has not even seen the sinks."""
        return not self._sinks_done

    def look(self, sinks: Sequence[Sink]) -> None:
        """Look at the installation and at these sinks. The last look has ended."""
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
            self._done = True
            if drifted or installed.missing is not None or installed != self._before:
                self._before = installed
                with contextlib.suppress(RuntimeError):  # the loop has ended
                    self._loop.call_soon_threadsafe(self._told, FilesSeen(drifted, installed))

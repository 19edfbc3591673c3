"""Check the sinks, the installation and the configuration at each guard tick, in one thread that always exists.

At rest a tick costs one wake-up of this thread and one stat call per file, and the loop is called only after a change.
A file system that does not answer blocks this thread, but neither the loop nor a delivery. The sinks are checked first,
so the loop can tell whether they cause a hang. The files of a sign-in are looked at in the same thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
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
        self._tasks: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._before: OnDisk | None = None
        #: How many tasks there were and how many have ended: only the loop counts the first, only the thread the other.
        self._given = self._ended = 0
        #: Whether the last check has finished the sinks: the loop clears it before it asks, the thread sets it.
        self._sinks_done = True
        threading.Thread(target=self._work, name="file watch", daemon=True).start()

    @property
    def busy(self) -> bool:
        """Whether a task is under way."""
        return self._given != self._ended

    @property
    def sinks_hang(self) -> bool:
        """Whether the check under way has not yet finished the sinks."""
        return not self._sinks_done

    def look(self, sinks: Sequence[Sink]) -> None:
        """Check the installation, the configuration and these sinks. No task may be under way."""
        self._sinks_done = False
        self.run(partial(self._check, sinks))

    def run(self, task: Callable[[], None]) -> None:
        """Run a task in the thread, after those before it.

        Args:
            task: The task, which raises nothing.
        """
        self._given += 1
        self._tasks.put(task)

    def close(self) -> None:
        """End the thread, unless it hangs."""
        self._tasks.put(None)

    def _work(self) -> None:
        while (task := self._tasks.get()) is not None:
            task()
            self._ended += 1

    def _check(self, sinks: Sequence[Sink]) -> None:
        drifted = self._drifted(sinks)
        self._sinks_done = True
        installed = self._installed()
        self._config()
        if drifted or installed.missing is not None or installed != self._before:
            self._before = installed
            with contextlib.suppress(RuntimeError):  # the loop has ended
                self._loop.call_soon_threadsafe(self._told, FilesSeen(drifted, installed))

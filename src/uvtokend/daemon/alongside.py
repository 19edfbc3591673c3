"""Call two functions at the same time: what else must be on disk is written while the disk writes the netrc."""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import SimpleQueue


class Alongside:
    """A thread that helps another one. It waits for its work, because starting a thread takes longer than the work."""

    def __init__(self) -> None:
        self._tasks: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._errors: SimpleQueue[BaseException | None] = SimpleQueue()
        threading.Thread(target=self._work, name="alongside", daemon=True).start()

    def __call__(self, one: Callable[[], None], other: Callable[[], None]) -> None:
        """Call both functions, and return when both have ended.

        Args:
            one: Called in this thread.
            other: Called in the other thread.

        Raises:
            BaseException: What one of them has raised, the first one first.
        """
        self._tasks.put(other)
        try:
            one()
        finally:
            error = self._errors.get()
        if error is not None:
            raise error

    def close(self) -> None:
        """End the thread."""
        self._tasks.put(None)

    def _work(self) -> None:
        while self._ran():
            pass

    def _ran(self) -> bool:
        """Call the next function, or return False. Nothing of it is kept afterwards: it may hold the whole netrc."""
        task = self._tasks.get()
        if task is None:
            return False
        failure = None
        try:
            task()
        except BaseException as error:  # noqa: BLE001 - it is raised in the thread that waits
            failure = error
        del task
        self._errors.put(failure)
        return True

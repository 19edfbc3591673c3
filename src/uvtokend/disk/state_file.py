"""The state file on disk: read once at the start, replaced as a whole, 0600."""

from __future__ import annotations

import os

from uvtokend import clock
from uvtokend.core import state
from uvtokend.core.state import State
from uvtokend.disk import files

#: The longest state file, in bytes: this much, and more for each configured index.
_LIMIT = files.LIMIT
_LIMIT_PER_INDEX = 16 * 1024


class Store:
    """Reads and writes ``state.json``.

    Args:
        directory: The state directory.
        indexes: How many indexes are configured: the file grows with them, and so does its limit.
    """

    def __init__(self, directory: str, indexes: int = 0) -> None:
        self._path = os.path.join(directory, "state.json")
        self._limit = _LIMIT + indexes * _LIMIT_PER_INDEX

    def load(self) -> State:
        """Return what is known, on the wall clock as it is now; a missing or damaged file knows nothing."""
        try:
            return state.on_clock(state.decode(files.read(self._path, self._limit)), clock.boot())
        except OSError:
            return State()

    def save(self, new: State, durable: bool = True) -> None:
        """Replace the file.

        Args:
            new: Its content.
            durable: It must outlast a power cut.

        Raises:
            OSError: It could not be written; the old one is still there.
        """
        files.replace(self._path, state.encode(new), durable)

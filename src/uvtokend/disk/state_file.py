"""Read and write the state file: read once at the start, replaced as a whole, mode 0600."""

from __future__ import annotations

import os

from uvtokend import clock
from uvtokend.core import state
from uvtokend.core.state import State
from uvtokend.disk import files

#: The longest state file, in bytes: a fixed part, and a part for each configured index.
_LIMIT = files.LIMIT
_LIMIT_PER_INDEX = 16 * 1024


class Store:
    """Reads and writes ``state.json``.

    Args:
        directory: The state directory.
        indexes: The number of configured indexes. The limit of the file grows with it.
    """

    def __init__(self, directory: str, indexes: int = 0) -> None:
        self._path = os.path.join(directory, "state.json")
        self._limit = _LIMIT + indexes * _LIMIT_PER_INDEX

    def load(self) -> State:
        """Return the state, with times on the current wall clock. It is empty if the file is missing or damaged."""
        try:
            return state.on_clock(state.decode(files.read(self._path, self._limit)), clock.boot())
        except OSError:
            return State()

    def save(self, new: State, durable: bool = True) -> None:
        """Replace the file.

        Args:
            new: The new content.
            durable: Whether the file must survive a power cut.

        Raises:
            OSError: The file could not be written; the old one is still there.
        """
        files.replace(self._path, state.encode(new), durable)

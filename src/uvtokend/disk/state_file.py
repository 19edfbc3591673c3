"""The state file on disk: read once at the start, replaced as a whole, 0600."""

from __future__ import annotations

import os

from uvtokend import clock
from uvtokend.core import state
from uvtokend.core.state import State


class Store:
    """Reads and writes ``state.json`` in the state folder."""

    def __init__(self, folder: str) -> None:
        self._path = os.path.join(folder, "state.json")

    def load(self) -> State:
        """Return what is known, on the wall clock of now; a file that is missing or broken knows nothing."""
        try:
            with open(self._path, "rb") as file:
                return state.on_clock(state.decode(file.read(1 << 20)), clock.boot())
        except OSError:
            return State()

    def save(self, new: State) -> None:
        """Replace the file.

        Raises:
            OSError: It could not be written; the old one stands.
        """
        temporary = f"{self._path}.new"
        with open(temporary, "wb", opener=_private) as file:
            file.write(state.encode(new))
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, self._path)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)

"""Read and write the state file: read once at the start, replaced as a whole, mode 0600.

Beside it there may be a note with what is new since. It is written before each delivery to a netrc, while a program may
be waiting for its token, so writing it takes no longer for a thousand tokens than for one:

1. A note begins with the digest of the state file that it belongs to, so it counts for no other one.
2. A note that names a netrc or a host that the state file does not name survives a power cut: our entry would be left
   in that netrc if the configuration named the host no longer after the power cut.
3. Any other note survives only the end of the process, and is not waited for. If a power cut takes it, some tokens are
   fetched again: an entry in our block is ours if its host is known, whatever its token.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from dataclasses import replace

from uvtokend import clock
from uvtokend.core import state, state_json
from uvtokend.core.state import State
from uvtokend.disk import files

#: The longest state file, in bytes: a fixed part, and a part for each configured index.
_LIMIT = files.LIMIT
_LIMIT_PER_INDEX = 16 * 1024


class Store:
    """Reads and writes ``state.json`` and its note, ``state.json.began``.

    Args:
        directory: The state directory.
        indexes: The number of configured indexes. The limit of the file grows with it.
    """

    def __init__(self, directory: str, indexes: int = 0) -> None:
        self._path = os.path.join(directory, "state.json")
        self._note = f"{self._path}.began"
        self._digest: bytes | None = None
        self._saved, self._news = State(), State()
        self._fingerprint: files.Fingerprint = ()
        self._limit = _LIMIT + indexes * _LIMIT_PER_INDEX

    def load(self) -> State:
        """Return the state, with times on the current wall clock. It is empty if the file is missing or damaged."""
        self._fingerprint = files.fingerprint(self._path)
        text = self._text(self._path)
        self._digest = hashlib.sha256(text).hexdigest().encode()
        known = self._saved = state.on_clock(state_json.decode(text), clock.boot())
        belongs_to, _, news = self._text(self._note).partition(b"\n")
        self._news = State()
        if belongs_to == self._digest:
            self._news = state.on_clock(state_json.decode(news), clock.boot())
        return state.joined(known, self._news)

    def _text(self, path: str) -> bytes:
        """Return the text of a file; empty if it is missing."""
        try:
            return files.read(path, self._limit)
        except OSError:
            return b""

    def note(self, news: State) -> None:
        """Note what is new since the last `save`, besides what was noted before.

        Args:
            news: What is new; see `uvtokend.core.state.began`.

        Raises:
            OSError: The note could not be written.
        """
        if self._digest is None:
            self._digest = hashlib.sha256(self._text(self._path)).hexdigest().encode()
        before = self._news if news.boot is None else state.on_clock(self._news, news.boot)
        self._news = replace(state.joined(before, news), boot=news.boot)
        text = self._digest + b"\n" + state_json.encode(self._news)
        files.replace(self._note, text, durable=state.names_more(self._saved, self._news))

    def save(self, new: State, durable: bool = True) -> State:
        """Replace the file, delete the note, and return the new content, with the files that other processes wrote.

        Args:
            new: The new content.
            durable: Whether the file must survive a power cut.

        Raises:
            OSError: The file could not be written; the old one is still there.
        """
        if files.fingerprint(self._path) != self._fingerprint:
            others = state.on_clock(state_json.decode(self._text(self._path)), clock.boot())
            new = state.with_others(new, self._saved, others)
        text, self._digest = state_json.encode(new), None
        files.replace(self._path, text, durable)
        self._digest = hashlib.sha256(text).hexdigest().encode()
        self._saved, self._news = new, State()
        self._fingerprint = files.fingerprint(self._path)
        with contextlib.suppress(OSError):  # it counts no longer
            os.unlink(self._note)
        return new

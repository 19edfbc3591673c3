"""Read and write the state file: read once at the start, replaced as a whole, mode 0600.

Beside it there may be a note with what is new since. It is written before each delivery to a netrc, while a program may
be waiting for its token, so writing it takes no longer for a thousand tokens than for one:

1. A note begins with the digest of the state file that it belongs to, so it counts for no other one.
2. A note that names a netrc or a host that the state file does not name survives a power cut: our entry would be left
   in that netrc if the configuration named the host no longer after the power cut.
3. Any other note survives only the end of the process, and is not waited for. If a power cut takes it, some tokens are
   fetched again: an entry in our block is ours if its host is known, whatever its token.

A daemon for another netrc may use the same state directory. So each process changes the two files under a lock, and
keeps what the others have written there since: otherwise a netrc could be forgotten with our entries in it.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from dataclasses import replace

from uvtokend import clock
from uvtokend.core import state, state_json
from uvtokend.core.state import State
from uvtokend.disk import files, locks

#: The longest state file, in bytes: a fixed part, and a part for each configured index.
_LIMIT = files.LIMIT
_LIMIT_PER_INDEX = 16 * 1024
#: Seconds to wait for another process that changes them: for a save, and for a note, which precedes a delivery.
_PATIENCE, _HURRY = 5.0, 0.02


class Store:
    """Reads and writes ``state.json`` and its note, ``state.json.began``.

    Args:
        directory: The state directory.
        indexes: The number of configured indexes. The limit of the file grows with it.
    """

    def __init__(self, directory: str, indexes: int = 0) -> None:
        self._directory = directory
        self._path = os.path.join(directory, "state.json")
        self._note = f"{self._path}.began"
        self._saved, self._news = State(), State()
        #: The fingerprints of the state file and of the note as this process read or wrote them last, and the digest
        #: of that state file.
        self._fingerprint: files.Fingerprint = ()
        self._noted: files.Fingerprint = ()
        self._digest = _digest(b"")
        self._limit = _LIMIT + indexes * _LIMIT_PER_INDEX

    def load(self) -> State:
        """Return the state, with times on the current wall clock. It is empty if the file is missing or damaged."""
        self._fingerprint, self._noted = files.fingerprint(self._path), files.fingerprint(self._note)
        self._saved = self._read()
        self._news = self._read_note()
        return state.joined(self._saved, self._news)

    def _read(self) -> State:
        text = self._text(self._path)
        self._digest = _digest(text)
        return state.on_clock(state_json.decode(text), clock.boot())

    def _read_note(self) -> State:
        """Return what the note adds to the state file that was read last."""
        belongs_to, _, news = self._text(self._note).partition(b"\n")
        return state.on_clock(state_json.decode(news), clock.boot()) if belongs_to == self._digest else State()

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
        with locks.changing_state(self._directory, _HURRY):
            before = self._news if news.boot is None else state.on_clock(self._news, news.boot)
            if files.fingerprint(self._path) != self._fingerprint:  # another process has saved it
                self._digest = _digest(self._text(self._path))
            if files.fingerprint(self._note) != self._noted:
                before = state.joined(before, self._read_note())
            self._news = replace(state.joined(before, news), boot=news.boot)
            text = self._digest + b"\n" + state_json.encode(self._news)
            files.replace(self._note, text, durable=state.names_more(self._saved, self._news))
            self._noted = files.fingerprint(self._note)

    def save(self, new: State, durable: bool = True) -> State:
        """Replace the file, delete the note, and return the new content, with the files that other processes wrote.

        Args:
            new: The new content.
            durable: Whether the file must survive a power cut.

        Raises:
            OSError: The file could not be written; the old one is still there.
        """
        with locks.changing_state(self._directory, _PATIENCE):
            looks = files.fingerprint(self._path), files.fingerprint(self._note)
            if looks != (self._fingerprint, self._noted):
                new = state.with_others(new, self._saved, state.joined(self._read(), self._read_note()))
            text = state_json.encode(new)
            files.replace(self._path, text, durable)
            self._digest, self._fingerprint = _digest(text), files.fingerprint(self._path)
            self._saved, self._news = new, State()
            with contextlib.suppress(OSError):  # it counts no longer
                os.unlink(self._note)
            self._noted = files.fingerprint(self._note)
        return new


def _digest(text: bytes) -> bytes:
    return hashlib.blake2b(text, digest_size=32, usedforsecurity=False).hexdigest().encode()

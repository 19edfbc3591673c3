"""The files beside the netrc while it is written, and after a crash.

Beside ``~/.netrc`` there may be, all with mode 0600:

======================== ============================================================================================
``..netrc.uvtokend.new`` a text that is still being written; useless after a crash
``..netrc.uvtokend``     a complete text: the new one before the exchange, the old one after it
``…uvtokend.base``       the text that the new one was made from, while the two are exchanged
``…uvtokend.old``        the same, while the new text is written over it in place
======================== ============================================================================================

Numbered facts:

1. ``..netrc.uvtokend`` may contain an edit that exists nowhere else: another program's, written just before the
   exchange. So it is never deleted unread. After a crash it is merged into the netrc.
2. Its changes are its differences from the old text beside it. Without that text (a power failure may lose it), every
   line of it counts.
3. A crash in a write in place leaves a mixture of the old and the new text in the netrc. The new text then replaces it.
4. Without ``..netrc.uvtokend``, neither ``base`` nor ``old`` counts. While a crash's ``..netrc.uvtokend`` is still
   there, the ``base`` beside it stays: with another one, lines that exist only in the netrc would seem to be deleted.
5. Another user's file is not merged: that user created it while the directory was open to others.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shlex
from dataclasses import dataclass

from uvtokend.core.netrc.block import join, split
from uvtokend.disk import files
from uvtokend.errors import DeliveryFailed

#: The errors if another program has put something there: not a regular file, or one that is too large for a netrc.
_NOT_OURS = frozenset({errno.EISDIR, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENXIO, errno.ELOOP, errno.EFBIG})


@dataclass(frozen=True, slots=True)
class KeptText:
    """A text whose changes must not be lost, whether they are in the netrc or not.

    Args:
        text: The text.
        base: The text that it was made from; None if it is unknown.
        in_place: Whether it was being written over `base` in place, so that the netrc may contain a mixture.
        newer: Whether it is newer where it differs from the netrc.
        taken_in: A text of the netrc that we wrote with its changes; None if there is none yet.
    """

    text: bytes
    base: bytes | None = None
    in_place: bool = False
    newer: bool = False
    taken_in: bytes | None = None

    def merged(self, text: bytes) -> bytes:
        """Return the text of the netrc with the changes of this one."""
        from uvtokend.core.netrc.merge import made_of, merge, mixture  # noqa: PLC0415 - rarely needed; brings difflib

        if text == self.taken_in:  # a line that both changed would be added again each time
            return text
        base = self.base
        if self.in_place and base is not None and text not in (base, self.text):
            if mixture(text, base, self.text):
                return self.text
            if not made_of(text, base, self.text):  # another program may have edited the mixture since
                base = None
        (block, now), (kept_block, kept) = split(text), split(self.text)
        if now == kept:
            return text
        older, newer = (now, kept) if self.newer else (kept, now)
        entries = {entry.host: entry for entry in [*kept_block, *block]}
        return join([*entries.values()], merge(None if base is None else split(base)[1], older, newer))


class Journal:
    """The files beside one netrc.

    Args:
        path: The netrc, resolved.
    """

    def __init__(self, path: str) -> None:
        directory, name = os.path.split(path)
        self._path = path
        self.text = os.path.join(directory, f".{name}.uvtokend")
        self.draft = f"{self.text}.new"
        self.base = f"{self.text}.base"
        self.old = f"{self.text}.old"

    def leftover(self) -> KeptText | None:
        """Return the text that a crash has left, if it may exist nowhere else.

        Raises:
            DeliveryFailed: A file that is not ours has one of the names.
            OSError: The text cannot be read.
        """
        left = self._read(self.text)
        if left is None or self._is_netrc(left.status):
            return None
        base, old = self._read(self.base), self._read(self.old)
        before = old or base
        return KeptText(left.text, before.text if before else None, in_place=old is not None)

    def refuse_directories(self) -> None:
        """Explain an error: a directory that has one of the names.

        Raises:
            DeliveryFailed: There is one.
        """
        for name in (self.draft, self.base, self.old):
            if os.path.isdir(name) and not os.path.islink(name):
                raise self._taken(name)

    def clear(self) -> None:
        """Delete the files beside the netrc.

        Raises:
            OSError: One of them cannot be deleted.
        """
        for name in (self.draft, self.text, self.base, self.old):
            if os.path.lexists(name):  # in a read-only directory, even the deletion of a missing file fails
                os.unlink(name)

    def tidy(self) -> None:
        """Delete the files that can be deleted; the next delivery tries again."""
        with contextlib.suppress(OSError):
            self.clear()

    def note_base(self, text: bytes) -> None:
        """Write `base` while there is no ``..netrc.uvtokend`` yet: without that file it does not count."""
        for name in (self.base, self.old):  # a crash may have left `old` alone
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name)
        files.create(self.base, text, durable=False)

    def note(self, name: str, text: bytes, *, durable: bool) -> None:
        """Write `base` or `old` in one step, so a crash leaves all of it or nothing."""
        file = os.open(self.draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            files.write_all(file, text)
            if durable:
                files.fsync(file)
        finally:
            os.close(file)
        os.rename(self.draft, name)

    def _is_netrc(self, status: os.stat_result) -> bool:
        """Return whether a file is the netrc itself, because a crash came just after it got that name."""
        with contextlib.suppress(FileNotFoundError):
            return os.path.samestat(status, os.lstat(self._path))
        return False

    def _read(self, name: str) -> files.Content | None:
        try:
            content = files.read_settled(name)
        except OSError as error:
            if error.errno not in _NOT_OURS:
                raise
            raise self._taken(name) from error
        if content is not None and content.status.st_uid not in self._owners():
            raise self._taken(name)
        return content

    def _owners(self) -> set[int]:
        with contextlib.suppress(FileNotFoundError):
            return {os.geteuid(), os.stat(self._path).st_uid}
        return {os.geteuid()}

    def _taken(self, name: str) -> DeliveryFailed:
        message = f"{name} prevents uvtokend from writing {self._path}: it is not a file of uvtokend."
        return DeliveryFailed("temporary-taken", message, f"rm -r {shlex.quote(name)}")

"""One try to replace the text of a netrc: in one step by an exchange, or in place where no exchange works.

The new text is written to a file beside the netrc, and the two are exchanged. The text that comes out of the exchange
is compared with the text that was read. If another program wrote in between, the exchange is undone, and
`OvertakenError` carries that program's text to the next try.

Some files can only be written in place: a single-file mount, a file with several names, a file in a directory that is
read-only. The files beside it then let the next delivery repair what a crash leaves; see `uvtokend.disk.journal`.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeAlias

from uvtokend.disk import exchange, files, netrc_failures
from uvtokend.disk.files import Content, Fingerprint
from uvtokend.disk.journal import Journal, KeptText
from uvtokend.errors import DeliveryFailed

#: How long a program may take from reading the file to writing it, in seconds, after we were in its way.
GRACE = 0.02

#: Calls two functions, at the same time or the second one first, returns when both have ended, and raises what one of
#: them has raised.
Together: TypeAlias = Callable[[Callable[[], None], Callable[[], None]], None]

_ACL = "system.posix_acl_access"


class OvertakenError(Exception):
    """Another program was faster. `kept` has the texts that it wrote or had read."""

    def __init__(self, *kept: KeptText) -> None:
        super().__init__()
        self.kept = kept


def one_by_one(one: Callable[[], None], other: Callable[[], None]) -> None:
    """Call two functions, the second one first: for a command, which nobody waits for; see `Together`."""
    other()
    one()


class NetrcWrite:
    """One try to replace the text of a netrc.

    Args:
        path: The netrc, resolved.
        old: The content that was read; None if the netrc is missing.
        new: The new text.
        journal: The files beside the netrc.
        begin: Called once before a program may read the new text, while the disk writes it. It may raise
            `OvertakenError`: then the new text is dropped.
        visible: Called as soon as a program that opens the netrc reads the new text.
        together: Calls the disk's write of the new text, and what is done meanwhile.

    Attributes:
        fingerprint: The fingerprint of the netrc with the new text; empty until it is written.
    """

    def __init__(
        self,
        path: str,
        old: Content | None,
        new: bytes,
        journal: Journal,
        begin: Callable[[], None],
        visible: Callable[[], None],
        together: Together,
    ) -> None:
        self.fingerprint: Fingerprint = ()
        self._begin = begin
        self._visible = visible
        self._together = together
        self.journal = journal
        self._path = path
        self._old = old
        self._new = new
        #: No crash left a text there, so the text that we write there may be deleted again.
        self._fresh = not os.path.lexists(journal.text)

    # ------------------------------------------------------------------------------------------------- by exchange

    def exchanged(self) -> bool:
        """Replace the netrc by the new text in one step; return False if the netrc is mounted as a single file.

        Raises:
            OvertakenError: Another program was faster; nothing of its text is lost.
        """
        try:
            self._prepare()
            # A file that is open for writing would look like one that another program holds.
            file = os.open(self.journal.text, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except (OSError, DeliveryFailed, OvertakenError):
            self._withdraw()
            raise
        try:
            if not self._put():
                return False
            self._visible()
            self.journal.clear()
            files.sync_directory(os.path.dirname(self._path))
            self.fingerprint = files.fingerprint_of(file, self._new)
        finally:
            os.close(file)
        return True

    def _withdraw(self) -> None:
        """Delete the prepared files, unless the new text replaced a text that a crash had left."""
        if self._fresh:
            self.journal.tidy()
        else:
            with contextlib.suppress(OSError):
                os.unlink(self.journal.draft)

    def _prepare(self) -> None:
        """Write the new text beside the netrc, with the mode, owner and attributes of the netrc.

        While the disk writes it, everything else is done that must be there before a program reads it.
        """
        draft = self.journal.draft
        file = _created(draft)
        try:
            mode = 0o600
            if self._old:
                attributes = _copy_attributes(self._path, file)
                mode = self._old.status.st_mode & (0o670 if _ACL in attributes else 0o600) | stat.S_IRUSR
                _keep_owner(file, self._path, self._old.status)
            os.fchmod(file, mode)
            files.write_all(file, self._new)
            self._together(partial(files.fsync, file), self._note)
        finally:
            os.close(file)
        os.rename(draft, self.journal.text)
        if not self._fresh:
            self.journal.note(self.journal.base, self._base, durable=False)

    def _note(self) -> None:
        """Do what must be done before a program may read the new text."""
        self._begin()
        if self._fresh:
            self.journal.note_base(self._base)

    @property
    def _base(self) -> bytes:
        return self._old.text if self._old else b""

    def _put(self) -> bool:
        try:
            if self._old is None:
                exchange.appear(self.journal.text, self._path)
                return True
            self._check_unchanged(exchanging=True)
            exchange.swap(self.journal.text, self._path)
        except FileExistsError:
            raise self._overtaken() from None
        except OvertakenError:
            self._withdraw()
            raise
        except OSError as error:
            if error.errno in (errno.EBUSY, errno.ENOENT) or error.errno in exchange.UNSUPPORTED:
                return self._without_exchange(error)
            self._withdraw()
            raise
        self._compare()
        return True

    def _without_exchange(self, error: OSError) -> bool:
        """Rename over the file where there is no exchange; return False if the netrc is mounted as a single file."""
        if error.errno == errno.ENOENT:
            raise self._overtaken() from None
        if error.errno != errno.EBUSY:
            try:
                self._check_unchanged(exchanging=False)
                os.replace(self.journal.text, self._path)
            except FileNotFoundError:
                raise self._overtaken() from None
            except OvertakenError:
                self._withdraw()
                raise
            except OSError as refused:
                if refused.errno != errno.EBUSY:
                    self._withdraw()
                    raise
            else:
                return True
        return False

    def _overtaken(self) -> OvertakenError:
        self._withdraw()
        return OvertakenError()

    def _check_unchanged(self, *, exchanging: bool) -> None:
        """Raise `OvertakenError` if the netrc has changed since it was read, before anybody sees an outdated text.

        Args:
            exchanging: Whether the text that comes out will be compared as well (`_compare`). Then a look at the
                file's identity is enough, because it decides nothing. Otherwise the text is read again.
        """
        if exchanging and self._old is not None and files.unchanged(self._path, self._old):
            return
        now = files.read_settled(self._path)
        if now is None or self._old is None or now.text != self._old.text:
            raise OvertakenError

    def _compare(self) -> None:
        """Undo the exchange if the text that came out of it is not the text that was read."""
        assert self._old is not None  # noqa: S101 - for the type checker
        beside = self.journal.text
        try:
            out = self._swapped_out(beside)
        except OSError:  # another program has put something there that is not a file
            exchange.swap(beside, self._path)
            self._withdraw()
            raise
        if out is not None and out.text == self._old.text and not out.held:
            return
        exchange.swap(beside, self._path)
        theirs = [KeptText(out.text, self._old.text)] if out else []
        back = files.read_settled(beside)
        if back and back.text != self._new:  # an edit that another program made to our text
            theirs.append(KeptText(back.text, self._old.text, newer=True))
        else:
            self._withdraw()
        raise OvertakenError(*theirs)

    def _swapped_out(self, beside: str) -> Content | None:
        """Read the file that came out of the exchange.

        The system may hide the programs that hold the file open. Such a program gets `GRACE` seconds to finish writing.
        """
        out = files.read_settled(beside)
        assert self._old is not None  # noqa: S101 - for the type checker
        if out is None or out.held or out.sure or out.text != self._old.text:
            return out
        time.sleep(GRACE)
        return files.read_settled(beside)

    # ---------------------------------------------------------------------------------------------------- in place

    def in_place(self, beside: bool) -> None:
        """Write into the file itself. Both texts are kept beside it meanwhile, so that a crash can be repaired.

        Args:
            beside: Whether a file can be created beside the netrc.

        Raises:
            OvertakenError: The file has changed since it was read.
        """
        assert self._old is not None  # noqa: S101 - for the type checker
        self._begin()
        try:
            if beside:
                self._note_both()
            done = files.overwrite(self._path, self._old.text, self._new)
        except files.TornError:
            raise  # the next delivery repairs the netrc from the files beside it
        except (OSError, DeliveryFailed):
            self._withdraw()
            raise
        if done is None:
            raise self._overtaken()
        self.journal.clear()
        self.fingerprint = done
        tighten(self._path, self._old.status)

    def _note_both(self) -> None:
        assert self._old is not None  # noqa: S101 - for the type checker
        journal = self.journal
        for name in (journal.draft, journal.base):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name)
        notes = [(journal.old, self._old.text), (journal.text, self._new)]  # neither counts without the other
        for name, text in notes if self._fresh else reversed(notes):  # see fact 4 of `journal`
            journal.note(name, text, durable=True)
        files.sync_directory(os.path.dirname(self._path))


def _created(draft: str) -> int:
    """Create a file, instead of one that a crash has left, and open it."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        return os.open(draft, flags, 0o600)
    except FileExistsError:
        os.unlink(draft)
        return os.open(draft, flags, 0o600)


def tighten(path: str, status: os.stat_result) -> None:
    """Remove the permissions of other users from a file with tokens, if this user owns the file."""
    mode = stat.S_IMODE(status.st_mode)
    if mode & ~0o600 and status.st_uid == os.geteuid() and _ACL not in _attributes(path):
        os.chmod(path, mode & 0o600)


def _attributes(path: str) -> Sequence[str]:
    """Return the names of the extended attributes, which Python can only read on Linux."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            return os.listxattr(path)
    return ()


def _copy_attributes(path: str, file: int) -> Sequence[str]:
    """Copy the extended attributes that can be copied, including access lists, and return the names of all."""
    names = _attributes(path)
    if sys.platform == "linux":
        for name in names:
            with contextlib.suppress(OSError):
                os.setxattr(file, name, os.getxattr(path, name))
    elif sys.platform == "darwin":
        _copy_on_macos(path, file)
    return names


def _copy_on_macos(path: str, file: int) -> None:
    from uvtokend import darwin  # noqa: PLC0415 - macOS only

    source = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        darwin.copy_attributes(source, file)
    finally:
        os.close(source)


def _keep_owner(file: int, path: str, status: os.stat_result) -> None:
    now = os.fstat(file)
    if (now.st_uid, now.st_gid) == (status.st_uid, status.st_gid):
        return
    try:
        os.fchown(file, status.st_uid, status.st_gid)
    except PermissionError:
        # Another group does no harm, since it gets no permissions.
        if now.st_uid != status.st_uid:
            raise netrc_failures.not_ours(path, now.st_uid) from None

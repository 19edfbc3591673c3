"""Deliver to a netrc: completely or not at all, and without losing what other programs write at the same time.

Each try replaces the text as a whole (`uvtokend.disk.netrc_write`). If another program wrote in between, everything
begins again with its text. A third program may have read our text before the exchange was undone. If it writes that
text with an edit of its own, the first program's edit is lost. So that edit is remembered, and the file is checked once
more after `GRACE` seconds.

Paths are handled with os.path, because pathlib would cost the daemon memory.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace

from uvtokend import paths
from uvtokend.core import fixes
from uvtokend.core.model import Entry, Problem
from uvtokend.core.netrc import block
from uvtokend.disk import exchange, files, locks, netrc_failures, netrc_write
from uvtokend.disk.files import Content, Fingerprint
from uvtokend.disk.holders import holders
from uvtokend.disk.journal import Journal, KeptText
from uvtokend.disk.locks import Lock
from uvtokend.disk.netrc_write import NetrcWrite, OvertakenError, Together, one_by_one, tighten
from uvtokend.errors import DeliveryFailed, UvtokendError

#: How often a delivery starts over because another program was faster.
TRIES = 200

#: The notes in `status` if a reader may see half of the file, and why.
IN_PLACE = "The netrc is a single-file mount, so it is written in place."
LINKED = "The netrc has several names (hard links), so it is written in place to keep them."
READ_ONLY = "The directory of the netrc is read-only, so the netrc is written in place."


@dataclass(frozen=True, slots=True)
class DeliveryResult:
    """The result of a delivery.

    Args:
        foreign: The wanted hosts that were not written, because they have a foreign entry.
        problems: The places in the file that uv cannot read.
        note: A sentence about the file for the status, or None.
        changed: Whether the file was written.
        rival: Whether another program changed the entries that we wrote.
        overtaken: Another program changed the file between the first time it was read and the time it was written.
        fingerprint: The fingerprint of the file with exactly the delivered text; empty if another program has already
            changed it again, so that it must be checked again.
    """

    foreign: frozenset[str]
    problems: tuple[Problem, ...]
    note: str | None
    changed: bool
    rival: bool = False
    overtaken: bool = False
    fingerprint: Fingerprint = field(default=(), compare=False)


@dataclass(frozen=True, slots=True)
class NetrcChange:
    """The result of `NetrcSink.change`, with the text of the netrc; see `DeliveryResult`."""

    note: str | None
    changed: bool
    fingerprint: Fingerprint
    text: bytes


class NetrcSink:
    """Delivers into one netrc.

    Args:
        path: The netrc, absolute; symbolic links are resolved again at each delivery.

    Attributes:
        visible: Called as soon as a program that opens the netrc reads a new text.
        together: Calls two functions, if possible at the same time; see `uvtokend.disk.netrc_write.Together`.
        last_path: `path` as it was resolved last, for those who cannot wait for a file system.
    """

    def __init__(self, path: str) -> None:
        self._path = self.last_path = path
        self._resolved = False
        self._owner: Lock | None = None
        self._owned = False
        self._seen: tuple[str, int] | None = None
        self._layout: block.Layout | None = None
        self.visible: Callable[[], None] = _nothing
        self.together: Together = one_by_one

    @property
    def path(self) -> str:
        """The file that is written, with symbolic links resolved."""
        if not (self._resolved and files.leads_to(self._path, self.last_path)):
            self.last_path = files.real_path(self._path)
            self._resolved = True
        return self.last_path

    # ------------------------------------------------------------------------------------------------------ owning

    def take_ownership(self) -> None:
        """Become the only daemon that writes this netrc, until `release`.

        A missing directory is created. If no lock can be taken, because nothing can be written there, each delivery
        tries again. A lock that another program deleted is taken again; so is one of another file, because the netrc
        is a symbolic link that leads elsewhere now.

        Raises:
            UvtokendError: Another process owns the netrc.
        """
        self._take(self.path)

    def _take(self, path: str) -> None:
        self._owned = True
        if self._owner is not None and not self._owner.guards(path):
            owner, self._owner = self._owner, None
            owner.remove()
        if self._owner is None:
            with contextlib.suppress(OSError):
                paths.make_directory(os.path.dirname(path))
                self._owner = locks.netrc_lock(path)

    def release(self, remove: bool = False) -> None:
        """Give up the ownership.

        Args:
            remove: Whether to delete the lock file, too.
        """
        owner, self._owner, self._owned = self._owner, None, False
        if owner is not None:
            (owner.remove if remove else owner.release)()

    def _own(self, path: str) -> None:
        try:
            if self._owned:
                self._take(path)
        except UvtokendError as error:
            raise DeliveryFailed("not-owner", error.message, error.hint) from None

    # ----------------------------------------------------------------------------------------------------- looking

    def read(self) -> bytes:
        """Return the text; empty if the file is missing.

        Raises:
            DeliveryFailed: It exists but cannot be read.
        """
        path = self.path
        with netrc_failures.explained(path):
            content = files.read_settled(path)
        return content.text if content else b""

    def fingerprint(self) -> Fingerprint:
        """Return a cheap fingerprint that changes whenever the file does; empty if the file is missing."""
        return files.fingerprint(self._path)

    def check_writable(self) -> None:
        """Prove that a delivery could be written.

        Raises:
            DeliveryFailed: A delivery could not be written; the error says why.
        """
        path = self.path
        journal = Journal(path)
        with _changing(path):
            journal.refuse_directories()
            old = files.read_settled(path)
            if journal.leftover() is None and (_may_create(path) or self._in_place_because(path, old) is None):
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(journal.draft)
                journal.note(journal.draft, b"", durable=False)
                os.unlink(journal.draft)

    # ---------------------------------------------------------------------------------------------------- changing

    def deliver(
        self,
        wanted: Sequence[Entry],
        ours: block.Ours,
        left: Sequence[Entry] | None = None,
        yielding: bool = False,
        shadowing: Collection[str] = (),
        begin: Callable[[frozenset[str]], block.Ours] | None = None,
        urgent: bool = True,
    ) -> DeliveryResult:
        """Write these entries to the netrc, and remove all other entries of ours.

        Args:
            wanted: The entries that the netrc should contain.
            ours: Our recent deliveries; see `uvtokend.core.netrc.block.edit`.
            left: The entries that we wrote last; None if they are unknown.
            yielding: Write nothing if another program changed those entries.
            shadowing: Hosts whose every entry is reported as foreign, because uv prefers it to its own store.
            begin: Called right before the file is written, with the wanted hosts that have a foreign entry in the text
                that was read. It returns our deliveries from now on, including the other wanted entries.
            urgent: Whether the present entries must be replaced; see `change`.

        Raises:
            DeliveryFailed: The netrc could not be written; it is unchanged.
        """
        edits: list[block.Edit] = []
        first: bytes | None = None
        rival = overtaken = False
        read = b""

        def before_write() -> None:
            nonlocal ours
            if not self._knows_layout(read):
                raise OvertakenError
            if begin is not None:
                ours = begin(edits[0].foreign)

        def edit(text: bytes) -> bytes:
            nonlocal first, read, rival, overtaken
            read = text
            first = text if first is None else first
            overtaken = overtaken or text != first
            edited = block.edit(text, wanted, ours, self._path, shadowing, left or (), self._layout)
            if edited.text == text and not self._knows_layout(text):
                return edit(text)
            if left is not None:
                before = block.block_entries(text, ours) if edited.before is None else edited.before
                rival = before != {entry.host: entry for entry in left}
            if rival and yielding:
                raise self._contested()
            edits[:] = [edited]
            return edited.text

        change = self.change(edit, urgent, before_write)
        problems = edits[0].problems
        self._layout = edits[0].laid_out(problems)
        done = DeliveryResult(edits[0].foreign, problems, change.note, change.changed, rival, overtaken)
        return replace(done, fingerprint=change.fingerprint)

    def _knows_layout(self, text: bytes) -> bool:
        """Return whether an edit of a text was right about its layout. If not, forget the layout."""
        if self._layout is None or self._layout.size != len(text) or self._layout.is_of(text):
            return True
        self._layout = None
        return False

    def _contested(self) -> DeliveryFailed:
        message = f"Another program changes our block in {self._path} again and again, so it is left alone."
        return DeliveryFailed("contested", message, "end that program (another uvtokend?), then: uvtokend refresh")

    def change(
        self, edit: Callable[[bytes], bytes], urgent: bool = True, before_write: Callable[[], None] = lambda: None
    ) -> NetrcChange:
        """Replace the text by a function of it. The function is called again if another program is faster.

        A missing file counts as an empty one, and is not created to stay empty.

        Args:
            edit: The function. The text of its last call is written.
            urgent: Whether to write a file even if another program has it open for writing. A file that is empty or
                shorter than before is never written, because that program's text is still to come.
            before_write: Called before a program may read the result of the last `edit`, while the disk writes it. If
                it raises `OvertakenError`, `edit` is called again.

        Raises:
            DeliveryFailed: The netrc could not be written. With the reason ``held``, another program has it open for
                writing. With any reason, `edit` may have been called, and its last text may be in the file if the disk
                failed late.
        """
        path = self.path
        self._own(path)
        if not os.path.lexists(os.path.dirname(path)):
            if not edit(b""):
                return NetrcChange(None, changed=False, fingerprint=(), text=b"")
            with netrc_failures.explained(path):
                paths.make_directory(os.path.dirname(path))
        with _changing(path):
            kept = Journal(path).leftover()
            changed = overtaken = False
            for _ in range(TRIES):
                try:
                    change = self._change(path, edit, kept, urgent, before_write)
                except OvertakenError as error:
                    for each in error.kept:
                        kept = each if kept is None else replace(each, text=kept.merged(each.text))
                        overtaken = True
                    continue
                changed = changed or change.changed
                if not (overtaken and change.changed):
                    return replace(change, changed=changed)
                kept = kept and replace(kept, taken_in=change.text)
                time.sleep(netrc_write.GRACE)
        message = f"Another program changes {path} all the time, so it cannot be written safely."
        raise DeliveryFailed("busy", message, fixes.users_of(path))

    def delete_empty(self) -> None:
        """Delete the netrc, unless it is not empty, or another program is writing it.

        It gets another name first, so that no program begins to write it between the look and the deletion.

        Raises:
            DeliveryFailed: It could not be deleted.
            FileNotFoundError: It is missing.
        """
        path = self.path
        aside = Journal(path).text
        with _changing(path):
            os.rename(path, aside)
            content = files.read_settled(aside)
            if content is not None and not content.text and not content.held:
                os.unlink(aside)
                return
            with contextlib.suppress(FileExistsError):
                exchange.appear(aside, path)
                return
        self.change(lambda text: text)  # another program has made a new file, which takes the text in

    def _change(
        self,
        path: str,
        edit: Callable[[bytes], bytes],
        kept: KeptText | None,
        urgent: bool,
        before_write: Callable[[], None],
    ) -> NetrcChange:
        old = files.read_settled(path)
        before = old.text if old else b""
        new = edit(kept.merged(before) if kept else before)
        note = self._in_place_because(path, old, writing=new != before)
        write = NetrcWrite(path, old, new, Journal(path), before_write, self.visible, self.together)
        if old is not None and old.held and new != before:
            self._wait_for(path, old, urgent)
        if new == before:
            write.journal.clear()
            if old and block.BEGIN in new:
                tighten(path, old.status)
        elif old is not None and (old.held or note is not None):
            write.in_place(beside=_may_create(path))
        elif not write.exchanged():
            note = IN_PLACE
            write.in_place(beside=True)
        if old is None or not old.held or new != before:
            self._seen = path, len(new)
        fingerprint = write.fingerprint if new != before else files.fingerprint_with(path, new)
        return NetrcChange(note if old else None, new != before, fingerprint, new)

    def _wait_for(self, path: str, old: Content, urgent: bool) -> None:
        """Refuse to write a file while the program that holds it has not written its own text.

        Raises:
            DeliveryFailed: With the reason ``held``.
        """
        others = holders(path)
        seen = self._seen[1] if self._seen is not None and self._seen[0] == path else None
        if seen is None:  # whether the file was shortened is unknown; a program at its end is still writing it
            emptied = any(not holder.appends and holder.position == len(old.text) for holder in others)
        else:
            emptied = len(old.text) < seen
        emptied = emptied or not old.text
        if emptied or not urgent:
            raise netrc_failures.held(path, others, emptied=emptied)

    def _in_place_because(self, path: str, old: Content | None, *, writing: bool = False) -> str | None:
        """Return why an existing file can only be written in place, as a sentence for `status`; else None.

        Args:
            path: The netrc.
            old: Its content; None if it is missing.
            writing: Whether it is about to be exchanged. If it is a single-file mount that nothing else shows, the
                kernel refuses the exchange, so the list of all mounts, which can be long, is not read.
        """
        if old is None:
            return None
        kept_inode = self._owner is not None and self._owner.in_place
        if not (writing and self._owner is not None and not kept_inode) and files.is_mounted(path):
            return IN_PLACE
        if old.status.st_nlink > 1:
            return LINKED
        if kept_inode or not _may_create(path):
            return READ_ONLY if os.access(path, os.W_OK) else None
        return None


def _nothing() -> None:
    """Do nothing."""


def _may_create(path: str) -> bool:
    """Return whether a file can be created beside the netrc."""
    return os.access(os.path.dirname(path), os.W_OK | os.X_OK)


@contextlib.contextmanager
def _changing(path: str) -> Iterator[None]:
    """Hold the lock for changes of a netrc, in a directory that is safe."""
    try:
        netrc_failures.check_directory(os.path.dirname(path))
        with locks.changing(path):
            yield
    except OSError as error:
        Journal(path).refuse_directories()
        raise netrc_failures.of(error, path) from error

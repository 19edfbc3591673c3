"""Delivery into a netrc: whole, or not at all, and without losing what others write into it at the same time.

The new text is written beside the file under a fixed name and changes places with it in one step; what comes out is
compared with what was read. If somebody wrote in between, the two change back and all begins anew. Who has read our
text before it was taken back, and writes it with an edit of his own later, would undo the edit that we gave way to: so
that text is remembered, and looked for once more after `GRACE`.

The name beside the file, ``.<name>.uvtokend``, may be left by a crash. Its owner's execute bit tells what it is: our
own text is marked so until it is in its place, and can go; a text without the mark came out of the exchange, and may
hold an edit that stands nowhere else.

Paths are handled with os.path: pathlib would cost the daemon memory for nothing.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shlex
import stat
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass

from uvtokend.core.model import Entry, Problem
from uvtokend.core.netrc import block
from uvtokend.disk import exchange, files
from uvtokend.disk.files import Content
from uvtokend.errors import DeliveryFailed

#: How often a delivery begins anew because somebody else was quicker.
TRIES = 200
#: How long a program may take from reading the file to writing it, in seconds, after we were in its way.
GRACE = 0.02

#: Said where a reader may see half of the file.
IN_PLACE = "The netrc is a single-file mount, so it is written in place."

_MARK = stat.S_IXUSR
_ACL = "system.posix_acl_access"
#: The owner that root has in a user namespace such as systemd's PrivateUsers (kernel.overflowuid).
_NOBODY = 65534


@dataclass(frozen=True, slots=True)
class DeliveryResult:
    """What a delivery did.

    Args:
        foreign: Wanted hosts that were not written, because a foreign entry stands there.
        problems: What uv could not read in the file as it is now.
        note: What else a person should know of the file.
        changed: The file was written.
        rival: What we had left there was changed by somebody else.
    """

    foreign: frozenset[str]
    problems: tuple[Problem, ...]
    note: str | None
    changed: bool
    rival: bool = False


@dataclass(frozen=True, slots=True)
class Change:
    """What `NetrcSink.change` did; see `DeliveryResult`."""

    in_place: bool
    changed: bool


@dataclass(frozen=True, slots=True)
class _Kept:
    """A text of which no line may be lost, whether it still stands in the netrc or not.

    Args:
        newer: Where the two differ, it is newer than what stands in the netrc.
        over: What it was being written over in place; None where it was not.
    """

    text: bytes
    newer: bool
    over: bytes | None = None


class _OvertakenError(Exception):
    """Somebody else was quicker. What he wrote, or had read, is in `kept`."""

    def __init__(self, *kept: _Kept) -> None:
        super().__init__()
        self.kept = kept


class NetrcSink:
    """Delivers into one netrc.

    Args:
        path: The netrc, absolute; symlinks are followed anew at each delivery.
    """

    def __init__(self, path: str) -> None:
        self._path = path

    @property
    def path(self) -> str:
        """The file that is really written."""
        return os.path.realpath(self._path)

    def read(self) -> bytes:
        """Return the text; empty if the file is missing.

        Raises:
            DeliveryFailed: It is there, but cannot be read.
        """
        path = self.path
        with _explained(path):
            content = files.read_settled(path)
        return content.text if content else b""

    def fingerprint(self) -> tuple[int, ...]:
        """Return something cheap that changes whenever the file does; empty if it is missing."""
        return files.fingerprint(self._path)

    def check_writable(self) -> None:
        """Prove that a delivery could write where it will write.

        Raises:
            DeliveryFailed: It could not, and why.
        """
        path = self.path
        temporary = _temporary(path)
        with _explained(path):
            _check_folder(os.path.dirname(path))
            files.read_settled(path)
            if os.path.lexists(temporary):
                _leftover(temporary, path)
                return
            try:
                os.close(_create(temporary))
            except OSError as error:
                if not _only_in_place(error, path):
                    raise
            else:
                os.unlink(temporary)

    def deliver(
        self,
        wanted: Sequence[Entry],
        ours: block.Ours,
        left: Sequence[Entry] | None = None,
        yielding: bool = False,
        shadowing: Collection[str] = (),
        begin: Callable[[frozenset[str]], block.Ours] | None = None,
    ) -> DeliveryResult:
        """Let the netrc hold these entries and no other of ours.

        Args:
            wanted: What it shall hold.
            ours: What we delivered lately; see `uvtokend.core.netrc.block.edit`.
            left: What we left there; None where it is not known.
            yielding: Write nothing if what we left was changed.
            shadowing: Hosts of which any entry is told as foreign: uv takes it before its own store.
            begin: Called right before the file is written, with the wanted hosts that have a foreign entry in the text
                that was read. It returns what is ours from now on: the other wanted entries are, too.

        Raises:
            DeliveryFailed: It could not be written; it is as it was.
        """
        edits: list[block.Edit] = []
        rival = False

        def before_write() -> None:
            nonlocal ours
            if begin is not None:
                ours = begin(edits[0].foreign)

        def edit(text: bytes) -> bytes:
            nonlocal rival
            rival = left is not None and block.block_entries(text, ours) != {entry.host: entry for entry in left}
            if rival and yielding:
                raise self._contested()
            edits[:] = [block.edit(text, wanted, ours, self._path, shadowing)]
            return edits[0].text

        change = self.change(edit, before_write)
        return DeliveryResult(
            edits[0].foreign, edits[0].problems, IN_PLACE if change.in_place else None, change.changed, rival
        )

    def _contested(self) -> DeliveryFailed:
        message = f"Another program changes our block in {self._path} again and again, so it is left alone."
        return DeliveryFailed("contested", message, "end that program (another uvtokend?), then: uvtokend refresh")

    def change(self, edit: Callable[[bytes], bytes], before_write: Callable[[], None] = lambda: None) -> Change:
        """Replace the text by a function of it. The function is called again when another program is quicker.

        A missing file counts as an empty one, and is not created only to be empty.

        Args:
            edit: Returns the new text for the text that was read.
            before_write: Called when the result of the last `edit` is about to be written.

        Raises:
            DeliveryFailed: It could not be written; it is as it was.
        """
        path = self.path
        with _explained(path):
            _check_folder(os.path.dirname(path))
            kept = _leftover(_temporary(path), path)
            in_place = changed = overtaken = False
            for _ in range(TRIES):
                try:
                    change = _change(path, edit, kept, before_write)
                except _OvertakenError as error:
                    for each in error.kept:
                        kept, overtaken = _both(kept, each, edit), True
                    continue
                in_place, changed = in_place or change.in_place, changed or change.changed
                if not (overtaken and change.changed):
                    return Change(in_place, changed)
                time.sleep(GRACE)
        message = f"Another program changes {path} all the time, so that it cannot be written safely."
        raise DeliveryFailed("busy", message, f"fuser -v {shlex.quote(path)}")


def _change(path: str, edit: Callable[[bytes], bytes], kept: _Kept | None, before_write: Callable[[], None]) -> Change:
    temporary = _temporary(path)
    old = files.read_settled(path)
    before = old.text if old else b""
    new = edit(_merged(before, kept, edit) if kept else before)
    for name in (temporary, _journal(temporary)):
        if os.path.lexists(name):  # a read-only folder refuses to delete even what is not there
            os.unlink(name)
    if new == before:
        if old and block.BEGIN in new:
            _tighten(path, old.status)
        return Change(in_place=False, changed=False)
    before_write()
    try:
        mode = _prepare(temporary, path, old, new)
        in_place = _put(temporary, path, old, new, mode)
    except OSError as error:
        _discard(temporary)
        if old is None or not _only_in_place(error, path):
            raise
        _in_place(path, old, new)
        in_place = True
    except (DeliveryFailed, _OvertakenError):
        _discard(temporary)
        raise
    files.sync_folder(os.path.dirname(path))
    return Change(in_place=in_place and not (old and old.held), changed=True)


def _discard(temporary: str) -> None:
    """Delete the file beside the netrc if it is ours alone."""
    with contextlib.suppress(FileNotFoundError):
        if os.lstat(temporary).st_mode & _MARK:
            os.unlink(temporary)


def _merged(text: bytes, kept: _Kept, edit: Callable[[bytes], bytes]) -> bytes:
    from uvtokend.core.netrc.merge import lacks, mixture, union  # noqa: PLC0415 - hardly ever needed, and it brings difflib

    if kept.over is not None and mixture(text, kept.over, kept.text):
        return kept.text
    text, other = edit(text), edit(kept.text)
    if not lacks(text, other):
        return text
    return union(text, other) if kept.newer else union(other, text)


def _both(kept: _Kept | None, newer: _Kept, edit: Callable[[bytes], bytes]) -> _Kept:
    return newer if kept is None else _Kept(_merged(newer.text, _Kept(kept.text, newer=False), edit), newer.newer)


def _prepare(temporary: str, path: str, old: Content | None, new: bytes) -> int:
    """Write the new text, marked as ours, and return the mode that it shall have once it is in its place."""
    file = _create(temporary)
    try:
        mode = 0o600
        if old:
            attributes = _copy_attributes(path, file)
            mode = old.status.st_mode & (0o670 if _ACL in attributes else 0o600) | stat.S_IRUSR
            _keep_owner(file, path, old.status)
        os.fchmod(file, mode | _MARK)
        files.write_all(file, new)
        os.fsync(file)
    finally:
        os.close(file)
    return mode


def _put(temporary: str, path: str, old: Content | None, new: bytes, mode: int) -> bool:
    """Bring the new text to its place; True if it had to be written in place.

    Raises:
        _OvertakenError: Somebody else was quicker; nothing of theirs is lost.
    """
    if old and old.held:
        _in_place(path, old, new, temporary)
        return True
    # The mode is set on the file itself, whatever it is called by then; it is open for reading only, since one that is
    # open for writing would look like somebody else's.
    file = os.open(temporary, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        if old is None:
            exchange.appear(temporary, path)
        elif not _exchanged(temporary, path, old, new):
            _in_place(path, old, new, temporary)
            return True
        os.fchmod(file, mode)
        return False
    except FileExistsError:
        raise _OvertakenError from None
    finally:
        os.close(file)


def _exchanged(temporary: str, path: str, old: Content, new: bytes) -> bool:
    """Exchange, or rename where that does not exist; False if the file is mounted by itself."""
    try:
        _exchange(temporary, path, old, new)
    except OSError as error:
        if error.errno == errno.ENOENT:
            raise _OvertakenError from None
        if error.errno in exchange.UNSUPPORTED:
            return _replace(temporary, path, old)
        if error.errno != errno.EBUSY:
            raise
        return False
    return True


def _exchange(temporary: str, path: str, old: Content, new: bytes) -> None:
    now = files.read_settled(path)  # nobody need see our text if it is stale already
    if now is None or now.text != old.text:
        raise _OvertakenError
    exchange.swap(temporary, path)
    try:
        out = files.read_settled(temporary)
    except OSError:  # they have put something there that is no file
        exchange.swap(temporary, path)
        raise
    if out is not None and out.text == old.text and not out.held:
        os.unlink(temporary)
        return
    exchange.swap(temporary, path)
    theirs = [_Kept(out.text, newer=False)] if out else []
    back = files.read_settled(temporary)
    if back and back.text != new:
        os.chmod(temporary, 0o600)  # it holds an edit that somebody made to our text: it is no longer ours alone
        theirs.append(_Kept(back.text, newer=True))
    raise _OvertakenError(*theirs)


def _replace(temporary: str, path: str, old: Content) -> bool:
    """Rename over the file, where there is no exchange; False if it is mounted by itself."""
    now = files.read_settled(path)
    if now is None or now.text != old.text:
        raise _OvertakenError
    try:
        os.replace(temporary, path)
    except OSError as error:
        if error.errno != errno.EBUSY:
            raise
        return False
    return True


def _in_place(path: str, old: Content, new: bytes, temporary: str | None = None) -> None:
    """Write into the file itself. A crash leaves a mixture of both texts in it, so both stand beside it till then.

    Args:
        temporary: The file with the new text; None where no file can be made beside it.
    """
    beside = [] if temporary is None else [temporary, _journal(temporary)]
    if beside:
        files.create(beside[1], old.text)
        os.chmod(beside[0], 0o600)  # it is no longer ours alone
    done = files.overwrite(path, old.text, new)
    for name in beside:
        os.unlink(name)
    if not done:
        raise _OvertakenError
    _tighten(path, old.status)


def _journal(temporary: str) -> str:
    """Return where the old text stands while the new one is written over it in place."""
    return f"{temporary}.old"


def _tighten(path: str, status: os.stat_result) -> None:
    """Take a file that holds tokens away from the eyes of others, where it is ours, and the mark from it."""
    mode = stat.S_IMODE(status.st_mode)
    if mode & ~0o600 and status.st_uid == os.geteuid() and _ACL not in _attributes(path):
        os.chmod(path, mode & 0o600)


def _leftover(temporary: str, path: str) -> _Kept | None:
    """Return what a crash has left beside the file and may be nowhere else.

    What somebody else has put there, while the folder was open to him, would be his text in our netrc.
    """
    try:
        content, over = files.read_settled(temporary), files.read_settled(_journal(temporary))
    except OSError as error:
        if error.errno not in (errno.EISDIR, errno.ENOTSUP, errno.ELOOP, errno.EFBIG):
            raise
        raise _taken(temporary, path) from error
    if content is None:
        return None
    try:
        now = os.stat(path)
    except FileNotFoundError:
        now = None
    if content.status.st_uid not in {os.geteuid(), now.st_uid if now else os.geteuid()}:
        raise _taken(temporary, path)
    if content.status.st_mode & _MARK:
        return None
    ours = over is not None and over.status.st_uid == content.status.st_uid
    return _Kept(content.text, now is None or bool(now.st_mode & _MARK), over.text if over and ours else None)


def _taken(temporary: str, path: str) -> DeliveryFailed:
    message = f"{temporary} is in the way of writing {path}: it is no file of uvtokend."
    return DeliveryFailed("temporary-taken", message, f"rm -r {shlex.quote(temporary)}")


def _temporary(path: str) -> str:
    folder, name = os.path.split(path)
    return os.path.join(folder, f".{name}.uvtokend")


def _create(temporary: str) -> int:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    return os.open(temporary, flags, 0o600 | _MARK)


def _only_in_place(error: OSError, path: str) -> bool:
    """Return whether a file in a read-only folder is mounted there by itself, so that it can be written in place."""
    return error.errno == errno.EROFS and os.access(path, os.W_OK)


def _attributes(path: str) -> Sequence[str]:
    if not hasattr(os, "listxattr"):
        return ()
    with contextlib.suppress(OSError):
        return os.listxattr(path)
    return ()


def _copy_attributes(path: str, file: int) -> Sequence[str]:
    """Copy extended attributes, access lists among them; return their names. What may not be copied stays behind."""
    names = _attributes(path)
    for name in names:
        with contextlib.suppress(OSError):
            os.setxattr(file, name, os.getxattr(path, name))
    return names


def _keep_owner(file: int, path: str, status: os.stat_result) -> None:
    now = os.fstat(file)
    if (now.st_uid, now.st_gid) == (status.st_uid, status.st_gid):
        return
    try:
        os.fchown(file, status.st_uid, status.st_gid)
    except PermissionError:
        # Another group does no harm, since it gets no rights.
        if now.st_uid != status.st_uid:
            message = f"{path} belongs to another user."
            raise DeliveryFailed("not-ours", message, f"sudo chown {now.st_uid} {shlex.quote(path)}") from None


def _check_folder(folder: str) -> None:
    """Refuse a folder in which others could put a file of theirs in the place of ours."""
    try:
        status = os.stat(folder)
    except FileNotFoundError:
        message = f"The folder {folder} of the netrc does not exist."
        raise DeliveryFailed("folder-missing", message, f"mkdir -m 700 {shlex.quote(folder)}") from None
    if not stat.S_ISDIR(status.st_mode):
        message = f"The folder {folder} of the netrc is no folder."
        raise DeliveryFailed("folder-missing", message, f"ls -ld {shlex.quote(folder)}")
    user = os.geteuid()
    if user != 0 and status.st_uid not in (user, 0, _NOBODY):
        message = f"The folder {folder} of the netrc belongs to another user, so no token is put there."
        raise DeliveryFailed("open-folder", message, f"sudo chown {user} {shlex.quote(folder)}")
    if status.st_mode & 0o022:
        message = f"Others may write to the folder {folder} of the netrc, so no token is put there."
        raise DeliveryFailed("open-folder", message, f"chmod go-w {shlex.quote(folder)}")


@contextlib.contextmanager
def _explained(path: str) -> Iterator[None]:
    """Say what an error of the system means for the netrc."""
    try:
        yield
    except OSError as error:
        raise _failure(error, path) from error


def _failure(error: OSError, path: str) -> DeliveryFailed:
    folder = os.path.dirname(path)
    file, place = shlex.quote(path), shlex.quote(folder)
    match error.errno:
        case errno.EISDIR:
            return DeliveryFailed("is-a-folder", f"{path} is a folder, not a netrc.", f"mv {file} {file}.old")
        case errno.ENOTSUP:
            message = f"{path} is no regular file; uvtokend writes to no pipe, socket or device."
            return DeliveryFailed("not-a-file", message, f"mv {file} {file}.old")
        case errno.EFBIG:
            message = f"{path} is longer than {files.LIMIT >> 20} MiB, which is no netrc."
            return DeliveryFailed("too-large", message, f"ls -l {file}")
        case errno.ELOOP:
            return DeliveryFailed("symlink-loop", f"{path} is a symbolic link to itself.", f"rm {file}")
        case errno.ENOSPC | errno.EDQUOT:
            message = f"There is no room left to write {path}; it is as it was."
            return DeliveryFailed("disk-full", message, f"df -h {place}")
        case errno.EROFS:
            message = f"{path} is in a read-only file system."
            return DeliveryFailed("read-only", message, f"findmnt -T {place}")
        case errno.EACCES | errno.EPERM if os.access(folder, os.W_OK | os.X_OK):
            return DeliveryFailed("no-permission", f"{path} may not be read.", f"chmod u+rw {file}")
        case errno.EACCES | errno.EPERM:
            message = f"The folder {folder} does not let us write {path}."
            return DeliveryFailed("no-permission", message, f"chmod u+rwx {place}" if _is_ours(folder) else None)
        case _:
            message = f"{path} could not be written: {os.strerror(error.errno or errno.EIO)}."
            return DeliveryFailed("io-error", message)


def _is_ours(path: str) -> bool:
    try:
        return os.stat(path).st_uid == os.geteuid()
    except OSError:
        return False

"""Deliver to uv's own credential store: with uv's own command if that loses nothing, otherwise directly.

``uv auth login`` holds uv's lock while it writes, and reads the secret from its standard input. uvtokend writes the
file itself, and the status says why, where uv's command would break a promise of ours:

* uv before 0.13.8 truncates the file and rewrites it, so a crash leaves half of it (seen with strace: 0.8.24 to 0.13.7
  open it with O_TRUNC; 0.13.8 writes a file beside it and renames);
* uv drops comments and unknown keys, so uvtokend edits a store that contains some, byte for byte;
* uv's command refuses an empty user name, which Artifactory's tokens may have, although uv itself uses such a record;
* uv's command takes the user name as an argument, which every user of the machine can see. That is unsuitable if the
  user name is a secret, or may be one because its index is no longer configured.

uvtokend honors uv's lock (``credentials.toml.lock``, flock) and holds it only to read, edit and rename.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

from uvtokend import paths
from uvtokend.core import fixes, uv_store
from uvtokend.core.model import Entry, Problem
from uvtokend.core.uv_store import Changes, Ledger, StoredRecord
from uvtokend.disk import files
from uvtokend.disk.locks import Lock, store_lock
from uvtokend.disk.netrc_sink import DeliveryResult
from uvtokend.errors import DeliveryFailed, UvtokendError

#: Seconds that uvtokend, and uv on its behalf, wait for another uv to release its lock.
PATIENCE = 2
#: Seconds that one call of uv may take, including that wait.
_LIMIT = 10.0
_LOOK = 0.01
#: The first version of uv that replaces the file atomically.
_ATOMIC = (0, 13, 8)


class UvStoreSink:
    """Delivers into one ``credentials.toml``.

    Args:
        path: The absolute path of the file; symlinks are followed.
        state_directory: The directory of the owner's lock.
    """

    def __init__(self, path: str, state_directory: str) -> None:
        self._path = path
        self._state_directory = state_directory
        self._owner: Lock | None = None
        self._private: Collection[str] = ()

    @property
    def path(self) -> str:
        """The file that is written, with symlinks resolved."""
        return files.real_path(self._path)

    def entries(self) -> dict[str, Entry]:
        """Return our current records in the store, by service.

        Raises:
            DeliveryFailed: The store cannot be read.
        """
        ledger = self._ledger()
        changes = uv_store.changes(self._records(), (), ledger, {}) if ledger else Changes((), (), {})
        mine = {record.key: record for record in self._records()} if changes.drop else {}
        return {key[0]: Entry("", mine[key].username, mine[key].secret, key[0]) for key in changes.drop}

    def deliver(
        self, wanted: Sequence[Entry], urls: Mapping[str, Iterable[str]], private: Collection[str] = ()
    ) -> DeliveryResult:
        """Write these records to the store, and remove all other records of ours.

        Args:
            wanted: The records that the store should have.
            urls: service -> the URLs of its indexes.
            private: The services whose user names are secrets.

        Raises:
            DeliveryFailed: The store could not be written. Foreign records are unchanged.
        """
        self._private = private
        ledger = self._ledger()
        if not wanted and not ledger:
            return DeliveryResult(frozenset(), (), None, changed=False)
        with _explained(self._path):
            self._prepare()
            changes = uv_store.changes(self._records(), wanted, ledger, urls)
            note = None
            if changes.put or changes.drop:
                ledger = uv_store.ledger_of(changes.put, ledger)
                self._write_ledger(ledger)
                note = self._carry_out(changes, wanted, ledger, urls)
            standing = [entry for entry in wanted if entry.service not in changes.rivals]
            self._write_ledger(uv_store.ledger_of(standing))
        problems = tuple(self._rival(service, record) for service, record in changes.rivals.items())
        return DeliveryResult(frozenset(changes.rivals), problems, note, changed=bool(changes.put or changes.drop))

    def close(self) -> None:
        """Give up the ownership of the store."""
        if self._owner is not None:
            self._owner.release()
            self._owner = None

    def _carry_out(
        self, changes: Changes, wanted: Sequence[Entry], ledger: Ledger, urls: Mapping[str, Iterable[str]]
    ) -> str | None:
        """Apply the changes to the store. Return why uv's own command was not used; None if it was."""
        uv, why = _find_uv()
        going, coming = {service for service, _ in changes.drop}, {entry.service for entry in changes.put}
        if uv and why is None and ((going | coming) & {*self._private} or not going <= coming | urls.keys()):
            why = "uv's own command takes the user name, which may be a secret, as an argument"
        text = files.read_settled(self.path)
        if uv and text and not uv_store.kept_by_uv(text.text):
            why = "uv's own command would drop the comments in it"
        if uv and not all([entry.login for entry in changes.put] + [username for _, username in changes.drop]):
            why = "uv's own command takes no empty user name"
        if uv and why is None:
            self._through_uv(uv, changes)
            if not self._missing(wanted, ledger, urls):
                files.sync(self.path)
                return None
            why = "uv's own command did not do it"
        self._directly(wanted, ledger, urls)
        return f"{self.path} was written directly: {why}."

    def _missing(self, wanted: Sequence[Entry], ledger: Ledger, urls: Mapping[str, Iterable[str]]) -> bool:
        changes = uv_store.changes(self._records(), wanted, ledger, urls)
        return bool(changes.put or changes.drop)

    def _through_uv(self, uv: str, changes: Changes) -> None:
        for service, username in changes.drop:
            self._run(uv, "logout", service, username)
        for entry in changes.put:
            self._run(uv, "login", entry.service, entry.login, entry.password.reveal())

    def _run(self, uv: str, verb: str, service: str, username: str, secret: str | None = None) -> None:
        words = [uv, "auth", verb, service, "--username", username]
        if secret is not None:
            words += ["--password", "-"]
        kept = {name: os.environ[name] for name in ("HOME", "PATH", "TMPDIR") if name in os.environ}
        process = subprocess.Popen(  # noqa: S603 - uv, with arguments of ours
            [*words, "--no-config", "--no-cache", "--offline", "--quiet"],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            cwd="/",
            env={**kept, "UV_CREDENTIALS_DIR": os.path.dirname(self._path), "UV_LOCK_TIMEOUT": str(PATIENCE)},
        )
        try:
            process.communicate(f"{secret}\n".encode() if secret is not None else None, _LIMIT)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError, PermissionError):  # EPERM: macOS, if the leader has ended
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate()

    def _directly(self, wanted: Sequence[Entry], ledger: Ledger, urls: Mapping[str, Iterable[str]]) -> None:
        """Edit the file directly, under uv's lock, with new changes for its current content."""
        with self._locked():
            store = files.read_settled(self.path)
            text = store.text if store else b""
            changes = uv_store.changes(self._parsed(text), wanted, ledger, urls)
            try:
                new = uv_store.edited(text, changes.put, changes.drop)
            except ValueError:
                message = f"Our record in {self.path} has been edited by hand, so it cannot be replaced."
                service, username = next(
                    iter([*changes.drop, *((entry.service, entry.login) for entry in changes.put)])
                )
                raise DeliveryFailed("store-edited", message, self._fix(service, username)) from None
            if new != text:
                files.replace(self.path, new)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Hold uv's lock, which uv also takes to read the store."""
        lock = f"{self._path}.lock"
        file = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            deadline = time.monotonic() + PATIENCE
            while not _flocked(file):
                if time.monotonic() > deadline:
                    message = f"Another program holds the lock of uv's credential store, {lock}."
                    raise DeliveryFailed("store-locked", message, fixes.users_of(lock))
                time.sleep(_LOOK)
            yield
        finally:
            os.close(file)

    def _prepare(self) -> None:
        """Take the ownership of the store, and check that no other user can replace it."""
        directory = os.path.dirname(self._path)
        os.makedirs(directory, mode=0o700, exist_ok=True)
        if os.stat(directory).st_mode & 0o022:
            message = (
                f"Others may write to the directory {directory} of uv's credential store, so no token is written there."
            )
            raise DeliveryFailed("open-directory", message, f"chmod go-w {shlex.quote(directory)}")
        if self._owner is None:
            try:
                self._owner = store_lock(self._state_directory, self.path)
            except UvtokendError as error:
                raise DeliveryFailed("not-owner", error.message, error.hint) from None

    def _records(self) -> tuple[StoredRecord, ...]:
        with _explained(self._path):
            store = files.read_settled(self.path)
        return self._parsed(store.text if store else b"")

    def _parsed(self, text: bytes) -> tuple[StoredRecord, ...]:
        try:
            return uv_store.parse(text)
        except ValueError:
            message = f"uv cannot read its credential store {self.path}, and so ignores the whole of it."
            raise DeliveryFailed("store-unreadable", message, "uv auth token https://example.com") from None

    def _rival(self, service: str, record: StoredRecord) -> Problem:
        message = f"uv's credential store already holds a record of {record.service} that is not ours."
        return Problem(self.path, service, message, self._fix(*record.key), fatal=False)

    def _fix(self, service: str, username: str) -> str:
        """Return the fix that removes a record. uv's command cannot remove bearer tokens or empty user names."""
        logout = shlex.join(["uv", "auth", "logout", service, "--username", username])
        return logout if username and service not in self._private else f"take it out of {self.path}"

    # ------------------------------------------------------------------------------------------------- the ledger

    def _ledger(self) -> Ledger:
        try:
            return uv_store.decode_ledger(files.read(paths.uv_ledger_file(self._path)))
        except OSError:
            return {}

    def _write_ledger(self, ledger: Ledger) -> None:
        path = paths.uv_ledger_file(self._path)
        if ledger:
            files.replace(path, uv_store.encode_ledger(ledger))
        else:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)


def _find_uv() -> tuple[str | None, str | None]:
    """Return the path of uv, and why its command cannot be used. A service has a shorter PATH than a shell."""
    home = os.path.expanduser("~")
    beside = os.path.dirname(sys.executable)
    places = [os.environ.get("PATH", os.defpath), f"{home}/.local/bin", f"{home}/.cargo/bin", beside]
    uv = shutil.which("uv", path=os.pathsep.join(places))
    if uv is None:
        return None, "no uv was found on the PATH of uvtokend"
    try:
        run = subprocess.run([uv, "--version"], capture_output=True, timeout=_LIMIT, check=False, cwd="/")  # noqa: S603
    except (OSError, subprocess.TimeoutExpired):
        return None, f"{uv} does not run"
    match = re.match(rb"uv (\d+)\.(\d+)\.(\d+)", run.stdout)
    version = tuple(int(part) for part in match.groups()) if match else ()
    if version < _ATOMIC:
        return uv, f"uv {'.'.join(map(str, version))} does not replace the file in one step; 0.13.8 does"
    return uv, None


def _flocked(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in (errno.EAGAIN, errno.EACCES):
            raise
        return False
    return True


@contextlib.contextmanager
def _explained(path: str) -> Iterator[None]:
    """Turn a system error into a `DeliveryFailed` that says what it means for the store."""
    try:
        yield
    except OSError as error:
        directory = shlex.quote(os.path.dirname(path))
        reason, message, hint = "io-error", f"{path}: {os.strerror(error.errno or errno.EIO)}.", f"ls -la {directory}"
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            reason, hint = "disk-full", f"df -h {directory}"
            message = f"There is no space left to write {path}, so it is unchanged."
        elif error.errno == errno.EROFS:
            reason, hint = "read-only", fixes.file_system(os.path.dirname(path))
            message = f"{path} is in a read-only file system."
        raise DeliveryFailed(reason, message, hint) from error

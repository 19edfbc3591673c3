"""The user's ``config.toml``: read, edited, checked, and put in its place as a whole.

What would not be accepted is never written. Who edits the file at the same time loses nothing. Another uvtokend waits.
What an editor wrote comes out of an exchange and is compared with what was read: if it is another text, the two change
back and all begins anew.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shlex
import stat
import tempfile
from collections.abc import Callable

from uvtokend import paths
from uvtokend.cli import client, console
from uvtokend.core import fixes
from uvtokend.core.config.edit import NotEditableError
from uvtokend.core.model import Settings
from uvtokend.disk import configuration, exchange, files
from uvtokend.disk.locks import config_lock
from uvtokend.errors import NotRunning, UvtokendError

#: With what a new file begins.
HEADER = "# uvtokend: the private indexes whose tokens are kept fresh. Yours to edit.\n"
#: How often an edit begins anew because somebody else was quicker.
TRIES = 20
#: Seconds that another uvtokend gets to end its edit.
PATIENCE = 10.0


class _OvertakenError(Exception):
    """Somebody else has changed the file since it was read."""


def edit(explicit: str | None, change: Callable[[str], str]) -> Settings:
    """Put a function of its text in the place of the user's file, and return what the configuration says then.

    Args:
        explicit: Another configuration file.
        change: May be called anew; a missing file is given to it as `HEADER`.

    Raises:
        ConfigError: The configuration would be wrong; nothing was written.
        UvtokendError: It cannot be edited or written; it is as it was.
    """
    _check_user()
    target = paths.config_file(explicit)
    folder = paths.state_folder()
    paths.private_folder(folder)
    lock = config_lock(folder, os.path.realpath(target), PATIENCE)
    try:
        return _edit(explicit, target, change)
    finally:
        lock.release()


def preview(explicit: str | None, change: Callable[[str], str]) -> Settings:
    """Return what the configuration would say after an edit; nothing is written. See `edit`."""
    target = paths.config_file(explicit)
    return _edited(explicit, target, configuration.read(target), change)[1]


def _edit(explicit: str | None, target: str, change: Callable[[str], str]) -> Settings:
    for _ in range(TRIES):
        before = configuration.read(target)
        text, settings = _edited(explicit, target, before, change)
        try:
            _put(os.path.realpath(target), before, text)
        except (_OvertakenError, FileExistsError):
            continue
        except OSError as error:
            message = f"{target} could not be written: {error.strerror}. It is as it was."
            raise UvtokendError(message, f"ls -ld {shlex.quote(os.path.dirname(target))}") from error
        return settings
    message = f"Another program changes {target} all the time, so that it cannot be edited safely."
    raise UvtokendError(message, fixes.users_of(target))


def tell_daemon(settings: Settings) -> bool:
    """Let the daemon read the configuration, and say whether it did; False if none runs that reads this one."""
    try:
        answer = client.call("reload")
    except NotRunning:
        console.say("No daemon is running. Start it with: uvtokend start")
        return False
    read = str(answer.get("config", settings.file))
    if os.path.realpath(read) != os.path.realpath(settings.file):
        console.say(f"The running daemon does not see it: its configuration is {read}.")
        return False
    console.say("The running daemon has taken it up.")
    return True


def _edited(
    explicit: str | None, target: str, before: bytes | None, change: Callable[[str], str]
) -> tuple[bytes, Settings]:
    try:
        text = change(HEADER if before is None else before.decode()).encode()
    except (NotEditableError, UnicodeDecodeError) as error:
        configuration.load(explicit)  # says what is wrong, if it is wrong
        message = f"{target} cannot be edited by a program. {error}"
        raise UvtokendError(message, f"edit it by hand: ${{EDITOR:-vi}} {shlex.quote(target)}") from error
    return text, configuration.load(explicit, text)


def _check_user() -> None:
    """Refuse to write with sudo into another user's home, who could not read it then."""
    home = os.path.expanduser("~")
    with contextlib.suppress(FileNotFoundError):
        owner = os.stat(home).st_uid
        if owner != os.geteuid():
            message = f"The home folder {home} belongs to uid {owner}, and this process runs as uid {os.geteuid()}."
            raise UvtokendError(message, "run uvtokend as the user whose home it is, without sudo")


def _put(path: str, before: bytes | None, text: bytes) -> None:
    """Put a text in the place of a file, unless that no longer holds what was read."""
    if text == before:
        return
    folder = os.path.dirname(path)
    if before is None:
        paths.make_folder(folder)
    temporary = _written(folder, path, before, text)
    try:
        if before is None:
            exchange.appear(temporary, path)
        else:
            _exchange(temporary, path, before, text)
    finally:
        _discard(temporary, {text, before})
    files.sync_folder(folder)


def _discard(temporary: str, known: set[bytes | None]) -> None:
    """Delete the file beside it, unless it holds what stands nowhere else."""
    with contextlib.suppress(OSError):
        if _text(temporary) in known:
            os.unlink(temporary)


def _written(folder: str, path: str, before: bytes | None, text: bytes) -> str:
    """Return a file beside it with the new text, and with the mode of the old one."""
    file, temporary = tempfile.mkstemp(prefix=f".{os.path.basename(path)}.", dir=folder)
    try:
        if before is not None:
            os.fchmod(file, stat.S_IMODE(os.stat(path).st_mode))
        files.write_all(file, text)
        os.fsync(file)
    except OSError:
        os.unlink(temporary)
        raise
    finally:
        os.close(file)
    return temporary


def _exchange(temporary: str, path: str, before: bytes, text: bytes) -> None:
    if _text(path) != before:
        raise _OvertakenError
    try:
        exchange.swap(temporary, path)
    except OSError as error:
        if error.errno in exchange.UNSUPPORTED:
            os.replace(temporary, path)
        elif error.errno != errno.EBUSY:  # a file that is mounted by itself cannot be replaced
            raise
        elif not files.overwrite(path, before, text):
            raise _OvertakenError from None
        return
    if _text(temporary) != before:
        exchange.swap(temporary, path)
        raise _OvertakenError


def _text(path: str) -> bytes | None:
    found = files.read_settled(path)
    return found.text if found is not None else None

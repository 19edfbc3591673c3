"""Edit the user's ``config.toml``: read it, check the result, and replace the file as a whole.

An invalid configuration is never written. A lock makes another uvtokend wait. Another program that edits the file at
the same time loses nothing: the text that comes out of the exchange is compared with the text that was read, and if
they differ, the exchange is undone and the edit starts over.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shlex
import stat
from collections.abc import Callable

from uvtokend import paths
from uvtokend.core import fixes
from uvtokend.core.config.edit import NotEditableError
from uvtokend.core.model import Settings
from uvtokend.disk import configuration, exchange, files
from uvtokend.disk.locks import config_lock
from uvtokend.errors import UvtokendError

#: The beginning of a new file.
HEADER = "# uvtokend: the private indexes whose tokens it keeps fresh. This file is yours to edit.\n"
#: How often an edit starts over because another program was quicker.
TRIES = 20
#: How long to wait for another uvtokend to finish its edit, in seconds.
PATIENCE = 10.0


class _EditOvertakenError(Exception):
    """Another program has changed the file since it was read."""


def edit(explicit: str | None, change: Callable[[str], str]) -> Settings:
    """Replace the text of the user's file by a function of it, and return the new configuration.

    Args:
        explicit: Another configuration file.
        change: Returns the new text for a text. It may be called more than once; for a missing file it gets `HEADER`.

    Raises:
        ConfigError: The configuration would be invalid; nothing was written.
        UvtokendError: The file cannot be edited or written; it is unchanged.
    """
    target = paths.config_file(explicit)
    directory = paths.state_directory()
    paths.check_home(target, directory)
    paths.private_directory(directory)
    lock = config_lock(directory, files.real_path(target), PATIENCE)
    try:
        return _edit(explicit, target, change)
    finally:
        lock.release()


def preview(explicit: str | None, change: Callable[[str], str]) -> Settings:
    """Return the configuration that an edit would result in, without writing it. See `edit`."""
    target = paths.config_file(explicit)
    return _edited(explicit, target, configuration.read(target), change)[1]


def _edit(explicit: str | None, target: str, change: Callable[[str], str]) -> Settings:
    for _ in range(TRIES):
        before = configuration.read(target)
        text, settings = _edited(explicit, target, before, change)
        try:
            _put(os.path.realpath(target), before, text)
        except (_EditOvertakenError, FileExistsError):
            continue
        except OSError as error:
            show = f"ls -ld {shlex.quote(os.path.dirname(target))}"
            raise paths.unusable(error, target, f"{target} could not be written and is unchanged", show) from error
        return settings
    message = f"Another program keeps changing {target}, so it cannot be edited safely."
    raise UvtokendError(message, fixes.users_of(target))


def _edited(
    explicit: str | None, target: str, before: bytes | None, change: Callable[[str], str]
) -> tuple[bytes, Settings]:
    try:
        text = change(HEADER if before is None else before.decode()).encode()
    except (NotEditableError, UnicodeDecodeError) as error:
        configuration.load(explicit)  # raises if the file itself is invalid
        message = f"uvtokend cannot edit {target}. {error}"
        raise UvtokendError(message, f"edit it by hand: ${{EDITOR:-vi}} {shlex.quote(target)}") from error
    return text, configuration.load(explicit, text)


def _put(path: str, before: bytes | None, text: bytes) -> None:
    """Replace the text of a file, unless the file has changed since it was read."""
    if text == before:
        return
    directory = os.path.dirname(path)
    if before is None:
        paths.make_directory(directory)
    temporary = _written(directory, path, before, text)
    try:
        if before is None:
            exchange.appear(temporary, path)
        else:
            _exchange(temporary, path, before, text)
    finally:
        _discard(temporary, {text, before})
    files.sync_directory(directory)


def _discard(temporary: str, known: set[bytes | None]) -> None:
    """Delete the temporary file beside it, unless only that file has its text."""
    with contextlib.suppress(OSError):
        if _text(temporary) in known:
            os.unlink(temporary)


def _written(directory: str, path: str, before: bytes | None, text: bytes) -> str:
    """Write the new text to a temporary file beside it, with the mode of the old file, and return its path."""
    temporary = os.path.join(directory, f".{os.path.basename(path)}.{os.urandom(4).hex()}")
    try:
        files.create(temporary, text, 0o600 if before is None else stat.S_IMODE(os.stat(path).st_mode))
    except OSError:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise
    return temporary


def _exchange(temporary: str, path: str, before: bytes, text: bytes) -> None:
    if _text(path) != before:
        raise _EditOvertakenError
    try:
        exchange.swap(temporary, path)
    except OSError as error:
        if error.errno in exchange.UNSUPPORTED:
            os.replace(temporary, path)
        elif error.errno != errno.EBUSY:  # a single-file mount cannot be replaced
            raise
        elif not files.overwrite(path, before, text):
            raise _EditOvertakenError from None
        return
    if _text(temporary) != before:
        exchange.swap(temporary, path)
        raise _EditOvertakenError


def _text(path: str) -> bytes | None:
    file = files.read_settled(path)
    return file.text if file is not None else None

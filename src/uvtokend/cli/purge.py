"""``uvtokend purge``: remove everything that uvtokend wrote, from every file that it ever wrote to."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from uvtokend import paths
from uvtokend.cli import console, stop
from uvtokend.core.model import Settings
from uvtokend.core.netrc.adopt import restore
from uvtokend.core.state import State
from uvtokend.disk import backups, cleanup, configuration, files, locks, one_time_secrets, shims
from uvtokend.disk.backups import Backup
from uvtokend.disk.netrc_sink import NetrcSink
from uvtokend.disk.state_file import Store
from uvtokend.errors import FAILED, OK, ConfigError, NotRunning, UvtokendError

EXAMPLES = ("uvtokend purge", "uvtokend purge --yes")
DETAILS = "Stops the daemon first. Afterwards, your netrc is byte for byte the same as without uvtokend."

_STATE_FILES = (
    "state.json",
    "state.json.new",
    "state.json.began",
    "state.json.began.new",
    "events.jsonl",
    "events.jsonl.1",
    "daemon.log",
    "prompt",
    "prompt.new",
    "ca-bundle.pem",
    "reminders.json",
    "reminders.json.new",
)
_QUESTION = "Stop the daemon and remove every entry, record and file that uvtokend wrote? [y/N] "


def arguments(own: argparse.ArgumentParser) -> None:
    """Add the arguments of this verb."""
    own.add_argument("--yes", action="store_true", help="don't ask; without a terminal nothing is asked")


def run(args: argparse.Namespace) -> int:
    """Remove everything that uvtokend wrote, after a question on a terminal; see `purge`."""
    if not args.yes and sys.stdin.isatty() and not _agreed():
        console.say("Nothing was removed.")
        return FAILED
    return purge(args.config)


def _agreed() -> bool:
    sys.stderr.write(_QUESTION)
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() in {"y", "yes"}


def purge(config: str | None) -> int:
    """Stop the daemon, and remove its entries, records and files.

    Args:
        config: Another configuration file, which may be invalid.

    Raises:
        UvtokendError: Something could not be removed. Its records are kept, so that purge can be run again.
    """
    with contextlib.suppress(NotRunning):
        stop.stop(config)
    directory = paths.state_directory()
    paths.private_directory(directory)  # for the locks, even if it was removed
    settings = _settings(config)
    known = Store(directory, len(settings.indexes)).load()
    problems = [*_remove_shims(), *_clean_netrcs(known, settings), *_clean_stores(known, directory)]
    if problems:
        message = "\n".join([*(problem.message for problem in problems), "The rest of what uvtokend wrote is removed."])
        raise UvtokendError(message, problems[0].hint)
    try:
        everything = _remove_one_time_secrets()
        _remove_files(Path(directory), Path(paths.socket_file()))
    except OSError as error:
        message = f"{error.filename} could not be removed: {error.strerror}."
        raise UvtokendError(message, f"rm -r {paths.quoted(str(error.filename))}") from error
    what = "Everything" if everything else "Everything else"
    console.say(f"{what} that uvtokend wrote is removed. Its configuration is yours and stays.")
    return OK


def _remove_one_time_secrets() -> bool:
    """Remove the files of one-time secrets, print which must stay and why, and return whether all were removed."""
    removal = one_time_secrets.remove(Path(paths.chains_directory()))
    if removal.chains:
        console.say("Removed the refresh tokens that replaced your own. Those are used up: create new token pairs.")
    for mark in removal.kept:
        file = mark.file or "its file"
        if mark.is_copy:
            why = f"it has the only copy of the GitLab token that could not be written to {file}."
            console.say(f"Kept {mark.path}: {why}", "uvtokend once && uvtokend purge")
        else:
            why = (
                f"the rotation of the GitLab token in {file} was interrupted, and this file keeps uvtokend from using "
                "the old token again, which would revoke the new one."
            )
            console.say(f"Kept {mark.path}: {why}", f"put a new token into {file}, then: uvtokend purge")
    return not removal.kept


def _settings(config: str | None) -> Settings:
    try:
        return configuration.load(config)
    except ConfigError:
        return configuration.defaults()


def _remove_shims() -> list[UvtokendError]:
    """Remove our keyring commands from PATH, and return the errors."""
    try:
        for path in shims.uninstall():
            console.say(f"Removed {path}.")
    except UvtokendError as error:
        return [error]
    return []


def _clean_netrcs(known: State, settings: Settings) -> list[UvtokendError]:
    """Clean every netrc that we may have written, and return the errors."""
    kept = backups.newest_first()
    named = [settings.netrc, configuration.defaults().netrc]
    netrcs = [*known.netrcs, *(backup.netrc for backup in kept), *(files.real_path(path) for path in named)]
    problems = []
    for path in dict.fromkeys(netrcs):
        try:
            _clean_netrc(path, known, settings, [backup for backup in kept if backup.netrc == path])
        except UvtokendError as error:
            problems.append(error)
    return problems


def _clean_netrc(path: str, known: State, settings: Settings, kept: Sequence[Backup]) -> None:
    """Remove our entries from one netrc, and restore the entries that `adopt` removed."""

    def restored(text: bytes) -> bytes:
        for backup in kept:
            text = _restored(text, backup)
        return text

    used = path in known.netrcs or os.path.lexists(locks.beside(path)) or cleanup.holds(path, known)
    if not (kept or (used and os.path.isdir(os.path.dirname(path)))):
        return
    sink = NetrcSink(path)
    sink.take_ownership()
    try:
        hosts = {index.host for index in settings.indexes}
        if cleanup.clean_netrc(sink, known, hosts, restored):
            console.say(f"Removed our entries from {path}.")
    finally:
        sink.release(remove=True)


def _clean_stores(known: State, directory: str) -> list[UvtokendError]:
    """Clean every credential store of uv's that we may have written, and return the errors."""
    problems = []
    for path in dict.fromkeys([*known.stores, paths.uv_credentials_file()]):
        try:
            if cleanup.clean_store(path, directory):
                console.say(f"Removed our records from {path}.")
        except UvtokendError as error:
            problems.append(error)
    return problems


def _restored(text: bytes, backup: Backup) -> bytes:
    """Return the text of a netrc with the entries of a backup restored."""
    try:
        return restore(text, backup.text)
    except ValueError as error:
        message = f"The backup {backup.file} is damaged, so the entries in it cannot be restored."
        raise UvtokendError(message, backups.set_aside(backup.file)) from error


def _remove_files(directory: Path, socket: Path) -> None:
    """Remove our files, and then the directories if nothing else is in them.

    Raises:
        OSError: A file could not be removed.
    """
    for name in _STATE_FILES:
        (directory / name).unlink(missing_ok=True)
    locks = [file for kind in ("netrc", "store", "config") for file in directory.glob(f"{kind}-*.lock")]
    for file in [*backups.directory().glob("*.json*"), *directory.glob("certificates-*"), *locks]:
        file.unlink(missing_ok=True)
    for file in (socket, Path(f"{socket}.lock")):
        with contextlib.suppress(NotADirectoryError):
            file.unlink(missing_ok=True)
    for place in (backups.directory(), directory, *([socket.parent] if socket.parent.name == paths.APP else [])):
        with contextlib.suppress(OSError):
            place.rmdir()

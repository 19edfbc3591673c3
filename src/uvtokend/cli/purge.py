"""``uvtokend purge``: removes everything that we wrote. The netrc is then, to the byte, what it would be without us."""

from __future__ import annotations

import argparse
import contextlib
import os
from collections.abc import Iterable
from pathlib import Path

from uvtokend import paths
from uvtokend.cli import console, disk, stop
from uvtokend.core.model import Settings
from uvtokend.core.netrc import block
from uvtokend.core.netrc.adopt import restore
from uvtokend.core.state import State
from uvtokend.disk import backups
from uvtokend.disk.backups import Backup
from uvtokend.disk.configuration import load
from uvtokend.disk.locks import netrc_lock
from uvtokend.disk.netrc_sink import NetrcSink
from uvtokend.disk.state_file import Store
from uvtokend.disk.uv_store_sink import UvStoreSink
from uvtokend.errors import OK, ConfigError, NotRunning, UvtokendError

_STATE_FILES = ("state.json", "state.json.new", "events.jsonl", "events.jsonl.1", "daemon.log")


EXAMPLES = ("uvtokend purge",)
DETAILS = "Stops the daemon first. Your netrc is then, to the byte, what it would be without uvtokend."


def arguments(own: argparse.ArgumentParser) -> None:
    """Add the arguments of this verb: none."""


def run(args: argparse.Namespace) -> int:
    """Remove everything that uvtokend wrote; see `purge`."""
    return purge(args.config)


def purge(config: str | None) -> int:
    """Stop the daemon and remove its entries and files.

    Args:
        config: Another configuration file; a broken one is no hindrance.

    Raises:
        UvtokendError: Something could not be removed; what remembers it is kept, so that purge can be run again.
    """
    with contextlib.suppress(NotRunning):
        stop.stop()
    folder = Path(paths.state_folder())
    paths.private_folder(str(folder))  # for the locks, should somebody have taken it away
    known = Store(str(folder)).load()
    kept = backups.newest_first()
    settings = _settings(config)
    for path in _netrcs(known, kept, settings):
        lock = netrc_lock(str(folder), path)
        try:
            _clean_netrc(path, known, settings, [backup for backup in kept if backup.netrc == path])
        finally:
            lock.release()
    if os.path.exists(paths.uv_ledger_file()):
        store = UvStoreSink(paths.uv_credentials_file(), str(folder))
        store.deliver((), {})
        store.close()
    if _remove_chains(Path(paths.chains_folder())):
        console.say("With it go the refresh tokens that came after your own, which are used up: make new token pairs.")
    _remove_files(folder, Path(paths.socket_file()))
    console.say("Everything that uvtokend wrote is removed; its configuration is yours and stays.")
    return OK


def _settings(config: str | None) -> Settings:
    """Return the configuration, or for a broken one what is in force without any."""
    try:
        return load(config)
    except ConfigError:
        return Settings("", netrc=os.path.abspath(os.path.expanduser(os.environ.get("NETRC") or "~/.netrc")))


def _netrcs(known: State, kept: Iterable[Backup], settings: Settings) -> list[str]:
    """Return every netrc that we may have written, resolved."""
    current = NetrcSink(disk.netrc_path(settings)).path
    found = [known.netrc, *(backup.netrc for backup in kept), current]
    return list(dict.fromkeys(path for path in found if path))


def _clean_netrc(path: str, known: State, settings: Settings, kept: Iterable[Backup]) -> None:
    """Take our entries out of one netrc, and put back what was taken over. One that we made and is empty goes."""

    def edit(text: bytes) -> bytes:
        hosts = {index.host for index in settings.indexes}
        if not known.netrc:  # the state is lost, so the block alone tells
            hosts |= block.block_entries(text).keys()
        ours = {**dict.fromkeys(hosts, ()), **(known.ours() if known.netrc == path else {})}
        text = block.edit(text, [], ours).text
        for backup in kept:
            text = _restored(text, backup)
        return text

    sink = NetrcSink(path)
    if known.netrc == path or kept or _marked(sink.read()):
        sink.change(edit)
    with contextlib.suppress(FileNotFoundError):
        if known.netrc == path and known.created and os.path.getsize(path) == 0:
            os.unlink(path)


def _marked(text: bytes) -> bool:
    return block.BEGIN in text or block.END in text


def _restored(text: bytes, backup: Backup) -> bytes:
    """Return a netrc's text with what a backup holds put back."""
    try:
        return restore(text, backup.text)
    except ValueError as error:
        message = f"The backup {backup.file} is broken, so what it holds cannot be put back."
        raise UvtokendError(message, backups.set_aside(backup.file)) from error


def _remove_chains(folder: Path) -> bool:
    """Remove the chains of refresh tokens and tell whether there were any; a symlink is somebody else's folder."""
    if folder.is_symlink() or not folder.is_dir():
        return False
    files = [*folder.glob("*.json*")]
    for file in files:
        file.unlink()
    with contextlib.suppress(OSError):
        folder.rmdir()
    return bool(files)


def _remove_files(folder: Path, socket: Path) -> None:
    """Remove our files and then the folders, where nothing else stands in them."""
    for name in _STATE_FILES:
        (folder / name).unlink(missing_ok=True)
    locks = [file for kind in ("netrc", "store", "config") for file in folder.glob(f"{kind}-*.lock")]
    for file in [*backups.folder().glob("*.json"), *locks]:
        file.unlink(missing_ok=True)
    for file in (socket, Path(f"{socket}.lock")):
        with contextlib.suppress(NotADirectoryError):
            file.unlink(missing_ok=True)
    for place in (backups.folder(), folder, *([socket.parent] if socket.parent.name == paths.APP else [])):
        with contextlib.suppress(OSError):
            place.rmdir()

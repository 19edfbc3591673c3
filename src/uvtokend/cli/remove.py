"""``uvtokend remove``: remove an index from ``config.toml``, and its token and its record at once."""

from __future__ import annotations

import argparse
import contextlib
import time
from collections.abc import Iterator, Set

from uvtokend import paths
from uvtokend.cli import client, console, reload
from uvtokend.core import clouds, state
from uvtokend.core.config import edit
from uvtokend.core.model import Settings
from uvtokend.core.netrc import block
from uvtokend.core.text import clean
from uvtokend.core.urls import IndexUrl
from uvtokend.disk import cleanup, config_editor, configuration
from uvtokend.disk.netrc_sink import NetrcSink
from uvtokend.disk.state_file import Store
from uvtokend.disk.uv_store_sink import UvStoreSink
from uvtokend.errors import OK, USAGE, ConfigError, NotRunning, UsageError, UvtokendError

#: Seconds that the daemon gets to remove an entry, and seconds between two checks.
_PATIENCE = 20.0
_PAUSE = 0.03


class _OfSiteError(UsageError):
    """Only the site's file contains the index."""

    def __init__(self, name: str, file: str) -> None:
        super().__init__(f"{name!r} comes from the site's configuration, {file}, not from yours.")


EXAMPLES = ("uvtokend remove private-registry",)
DETAILS = "The token is removed from the netrc, or from uv's store, at once."


def arguments(own: argparse.ArgumentParser) -> None:
    """Add the arguments of this verb."""
    own.add_argument("name", metavar="NAME", help="the index")


def run(args: argparse.Namespace) -> int:
    """Remove an index; see `remove`."""
    return remove(args.name, args.config)


def remove(name: str, config_file: str | None) -> int:
    """Remove an index from the user's file, its token from its sink, and its record from the state.

    Args:
        name: The index.
        config_file: Another configuration file.

    Raises:
        UsageError: No index has that name.
        ConfigError: The configuration would be invalid without it; nothing was written.
        UvtokendError: Its entry could not be removed.
    """
    target = paths.config_file(config_file)
    removals: list[edit.RemovedIndex] = []

    def change(text: str) -> str:
        removal = edit.remove(text, name)
        if removal is None:
            raise _unknown(name, config_file)
        removals[:] = [removal]
        return removal.text

    before = _places(config_file)
    try:
        with _owner(config_file) as running:
            settings = config_editor.edit(config_file, change)
            console.out("".join(f"{clean(line.rstrip())}\n" for line in removals[0].removed.splitlines()))
            console.say(f"Removed from {target}.")
            gone = (before or _possible(removals[0].table)) - {index.target for index in settings.indexes}
            if _clean(settings, gone, running):
                _say_what_is_left(gone, removals[0].table, settings)
    except _OfSiteError as error:
        console.complain(error)
        _say_how_to_switch_off(name, target)
        return USAGE
    if name in _names(settings):
        console.say(f"The site's configuration also names {name!r}, and applies now.")
        _say_how_to_switch_off(name, target)
    return OK


def _clean(settings: Settings, gone: Set[str], running: bool) -> bool:
    """Remove our tokens for some targets, or let the daemon do it, and return whether it was done."""
    if not running:
        forget(settings, gone)
        return True
    if not reload.tell_daemon(settings):
        return False
    _await_daemon(gone)
    return True


def forget(settings: Settings, gone: Set[str]) -> None:
    """Remove our tokens for some targets from the netrc and uv's store, and their records from the state file.

    The caller owns the netrc.

    Args:
        settings: The new settings.
        gone: The hosts in the netrc, and the services in uv's store.

    Raises:
        UvtokendError: One of the three could not be written.
    """
    store = Store(paths.state_directory())
    known = store.load()
    _clean_netrc(NetrcSink(settings.netrc), settings, known, gone)
    _clean_uv_store(gone)
    left = state.without(known, gone)
    if left != known:
        try:
            store.save(left)
        except OSError as error:
            message = f"The entry is removed, but the state file could not be written: {error.strerror}."
            raise UvtokendError(message, "uvtokend start") from error


def _clean_netrc(sink: NetrcSink, settings: Settings, known: state.State, gone: Set[str]) -> None:
    ours = cleanup.ours(sink, known, {*(index.host for index in settings.indexes), *gone})

    def without(text: bytes) -> bytes:
        standing = block.block_entries(text, ours)
        return block.edit(text, [standing[host] for host in standing if host in ours and host not in gone], ours).text

    if gone & block.block_entries(sink.read(), ours).keys():
        sink.change(without)


def _clean_uv_store(gone: Set[str]) -> None:
    sink = _uv_store()
    standing = sink.entries()
    if gone & standing.keys():
        try:
            sink.deliver([entry for service, entry in standing.items() if service not in gone], {})
        finally:
            sink.close()


def _uv_store() -> UvStoreSink:
    return UvStoreSink(paths.uv_credentials_file(), paths.state_directory())


@contextlib.contextmanager
def _owner(config_file: str | None) -> Iterator[bool]:
    """Yield whether a daemon runs. If none does, own the netrc, so that no daemon starts meanwhile."""
    try:
        client.call("version")
    except NotRunning:
        pass
    else:
        yield True
        return
    directory = paths.state_directory()
    paths.private_directory(directory)
    sink = NetrcSink(_netrc(config_file))
    sink.take_ownership()
    try:
        yield False
    finally:
        sink.release()


def _netrc(config_file: str | None) -> str:
    try:
        return configuration.load(config_file).netrc
    except ConfigError:  # the error may be in the index to remove
        return configuration.defaults().netrc


def _await_daemon(gone: Set[str]) -> None:
    """Wait until the daemon has removed the entry and the record.

    Raises:
        UvtokendError: The daemon could not remove them.
    """
    deadline = time.monotonic() + _PATIENCE
    document = client.call("status")  # the daemon answers after the delivery under way
    while _standing(document["netrc"], gone):
        if time.monotonic() > deadline:
            problem = client.call("status")["delivery"]["problem"] or ""
            message = f"The index is removed from the configuration, but its entry is still there. {problem}".rstrip()
            raise UvtokendError(message, "uvtokend status")
        time.sleep(_PAUSE)


def _standing(path: str, gone: Set[str]) -> bool:
    """Return whether a token or a record for one of the targets is still there."""
    known = Store(paths.state_directory()).load()
    entries = {**block.block_entries(NetrcSink(path).read(), known.ours(path)), **_uv_store().entries()}
    return bool(gone & entries.keys()) or state.without(known, gone) != known


def _places(config_file: str | None) -> set[str]:
    """Return the configured targets; none if the configuration is invalid, perhaps because of the index to remove."""
    try:
        return {index.target for index in configuration.load(config_file).indexes}
    except ConfigError:
        return set()


def _possible(table: edit.Table) -> set[str]:
    """Return the targets that an index may have."""
    text, provider = table.get("url"), table.get("provider")
    try:
        url = IndexUrl.parse(text) if isinstance(text, str) else None
    except ValueError:
        url = None
    if url is None:
        return set()
    recognized = clouds.recognize(url)
    named = provider if isinstance(provider, str) else recognized[0] if recognized else ""
    return {url.host, clouds.store_service(named, url)}


def _say_what_is_left(gone: Set[str], table: edit.Table, settings: Settings) -> None:
    if gone:
        console.say("Its token is removed.")
    elif not _possible(table).isdisjoint(index.target for index in settings.indexes):
        console.say("Its token stays, because another index needs it.")


def _names(settings: Settings) -> dict[str, str]:
    return {index.name: " and ".join(index.files) for index in (*settings.indexes, *settings.disabled)}


def _unknown(name: str, config_file: str | None) -> UsageError:
    known = _names(configuration.load(config_file))
    return _OfSiteError(name, known[name]) if name in known else client.unknown([name], list(known))


def _say_how_to_switch_off(name: str, target: str) -> None:
    console.say(f"To disable it for yourself, add these lines to {target}:")
    for line in ("", "[[index]]", f'name = "{name}"', "enabled = false"):
        console.say(line)

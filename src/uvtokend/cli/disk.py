"""Compose the status without a daemon: from the configuration, the state file and the sinks."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

from uvtokend import __version__, paths
from uvtokend.cli.client import unknown
from uvtokend.core import state, status
from uvtokend.core.model import Entry, Index, Settings
from uvtokend.core.netrc import block
from uvtokend.core.status import Frame, Standing, StatusDocument
from uvtokend.disk import cleanup
from uvtokend.disk.answering import answered
from uvtokend.disk.configuration import load
from uvtokend.disk.netrc_sink import NetrcSink
from uvtokend.disk.state_file import Store
from uvtokend.disk.uv_store_sink import UvStoreSink
from uvtokend.errors import ConfigError, DeliveryFailed, UvtokendError


def document(names: list[str], config: str | None) -> tuple[StatusDocument, ConfigError | None]:
    """Return the status document without a daemon, and the error in the configuration, if there is one.

    Args:
        names: Only these indexes; none means all.
        config: Another configuration file.

    Raises:
        UsageError: No index has one of those names.
        UvtokendError: A file system does not answer.
    """
    try:
        settings = load(config)
    except ConfigError as error:
        first = error.problems[0]
        more = f" ({len(error.problems)} problems)" if len(error.problems) > 1 else ""
        stale = f"config.toml is invalid: {first.where}: {first.message}{more}"
        frame = Frame(__version__, paths.config_file(config), None, paths.socket_file(), stale)
        return status.of_disk(frame, (), (), {}, None, datetime.now(UTC)), error
    check_names(names, (*settings.indexes, *settings.disabled))
    sink = NetrcSink(settings.netrc)
    state_file = paths.state_file()
    standing, problem = answered(lambda: _standing(settings, sink), settings.netrc, state_file)
    frame = Frame(__version__, settings.file, sink.path, paths.socket_file())
    whole = status.of_disk(frame, settings.indexes, settings.disabled, standing, problem, datetime.now(UTC))
    return status.chosen(whole, names), None


def chosen(settings: Settings, names: list[str]) -> tuple[Index, ...]:
    """Return the named indexes, or all.

    Raises:
        UsageError: One of them is not configured.
        UvtokendError: One of them is disabled.
    """
    check_names(names, (*settings.indexes, *settings.disabled))
    for index in settings.disabled:
        if index.name in names:
            raise disabled(index.name)
    known = {index.name: index for index in settings.indexes}
    return tuple(known[name] for name in dict.fromkeys(names)) or settings.indexes


def disabled(name: str) -> UvtokendError:
    """Return the error that an index is disabled and so has no token."""
    message = f"The index {name!r} is disabled in config.toml."
    return UvtokendError(message, "set enabled = true in its table, then run: uvtokend reload")


def check_names(names: list[str], indexes: tuple[Index, ...]) -> None:
    """Check that each name is the name of an index.

    Raises:
        UsageError: A name is unknown.
    """
    known = [index.name for index in indexes]
    missing = [name for name in names if name not in known]
    if missing:
        raise unknown(missing, known)


def _standing(settings: Settings, sink: NetrcSink) -> tuple[dict[str, Standing], str | None]:
    """Return the token in each index's sink, by name, and the problem with a sink, if there is one."""
    known = Store(paths.state_directory()).load()
    entries: Mapping[str, Entry] = {}
    problem = None
    try:
        text = sink.read()
        entries = block.block_entries(text, known.ours(sink.path))
        problems = [
            *block.problems(text, {index.host for index in settings.indexes} & entries.keys(), sink.path),
            *cleanup.left_behind(known, sink.path, settings.file),
        ]
        problem = "; ".join(str(one) for one in problems) or None
        if any(index.sink == "uv-store" for index in settings.indexes):
            stored = UvStoreSink(paths.uv_credentials_file(), paths.state_directory()).entries()
            entries = {**entries, **stored}
    except DeliveryFailed as error:
        problem = error.message
    standing = {index.name: _of_index(index, known, entries.get(index.target)) for index in settings.indexes}
    return {name: one for name, one in standing.items() if one is not None}, problem


def _of_index(index: Index, known: state.State, entry: Entry | None) -> Standing | None:
    """Return the record of an index's token, if exactly that token is in its sink."""
    if entry is None:
        return None
    key = state.request_key(index.request)
    for record in known.records:
        if record.request_key == key and index.target in record.targets and entry.digest == record.digest:
            return Standing(record, entry.login)
    return None

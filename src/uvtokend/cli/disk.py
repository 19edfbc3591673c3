"""What can be known while no daemon runs: from the configuration, the state file and the netrc."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

from uvtokend import __version__, paths
from uvtokend.cli.client import unknown
from uvtokend.core import state, status
from uvtokend.core.model import Entry, Index, Json, Settings
from uvtokend.core.netrc import block
from uvtokend.disk import cleanup
from uvtokend.disk.configuration import load
from uvtokend.disk.netrc_sink import NetrcSink
from uvtokend.disk.state_file import Store
from uvtokend.disk.uv_store_sink import UvStoreSink
from uvtokend.errors import DeliveryFailed


def document(names: list[str], config: str | None) -> dict[str, Json]:
    """Return the status document as it is without a daemon, with the pid null.

    Args:
        names: Only these indexes; none means all.
        config: Another configuration file.

    Raises:
        ConfigError: The configuration is wrong.
        UsageError: No index has one of those names.
    """
    settings = load(config)
    indexes = chosen(settings, names)
    known = Store(paths.state_folder()).load()
    sink = NetrcSink(settings.netrc)
    delivery: dict[str, Json] = {"ok": True, "problem": None}
    entries: Mapping[str, Entry] = {}
    try:
        text = sink.read()
        entries = block.block_entries(text, known.ours(sink.path))
        problems = [
            *block.problems(text, {index.host for index in indexes} & entries.keys(), sink.path),
            *cleanup.left_behind(known, sink.path, settings.file),
        ]
        if problems:
            sentence = "; ".join(str(problem) for problem in problems)
            delivery = {"ok": not any(problem.fatal for problem in problems), "problem": sentence}
        if any(index.sink == "uv-store" for index in indexes):
            stored = UvStoreSink(paths.uv_credentials_file(), paths.state_folder()).entries()
            entries = {**entries, **stored}
    except DeliveryFailed as error:
        delivery = {"ok": False, "problem": error.message}
    now = datetime.now(UTC)
    return {
        "version": __version__,
        "pid": None,
        "started_at": None,
        "config": settings.file,
        "netrc": sink.path,
        "socket": paths.socket_file(),
        "delivery": delivery,
        "indexes": [_index(index, known, entries, now) for index in indexes],
    }


def chosen(settings: Settings, names: list[str]) -> tuple[Index, ...]:
    """Return the named indexes, or all.

    Raises:
        UsageError: One of them is not configured.
    """
    known = {index.name: index for index in settings.indexes}
    missing = [name for name in names if name not in known]
    if missing:
        raise unknown(missing, list(known))
    return tuple(known[name] for name in dict.fromkeys(names)) or settings.indexes


def _index(index: Index, known: state.State, entries: Mapping[str, Entry], now: datetime) -> Json:
    """Return what is known about an index's token, if that very token is in its sink."""
    key, entry = state.request_key(index.request), entries.get(index.target)
    if entry is not None:
        for record in known.records:
            if record.request_key == key and index.target in record.targets and entry.digest == record.digest:
                return status.from_disk(index, record, now, entry.login)
    return status.from_disk(index, None, now)

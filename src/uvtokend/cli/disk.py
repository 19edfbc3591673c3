"""What can be known while no daemon runs: from the configuration, the state file and the netrc."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from datetime import UTC, datetime

from uvtokend import __version__, paths
from uvtokend.cli.client import unknown
from uvtokend.core import state, status
from uvtokend.core.model import Entry, Index, Json, Record, Settings
from uvtokend.core.netrc import block
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
    sink = NetrcSink(netrc_path(settings))
    delivery: dict[str, Json] = {"ok": True, "problem": None}
    entries: Mapping[str, Entry] = {}
    try:
        text = sink.read()
        entries = block.block_entries(text, known.ours())
        problems = block.problems(text, {index.host for index in indexes} & entries.keys(), sink.path)
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
        "indexes": [status.from_disk(index, _record(index, known, entries), now) for index in indexes],
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


def netrc_path(settings: Settings) -> str:
    """Return the netrc that the daemon would write."""
    return settings.netrc or os.path.expanduser("~/.netrc")


def _record(index: Index, known: state.State, entries: Mapping[str, Entry]) -> Record | None:
    """Return what is remembered of an index's token, if that very token still stands in its sink."""
    entry = entries.get(index.target)
    if entry is None:
        return None
    digest = hashlib.sha256(entry.password.reveal().encode()).hexdigest()
    key = state.request_key(index.request)
    for record in known.records:
        if index.target in record.targets and (record.request_key, record.login, record.sha256) == (
            key,
            entry.login,
            digest,
        ):
            return record
    return None

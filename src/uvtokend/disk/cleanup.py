"""Remove all our entries from a file: for `purge`, and for a netrc or store that is no longer in use.

Only `ours` decides which entries of a netrc are ours.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable

from uvtokend import paths
from uvtokend.core.model import Problem
from uvtokend.core.netrc import block
from uvtokend.core.netrc.block import Ours
from uvtokend.core.state import State, former
from uvtokend.disk.netrc_sink import NetrcSink
from uvtokend.errors import DeliveryFailed

#: The text of a netrc without our entries -> the text with the entries that `adopt` removed.
Restore = Callable[[bytes], bytes]


def ours(sink: NetrcSink, known: State, hosts: Iterable[str]) -> Ours:
    """Return which entries of a netrc are ours; see `uvtokend.core.netrc.block.edit`.

    An entry in our block is ours if its host is configured or remembered. If nothing is remembered about the file,
    because the state file is lost, each entry in the block is ours that is written as we write it.

    Args:
        sink: The netrc.
        known: The state.
        hosts: The configured hosts.

    Raises:
        DeliveryFailed: The netrc cannot be read.
    """
    path = sink.path
    hosts_in_block = () if path in known.netrcs else block.block_entries(sink.read())
    return known.ours(path, {*hosts, *hosts_in_block})


def holds(path: str, known: State) -> bool:
    """Return whether a netrc still contains an entry of ours, or our markers.

    Raises:
        DeliveryFailed: The netrc cannot be read.
    """
    sink = NetrcSink(path)
    text = sink.read()
    return block.BEGIN in text or block.END in text or bool(block.block_entries(text, ours(sink, known, ())))


def left_behind(known: State, current: str, config: str) -> list[Problem]:
    """Return a problem for each netrc that was used before and still contains our entries.

    Args:
        known: The state.
        current: The netrc in use, resolved.
        config: The configuration file.
    """
    problems = []
    for path in former(known, current, config):
        try:
            if holds(path, known):
                problems.append(problem(path, "The daemon cleans it at the next delivery.", "uvtokend refresh"))
        except DeliveryFailed as error:
            problems.append(problem(path, error.message, error.hint))
    return problems


def problem(path: str, why: str, hint: str | None) -> Problem:
    """Return the problem that a file used before still contains our entries."""
    message = f"It was used before and still holds tokens of uvtokend. {why}"
    return Problem(path, "the file", message, hint or "uvtokend purge", fatal=False)


def clean_netrc(sink: NetrcSink, known: State, hosts: Iterable[str] = (), restore: Restore = lambda text: text) -> bool:
    """Remove our entries from one netrc, and return whether that changed it.

    A file that we created is deleted once it is empty. The caller owns the netrc.

    Args:
        sink: The netrc.
        known: The state.
        hosts: The configured hosts.
        restore: Restores foreign entries.

    Raises:
        DeliveryFailed: It could not be written.
    """
    path, mine = sink.path, ours(sink, known, hosts)
    changed = sink.change(lambda text: restore(block.edit(text, [], mine).text)).changed
    with contextlib.suppress(FileNotFoundError):
        if known.netrc(path).created and os.path.getsize(path) == 0:
            sink.delete_empty()
    return changed


def clean_former(path: str, known: State) -> None:
    """Remove our entries from a netrc that is no longer in use, unless another daemon uses it.

    Args:
        path: The netrc, resolved.
        known: The state.

    Raises:
        UvtokendError: Another daemon owns the netrc, or it could not be written.
    """
    if not os.path.lexists(path):
        return
    sink = NetrcSink(path)
    sink.take_ownership()
    try:
        clean_netrc(sink, known)
    finally:
        sink.release(remove=True)


def clean_store(path: str, state_directory: str) -> bool:
    """Remove our records from one credential store of uv's, and return whether there were any.

    Args:
        path: The store.
        state_directory: The directory of its owner's lock.

    Raises:
        DeliveryFailed: It could not be written.
    """
    if not os.path.lexists(paths.uv_ledger_file(path)):
        return False
    from uvtokend.disk.uv_store_sink import UvStoreSink  # noqa: PLC0415 - most daemons never need it

    store = UvStoreSink(path, state_directory)
    try:
        return store.deliver((), {}).changed
    finally:
        store.close()

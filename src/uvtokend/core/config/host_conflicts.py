"""Find the indexes that a sink cannot distinguish.

A netrc has one credential per host, uv's store one per URL prefix. uv reads the store only if no netrc has the host. A
credential in memory conflicts with no other, but a netrc entry for its host would hide it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from uvtokend.core.model import Index


@dataclass(frozen=True, slots=True)
class HostConflict:
    """An index that conflicts with an earlier one.

    Args:
        index: The name of the index.
        message: Why uv would not get its credential.
        hint: The edit that repairs it.
    """

    index: str
    message: str
    hint: str


def conflicts(indexes: Iterable[Index]) -> Iterator[HostConflict]:
    """Yield a conflict for each index that a sink cannot distinguish from an earlier one.

    Args:
        indexes: The enabled indexes.
    """
    hosts: dict[str, Index] = {}
    targets: dict[str, Index] = {}
    for index in indexes:
        other = hosts.setdefault(index.host, index)
        same = targets.setdefault(index.target, index)
        if other.sink != index.sink:
            message = f"{other.name!r} on {index.host} has sink = {other.sink!r}: one hides the other."
            yield HostConflict(index.name, message, f"write the same sink for all indexes on {index.host}")
        elif same.request == index.request or index.sink == "memory":
            continue
        elif index.sink == "netrc":
            message = f"{same.name!r} on {index.host} needs another credential, and a netrc knows only hosts."
            hint = 'write sink = "uv-store" for all indexes on that host, or give them the same credential'
            yield HostConflict(index.name, message, hint)
        else:
            message = f"{same.name!r} has another credential for {index.target} too; uv cannot tell them apart."
            yield HostConflict(index.name, message, "give them the same credential")

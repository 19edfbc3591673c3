"""Deliver one token after another, and report each delivery, until killed.

    python tests/soak/victim.py netrc|store FILE STATE_DIRECTORY

Token 0 is the one that is there at the start.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from uvtokend.core.model import Entry, Secret
from uvtokend.core.netrc.block import Ours
from uvtokend.disk.netrc_sink import NetrcSink
from uvtokend.disk.uv_store_sink import UvStoreSink

HOSTS = ("a.example", "b.example")
LOGIN = "uvtokend-soak"
#: How many tokens count as ours; no victim makes more deliveries.
MOST = 2000


def entries(number: int) -> list[Entry]:
    """Return the entries of that delivery; their lengths differ, so that the file grows and shrinks."""
    token = f"t{number}." + "x" * (number * 37 % 200)
    return [Entry(host, LOGIN, Secret(token), f"https://{host}/soak") for host in HOSTS]


def ours() -> Ours:
    """Return what a daemon knows about its own deliveries."""
    known = [entries(number)[0].digest for number in range(MOST)]
    return dict.fromkeys(HOSTS, known)


def deliver(kind: str, file: str, state_directory: str, number: int) -> None:
    """Make one delivery with new sinks, as a daemon that has just started does."""
    if kind == "netrc":
        NetrcSink(file).deliver(entries(number), ours())
        return
    store = UvStoreSink(file, state_directory)
    try:
        store.deliver(entries(number), {})
    finally:
        store.close()


def main(words: Sequence[str]) -> None:
    """Deliver until killed."""
    kind, file, state_directory = words
    known = ours()
    netrc, store = NetrcSink(file), UvStoreSink(file, state_directory)
    for number in range(MOST):
        if number and kind == "netrc":
            netrc.deliver(entries(number), known)
        elif number:
            store.deliver(entries(number), {})
        os.write(1, b"%d\n" % number)


if __name__ == "__main__":
    main(sys.argv[1:])

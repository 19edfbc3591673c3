"""Give memory back to the system after work: a thousand tokens, or a client that asks a thousand times, leave holes.

Connections that have ended are cycles, which only the garbage collector frees. And glibc keeps what was freed for
later, unless it is told otherwise (malloc_trim(3)); other C libraries have no such call, and mostly no such need.
"""

from __future__ import annotations

import ctypes
import gc
from contextlib import suppress


def give_back() -> None:
    """Free what is no longer used. It takes some 10 ms, so call it when there is nothing else to do."""
    gc.collect()
    with suppress(AttributeError):
        ctypes.CDLL(None).malloc_trim(0)

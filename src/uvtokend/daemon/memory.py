"""Return memory to the system after work: a thousand tokens, or a thousand requests of a client, leave gaps in it.

Closed connections are reference cycles, which only the garbage collector frees. And glibc keeps freed memory until
malloc_trim(3) is called; other C libraries have no such call, and mostly do not need it.
"""

from __future__ import annotations

import ctypes
import gc
from contextlib import suppress


def give_back() -> None:
    """Free unused memory. This takes about 10 ms, so call it when the daemon is idle."""
    gc.collect()
    with suppress(AttributeError):
        ctypes.CDLL(None).malloc_trim(0)

"""Keep the daemon small: return memory to the system after work, and leave few gaps in it.

A thousand tokens, or a thousand requests of a client, leave gaps.

Closed connections are reference cycles, which only the garbage collector frees. And glibc keeps freed memory until
malloc_trim(3) is called; other C libraries have no such call, and mostly do not need it.
"""

from __future__ import annotations

import ctypes
import gc
from contextlib import suppress

#: glibc's malloc.h.
_ARENA_MAX = -8
#: The arguments of `gc.set_threshold`. The defaults of Python 3.11 are 700, 10 and 10.
SOON = (200, 5, 5)


def keep_small() -> None:
    """Let all threads share one heap, and look for garbage often; call this before there is another thread.

    glibc gives each thread a heap of its own, with gaps of its own, so that threads need not wait for each other
    (mallopt(3)). Python runs one thread at a time anyway. And where little garbage waits to be found, a thousand
    requests need less memory at once. Looking for it costs little, because what was imported is not looked at.
    """
    gc.set_threshold(*SOON)
    with suppress(AttributeError):
        ctypes.CDLL(None).mallopt(_ARENA_MAX, 1)


def give_back() -> None:
    """Free unused memory. This takes about 10 ms, so call it when the daemon is idle."""
    gc.collect()
    with suppress(AttributeError):
        ctypes.CDLL(None).malloc_trim(0)

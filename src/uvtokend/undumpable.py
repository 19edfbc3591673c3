"""Keep the memory of this process to itself: it holds tokens.

No core is dumped, and on Linux no other process of the same user may attach to it or read its memory (prctl(2),
PR_SET_DUMPABLE; ptrace(2), "Ptrace access mode checking"); root may. A program that is executed later starts with its
own defaults again, except for the limit on core dumps. On macOS the limit is all. Single pages are not marked
(madvise(2), MADV_DONTDUMP): that would only leave them out of core dumps, of which there are none.
"""

from __future__ import annotations

import ctypes
import resource
import sys

#: linux/prctl.h
_PR_SET_DUMPABLE = 4


def protect(executes: bool = False) -> None:
    """Make this process undumpable; call it first, before anything secret is in memory.

    Args:
        executes: This process becomes the user's own command later, which may raise the limit on core dumps again.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1] if executes else 0))
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)

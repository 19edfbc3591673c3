"""Swap two file names atomically: ``renameat2`` with ``RENAME_EXCHANGE`` on Linux, ``renamex_np`` on macOS.

Python has no function for it. ctypes costs 0.6 MiB, so it is loaded on first use.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable
from functools import cache

#: linux/fs.h RENAME_EXCHANGE and sys/stdio.h RENAME_SWAP happen to be the same number.
_SWAP = 2
_AT_FDCWD = -100  # linux/fcntl.h

#: The errors of a kernel, file system or sandbox that does not support the call.
UNSUPPORTED = frozenset({errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EPERM})


def appear(temporary: str, path: str) -> None:
    """Give a new file its name, unless another program has created a file of that name.

    Args:
        temporary: The current path of the file.
        path: The new path.

    Raises:
        FileExistsError: Another program created `path` in the meantime.
        OSError: The file cannot be renamed.
    """
    try:
        os.link(temporary, path)
    except FileExistsError:
        raise
    except OSError as error:
        if error.errno not in UNSUPPORTED:
            raise
        os.rename(temporary, path)  # the file system has no hard links; the window for another program is tiny
    else:
        os.unlink(temporary)


def swap(one: str, other: str) -> None:
    """Swap two names in one file system.

    Args:
        one: A path.
        other: Another path in the same file system.

    Raises:
        OSError: The names cannot be swapped. If the system does not support the call, errno is in `UNSUPPORTED`.
    """
    code = _function()(os.fsencode(one), os.fsencode(other))
    if code:
        raise OSError(code, os.strerror(code), one, None, other)


@cache
def _function() -> Callable[[bytes, bytes], int]:
    import ctypes  # noqa: PLC0415 - see above

    library = ctypes.CDLL(None, use_errno=True)
    name = "renamex_np" if sys.platform == "darwin" else "renameat2"
    call = getattr(library, name, None)
    if call is None:
        return lambda _one, _other: errno.ENOSYS

    def exchange(one: bytes, other: bytes) -> int:
        if sys.platform == "darwin":
            failed = call(one, other, ctypes.c_uint(_SWAP))
        else:
            failed = call(_AT_FDCWD, one, _AT_FDCWD, other, ctypes.c_uint(_SWAP))
        return ctypes.get_errno() if failed else 0

    return exchange

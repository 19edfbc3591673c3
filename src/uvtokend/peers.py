"""Who is at the other end of a unix socket, as the kernel tells it: no word of the other side is needed.

Linux: unix(7), SO_PEERCRED. macOS, untested: sys/un.h, LOCAL_PEERCRED and LOCAL_PEERPID.
"""

from __future__ import annotations

import socket
import sys

_SOL_LOCAL, _LOCAL_PEERCRED, _LOCAL_PEERPID = 0, 1, 2
_WORD = 4


def uid(peer: socket.socket) -> int:
    """Return the user that the process at the other end runs as."""
    if hasattr(socket, "SO_PEERCRED"):
        return _word(peer, socket.SOL_SOCKET, socket.SO_PEERCRED, 1)
    return _word(peer, _SOL_LOCAL, _LOCAL_PEERCRED, 1)  # struct xucred begins with its version


def pid(peer: socket.socket) -> int:
    """Return what the process at the other end, or the one that listens there, is called in our own pid namespace.

    0 where it runs in one that we cannot see, as the daemon of a container does.
    """
    if hasattr(socket, "SO_PEERCRED"):
        return _word(peer, socket.SOL_SOCKET, socket.SO_PEERCRED, 0)
    return _word(peer, _SOL_LOCAL, _LOCAL_PEERPID, 0)


def _word(peer: socket.socket, level: int, option: int, number: int) -> int:
    words = peer.getsockopt(level, option, 76)
    return int.from_bytes(words[_WORD * number : _WORD * (number + 1)], sys.byteorder, signed=True)

"""Ask the kernel about the process at the other end of a unix socket.

Linux: unix(7), SO_PEERCRED. macOS (untested): sys/un.h, LOCAL_PEERCRED and LOCAL_PEERPID; the latter fails with
ENOTCONN once the peer has closed the socket (xnu, bsd/kern/uipc_usrreq.c).
"""

from __future__ import annotations

import _socket  # `socket` alone would double the cost of the keyring command
import errno
import sys

_SOL_LOCAL, _LOCAL_PEERCRED, _LOCAL_PEERPID = 0, 1, 2
_WORD = 4


def uid(peer: _socket.socket) -> int:
    """Return the uid of the process at the other end."""
    if hasattr(_socket, "SO_PEERCRED"):
        return _word(peer, _socket.SOL_SOCKET, _socket.SO_PEERCRED, 1)
    return _word(peer, _SOL_LOCAL, _LOCAL_PEERCRED, 1)  # struct xucred begins with its version


def pid(peer: _socket.socket) -> int:
    """Return the pid of the process at the other end, or of the listening process, in our own pid namespace.

    The result is 0 if the process runs in a namespace that we cannot see, such as a container's, or if it has exited.
    """
    if hasattr(_socket, "SO_PEERCRED"):
        return _word(peer, _socket.SOL_SOCKET, _socket.SO_PEERCRED, 0)
    try:
        return _word(peer, _SOL_LOCAL, _LOCAL_PEERPID, 0)
    except OSError as error:
        if error.errno != errno.ENOTCONN:
            raise
        return 0


def _word(peer: _socket.socket, level: int, option: int, number: int) -> int:
    words = peer.getsockopt(level, option, 76)
    return int.from_bytes(words[_WORD * number : _WORD * (number + 1)], sys.byteorder, signed=True)

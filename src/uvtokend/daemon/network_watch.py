"""Notice that the network returned. Linux reports it at once, on a netlink route socket (rtnetlink(7)).

A new address of the machine itself and a new default route count; links, neighbors and the addresses of containers do
not. Messages are gathered for a moment, and an unstable network is reported at most every `SPACING` seconds. On other
systems, and in a sandbox that forbids such a socket, the next retry notices within 25 s.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
import struct
import sys
from collections.abc import Callable, Iterator

#: Seconds for which messages are gathered: an address and its route arrive one after the other.
GATHER = 0.25
#: The least seconds between two reports.
SPACING = 5.0
#: linux/rtnetlink.h: RTMGRP_IPV4_IFADDR | RTMGRP_IPV4_ROUTE | RTMGRP_IPV6_IFADDR | RTMGRP_IPV6_ROUTE.
GROUPS = 0x10 | 0x40 | 0x100 | 0x400
_NEW_ADDRESS, _NEW_ROUTE = 20, 24
_SCOPE_UNIVERSE = 0
_UNICAST, _MAIN_TABLE = 1, 254
#: struct nlmsghdr: length, type, flags, sequence, port; struct ifaddrmsg: family, prefix, flags, scope, index; struct
#: rtmsg: family, destination's and source's length, tos, table, protocol, scope, type, flags.
_HEADER = struct.Struct("=IHHII")
_ADDRESS = struct.Struct("=BBBBI")
_ROUTE = struct.Struct("=BBBBBBBBI")


class NetworkWatch:
    """Call back when the network returns.

    Args:
        returned: Called in the loop.
    """

    def __init__(self, returned: Callable[[], None]) -> None:
        self._returned = returned
        self._loop = asyncio.get_running_loop()
        self._pending: asyncio.TimerHandle | None = None
        self._told_at = -SPACING
        self._socket = _open()
        if self._socket is not None:
            self._loop.add_reader(self._socket, self._read)

    def close(self) -> None:
        """Stop listening."""
        if self._pending is not None:
            self._pending.cancel()
        if self._socket is not None:
            self._loop.remove_reader(self._socket)
            self._socket.close()

    def _read(self) -> None:
        assert self._socket is not None  # noqa: S101 - for the type checker: there is a reader
        try:
            news = any(is_news(kind, body) for kind, body in messages(self._socket.recv(1 << 16)))
        except BlockingIOError:
            return
        except OSError as error:
            news = error.errno == errno.ENOBUFS  # the kernel lost messages because there were too many
        if news and self._pending is None:
            at = max(self._loop.time() + GATHER, self._told_at + SPACING)
            self._pending = self._loop.call_at(at, self._tell)

    def _tell(self) -> None:
        self._pending = None
        self._told_at = self._loop.time()
        self._returned()


def messages(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield the type and body of each netlink message in the kernel's data, up to one that is cut off."""
    while len(data) >= _HEADER.size:
        length, kind, *_ = _HEADER.unpack_from(data)
        if not _HEADER.size <= length <= len(data):
            return
        yield kind, data[_HEADER.size : length]
        data = data[(length + 3) & ~3 :]


def is_news(kind: int, body: bytes) -> bool:
    """Return whether a message reports a new global address or a new default route."""
    if kind == _NEW_ADDRESS and len(body) >= _ADDRESS.size:
        return bool(_ADDRESS.unpack_from(body)[3] == _SCOPE_UNIVERSE)
    if kind == _NEW_ROUTE and len(body) >= _ROUTE.size:
        _, destination, _, _, table, _, _, sort, _ = _ROUTE.unpack_from(body)
        return (destination, table, sort) == (0, _MAIN_TABLE, _UNICAST)
    return False


def _open() -> socket.socket | None:
    """Return the socket, or None if there is no netlink."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError), contextlib.ExitStack() as unless_bound:
            opened = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE)
            unless_bound.callback(opened.close)
            opened.setblocking(False)
            opened.bind((0, GROUPS))
            unless_bound.pop_all()
            return opened
    return None

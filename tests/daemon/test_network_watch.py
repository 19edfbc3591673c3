"""The return of the network, as reported by the kernel on a netlink socket."""

from __future__ import annotations

import asyncio
import errno
import socket
import struct

import pytest

from support import linux
from uvtokend.daemon import network_watch
from uvtokend.daemon.network_watch import NetworkWatch, is_news, messages


def message(kind: int, body: bytes) -> bytes:
    """Return one netlink message, padded as the kernel does."""
    data = struct.pack("=IHHII", 16 + len(body), kind, 0, 1, 0) + body
    return data + b"\0" * (-len(data) % 4)


def address(scope: int) -> bytes:
    return struct.pack("=BBBBI", socket.AF_INET, 24, 0, scope, 2)


def route(prefix: int = 0, table: int = 254, kind: int = 1) -> bytes:
    return struct.pack("=BBBBBBBBI", socket.AF_INET, prefix, 0, 0, table, 3, 0, kind, 0)


@pytest.mark.parametrize(
    ("kind", "body", "news"),
    [
        (20, address(0), True),
        (20, address(253), False),  # of the link only, as for containers' interfaces
        (20, address(254), False),  # of the machine only
        (21, address(0), False),  # removed
        (24, route(), True),
        (24, route(prefix=24), False),
        (24, route(table=255), False),
        (24, route(kind=7), False),  # unreachable
        (25, route(), False),
        (20, b"", False),
        (24, b"\0", False),
        (16, address(0), False),  # a link
    ],
)
def test_which_messages_mean_that_the_network_returned(kind: int, body: bytes, news: bool) -> None:
    """Only a new global address or a new default route means that the network returned."""
    assert is_news(kind, body) == news


@pytest.mark.parametrize("data", [b"", b"\x10", struct.pack("=IHHII", 4, 20, 0, 0, 0), message(20, address(0))[:-6]])
def test_a_truncated_message_ends_the_parsing(data: bytes) -> None:
    """Whatever length a message claims, parsing does not go beyond the data and ends."""
    assert list(messages(data)) == []


def test_several_messages_in_one_datagram() -> None:
    """Messages are split at their padded lengths."""
    data = message(24, route() + b"x") + message(20, address(0))
    assert [kind for kind, _ in messages(data)] == [24, 20]


@pytest.mark.linux("only Linux has netlink sockets")
def test_real_messages_of_the_kernel_are_parsed() -> None:
    """In a dump of this machine's addresses, only those of global scope mean that the network returned."""
    with linux.routing() as asking:
        asking.send(struct.pack("=IHHIIB3x", 20, 22, 0x301, 1, 0, socket.AF_INET))  # RTM_GETADDR, a dump
        received = list(messages(asking.recv(1 << 16)))
    scopes = [struct.unpack_from("=BBBBI", body)[3] for kind, body in received if kind == 20]
    assert [is_news(kind, body) for kind, body in received if kind == 20] == [scope == 0 for scope in scopes]


class Stage:
    """A watch with a pair of sockets instead of the kernel."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.kernel, ours = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        ours.setblocking(False)
        monkeypatch.setattr(network_watch, "_open", lambda: ours)
        self.calls: asyncio.Queue[float] = asyncio.Queue()
        self.watch = NetworkWatch(lambda: self.calls.put_nowait(asyncio.get_running_loop().time()))

    def close(self) -> None:
        self.watch.close()
        self.kernel.close()


def test_reports_are_combined_and_spaced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many messages at once cause one call, and an unstable network causes calls at intervals."""
    monkeypatch.setattr(network_watch, "SPACING", 0.5)

    async def main() -> None:
        stage = Stage(monkeypatch)
        try:
            stage.kernel.send(message(21, address(0)))
            for _ in range(5):
                stage.kernel.send(message(20, address(0)))
            first = await asyncio.wait_for(stage.calls.get(), 60)
            assert stage.calls.empty()
            stage.kernel.send(message(24, route()))
            second = await asyncio.wait_for(stage.calls.get(), 60)
            assert second - first >= 0.5
        finally:
            stage.close()

    asyncio.run(main())


def test_a_buffer_overflow_counts_as_a_return(monkeypatch: pytest.MonkeyPatch) -> None:
    """ENOBUFS means that messages were lost, so the network counts as returned. Other errors are ignored."""

    class Broken:
        def __init__(self, number: int) -> None:
            self.number = number

        def recv(self, _: int) -> bytes:
            raise OSError(self.number, "…")

        def close(self) -> None:
            pass

    async def main(number: int) -> bool:
        stage = Stage(monkeypatch)
        real = stage.watch._socket
        try:
            stage.watch._socket = Broken(number)  # type: ignore[assignment]
            stage.watch._read()
            return stage.watch._pending is not None
        finally:
            stage.watch._socket = real
            stage.close()

    assert asyncio.run(main(errno.ENOBUFS))
    assert not asyncio.run(main(errno.EIO))
    assert not asyncio.run(main(errno.EAGAIN))


def test_without_netlink_nothing_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    """If a sandbox forbids netlink sockets, the daemon runs without these reports."""

    def refused(*_: object) -> socket.socket:
        raise OSError(97, "Address family not supported by protocol")

    monkeypatch.setattr(socket, "socket", refused)
    assert network_watch._open() is None


def test_a_message_may_have_no_body() -> None:
    """A message may consist of a header alone."""
    assert list(messages(message(20, b""))) == [(20, b"")]


@pytest.mark.linux("netlink")
def test_the_subscribed_netlink_groups() -> None:
    """The socket subscribes to addresses and routes of both families (linux/rtnetlink.h: RTNLGRP 5, 7, 9 and 11),
    and to nothing else."""
    opened = network_watch._open()
    assert opened is not None
    with opened:
        assert opened.getsockname()[1] == sum(1 << (group - 1) for group in (5, 7, 9, 11))

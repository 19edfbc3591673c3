"""The macOS system calls, tested against a recorded kernel whose bytes follow Apple's headers (xnu, proc_info.h)."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import struct
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from support.xnu import APPEND, DEVICE, EVENT_ONLY, INODE, READ, WRITE, Usage, VnodeFile, opened
from uvtokend import darwin, peers

PATH = "/Users/me/.netrc"


@dataclass
class Recorded:
    """A kernel with recorded answers: process -> descriptor -> bytes. A descriptor without bytes is a socket."""

    processes: Mapping[int, Mapping[int, bytes]] = field(default_factory=dict)
    failure: int = 0
    value: bytes = b""
    copied: list[tuple[int, int, int]] = field(default_factory=list)
    asked: int = 0
    filled: Iterator[int] = field(default_factory=lambda: iter(()))

    def list_pids_by_path(self, path: bytes, size: int) -> tuple[int, bytes, int]:
        """Return at most `size` bytes, as the kernel does."""
        assert path == os.fsencode(PATH)
        self.asked += 1
        if self.failure:
            return -1, b"", self.failure
        buffer = b"".join(struct.pack("=i", pid) for pid in self.processes)[:size]
        return len(buffer), buffer.ljust(size, b"\0"), 0

    def pid_info(self, pid: int, flavor: int, size: int) -> tuple[int, bytes, int]:
        """List a process's descriptors; for another user's process, return EPERM and 0 bytes."""
        assert flavor == 1
        if not self.processes[pid]:
            return 0, b"\0" * size, errno.EPERM
        rows = (struct.pack("=iI", number, 1 if data else 2) for number, data in self.processes[pid].items())
        buffer = b"".join(rows)[:size]
        return len(buffer), buffer.ljust(size, b"\0"), 0

    def descriptor_info(self, pid: int, descriptor: int, flavor: int, size: int) -> tuple[int, bytes, int]:
        """Describe an open file; for one that has been closed meanwhile, return EBADF and 0 bytes."""
        assert (flavor, size) == (1, ctypes.sizeof(VnodeFile))
        data = self.processes[pid][descriptor]
        return (0, b"\0" * size, errno.EBADF) if data == b"closed" else (len(data), data, 0)

    def name(self, pid: int) -> bytes:
        """Return a process's name."""
        return f"program{pid}".encode()

    def system_value(self, name: bytes, size: int) -> tuple[int, bytes, int]:
        """Return the boot session, the only value that is known."""
        assert (name, size) == (b"kern.bootsessionuuid", 64)
        return (-1, b"", errno.ENOENT) if self.failure else (0, self.value, 0)

    def copy_file(self, source: int, target: int, flags: int) -> tuple[int, int]:
        """Record the call."""
        self.copied.append((source, target, flags))
        return (-1, self.failure) if self.failure else (0, 0)

    def usage(self, pid: int, flavor: int, size: int) -> tuple[int, bytes, int]:
        """Return the next amount of memory."""
        assert (pid, flavor, size) == (os.getpid(), 0, ctypes.sizeof(Usage))
        return (-1, b"", self.failure) if self.failure else (0, bytes(Usage(ri_phys_footprint=next(self.filled))), 0)

    def allow_keychain_dialogs(self, allowed: bool) -> int:
        """Return the recorded status."""
        assert not allowed
        return self.failure


@pytest.mark.parametrize(
    ("descriptors", "expected"),
    [
        ({3: opened(WRITE)}, True),
        ({3: opened(READ | WRITE)}, True),
        ({3: opened(READ)}, False),
        ({3: opened(READ | EVENT_ONLY)}, False),
        ({3: opened(WRITE, inode=INODE + 1)}, False),
        ({3: opened(WRITE, device=DEVICE + 1)}, False),
        ({3: b"", 4: opened(READ), 5: opened(WRITE)}, True),
        ({3: b"closed"}, False),
        ({}, False),
    ],
)
def test_who_writes_a_file(descriptors: Mapping[int, bytes], expected: bool) -> None:
    """`writers` lists a process only if one of its descriptors has exactly this file open for writing."""
    kernel = Recorded({4711: descriptors})
    writing = darwin.writers(PATH, DEVICE, INODE, kernel)
    assert writing == ((darwin.Writer(4711, "program4711", appends=False, position=42),) if expected else ())


def test_how_a_file_was_opened() -> None:
    """A writer's append flag and position come from FAPPEND and the offset (fill_fileinfo, bsd/kern/proc_info.c)."""
    (writer,) = darwin.writers(PATH, DEVICE, INODE, Recorded({4711: {3: opened(WRITE | APPEND)}}))
    assert (writer.appends, writer.position) == (True, 42)


def test_this_process_counts_if_it_writes() -> None:
    """Our own process counts as a writer if it has the file open for writing, but not while it only reads it."""
    assert darwin.writers(PATH, DEVICE, INODE, Recorded({os.getpid(): {3: opened(READ)}})) == ()
    assert len(darwin.writers(PATH, DEVICE, INODE, Recorded({os.getpid(): {3: opened(READ), 4: opened(WRITE)}}))) == 1


def test_many_processes_and_descriptors() -> None:
    """`writers` enlarges its buffers until the kernel's whole answer fits."""
    processes: dict[int, Mapping[int, bytes]] = {pid: {3: opened(READ)} for pid in range(1, 600)}
    processes[4711] = {number: opened(READ) for number in range(3, 1500)} | {1500: opened(WRITE)}
    kernel = Recorded(processes)
    assert [writer.pid for writer in darwin.writers(PATH, DEVICE, INODE, kernel)] == [4711]
    assert kernel.asked == 3


def test_the_kernels_error_is_raised() -> None:
    """If the kernel refuses to list processes, `writers` raises its error, and the caller decides what is safe."""
    with pytest.raises(PermissionError):
        darwin.writers(PATH, DEVICE, INODE, Recorded(failure=errno.EPERM))


def test_a_negative_device_number() -> None:
    """Device numbers match although Python reads dev_t as signed (bsd/sys/types.h) and the kernel as unsigned."""
    kernel = Recorded({4711: {3: opened(WRITE, device=0xFF000004)}})
    assert darwin.writers(PATH, 0xFF000004 - (1 << 32), INODE, kernel) != ()


def test_the_boot_session() -> None:
    """`boot_session` returns the text before the NUL, and an empty text on a system without boot sessions."""
    kernel = Recorded(value=b"0A1B2C3D-0000-4000-8000-000000000000\0")
    assert darwin.boot_session(kernel) == "0A1B2C3D-0000-4000-8000-000000000000"
    assert darwin.boot_session(Recorded(failure=errno.ENOENT)) == ""


@pytest.mark.parametrize(
    ("filled", "failure", "expected"), [([1, 10, 11, 99], 0, [True]), ([11], 0, [True]), ([], errno.EPERM, [])]
)
def test_memory_is_watched(filled: list[int], failure: int, expected: list[bool]) -> None:
    """The callback runs once, when memory first exceeds the limit; if the system gives no figure, it never runs."""
    reports: list[bool] = []
    darwin.watch_memory(10, lambda: reports.append(True), 0, Recorded(filled=iter(filled), failure=failure))
    assert reports == expected


def test_dialogs_are_forbidden() -> None:
    """The function returns whether the Keychain accepted the setting (OSStatus 0)."""
    assert darwin.forbid_keychain_dialogs(Recorded())
    assert not darwin.forbid_keychain_dialogs(Recorded(failure=-25291))


def test_attributes_are_copied() -> None:
    """`copy_attributes` copies only the access list and extended attributes (COPYFILE_ACL | COPYFILE_XATTR)."""
    kernel = Recorded()
    assert darwin.copy_attributes(3, 4, kernel)
    assert kernel.copied == [(3, 4, 5)]
    assert not darwin.copy_attributes(3, 4, Recorded(failure=errno.ENOTSUP))


@pytest.mark.linux("/proc stands in for F_GETPATH")
def test_a_path_as_its_volume_knows_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All spellings of a path get one lock: F_GETPATH returns the volume's own case; missing parts stay as written."""
    import fcntl

    (tmp_path / "home").mkdir()
    (tmp_path / "home" / ".NETRC").touch()  # opened by this name, as a volume without case lets it be

    def answer(file: int, command: int, buffer: bytes) -> bytes:
        assert (command, len(buffer)) == (50, 1024)
        name = os.readlink(f"/proc/self/fd/{file}").replace(".NETRC", ".netrc").replace("/home", "/Home")
        return os.fsencode(name).ljust(1024, b"\0")

    monkeypatch.setattr(fcntl, "fcntl", answer)
    assert darwin.known_path(f"{tmp_path}/home/.NETRC") == f"{tmp_path}/Home/.netrc"
    assert darwin.known_path(f"{tmp_path}/home/new/credentials.toml") == f"{tmp_path}/Home/new/credentials.toml"
    monkeypatch.setattr(fcntl, "fcntl", lambda *_: (_ for _ in ()).throw(OSError(errno.ENOTSUP, "")))
    assert darwin.known_path(f"{tmp_path}/home/.NETRC") == f"{tmp_path}/home/.NETRC"


@pytest.mark.parametrize(
    ("path", "place"),
    [
        ("/Users/me/.netrc", None),
        ("/Users/me/Documents/netrc", "/Users/me/Documents"),
        ("/Users/me/Library/Mobile Documents/com~apple~CloudDocs/netrc", "/Users/me/Library/Mobile Documents"),
        ("/Users/me/Documents.old/netrc", None),
        ("/Volumes/share/netrc", "/Volumes"),
    ],
)
def test_places_that_macos_protects(path: str, place: str | None) -> None:
    """`private_place` returns the directory that needs the user's consent: Documents, iCloud Drive or a volume."""
    assert darwin.private_place(path, "/Users/me") == place


@pytest.mark.parametrize(
    ("refusal", "expected"),
    [(0, ["full", "done"]), (errno.ENOTSUP, ["full", "fsync", "done"]), (errno.EIO, ["full"])],
)
def test_a_full_sync(refusal: int, expected: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`full_sync` tries F_FULLFSYNC, uses fsync where it is not supported, and raises any other error."""
    import fcntl

    calls: list[str] = []

    def fcntl_(file: int, command: int) -> None:
        assert command == 51
        calls.append("full")
        if refusal:
            raise OSError(refusal, os.strerror(refusal))

    monkeypatch.setattr(fcntl, "fcntl", fcntl_)
    monkeypatch.setattr(os, "fsync", lambda _file: calls.append("fsync"))
    with contextlib.suppress(OSError) if refusal == errno.EIO else contextlib.nullcontext():
        darwin.full_sync(3)
        calls.append("done")
    assert calls == expected


class Socket:
    """A socket as macOS implements it: without SO_PEERCRED, and with ENOTCONN once the peer has closed."""

    def __init__(self, answer: Callable[[int], bytes]) -> None:
        self.getsockopt = lambda _level, option, _size: answer(option)


def test_a_peer_that_has_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """LOCAL_PEERPID fails with ENOTCONN once the peer has closed (uipc_usrreq.c): `pid` returns 0; `uid` works."""

    def answer(option: int) -> bytes:
        if option == 2:
            raise OSError(errno.ENOTCONN, os.strerror(errno.ENOTCONN))
        return struct.pack("=II", 0, 501)

    monkeypatch.delattr("socket.SO_PEERCRED", raising=False)
    assert peers.pid(Socket(answer)) == 0  # type: ignore[arg-type]
    assert peers.uid(Socket(answer)) == 501  # type: ignore[arg-type]
    assert peers.pid(Socket(lambda _option: (4711).to_bytes(4, sys.byteorder))) == 4711  # type: ignore[arg-type]

"""Who owns a netrc and who changes it now, tested with real processes and locks."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import stat
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from support.namespace import in_namespace
from uvtokend.core import fixes
from uvtokend.core.model import Entry, Secret
from uvtokend.core.netrc.adopt import TakeOver, restore, take_over
from uvtokend.core.netrc.block import scan
from uvtokend.disk import locks
from uvtokend.disk.locks import netrc_lock, netrc_owner
from uvtokend.disk.netrc_sink import NetrcSink
from uvtokend.errors import DeliveryFailed, UvtokendError

OWN = """
    import sys
    from uvtokend.disk.netrc_sink import NetrcSink
    sink = NetrcSink(sys.argv[1])
    sink.take_ownership()
    print(flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def netrc(tmp_path: Path) -> Path:
    directory = tmp_path / "home"
    directory.mkdir(mode=0o700)
    return directory / ".netrc"


def beside(netrc: Path) -> Path:
    return netrc.with_name("..netrc.uvtokend.lock")


@contextmanager
def another(netrc: Path, *mounted: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run another process that owns the netrc."""
    words = [*mounted, sys.executable, "-c", textwrap.dedent(OWN), str(netrc)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"\n"
        try:
            yield process
        finally:
            process.kill()


class TestOwner:
    def test_the_lock_file_is_beside_the_netrc(self, netrc: Path) -> None:
        """The private lock file names the owner's pid and host, and a missing directory is created with mode 0700."""
        deep = netrc.parent / "new" / "netrc"
        sink = NetrcSink(str(deep))
        sink.take_ownership()
        lock = deep.with_name(".netrc.uvtokend.lock")
        assert lock.read_text() == f"pid {os.getpid()} on {socket.gethostname()}\n"
        assert [stat.S_IMODE(one.stat().st_mode) for one in (lock, deep.parent)] == [0o600, 0o700]
        sink.release(remove=True)
        assert os.listdir(deep.parent) == []

    def test_a_second_owner_is_refused(self, netrc: Path) -> None:
        """The error names the owner's pid and host. When the owner is killed, the lock is free."""
        with another(netrc) as process:
            owner = netrc_owner(str(netrc))
            assert owner is not None
            assert (owner.pid, owner.host) == (process.pid, socket.gethostname())
            with pytest.raises(UvtokendError, match=f"pid {process.pid} on {socket.gethostname()}"):
                netrc_lock(str(netrc))
        assert netrc_owner(str(netrc)) is None
        netrc_lock(str(netrc)).remove()
        assert os.listdir(netrc.parent) == []

    def test_a_machine_that_changes_its_name(self, netrc: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """On macOS the boot session shows whether the owner runs on this machine; without one, the host name does."""
        monkeypatch.setattr(locks, "_boot_session", lambda: "0A1B2C3D")
        lock = netrc_lock(str(netrc))
        assert beside(netrc).read_text() == f"pid {os.getpid()} on {socket.gethostname()} boot 0A1B2C3D\n"
        monkeypatch.setattr(socket, "gethostname", lambda: "me.hotel.example")
        owner = locks.named_owner(str(beside(netrc)))
        assert owner == netrc_owner(str(netrc))
        assert owner is not None
        assert owner.is_here
        assert not replace(owner, boot="").is_here
        monkeypatch.setattr(locks, "_boot_session", lambda: "another")
        assert not replace(owner).is_here
        lock.remove()
        assert locks.named_owner(str(beside(netrc))) is None

    @pytest.mark.parametrize("code", [errno.ENOTSUP, errno.ENOLCK])
    def test_a_file_system_without_locks(self, netrc: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
        """If the file system of a network home directory has no locks, uvtokend continues without one."""

        def flock(_file: int, _operation: int) -> None:
            raise OSError(code, os.strerror(code))

        monkeypatch.setattr(fcntl, "flock", flock)
        sink = NetrcSink(str(netrc))
        sink.take_ownership()
        assert sink.deliver([Entry("a.example", "aws", Secret("t0"))], {}).changed
        sink.release(remove=True)
        assert os.listdir(netrc.parent) == [".netrc"]

    def test_a_lock_on_a_deleted_file_guards_nothing(self, netrc: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """If the lock file is deleted between opening and locking, a new one is created and locked."""
        real = fcntl.flock

        def flock(file: int, operation: int) -> None:
            monkeypatch.setattr(fcntl, "flock", real)
            beside(netrc).unlink()
            real(file, operation)

        monkeypatch.setattr(fcntl, "flock", flock)
        lock = netrc_lock(str(netrc))
        with pytest.raises(UvtokendError):
            netrc_lock(str(netrc))
        lock.remove()

    @pytest.mark.mounts
    def test_in_a_read_only_directory_the_netrc_is_locked(self, netrc: Path) -> None:
        """If no lock file can be created, the netrc itself is locked and written in place, and the owner is still
        known."""
        netrc.write_bytes(b"#x\n")
        setup = 'd=$(dirname "$p"); mount --bind "$d" "$d"; mount --bind "$p" "$p"; mount -o remount,bind,ro "$d"'
        script = """
            import os, sys
            from uvtokend.core.model import Entry, Secret
            from uvtokend.disk import locks
            from uvtokend.disk.netrc_sink import NetrcSink
            from uvtokend.errors import UvtokendError
            path = sys.argv[1]
            before = os.stat(path).st_ino
            sink = NetrcSink(path)
            sink.take_ownership()
            try:
                locks.netrc_lock(path)
            except UvtokendError as error:
                print(f"pid {os.getpid()} " in error.message)
            print(locks.netrc_owner(path).pid == os.getpid())
            print(sink.deliver([Entry("a.example", "aws", Secret("t0"))], {}).note)
            print(os.stat(path).st_ino == before, os.listdir(os.path.dirname(path)))
            sink.release(remove=True)
            print(locks.netrc_owner(path), os.path.exists(path))
        """
        command = [sys.executable, "-c", textwrap.dedent(script), str(netrc)]
        done = in_namespace(setup, command, {**os.environ, "p": str(netrc)})
        assert done.stderr == ""
        assert done.stdout.splitlines() == [
            "True",
            "True",
            "The netrc is a single-file mount, so it is written in place.",
            "True ['.netrc']",
            "None True",
        ]

    def test_ownership_is_taken_as_soon_as_possible(self, netrc: Path) -> None:
        """A daemon starts even if the lock cannot be created yet. If another daemon takes the lock first, it does
        not deliver."""
        netrc.parent.rmdir()
        netrc.parent.write_bytes(b"")  # a file is in the way
        sink = NetrcSink(str(netrc))
        sink.take_ownership()
        netrc.parent.unlink()
        netrc.parent.mkdir(mode=0o700)
        with another(netrc), pytest.raises(DeliveryFailed, match="already has an owner") as caught:
            sink.deliver([Entry("a.example", "aws", Secret("t0"))], {})
        assert caught.value.reason == "not-owner"
        assert sink.deliver([Entry("a.example", "aws", Secret("t0"))], {}).changed
        assert netrc_owner(str(netrc)) is not None
        sink.release()

    def test_a_full_disk_does_not_prevent_the_lock(self, netrc: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """The lock holds even if its text cannot be written."""

        def full(*_: object) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "pwrite", full)
        lock = netrc_lock(str(netrc))
        with pytest.raises(UvtokendError, match="already has an owner: another process"):
            netrc_lock(str(netrc))
        lock.remove()


class TestChanging:
    def test_one_change_at_a_time(self, netrc: Path) -> None:
        """A change waits for another one to end, and then sees the text that it wrote."""
        first, order = threading.Event(), []

        def slow(text: bytes) -> bytes:
            first.set()
            waiter.join(0.05)  # it must wait, however long this takes
            order.append("slow")
            return text + b"#slow\n"

        def quick(text: bytes) -> bytes:
            order.append("quick")
            return text + b"#quick\n"

        def wait() -> None:
            first.wait()
            NetrcSink(str(netrc)).change(quick)

        waiter = threading.Thread(target=wait)
        waiter.start()
        NetrcSink(str(netrc)).change(slow)
        waiter.join()
        assert (order, netrc.read_bytes()) == (["slow", "quick"], b"#slow\n#quick\n")
        assert os.listdir(netrc.parent) == [".netrc"]

    def test_it_does_not_wait_forever(self, netrc: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """If another uvtokend keeps the lock during a change, the delivery fails with that reason."""
        monkeypatch.setattr(locks, "PATIENCE", 0.02)
        with locks.changing(str(netrc)), pytest.raises(DeliveryFailed) as caught:
            NetrcSink(str(netrc)).change(lambda text: text + b"#x\n")
        assert caught.value.reason == "busy"

    @pytest.mark.linux("the list of locks is in /proc")
    @pytest.mark.parametrize("kind", ["LOCK_EX", "LOCK_SH"])
    def test_a_foreign_lock_is_named(self, kind: str, netrc: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """If another program keeps the directory locked, the failure names the program, with the command that ends
        it."""
        monkeypatch.setattr(locks, "PATIENCE", 0.02)
        words = f"import fcntl, os, sys; fcntl.flock(os.open(sys.argv[1], 0), fcntl.{kind}); print(flush=True); input()"
        command = [sys.executable, "-c", words, str(netrc.parent)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as foreign:
            assert foreign.stdout is not None
            foreign.stdout.readline()
            with pytest.raises(DeliveryFailed) as caught:
                NetrcSink(str(netrc)).change(lambda text: text + b"#x\n")
            name = Path(f"/proc/{foreign.pid}/comm").read_text().strip()
            foreign.kill()
        message = f"{name} (pid {foreign.pid}) has kept the directory {netrc.parent} of the netrc locked for 0.02 s."
        assert (caught.value.message, caught.value.hint) == (message, f"let it finish, or: kill {foreign.pid}")

    @pytest.mark.parametrize("locker", [None, locks.Owner(1 << 30, "here")])
    def test_an_unknown_lock(self, locker: locks.Owner | None, netrc: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """If the system does not show which program keeps the directory locked, or that one has ended and a child of
        it keeps the lock, the fix shows how to find it."""
        monkeypatch.setattr(locks, "PATIENCE", 0.02)
        monkeypatch.setattr(locks, "_listed", lambda *_: locker)
        with locks.changing(str(netrc)), pytest.raises(DeliveryFailed) as caught:
            NetrcSink(str(netrc)).change(lambda text: text + b"#x\n")
        assert caught.value.message.startswith(f"Another program has kept the directory {netrc.parent} of the netrc")
        assert caught.value.hint == fixes.users_of(str(netrc.parent))

    def test_where_directories_cannot_be_locked(self, netrc: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """NFS refuses to lock directories, and the netrc is written anyway."""

        def refuse(*_: object) -> None:
            raise OSError(9, "Bad file descriptor")

        monkeypatch.setattr(fcntl, "flock", refuse)
        assert NetrcSink(str(netrc)).change(lambda text: text + b"#x\n").changed

    def test_adopt_during_deliveries_loses_nothing(self, netrc: Path) -> None:
        """While a token is delivered as often as possible, each adopted foreign entry is backed up exactly once."""
        stop, rotations = threading.Event(), [0]

        def rotate() -> None:
            sink = NetrcSink(str(netrc))
            took = 0.0
            while not stop.wait(took):  # leaves time for others, since a delivery may look twice
                begun = time.monotonic()
                rotations[0] += 1
                sink.deliver([Entry("a.example", "aws", Secret(f"t{rotations[0]}"))], {"a.example": ()})
                took = time.monotonic() - begun

        rotating = threading.Thread(target=rotate)
        rotating.start()
        sink = NetrcSink(str(netrc))
        kept: list[bytes] = []
        for number in range(30):
            line = b"machine c.example login me password p%d\n" % number
            sink.change(lambda text, line=line: text + line)  # type: ignore[misc]
            taken: list[TakeOver] = []

            def edit(text: bytes, taken: list[TakeOver] = taken) -> bytes:
                taken.append(take_over(text, "c.example"))
                return taken[-1].text

            sink.change(edit, before_write=lambda taken=taken: kept.append(taken[-1].backup))  # type: ignore[misc]
        stop.set()
        rotating.join()
        assert [scan(restore(b"", backup)).entries[0].password for backup in kept] == [b"p%d" % n for n in range(30)]
        assert netrc.read_text().splitlines()[1] == f"machine a.example login aws password t{rotations[0]}"
        assert os.listdir(netrc.parent) == [".netrc"]


def test_a_deleted_lock_file_is_created_again(netrc: Path) -> None:
    """If the lock file was deleted, the next change locks a new one. If another process did so first, nothing is
    written."""
    sink = NetrcSink(str(netrc))
    sink.take_ownership()
    beside(netrc).unlink()
    sink.change(lambda _: b"#one\n")
    with pytest.raises(UvtokendError, match="already has an owner"):
        NetrcSink(str(netrc)).take_ownership()
    beside(netrc).unlink()
    with another(netrc) as owner:
        with pytest.raises(DeliveryFailed, match=f"pid {owner.pid} "):
            sink.change(lambda _: b"#two\n")
        assert netrc.read_bytes() == b"#one\n"
        assert beside(netrc).exists()  # the other owner's
    sink.change(lambda _: b"#three\n")
    sink.release(remove=True)
    assert [file.name for file in netrc.parent.iterdir()] == [".netrc"]


def test_a_changed_link_moves_the_ownership(netrc: Path) -> None:
    """If the netrc is a link and its target changes, the new target is owned and the former one is released."""
    first, second = netrc.with_name("first"), netrc.with_name("second")
    netrc.symlink_to(first)
    sink = NetrcSink(str(netrc))
    sink.take_ownership()
    sink.change(lambda _: b"#one\n")
    netrc.unlink()
    netrc.symlink_to(second)
    sink.change(lambda _: b"#two\n")
    assert netrc_owner(str(first)) is None
    assert not beside(first).with_name(".first.uvtokend.lock").exists()
    owner = netrc_owner(str(second))
    assert owner is not None
    assert owner.pid == os.getpid()
    sink.release()
    assert (first.read_bytes(), second.read_bytes()) == (b"#one\n", b"#two\n")


@pytest.mark.parametrize("late", ["before", "after", "a new file"])
def test_only_an_empty_netrc_is_deleted(late: str, netrc: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Text that another program writes during the deletion is kept, whether it writes to this file or to a new one."""
    netrc.write_bytes(b"")
    sink, rename = NetrcSink(str(netrc)), os.rename

    def renamed(one: str, other: str) -> None:
        if late == "before" and one == str(netrc):
            netrc.write_bytes(b"#mine\n")
        rename(one, other)
        if late != "before" and one == str(netrc):
            Path(other).write_bytes(b"#mine\n")
            if late == "a new file":
                netrc.write_bytes(b"#new\n")

    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", renamed)
        sink.delete_empty()
    assert sorted(netrc.read_bytes().split()) == ([b"#mine", b"#new"] if late == "a new file" else [b"#mine"])
    netrc.write_bytes(b"")
    sink.delete_empty()
    assert list(netrc.parent.iterdir()) == []


@pytest.mark.parametrize("kind", ["directory", "link", "socket"])
def test_an_unusable_lock_file_is_reported(kind: str, netrc: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If something else is in the lock's place, nothing is written, because two daemons could write one netrc."""
    lock = beside(netrc)
    match kind:
        case "directory":
            lock.mkdir()
        case "link":
            lock.symlink_to(netrc)
        case "socket":
            with socket.socket(socket.AF_UNIX) as bound:
                monkeypatch.chdir(netrc.parent)  # a path of a socket must be short
                bound.bind(lock.name)
    netrc.write_bytes(b"#mine\n")
    sink = NetrcSink(str(netrc))
    with pytest.raises(UvtokendError, match="not a file of uvtokend") as caught:
        sink.take_ownership()
    assert caught.value.hint == f"rm -r {lock}"
    with pytest.raises(DeliveryFailed, match="not a file of uvtokend"):
        sink.change(lambda _: b"#other\n")
    assert netrc.read_bytes() == b"#mine\n"


@pytest.mark.parametrize("name", ["", ".new", ".base", ".old"])
def test_a_directory_in_place_of_a_temporary_file(name: str, netrc: Path) -> None:
    """The fix removes the directory at the temporary name; it does not move the netrc away."""
    planted = netrc.with_name(f"..netrc.uvtokend{name}")
    planted.mkdir()
    netrc.write_bytes(b"#mine\n")
    for act in (lambda: NetrcSink(str(netrc)).change(lambda _: b"#other\n"), NetrcSink(str(netrc)).check_writable):
        with pytest.raises(DeliveryFailed) as caught:
            act()
        assert caught.value.hint == f"rm -r {planted}"
    assert netrc.read_bytes() == b"#mine\n"


def test_a_lock_of_another_process_is_not_deleted(netrc: Path) -> None:
    """If our lock file was deleted and another process created a new one, releasing ours does not delete it."""
    ours = netrc_lock(str(netrc))
    beside(netrc).unlink()
    with another(netrc) as owner:
        ours.remove()
        current = netrc_owner(str(netrc))
        assert current is not None
        assert current.pid == owner.pid

"""Tests that need a real Mac: its kernel, its file systems, launchd and the Keychain.

The hosted workflow runs them; other machines leave them out.
`tests/test_darwin.py` tests the same code with recorded answers of the kernel.
"""

from __future__ import annotations

import errno
import os
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from support.daemons import ask
from support.waiting import until
from uvtokend import clock, darwin, paths, peers
from uvtokend.cli import client
from uvtokend.core.model import Entry, Secret
from uvtokend.core.netrc.block import Ours
from uvtokend.disk import exchange, files, holders, locks, system_ca
from uvtokend.disk.locks import Lock
from uvtokend.disk.netrc_sink import NetrcSink
from uvtokend.errors import DeliveryFailed
from uvtokend.service import launchd, manager

pytestmark = [pytest.mark.macos, pytest.mark.slow]

FOREIGN = b"# mine\nmachine x.example login me password mine\n"
BLOCK = b"#uvtokend:begin\nmachine a.example login aws password t0\n#uvtokend:end\n"
OURS: Ours = {"a.example": ()}
TOKEN = Entry("a.example", "aws", Secret("t0"))
#: A program that opens a file, prints a line, and writes its input to the file.
HOLDER = """
import sys
with open(sys.argv[1], sys.argv[2], buffering=0) as file:
    print(flush=True)
    file.write(sys.stdin.buffer.read())
"""


@pytest.fixture
def netrc(tmp_path: Path) -> Path:
    """Return a netrc in its own directory."""
    path = tmp_path / "home" / ".netrc"
    path.parent.mkdir(mode=0o700)
    path.write_bytes(FOREIGN)
    path.chmod(0o600)
    return path


def deliver(netrc: Path) -> None:
    """Deliver one token."""
    NetrcSink(str(netrc)).deliver([TOKEN], OURS)


def holder(netrc: Path, how: str) -> subprocess.Popen[bytes]:
    """Start a program that opens the netrc, and return once it has."""
    command = [sys.executable, "-c", HOLDER, str(netrc), how]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"\n"
    return process


class TestFiles:
    """The netrc on Apple's file systems."""

    def test_two_names_are_swapped(self, tmp_path: Path) -> None:
        """renamex_np with RENAME_SWAP swaps two files on APFS (rename(2))."""
        one, other = tmp_path / "one", tmp_path / "other"
        one.write_text("1")
        other.write_text("2")
        before = one.stat().st_ino, other.stat().st_ino
        exchange.swap(str(one), str(other))
        assert (one.read_text(), other.read_text()) == ("2", "1")
        assert (other.stat().st_ino, one.stat().st_ino) == before

    @pytest.fixture
    def hfs(self, tmp_path: Path) -> Iterator[Path]:
        """Mount an HFS+ volume, which does not support RENAME_SWAP (hfs, core/hfs_vnops.c: ENOTSUP)."""
        image, volume = tmp_path / "hfs.dmg", tmp_path / "volume"
        create = ["hdiutil", "create", "-quiet", "-size", "16m", "-fs", "HFS+", "-volname", "uvtokend", str(image)]
        subprocess.run(create, check=True)
        subprocess.run(["hdiutil", "attach", "-quiet", "-nobrowse", "-mountpoint", volume, image], check=True)
        yield volume
        subprocess.run(["hdiutil", "detach", "-quiet", "-force", volume], check=True)

    def test_a_volume_without_swap(self, hfs: Path) -> None:
        """On a volume without RENAME_SWAP the delivery renames the new file instead, and keeps every foreign byte."""
        home = hfs / "home"
        home.mkdir(mode=0o700)
        netrc = home / ".netrc"
        netrc.write_bytes(FOREIGN)
        (home / "other").touch()
        with pytest.raises(OSError, match="upported") as caught:
            exchange.swap(str(netrc), str(home / "other"))
        assert caught.value.errno in exchange.UNSUPPORTED
        deliver(netrc)
        assert netrc.read_bytes() == BLOCK + FOREIGN

    @pytest.mark.parametrize(("how", "append"), [("ab", True), ("r+b", False)])
    def test_a_writer_is_seen(self, netrc: Path, how: str, append: bool) -> None:
        """libproc reports which process has the file open for writing, and whether it appends;
        readers are not reported.
        """
        with holder(netrc, "rb") as reader:
            assert holders.holders(str(netrc)) == []
            reader.kill()
        with holder(netrc, how) as process:
            (writer,) = holders.holders(str(netrc))
            assert (writer.pid, writer.appends) == (process.pid, append)
            assert writer.program
            process.communicate(b"")
        assert holders.holders(str(netrc)) == []

    @pytest.mark.parametrize(("how", "theirs"), [("wb", b"#theirs\n"), ("ab", b"#theirs\n")])
    def test_a_rival_that_truncates_or_appends(self, netrc: Path, how: str, theirs: bytes) -> None:
        """A delivery waits until a rival that has the netrc open has written, so the rival's text is not lost."""
        with holder(netrc, how) as process:
            with pytest.raises(DeliveryFailed, match=f"pid {process.pid}") as caught:
                NetrcSink(str(netrc)).deliver([TOKEN], OURS, urgent=False)
            assert caught.value.reason == "held"
            process.communicate(theirs)
        deliver(netrc)
        assert netrc.read_bytes() == BLOCK + (theirs if how == "wb" else FOREIGN + theirs)
        assert os.listdir(netrc.parent) == [".netrc"]

    def test_an_immutable_file(self, netrc: Path) -> None:
        """A netrc with the flag ``uchg`` causes EPERM; the command of the fix makes the delivery work."""
        subprocess.run(["chflags", "uchg", netrc], check=True)
        with pytest.raises(DeliveryFailed) as caught:
            deliver(netrc)
        assert caught.value.reason == "immutable"
        assert caught.value.hint is not None
        subprocess.run(caught.value.hint, shell=True, check=True)
        deliver(netrc)
        assert netrc.read_bytes() == BLOCK + FOREIGN

    def test_attributes_and_access_lists_are_kept(self, netrc: Path) -> None:
        """fcopyfile copies extended attributes and access lists to the new file."""
        subprocess.run(["xattr", "-w", "user.note", "mine", netrc], check=True)
        subprocess.run(["chmod", "+a", "staff allow read", netrc], check=True)
        deliver(netrc)
        said = subprocess.run(["xattr", "-p", "user.note", netrc], capture_output=True, text=True, check=True).stdout
        listed = subprocess.run(["ls", "-le", netrc], capture_output=True, text=True, check=True).stdout
        assert said == "mine\n"
        assert "group:staff allow read" in listed

    def test_a_full_sync(self, netrc: Path) -> None:
        """F_FULLFSYNC works on the file system of the home directory, for files and directories."""
        for path in (netrc, netrc.parent):
            file = os.open(path, os.O_RDONLY)
            darwin.full_sync(file)
            os.close(file)

    def test_a_path_in_another_case(self, netrc: Path) -> None:
        """On a case-insensitive volume both spellings have the same real path; on a case-sensitive one they differ."""
        shouted = netrc.with_name(".NETRC")
        same = shouted.exists()
        assert (files.real_path(str(shouted)) == files.real_path(str(netrc))) is same

    def test_a_socket_is_not_a_netrc(self, netrc: Path) -> None:
        """Opening a socket fails with EOPNOTSUPP (open(2)), and the delivery reports that it is not a file."""
        netrc.unlink()
        with closing(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)) as server:
            server.bind(str(netrc))
            with pytest.raises(DeliveryFailed) as caught:
                deliver(netrc)
        assert caught.value.reason == "not-a-file"


class TestKernel:
    """What the kernel reports about processes and about itself."""

    def test_the_boot_session(self) -> None:
        """`boot_session` returns the same value as sysctl(8), and the clock includes time asleep."""
        said = subprocess.run(["sysctl", "-n", "kern.bootsessionuuid"], capture_output=True, text=True, check=True)
        assert darwin.boot_session() == said.stdout.strip() == clock.boot().id
        assert time.clock_gettime(clock._CLOCK) >= time.clock_gettime(clock._AWAKE)

    def test_memory(self) -> None:
        """The memory footprint grows by the size of what is filled."""
        before = darwin.memory()
        block = os.urandom(64 << 20)
        assert len(block) == 64 << 20
        assert darwin.memory() - before > 48 << 20

    def test_the_layouts(self) -> None:
        """The kernel's answer about an open file has the size that our structure expects."""
        with open(__file__, "rb") as file:
            result, _, code = darwin.native().descriptor_info(os.getpid(), file.fileno(), 1, darwin._VNODE_SIZE)
        assert result == darwin._VNODE_SIZE, os.strerror(code)

    def test_peers(self, tmp_path: Path) -> None:
        """LOCAL_PEERCRED and LOCAL_PEERPID name this process at both ends;
        after the peer closes, its pid is 0 (ENOTCONN).
        """
        with closing(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)) as server, ExitStack() as ends:
            server.bind(str(tmp_path / "s"))
            server.listen()
            near = ends.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
            near.connect(str(tmp_path / "s"))
            far, _ = server.accept()
            assert [peers.pid(end) for end in (near, far)] == [os.getpid()] * 2
            assert [peers.uid(end) for end in (near, far)] == [os.geteuid()] * 2
            far.close()
            assert peers.pid(near) == 0
            assert peers.uid(near) == os.geteuid()

    def test_a_full_queue(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """If the socket's queue is full, the kernel refuses (unp_connect);
        since its lock is held, the client reports a hang.
        """
        tmp_path.chmod(0o700)
        monkeypatch.setenv("UVTOKEND_SOCKET", str(tmp_path / "s"))
        lock = Lock(f"{paths.socket_file()}.lock", "The socket")
        with closing(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)) as server, ExitStack() as waiting:
            server.bind(paths.socket_file())
            server.listen(1)
            for _ in range(16):
                one = waiting.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
                one.setblocking(False)
                if one.connect_ex(paths.socket_file()) == errno.ECONNREFUSED:
                    break
            with pytest.raises(client.NoAnswerError):
                client.Connection(timeout=0.05)
        lock.remove()

    def test_the_owner_is_here(self, netrc: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """After the machine's name has changed, the boot session still shows that the lock's
        owner runs on this machine.
        """
        lock = locks.netrc_lock(str(netrc))
        monkeypatch.setattr(socket, "gethostname", lambda: "elsewhere.example")
        owner = locks.netrc_owner(str(netrc))
        assert owner is not None
        assert (owner.pid, owner.is_here) == (os.getpid(), True)
        lock.remove()


class TestSecurity:
    """Apple's certificates and the Keychain."""

    def test_the_systems_certificates(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """The exported bundle of system certificates can be loaded and has more than a hundred authorities."""
        monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
        context = ssl.create_default_context(cafile=system_ca.bundle())
        assert context.cert_store_stats()["x509_ca"] > 100

    def test_dialogs_can_be_forbidden(self) -> None:
        """The Keychain accepts the setting; the test uses its own process because the setting
        would affect all tests.
        """
        script = "from uvtokend import darwin; print(darwin.forbid_keychain_dialogs())"
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
        assert done.stdout == "True\n"


@pytest.mark.gui
class TestLaunchd:
    """A real agent with its own label."""

    @pytest.fixture
    def home(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
        """Return a home directory; unload the agent afterwards if it is still loaded."""
        tmp_path.chmod(0o700)
        monkeypatch.setenv("HOME", str(tmp_path))
        monkeypatch.setattr(launchd, "LAUNCHD_LABEL", f"io.github.uvtokend.test{os.getpid()}")
        (tmp_path / "config.toml").touch(0o600)
        yield tmp_path
        launchd.uninstall()

    def test_install_stop_start_and_uninstall(self, home: Path) -> None:
        """The agent starts and answers, does not restart after a stop, can be started again,
        and is gone after uninstall.
        """
        control = home / "s"
        variables = {"HOME": home, "UVTOKEND_CONFIG": home / "config.toml", "UVTOKEND_SOCKET": control}
        command = [sys.executable, "-P", "-m", "uvtokend"]
        file = launchd.install(command, [(name, str(path)) for name, path in variables.items()])
        first = self.pid(control)
        assert "state = running" in launchd.lines()[0]
        ask(control, "stop")
        until(lambda: not psutil.pid_exists(first))
        until(lambda: "last exit code = 0" in launchd.lines()[0])
        service = manager.installed()
        assert service is not None
        service.start()
        second = self.pid(control)
        assert second != first
        assert launchd.uninstall() == file
        until(lambda: not psutil.pid_exists(second))
        assert launchd.lines() == ["No launchd agent is installed."]

    def pid(self, control: Path) -> int:
        """Return the pid of the daemon once it answers."""

        def answered() -> Any:
            with suppress(FileNotFoundError, ConnectionRefusedError):
                return ask(control, "version")["pid"]

        return int(until(answered))

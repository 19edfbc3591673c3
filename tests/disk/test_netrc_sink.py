"""Delivery to real files: links, directories, permissions, full disks, mounts, rivals and crashes."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import random
import signal
import socket
import stat
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from support import linux, xnu
from support.namespace import in_namespace
from support.unprivileged import ORDINARY, as_user
from uvtokend import darwin
from uvtokend.core import fixes
from uvtokend.core.model import Entry, Secret
from uvtokend.core.netrc.block import BEGIN, Ours
from uvtokend.disk import exchange, files, holders, netrc_failures, netrc_sink
from uvtokend.disk.netrc_sink import DeliveryResult, NetrcSink
from uvtokend.errors import DeliveryFailed

FOREIGN = b"# mine\nmachine x.example login me password mine\n\xff no last line end"
OURS: Ours = {"a.example": ()}


def entry(token: str = "t0") -> Entry:
    return Entry("a.example", "aws", Secret(token))


def block(token: str = "t0") -> bytes:
    return f"#uvtokend:begin\nmachine a.example login aws password {token}\n#uvtokend:end\n".encode()


def leftover(path: Path) -> Path:
    return path.with_name(f".{path.name}.uvtokend")


def beside(path: Path, ending: str) -> Path:
    return path.with_name(f".{path.name}.uvtokend{ending}")


def refused(act: Callable[[], object]) -> DeliveryFailed:
    with pytest.raises(DeliveryFailed) as caught:
        act()
    assert caught.value.message.endswith(".")
    return caught.value


@pytest.fixture
def home(tmp_path: Path) -> Path:
    directory = tmp_path / "home"
    directory.mkdir(mode=0o700)
    return directory


@pytest.fixture
def path(home: Path) -> Path:
    return home / ".netrc"


def deliver(path: Path, *wanted: Entry, urgent: bool = True) -> DeliveryResult:
    return NetrcSink(str(path)).deliver(wanted, OURS, urgent=urgent)


class TestDeliver:
    def test_a_missing_netrc_is_created(self, path: Path) -> None:
        """A missing netrc is created with mode 0600, and no other file stays in the directory."""
        assert deliver(path, entry()) == DeliveryResult(frozenset(), (), None, changed=True)
        assert path.read_bytes() == block()
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert os.listdir(path.parent) == [".netrc"]

    def test_no_empty_netrc_is_created(self, path: Path) -> None:
        """Without entries no netrc is created, but one that becomes empty is kept."""
        assert not deliver(path).changed
        assert not path.exists()
        deliver(path, entry())
        assert deliver(path).changed
        assert path.read_bytes() == b""

    def test_foreign_text_and_mode_are_kept(self, path: Path) -> None:
        """The foreign bytes and a stricter mode are kept; a laxer mode becomes 0600."""
        for before, after in ((0o400, 0o400), (0o600, 0o600), (0o644, 0o600), (0o755, 0o600)):
            path.write_bytes(FOREIGN)
            path.chmod(before)
            deliver(path, entry())
            assert path.read_bytes() == block() + FOREIGN
            assert stat.S_IMODE(path.stat().st_mode) == after
            path.unlink()

    def test_equal_text_is_not_written(self, path: Path) -> None:
        """If the text is already right, only a mode that lets others read is corrected."""
        path.write_bytes(FOREIGN)
        deliver(path, entry())
        before = NetrcSink(str(path)).fingerprint()
        path.chmod(0o644)
        assert not deliver(path, entry()).changed
        assert NetrcSink(str(path)).fingerprint() == before
        assert stat.S_IMODE(path.stat().st_mode) == 0o600

    def test_without_entries_the_mode_is_kept(self, path: Path) -> None:
        """A file without entries of ours keeps its mode."""
        path.write_bytes(FOREIGN)
        path.chmod(0o644)
        assert not deliver(path).changed
        assert stat.S_IMODE(path.stat().st_mode) == 0o644

    def test_symlinks_stay(self, path: Path) -> None:
        """The file behind the links is written, even if it does not exist yet, and the links stay."""
        store = path.parent / "dotfiles"
        store.mkdir(mode=0o700)
        path.symlink_to("dotfiles/link")
        (store / "link").symlink_to("netrc")
        for _ in range(2):
            deliver(path, entry())
            assert path.is_symlink()
            assert (store / "link").is_symlink()
            assert (store / "netrc").read_bytes() == block()
            (store / "netrc").unlink()
        assert NetrcSink(str(path)).path == str(store / "netrc")

    def test_problems_and_foreign_hosts_are_reported(self, path: Path) -> None:
        """The delivery reports foreign hosts and problems, with the name of the file as given."""
        path.write_bytes(b"machine a.example login me password mine\n\n# two words\n")
        delivery = deliver(path, entry())
        assert delivery.foreign == {"a.example"}
        assert [(problem.file, problem.where) for problem in delivery.problems] == [(str(path), "line 3")]
        assert not delivery.changed

    @pytest.mark.linux("Python reads extended attributes on Linux only")
    def test_owner_and_attributes_are_kept(self, path: Path) -> None:
        """The new file has the owner and the extended attributes of the old one."""
        path.write_bytes(FOREIGN)
        linux.set_attribute(path, "user.note", b"mine")
        if os.geteuid() == 0:
            os.chown(path, 12345, 23456)
        owner = path.stat()
        deliver(path, entry())
        assert linux.attribute(path, "user.note") == b"mine"
        assert (path.stat().st_uid, path.stat().st_gid) == (owner.st_uid, owner.st_gid)

    def test_a_file_of_another_owner(self, users_home: Path) -> None:
        """If the new file cannot get the old one's owner, the old one is left unchanged."""
        path = users_home / ".netrc"
        path.write_bytes(b"#x\n")
        path.chmod(0o644)
        if os.geteuid() == 0:
            done = as_owner(TestAsOrdinaryUser.SCRIPT, str(path))
            assert done.stdout == f"not-ours|sudo chown {ORDINARY} {path}\n"
            assert path.read_bytes() == b"#x\n"
        assert os.listdir(users_home) == [".netrc"]

    @pytest.mark.linux("the bytes are a POSIX access list of Linux")
    def test_access_lists_are_kept(self, path: Path) -> None:
        """The access control list of the old file is kept."""
        path.write_bytes(FOREIGN)
        #: POSIX ACL version 2; owner rw, user 12345 r, group none, mask r, others none (linux/posix_acl_xattr.h).
        rules = [(1, 6, -1), (2, 4, 12345), (4, 0, -1), (16, 4, -1), (32, 0, -1)]
        access = (2).to_bytes(4, "little") + b"".join(
            tag.to_bytes(2, "little") + rights.to_bytes(2, "little") + (who & 0xFFFFFFFF).to_bytes(4, "little")
            for tag, rights, who in rules
        )
        linux.set_attribute(path, "system.posix_acl_access", access)
        deliver(path, entry())
        assert linux.attribute(path, "system.posix_acl_access") == access
        assert path.read_bytes() == block() + FOREIGN

    def test_reading_and_fingerprints(self, path: Path) -> None:
        """Reading a missing file returns nothing, and the fingerprint changes with the file."""
        sink = NetrcSink(str(path))
        assert (sink.read(), sink.fingerprint()) == (b"", ())
        path.write_bytes(b"#a")
        first = sink.fingerprint()
        path.write_bytes(b"#ab")
        assert sink.fingerprint() != first
        assert sink.read() == b"#ab"


class TestRefusals:
    @pytest.mark.parametrize("act", ["read", "check_writable", "deliver"])
    def test_a_path_that_is_not_a_regular_file(self, path: Path, act: str) -> None:
        """A directory, a pipe and a link to itself are reported and left unchanged."""

        def run() -> object:
            sink = NetrcSink(str(path))
            return sink.deliver([entry()], {}) if act == "deliver" else getattr(sink, act)()

        path.mkdir()
        assert refused(run).reason == "is-a-directory"
        path.rmdir()
        os.mkfifo(path)
        assert refused(run).reason == "not-a-file"
        path.unlink()
        path.symlink_to(path)
        assert refused(run).reason == "symlink-loop"

    def test_a_file_that_is_too_large(self, path: Path) -> None:
        """A file of more than 16 MiB is refused."""
        path.touch()
        os.truncate(path, files.LIMIT + 1)
        assert refused(lambda: deliver(path, entry())).reason == "too-large"

    def test_a_missing_directory(self, home: Path) -> None:
        """Missing directories are created with mode 0700, but not for an empty file. A file in place of a directory
        is reported."""
        path = home / "no where" / "deep" / "netrc"
        assert not deliver(path).changed
        assert os.listdir(home) == []
        assert deliver(path, entry()).changed
        for directory in (path.parent, path.parent.parent):
            assert stat.S_IMODE(directory.stat().st_mode) == 0o700
        assert refused(lambda: deliver(path / "x", entry())).reason == "directory-missing"

    def test_a_directory_that_others_may_write(self, path: Path) -> None:
        """Such a directory is refused before anything is written, and the fix corrects it."""
        for mode in (0o770, 0o707, 0o1777):
            path.parent.chmod(mode)
            failure = refused(lambda: deliver(path, entry()))
            assert failure.reason == "open-directory"
            assert refused(NetrcSink(str(path)).check_writable).reason == "open-directory"
            assert os.listdir(path.parent) == []
        subprocess.run(failure.hint or "", shell=True, check=True)
        assert deliver(path, entry()).changed

    def test_a_bad_entry_changes_nothing(self, path: Path) -> None:
        """A token with a line break is refused, and the file stays unchanged."""
        path.write_bytes(FOREIGN)
        assert refused(lambda: deliver(path, entry("a\nb"))).reason == "control-character"
        assert path.read_bytes() == FOREIGN
        assert os.listdir(path.parent) == [".netrc"]

    @pytest.mark.parametrize("kind", ["link", "directory", "pipe"])
    def test_a_temporary_name_that_is_taken(self, path: Path, kind: str) -> None:
        """If the temporary name is not a regular file, it is neither followed, opened nor deleted."""
        make: dict[str, Callable[[], object]] = {
            "link": lambda: leftover(path).symlink_to(path.parent / "elsewhere"),
            "directory": leftover(path).mkdir,
            "pipe": lambda: os.mkfifo(leftover(path)),
        }
        make[kind]()
        for act in (lambda: deliver(path, entry()), NetrcSink(str(path)).check_writable):
            failure = refused(act)
            assert failure.reason == "temporary-taken"
        assert os.listdir(path.parent) == [leftover(path).name]
        subprocess.run(failure.hint or "", shell=True, check=True)
        assert deliver(path, entry()).changed


def as_owner(script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return as_user(
        script, *arguments, imports="ctypes, fcntl, pathlib, uvtokend.core.netrc.merge, uvtokend.disk.netrc_sink"
    )


@pytest.fixture
def users_home(open_directory: Path) -> Iterator[Path]:
    """Return a home directory of the ordinary user that `as_owner` runs as."""
    home = open_directory / "home"
    home.mkdir(0o700)
    if os.geteuid() == 0:
        os.chown(home, ORDINARY, ORDINARY)
    yield home
    home.chmod(0o700)  # so that an ordinary user can remove it


class TestAsOrdinaryUser:
    SCRIPT = """
        import sys
        from uvtokend.core.model import Entry, Secret
        from uvtokend.disk.netrc_sink import NetrcSink
        from uvtokend.errors import DeliveryFailed
        sink = NetrcSink(sys.argv[1])
        try:
            sink.check_writable()
            print(sink.deliver([Entry("a.example", "aws", Secret("t0"))], {}).changed)
        except DeliveryFailed as failed:
            print(failed.reason, failed.hint, sep="|")
    """

    def test_delivers(self, users_home: Path) -> None:
        """Root permissions are not needed, even if the file has mode 0400."""
        path = users_home / ".netrc"
        assert (
            as_owner("import pathlib, sys; pathlib.Path(sys.argv[1]).write_bytes(b'#x\\n')", str(path)).returncode == 0
        )
        path.chmod(0o400)
        done = as_owner(self.SCRIPT, str(path))
        assert (done.stdout, done.stderr) == ("True\n", "")
        assert path.read_bytes() == block() + b"#x\n"
        assert stat.S_IMODE(path.stat().st_mode) == 0o400

    def test_a_temporary_file_of_another_user(self, users_home: Path) -> None:
        """Text that another user put there while the directory was writable never gets into the netrc."""
        if os.geteuid() != 0:
            return  # other users need root
        path = users_home / ".netrc"
        planted = b"default login evil password evil\n"
        for mode in (0o644, 0o744):
            leftover(path).write_bytes(planted)
            leftover(path).chmod(mode)
            os.chown(leftover(path), ORDINARY + 1, ORDINARY + 1)
            done = as_owner(self.SCRIPT, str(path))
            assert done.stdout == f"temporary-taken|rm -r {leftover(path)}\n"
            assert (leftover(path).read_bytes(), path.exists()) == (planted, False)

    def test_a_second_name_of_the_netrc(self, users_home: Path) -> None:
        """Hard links are kept: both names show the same private text."""
        path, second = users_home / ".netrc", users_home / "second"
        words = (
            "import os, pathlib, sys; p = pathlib.Path(sys.argv[1]); p.write_bytes(b'#x\\n'); os.link(p, sys.argv[2])"
        )
        assert as_owner(words, str(path), str(second)).returncode == 0
        path.chmod(0o600)
        assert as_owner(self.SCRIPT, str(path)).stdout == "True\n"
        assert (path.read_bytes(), second.read_bytes()) == (block() + b"#x\n", block() + b"#x\n")
        assert path.samefile(second)
        assert [stat.S_IMODE(one.stat().st_mode) for one in (path, second)] == [0o600, 0o600]

    def test_a_read_only_directory(self, users_home: Path) -> None:
        """The failure has a fix, `check_writable` reports it too, and nothing is changed."""
        users_home.chmod(0o500)
        done = as_owner(self.SCRIPT, str(users_home / ".netrc"))
        assert done.stdout == f"no-permission|chmod u+rwx {users_home}\n"
        assert os.listdir(users_home) == []

    def test_an_unreadable_file(self, users_home: Path) -> None:
        """The failure names the file and has a fix."""
        path = users_home / ".netrc"
        path.write_bytes(b"#x\n")
        path.chmod(0o000)
        if os.geteuid() == 0:
            os.chown(path, ORDINARY, ORDINARY)
        done = as_owner(self.SCRIPT, str(path))
        assert done.stdout == f"no-permission|chmod u+rw {path}\n"

    def test_a_file_of_another_user(self, users_home: Path) -> None:
        """If an editor under sudo changed the owner, the fix corrects the owner, not the mode."""
        path = users_home / ".netrc"
        path.write_bytes(b"#x\n")
        path.chmod(0o600)
        if os.geteuid() == 0:
            done = as_owner(self.SCRIPT, str(path))
            assert done.stdout == f"not-ours|sudo chown {ORDINARY} {path}\n"

    def test_a_directory_of_another_user(self, users_home: Path) -> None:
        """A directory whose owner could replace the netrc is refused; the system's own directories are accepted."""
        other = users_home / "other"
        other.mkdir()
        if os.geteuid() == 0:
            os.chown(other, ORDINARY + 1, ORDINARY + 1)
            done = as_owner(self.SCRIPT, str(other / "netrc"))
            assert done.stdout == f"open-directory|sudo chown {ORDINARY} {other}\n"
            other.chmod(0o000)
            users_home.chmod(0o000)
            assert as_owner(self.SCRIPT, str(other / "netrc")).stdout == "no-permission|None\n"
        assert as_owner(self.SCRIPT, "/etc/netrc").stdout == "no-permission|None\n"


def mounted(setup: str, script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a script after shell lines that mount something; the path of the netrc is ``$p`` there."""
    command = [sys.executable, "-c", textwrap.dedent(script), *arguments]
    return in_namespace(setup, command, {**os.environ, "p": arguments[0]})


@pytest.mark.mounts
class TestMounts:
    SCRIPT = """
        import os, sys
        from uvtokend.core.model import Entry, Secret
        from uvtokend.disk.netrc_sink import NetrcSink
        from uvtokend.errors import DeliveryFailed
        path, *lengths = sys.argv[1:]
        sink = NetrcSink(path)
        for length in lengths:
            try:
                sink.check_writable()
                ours = {"a.example": ()}
                wanted = [Entry("a.example", "aws", Secret("t" * int(length)))] if int(length) else []
                done = sink.deliver(wanted, ours)
                print(done.note is not None, done.changed, sink.read().decode().count("t" * int(length)) > 0)
            except DeliveryFailed as failed:
                print(failed.reason)
        print(sink.read() == b"#x\\n", sorted(os.listdir(os.path.dirname(path))))
    """

    def test_a_single_file_mount(self, path: Path) -> None:
        """A single-file mount cannot be replaced, so it is written in place, which the result notes."""
        path.write_bytes(b"#x\n")
        path.chmod(0o644)
        done = mounted('mount --bind "$p" "$p"', self.SCRIPT, str(path), "9", "9", "99", "3", "0")
        assert done.stderr == ""
        assert done.stdout.splitlines() == [
            "True True True",
            "True False True",
            "True True True",
            "True True True",
            "True True True",
            "True ['.netrc']",
        ]
        assert stat.S_IMODE(path.stat().st_mode) == 0o600

    def test_a_mounted_file_in_a_read_only_directory(self, path: Path) -> None:
        """Under systemd's ProtectHome with ReadWritePaths=%h/.netrc no file can be created beside the netrc; it is
        written in place."""
        path.write_bytes(b"#x\n")
        setup = 'd=$(dirname "$p"); mount --bind "$d" "$d"; mount --bind "$p" "$p"; mount -o remount,bind,ro "$d"'
        done = mounted(setup, self.SCRIPT, str(path), "9", "0")
        assert done.stderr == ""
        assert done.stdout.splitlines() == ["True True True", "True True True", "True ['.netrc']"]

    def test_a_read_only_file_system(self, path: Path) -> None:
        """A read-only file system is reported, and no write in place is tried."""
        path.write_bytes(b"#x\n")
        setup = 'd=$(dirname "$p"); mount --bind "$d" "$d"; mount -o remount,bind,ro "$d"'
        done = mounted(setup, self.SCRIPT, str(path), "9")
        assert (done.stdout.splitlines(), done.stderr) == (["read-only", "True ['.netrc']"], "")

    @pytest.mark.parametrize("bind", ["", '\nmount --bind "$p" "$p"'])
    def test_a_full_disk(self, path: Path, bind: str) -> None:
        """A full disk is reported, the old file stays whole, no other file remains, and the next delivery succeeds."""
        setup = 'd=$(dirname "$p"); mount -t tmpfs -o size=64k,mode=700 none "$d"; printf "#x\\n" > "$p"'
        setup += '; head -c 53000 /dev/zero > "$d/fill"' + bind
        done = mounted(setup, self.SCRIPT, str(path), "12000", "10", "0")
        assert done.stderr == ""
        in_place = bool(bind)
        assert done.stdout.splitlines() == [
            "disk-full",
            f"{in_place} True True",
            f"{in_place} True True",
            "True ['.netrc', 'fill']",
        ]


def without_exchange(_one: str, _other: str) -> None:
    raise OSError(errno.EINVAL, "no exchange here")


class TestFallbacks:
    def test_exchange_of_the_system(self, home: Path) -> None:
        """The system call exchanges two files and reports errors."""
        (home / "a").write_text("1")
        (home / "b").write_text("2")
        exchange.swap(str(home / "a"), str(home / "b"))
        assert ((home / "a").read_text(), (home / "b").read_text()) == ("2", "1")
        with pytest.raises(FileNotFoundError):
            exchange.swap(str(home / "a"), str(home / "c"))

    def test_a_file_system_without_exchange(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Without an exchange the file is replaced by a rename, unless another program changed it since it was read."""
        path.write_bytes(FOREIGN)
        monkeypatch.setattr(exchange, "swap", without_exchange)
        assert deliver(path, entry()).changed
        assert path.read_bytes() == block() + FOREIGN
        edits = iter([b"#1\n", b"#2\n"])

        def rival(_one: str, _other: str) -> None:
            with contextlib.suppress(StopIteration):
                path.write_bytes(path.read_bytes() + next(edits))
            without_exchange(_one, _other)

        monkeypatch.setattr(exchange, "swap", rival)
        path.write_bytes(b"")
        deliver(path, entry("t1"))
        assert path.read_bytes() == block("t1") + b"#1\n#2\n"
        assert os.listdir(path.parent) == [".netrc"]

    def test_a_file_deleted_during_a_delivery_without_exchange(
        self, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The file is created again without the text that the other program deleted."""
        path.write_bytes(b"#old\n")

        def rival(_one: str, _other: str) -> None:
            path.unlink(missing_ok=True)
            without_exchange(_one, _other)

        monkeypatch.setattr(exchange, "swap", rival)
        deliver(path, entry())
        assert path.read_bytes() == block()
        assert os.listdir(path.parent) == [".netrc"]

    def test_a_file_system_without_links(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Without hard links, a new file appears complete by a rename."""
        monkeypatch.setattr(os, "link", without_exchange)
        assert deliver(path, entry()).changed
        assert path.read_bytes() == block()
        assert os.listdir(path.parent) == [".netrc"]

    def test_a_program_that_keeps_the_file_open(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """While another program holds the file open for writing, it is written in place, so that the program's text
        is not lost."""
        monkeypatch.setattr(files, "PATIENCE", 0.01)
        path.write_bytes(b"#1\n")
        with path.open("ab", buffering=0) as typing:
            assert deliver(path, entry()) == DeliveryResult(frozenset(), (), None, changed=True)
            typing.write(b"#2\n")
        assert path.read_bytes() == block() + b"#1\n#2\n"
        assert os.listdir(path.parent) == [".netrc"]

    @pytest.mark.parametrize("cut", [0, 1, 2, 3])
    @pytest.mark.parametrize("length", [3, 300])
    def test_a_crash_during_a_write_in_place(
        self, path: Path, monkeypatch: pytest.MonkeyPatch, length: int, cut: int
    ) -> None:
        """Whatever mixture of both texts a crash leaves, the next delivery restores a complete text from it."""
        foreign = b"machine x.example login me password mine\r\n" * 40 + b"no last line end"
        path.write_bytes(foreign)
        deliver(path, entry("t" * 30))
        monkeypatch.setattr(files, "PATIENCE", 0.01)
        real, calls = files.write_all, iter(range(9))

        def write_all(file: int, text: bytes, at: int = 0) -> None:
            """Crash in one of the writes, before it or halfway through."""
            if os.fstat(file).st_ino != path.stat().st_ino or next(calls) != cut // 2:
                real(file, text, at)
                return
            real(file, text[: len(text) // 2 * (cut % 2)], at)
            raise KeyboardInterrupt

        held = path.open("ab", buffering=0)
        with held, monkeypatch.context() as patch, contextlib.suppress(KeyboardInterrupt):
            patch.setattr(files, "write_all", write_all)
            deliver(path, entry("u" * length))
        deliver(path, entry("v"))
        assert path.read_bytes() == block("v") + foreign
        assert os.listdir(path.parent) == [".netrc"]

    @pytest.mark.parametrize("linked", [True, False])
    def test_a_line_that_is_deleted_after_a_crash_stays_deleted(
        self, path: Path, monkeypatch: pytest.MonkeyPatch, linked: bool
    ) -> None:
        """The crash comes before or after each step of the preparation, and the netrc is still the old one. A line that
        the user deletes then does not come back, whether the netrc is written in place (linked) or not. What an
        earlier crash left alone, the text of a write in place, changes nothing."""
        mine = b"machine x.example login me password mine\n"

        def crash_at(step: int) -> bool:
            """Deliver, crash at a step, and return whether there was such a step."""
            steps = iter(range(99))

            def crashing(real: Callable[..., object]) -> Callable[..., object]:
                def call(*args: object) -> object:
                    if next(steps) == step:
                        raise KeyboardInterrupt
                    return real(*args)

                return call

            with monkeypatch.context() as patch, contextlib.suppress(KeyboardInterrupt):
                patch.setattr(os, "rename", crashing(os.rename))
                patch.setattr(exchange, "swap", crashing(exchange.swap))
                patch.setattr(files, "overwrite", crashing(files.overwrite))
                deliver(path, entry("t2"))
            return b"t2" not in path.read_bytes()

        step = 0
        while True:
            path.unlink(missing_ok=True)
            path.write_bytes(b"#first\n" + mine)
            deliver(path, entry("t1"))
            if linked:
                path.with_name("second").unlink(missing_ok=True)
                os.link(path, path.with_name("second"))
            beside(path, ".old").write_bytes(b"#first\n")
            if not crash_at(step):
                break
            path.write_bytes(path.read_bytes().replace(mine, b""))
            deliver(path, entry("t3"))
            assert (step, path.read_bytes()) == (step, block("t3") + b"#first\n")
            step += 1
        assert step == (3 if linked else 2)

    def test_a_rival_that_never_stops(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """After many attempts the delivery fails, and the rival's text stays."""
        path.write_bytes(b"#0\n")
        real = exchange.swap
        count = iter(range(1, 10_000))

        def swap(one: str, other: str) -> None:
            if BEGIN in Path(one).read_bytes():
                path.write_bytes(b"#%d\n" % next(count))
            real(one, other)

        monkeypatch.setattr(exchange, "swap", swap)
        assert refused(lambda: deliver(path, entry())).reason == "busy"
        assert path.read_bytes() == b"#200\n"
        assert os.listdir(path.parent) == [".netrc"]


@contextlib.contextmanager
def holder(path: Path, how: str, text: str = "", *, say: str = "") -> Iterator[subprocess.Popen[str]]:
    """Run a program that holds the netrc open for writing until its input ends, as ``gpg -d x > ~/.netrc`` does.

    Args:
        path: The netrc.
        how: ``wb``, ``ab`` or ``r+b``.
        text: What it writes at the start.
        say: What it writes when its input ends.
    """
    script = """
        import sys
        path, how, text, say = sys.argv[1:]
        with open(path, how, buffering=0) as file:
            file.write(text.encode())
            print(flush=True)
            sys.stdin.read()
            file.write(say.encode())
    """
    words = [sys.executable, "-c", textwrap.dedent(script), str(path), how, text, say]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield process
        assert process.stdin is not None
        process.stdin.close()


def like_a_mac(monkeypatch: pytest.MonkeyPatch) -> None:
    """Detect programs that write a file as on macOS, with a fake kernel."""
    monkeypatch.setattr(darwin, "native", xnu.Kernel)
    monkeypatch.setattr(files, "_has_writer", files._has_writer_on_macos)
    monkeypatch.setattr(netrc_sink, "holders", holders._on_macos)


@pytest.mark.parametrize("how", ["r+b", "ab"])
def test_an_undetected_program(path: Path, how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program opened the file before the exchange and writes after it; its line is read from the replaced file."""
    path.write_bytes(FOREIGN)
    monkeypatch.setattr(files, "_has_writer", lambda *_: None)
    real, theirs = time.sleep, path.open(how, buffering=0)

    def sleep(seconds: float) -> None:
        if not theirs.closed:
            with theirs:
                theirs.write(b"#a\n#b\n")
        real(seconds)

    monkeypatch.setattr(time, "sleep", sleep)
    deliver(path, entry())
    assert path.read_bytes() == block() + {"r+b": b"#a\n#b\n" + FOREIGN[6:], "ab": FOREIGN + b"#a\n#b\n"}[how]
    assert os.listdir(path.parent) == [".netrc"]


def test_a_recently_emptied_file_is_waited_for(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If an undetected program has just emptied the file, the delivery waits a second for its text."""
    path.write_bytes(b"")
    monkeypatch.setattr(files, "_has_writer", lambda *_: None)
    texts = iter([b"", FOREIGN])
    monkeypatch.setattr(time, "sleep", lambda _: path.write_bytes(next(texts, path.read_bytes())))
    deliver(path, entry())
    assert path.read_bytes() == block() + FOREIGN


class TestHeld:
    """Another program holds the file open for writing."""

    PLAYED = pytest.param("libproc", marks=pytest.mark.linux("/proc plays libproc"))

    @pytest.fixture(autouse=True, params=["native", PLAYED])
    def impatient(self, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
        """Wait only a moment, and detect the program both natively and as on macOS."""
        monkeypatch.setattr(files, "PATIENCE", 0.01)
        if request.param == "libproc":
            like_a_mac(monkeypatch)

    @pytest.mark.parametrize(
        ("part", "wanted"), [("", [entry("t1")]), ("#1\n", [entry("t1")]), (block().decode(), []), ("", [])]
    )
    def test_an_emptied_file_is_never_written(self, path: Path, part: str, wanted: list[Entry]) -> None:
        """A file that was emptied or shortened and is held open is not written, not even to remove a token. It is
        written once released."""
        path.write_bytes(FOREIGN)
        sink = NetrcSink(str(path))
        sink.deliver([entry()], OURS)
        with holder(path, "wb", part, say="#2\n") as process:
            if part or wanted:
                failure = refused(lambda: sink.deliver(wanted, OURS))
                assert failure.reason == "held"
                assert f"(pid {process.pid}) has {path} open for writing" in failure.message
                assert failure.hint == f"let it finish, or: kill {process.pid}"
            else:  # an empty file already has no token
                assert not sink.deliver(wanted, OURS).changed
            assert path.read_bytes() == part.encode()
        sink.deliver(wanted, OURS)
        foreign = part.encode().replace(block(), b"") + b"#2\n"
        assert path.read_bytes() == b"".join(block("t1") for _ in wanted) + foreign
        assert os.listdir(path.parent) == [".netrc"]

    def test_a_file_that_is_still_being_written(self, path: Path) -> None:
        """A program that holds the file open may write more, even if its size was never seen before."""
        path.write_bytes(FOREIGN)
        with holder(path, "wb", "#1\n", say="#2\n"):
            assert refused(lambda: deliver(path, entry())).reason == "held"
        deliver(path, entry())
        assert path.read_bytes() == block() + b"#1\n#2\n"

    def test_a_complete_file_held_open_is_written_only_if_urgent(self, path: Path) -> None:
        """While the delivery can wait, nothing is written. When it is urgent, the file is written in place."""
        path.write_bytes(FOREIGN)
        sink = NetrcSink(str(path))
        sink.deliver([entry()], OURS)
        with holder(path, "ab", say="\n#later\n"):
            assert refused(lambda: sink.deliver([entry("t1")], OURS, urgent=False)).reason == "held"
            assert path.read_bytes() == block() + FOREIGN
            assert not sink.deliver([entry()], OURS, urgent=False).changed
            assert sink.deliver([entry("t1")], OURS, urgent=True).changed
        assert path.read_bytes() == block("t1") + FOREIGN + b"\n#later\n"
        assert os.listdir(path.parent) == [".netrc"]

    def test_an_unknown_holder(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """If the holder belongs to another user, it is not named, but its file is not written either."""
        monkeypatch.setattr(netrc_sink, "holders", lambda _: [])
        path.write_bytes(b"")
        with holder(path, "ab"):
            failure = refused(lambda: deliver(path, entry()))
        assert (failure.reason, failure.hint) == ("held", fixes.users_of(str(path)))

    def test_the_rest_of_an_overwritten_block(self, path: Path) -> None:
        """Another program has overwritten the start of our block; the rest is removed, so that uv can read the file."""
        theirs = b"machine x.example login me password mine\n" * 2
        path.write_bytes(theirs + block("old" * 30)[len(theirs) :])
        ours = {"a.example": [entry("old" * 30).digest]}
        assert NetrcSink(str(path)).deliver([entry()], ours).problems == ()
        assert path.read_bytes() == block() + theirs


class TestFingerprint:
    """The fingerprint is that of the text we wrote, not of a rival's later text."""

    @pytest.mark.parametrize("case", ["replaced", "in place", "equal"])
    def test_it_is_of_the_delivered_text(self, path: Path, case: str) -> None:
        """It equals the fingerprint of the file until another program changes the file."""
        path.write_bytes(FOREIGN if case != "equal" else block() + FOREIGN)
        if case == "in place":
            os.link(path, path.parent / "second")
        done = deliver(path, entry())
        assert done.fingerprint == NetrcSink(str(path)).fingerprint() != ()
        path.write_bytes(path.read_bytes())
        assert done.fingerprint != NetrcSink(str(path)).fingerprint()

    @pytest.mark.parametrize("by_rename", [True, False])
    @pytest.mark.parametrize("linked", [True, False])
    def test_a_rival_right_after_it(
        self, path: Path, monkeypatch: pytest.MonkeyPatch, by_rename: bool, linked: bool
    ) -> None:
        """A rival that writes before the delivery returns is detected at the next comparison, even if its text has
        equal length."""
        path.write_bytes(FOREIGN)
        if linked:
            os.link(path, path.parent / "second")
        real = files.fingerprint_of
        theirs = (block() + FOREIGN).replace(b"t0", b"tX")

        def fingerprint_of(file: int, text: bytes) -> files.Fingerprint:
            if by_rename:
                (path.parent / "new").write_bytes(theirs)
                (path.parent / "new").rename(path)
            else:
                path.write_bytes(theirs)
            return real(file, text)

        monkeypatch.setattr(files, "fingerprint_of", fingerprint_of)
        done = deliver(path, entry())
        assert path.read_bytes() == theirs
        assert done.fingerprint != NetrcSink(str(path)).fingerprint()

    def test_a_missing_file_has_none(self, path: Path) -> None:
        """If nothing is wanted and the file is missing, there is no drift."""
        assert deliver(path).fingerprint == NetrcSink(str(path)).fingerprint() == ()


class TestBetweenLookAndRead:
    """Another program writes the file after uvtokend looked at it and before uvtokend reads it."""

    @pytest.mark.parametrize("times_kept", [True, False])
    def test_the_other_programs_text_is_kept(
        self, path: Path, monkeypatch: pytest.MonkeyPatch, times_kept: bool
    ) -> None:
        """All of the other program's text is foreign and stays unchanged, even if the file has the size and time of
        uvtokend's text."""
        sink = NetrcSink(str(path))
        path.write_bytes(FOREIGN)
        sink.deliver([entry()], OURS, None)
        left = path.read_bytes()
        theirs = b"machine b.example login x password y\n"
        theirs += b"#" * (len(left) - len(theirs) - 1) + b"\n"
        honest, before = os.pread, path.stat()
        done: list[int] = []

        def pread(file: int, size: int, at: int) -> bytes:
            if not done and os.path.samestat(os.fstat(file), before):
                done.append(file)
                path.write_bytes(theirs)
                if times_kept:
                    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
            return honest(file, size, at)

        monkeypatch.setattr(os, "pread", pread)
        sink.deliver([entry("t1")], OURS, [entry()])
        assert done
        assert path.read_bytes() == block("t1") + theirs

    def test_an_entry_of_the_same_length(self, path: Path) -> None:
        """A foreign entry that takes the place of other text of the same length is foreign to the next delivery, which
        knows that before it notes anything."""
        entries = [entry("t1"), Entry("c.example", "aws", Secret("t1"))]
        ours: dict[str, tuple[str, ...]] = {"a.example": (), "c.example": ()}
        theirs = b"machine c.example login me password mine\n"
        sink = NetrcSink(str(path))
        noted: list[frozenset[str]] = []

        def begin(foreign: frozenset[str]) -> dict[str, tuple[str, ...]]:
            noted.append(foreign)
            return ours

        path.write_bytes(b"#" * (len(theirs) - 1) + b"\n")
        assert sink.deliver([entry()], ours).changed
        path.write_bytes(path.read_bytes()[: -len(theirs)] + theirs)
        done = sink.deliver(entries, ours, [entry()], begin=begin)
        assert noted == [done.foreign] == [frozenset({"c.example"})]
        assert path.read_bytes() == block("t1") + theirs

    def test_the_other_programs_text_is_read_again(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """The status is then older than the text, so uvtokend reads the text again before it exchanges the file."""
        path.write_bytes(FOREIGN)
        monkeypatch.setattr(files, "_recent", lambda _: False)
        content = files.read_settled(str(path))
        assert content is not None
        assert files.unchanged(str(path), content)
        honest = os.pread

        def pread(file: int, size: int, at: int) -> bytes:
            path.write_bytes(FOREIGN + b"#")
            return honest(file, size, at)

        monkeypatch.setattr(os, "pread", pread)
        content = files.read_settled(str(path))
        assert content is not None
        assert not content.settled
        assert not files.unchanged(str(path), content)


def test_the_path_is_resolved(tmp_path: Path) -> None:
    """A symbolic link on the way to the netrc is followed, also to its new target when it leads elsewhere."""
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "netrc").write_bytes(FOREIGN)
    link = tmp_path / "link"
    link.symlink_to("one")
    sink = NetrcSink(str(link / "netrc"))
    assert [sink.path, sink.path] == [str(tmp_path / "one" / "netrc")] * 2
    link.unlink()
    link.symlink_to("other")
    assert sink.path == sink.last_path == str(tmp_path / "other" / "netrc")


class TestErrors:
    """The system reports errors in the middle of a write."""

    def test_an_error_in_a_write_in_place_is_undone(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """If the second write fails, the old text is written back at once, and no other way of writing is tried."""
        path.write_bytes(FOREIGN)
        os.link(path, path.parent / "second")
        for code in (errno.EIO, errno.EROFS, errno.EINTR):
            real, calls = os.pwrite, iter(range(99))

            def pwrite(file: int, text: bytes, at: int, real=real, calls=calls, code=code) -> int:  # type: ignore[no-untyped-def]
                if os.fstat(file).st_ino == path.stat().st_ino and next(calls) == 1:
                    raise OSError(code, os.strerror(code))
                written: int = real(file, text, at)
                return written

            monkeypatch.setattr(os, "pwrite", pwrite)
            refused(lambda: deliver(path, entry()))
            monkeypatch.setattr(os, "pwrite", real)
            assert path.read_bytes() == FOREIGN
            assert sorted(os.listdir(path.parent)) == [".netrc", "second"]
        deliver(path, entry())
        assert path.read_bytes() == block() + FOREIGN

    def test_the_old_text_cannot_be_written_back(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """If the old text cannot be written back, both texts stay beside the file, and the next delivery completes
        it."""
        path.write_bytes(FOREIGN)
        os.link(path, path.parent / "second")
        real, calls = os.pwrite, iter(range(99))

        def pwrite(file: int, text: bytes, at: int) -> int:
            if os.fstat(file).st_ino == path.stat().st_ino and next(calls):
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            return real(file, text, at)

        with monkeypatch.context() as patch:
            patch.setattr(os, "pwrite", pwrite)
            assert refused(lambda: deliver(path, entry())).reason == "io-error"
        assert path.read_bytes() not in (FOREIGN, block() + FOREIGN)
        deliver(path, entry())
        assert path.read_bytes() == block() + FOREIGN
        assert sorted(os.listdir(path.parent)) == [".netrc", "second"]

    def test_short_writes(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A write that accepts one byte at a time succeeds; one that accepts none is an error."""
        real = os.pwrite
        path.write_bytes(FOREIGN)
        monkeypatch.setattr(os, "pwrite", lambda file, text, at: real(file, bytes(text[:1]), at))
        deliver(path, entry())
        assert path.read_bytes() == block() + FOREIGN
        monkeypatch.setattr(os, "pwrite", lambda *_: 0)
        assert refused(lambda: deliver(path, entry("t1"))).reason == "io-error"
        assert os.listdir(path.parent) == [".netrc"]

    @pytest.mark.linux("the flags are those of a Linux file system")
    @pytest.mark.parametrize("flag", ["i", "a"])
    def test_an_immutable_file(self, path: Path, monkeypatch: pytest.MonkeyPatch, flag: str) -> None:
        """The failure says that the file is immutable and has the command that changes it; see ioctl_iflags(2) for
        the bits."""
        path.write_bytes(FOREIGN)
        bits = {"i": 0x10, "a": 0x20}[flag]
        monkeypatch.setattr(fcntl, "ioctl", lambda *_: bits.to_bytes(8, "little"))

        def not_permitted(*_: str) -> None:
            raise OSError(errno.EPERM, os.strerror(errno.EPERM))

        monkeypatch.setattr(exchange, "swap", not_permitted)
        monkeypatch.setattr(os, "replace", not_permitted)
        failure = refused(lambda: deliver(path, entry()))
        assert (failure.reason, failure.hint) == ("immutable", f"sudo chattr -{flag} {path}")
        assert os.listdir(path.parent) == [".netrc"]
        assert path.read_bytes() == FOREIGN


@pytest.mark.parametrize(("flag", "fix"), [("UF_IMMUTABLE", "chflags nouchg"), ("SF_APPEND", "sudo chflags noschg")])
def test_flags_of_macos(flag: str, fix: str, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file with ``uchg`` fails with EPERM; the failure says that it is immutable, with macOS's command
    (chflags(1), stat(2))."""
    monkeypatch.setattr(os, "stat", lambda _: SimpleNamespace(st_flags=getattr(stat, flag)))
    with pytest.raises(DeliveryFailed) as caught, netrc_failures.explained(str(path)):
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))
    assert caught.value.reason == "immutable"
    assert caught.value.hint is not None
    assert caught.value.hint.startswith(f"{fix},")


@pytest.mark.parametrize(("code", "reason"), [(errno.EPERM, "protected"), (errno.EACCES, "no-permission")])
def test_privacy_of_macos(code: int, reason: str, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """EPERM without a flag in a directory that macOS protects names the system setting. EACCES is about the mode."""
    home = path.parent.parent
    monkeypatch.setattr(netrc_failures, "_private_place", lambda name: darwin.private_place(name, str(home)))
    linked = home / "Documents" / "netrc"
    linked.parent.mkdir()
    linked.touch()
    with pytest.raises(DeliveryFailed) as caught, netrc_failures.explained(str(linked)):
        raise PermissionError(code, os.strerror(code))
    assert caught.value.reason == reason
    assert ("System Settings > Privacy & Security" in str(caught.value.hint)) == (reason == "protected")


def test_a_socket_is_not_a_netrc(path: Path) -> None:
    """Linux fails with ENXIO and macOS with EOPNOTSUPP (open(2)); both are reported as not a file."""
    with contextlib.closing(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)) as server:
        server.bind(str(path))
        assert refused(lambda: deliver(path, entry())).reason == "not-a-file"
    with pytest.raises(DeliveryFailed) as caught, netrc_failures.explained(str(path)):
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
    assert caught.value.reason == "not-a-file"


class TestRivals:
    """Other programs edit the file at the worst moments of a delivery."""

    def overtake(self, monkeypatch: pytest.MonkeyPatch, *steps: Callable[[], object]) -> None:
        """Run one step before each exchange, until none is left."""
        real = exchange.swap
        rest = iter(steps)

        def swap(one: str, other: str) -> None:
            next(rest, lambda: None)()
            real(one, other)

        monkeypatch.setattr(exchange, "swap", swap)

    def test_between_reading_and_exchange(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """The other program's edit is returned by the exchange, restored, and then edited again."""
        path.write_bytes(b"#old\n")
        self.overtake(monkeypatch, lambda: path.write_bytes(b"#new\n"))
        deliver(path, entry())
        assert path.read_bytes() == block() + b"#new\n"
        assert os.listdir(path.parent) == [".netrc"]

    def test_a_program_that_opens_the_file_before_the_exchange(
        self, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A program has opened the file but not written yet; what it writes after the exchange is not lost."""
        monkeypatch.setattr(files, "PATIENCE", 0.01)
        path.write_bytes(b"#old\n")
        opened: list[int] = []
        self.overtake(monkeypatch, lambda: opened.append(os.open(path, os.O_WRONLY | os.O_APPEND)))
        deliver(path, entry())
        os.write(opened[0], b"#late\n")
        os.close(opened[0])
        assert path.read_bytes() == block() + b"#old\n#late\n"
        assert os.listdir(path.parent) == [".netrc"]

    @pytest.mark.parametrize("by_rename", [True, False])
    def test_between_exchange_and_undoing(self, path: Path, monkeypatch: pytest.MonkeyPatch, by_rename: bool) -> None:
        """Two independent edits are both kept."""
        path.write_bytes(b"#old\n")

        def second() -> None:
            text = path.read_bytes() + b"#2\n"
            if by_rename:
                (path.parent / "new").write_bytes(text)
                (path.parent / "new").rename(path)
            else:
                path.write_bytes(text)

        self.overtake(monkeypatch, lambda: path.write_bytes(b"#old\n#1\n"), second)
        deliver(path, entry())
        assert path.read_bytes() in (block() + b"#old\n#1\n#2\n", block() + b"#old\n#2\n#1\n")
        assert os.listdir(path.parent) == [".netrc"]

    def test_an_edit_that_another_program_overwrites(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """The edit that the exchange returned is kept, although a program that had read older text writes over it."""
        path.write_bytes(b"#old\n")
        real = exchange.swap
        swaps: list[str] = []

        def swap(one: str, other: str) -> None:
            swaps.append(one)
            if len(swaps) == 1:
                path.write_bytes(b"#old\n#1\n")
            real(one, other)
            if len(swaps) == 2:
                path.write_bytes(b"#old\n#2\n")

        monkeypatch.setattr(exchange, "swap", swap)
        deliver(path, entry())
        assert path.read_bytes() in (block() + b"#old\n#1\n#2\n", block() + b"#old\n#2\n#1\n")

    def test_two_edits_of_the_same_lines(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Two programs, one after the other, change the place of a line that one of them has changed. The merge may
        keep that line twice, but it is not merged again and again."""
        path.write_bytes(b"#mine\nmachine x.example login me password old\n#end\n")

        def change() -> None:
            path.write_bytes(path.read_bytes().replace(b"old", b"new"))

        def reorder() -> None:
            path.write_bytes(path.read_bytes().replace(b"#mine\n", b"") + b"#mine\n")

        self.overtake(monkeypatch, change, lambda: None, reorder)
        deliver(path, entry())
        lines = path.read_bytes().removeprefix(block()).splitlines()
        assert set(lines) == {b"machine x.example login me password new", b"#end", b"#mine"}
        assert len(lines) <= 4

    def test_twice_in_both_instants(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Four edits in a row, two of them on top of ours, are all kept."""
        path.write_bytes(b"")

        def add(line: bytes) -> Callable[[], object]:
            return lambda: path.write_bytes(path.read_bytes() + line)

        self.overtake(monkeypatch, *(add(b"#%d\n" % number) for number in range(4)))
        deliver(path, entry())
        assert set(path.read_bytes().split()[8:]) == {b"#0", b"#1", b"#2", b"#3"}
        assert path.read_bytes().startswith(block())

    def test_a_file_deleted_during_a_delivery(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """The file is created again without the text that the other program deleted."""
        path.write_bytes(b"#old\n")
        self.overtake(monkeypatch, path.unlink)
        deliver(path, entry())
        assert path.read_bytes() == block()

    def test_a_file_created_during_a_delivery(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A netrc that another program creates at the same time is not overwritten."""
        real = os.link

        def link(one: str, other: str) -> None:
            monkeypatch.setattr(os, "link", real)
            path.write_bytes(b"#theirs\n")
            real(one, other)

        monkeypatch.setattr(os, "link", link)
        deliver(path, entry())
        assert path.read_bytes() == block() + b"#theirs\n"

    def test_a_link_that_replaces_the_file(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A link that replaces the file at the last moment is restored."""
        path.write_bytes(b"#old\n")

        def link() -> None:
            path.unlink()
            path.symlink_to("other")

        self.overtake(monkeypatch, link)
        assert refused(lambda: deliver(path, entry())).reason == "symlink-loop"
        assert os.readlink(path) == "other"
        assert os.listdir(path.parent) == [".netrc"]

    @pytest.mark.parametrize("by_rename", [True, False])
    def test_three_hundred_edits(self, path: Path, by_rename: bool) -> None:
        """While another program adds 300 lines as fast as it can, deliveries lose none of them."""
        path.write_bytes(b"#first\n")
        script = """
            import os, sys, time
            path, by_rename = sys.argv[1], sys.argv[2] == "True"
            for number in range(300):
                with open(path, "rb") as file:
                    text = file.read()
                text += b"machine h%d.example login me password mine\\n" % number
                if by_rename:
                    with open(path + ".rival", "wb") as file:
                        file.write(text)
                    os.rename(path + ".rival", path)
                else:
                    with open(path, "r+b") as file:
                        file.write(text)
                        file.truncate()
                with open(path, "rb") as file:
                    now = file.read()
                time.sleep(0.002)
        """
        rival = subprocess.Popen([sys.executable, "-c", textwrap.dedent(script), str(path), str(by_rename)])
        sink = NetrcSink(str(path))
        rotations = 0
        while rival.poll() is None:
            sink.deliver([entry(f"t{rotations}")], OURS)
            rotations += 1
        assert rival.returncode == 0
        assert rotations
        sink.deliver([entry("last")], OURS)
        lines = path.read_bytes().splitlines()
        assert lines[:3] == block("last").splitlines()
        lost = [number for number in range(300) if b"machine h%d.example login me password mine" % number not in lines]
        assert lost == []


class TestCrashes:
    def test_an_incomplete_temporary_file_is_removed(self, path: Path) -> None:
        """A temporary file that was still being written, or was never put in place, adds nothing."""
        for name, text in ((".new", block("t1") + FOREIGN[:10]), ("", block("t1") + FOREIGN)):
            path.write_bytes(FOREIGN)
            beside(path, ".base").write_bytes(FOREIGN)
            beside(path, name).write_bytes(text)
            deliver(path, entry())
            assert path.read_bytes() == block() + FOREIGN
            assert os.listdir(path.parent) == [".netrc"]

    def test_a_line_that_was_deleted_since_stays_deleted(self, path: Path) -> None:
        """After a crash right after the exchange, the replaced text equals the base, so nothing is missing."""
        old = b"machine x.example login a password b\nmachine y.example login a password b\n"
        path.write_bytes(block("t1") + old.splitlines(keepends=True)[1])
        leftover(path).write_bytes(old)
        beside(path, ".base").write_bytes(old)
        deliver(path, entry())
        assert path.read_bytes() == block() + old.splitlines(keepends=True)[1]
        assert os.listdir(path.parent) == [".netrc"]

    def test_an_edit_before_the_exchange_is_merged(self, path: Path) -> None:
        """Another program wrote just before the exchange; after the crash its changes are merged, deleted lines
        included."""
        base = b"#gone\nmachine x.example login a password old\n#end\n"
        path.write_bytes(block("t1") + base)
        leftover(path).write_bytes(b"machine x.example login a password new\n#end\n#more\n")
        beside(path, ".base").write_bytes(base)
        NetrcSink(str(path)).check_writable()
        deliver(path, entry("t2"))
        assert path.read_bytes() == block("t2") + b"machine x.example login a password new\n#end\n#more\n"
        assert os.listdir(path.parent) == [".netrc"]

    def test_a_text_without_its_base_is_merged(self, path: Path) -> None:
        """After a power failure the base may be missing. Then no line is lost, and the netrc's lines come last."""
        path.write_bytes(block("t1") + b"machine x.example login a password new\n#end\n")
        leftover(path).write_bytes(block("t0") + b"machine x.example login a password old\n#end\n")
        deliver(path, entry("t2"))
        lines = path.read_bytes().splitlines()
        assert [line.split()[-1] for line in lines[3:]] == [b"old", b"new", b"#end"]

    def test_a_second_name_of_a_new_file(self, path: Path) -> None:
        """After a crash right after the new file got its name, both names are one file, and an edit of it is kept."""
        path.write_bytes(block("t1"))
        os.link(path, leftover(path))
        path.write_bytes(block("t1") + b"#mine\n")
        deliver(path, entry())
        assert path.read_bytes() == block() + b"#mine\n"
        assert os.listdir(path.parent) == [".netrc"]

    def test_an_edit_of_a_torn_file(self, path: Path) -> None:
        """A write in place was interrupted and another program edited the mixture; no line of the new text is lost."""
        old, new = b"#a\n#b\n" * 20, block("t1") + b"#a\n#b\n" * 20
        path.write_bytes(new[:150] + b"#mine\n")
        leftover(path).write_bytes(new)
        beside(path, ".old").write_bytes(old)
        deliver(path, entry())
        text = path.read_bytes()
        assert text.startswith(block())
        assert text.count(b"#a\n") >= 20
        assert b"#mine\n" in text

    def test_a_line_deleted_after_a_write_in_place(self, path: Path) -> None:
        """The crash came after a complete write in place, so a line deleted since then stays deleted."""
        old = b"machine x.example login a password b\n#mine\n"
        path.write_bytes(block("t1") + b"#mine\n")
        leftover(path).write_bytes(block("t1") + old)
        beside(path, ".old").write_bytes(old)
        deliver(path, entry())
        assert path.read_bytes() == block() + b"#mine\n"

    def test_an_edit_since_the_crash_wins(self, path: Path) -> None:
        """If another program has replaced the file since the crash, its values come last, and nothing is lost."""
        path.write_bytes(b"machine x.example login a password new\n")
        leftover(path).write_bytes(b"machine x.example login a password old\n#gone\n")
        deliver(path, entry())
        assert [line.split()[-1] for line in path.read_bytes().splitlines()[3:]] == [b"old", b"#gone", b"new"]

    def test_a_leftover_without_a_netrc(self, path: Path) -> None:
        """If the netrc is missing, the text is taken from the temporary file."""
        leftover(path).write_bytes(FOREIGN)
        deliver(path, entry())
        assert path.read_bytes() == block() + FOREIGN

    def test_an_equal_temporary_file_is_removed(self, path: Path) -> None:
        """The crash came just before the old text was deleted, so there is nothing to merge."""
        path.write_bytes(block() + FOREIGN)
        leftover(path).write_bytes(FOREIGN)
        assert not deliver(path, entry()).changed
        assert os.listdir(path.parent) == [".netrc"]

    def test_killed_at_any_moment(self, path: Path) -> None:
        """After each of many kills the file is whole, with its foreign text, and the next start continues."""
        foreign = FOREIGN + b"\n" + b"#filler\n" * 500
        path.write_bytes(foreign)
        script = """
            import sys
            from uvtokend.core.model import Entry, Secret
            from uvtokend.disk.netrc_sink import NetrcSink
            sink = NetrcSink(sys.argv[1])
            number = 0
            while True:
                number += 1
                token = f"{number:04}" * 40
                wanted = [Entry("a.example", "aws", Secret(token))] if number % 5 else []
                sink.deliver(wanted, {"a.example": ("aws", "")})
                if number == 3:
                    print(flush=True)
        """
        dice = random.Random(20260131)
        for _ in range(15):
            words = [sys.executable, "-c", textwrap.dedent(script), str(path)]
            with subprocess.Popen(words, stdout=subprocess.PIPE) as child:
                assert child.stdout is not None
                child.stdout.readline()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    child.wait(dice.uniform(0, 0.02))
                child.send_signal(signal.SIGKILL)
            text = path.read_bytes()
            assert text.endswith(foreign)
            head = text[: -len(foreign)]
            assert head == b"" or (head.startswith(BEGIN) and len(head.splitlines()) == 3)
        deliver(path)
        assert path.read_bytes() == foreign
        assert os.listdir(path.parent) == [".netrc"]


def test_readers_never_see_half_a_file(path: Path) -> None:
    """A reader always sees one complete text."""
    foreign = b"#filler\n" * 2000
    path.write_bytes(foreign)
    stop = threading.Event()
    torn: list[bytes] = []

    def read() -> None:
        while not stop.is_set():
            text = path.read_bytes()
            if not text.endswith(foreign) or text.count(b"\n") not in (2000, 2003):
                torn.append(text)

    reader = threading.Thread(target=read)
    reader.start()
    for number in range(30):
        deliver(path, *([entry(f"t{number}")] if number % 3 else []))
    stop.set()
    reader.join()
    assert torn == []

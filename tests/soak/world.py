"""The laptop of the soak: a real daemon under a wall clock that can be set, a netrc on a disk that can be filled."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from soak.verdict import Token
from uvtokend.sandbox.codeartifact import CodeArtifact
from uvtokend.sandbox.index import PackageIndex
from uvtokend.sandbox.machine import AwsMachine, find_uv

FAKETIME = sorted(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))
#: libfaketime 0.9.10 answers EINVAL to the call behind Python's ``time.sleep``; select(2) knows how to wait as well.
_SLEEP = "import select, time\ntime.sleep = lambda seconds: select.select([], [], [], seconds) and None\n"
#: A life of hours is one of seconds here: so is the minute within which a second change of our block counts as a fight.
_SCALED = """\
import sys
if "run" in sys.orig_argv:
    import datetime
    from uvtokend.core import delivery
    delivery.FIGHT = datetime.timedelta(0)
"""
#: While this file is in the directory of the shim, the disk does not answer.
HUNG = "hung"
_HANGS = f"""\
import os, select, sys
def _hangs(file, _fsync=os.fsync, _sign=os.path.join(os.path.dirname(__file__), "{HUNG}")):
    while os.path.exists(_sign):
        select.select([], [], [], 0.05)
    _fsync(file)
if "run" in sys.orig_argv:
    os.fsync = _hangs
"""
_ENTRY = re.compile(rb"^machine 127\.0\.0\.1 login aws password (\S+)\s*$")
_NAMESPACE = "/proc/self/ns/mnt"
_OUTSIDE = "UVTOKEND_SOAK_OUTSIDE"
_MARKS = (b"#uvtokend:begin", b"#uvtokend:end")


class World:
    """Everything that a soak needs; a context manager.

    Args:
        directory: An empty directory with a short path.
        life: Seconds that a token lives.
        broken: Python that the daemon runs before anything else: how a test breaks it.
        faketime: The daemon's wall clock can be set. On one busy core libfaketime lets two threads that ask for the
            time wait for each other for seconds, so that nobody should have it who does not need it.

    Attributes:
        disk: The directory of netrc and state.
        sign: The file that hangs the daemon's disk.
        small: `disk` is a file system of its own, of a megabyte, in a mount namespace that nobody else sees.
        clock: The file that says how far the daemon's wall clock is off; None where it cannot be set.
        writing: Held by whoever of this process writes the netrc in place, or reads it and wants it whole.
    """

    def __init__(self, folder: Path, life: float, broken: str = "", faketime: bool = False) -> None:
        self.life = life
        find_uv()  # by one thread: Python's sysconfig is not ready for two at first
        self.cloud = CodeArtifact(life)
        self.index = PackageIndex(lambda login, token: login == "aws" and self.cloud.valid(token))
        self.laptop = AwsMachine(folder, self.cloud)
        self.disk = folder / "disk"
        self.netrc = self.disk / ".netrc"
        self.writing = threading.Lock()
        self.clock = folder / "clock" if faketime and FAKETIME else None
        self.small = may_mount()
        self.sign = folder / "shim" / HUNG
        self._env = self._customize(broken)

    def __enter__(self) -> World:
        self.disk.mkdir(mode=0o700)
        if self.small:
            mount("-t", "tmpfs", "-o", "size=1m,mode=0700", "tmpfs", str(self.disk))
        laptop = self.laptop
        laptop.netrc, laptop.state = self.netrc, self.disk / "state" / "uvtokend"
        laptop.environment |= {"NETRC": str(self.netrc), "XDG_STATE_HOME": str(laptop.state.parent)}
        laptop.configure(soak=self.index.url)
        uv = laptop.home / "uv.toml"
        uv.write_text(f'[[index]]\nurl = "{self.index.url}"\ndefault = true\nauthenticate = "always"\n')
        laptop.environment["UV_CONFIG_FILE"] = str(uv)
        return self

    def __exit__(self, *_: object) -> None:
        try:
            if self.laptop.daemon is not None:
                with contextlib.suppress(ProcessLookupError):
                    self.laptop.daemon.send_signal(signal.SIGCONT)
            self.laptop.stop()
            self._forget_clock()
        finally:
            if self.small:  # what is there is gone with the mount, and may have to be looked at
                shutil.copytree(self.disk, self.laptop.directory / "left")
                subprocess.run(["umount", "--lazy", str(self.disk)], check=False, capture_output=True)
            self.index.close()
            self.cloud.close()

    # ------------------------------------------------------------------------------------------------- the daemon

    def start(self) -> None:
        """Start the daemon."""
        self.laptop.start(self._env)

    def signal(self, number: int) -> None:
        """Send the daemon a signal."""
        assert self.laptop.daemon is not None
        self.laptop.daemon.send_signal(number)

    def kill(self) -> None:
        """Kill the daemon as a power cut would."""
        assert self.laptop.daemon is not None
        self.laptop.daemon.kill()
        self.laptop.daemon.wait()
        self._forget_clock()

    def set_clock(self, seconds: float) -> None:
        """Set the daemon's wall clock, and its workers', so many seconds off."""
        assert self.clock is not None
        new = self.clock.with_suffix(".new")
        new.write_text(f"{seconds:+.0f}\n")
        new.replace(self.clock)

    def _customize(self, broken: str) -> dict[str, str]:
        """Return the environment of the daemon alone."""
        shim = self.laptop.directory / "shim"
        shim.mkdir()
        path = os.pathsep.join([str(shim), *filter(None, [self.laptop.environment.get("PYTHONPATH")])])
        (shim / "sitecustomize.py").write_text((_SLEEP if self.clock else "") + _SCALED + _HANGS + broken)
        if self.clock is None:
            return {"PYTHONPATH": path}
        self.set_clock(0)
        return {
            "PYTHONPATH": path,
            "LD_PRELOAD": str(FAKETIME[0]),
            "FAKETIME_TIMESTAMP_FILE": str(self.clock),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",  # nor the boot-time clock
            "NO_FAKE_STAT": "1",
        }

    def _forget_clock(self) -> None:
        """Delete what libfaketime leaves of a process that was killed."""
        if self.clock is not None and self.laptop.daemon is not None:
            for name in ("faketime_shm", "sem.faketime_sem"):
                Path(f"/dev/shm/{name}_{self.laptop.daemon.pid}").unlink(missing_ok=True)

    # ---------------------------------------------------------------------------------------------------- the netrc

    def expire(self) -> None:
        """Let all tokens expire now."""
        now = time.time()
        for token, end in tuple(self.cloud.tokens.items()):
            self.cloud.tokens[token] = min(end, now)

    def tokens(self) -> tuple[Token, ...]:
        """Return all tokens that were ever issued."""
        return tuple(Token(end - self.life, end) for end in tuple(self.cloud.tokens.values()))

    def known(self, line: bytes) -> Token | None:
        """Return the token of a line that is an entry of ours, with or without a mark around it."""
        found = _ENTRY.match(line)
        end = self.cloud.tokens.get(found[1].decode()) if found else None
        return None if end is None else Token(end - self.life, end)

    def ours(self, line: bytes) -> bool:
        """Tell whether a line is the daemon's: a mark, or an entry with a token that the cloud issued."""
        return line in _MARKS or self.known(line) is not None

    def standing(self, lines: list[bytes]) -> Token | None:
        """Return the token that is in a netrc."""
        return next((token for line in lines if (token := self.known(line)) is not None), None)

    def read(self) -> list[bytes]:
        """Return the netrc, whole, split at its line ends."""
        with self.writing:
            return lines_of(self.netrc)


def lines_of(path: Path) -> list[bytes]:
    """Return a file split at its line ends; the last part is empty unless the last line has none."""
    try:
        return path.read_bytes().split(b"\n")
    except FileNotFoundError:
        return [b""]


def enter_namespace() -> None:
    """Begin this program again in a mount namespace of its own, where it may fill disks that nobody else sees.

    Does nothing where it is in one already, or where only root on Linux could.
    """
    unshare = shutil.which("unshare")
    if sys.platform == "linux" and os.geteuid() == 0 and unshare and _OUTSIDE not in os.environ:
        os.environ[_OUTSIDE] = os.readlink(_NAMESPACE)
        os.execv(unshare, [unshare, "--mount", "--propagation", "private", sys.executable, *sys.argv])


def may_mount() -> bool:
    """Tell whether `enter_namespace` has done its work."""
    return _OUTSIDE in os.environ and os.environ[_OUTSIDE] != os.readlink(_NAMESPACE)


def mount(*arguments: str) -> None:
    """Call mount(8)."""
    subprocess.run(["mount", *arguments], check=True, capture_output=True)


@contextlib.contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """Lay a read-only view of a directory over it. What has files open beneath may continue: it is another mount."""
    mount("--bind", str(folder), str(folder))
    try:
        mount("-o", "remount,bind,ro", str(folder))
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True, capture_output=True)

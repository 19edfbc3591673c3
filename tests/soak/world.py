"""The laptop of the soak test: a real daemon whose wall clock can be set, and a netrc on a disk that can be filled."""

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
#: With libfaketime 0.9.10, the call behind ``time.sleep`` fails with EINVAL, so the daemon uses select(2).
_SLEEP = "import select, time\ntime.sleep = lambda seconds: select.select([], [], [], seconds) and None\n"
#: Tokens live for seconds, so a second change of our block must not count as a fight within a minute.
_SCALED = """\
import sys
if "run" in sys.orig_argv:
    import datetime
    from uvtokend.core import delivery
    delivery.FIGHT = datetime.timedelta(0)
"""
#: While this file is in the directory of the shim, fsync hangs.
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
    """A context manager with everything that a soak needs.

    Args:
        directory: An empty directory with a short path.
        life: Seconds that a token is valid.
        broken: Python code that the daemon runs first; a test breaks the daemon with it.
        faketime: Whether the daemon's wall clock can be set. On a busy core, libfaketime can make two threads that
            read the time wait for each other for seconds, so it is used only if needed.

    Attributes:
        disk: The directory of netrc and state.
        sign: The file that makes fsync hang.
        small: Whether `disk` is its own file system of one megabyte, in a private mount namespace.
        clock: The file with the offset of the daemon's wall clock; None if it cannot be set.
        writing: The lock for writing the netrc in place, and for reading all of it.
    """

    def __init__(self, directory: Path, life: float, broken: str = "", faketime: bool = False) -> None:
        self.life = life
        find_uv()  # in one thread, because the first use of Python's sysconfig is not thread-safe
        self.cloud = CodeArtifact(life)
        self.index = PackageIndex(lambda login, token: login == "aws" and self.cloud.valid(token))
        self.laptop = AwsMachine(directory, self.cloud)
        self.disk = directory / "disk"
        self.netrc = self.disk / ".netrc"
        self.writing = threading.Lock()
        self.clock = directory / "clock" if faketime and FAKETIME else None
        self.small = may_mount()
        self.sign = directory / "shim" / HUNG
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
            if self.small:  # keep the files, which disappear with the mount, for inspection
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
        """Kill the daemon with SIGKILL."""
        assert self.laptop.daemon is not None
        self.laptop.daemon.kill()
        self.laptop.daemon.wait()
        self._forget_clock()

    def set_clock(self, seconds: float) -> None:
        """Set the offset in seconds of the wall clock of the daemon and its workers."""
        assert self.clock is not None
        new = self.clock.with_suffix(".new")
        new.write_text(f"{seconds:+.0f}\n")
        new.replace(self.clock)

    def _customize(self, broken: str) -> dict[str, str]:
        """Return the environment variables that only the daemon gets."""
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
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",  # includes the boot-time clock
            "NO_FAKE_STAT": "1",
        }

    def _forget_clock(self) -> None:
        """Delete the shared memory that libfaketime leaves of a killed process."""
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
        """Return the token of a line if it is an entry of ours, with or without markers around it."""
        entry = _ENTRY.match(line)
        end = self.cloud.tokens.get(entry[1].decode()) if entry else None
        return None if end is None else Token(end - self.life, end)

    def ours(self, line: bytes) -> bool:
        """Return whether a line is the daemon's: a marker, or an entry with a token that the cloud issued."""
        return line in _MARKS or self.known(line) is not None

    def delivered(self, lines: list[bytes]) -> Token | None:
        """Return the token that is in a netrc."""
        return next((token for line in lines if (token := self.known(line)) is not None), None)

    def read(self) -> list[bytes]:
        """Return the complete netrc, split at its line ends."""
        with self.writing:
            return lines_of(self.netrc)


def lines_of(path: Path) -> list[bytes]:
    """Return a file split at its line ends; the last part is empty if the file ends with a line end."""
    try:
        return path.read_bytes().split(b"\n")
    except FileNotFoundError:
        return [b""]


def enter_namespace() -> None:
    """Restart this program in its own mount namespace, where it can fill disks that no other program sees.

    Does nothing if it is already in one, or if it is not root on Linux.
    """
    unshare = shutil.which("unshare")
    if sys.platform == "linux" and os.geteuid() == 0 and unshare and _OUTSIDE not in os.environ:
        os.environ[_OUTSIDE] = os.readlink(_NAMESPACE)
        os.execv(unshare, [unshare, "--mount", "--propagation", "private", sys.executable, *sys.argv])


def may_mount() -> bool:
    """Return whether `enter_namespace` has created a mount namespace."""
    return _OUTSIDE in os.environ and os.environ[_OUTSIDE] != os.readlink(_NAMESPACE)


def mount(*arguments: str) -> None:
    """Call mount(8)."""
    subprocess.run(["mount", *arguments], check=True, capture_output=True)


@contextlib.contextmanager
def read_only(directory: Path) -> Iterator[None]:
    """Mount a read-only view of a directory over it; programs with open files below it can still write them."""
    mount("--bind", str(directory), str(directory))
    try:
        mount("-o", "remount,bind,ro", str(directory))
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(directory)], check=True, capture_output=True)

"""``uvtokend demo``: show uvtokend's job on this machine alone, and what happens without it.

A loopback CodeArtifact issues tokens that are valid for seconds; a loopback index accepts only valid tokens. A real
daemon updates the netrc, and a real uv installs through it repeatedly. The same uv also installs with a token that was
exported once, and fails as soon as that token has expired.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from netrc import NetrcParseError, netrc
from pathlib import Path
from typing import Any

from uvtokend.cli import console, parser
from uvtokend.errors import FAILED, OK, UvtokendError
from uvtokend.sandbox.codeartifact import CodeArtifact
from uvtokend.sandbox.index import PACKAGES, PackageIndex
from uvtokend.sandbox.machine import AwsMachine, find_uv

#: Seconds that a token is valid: long enough for a slow machine to fetch the next one, short enough to watch.
LIFE = 10.0
#: Seconds between two rounds of installs.
PAUSE = 0.5
#: Seconds to wait for the first token.
FIRST = 30.0
_GREEN, _RED, _BOLD, _DIM = "32", "31", "1", "2"
_COLUMN = 26
#: uv's words if an index refuses it.
_REFUSED = "401 Unauthorized"


@dataclass(slots=True)
class Side:
    """The results of one side's installs; `seconds` are the durations of the successful ones."""

    failures: int = 0
    seconds: list[float] = field(default_factory=list)

    @property
    def installs(self) -> int:
        """The number of installs."""
        return len(self.seconds) + self.failures


EXAMPLES = ("uvtokend demo", "uvtokend demo --seconds 20")
DETAILS = "Needs only uv: the cloud and the index are emulators on this machine. Nothing of yours is read or changed."


def arguments(own: argparse.ArgumentParser) -> None:
    """Add the arguments of this verb."""
    own.add_argument("--seconds", metavar="N", type=parser.seconds, default=60.0, help="how long it runs (60)")


def run(args: argparse.Namespace) -> int:
    """Run the demo; see `demo`."""
    return demo(args.seconds)


def demo(seconds: float) -> int:
    """Run the demo.

    Args:
        seconds: The duration; at least one round of installs runs.

    Returns:
        0 if every install through the daemon worked, and none with the exported token after its expiry; 1 if not; 128
        plus the signal's number if a signal ended it.

    Raises:
        UvtokendError: uv is missing, or the daemon did not deliver.
    """
    find_uv()
    with Interrupt() as interrupt:
        directory = Path(tempfile.mkdtemp(prefix="uvtokend-demo-"))
        try:
            with (
                CodeArtifact(LIFE) as cloud,
                PackageIndex(lambda login, token: login == "aws" and cloud.valid(token)) as index,
            ):
                laptop = AwsMachine(directory, cloud)
                with _guarded(laptop):
                    return Demo(laptop, index, interrupt).run(seconds)
        finally:
            shutil.rmtree(directory, ignore_errors=True)


@contextlib.contextmanager
def _guarded(laptop: AwsMachine) -> Iterator[None]:
    """Leave nothing behind even if this process is killed: a shell cleans up when its pipe to us closes.

    The shell waits a second, so that a daemon that is just starting can be stopped.
    """
    stop = 'read -r _; directory=$1; shift; sleep 1; "$@"'
    remove = 'for _ in 1 2 3 4 5; do rm -rf "$directory" && break; sleep 1; done'  # uv may still be writing there
    guard = subprocess.Popen(  # noqa: S603 - ourselves
        ["/bin/sh", "-c", f"{stop}; {remove}", "sh", str(laptop.directory), *laptop.ourselves("stop")],
        env=laptop.environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    with guard:
        try:
            yield
        finally:
            guard.kill()


class Interrupt:
    """Notes the signals that ask this process to end, so that it can clean up; a context manager.

    A signal that was ignored before stays ignored (``nohup``, and background jobs of a shell).
    """

    def __init__(self) -> None:
        self.signal = 0
        self._former: dict[int, Any] = {}

    def __enter__(self) -> Interrupt:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) is not signal.SIG_IGN:
                self._former[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._former.items():
            signal.signal(number, handler)

    def _note(self, number: int, _frame: object) -> None:
        self.signal = number


class Demo:
    """One run.

    Args:
        laptop: The machine of the daemon and uv.
        index: The index that uv installs from.
        interrupt: Tells whether to end early.
    """

    def __init__(self, laptop: AwsMachine, index: PackageIndex, interrupt: Interrupt) -> None:
        self.laptop = laptop
        self.index = index
        self.interrupt = interrupt
        #: Installs through the daemon's netrc, and with the exported token.
        self.ours, self.control = Side(), Side()
        #: The number of installs that worked with an expired token.
        self.too_good = 0
        #: The number of tokens seen in the netrc, and the last of them.
        self.tokens = 0
        self._last = ""
        self._began = time.monotonic()

    def run(self, seconds: float) -> int:
        """Show everything and return the exit status."""
        self.laptop.configure(demo=self.index.url)
        self._configure_uv()
        _introduce()
        try:
            self.laptop.start()
            self._await_token()
            exported = self.laptop.cloud.issue()
            self._began = time.monotonic()
            while not self.interrupt.signal and (not self.ours.installs or self._elapsed() < seconds):
                self._round(exported)
                self._pause(PAUSE)
        finally:
            self.laptop.stop()
        status = self._summary(exported)
        return 128 + self.interrupt.signal if self.interrupt.signal else status

    def _elapsed(self) -> float:
        return time.monotonic() - self._began

    def _configure_uv(self) -> None:
        """Configure only this index in uv; with ``authenticate``, uv looks for a credential first."""
        file = self.laptop.home / "uv.toml"
        url = json.dumps(self.index.url)
        file.write_text(f'[[index]]\nname = "demo"\nurl = {url}\ndefault = true\nauthenticate = "always"\n')
        self.laptop.environment["UV_CONFIG_FILE"] = str(file)

    def _await_token(self) -> None:
        deadline = time.monotonic() + FIRST
        while self._token() is None and not self.interrupt.signal:
            if self.laptop.daemon is None or self.laptop.daemon.poll() is not None or time.monotonic() > deadline:
                raise UvtokendError(f"The demo's daemon did not deliver a token. {self._why()}".rstrip())
            time.sleep(0.05)

    def _why(self) -> str:
        """Return the daemon's output, or else that of `uvtokend status`."""
        said = self.laptop.output.read_text(errors="replace").strip().removeprefix("uvtokend: ")
        return said or self.laptop.uvtokend("status").stdout.strip()

    def _token(self) -> str | None:
        """Return the token in the netrc, as another program would read it."""
        try:
            entry = netrc(str(self.laptop.netrc)).authenticators("127.0.0.1")
        except (OSError, NetrcParseError):
            return None
        return entry[2] if entry else None

    def _round(self, exported: str) -> None:
        """Install on both sides, and show the results as a line, with uv's words about an unexpected failure."""
        self._rotations()
        dead = not self.laptop.cloud.valid(exported)
        ours = self._install(self.ours)
        once = {"UV_INDEX_DEMO_USERNAME": "aws", "UV_INDEX_DEMO_PASSWORD": exported, "NETRC": os.devnull}
        control = self._install(self.control, once)
        self.too_good += control is None and dead
        self._line(_verdict(ours, self.ours), _verdict(control, self.control))
        for failure in (ours, control):
            if failure is not None and (failure is ours or _REFUSED not in failure):
                console.out(f"{failure}\n")

    def _install(self, side: Side, env: Mapping[str, str] | None = None) -> str | None:
        """Install everything into a new directory, without a cache; return uv's output if it failed."""
        with tempfile.TemporaryDirectory(dir=self.laptop.directory / "tmp", ignore_cleanup_errors=True) as target:
            began = time.monotonic()
            done = self.laptop.install(Path(target), *PACKAGES, env=env)
            if done.returncode == 0:
                side.seconds.append(time.monotonic() - began)
                return None
        side.failures += 1
        return done.stderr.strip()

    def _pause(self, seconds: float) -> None:
        """Wait, and watch the netrc."""
        end = time.monotonic() + seconds
        while time.monotonic() < end and not self.interrupt.signal:
            self._rotations()
            time.sleep(0.05)

    def _rotations(self) -> None:
        """Show a new token in the netrc."""
        token = self._token()
        if token is None or token == self._last:
            return
        tokens = self.laptop.cloud.tokens
        left = tokens.get(self._last, 0.0) - time.time()
        said = f"the one before had {left:.1f} s left" if self._last else "the first one"
        self.tokens += 1
        self._last = token
        self._line(_paint(f"token {self.tokens} is in the netrc; {said}", _BOLD), "")

    def _line(self, left: str, right: str) -> None:
        console.out(f"{self._elapsed():6.1f} s  {left}  {right}".rstrip() + "\n")

    def _summary(self, exported: str) -> int:
        """Print a summary, and return the exit status."""
        console.out(
            f"\nIn {self._elapsed():.0f} s the token was rotated {max(0, self.tokens - 1)} times.\n"
            f"  with uvtokend:          {_counts(self.ours)}\n"
            f"  with a token exported:  {_counts(self.control)}\n"
        )
        if self.laptop.cloud.valid(exported):
            console.out(f"The exported token is still valid; it expires after {LIFE:g} s, so try --seconds 60.\n")
        if self.too_good:
            console.out(f"{self.too_good} installs worked with an expired token: the index of this demo is broken.\n")
        return OK if self.ours.failures == 0 and not self.too_good else FAILED


def _introduce() -> None:
    console.out(
        f"On loopback: an emulated CodeArtifact with tokens valid for {LIFE:g} s, and a package index that\n"
        "accepts only valid tokens. uvtokend, boto3 and uv are the real ones. Each line is an install\n"
        f"of {len(PACKAGES)} packages, nothing cached.\n\n"
        + _paint(f"          {'uv with uvtokend':{_COLUMN}}  uv with a token exported once", _DIM)
        + "\n"
    )


def _verdict(failure: str | None, side: Side) -> str:
    if failure is None:
        return _paint(f"{f'installed in {side.seconds[-1]:.2f} s':{_COLUMN}}", _GREEN)
    why = _REFUSED if _REFUSED in failure else "see below"
    return _paint(f"{f'FAILED: {why}':{_COLUMN}}", _RED)


def _counts(side: Side) -> str:
    median = f", {sorted(side.seconds)[len(side.seconds) // 2]:.2f} s each" if side.seconds else ""
    return f"{side.installs} installs, {side.failures} failed{median}"


def _paint(text: str, how: str) -> str:
    return f"\x1b[{how}m{text}\x1b[0m" if console.colored(sys.stdout) else text

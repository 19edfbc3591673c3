"""`uvtokend demo`: the main job on this machine alone, beside what people do without it.

A loopback CodeArtifact hands out tokens that live for seconds; a loopback index lets in living tokens only. A real
daemon keeps the netrc, and a real uv installs through it again and again. Beside it the same uv installs with a token
that was exported once, and fails as soon as that token has died.
"""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from uvtokend.errors import FAILED, OK, UvtokendError
from uvtokend.sandbox.codeartifact import CodeArtifact
from uvtokend.sandbox.index import PackageIndex
from uvtokend.sandbox.laptop import Laptop, find_uv

if TYPE_CHECKING:
    import argparse

#: Seconds that a token of the demo lives.
LIFE = 8.0
#: Seconds between two rounds of installs.
PAUSE = 0.4
#: Seconds for the first token to come.
FIRST = 30.0


@dataclass(slots=True)
class Tally:
    """What has happened so far."""

    tokens: int = 0
    installs: int = 0
    failures: int = 0
    control_installs: int = 0
    control_failures: int = 0


def run(args: argparse.Namespace) -> int:
    """Run the demo for ``args.seconds`` seconds.

    Returns:
        0 if every install through the daemon worked, and those without it failed once their token had died.

    Raises:
        UvtokendError: There is no uv, or the daemon did not deliver.
    """
    find_uv()
    former = signal.signal(signal.SIGTERM, _interrupt)
    folder = Path(tempfile.mkdtemp(prefix="uvtokend-demo-"))
    try:
        return _demo(folder, args.seconds)
    finally:
        signal.signal(signal.SIGTERM, former)
        shutil.rmtree(folder, ignore_errors=True)


def _interrupt(*_: object) -> NoReturn:
    raise KeyboardInterrupt


def _demo(folder: Path, seconds: float) -> int:
    with (
        CodeArtifact(LIFE) as cloud,
        PackageIndex(lambda login, token: login == "aws" and cloud.valid(token)) as index,
    ):
        laptop = Laptop(folder, cloud)
        laptop.configure(index.url)
        exported = cloud.issue()
        print(f"A made-up CodeArtifact whose tokens live for {LIFE:g} s, and an index that lets in living ones only.")
        print("Left: uv with the netrc that uvtokend keeps. Right: uv with a token that was exported once.\n")
        try:
            laptop.start()
            _await_first_token(laptop)
            tally, elapsed = _rounds(laptop, index, exported, seconds)
        finally:
            laptop.stop()
    return _summary(tally, elapsed)


def _await_first_token(laptop: Laptop) -> None:
    deadline = time.monotonic() + FIRST
    while not (laptop.netrc.exists() and "machine" in laptop.netrc.read_text()):
        if laptop.daemon is None or laptop.daemon.poll() is not None or time.monotonic() > deadline:
            raise UvtokendError(
                f"The demo's daemon did not deliver a token: {laptop.uvtokend('status').stdout.strip()}"
            )
        time.sleep(0.05)


def _rounds(laptop: Laptop, index: PackageIndex, exported: str, seconds: float) -> tuple[Tally, float]:
    """Install on both sides until the time is over."""
    tally, began = Tally(), time.monotonic()
    last = ""
    while (elapsed := time.monotonic() - began) < seconds:
        token = laptop.netrc.read_text()
        tally.tokens += token != last
        rotated = "  <- a new token" if token != last and last else ""
        last = token
        ours = _install(laptop, index)
        control = _install(
            laptop, index, UV_INDEX_DEMO_USERNAME="aws", UV_INDEX_DEMO_PASSWORD=exported, NETRC="/dev/null"
        )
        tally.installs += 1
        tally.control_installs += 1
        tally.failures += ours.returncode != 0
        tally.control_failures += control.returncode != 0
        _say(f"{elapsed:5.1f} s  token {tally.tokens:2}   {_word(ours):12}   {_word(control):12}{rotated}")
        if ours.returncode != 0:
            _say(ours.stderr)
        time.sleep(PAUSE)
    return tally, time.monotonic() - began


def _install(laptop: Laptop, index: PackageIndex, **environment: str) -> subprocess.CompletedProcess[str]:
    """Install two packages into a new folder, with nothing cached."""
    target = tempfile.mkdtemp(dir=laptop.folder / "tmp")
    done = laptop.uv(
        *("pip", "install", "--quiet", "--no-cache", "--target", target),
        *("--default-index", f"demo={index.url}", "alpha", "beta"),
        **environment,
    )
    shutil.rmtree(target, ignore_errors=True)
    return done


def _word(install: subprocess.CompletedProcess[str]) -> str:
    good, bad = ("\x1b[32m", "\x1b[31m") if sys.stdout.isatty() else ("", "")
    end = "\x1b[0m" if good else ""
    return f"{good}installed{end}   " if install.returncode == 0 else f"{bad}FAILED{end}      "


def _summary(tally: Tally, elapsed: float) -> int:
    print(f"\nIn {elapsed:.0f} s the token was rotated {max(0, tally.tokens - 1)} times.")
    print(f"  with uvtokend:    {tally.installs} installs, {tally.failures} failed")
    print(f"  exported once:    {tally.control_installs} installs, {tally.control_failures} failed")
    expected = tally.installs > 0 and tally.failures == 0
    died = tally.control_failures > 0 or elapsed <= LIFE + 2
    return OK if expected and died else FAILED


def _say(text: str) -> None:
    print(text, flush=True)

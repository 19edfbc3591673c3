"""What every test shares: a cloud, a directory, settings, and which tests this machine cannot run, said aloud."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from support import commands
from support.leftovers import ended_with_us
from support.needs import NEEDS
from uvtokend.sandbox import machine
from uvtokend.sandbox.codeartifact import CodeArtifact
from uvtokend.sandbox.machine import Machine

#: A machine's environment starts empty; packaging/covered.py measures its processes too.
machine._KEPT = (*machine._KEPT, "COVERAGE_PROCESS_CONFIG")


def _command(self: Machine, *arguments: str) -> subprocess.CompletedProcess[str]:
    return commands.run(arguments, self.environment, self.directory)


#: The commands on a machine are forked by `support.commands`; its daemon is started.
Machine.uvtokend = _command  # type: ignore[method-assign]
#: How many examples Hypothesis tries of each law: a few on each run, many with ``--hypothesis-profile thorough``.
#: Another user than the checkout's owner could not write its database of examples, and a warning is an error. A busy
#: machine is no failure: no example has a time limit of its own.
for profile, examples in {"uvtokend": 50, "thorough": 2000}.items():
    settings.register_profile(profile, max_examples=examples, database=None, deadline=None)
settings.load_profile("uvtokend")
#: A shell that starts a job in the background lets it ignore SIGINT, and nohup SIGHUP; what the tests start would too.
for ignored in (signal.SIGINT, signal.SIGHUP):
    if signal.getsignal(ignored) is signal.SIG_IGN:
        signal.signal(ignored, signal.default_int_handler if ignored is signal.SIGINT else signal.SIG_DFL)


TESTS = Path(__file__).parent
#: Open files that the tests need: macOS allows 256, and one test has 129 clients and their daemon in one process.
FILES = 4096
#: Parts that run real daemons, clients and clouds; the fast loop leaves them out.
SLOW = {
    *("cli", "daemon", "disk", "doctor", "e2e", "mutation", "packaging", "providers", "sandbox", "service", "soak"),
    "testing",
}


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Allow enough open files, and on macOS short paths: a socket's has at most 103 bytes, and TMPDIR takes 60."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < FILES:
        resource.setrlimit(
            resource.RLIMIT_NOFILE, (FILES if hard == resource.RLIM_INFINITY else min(FILES, hard), hard)
        )
    if sys.platform == "darwin" and not config.option.basetemp:
        config.option.basetemp = tempfile.mkdtemp(prefix="u", dir="/tmp")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Start twice as many workers as there are cores: tests of processes wait for half of their time."""
    return 2 * (os.cpu_count() or 1)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark the slow tests and those that are not measured; leave out what this machine cannot run.

    `--cov` measures the core, and its own tests must execute every branch of it. The simulator and the tests of other
    parts run untraced, because a tracer makes them three times as slow.
    """
    for item in items:
        part = item.path.relative_to(TESTS).parts[0]
        simulates = item.path.name == "test_simulation.py"
        if part in SLOW or simulates:
            item.add_marker(pytest.mark.slow)
        if part != "core" or simulates:
            item.add_marker(pytest.mark.no_cover)
    needed = {name for name in NEEDS for item in items if item.get_closest_marker(name)}
    missing = {name for name in needed if NEEDS[name]()}
    chosen = [item for item in items if any(item.get_closest_marker(name) for name in missing)]
    if chosen:
        config.hook.pytest_deselected(items=chosen)
        items[:] = [item for item in items if item not in chosen]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say what was left out; here, because xdist's workers, which do the collecting, have nowhere to say it."""
    for name, missing in NEEDS.items():
        if reason := missing():
            terminalreporter.write_line(f"left out, the tests marked {name}: {reason}")


@pytest.fixture(scope="session", autouse=True)
def _no_daemon_is_left(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Stop what still runs below our directory when we end, even by SIGKILL."""
    with ended_with_us(tmp_path_factory.getbasetemp()):
        yield


@pytest.fixture
def cloud() -> Iterator[CodeArtifact]:
    """The emulated AWS."""
    with CodeArtifact() as emulator:
        yield emulator


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A directory that every user may enter, which pytest's own are not."""
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder

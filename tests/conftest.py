"""Shared fixtures and settings; also decides which tests this machine cannot run, and reports them."""

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

#: A `Machine` starts with an empty environment; this variable lets packaging/covered.py measure its processes too.
machine._KEPT = (*machine._KEPT, "COVERAGE_PROCESS_CONFIG")


def _command(self: Machine, *arguments: str) -> subprocess.CompletedProcess[str]:
    return commands.run(arguments, self.environment, self.directory)


#: `support.commands` forks a `Machine`'s commands, which is faster than starting Python; its daemon gets a new Python.
Machine.uvtokend = _command  # type: ignore[method-assign]
#: How many examples Hypothesis tries per property: 25 in a normal run, 2000 with ``--hypothesis-profile thorough``.
#: No database: a user who cannot write to the checkout would get a warning, and warnings are errors. No deadline: on a
#: busy machine a slow example is not a failure.
for profile, examples in {"uvtokend": 25, "thorough": 2000}.items():
    settings.register_profile(profile, max_examples=examples, database=None, deadline=None)
settings.load_profile("uvtokend")
#: Each test sets the proxies that it needs. Proxies of this shell, and empty variables, are deleted.
for variable in [name for name in os.environ if name.lower().endswith("_proxy")]:
    del os.environ[variable]
#: Background jobs of a shell ignore SIGINT, and nohup's ignore SIGHUP; the tests' child processes would inherit that.
for ignored in (signal.SIGINT, signal.SIGHUP):
    if signal.getsignal(ignored) is signal.SIG_IGN:
        signal.signal(ignored, signal.default_int_handler if ignored is signal.SIGINT else signal.SIG_DFL)


TESTS = Path(__file__).parent
#: Open files that the tests need. macOS allows 256; one test runs 129 clients and their daemon in one process.
FILES = 4096
#: Directories whose tests run real daemons, clients and emulators; the fast loop skips them.
SLOW = {
    *("cli", "daemon", "disk", "doctor", "e2e", "mutation", "packaging", "providers", "sandbox", "service", "soak"),
    "testing",
}


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Raise the limit of open files; on macOS also use a short base directory,
    since a socket path has at most 103 bytes.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < FILES:
        resource.setrlimit(
            resource.RLIMIT_NOFILE, (FILES if hard == resource.RLIM_INFINITY else min(FILES, hard), hard)
        )
    if sys.platform == "darwin" and not config.option.basetemp:
        config.option.basetemp = tempfile.mkdtemp(prefix="u", dir="/tmp")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Start twice as many workers as there are cores, because tests of processes wait half of the time."""
    return 2 * (os.cpu_count() or 1)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark the slow and the unmeasured tests, and deselect those that this machine cannot run.

    `--cov` measures core/, whose own tests must execute every branch of it. The simulator and the tests of other
    directories run untraced, because tracing makes them three times as slow.
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
    """Report which tests were left out, and why; done here because xdist's workers cannot write to the terminal."""
    for name, missing in NEEDS.items():
        if reason := missing():
            terminalreporter.write_line(f"left out, the tests marked {name}: {reason}")


@pytest.fixture(scope="session", autouse=True)
def _no_daemon_is_left(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Stop every process that still runs from the tests' directory when the test run ends, even by SIGKILL."""
    with ended_with_us(tmp_path_factory.getbasetemp()):
        yield


@pytest.fixture
def cloud() -> Iterator[CodeArtifact]:
    """Return a running AWS CodeArtifact emulator."""
    with CodeArtifact() as emulator:
        yield emulator


@pytest.fixture
def open_directory() -> Iterator[Path]:
    """Return a directory that every user may enter, unlike pytest's own temporary directories."""
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        directory = Path(name)
        directory.chmod(0o755)
        yield directory

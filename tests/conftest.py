"""What every test shares: Hypothesis' settings, and which tests this machine cannot run, said aloud instead of skipped
in silence."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest
from hypothesis import settings

#: Another user than the checkout's owner could not write Hypothesis' examples there, and a warning is an error.
settings.register_profile("uvtokend", database=None)
settings.load_profile("uvtokend")


def missing_for_systemd() -> str | None:
    """Say why a user manager of systemd cannot be run here, or None."""
    if sys.platform != "linux" or os.getuid() != 0:
        return "a systemd of our own needs Linux and root"
    if not shutil.which("systemctl") or not any(Path(p, "systemd/systemd").exists() for p in ("/usr/lib", "/lib")):
        return "systemd is not installed: apt-get install systemd dbus-user-session"
    return None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the tests marked ``systemd`` where there is none."""
    chosen = [item for item in items if item.get_closest_marker("systemd")] if missing_for_systemd() else []
    if chosen:
        config.hook.pytest_deselected(items=chosen)
        items[:] = [item for item in items if item not in chosen]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say what was left out; here, because xdist's workers, which do the collecting, have nowhere to say it."""
    reason = missing_for_systemd()
    if reason:
        terminalreporter.write_line(f"left out, the tests marked systemd: {reason}")

"""A daemon ends if its installation is removed. If it is upgraded, the daemon says so, and `start` restarts it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import psutil
import pytest

import uvtokend
from support.daemons import ask
from support.desk import Desk, desk, gone
from support.waiting import until
from uvtokend import __version__
from uvtokend.core.events import Report
from uvtokend.daemon import installation
from uvtokend.daemon.installation import Installation, InstalledFiles, OnDisk

__all__ = ["desk"]

PACKAGE = Path(uvtokend.__file__).parent
#: A shorter guard tick than 25 s.
QUICK = """\
import sys
if "run" in sys.orig_argv:
    from uvtokend.daemon import timer
    timer.GUARD_TICK = 0.2
"""


# ------------------------------------------------------------------------------------------------------- decisions


def on_disk(interpreter: str, package: str) -> OnDisk:
    """Return the result of the first look."""
    return InstalledFiles(interpreter, package).look()


def test_the_installation_on_disk(tmp_path: Path) -> None:
    """A missing file is named, even if its directory was replaced by something else. The version is read from the
    file."""
    package = tmp_path / "lib" / "__init__.py"
    package.parent.mkdir()
    package.write_text('"""Doc."""\n\n__version__ = "7.1"\n')
    assert on_disk(sys.executable, str(package)) == OnDisk(None, "7.1")
    assert on_disk(str(tmp_path / "python"), str(package)) == OnDisk(str(tmp_path / "python"))
    shutil.rmtree(package.parent)
    assert on_disk(sys.executable, str(package)) == OnDisk(str(package))
    package.parent.write_text("not a directory any more")
    assert on_disk(sys.executable, str(package)) == OnDisk(str(package))


def test_an_unreadable_installation_is_not_missing(tmp_path: Path) -> None:
    """A path that the system cannot follow, or an undecodable file, does not count as missing and does not end the
    daemon."""
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    assert on_disk(str(loop / "python"), __file__) == OnDisk(None)
    garbage = tmp_path / "__init__.py"
    garbage.write_bytes(b'__version__ = "\xff\xfe"\n')
    assert on_disk(sys.executable, str(garbage)) == OnDisk(None)


def test_a_package_is_read_only_after_a_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tick only calls stat. A package that was replaced or missing for a moment is read again."""
    package = tmp_path / "__init__.py"
    package.write_text('__version__ = "1.0"\n')
    files = InstalledFiles(sys.executable, str(package))
    reads: list[str] = []
    honest = installation._version

    def version_of(path: str) -> str | None:
        reads.append(path)
        return honest(path)

    monkeypatch.setattr(installation, "_version", version_of)
    for version, times in (("1.0", 1), ("1.1", 2)):
        new = tmp_path / "new"
        new.write_text(f'__version__ = "{version}"\n')
        new.replace(package)
        for _ in range(3):
            assert files.look() == OnDisk(None, version)
        assert len(reads) == times
    away = package.rename(tmp_path / "away")
    assert files.look().missing == str(package)
    away.rename(package)
    assert files.look() == OnDisk(None, "1.1")
    assert len(reads) == 3


def decisions(*looks: OnDisk) -> tuple[list[str], list[Report]]:
    """Return why the daemon ends, if it does, and what it reports after these looks."""
    ended: list[str] = []
    reports: list[Report] = []
    watch = Installation(ended.append, reports.append)
    for on_disk in looks:
        watch.seen(on_disk)
    return ended, reports


def test_files_may_be_missing_for_a_moment() -> None:
    """An installer may be replacing files that are missing for one look. Only files missing at two successive looks
    end the daemon."""
    gone, there = OnDisk("/x"), OnDisk(None, __version__)
    assert decisions(gone, there, gone, there, gone) == ([], [])
    assert decisions(gone, there, gone, gone) == (["its installation is gone (/x does not exist)"], [])


def test_an_upgrade_is_logged_once() -> None:
    """The log names both versions and the fix once. A version that cannot be read is not an upgrade."""
    ended, reports = decisions(OnDisk(None, __version__), OnDisk(None), OnDisk(None, "99.0"), OnDisk(None, "99.0"))
    assert ended == []
    assert [(report.event, report.hint) for report in reports] == [("upgraded", "uvtokend restart")]
    assert "99.0" in reports[0].message
    assert __version__ in reports[0].message


# ---------------------------------------------------------------------------------------------- with real programs


class Installed:
    """A new virtual environment with a copy of uvtokend that uses the libraries of this one.

    Args:
        desk: The home directory in which its commands run.
    """

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self.root = desk.home / "tool"
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(self.root)], check=True)
        self.python = self.root / "bin" / "python"
        self.library = Path(sysconfig.get_path("purelib", vars={"base": str(self.root)}))
        shutil.copytree(PACKAGE, self.library / "uvtokend", ignore=shutil.ignore_patterns("__pycache__"))
        (self.library / "others.pth").write_text(f"{sysconfig.get_path('purelib')}\nimport quick\n")
        (self.library / "quick.py").write_text(QUICK)

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a command of this installation."""
        command = [str(self.python), "-P", "-m", "uvtokend", *arguments]
        return subprocess.run(command, env=self.desk.env, capture_output=True, text=True, check=False, timeout=60)

    def daemon(self) -> psutil.Process:
        """Return the running daemon."""
        return psutil.Process(ask(self.desk.socket, "version")["pid"])

    def upgrade(self, version: str) -> None:
        """Replace the installed version, as an installer does."""
        module = self.library / "uvtokend" / "__init__.py"
        new = module.with_name("new")
        new.write_text(module.read_text().replace(f'"{__version__}"', f'"{version}"'))
        new.replace(module)


@pytest.fixture
def installed(desk: Desk) -> Installed:
    """Return an installation with one index, whose daemon runs."""
    desk.configure(("a", "a.example"))
    tool = Installed(desk)
    done = tool.run("start")
    assert done.returncode == 0, done.stderr
    assert os.path.samefile(Path(tool.daemon().cmdline()[0]).parent, tool.root / "bin")
    return tool


def events(desk: Desk) -> list[tuple[str, str]]:
    """Return kind and message of every event."""
    records = [json.loads(line) for line in (desk.state / "events.jsonl").read_text().splitlines()]
    return [(record["event"], record["message"]) for record in records]


def test_the_daemon_ends_when_it_is_uninstalled(installed: Installed) -> None:
    """The daemon logs why it ends, removes its socket, leaves the netrc unchanged and does not crash."""
    netrc = installed.desk.netrc.read_bytes()
    daemon = installed.daemon()
    shutil.rmtree(installed.root)
    gone(daemon)
    assert events(installed.desk)[-1][0] == "stopped"
    assert "its installation is gone" in events(installed.desk)[-1][1]
    shown = installed.desk.run("status", status=3).stdout.splitlines()
    assert shown[1] == "  fix: uvtokend start"
    assert any(line.startswith("The daemon stopped: its installation is gone") for line in shown)
    assert not installed.desk.socket.exists()
    assert installed.desk.netrc.read_bytes() == netrc
    output = (installed.desk.state / "daemon.log").read_text()
    assert "Traceback" not in output


def test_start_after_an_upgrade_restarts_the_daemon(installed: Installed) -> None:
    """The log names the upgrade. `start` of the new version restarts the daemon once."""
    old = installed.daemon().pid
    installed.upgrade("99.0")
    until(lambda: any(kind == "upgraded" and "99.0" in message for kind, message in events(installed.desk)))
    done = installed.run("start")
    assert done.returncode == 0, done.stderr
    assert f"The running daemon is version {__version__}, this is 99.0: it is restarted." in done.stderr
    new = installed.daemon().pid
    assert new != old
    assert ask(installed.desk.socket, "version")["version"] == "99.0"
    assert "is running already" in installed.run("start").stderr
    assert installed.daemon().pid == new


def test_simultaneous_starts_after_an_upgrade_agree(installed: Installed) -> None:
    """Several starts at the same time all succeed, and none ends the daemon that another one started."""
    installed.upgrade("99.0")
    command = [str(installed.python), "-P", "-m", "uvtokend", "start"]
    starts = [
        subprocess.Popen(command, env=installed.desk.env, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
        for _ in range(3)
    ]
    results = [(start.communicate(timeout=60)[1], start.returncode) for start in starts]
    assert [status for _, status in results] == [0, 0, 0], results
    assert ask(installed.desk.socket, "version")["version"] == "99.0"
    pids = {word.rstrip(").") for text, _ in results for word in text.partition("(pid ")[2].split()[:1]}
    assert pids == {str(installed.daemon().pid)}

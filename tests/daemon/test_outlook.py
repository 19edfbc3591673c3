"""The files and notifications of the daemon, with real files and scripts that record their arguments as desktop
programs."""

from __future__ import annotations

import asyncio
import os
import shutil
import stat
import threading
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import pytest

from uvtokend.core.events import Report
from uvtokend.core.model import Settings
from uvtokend.core.reminders import AFTER_WAKING
from uvtokend.core.status import StatusDocument
from uvtokend.daemon import outlook
from uvtokend.disk import files

ERROR = {"kind": "login-required", "message": "Expired <b> & gone.", "hint": "aws sso login"}
SCRIPT = """#!/bin/sh
printf '%s\\n' "$(basename "$0")" "$@" == >> "$HOME/calls"
echo 42
"""


def index(**changes: Any) -> dict[str, Any]:
    """Return a ready index with these changes."""
    return {
        "name": "a",
        "host": "a.example",
        "provider": "static",
        "enabled": True,
        "health": "fresh",
        "state": "waiting",
        "expires_at": None,
        "delivered": True,
        "failures": 0,
        "last_error": None,
        **changes,
    }


BLOCKED = index(health="none", delivered=False, state="blocked", failures=2, last_error=ERROR)


class Scene:
    """An outlook whose document and settings a test changes."""

    def __init__(self, home: Path, settings: Settings) -> None:
        self.home = home
        self.settings = settings
        self.indexes = [index()]
        self.reports: list[Report] = []
        self.outlook = outlook.Outlook(self.document, lambda: self.settings, self.reports.append)

    def document(self) -> StatusDocument:
        """Return the current document."""
        content = {
            "version": "1.0.0",
            "pid": 1,
            "started_at": "2026-01-31T07:00:00Z",
            "config_stale": None,
            "delivery": {"ok": True, "problem": None},
            "indexes": self.indexes,
        }
        return cast("StatusDocument", content)

    async def update(self) -> None:
        """Update the files and notifications, and wait for the end."""
        await self.outlook._update()

    @property
    def calls(self) -> list[list[str]]:
        """The calls of the desktop programs."""
        try:
            text = (self.home / "calls").read_text()
        except FileNotFoundError:
            return []
        return [call.splitlines() for call in text.split("\n==\n") if call]


@pytest.fixture
def live(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[Scene], Awaitable[None]]], None]:
    """Return a function that runs a story with an outlook."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    (tmp_path / "uvtokend").mkdir(0o700)
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("notify-send", "gdbus"):
        (programs / name).write_text(SCRIPT)
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    monkeypatch.setattr(outlook, "_PAUSE", 0.0)

    def run(story: Callable[[Scene], Awaitable[None]]) -> None:
        async def whole() -> None:
            scene = Scene(tmp_path, Settings("c", netrc="/n", notify=True, metrics_file=str(tmp_path / "m.prom")))
            scene.outlook._woke_at = asyncio.get_running_loop().time() - AFTER_WAKING
            try:
                await story(scene)
            finally:
                await scene.outlook.close()

        asyncio.run(whole())

    return run


Live = Callable[[Callable[[Scene], Awaitable[None]]], None]


def test_the_files_exist_while_the_daemon_runs(live: Live, tmp_path: Path) -> None:
    """The prompt and metrics files exist only while the daemon runs, are updated, and have the right modes."""
    prompt, metrics = tmp_path / "uvtokend" / "prompt", tmp_path / "m.prom"

    async def story(scene: Scene) -> None:
        scene.outlook.changed()
        scene.outlook.changed()
        while not metrics.exists():
            await asyncio.sleep(0)
        assert prompt.read_text().splitlines()[0] == "1 ready"
        assert stat.S_IMODE(prompt.stat().st_mode) == 0o600
        assert stat.S_IMODE(metrics.stat().st_mode) == 0o644
        before = prompt.stat().st_ino
        await scene.update()
        assert prompt.stat().st_ino == before  # an equal text is not written again
        scene.indexes = [BLOCKED]
        scene.settings = Settings("c", netrc="/n")
        await scene.update()
        assert prompt.read_text().splitlines()[::2] == ["0/1 ready, sign-in needed", "1"]
        assert not metrics.exists()

    live(story)
    assert not prompt.exists()


def test_the_daemon_ends_in_spite_of_a_hung_metrics_directory(
    live: Live, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The daemon ends although the directory of the metrics file does not answer."""
    monkeypatch.setattr(outlook, "LAST", 0.01)
    begun, back = threading.Event(), threading.Event()

    def hang(*_: object) -> None:
        begun.set()
        back.wait()

    monkeypatch.setattr("uvtokend.daemon.outlook.files.replace", hang)
    monkeypatch.setattr(outlook, "_remove", hang)

    async def story(scene: Scene) -> None:
        scene.outlook.changed()
        try:
            while not begun.is_set():
                await asyncio.sleep(0)
            async with asyncio.timeout(20):
                await scene.outlook.close()
            threads = [each for each in threading.enumerate() if not each.daemon]
            assert threads == [threading.main_thread()]  # the interpreter would wait for other threads
        finally:
            back.set()

    live(story)
    assert not (tmp_path / "m.prom").exists()


@pytest.mark.parametrize("what", ["state directory", "PATH"])
def test_reminders_on_a_hung_disk_do_not_block_the_loop(
    what: str, live: Live, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the file of the shown reminders or a directory of PATH does not answer, the loop goes on. The reminder is
    shown once they answer."""
    begun, back = threading.Event(), threading.Event()
    hangs: tuple[Any, str] = (files, "read") if what == "state directory" else (shutil, "which")
    honest = getattr(*hangs)

    def hang(*args: object) -> object:
        begun.set()
        assert back.wait(20)
        return honest(*args)

    monkeypatch.setattr(*hangs, hang)

    async def story(scene: Scene) -> None:
        scene.indexes = [BLOCKED]
        update = asyncio.create_task(scene.update())
        async with asyncio.timeout(30):
            while not begun.is_set():
                await asyncio.sleep(0)
        back.set()
        await update
        assert [call[0] for call in scene.calls] == ["notify-send"]

    live(story)


def test_an_unwritable_file_is_logged_once(live: Live, tmp_path: Path) -> None:
    """If the metrics directory is missing, the log says so once, and the prompt file is still written."""

    async def story(scene: Scene) -> None:
        scene.settings = Settings("c", netrc="/n", metrics_file=str(tmp_path / "missing" / "m.prom"))
        await scene.update()
        await scene.update()
        (report,) = scene.reports
        assert "missing/m.prom could not be written: No such file or directory." in report.message
        assert (tmp_path / "uvtokend" / "prompt").exists()
        (tmp_path / "missing").mkdir()
        await scene.update()
        assert (tmp_path / "missing" / "m.prom").exists()

    live(story)


def test_a_reminder_is_shown_once_and_withdrawn(live: Live) -> None:
    """A needed sign-in causes one notification without markup, which is withdrawn after the sign-in."""

    async def story(scene: Scene) -> None:
        await scene.update()
        assert scene.calls == []
        scene.indexes = [BLOCKED]
        await scene.update()
        await scene.update()
        (call,) = scene.calls
        assert call[0] == "notify-send"
        assert call[-3:] == ["uvtokend: Sign-in needed", "a: Expired &lt;b&gt; &amp; gone.", "aws sso login"]
        scene.indexes = [index()]
        await scene.update()
        assert scene.calls[1][0] == "gdbus"
        assert scene.calls[1][-2:] == ["org.freedesktop.Notifications.CloseNotification", "42"]
        scene.indexes = [BLOCKED]
        await scene.update()
        assert [call[0] for call in scene.calls] == ["notify-send", "gdbus", "notify-send"]

    live(story)


def test_a_restart_does_not_repeat_a_reminder(live: Live, tmp_path: Path) -> None:
    """The next daemon knows which reminder is shown, does not repeat it, and withdraws it once a fetch succeeds."""

    async def first(scene: Scene) -> None:
        scene.indexes = [BLOCKED]
        await scene.update()
        assert [call[0] for call in scene.calls] == ["notify-send"]

    async def second(scene: Scene) -> None:
        for moment in ({"state": "fetching", "last_error": None, "failures": 0}, {"failures": 1}, {}):
            scene.indexes = [{**BLOCKED, **moment}]  # the states until the daemon is sure again
            await scene.update()
        assert [call[0] for call in scene.calls] == ["notify-send"]
        scene.indexes = [index()]
        await scene.update()
        assert [call[0] for call in scene.calls] == ["notify-send", "gdbus"]

    live(first)
    assert (tmp_path / "uvtokend" / "reminders.json").stat().st_mode & 0o777 == 0o600
    live(second)
    (tmp_path / "uvtokend" / "reminders.json").write_text("[")
    live(first_again)


async def first_again(scene: Scene) -> None:
    """Check that a damaged file counts as no reminders."""
    scene.indexes = [BLOCKED]
    await scene.update()
    assert [call[0] for call in scene.calls] == ["notify-send", "gdbus", "notify-send"]


def test_when_no_reminder_is_shown(live: Live) -> None:
    """No reminder is shown in quiet hours, just after a wake-up or if not configured. A reminder that is still
    needed is shown later."""

    async def story(scene: Scene) -> None:
        configured, now, hour = scene.settings, datetime.now(UTC).astimezone(), timedelta(hours=1)
        scene.indexes = [BLOCKED]
        around_now = f"{now - hour:%H:%M}-{now + hour:%H:%M}"
        scene.settings = Settings("c", netrc="/n", notify=True, quiet_hours=around_now)
        scene.outlook._woke_at -= AFTER_WAKING
        await scene.update()
        assert scene.calls == []
        scene.outlook.woke()
        await scene.update()
        scene.settings = configured
        await scene.update()
        assert scene.calls == []
        scene.outlook._woke_at -= AFTER_WAKING
        scene.settings = Settings("c", netrc="/n")
        await scene.update()
        assert scene.calls == []
        scene.settings = configured
        await scene.update()
        assert len(scene.calls) == 1

    live(story)


def test_without_a_desktop_nothing_happens(live: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the desktop programs, as on a server, nothing is shown, logged or retried."""

    async def story(scene: Scene) -> None:
        monkeypatch.setenv("PATH", "/nonexistent")
        scene.indexes = [BLOCKED]
        await scene.update()
        scene.indexes = [index()]
        await scene.update()
        assert scene.reports == []

    live(story)

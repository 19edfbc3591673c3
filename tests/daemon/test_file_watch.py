"""The look at the files at each guard tick: what it reports to the loop, and what a hung file system blocks."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from test_costs import live, looked, many, token

from uvtokend.core import events
from uvtokend.daemon import loop as loops
from uvtokend.daemon.file_watch import FilesSeen, FileWatch
from uvtokend.daemon.installation import InstalledFiles, OnDisk
from uvtokend.daemon.loop import Daemon
from uvtokend.disk.netrc_sink import NetrcSink


@pytest.fixture(autouse=True)
def _state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    (tmp_path / "uvtokend").mkdir(0o700)


def reported(looks: list[tuple[bool, OnDisk]]) -> list[FilesSeen]:
    """Return what successive looks report to the loop."""
    reports: list[FilesSeen] = []

    async def main() -> None:
        watch = FileWatch(lambda _: looks[0][0], lambda: looks[0][1], lambda: None, reports.append)
        while looks:
            watch.look(("netrc",))
            while watch.busy:
                await asyncio.sleep(0.001)
            await asyncio.sleep(0)  # for earlier callbacks
            del looks[0]
        watch.close()

    asyncio.run(asyncio.wait_for(main(), 30))
    return reports


def test_only_changes_are_reported() -> None:
    """A look is reported if it is the first, if the installation changed or has a missing file, or if a sink seems
    to have drifted."""
    one, two, gone = OnDisk(None, "1"), OnDisk(None, "2"), OnDisk("/x")
    looks = [(False, one), (False, one), (True, one), (False, one), (False, two), (False, gone), (False, gone)]
    assert reported(looks) == [
        FilesSeen(False, one),
        FilesSeen(True, one),
        FilesSeen(False, two),
        FilesSeen(False, gone),
        FilesSeen(False, gone),
    ]


def daemon_at_rest(directory: Path, story: Callable[[Daemon, list[events.Event]], Awaitable[None]]) -> None:
    """Run a story with a daemon that has delivered, and with the events that it handles from then on."""
    indexes = many(2)

    async def main(daemon: Daemon) -> None:
        for index in indexes:
            daemon._fetch_ended(index.request, token(daemon._clock.now()))
        await daemon.requests.settle(None)
        daemon._tick()
        await looked(daemon)
        handled: list[events.Event] = []
        honest = daemon.feed

        def feed(event: events.Event) -> None:
            if not isinstance(event, events.Tick):
                handled.append(event)
            honest(event)

        daemon.feed = feed  # type: ignore[method-assign]
        await story(daemon, handled)

    live(directory, indexes, main)


def test_an_edit_is_detected_by_the_next_tick(tmp_path: Path) -> None:
    """A foreign edit causes one delivery, and an unchanged netrc causes none."""

    async def story(daemon: Daemon, handled: list[events.Event]) -> None:
        daemon._tick()
        await looked(daemon)
        assert handled == []
        with (tmp_path / "netrc").open("a") as netrc:
            netrc.write("machine ftp.example login me password mine\n")
        daemon._tick()
        while events.SinkDrifted("netrc") not in handled:
            await asyncio.sleep(0.01)

    daemon_at_rest(tmp_path, story)


def test_a_hung_installation_hides_no_edit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the file system of the installation hangs, edits of the netrc are still detected and systemd's watchdog is
    still notified."""
    there = threading.Event()
    monkeypatch.setattr(InstalledFiles, "look", lambda _: OnDisk(None) if there.wait(60) else OnDisk("late"))
    fed_to_systemd: list[str] = []

    async def story(daemon: Daemon, handled: list[events.Event]) -> None:
        monkeypatch.setattr(loops, "notify", fed_to_systemd.append)
        for _ in range(3):
            daemon._tick()
            while daemon._files_watch.sinks_hang or not (daemon._looking is None or daemon._looking.done()):
                await asyncio.sleep(0.01)
        assert handled == []
        (tmp_path / "netrc").write_text("")
        daemon._tick()
        while events.SinkDrifted("netrc") not in handled:
            await asyncio.sleep(0.01)
        assert fed_to_systemd == ["WATCHDOG=1"] * 4

    async def main(daemon: Daemon, handled: list[events.Event]) -> None:
        try:
            there.clear()
            await story(daemon, handled)
        finally:
            there.set()

    there.set()
    daemon_at_rest(tmp_path, main)


def test_a_hung_sink_is_detected_by_the_next_tick(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A netrc whose file system has not answered for a whole tick counts as drifted, so that a delivery succeeds or
    is reported as hung."""
    there = threading.Event()
    honest = NetrcSink.fingerprint

    def fingerprint(sink: NetrcSink) -> tuple[int, ...]:
        there.wait(60)
        return honest(sink)

    async def story(daemon: Daemon, handled: list[events.Event]) -> None:
        monkeypatch.setattr(NetrcSink, "fingerprint", fingerprint)
        try:
            daemon._tick()
            assert handled == []
            daemon._tick()
            assert handled == [events.SinkDrifted("netrc")]
        finally:
            there.set()

    daemon_at_rest(tmp_path, story)

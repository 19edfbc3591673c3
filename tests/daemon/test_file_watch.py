"""The look at files of each guard tick: what the loop hears of it, and what a file system that hangs holds up."""

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


def heard(looks: list[tuple[bool, OnDisk]]) -> list[FilesSeen]:
    """Return what the loop hears of some looks, one after another."""
    told: list[FilesSeen] = []

    async def main() -> None:
        watch = FileWatch(lambda _: looks[0][0], lambda: looks[0][1], lambda: None, told.append)
        while looks:
            watch.look(("netrc",))
            while watch.busy:
                await asyncio.sleep(0.001)
            await asyncio.sleep(0)  # a turn for what was told before
            del looks[0]
        watch.close()

    asyncio.run(asyncio.wait_for(main(), 30))
    return told


def test_only_news_is_told() -> None:
    """The first picture of the installation, each other one, one with a missing file, and a sink that seems drifted."""
    one, two, gone = OnDisk(None, "1"), OnDisk(None, "2"), OnDisk("/x")
    looks = [(False, one), (False, one), (True, one), (False, one), (False, two), (False, gone), (False, gone)]
    assert heard(looks) == [
        FilesSeen(False, one),
        FilesSeen(True, one),
        FilesSeen(False, two),
        FilesSeen(False, gone),
        FilesSeen(False, gone),
    ]


def daemon_at_rest(folder: Path, story: Callable[[Daemon, list[events.Event]], Awaitable[None]]) -> None:
    """Run a story with a daemon that has delivered, and with the events that it is fed from then on."""
    indexes = many(2)

    async def main(daemon: Daemon) -> None:
        for index in indexes:
            daemon._fetch_ended(index.request, token(daemon._clock.now()))
        await daemon.requests.settle(None)
        daemon._tick()
        await looked(daemon)
        fed: list[events.Event] = []
        honest = daemon.feed

        def feed(event: events.Event) -> None:
            if not isinstance(event, events.Tick):
                fed.append(event)
            honest(event)

        daemon.feed = feed  # type: ignore[method-assign]
        await story(daemon, fed)

    live(folder, indexes, main)


def test_an_edit_is_found_by_the_next_tick(tmp_path: Path) -> None:
    """A foreign edit causes one delivery; a netrc that stays as it was causes none."""

    async def story(daemon: Daemon, fed: list[events.Event]) -> None:
        daemon._tick()
        await looked(daemon)
        assert fed == []
        with (tmp_path / "netrc").open("a") as netrc:
            netrc.write("machine ftp.example login me password mine\n")
        daemon._tick()
        while events.SinkDrifted("netrc") not in fed:
            await asyncio.sleep(0.01)

    daemon_at_rest(tmp_path, story)


def test_an_installation_that_hangs_hides_no_edit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the file system of the program does not answer, the netrc is still looked at, and systemd is told that the
    daemon lives."""
    there = threading.Event()
    monkeypatch.setattr(InstalledFiles, "look", lambda _: OnDisk(None) if there.wait(60) else OnDisk("late"))
    fed_to_systemd: list[str] = []

    async def story(daemon: Daemon, fed: list[events.Event]) -> None:
        monkeypatch.setattr(loops, "notify", fed_to_systemd.append)
        for _ in range(3):
            daemon._tick()
            while daemon._files_watch.sinks_hang or not (daemon._looking is None or daemon._looking.done()):
                await asyncio.sleep(0.01)
        assert fed == []
        (tmp_path / "netrc").write_text("")
        daemon._tick()
        while events.SinkDrifted("netrc") not in fed:
            await asyncio.sleep(0.01)
        assert fed_to_systemd == ["WATCHDOG=1"] * 4

    async def main(daemon: Daemon, fed: list[events.Event]) -> None:
        try:
            there.clear()
            await story(daemon, fed)
        finally:
            there.set()

    there.set()
    daemon_at_rest(tmp_path, main)


def test_a_sink_that_hangs_is_found_by_the_next_tick(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A netrc whose file system has not answered for a whole tick counts as drifted: a delivery ends, or is told as
    hung."""
    there = threading.Event()
    honest = NetrcSink.fingerprint

    def fingerprint(sink: NetrcSink) -> tuple[int, ...]:
        there.wait(60)
        return honest(sink)

    async def story(daemon: Daemon, fed: list[events.Event]) -> None:
        monkeypatch.setattr(NetrcSink, "fingerprint", fingerprint)
        try:
            daemon._tick()
            assert fed == []
            daemon._tick()
            assert fed == [events.SinkDrifted("netrc")]
        finally:
            there.set()

    daemon_at_rest(tmp_path, story)

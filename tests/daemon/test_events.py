"""The event log while its file, or what reads standard error, does not answer."""

from __future__ import annotations

import contextlib
import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from test_loop import live

from support.desk import Desk, desk
from support.waiting import until, until_async
from uvtokend.core.events import Report
from uvtokend.daemon import events, loop
from uvtokend.daemon.events import EventLog
from uvtokend.daemon.loop import Daemon

__all__ = ["desk"]


class Disk:
    """The disk of the log, which answers only if a test lets it."""

    def __init__(self) -> None:
        self.answers, self.asked = threading.Event(), threading.Event()


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[Disk]:
    """Return a disk that does not answer."""
    disk, honest = Disk(), EventLog._append

    def append(log: EventLog, event: Any) -> None:
        disk.asked.set()
        disk.answers.wait(60)
        honest(log, event)

    monkeypatch.setattr(EventLog, "_append", append)
    yield disk
    disk.answers.set()


def logged(path: Path) -> list[str]:
    """Return the messages in the log, in order."""
    return [json.loads(line)["message"] for line in path.read_text().splitlines()]


def test_a_hung_log_keeps_the_latest_events(disk: Disk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the disk hangs, listeners get every event at once, and a bounded number waits for the file. Once the disk
    answers, the file has the event under way, the number of those that are missing, and the latest ones, in order."""
    monkeypatch.setattr(events, "_BACKLOG", 3)
    log, heard = EventLog(str(tmp_path / "events.jsonl"), quiet=True), list[str]()
    log.listen(lambda event: heard.append(str(event["message"])))
    messages = [f"number {number}" for number in range(6)]
    for message in messages:
        log.emit(Report("info", "fetched", (), message))
        assert disk.asked.wait(60)  # so that the first event is under way
    assert heard == messages
    disk.answers.set()
    monkeypatch.setattr(events, "LAST", 60)
    log.close()
    gap = "2 events are missing here, because this log could not be written for a while."
    assert logged(tmp_path / "events.jsonl") == ["number 0", gap, *messages[3:]]


def test_a_hung_log_delays_the_end_for_a_moment_only(
    disk: Disk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At a normal end the last events are written. If the disk hangs, the end waits for a bounded time."""
    monkeypatch.setattr(events, "LAST", 0.01)
    log = EventLog(str(tmp_path / "hung.jsonl"), quiet=True)
    log.emit(Report("info", "stopped", (), "It ends."))
    assert disk.asked.wait(60)
    log.close()
    assert not (tmp_path / "hung.jsonl").exists()
    disk.answers.set()
    monkeypatch.setattr(events, "LAST", 60)
    log = EventLog(str(tmp_path / "good.jsonl"), quiet=True)
    for number in range(100):
        log.emit(Report("info", "fetched", (), f"number {number}"))
    log.close()
    assert logged(tmp_path / "good.jsonl") == [f"number {number}" for number in range(100)]


def test_a_hung_log_blocks_nothing(disk: Disk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the log's disk hangs, tokens are fetched and delivered, the status is answered, guard ticks continue and
    systemd's watchdog is notified."""
    monkeypatch.setattr(events, "LAST", 0.01)
    notified: list[str] = []
    monkeypatch.setattr(loop, "notify", notified.append)

    async def story(daemon: Daemon) -> None:
        assert disk.asked.is_set()
        before = (tmp_path / "netrc").read_text()
        document: Any = await daemon.requests.refresh(None, wait=True)
        assert document["indexes"][0]["delivered"]
        assert (tmp_path / "netrc").read_text() != before
        daemon._tick()
        assert "WATCHDOG=1" in notified
        await until_async(lambda: not daemon._files_watch.busy)

    live(tmp_path, monkeypatch, story)


def test_a_full_pipe_at_standard_error_blocks_nothing(desk: Desk) -> None:
    """If no program reads the pipe that `run` prints its events to, and the pipe is full, the daemon delivers, answers
    and ends as always."""
    desk.configure(("a", "a.example"))
    theirs, ours = os.pipe()
    os.set_blocking(ours, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(ours, bytes(4096))
    os.set_blocking(ours, True)
    daemon = desk.popen("run", stdout=None, stderr=ours)
    os.close(ours)
    try:
        until(desk.socket.exists)
        assert desk.document("refresh")["indexes"][0]["delivered"]
        desk.run("stop")
        assert daemon.wait(60) == 0
    finally:
        os.close(theirs)
        daemon.kill()
        daemon.wait()

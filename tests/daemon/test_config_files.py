"""The configuration is on a file system that does not answer: the daemon continues with the loaded one."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from test_loop import INDEX, live

from support.daemons import status_of
from uvtokend.core.model import Settings
from uvtokend.daemon import config_files, loop
from uvtokend.daemon.config_files import ConfigFiles
from uvtokend.daemon.loop import Daemon
from uvtokend.errors import UvtokendError

SETTINGS = Settings("/nowhere/config.toml", (INDEX,))


class Disk:
    """The file system of the configuration, which answers only if a test lets it."""

    def __init__(self) -> None:
        self.settings = SETTINGS
        self.answers = threading.Event()
        self.answers.set()
        self.reads = 0

    def load(self) -> Settings:
        """Read the configuration, waiting until the disk answers."""
        self.reads += 1
        self.answers.wait()
        return self.settings


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[Disk]:
    """Return a disk on which the files seem changed at each look, with short timeouts."""
    created = Disk()
    monkeypatch.setattr(ConfigFiles, "_fingerprint", lambda _: (object(),))
    monkeypatch.setattr(config_files, "PATIENCE", 0.05)
    monkeypatch.setattr(loop, "SOON", 0.05)
    yield created
    created.answers.set()


def test_a_hung_read_is_reported_and_blocks_nothing(disk: Disk) -> None:
    """While one thread waits for the disk, each `status` says so and starts no other thread. Once the disk answers,
    all is normal."""

    async def main() -> None:
        files = ConfigFiles(disk.load, SETTINGS)
        assert files.stale(0.0) is None
        disk.answers.clear()
        before = disk.reads
        for _ in range(5):
            await files.look(0.05)
            assert files.stale(0.0) == "The configuration cannot be read: its file system does not answer."
        assert disk.reads == before + 1
        with pytest.raises(UvtokendError, match="does not answer") as caught:
            await files.load()
        assert caught.value.hint == "make it answer again (dmesg says more), then: uvtokend reload"
        disk.answers.set()
        while files.stale(0.0) is not None:
            await files.look(10.0)
        disk.settings = replace(SETTINGS, log_level="error")
        await files.look(10.0)
        assert files.stale(0.0) is not None
        assert (await files.load(), files.stale(0.0)) == (disk.settings, None)

    asyncio.run(asyncio.wait_for(main(), 60))


def test_a_hung_configuration_does_not_stop_the_daemon(
    disk: Disk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Status, refresh and guard ticks continue, the status reports the problem, and a reload is refused."""

    async def story(daemon: Daemon) -> None:
        daemon._files._load = disk.load
        disk.answers.clear()
        before = (tmp_path / "netrc").read_text()
        for _ in range(3):
            daemon._tick()
        document = await status_of(daemon)
        assert "does not answer" in str(document["config_stale"])
        await daemon.requests.refresh(None, wait=True)
        assert (tmp_path / "netrc").read_text() != before
        with pytest.raises(UvtokendError, match="does not answer"):
            await daemon.requests.reload()
        disk.answers.set()
        while "does not answer" in str((await status_of(daemon))["config_stale"]):
            pass

    live(tmp_path, monkeypatch, story)

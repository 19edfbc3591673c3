"""The loop in this process: what a guard tick makes of the clocks."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path

import pytest
from plugin import install

from uvtokend.core.model import Index, Request, Settings
from uvtokend.daemon.events import EventLog
from uvtokend.daemon.loop import Daemon
from uvtokend.disk.netrc_sink import NetrcSink
from uvtokend.disk.state_file import Store

INDEX = Index("a", "https://a.example/", "a.example", "made-up", Request("made-up"))


Story = Callable[[Daemon], Awaitable[None]]


def live(folder: Path, monkeypatch: pytest.MonkeyPatch, story: Story, *indexes: Index) -> None:
    """Run a daemon without a socket through a story."""
    monkeypatch.setenv("PYTHONPATH", install(folder / "plugin")["PYTHONPATH"])
    settings = Settings("config.toml", indexes or (INDEX,))

    async def main() -> None:
        log = EventLog(str(folder / "events.jsonl"), quiet=True)
        daemon = Daemon(lambda: settings, settings, NetrcSink(str(folder / "netrc")), Store(str(folder)), log, None)
        try:
            daemon.start()
            await asyncio.wait_for(daemon.settle(None), 60)
            await asyncio.wait_for(story(daemon), 60)
        finally:
            await daemon.close()

    asyncio.run(main())


def test_a_wall_clock_that_is_set_costs_a_fetch_and_no_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The token stands while a new one is fetched at the next tick; a tick without a step fetches nothing."""

    async def story(daemon: Daemon) -> None:
        before = (tmp_path / "netrc").read_text()
        daemon._tick()
        await daemon.settle(None)
        assert (tmp_path / "netrc").read_text() == before
        monkeypatch.setattr(daemon._clock, "shift", lambda: timedelta(seconds=40))
        daemon._tick()
        assert (tmp_path / "netrc").read_text() == before
        await daemon.settle(None)
        assert (tmp_path / "netrc").read_text() != before

    live(tmp_path, monkeypatch, story)


def test_a_late_tick_takes_up_what_had_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a sleep the netrc is written again at once, though its retry was not due yet."""

    async def story(daemon: Daemon) -> None:
        (tmp_path / "netrc").unlink()
        (tmp_path / "netrc").mkdir()
        await daemon.refresh(None, wait=True)
        assert daemon._agent.deliveries["netrc"].failure is not None
        (tmp_path / "netrc").rmdir()
        moment, shift, slept = daemon._clocks._seen
        daemon._clocks._seen = (moment - timedelta(hours=9), shift, slept)
        daemon._tick()
        await daemon.settle(None)
        assert "a.example" in (tmp_path / "netrc").read_text()

    live(tmp_path, monkeypatch, story)


def test_a_mended_secret_is_taken_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The files that hold the secrets of blocked indexes are looked at: one that changes means a fetch, one that stays
    as it was means none, though another index waits for another file."""
    files = {name: tmp_path / name for name in "ab"}
    requests = {
        name: Request("static", options=(("password", (("file", str(file)),)), ("username", "me")))
        for name, file in files.items()
    }
    indexes = [Index(n, f"https://{n}.example/", f"{n}.example", "static", r) for n, r in requests.items()]

    def states(daemon: Daemon) -> list[str]:
        return [lease.state for lease in daemon._agent.leases.values()]

    async def story(daemon: Daemon) -> None:
        for _ in range(3):
            daemon._look()
            assert states(daemon) == ["blocked", "blocked"]
        files["b"].write_text("mended")
        daemon._look()
        assert "fetching" in states(daemon)
        await daemon.settle(None)
        assert states(daemon) == ["blocked", "waiting"]
        assert "b.example login me password mended" in (tmp_path / "netrc").read_text()

    live(tmp_path, monkeypatch, story, *indexes)

"""What the daemon does for many tokens at once, counted: a stop-watch would only tell how busy the machine is."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from uvtokend.core import events
from uvtokend.core.agent import Agent
from uvtokend.core.model import Credential, Index, Request, Secret, Settings
from uvtokend.core.views import Snapshot
from uvtokend.daemon.events import EventLog
from uvtokend.daemon.loop import Daemon
from uvtokend.disk import exchange, files
from uvtokend.disk.netrc_sink import DeliveryResult, NetrcSink
from uvtokend.disk.state_file import Store

THOUSAND = 1000
#: What a daemon at rest has no use for: commands, SDKs, and the code of what is not configured.
NOT_WHEN_IDLE = {
    *("azure", "boto3", "botocore", "google", "keyring", "msal", "psutil", "requests", "tomlkit", "urllib3"),
    *("uvtokend.cli.status", "uvtokend.disk.uv_store_sink", "uvtokend.doctor", "uvtokend.providers"),
}


def many(size: int) -> tuple[Index, ...]:
    """Return indexes with a lease each."""
    return tuple(
        Index(f"i{n}", f"https://i{n}.example/", f"i{n}.example", "static", Request("static", f"{n}"))
        for n in range(size)
    )


def token(now: datetime) -> Credential:
    """Return a token that was just issued."""
    return Credential("me", Secret("token"), now, now + timedelta(hours=1))


def live(folder: Path, indexes: tuple[Index, ...], story: Callable[[Daemon], Awaitable[None]]) -> None:
    """Run a daemon with a control socket's view, whose workers never start."""
    settings = Settings("config.toml", indexes)

    async def main() -> None:
        log = EventLog(str(folder / "events.jsonl"), quiet=True)
        store = Store(str(folder), len(indexes))
        daemon = Daemon(lambda: settings, settings, NetrcSink(str(folder / "netrc")), store, log, str(folder / "s"))
        daemon._workers.start = lambda *_: None  # type: ignore[method-assign]
        try:
            daemon.start()
            await asyncio.wait_for(story(daemon), 60)
        finally:
            await daemon.close()

    asyncio.run(main())


@pytest.fixture(autouse=True)
def _state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    (tmp_path / "uvtokend").mkdir(0o700)


def test_no_event_looks_at_all_indexes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While a thousand tokens arrive, no picture of all indexes is made: that would make a start quadratic."""
    pictures: list[datetime] = []
    honest = Agent.snapshot

    def snapshot(agent: Agent, now: datetime, *rest: Any) -> Snapshot:
        pictures.append(now)
        return honest(agent, now, *rest)

    monkeypatch.setattr(Agent, "snapshot", snapshot)
    indexes = many(THOUSAND)

    async def story(daemon: Daemon) -> None:
        for index in indexes:
            daemon._fetch_ended(index.request, token(datetime.now(UTC)))
        assert pictures == []

    live(tmp_path, indexes, story)


def test_tokens_that_come_together_are_written_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A thousand deliveries cost a handful of writes of the netrc, and each entry is in it at the end."""
    writes: list[int] = []
    honest = NetrcSink.deliver

    def deliver(sink: NetrcSink, wanted: Any, *rest: Any, **more: Any) -> DeliveryResult:
        result = honest(sink, wanted, *rest, **more)
        if result.changed:
            writes.append(len(wanted))
        return result

    monkeypatch.setattr(NetrcSink, "deliver", deliver)
    indexes = many(THOUSAND)

    async def story(daemon: Daemon) -> None:
        for index in indexes:
            daemon._fetch_ended(index.request, token(datetime.now(UTC)))
            await asyncio.sleep(0)  # a turn for the deliveries, as between two real fetches
        await daemon.settle(None)

    live(tmp_path, indexes, story)
    assert (tmp_path / "netrc").read_bytes().count(b"machine i") == THOUSAND
    assert writes[-1] == THOUSAND
    assert len(writes) <= 5


def test_uv_waits_for_one_write_to_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between a token and its entry the disk is waited for once, for the netrc; all else is made durable afterwards."""
    steps: list[str] = []

    def seen(step: str, honest: Callable[..., Any]) -> Callable[..., Any]:
        def take(*args: Any) -> Any:
            steps.append(step)
            return honest(*args)

        return take

    indexes = many(1)

    async def story(daemon: Daemon) -> None:
        daemon._fetch_ended(indexes[0].request, token(datetime.now(UTC)))
        await daemon.settle(None)
        monkeypatch.setattr(files, "fsync", seen("fsync", files.fsync))
        monkeypatch.setattr(exchange, "swap", seen("visible", exchange.swap))
        await daemon.refresh(None, wait=False)
        daemon._fetch_ended(indexes[0].request, replace(token(datetime.now(UTC)), login="other"))
        await daemon.settle(None)
        assert steps[:2] == ["fsync", "visible"]
        assert steps.count("visible") == 1
        assert steps.count("fsync") >= 4  # then the directory of the netrc, and the state in its own

    live(tmp_path, indexes, story)


def test_a_status_waits_for_no_delivery_while_more_tokens_are_on_their_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk is busy with one token and another one is being fetched: whoever asks is answered at once."""
    disk, busy = threading.Event(), threading.Event()
    honest = NetrcSink.deliver

    def deliver(*args: Any, **more: Any) -> DeliveryResult:
        busy.set()
        disk.wait(60)
        return honest(*args, **more)

    indexes = many(2)

    async def story(daemon: Daemon) -> None:
        await daemon._look_for_drift()  # the first delivery, of nothing, has ended
        monkeypatch.setattr(NetrcSink, "deliver", deliver)
        monkeypatch.setattr("uvtokend.daemon.loop.SOON", 3600.0)
        daemon._fetch_ended(indexes[0].request, token(datetime.now(UTC)))
        while not busy.is_set():
            await asyncio.sleep(0.01)
        document = await daemon.status(None)
        rows = document["indexes"]
        assert isinstance(rows, list)
        assert [row["state"] for row in rows if isinstance(row, dict)] == ["waiting", "fetching"]
        disk.set()
        daemon._fetch_ended(indexes[1].request, token(datetime.now(UTC)))
        document = await daemon.status(None)  # now it waits: nothing else is on its way
        rows = document["indexes"]
        assert isinstance(rows, list)
        assert [row["delivered"] for row in rows if isinstance(row, dict)] == [True, True]

    live(tmp_path, indexes, story)


def test_an_event_costs_what_it_touches() -> None:
    """The agent's work for one token is the same beside a thousand leases as beside ten."""

    def calls(size: int) -> int:
        agent, indexes, now = Agent(), many(size), datetime(2026, 1, 1, tzinfo=UTC)
        agent.handle(events.Configured(Settings("c", indexes), {}, {}, ("netrc",)), now)
        agent.handle(events.DeliveryEnded((), 0.5), now)
        count = 0

        def trace(*_: Any) -> None:
            nonlocal count
            count += 1

        sys.setprofile(trace)
        try:
            agent.handle(events.FetchEnded(indexes[0].request, token(now), 0.5), now)
        finally:
            sys.setprofile(None)
        return count

    assert calls(THOUSAND) == calls(10)


def test_the_idle_daemon_holds_nothing_that_it_does_not_need() -> None:
    """Everything that a daemon at rest has imported is for the loop, the schedule, the socket or the netrc."""
    code = "import sys, uvtokend.cli.run, uvtokend.daemon.main; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-P", "-S", "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": ":".join(sys.path)},
    )
    modules = set(done.stdout.split())
    assert "apscheduler.schedulers.asyncio" in modules
    assert modules & NOT_WHEN_IDLE == set()

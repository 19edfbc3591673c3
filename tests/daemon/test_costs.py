"""The daemon's work for many tokens, counted, because a time would only measure the load of the machine."""

from __future__ import annotations

import asyncio
import gc
import hashlib
import itertools
import re
import socket
import statistics
import subprocess
import sys
import threading
import tracemalloc
import weakref
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import FrameType, SimpleNamespace
from typing import Any, NoReturn

import pytest

from support.daemons import ask, await_daemon, status_of
from support.desk import Desk, desk
from support.waiting import until, until_async
from uvtokend.core import delivery, events, wire
from uvtokend.core.agent import Agent
from uvtokend.core.config.settings import parse
from uvtokend.core.config.toml_document import Source
from uvtokend.core.model import Credential, Failure, Index, Json, Request, Secret, Settings
from uvtokend.core.netrc import block
from uvtokend.core.views import Snapshot
from uvtokend.daemon import deliveries, documents, loop, memory
from uvtokend.daemon.events import EventLog
from uvtokend.daemon.loop import Daemon
from uvtokend.daemon.notify import StatusLine
from uvtokend.daemon.timer import Timer
from uvtokend.daemon.worker import Workers
from uvtokend.disk import exchange, files
from uvtokend.disk.journal import Journal
from uvtokend.disk.netrc_sink import DeliveryResult, NetrcSink
from uvtokend.disk.state_file import Store

__all__ = ["desk"]

THOUSAND = 1000
#: Modules that an idle daemon does not need: commands, SDKs, and code for what is not configured.
NOT_WHEN_IDLE = {
    *("azure", "boto3", "botocore", "difflib", "google", "keyring", "msal", "psutil", "requests", "tomlkit", "urllib3"),
    *("uvtokend.cli.status", "uvtokend.disk.uv_store_sink", "uvtokend.doctor", "uvtokend.providers"),
}


def many(size: int) -> tuple[Index, ...]:
    """Return indexes with one lease each."""
    return tuple(
        Index(f"i{n}", f"https://i{n}.example/", f"i{n}.example", "static", Request("static", f"{n}"))
        for n in range(size)
    )


def token(now: datetime) -> Credential:
    """Return a token that was just issued."""
    return Credential("me", Secret("token"), now, now + timedelta(hours=1))


def live(directory: Path, indexes: tuple[Index, ...], story: Callable[[Daemon], Awaitable[None]]) -> None:
    """Run a daemon whose workers never start."""
    settings = Settings("config.toml", indexes)

    async def main() -> None:
        log = EventLog(str(directory / "events.jsonl"), quiet=True)
        store = Store(str(directory), len(indexes))
        daemon = Daemon(
            lambda: settings, settings, NetrcSink(str(directory / "netrc")), store, log, str(directory / "s")
        )
        daemon._workers.start = lambda *_: None  # type: ignore[method-assign]
        try:
            daemon.start()
            await asyncio.wait_for(story(daemon), 60)
            await looked(daemon)  # its thread reads the environment, which pytest changes between tests
        finally:
            await daemon.close()

    asyncio.run(main())


@pytest.fixture(autouse=True)
def _state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    (tmp_path / "uvtokend").mkdir(0o700)


def test_no_event_makes_a_snapshot_of_all_indexes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While a thousand tokens arrive, no snapshot of all indexes is made, which would make the start quadratic."""
    snapshots: list[datetime] = []
    honest = Agent.snapshot

    def snapshot(agent: Agent, now: datetime, *rest: Any) -> Snapshot:
        snapshots.append(now)
        return honest(agent, now, *rest)

    monkeypatch.setattr(Agent, "snapshot", snapshot)
    indexes = many(THOUSAND)

    async def story(daemon: Daemon) -> None:
        for index in indexes:
            daemon._fetch_ended(index.request, token(datetime.now(UTC)))
        assert snapshots == []

    live(tmp_path, indexes, story)


def test_simultaneous_tokens_share_a_delivery(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A thousand tokens need at most five writes of the netrc, which then contains every entry."""
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
            await asyncio.sleep(0)  # lets the deliveries run, as between two real fetches
        await daemon.requests.settle(None)

    live(tmp_path, indexes, story)
    assert (tmp_path / "netrc").read_bytes().count(b"machine i") == THOUSAND
    assert writes[-1] == THOUSAND
    assert len(writes) <= 5


def test_a_delivery_waits_for_one_sync(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the arrival of a token and its entry, the disk is synced once, for the netrc. While it writes the new
    text, the netrc is hashed, and the note and the old text are written. Everything else is synced later."""
    steps: list[str] = []
    both = threading.Barrier(2, timeout=60)

    def recorded(step: str, honest: Callable[..., Any]) -> Callable[..., Any]:
        def take(*args: Any, **more: Any) -> Any:
            steps.append(step)
            if step in ("fsync", "note") and steps.count(step) == 1:
                both.wait()  # each is called while the other has not returned
            return honest(*args, **more)

        return take

    indexes = many(1)

    async def story(daemon: Daemon) -> None:
        daemon._fetch_ended(indexes[0].request, token(datetime.now(UTC)))
        await daemon.requests.settle(None)
        for owner, name in ((Store, "note"), (Journal, "note_base"), (files, "fsync")):
            monkeypatch.setattr(owner, name, recorded(name, getattr(owner, name)))
        monkeypatch.setattr(exchange, "swap", recorded("visible", exchange.swap))
        monkeypatch.setattr(block, "hashlib", SimpleNamespace(blake2b=recorded("digest", hashlib.blake2b)))
        await daemon.requests.refresh(None, wait=False)
        daemon._fetch_ended(indexes[0].request, replace(token(datetime.now(UTC)), login="other"))
        await daemon.requests.settle(None)
        assert sorted(steps[:4]) == ["digest", "fsync", "note", "note_base"]
        assert steps[4] == "visible"
        assert steps.count("visible") == 1
        assert steps.count("fsync") >= 4  # later: the netrc's directory, and the state file with its own

    live(tmp_path, indexes, story)


def test_a_new_token_is_delivered_before_any_other_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The daemon's loop does nothing else until the entry is visible: it writes no log line and starts no worker."""
    steps: list[str] = []
    indexes = many(1)
    honest, emit = exchange.swap, EventLog.emit

    def swap(one: str, other: str) -> None:
        steps.append("visible")
        honest(one, other)

    def emitted(log: EventLog, report: events.Report) -> None:
        steps.append(report.event)
        emit(log, report)

    async def story(daemon: Daemon) -> None:
        daemon._fetch_ended(indexes[0].request, token(datetime.now(UTC)))
        await daemon.requests.settle(None)
        monkeypatch.setattr(deliveries, "HEAD_START", 60)
        monkeypatch.setattr(delivery, "REST", timedelta())
        monkeypatch.setattr(delivery, "LONGEST_REST", timedelta())
        monkeypatch.setattr(exchange, "swap", swap)
        monkeypatch.setattr(EventLog, "emit", emitted)
        await daemon.requests.refresh(None, wait=False)
        daemon._fetch_ended(indexes[0].request, replace(token(datetime.now(UTC)), login="other"))
        assert steps == ["visible", "refreshed"]

    live(tmp_path, indexes, story)


def test_the_first_workers_start_before_the_scheduler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The daemon loads and opens its scheduler after it has started the first workers, whose tokens uv waits for."""
    steps: list[str] = []
    honest = Timer.open

    def opened(timer: Timer) -> None:
        steps.append("opened")
        honest(timer)

    def started(workers: Workers, *_: Any) -> None:
        steps.append("started")

    monkeypatch.setattr(Timer, "open", opened)
    monkeypatch.setattr(Workers, "start", started)
    indexes = many(2)

    async def main() -> None:
        settings = Settings("config.toml", indexes)
        log, store = EventLog(str(tmp_path / "events.jsonl"), quiet=True), Store(str(tmp_path), 2)
        daemon = Daemon(lambda: settings, settings, NetrcSink(str(tmp_path / "netrc")), store, log, None)
        daemon.start()
        assert steps == ["started", "started", "opened"]
        assert len(daemon._timer.jobs) == 1  # the delivery in flight, which might hang
        await daemon.close()

    asyncio.run(main())


def test_only_a_token_that_has_just_come_gets_a_head_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the start, where there is nothing to deliver, and when tokens have waited for others, the loop goes on while
    the disk works."""
    waits: list[bool] = []
    honest = deliveries.Deliveries.begin

    def begin(self: deliveries.Deliveries, order: deliveries.Order, ahead: bool) -> None:
        honest(self, order, ahead)
        waits.append(ahead)

    indexes = many(2)

    async def story(daemon: Daemon) -> None:
        delivered = daemon.agent.deliveries
        await until_async(lambda: delivered["netrc"].ended == 1)
        daemon._fetch_ended(indexes[0].request, token(datetime.now(UTC)))
        await until_async(lambda: delivered["netrc"].ended == 2)
        assert not any(waits)
        daemon._fetch_ended(indexes[1].request, token(datetime.now(UTC)))
        await daemon.requests.settle(None)
        assert (delivered["netrc"].ended, waits.count(True)) == (3, 1)

    monkeypatch.setattr(deliveries, "HEAD_START", 60)
    monkeypatch.setattr(deliveries.Deliveries, "begin", begin)
    live(tmp_path, indexes, story)


def test_many_tokens_get_no_head_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of many tokens that are delivered together, most have waited already. The loop goes on and answers clients."""
    waits: list[tuple[int, bool]] = []
    honest = deliveries.Deliveries.begin

    def begin(self: deliveries.Deliveries, order: deliveries.Order, ahead: bool) -> None:
        honest(self, order, ahead)
        waits.append((len(order.deliver.wanted), ahead))

    indexes = many(loop.FEW + 1)

    async def story(daemon: Daemon) -> None:
        await until_async(lambda: daemon.agent.deliveries["netrc"].ended == 1)
        monkeypatch.setattr(delivery, "REST", timedelta(hours=1))
        monkeypatch.setattr(delivery, "LONGEST_REST", timedelta(hours=1))
        for index in indexes:
            daemon._fetch_ended(index.request, token(datetime.now(UTC)))
        await daemon.requests.settle(None)
        assert waits == [(0, False), (len(indexes), False)]

    monkeypatch.setattr(deliveries.Deliveries, "begin", begin)
    live(tmp_path, indexes, story)


def test_one_new_token_among_many_causes_little_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Until one new token among many is visible, the daemon reads and hashes the netrc once, and renders the new line
    and the old one. It scans no text and reads no list of mounts."""
    steps: list[str] = []

    def recorded(step: str, honest: Callable[..., Any]) -> Callable[..., Any]:
        def take(*args: Any, **more: Any) -> Any:
            steps.append(step)
            return honest(*args, **more)

        return take

    indexes = many(50)

    async def story(daemon: Daemon) -> None:
        await until_async(lambda: daemon.agent.deliveries["netrc"].ended == 1)
        daemon._deliveries.netrc.take_ownership()
        for index in indexes:
            daemon._fetch_ended(index.request, token(datetime.now(UTC)))
        await daemon.requests.settle(None)
        await daemon.requests.refresh(["i7"], wait=False)
        for owner, name in ((files, "read_all"), (files, "is_mounted"), (exchange, "swap"), (block, "_line")):
            monkeypatch.setattr(owner, name, recorded(name, getattr(owner, name)))
        monkeypatch.setattr(block, "scan", recorded("scan", block.scan))
        monkeypatch.setattr(block, "hashlib", SimpleNamespace(blake2b=recorded("digest", hashlib.blake2b)))
        daemon._fetch_ended(indexes[7].request, replace(token(datetime.now(UTC)), login="other"))
        await daemon.requests.settle(None)
        assert steps[: steps.index("swap")] == ["read_all", "_line", "_line", "digest"]
        daemon._deliveries.netrc.release(remove=True)

    (tmp_path / "netrc").write_text("machine theirs.example login u password p\n" * 1000)
    (tmp_path / "netrc").chmod(0o600)
    live(tmp_path, indexes, story)


def test_a_status_does_not_wait_during_fetches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the disk is busy with one token while another is being fetched, `status` is answered at once."""
    disk, busy = threading.Event(), threading.Event()
    honest = NetrcSink.deliver

    def deliver(*args: Any, **more: Any) -> DeliveryResult:
        busy.set()
        disk.wait(60)
        return honest(*args, **more)

    indexes = many(2)

    async def story(daemon: Daemon) -> None:
        await daemon.look_for_drift()  # the first delivery, of nothing, has ended
        monkeypatch.setattr(NetrcSink, "deliver", deliver)
        monkeypatch.setattr("uvtokend.daemon.requests.SOON", 3600.0)
        daemon._fetch_ended(indexes[0].request, token(datetime.now(UTC)))
        while not busy.is_set():
            await asyncio.sleep(0.01)
        document = await status_of(daemon)
        rows = document["indexes"]
        assert isinstance(rows, list)
        assert [row["state"] for row in rows if isinstance(row, dict)] == ["waiting", "fetching"]
        disk.set()
        daemon._fetch_ended(indexes[1].request, token(datetime.now(UTC)))
        document = await status_of(daemon)  # waits for the delivery, since no fetch is in flight
        rows = document["indexes"]
        assert isinstance(rows, list)
        assert [row["delivered"] for row in rows if isinstance(row, dict)] == [True, True]

    live(tmp_path, indexes, story)


def sizes_of_snapshots(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return a list that gets the number of indexes of each snapshot from now on."""
    sizes: list[int] = []
    honest = Agent.snapshot

    def snapshot(agent: Agent, now: datetime, *rest: Any) -> Snapshot:
        snapshot_made = honest(agent, now, *rest)
        sizes.append(len(snapshot_made.indexes))
        return snapshot_made

    monkeypatch.setattr(Agent, "snapshot", snapshot)
    return sizes


def test_a_status_costs_what_it_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A status of one index among a thousand examines that index and those that share its host."""
    sizes = sizes_of_snapshots(monkeypatch)
    first, *others = many(THOUSAND)
    indexes = (first, *others, replace(first, name="twin"))

    async def story(daemon: Daemon) -> None:
        document = await status_of(daemon, ["i5"])
        assert [row["name"] for row in rows(document)] == ["i5"]
        document = await status_of(daemon, ["twin"])
        assert [row["name"] for row in rows(document)] == ["twin"]
        assert [size for size in sizes if size <= 2] == [1, 2]
        document = await status_of(daemon)
        assert len(rows(document)) == THOUSAND + 1

    live(tmp_path, indexes, story)


def test_a_status_makes_what_has_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a thousand indexes, a status makes only the rows that have changed since the last one, and few at once. The
    next guard tick frees the memory of the rows."""
    indexes = many(THOUSAND)
    all_in_pieces = [documents.PIECE] * (THOUSAND // documents.PIECE)

    async def story(daemon: Daemon) -> None:
        for index in indexes:
            daemon._fetch_ended(index.request, token(datetime.now(UTC)))
        await daemon.requests.settle(None)
        monkeypatch.setattr(daemon, "_changed", lambda: None)  # the prompt's line needs a snapshot of all indexes
        sizes = sizes_of_snapshots(monkeypatch)
        assert all(row["delivered"] for row in (await status_of(daemon))["indexes"])
        assert len((await status_of(daemon))["indexes"]) == THOUSAND
        daemon.feed(events.RefreshAsked(("i5",)))
        assert (await status_of(daemon))["indexes"][5]["state"] == "fetching"
        daemon._fetch_ended(indexes[5].request, Failure("rejected", "denied", "No."))
        daemon._tick()
        await status_of(daemon)
        assert sizes == [*all_in_pieces, 0, 0, 1, 0, *all_in_pieces, 0]

    live(tmp_path, indexes, story)


def test_the_rows_of_uvs_store_are_made_together() -> None:
    """The pieces contain each index once, and those of uv's store are one piece: their notices depend on each other."""
    stored = [replace(index, sink="uv-store", service=index.url) for index in many(2 * documents.PIECE)]
    others = list(many(documents.PIECE + 1))
    mixed = [index for pair in itertools.zip_longest(stored, others) for index in pair if index is not None]
    assert list(documents.pieces(mixed)) == [stored, others[:-1], others[-1:]]
    assert list(documents.pieces(others[:2])) == [others[:2]]
    assert list(documents.pieces([])) == []


def test_a_question_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The files that show the status are made again after a fetch has begun, but not after a status."""
    changed: list[str] = []
    indexes = many(1)

    async def story(daemon: Daemon) -> None:
        daemon._fetch_ended(indexes[0].request, token(datetime.now(UTC)))
        await daemon.requests.settle(None)
        monkeypatch.setattr(daemon, "_changed", lambda: changed.append("changed"))
        await status_of(daemon)
        assert changed == []
        daemon.feed(events.RefreshAsked(("i0",)))
        assert changed == ["changed"]

    live(tmp_path, indexes, story)


def rows(document: dict[str, Json]) -> list[dict[str, Json]]:
    """Return the indexes of a status document."""
    indexes = document["indexes"]
    assert isinstance(indexes, list)
    return [row for row in indexes if isinstance(row, dict)]


#: The most system calls of a status beyond those of a Python that only starts and ends. Each imported module takes
#: about twenty.
CALLS_OF_A_STATUS = 700


@pytest.mark.strace
def test_a_status_makes_few_system_calls(desk: Desk, tmp_path: Path) -> None:
    """A status makes one request on the socket, and the number of indexes changes only the size of the answer."""
    share_a_token(desk, 3)
    started = desk.run("start")
    assert started.returncode == 0, started.stderr
    floor = system_calls(desk, tmp_path, "-c", "pass")
    few = system_calls(desk, tmp_path, "-m", "uvtokend", "status")
    share_a_token(desk, 30)
    assert desk.run("reload").returncode == 0
    until(lambda: all(row["delivered"] for row in ask(desk.socket, "status")["indexes"]))
    more = system_calls(desk, tmp_path, "-m", "uvtokend", "status")
    assert few - floor <= CALLS_OF_A_STATUS
    assert abs(more - few) <= 20


def share_a_token(desk: Desk, size: int) -> None:
    """Configure several indexes that share one fetch."""
    desk.configure(*((f"i{number}", f"i{number}.example") for number in range(size)))
    desk.config.write_text(re.sub(r"answer-i\d+", "answer-i0", desk.config.read_text()))


def system_calls(desk: Desk, folder: Path, *arguments: str) -> int:
    """Return how many system calls a Python process makes."""
    trace = folder / "calls"
    command = [*STRACE, str(trace), sys.executable, "-P", *arguments]
    subprocess.run(command, env=desk.env, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, check=True, timeout=60)
    return sum("resumed>" not in line for line in trace.read_text().splitlines())


def test_an_event_costs_what_it_touches() -> None:
    """The agent's work for one token is the same with a thousand leases as with ten."""

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


def test_a_tick_at_rest_starts_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A guard tick without changes starts no thread or task, makes no snapshot and plans no job. It only notifies
    systemd's watchdog."""
    actions: list[str] = []

    def counted(owner: Any, name: str) -> None:
        honest = getattr(owner, name)

        def call(*args: Any, **more: Any) -> Any:
            actions.append(name)
            return honest(*args, **more)

        monkeypatch.setattr(owner, name, call)

    async def story(daemon: Daemon) -> None:
        for index in indexes:
            daemon._fetch_ended(index.request, token(datetime.now(UTC)))
        await daemon.requests.settle(None)
        daemon._tick()  # the first tick after work tidies up
        await looked(daemon)
        outlook = daemon._outlook
        assert outlook is not None
        while outlook._planned is not None or (outlook._writing is not None and not outlook._writing.done()):
            await asyncio.sleep(0.01)  # the files for other programs are updated
        counted(threading.Thread, "start")
        counted(Agent, "snapshot")
        counted(Store, "save")
        counted(daemon._loop, "create_task")
        counted(daemon._timer._scheduler, "add_job")
        counted(daemon._loop, "call_soon_threadsafe")
        monkeypatch.setattr("uvtokend.daemon.loop.notify", actions.append)
        for _ in range(3):
            daemon._tick()
            await looked(daemon)
        assert actions == ["WATCHDOG=1"] * 3

    indexes = many(10)
    live(tmp_path, indexes, story)


#: The most bytes of live objects that one more lease takes, with a token of 900 bytes and a job of APScheduler.
BYTES_OF_A_LEASE = 4500


def test_a_lease_takes_little_memory(tmp_path: Path) -> None:
    """From the text of its configuration to its delivered token, a lease takes only so much memory while the daemon is
    idle: equal texts are shared, and no text of a whole file is kept."""

    def used(size: int) -> int:
        directory = tmp_path / str(size)
        directory.mkdir()
        table = '[[index]]\nname = "i{0}"\nurl = "https://i{0}.example/simple/"\nprovider = "static"\n'
        table += 'username = "me"\npassword = {{ file = "secrets/i{0}" }}\n'
        text = "".join(map(table.format, range(size)))
        settings = parse([Source("config.toml", text.encode(), str(directory))], str(directory), {})
        (directory / "secrets").mkdir()
        for index in settings.indexes:
            (directory / "secrets" / index.name).touch()
        known = 0

        async def story(daemon: Daemon) -> None:
            nonlocal known
            for index in settings.indexes:
                answer = wire.encode_answer(Credential("me", Secret("x" * 900 + index.name), datetime.now(UTC)))
                daemon._fetch_ended(index.request, wire.decode_answer(answer))
            await daemon.requests.settle(None)
            await at_rest(daemon)
            gc.collect()
            known = tracemalloc.get_traced_memory()[0]

        live(directory, settings.indexes, story)
        return known

    used(1)  # what is loaded and kept once
    tracemalloc.start()
    try:
        few, more = used(100), used(300)
    finally:
        tracemalloc.stop()
    assert (more - few) / 200 <= BYTES_OF_A_LEASE


class Untouched(dict[Any, Any]):
    """A dictionary of which only single entries may be looked at."""

    def __iter__(self) -> NoReturn:
        raise AssertionError

    items = keys = values = __iter__


def test_a_tick_at_rest_looks_at_no_lease(tmp_path: Path) -> None:
    """A guard tick does not go through the leases or their plans, so it costs the same with a thousand indexes."""
    indexes = many(3)

    async def story(daemon: Daemon) -> None:
        for index in indexes:
            daemon._fetch_ended(index.request, token(datetime.now(UTC)))
        await daemon.requests.settle(None)
        await at_rest(daemon)
        agent = daemon.agent
        leases, agent.leases = agent.leases, Untouched(agent.leases)
        planned, agent._planned = agent._planned, Untouched(agent._planned)
        plans, daemon._timer._plans = daemon._timer._plans, Untouched(daemon._timer._plans)
        daemon._tick()
        agent.leases, agent._planned, daemon._timer._plans = leases, planned, plans

    live(tmp_path, indexes, story)


#: The most Python functions that a guard tick at rest calls in the loop, and in the thread that looks at files.
CALLS_IN_THE_LOOP, CALLS_IN_THE_THREAD = 85, 25


def test_a_tick_at_rest_calls_few_functions(tmp_path: Path) -> None:
    """After 25 s at rest the caches of the CPU are cold, so a guard tick costs what code it runs. The thread that looks
    at files asks nothing that stays the same, such as where a configuration file is."""
    calls: list[str] = []

    def trace(frame: FrameType, what: str, _: object) -> None:
        if what == "call":
            calls.append(frame.f_code.co_qualname)

    async def story(daemon: Daemon) -> None:
        for index in indexes:
            daemon._fetch_ended(index.request, token(datetime.now(UTC)))
        await daemon.requests.settle(None)
        await at_rest(daemon)
        sys.setprofile(trace)
        daemon._timer._guard_tick()
        sys.setprofile(None)
        assert "Daemon._look_at_files" in calls
        assert len(calls) <= CALLS_IN_THE_LOOP, calls
        await looked(daemon)
        calls.clear()
        daemon._files_watch.run(lambda: sys.setprofile(trace))
        daemon._files_watch.look(("netrc",))
        daemon._files_watch.run(daemon.at_tick)
        daemon._files_watch.run(lambda: sys.setprofile(None))
        await looked(daemon)

    indexes = many(3)
    live(tmp_path, indexes, story)
    assert "ConfigFiles.check" in calls
    assert len(calls) <= CALLS_IN_THE_THREAD, calls


async def at_rest(daemon: Daemon) -> None:
    """Let the daemon tick until nothing is left to do: the first ticks after work tidy up."""
    while daemon.worked or daemon.agent.delivering or not (daemon._looking is None or daemon._looking.done()):
        daemon._tick()
        await looked(daemon)


async def looked(daemon: Daemon) -> None:
    """Wait until the look at the files by the last tick has ended and the loop has processed it."""
    while daemon._files_watch.busy:
        await asyncio.sleep(0.001)
    await asyncio.sleep(0)


#: The most system calls of a guard tick: those of the loop, of the thread, and of the communication between them.
CALLS_OF_A_TICK = 24
#: The program of a daemon whose guard tick comes often, and the options of strace.
OFTEN = """\
import sys
from uvtokend.daemon import timer
timer.GUARD_TICK = 0.1
from uvtokend.cli.main import main
sys.exit(main(["run", "--quiet"]))
"""
STRACE = ("strace", "-f", "-qq", "-e", "signal=none", "-o")


@pytest.mark.strace
def test_a_tick_at_rest_makes_few_system_calls(desk: Desk, tmp_path: Path) -> None:
    """A guard tick examines the socket, the netrc and the installation once each, and nothing else."""
    desk.configure(("a", "a.example"), ("b", "b.example"))
    trace = tmp_path / "trace"
    command = [*STRACE, str(trace), sys.executable, "-P", "-c", OFTEN]
    with subprocess.Popen(command, env=desk.env, stdin=subprocess.DEVNULL) as tracer:
        await_daemon(desk.socket)
        until(lambda: all(row["delivered"] for row in ask(desk.socket, "status")["indexes"]))
        first = len(trace.read_text().splitlines())
        until(lambda: len(ticks(trace.read_text().splitlines()[first:])) > 30)
        ask(desk.socket, "stop")
        tracer.wait(60)
    costs = ticks(trace.read_text().splitlines()[first:])[10:30]
    assert statistics.median(costs) <= CALLS_OF_A_TICK, costs


def ticks(lines: list[str]) -> list[int]:
    """Return the numbers of system calls between successive looks at the control socket."""
    looks = [at for at, line in enumerate(lines) if "control.sock" in line and "stat" in line]
    begun = [line for line in range(len(lines)) if "resumed>" in lines[line]]  # the second half of a call
    return [after - before - sum(before < at < after for at in begun) for before, after in itertools.pairwise(looks)]


def test_an_idle_daemon_imports_only_what_it_needs() -> None:
    """An idle daemon has imported only the modules for the loop, the schedule, the socket and the netrc."""
    scheduler = "import apscheduler.schedulers.asyncio"  # loaded after the first workers were started
    code = f"import sys, uvtokend.cli.parser, uvtokend.cli.run, uvtokend.daemon.main; {scheduler}; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-P", "-S", "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": ":".join(sys.path)},
    )
    modules = set(done.stdout.split())
    assert "uvtokend.daemon.timer" in modules
    assert modules & NOT_WHEN_IDLE == set()


def test_systemd_gets_each_status_line_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A status line that equals the previous one is not sent. One that systemd did not receive is sent again at the
    next tick."""
    monkeypatch.setattr("uvtokend.daemon.notify.LATER", 0.0)
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "n"))
    line = ["one"]

    async def story() -> list[bytes]:
        status = StatusLine(lambda: line[0])
        status.changed()
        await asyncio.sleep(0.01)  # systemd does not listen yet
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
            systemd.bind(str(tmp_path / "n"))
            systemd.setblocking(False)
            for again in (status.again, status.again, status.changed):
                again()
                await asyncio.sleep(0.01)
            line[0] = "two"
            status.changed()
            await asyncio.sleep(0.01)
            lines = [systemd.recv(100), systemd.recv(100)]
            with pytest.raises(BlockingIOError):
                systemd.recv(100)
        return lines

    assert asyncio.run(story()) == [b"STATUS=one", b"STATUS=two"]


#: A program whose threads hold memory, and which then prints what glibc says about its heaps (malloc_info(3)).
HEAPS = """\
import ctypes, sys, threading
from uvtokend.daemon import memory
memory.keep_small()
held, ready, done = [], threading.Barrier(4), threading.Event()
def hold():
    held.append([bytes(1000 + n) for n in range(1000)])
    ready.wait()
    done.wait()
threads = [threading.Thread(target=hold) for _ in range(3)]
for thread in threads:
    thread.start()
ready.wait()
libc = ctypes.CDLL(None)
libc.fopen.restype = ctypes.c_void_p
out = ctypes.c_void_p(libc.fopen(sys.argv[1].encode(), b"w"))
libc.malloc_info(0, out) if hasattr(libc, "malloc_info") else libc.fputs(b"<heap nr=", out)
libc.fclose(out)
done.set()
"""


def test_the_threads_of_the_daemon_share_a_heap(tmp_path: Path) -> None:
    """However many threads allocate memory, glibc makes no further heap, whose gaps would come on top."""
    file = tmp_path / "heaps"
    subprocess.run([sys.executable, "-P", "-c", HEAPS, str(file)], check=True, env={"PYTHONPATH": ":".join(sys.path)})
    assert file.read_text().count("<heap nr=") == 1


def test_garbage_is_found_soon() -> None:
    """Objects that refer only to themselves, as closed connections do, are freed before a few hundred have gathered."""

    class Loop:
        me: object

    alive: weakref.WeakSet[Loop] = weakref.WeakSet()
    before, most = gc.get_threshold(), 0
    gc.collect()
    try:
        memory.keep_small()
        for _ in range(3000):
            loop = Loop()
            loop.me = loop
            alive.add(loop)
            most = max(most, len(alive))
    finally:
        gc.set_threshold(*before)
    assert most <= 300

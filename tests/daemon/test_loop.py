"""The loop in this process: guard ticks, hung disks, the log and the status."""

from __future__ import annotations

import asyncio
import gc
import json
import re
import threading
import weakref
from collections.abc import Awaitable, Callable
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from plugin import install

from support.daemons import status_of
from support.waiting import until_async
from uvtokend import clock
from uvtokend.core import delivery, events, fixes
from uvtokend.core.events import Report
from uvtokend.core.model import Index, Request, Settings
from uvtokend.daemon import control, deliveries, hook, login_watch, memory, outlook, worker
from uvtokend.daemon import events as log_file
from uvtokend.daemon import main as daemon_main
from uvtokend.daemon.events import EventLog
from uvtokend.daemon.loop import Daemon
from uvtokend.disk import answering
from uvtokend.disk.netrc_sink import DeliveryResult, NetrcSink
from uvtokend.disk.state_file import Store
from uvtokend.errors import DeliveryFailed, UvtokendError
from uvtokend.providers.kit import once

HOUR = timedelta(hours=1)
INDEX = Index("a", "https://a.example/", "a.example", "made-up", Request("made-up"))


Story = Callable[[Daemon], Awaitable[None]]


def live(directory: Path, monkeypatch: pytest.MonkeyPatch, story: Story, *indexes: Index) -> None:
    """Run a story with a daemon without a socket."""
    monkeypatch.setenv("PYTHONPATH", install(directory / "plugin")["PYTHONPATH"])
    settings = Settings("config.toml", indexes or (INDEX,))

    log = EventLog(str(directory / "events.jsonl"), quiet=True)

    async def main() -> None:
        daemon = Daemon(
            lambda: settings, settings, NetrcSink(str(directory / "netrc")), Store(str(directory)), log, None
        )
        try:
            daemon.start()
            await asyncio.wait_for(daemon.requests.settle(None), 60)
            await asyncio.wait_for(story(daemon), 60)
        finally:
            await daemon.close()

    with closing(log):
        asyncio.run(main())


def test_a_clock_step_causes_a_fetch_but_removes_no_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a clock step the token stays while the next tick fetches a new one. A tick without a step fetches
    nothing."""

    async def story(daemon: Daemon) -> None:
        before = (tmp_path / "netrc").read_text()
        daemon._tick()
        await daemon.requests.settle(None)
        assert (tmp_path / "netrc").read_text() == before
        monkeypatch.setattr(daemon._clock, "shift", lambda: timedelta(seconds=40))
        daemon._tick()
        assert (tmp_path / "netrc").read_text() == before
        await daemon.requests.settle(None)
        assert (tmp_path / "netrc").read_text() != before

    live(tmp_path, monkeypatch, story)


@pytest.mark.parametrize("kept", [True, False])
def test_a_paused_machine_removes_an_expired_token(kept: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The daemon's clock was paused, the wall clock is past the token's expiry, and no new token can be fetched. The
    entry is removed if a time service keeps the wall clock, and stays if the clock may only have been set."""
    monkeypatch.setattr(clock, "synchronized", lambda: kept)

    async def story(daemon: Daemon) -> None:
        monkeypatch.setattr(daemon._clock, "shift", lambda: timedelta(days=2))
        (tmp_path / "plugin/made_up.py").write_text("raise RuntimeError\n")
        daemon._tick()
        await daemon.requests.settle(None)
        await daemon.requests.settle(None)
        assert ("a.example" in (tmp_path / "netrc").read_text()) != kept

    live(tmp_path, monkeypatch, story)


def test_a_late_tick_retries_a_failed_delivery(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a sleep a failed delivery is retried at once, before its planned retry."""

    async def story(daemon: Daemon) -> None:
        (tmp_path / "netrc").unlink()
        (tmp_path / "netrc").mkdir()
        await daemon.requests.refresh(None, wait=True)
        assert daemon.agent.deliveries["netrc"].failure is not None
        (tmp_path / "netrc").rmdir()
        moment, shift, slept = daemon._clocks._seen
        daemon._clocks._seen = (moment - timedelta(hours=9), shift, slept)
        daemon._tick()
        await daemon.requests.settle(None)
        assert "a.example" in (tmp_path / "netrc").read_text()

    live(tmp_path, monkeypatch, story)


def messages(directory: Path, kind: str) -> list[str]:
    """Return the logged messages of one kind of event."""
    lines = [json.loads(line) for line in (directory / "events.jsonl").read_text().splitlines()]
    return [str(line["message"]) for line in lines if line["event"] == kind]


def test_sleep_and_clock_steps_are_logged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The log says how long the machine slept and how far the clock was set, which explains fetches at unusual
    times."""

    async def story(daemon: Daemon) -> None:
        daemon._tick()
        moment, shift, slept = daemon._clocks._seen
        daemon._clocks._seen = (moment - timedelta(hours=9), shift, slept)
        daemon._tick()
        monkeypatch.setattr(daemon._clock, "shift", lambda: shift + timedelta(minutes=3))
        daemon._tick()
        monkeypatch.setattr(daemon._clock, "shift", lambda: shift)
        daemon._tick()
        await daemon.requests.settle(None)

    live(tmp_path, monkeypatch, story)
    (woke,) = messages(tmp_path, "woke")
    assert re.fullmatch(r"The machine or the daemon was suspended for about (8|9) h\.", woke)
    forward, back = messages(tmp_path, "clock")
    assert re.fullmatch(r"The wall clock was set forward by [23] min, so all tokens are fetched again\.", forward)
    assert re.fullmatch(r"The wall clock was set back by [23] min, so all tokens are fetched again\.", back)


def test_the_log_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full log is rotated once without losing a line, and the last event of a kind is read across the rotation."""
    monkeypatch.setattr(log_file, "_LIMIT", 1000)
    log = EventLog(str(tmp_path / "events.jsonl"), quiet=True)
    log.emit(Report("info", "started", (), "first"))
    for number in range(12):
        log.emit(Report("info", "fetched", (), f"number {number}"))
    log.close()
    older, newer = tmp_path / "events.jsonl.1", tmp_path / "events.jsonl"
    assert older.stat().st_size <= 1200
    lines = [json.loads(line)["message"] for file in (older, newer) for line in file.read_text().splitlines()]
    assert lines == ["first", *(f"number {number}" for number in range(12))]
    assert log.last_of({"started", "stopped"}) == "started"


def test_a_corrected_secret_is_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The secret files of blocked indexes are watched: a changed one causes a fetch, an unchanged one does not."""
    files = {name: tmp_path / name for name in "ab"}
    requests = {
        name: Request("static", options=(("password", (("file", str(file)),)), ("username", "me")))
        for name, file in files.items()
    }
    indexes = [Index(n, f"https://{n}.example/", f"{n}.example", "static", r) for n, r in requests.items()]

    def states(daemon: Daemon) -> list[str]:
        return [lease.state for lease in daemon.agent.leases.values()]

    async def story(daemon: Daemon) -> None:
        for _ in range(3):
            daemon._look()
            await until_async(lambda: not daemon._files_watch.busy)
            assert states(daemon) == ["blocked", "blocked"]
        files["b"].write_text("fixed")
        daemon._look()
        await until_async(lambda: "fetching" in states(daemon))
        await daemon.requests.settle(None)
        assert states(daemon) == ["blocked", "waiting"]
        assert "b.example login me password fixed" in (tmp_path / "netrc").read_text()

    live(tmp_path, monkeypatch, story, *indexes)


def test_hung_sign_in_files_block_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the file system of a secret's file does not answer, another index is fetched and delivered, and status and
    guard ticks work. Once it answers, the secret that was written meanwhile is used."""
    secret, answers = tmp_path / "secret", threading.Event()
    request = Request("static", options=(("password", (("file", str(secret)),)), ("username", "me")))
    blocked = Index("b", "https://b.example/", "b.example", "static", request)
    honest = login_watch.picture

    def picture(*args: Any) -> Any:
        answers.wait(60)
        return honest(*args)

    async def story(daemon: Daemon) -> None:
        monkeypatch.setattr(login_watch, "picture", picture)
        monkeypatch.setattr("uvtokend.daemon.requests.SOON", 0.05)
        try:
            for _ in range(3):
                daemon._look()
                daemon._tick()
            before = (tmp_path / "netrc").read_text()
            await daemon.requests.refresh(["a"], wait=True)
            assert (tmp_path / "netrc").read_text() != before
            rows: Any = (await status_of(daemon))["indexes"]
            assert [row["state"] for row in rows] == ["waiting", "blocked"]
            secret.write_text("new")
        finally:
            answers.set()
        await until_async(lambda: not daemon._files_watch.busy)
        daemon._look()
        await until_async(lambda: "password new" in (tmp_path / "netrc").read_text())

    live(tmp_path, monkeypatch, story, INDEX, blocked)


def test_a_configuration_without_an_index_is_read_only_after_a_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While no index is configured, the daemon looks at the configuration files often, and reads them again only if
    one has changed."""
    file, reads = tmp_path / "config.toml", []
    file.write_text("")

    def load() -> Settings:
        reads.append(file.read_text())
        return Settings(str(file), (INDEX,) if reads[-1] else ())

    async def look(daemon: Daemon) -> None:
        daemon._look()
        await until_async(lambda: daemon._loading is None or daemon._loading.done())

    async def main() -> None:
        log = EventLog(str(tmp_path / "events.jsonl"), quiet=True)
        daemon = Daemon(load, load(), NetrcSink(str(tmp_path / "netrc")), Store(str(tmp_path)), log, None)
        try:
            daemon.start()
            before = len(reads)
            for _ in range(3):
                await look(daemon)
            assert len(reads) == before
            file.write_text("an index")
            await look(daemon)
            assert daemon.settings.indexes == (INDEX,)
        finally:
            await daemon.close()

    monkeypatch.setenv("PYTHONPATH", install(tmp_path / "plugin")["PYTHONPATH"])
    asyncio.run(asyncio.wait_for(main(), 60))


def test_a_hung_disk_is_reported_and_blocks_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hung delivery counts as failed after its time limit, systemd's watchdog is no longer notified, and waiters
    and statuses are answered. Once the disk answers, all is normal."""
    monkeypatch.setattr(delivery, "HUNG", timedelta(seconds=0.3))
    monkeypatch.setattr("uvtokend.daemon.requests.SOON", 0.05)
    disk = threading.Event()
    notified: list[str] = []
    monkeypatch.setattr("uvtokend.daemon.loop.notify", notified.append)

    async def story(daemon: Daemon) -> None:
        honest = daemon._deliveries.netrc.deliver

        def hang(*args: Any, **kwargs: Any) -> DeliveryResult:
            disk.wait(60)
            return honest(*args, **kwargs)

        monkeypatch.setattr(daemon._deliveries.netrc, "deliver", hang)
        document = await daemon.requests.refresh(None, wait=True)
        status = document["delivery"]
        assert isinstance(status, dict)
        assert status["ok"] is False
        assert "has not ended" in str(status["problem"])
        for _ in range(50):
            await daemon.requests.status(None)
        assert len(daemon._waiters) == 0
        assert daemon.agent._waiting._waiters == {}
        notified.clear()
        daemon._tick()
        assert "WATCHDOG=1" not in notified
        disk.set()
        await until_async(lambda: daemon.agent.snapshot(daemon._clock.now()).delivery_ok)
        daemon._tick()
        assert "WATCHDOG=1" in notified

    live(tmp_path, monkeypatch, story)


def test_the_daemon_ends_in_spite_of_a_hung_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At its end the daemon waits only briefly for a delivery in flight."""
    monkeypatch.setattr("uvtokend.daemon.deliveries.LAST", 0.1)
    disk = threading.Event()

    async def story(daemon: Daemon) -> None:
        def hang(*_: Any, **__: Any) -> DeliveryResult:
            disk.wait(60)
            raise DeliveryFailed("late", "It ended.")

        monkeypatch.setattr(daemon._deliveries.netrc, "deliver", hang)
        daemon.feed(events.RefreshAsked(("a",)))
        await until_async(lambda: daemon.agent.deliveries["netrc"].in_flight)

    live(tmp_path, monkeypatch, story)
    disk.set()


@pytest.mark.parametrize(("owner", "name"), [(NetrcSink, "check_writable"), (Store, "load")])
def test_a_hung_disk_at_the_start_is_reported_and_blocks_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, owner: type, name: str
) -> None:
    """If the netrc or the state file cannot be read in time, the start continues without the entries of a former
    daemon, and the status says why. Once the file system answers, the token is delivered."""
    monkeypatch.setattr("uvtokend.daemon.deliveries.FIRST_LOOK", 0.1)
    monkeypatch.setattr("uvtokend.daemon.requests.SOON", 0.05)
    disk = threading.Event()
    honest = getattr(owner, name)

    def hang(self: object) -> object:
        disk.wait(60)
        return honest(self)

    monkeypatch.setattr(owner, name, hang)
    status: list[Any] = []

    async def main() -> None:
        monkeypatch.setenv("PYTHONPATH", install(tmp_path / "plugin")["PYTHONPATH"])
        settings = Settings("config.toml", (INDEX,))
        log = EventLog(str(tmp_path / "events.jsonl"), quiet=True)
        sink = NetrcSink(str(tmp_path / "netrc"))
        daemon = Daemon(lambda: settings, settings, sink, Store(str(tmp_path)), log, None)
        try:
            daemon.start()
            status.append((await status_of(daemon))["delivery"])
            disk.set()
            await until_async(lambda: daemon.agent.snapshot(daemon._clock.now()).indexes[0].delivered)
        finally:
            disk.set()
            await daemon.close()

    asyncio.run(main())
    assert status[0]["ok"] is False
    assert "has not answered for 0.1 s" in status[0]["problem"]
    assert "machine a.example" in (tmp_path / "netrc").read_text()


def test_a_hung_file_system_does_not_block_once_or_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the lock's file system hangs, `once` and `run` end with an error that says so. Other errors are reported as
    they are."""
    monkeypatch.setattr(answering, "PATIENCE", 0.1)
    disk = threading.Event()
    monkeypatch.setattr(NetrcSink, "take_ownership", lambda _: disk.wait(60))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    settings = Settings("config.toml", (INDEX,), netrc=str(tmp_path / "netrc"))
    with pytest.raises(UvtokendError, match=r"has not answered for 0\.1 s") as hung, daemon_main._owned(settings):
        pass
    assert str(tmp_path / "netrc") in hung.value.message
    disk.set()

    def owned(_: NetrcSink) -> None:
        raise UvtokendError("Another daemon owns it.")

    monkeypatch.setattr(NetrcSink, "take_ownership", owned)
    with pytest.raises(UvtokendError, match="Another daemon"), daemon_main._owned(settings):
        pass


def test_how_long_the_daemon_takes_to_end() -> None:
    """The daemon ends within 5 s, or within 20 s if a worker uses a one-time secret, which is longer than its
    request may take."""
    others = max(deliveries.LAST, 2 * outlook.LAST, hook.KILLED)
    around = control.LAST + log_file.LAST + log_file.LAST_PRINTED
    assert around + max(worker.KILLED, others) < 5
    assert around + max(worker.SAVING + worker.KILLED, others) < 20
    assert worker.SAVING > once.TIMEOUT


def test_unkillable_workers_are_logged_at_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The log names the process ids of workers that do not end, and the command that shows what the kernel waits
    for."""

    async def story(daemon: Daemon) -> None:
        async def close() -> tuple[int, ...]:
            await honest()
            return 11, 12

        honest = daemon._workers.close
        monkeypatch.setattr(daemon._workers, "close", close)

    live(tmp_path, monkeypatch, story)
    last = json.loads((tmp_path / "events.jsonl").read_text().splitlines()[-1])
    assert (last["event"], last["hint"]) == ("worker-hung", fixes.show_processes([11, 12]))
    assert last["message"].startswith("2 workers do not end although killed")


@pytest.mark.parametrize("existed", [True, False])
def test_who_created_the_netrc_is_remembered(existed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only a file that the daemon created may be deleted once it is empty."""
    if existed:
        (tmp_path / "netrc").write_text("# mine\n")
        (tmp_path / "netrc").chmod(0o600)

    async def story(daemon: Daemon) -> None:
        known = daemon._deliveries._state.netrc(str(tmp_path / "netrc"))
        assert known.created is not existed

    live(tmp_path, monkeypatch, story)


def test_no_status_line_without_systemd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without NOTIFY_SOCKET no status line is composed. With it, many changes result in one line."""
    monkeypatch.setattr("uvtokend.daemon.notify.LATER", 0.0)
    lines: list[str] = []

    async def story(daemon: Daemon) -> None:
        honest = daemon._status_line._compose

        def compose() -> str:
            lines.append(honest())
            return lines[-1]

        monkeypatch.setattr(daemon._status_line, "_compose", compose)
        for _ in range(9):
            daemon._changed()
        assert daemon._status_line._due is None
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "nobody"))
        for _ in range(9):
            daemon._changed()
        await until_async(lambda: daemon._status_line._due is None)
        assert lines == ["1 of 1 indexes have a valid token"]

    live(tmp_path, monkeypatch, story)


def test_a_report_of_the_kernel_restarts_the_fetch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the kernel reports a wake-up or the return of the network, the fetch in flight is restarted without a guard
    tick."""
    starts: list[str] = []

    async def story(daemon: Daemon) -> None:
        daemon.feed(events.RefreshAsked(("a",)))
        monkeypatch.setattr(daemon._workers, "restart", lambda *_: starts.append("again"))
        moment, shift, slept = daemon._clocks._seen
        daemon._clocks._seen = (moment, shift, slept - timedelta(hours=9))
        daemon._clock_moved()
        assert starts == ["again"]
        daemon._clock_moved()
        daemon._network._returned()
        daemon._network._returned()
        assert starts == ["again", "again"]

    live(tmp_path, monkeypatch, story)


def test_memory_is_released_once_after_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first idle tick after work releases memory. Further idle ticks and ticks during a fetch do not."""
    freed: list[str] = []
    monkeypatch.setattr("uvtokend.daemon.memory.give_back", lambda: freed.append("now"))

    async def story(daemon: Daemon) -> None:
        for _ in range(3):
            daemon._tick()
            await until_async(lambda: not daemon._files_watch.busy)
            assert freed == ["now"]
        await daemon.requests.status(None)
        daemon.feed(events.RefreshAsked(("a",)))
        daemon._tick()  # not during a fetch
        assert freed == ["now"]
        await daemon.requests.settle(None)
        daemon._tick()
        assert freed == ["now", "now"]

    live(tmp_path, monkeypatch, story)


def test_cycles_are_freed() -> None:
    """Releasing memory frees objects that only refer to themselves."""

    class Loop:
        me: object

    loop = Loop()
    loop.me = loop
    gone = weakref.ref(loop)
    gc.disable()
    try:
        del loop
        memory.give_back()
    finally:
        gc.enable()
    assert gone() is None


def test_the_log_level_drops_lower_levels(tmp_path: Path) -> None:
    """The levels are debug, info, warning and error, in this order."""
    order = ("debug", "info", "warning", "error")
    for least in order:
        log = EventLog(str(tmp_path / f"{least}.jsonl"), quiet=True)
        log.level = least
        for level in order:
            log.emit(Report(level, level, (), level))
        log.close()
        kept = [json.loads(line)["level"] for line in (tmp_path / f"{least}.jsonl").read_text().splitlines()]
        assert kept == list(order[order.index(least) :])


def test_a_status_has_the_named_indexes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The status has the named indexes, or all if no names are given."""
    other = replace(INDEX, name="b", url="https://b.example/", host="b.example")

    async def story(daemon: Daemon) -> None:
        for names, shown in ((["b"], ["b"]), (None, ["a", "b"]), ([], ["a", "b"])):
            document = await status_of(daemon, names)
            assert [index["name"] for index in document["indexes"]] == shown

    live(tmp_path, monkeypatch, story, INDEX, other)

"""The workers, with real child processes and a real plug-in provider."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from plugin import install

from support.waiting import runs, until
from uvtokend.core import slots, wire
from uvtokend.core.model import Credential, Failure, Frozen, Request
from uvtokend.daemon import worker
from uvtokend.daemon.worker import Outcome, Workers


def request(**options: Frozen) -> Request:
    return Request("made-up", options=tuple(sorted(options.items())))


class Fetches:
    """Workers whose outcomes can be awaited."""

    def __init__(self, directory: Path, timeout: float = 30, limit: int = 4) -> None:
        environment = install(directory)
        self.outcomes: asyncio.Queue[tuple[Request, Outcome]] = asyncio.Queue()
        self.workers = Workers(
            limit,
            timeout,
            lambda wanted: {**environment, **dict(wanted.env)},
            lambda wanted, outcome: self.outcomes.put_nowait((wanted, outcome)),
        )

    async def one(self, wanted: Request) -> Outcome:
        self.workers.start(wanted)
        return (await asyncio.wait_for(self.outcomes.get(), 60))[1]


def fetch(directory: Path, wanted: Request, timeout: float = 30) -> Outcome:
    async def main() -> Outcome:
        fetches = Fetches(directory, timeout)
        try:
            return await fetches.one(wanted)
        finally:
            await fetches.workers.close()

    return asyncio.run(main())


def test_a_credential_is_returned(tmp_path: Path) -> None:
    """A worker writes one line, from which the daemon reads the credential."""
    outcome = fetch(tmp_path / "p", request())
    assert isinstance(outcome, Credential)
    assert (outcome.login, outcome.identity) == ("me", "me@example.com")


def test_an_answer_is_used_before_its_worker_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The daemon passes on an answer before it kills and reaps the worker, and before it starts the next one."""
    steps: list[str] = []

    def recorded(step: str, honest: Callable[..., object]) -> Callable[..., object]:
        def take(*args: object, **more: object) -> object:
            steps.append(step)
            return honest(*args, **more)

        return take

    async def main() -> None:
        fetches = Fetches(tmp_path / "p", limit=1)
        fetches.workers._ended = recorded("used", fetches.workers._ended)  # type: ignore[assignment]
        monkeypatch.setattr(worker, "_signal", recorded("killed", worker._signal))
        monkeypatch.setattr(worker, "_Worker", recorded("started", worker._Worker))
        for name in ("one", "other"):
            fetches.workers.start(request(name=name))
        await asyncio.wait_for(fetches.outcomes.get(), 60)
        await asyncio.wait_for(fetches.outcomes.get(), 60)
        assert steps[:4] == ["started", "used", "killed", "started"]
        await fetches.workers.close()

    asyncio.run(main())


def test_a_worker_sees_its_environment_but_not_the_request(tmp_path: Path) -> None:
    """The index's `env` reaches its worker, but helpers do not inherit the request."""
    wanted = Request("made-up", options=(("how", "environment"),), env=(("WHO", "alice"),))
    outcome = fetch(tmp_path / "p", wanted)
    assert isinstance(outcome, Credential)
    assert outcome.login == "alice"


@pytest.mark.parametrize(
    ("how", "kind", "reason"),
    [
        ("login", "login-required", "sso-expired"),
        ("die", "transient", "no-answer"),
        ("raise", "transient", "unexpected"),
        ("nonsense", "rejected", "garbage"),
        ("huge", "rejected", "too-much"),
    ],
)
def test_every_failure_is_classified(tmp_path: Path, how: str, kind: str, reason: str) -> None:
    """A provider that fails, exits, raises or returns nonsense results in a failure that contains none of its text."""
    outcome = fetch(tmp_path / "p", request(how=how))
    assert isinstance(outcome, Failure)
    assert (outcome.kind, outcome.reason) == (kind, reason)
    assert "canary" not in repr(outcome)


@pytest.mark.parametrize("how", ["print", "stdin"])
def test_printing_and_reading_do_no_harm(tmp_path: Path, how: str, capfd: pytest.CaptureFixture[str]) -> None:
    """The output of an SDK is discarded, and a prompt gets an end of file."""
    assert isinstance(fetch(tmp_path / "p", request(how=how)), Credential)
    assert "canary" not in "".join(capfd.readouterr())


def test_a_provider_that_is_not_installed(tmp_path: Path) -> None:
    """An unknown provider is a failure that names it."""
    outcome = fetch(tmp_path / "p", Request("nowhere"))
    assert isinstance(outcome, Failure)
    assert "nowhere" in outcome.message


def test_a_token_with_a_line_break_survives_the_wire(tmp_path: Path) -> None:
    """A line break in a token does not break the line protocol; the agent refuses the token later."""
    outcome = fetch(tmp_path / "p", request(how="line-break"))
    assert isinstance(outcome, Credential)
    assert "\n" in outcome.password.reveal()


def test_a_hung_worker_is_killed_with_its_group(tmp_path: Path) -> None:
    """At the deadline the worker and its helper are killed. A helper that left the process group on purpose
    continues."""
    for agent in (False, True):
        note = tmp_path / f"pids-{agent}"
        for seconds in (2, 8, 32):  # on a busy machine the helper starts late
            directory = tmp_path / f"p{agent}{seconds}"
            outcome = fetch(directory, request(how="hang", note=str(note), agent=agent), timeout=seconds)
            assert isinstance(outcome, Failure)
            assert outcome.reason == "deadline"
            if note.exists():
                break
        worker, helper = (int(pid) for pid in note.read_text().split())
        doomed = [worker] if agent else [worker, helper]
        until(lambda pids=doomed: not any(map(runs, pids)))  # type: ignore[misc]
        assert runs(helper) == agent
        assert not psutil.pid_exists(worker)
        if agent:
            os.kill(helper, signal.SIGKILL)


def running_worker(note: Path) -> psutil.Process:
    """Return the worker that has written its process id."""
    return psutil.Process(int(until(lambda: note.exists() and note.read_text()).split()[0]))


def test_a_hung_fetch_does_not_delay_others(tmp_path: Path) -> None:
    """While one fetch hangs, others succeed. A canceled fetch has no outcome."""

    async def main() -> None:
        fetches = Fetches(tmp_path / "p", timeout=600, limit=2)
        fetches.workers.start(request(how="hang"))
        for number in range(3):
            assert isinstance(await fetches.one(request(number=number)), Credential)
        fetches.workers.cancel(request(how="hang"))
        fetches.workers.cancel(request(how="nothing-of-the-kind"))
        assert isinstance(await fetches.one(request(number=9)), Credential)
        await fetches.workers.close()
        assert fetches.outcomes.empty()

    asyncio.run(main())


def test_no_more_workers_than_the_limit(tmp_path: Path) -> None:
    """With two slots and three hung fetches there are two processes. A higher limit starts the third."""
    wanted = [request(how="hang", n=number) for number in range(3)]

    async def main() -> None:
        fetches = Fetches(tmp_path / "p", timeout=600, limit=2)
        for one in wanted:
            fetches.workers.start(one)
        assert len(fetches.workers._running) == 2
        assert len(children()) == 2
        fetches.workers.limit = 3
        assert len(children()) == 3
        await fetches.workers.close()
        assert children() == []

    asyncio.run(main())


def children() -> list[psutil.Process]:
    """Return the running workers among the child processes. A process that is just starting has no command line yet."""
    workers = []
    for child in psutil.Process().children():
        with contextlib.suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
            if "uvtokend.providers.worker" in until(child.cmdline):
                workers.append(child)
    return workers


def test_a_long_fetch_gives_way_to_a_waiting_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After its time slice the worker of a long fetch is killed, a waiting fetch runs, and then the long one starts
    again."""
    monkeypatch.setattr(slots, "SLICE", 0.2)
    note = tmp_path / "note"

    async def main() -> None:
        fetches = Fetches(tmp_path / "p", timeout=600, limit=1)
        fetches.workers.start(request(how="hang", n=1))
        assert isinstance(await fetches.one(request(number=1)), Credential)
        fetches.workers.cancel(request(how="hang", n=1))
        fetches.workers.start(request(how="hang", note=str(note)))
        assert running_worker(note).is_running()
        await fetches.workers.close()

    asyncio.run(main())


def test_a_restarted_fetch_has_a_new_worker(tmp_path: Path) -> None:
    """The first worker's connection may be broken, so it is killed, and only the second worker has an outcome."""
    note = tmp_path / "note"
    wanted = request(how="hang", note=str(note))

    async def main() -> None:
        fetches = Fetches(tmp_path / "p", timeout=600)
        fetches.workers.restart(wanted)
        assert children() == []
        fetches.workers.start(wanted)
        first = running_worker(note)
        fetches.workers.restart(wanted, limit=0.1)
        (second,) = until(lambda: len(running := children()) == 1 and running)  # a killed process takes a moment to end
        assert second != first
        _, outcome = await asyncio.wait_for(fetches.outcomes.get(), 60)
        assert isinstance(outcome, Failure)
        assert (outcome.reason, outcome.message) == ("deadline", "The fetch did not end within 0.1 s and was killed.")
        assert psutil.wait_procs([first], 10)[1] == []
        await fetches.workers.close()

    asyncio.run(main())


def test_a_worker_that_uses_a_one_time_secret_may_finish(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At its end the daemon sends SIGTERM to a worker that uses a one-time secret and waits until it has saved the
    successor."""
    monkeypatch.setattr("uvtokend.daemon.worker.spends_one_time_secret", lambda one: one.option("how") == "save")
    note, saved = tmp_path / "note", tmp_path / "saved"

    async def main() -> None:
        fetches = Fetches(tmp_path / "p", timeout=600)
        fetches.workers.start(request(how="save", note=str(note), saved=str(saved)))
        running_worker(note)
        await fetches.workers.close()
        assert saved.read_text() == "successor"
        assert fetches.outcomes.empty()

    asyncio.run(main())


def test_a_worker_that_does_not_finish_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that uses a one-time secret has a limited time to save the successor, and is then killed."""
    monkeypatch.setattr("uvtokend.daemon.worker.spends_one_time_secret", lambda _: True)
    monkeypatch.setattr("uvtokend.daemon.worker.SAVING", 0.3)
    note = tmp_path / "note"

    async def main() -> None:
        fetches = Fetches(tmp_path / "p", timeout=600)
        fetches.workers.start(request(how="deaf", note=str(note)))
        deaf = running_worker(note)
        await asyncio.wait_for(fetches.workers.close(), 60)
        assert not deaf.is_running()

    asyncio.run(main())


def test_an_unkillable_worker_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that waits for a disk in the kernel survives SIGKILL; the daemon ends anyway and returns its pid."""
    monkeypatch.setattr("uvtokend.daemon.worker.KILLED", 0.2)
    note = tmp_path / "note"

    async def main() -> int:
        fetches = Fetches(tmp_path / "p", timeout=600)
        fetches.workers.start(request(how="hang", note=str(note)))
        hung = running_worker(note)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(subprocess.Popen, "poll", lambda _: None)
            assert await asyncio.wait_for(fetches.workers.close(), 60) == (hung.pid,)
        assert await fetches.workers.close() == ()
        return hung.pid

    assert not psutil.pid_exists(asyncio.run(main()))


@pytest.mark.parametrize("spends", [True, False])
def test_the_daemon_waits_only_for_one_time_secrets(
    spends: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that ignores SIGTERM gets it only if it uses a one-time secret; any other is killed at once."""
    monkeypatch.setattr("uvtokend.daemon.worker.spends_one_time_secret", lambda _: spends)
    signals: list[int] = []
    monkeypatch.setattr("uvtokend.daemon.worker.SAVING", 0.3)
    note = tmp_path / "note"

    async def main() -> None:
        fetches = Fetches(tmp_path / "p", timeout=600)
        fetches.workers.start(request(how="deaf", note=str(note)))
        running_worker(note)
        kill = os.killpg

        def killpg(pid: int, number: int) -> None:
            signals.append(number)
            kill(pid, number)

        monkeypatch.setattr(os, "killpg", killpg)
        assert await asyncio.wait_for(fetches.workers.close(), 60) == ()

    asyncio.run(main())
    assert signals == ([signal.SIGTERM, signal.SIGKILL] if spends else [signal.SIGKILL])


def test_a_worker_that_cannot_be_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If no process can be started, the fetch ends with a transient failure."""
    monkeypatch.setattr("sys.executable", str(tmp_path / "no-python"))
    outcome = fetch(tmp_path / "p", request())
    assert isinstance(outcome, Failure)
    assert (outcome.kind, outcome.reason) == ("transient", "no-worker")


LIKE_A_MAC = """
    from support import xnu
    from uvtokend import darwin
    from uvtokend.providers import worker
    darwin.native = xnu.Kernel
    worker._bound_memory, worker.MEMORY = worker._watch_memory, 128 << 20
    worker.main()
"""


@pytest.mark.linux("/proc replaces macOS' kernel")
def test_memory_is_bounded_as_on_a_mac(tmp_path: Path) -> None:
    """If the system enforces no memory limit, a worker that uses too much memory ends itself with the same failure."""
    environment = install(tmp_path / "p")
    environment |= {
        "PYTHONPATH": os.pathsep.join([environment["PYTHONPATH"], str(Path(__file__).parent.parent)]),
        "UVTOKEND_REQUEST": wire.encode_request(request(how="grows")),
        "UVTOKEND_FETCH_TIMEOUT": "60",
    }
    command = [sys.executable, "-c", textwrap.dedent(LIKE_A_MAC)]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True, start_new_session=True)
    outcome = wire.decode_answer(done.stdout)
    assert isinstance(outcome, Failure)
    assert outcome.reason == "too-much"

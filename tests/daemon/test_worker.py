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

from support.waiting import until
from uvtokend.core import slots, wire
from uvtokend.core.model import Credential, Failure, Frozen, Request
from uvtokend.daemon import worker
from uvtokend.daemon.worker import Outcome, Workers


def request(**options: Frozen) -> Request:
    return Request("made-up", options=tuple(sorted(options.items())))


class Fetches:
    """Workers whose outcomes can be awaited."""

    def __init__(self, folder: Path, timeout: float = 30, limit: int = 4) -> None:
        environment = install(folder)
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


def fetch(folder: Path, wanted: Request, timeout: float = 30) -> Outcome:
    async def main() -> Outcome:
        fetches = Fetches(folder, timeout)
        try:
            return await fetches.one(wanted)
        finally:
            await fetches.workers.close()

    return asyncio.run(main())


def test_a_credential_comes_back(tmp_path: Path) -> None:
    """One process, one line, one credential."""
    outcome = fetch(tmp_path / "p", request())
    assert isinstance(outcome, Credential)
    assert (outcome.login, outcome.identity) == ("me", "me@example.com")


def test_nothing_comes_between_an_answer_and_its_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer is passed on before its worker is killed and reaped, and before the next worker starts."""
    steps: list[str] = []

    def seen(step: str, honest: Callable[..., object]) -> Callable[..., object]:
        def take(*args: object, **more: object) -> object:
            steps.append(step)
            return honest(*args, **more)

        return take

    async def main() -> None:
        fetches = Fetches(tmp_path / "p", limit=1)
        fetches.workers._ended = seen("used", fetches.workers._ended)  # type: ignore[assignment]
        monkeypatch.setattr(worker, "_signal", seen("killed", worker._signal))
        monkeypatch.setattr(worker, "_Worker", seen("started", worker._Worker))
        for name in ("one", "other"):
            fetches.workers.start(request(name=name))
        await asyncio.wait_for(fetches.outcomes.get(), 60)
        await asyncio.wait_for(fetches.outcomes.get(), 60)
        assert steps[:4] == ["started", "used", "killed", "started"]
        await fetches.workers.close()

    asyncio.run(main())


def test_a_worker_sees_its_environment_but_not_the_request(tmp_path: Path) -> None:
    """The index's own environment reaches its worker; helpers do not inherit the request."""
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
def test_whatever_happens_ends_classified(tmp_path: Path, how: str, kind: str, reason: str) -> None:
    """A provider that fails, dies, raises or answers nonsense is a failure, and nothing of its text leaks."""
    outcome = fetch(tmp_path / "p", request(how=how))
    assert isinstance(outcome, Failure)
    assert (outcome.kind, outcome.reason) == (kind, reason)
    assert "canary" not in repr(outcome)


@pytest.mark.parametrize("how", ["print", "stdin"])
def test_printing_and_reading_do_no_harm(tmp_path: Path, how: str, capfd: pytest.CaptureFixture[str]) -> None:
    """What an SDK prints goes nowhere; a prompt finds its input closed."""
    assert isinstance(fetch(tmp_path / "p", request(how=how)), Credential)
    assert "canary" not in "".join(capfd.readouterr())


def test_a_provider_that_is_not_installed(tmp_path: Path) -> None:
    """It is named, and the others continue."""
    outcome = fetch(tmp_path / "p", Request("nowhere"))
    assert isinstance(outcome, Failure)
    assert "nowhere" in outcome.message


def test_a_token_with_a_line_break_survives_the_wire_for_the_agent_to_refuse(tmp_path: Path) -> None:
    """The line protocol is not broken by it."""
    outcome = fetch(tmp_path / "p", request(how="line-break"))
    assert isinstance(outcome, Credential)
    assert "\n" in outcome.password.reveal()


def test_a_hang_ends_at_the_deadline_with_its_whole_group(tmp_path: Path) -> None:
    """Worker and helper are gone; a helper that left the group on purpose lives on."""
    for agent in (False, True):
        note = tmp_path / f"pids-{agent}"
        for seconds in (2, 8, 32):  # on a busy machine it takes long until the helper is there
            folder = tmp_path / f"p{agent}{seconds}"
            outcome = fetch(folder, request(how="hang", note=str(note), agent=agent), timeout=seconds)
            assert isinstance(outcome, Failure)
            assert outcome.reason == "deadline"
            if note.exists():
                break
        worker, helper = (int(pid) for pid in note.read_text().split())
        doomed = [worker] if agent else [worker, helper]
        psutil.wait_procs([psutil.Process(pid) for pid in doomed if psutil.pid_exists(pid)], 10)
        alive = psutil.pid_exists(helper) and psutil.Process(helper).status() != psutil.STATUS_ZOMBIE
        assert alive == agent
        assert not psutil.pid_exists(worker)
        if alive:
            os.kill(helper, signal.SIGKILL)


def living(note: Path) -> psutil.Process:
    """Return the worker that has written its process id."""
    return psutil.Process(int(until(lambda: note.exists() and note.read_text()).split()[0]))


def test_a_hang_does_not_delay_the_others(tmp_path: Path) -> None:
    """While one hangs, others are fetched; a canceled one is not heard of again."""

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
    """Two slots, three fetches that hang: there are two processes; a higher limit starts the third."""
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
    """Return the workers that run; the tests have other processes, too. A process has no words while it begins."""
    found = []
    for child in psutil.Process().children():
        with contextlib.suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
            if "uvtokend.providers.worker" in until(child.cmdline):
                found.append(child)
    return found


def test_a_long_fetch_gives_way_to_one_that_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its worker is killed after its slice, the other one runs, and then it gets a slot again."""
    monkeypatch.setattr(slots, "SLICE", 0.2)
    note = tmp_path / "note"

    async def main() -> None:
        fetches = Fetches(tmp_path / "p", timeout=600, limit=1)
        fetches.workers.start(request(how="hang", n=1))
        assert isinstance(await fetches.one(request(number=1)), Credential)
        fetches.workers.cancel(request(how="hang", n=1))
        fetches.workers.start(request(how="hang", note=str(note)))
        assert living(note).is_running()
        await fetches.workers.close()

    asyncio.run(main())


def test_a_fetch_that_is_started_again_has_another_worker(tmp_path: Path) -> None:
    """The connection of the first may be dead: it is killed, and only the second is heard of."""
    note = tmp_path / "note"
    wanted = request(how="hang", note=str(note))

    async def main() -> None:
        fetches = Fetches(tmp_path / "p", timeout=600)
        fetches.workers.restart(wanted)
        assert children() == []
        fetches.workers.start(wanted)
        first = living(note)
        fetches.workers.restart(wanted, limit=0.1)
        assert len(children()) == 1
        _, outcome = await asyncio.wait_for(fetches.outcomes.get(), 60)
        assert isinstance(outcome, Failure)
        assert (outcome.reason, outcome.message) == ("deadline", "The fetch did not end within 0.1 s and was killed.")
        assert psutil.wait_procs([first], 10)[1] == []
        await fetches.workers.close()

    asyncio.run(main())


def test_a_worker_that_spends_a_one_time_secret_may_finish(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is asked to end, finishes what it is about, and the daemon's end waits for it; all others end at once."""
    monkeypatch.setattr("uvtokend.daemon.worker.spends_one_time_secret", lambda one: one.option("how") == "save")
    note, saved = tmp_path / "note", tmp_path / "saved"

    async def main() -> None:
        fetches = Fetches(tmp_path / "p", timeout=600)
        fetches.workers.start(request(how="save", note=str(note), saved=str(saved)))
        living(note)
        await fetches.workers.close()
        assert saved.read_text() == "successor"
        assert fetches.outcomes.empty()

    asyncio.run(main())


def test_a_worker_that_never_finishes_is_killed_in_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who spends a one-time secret has some seconds to save its successor, and no more."""
    monkeypatch.setattr("uvtokend.daemon.worker.spends_one_time_secret", lambda _: True)
    monkeypatch.setattr("uvtokend.daemon.worker.SAVING", 0.3)
    note = tmp_path / "note"

    async def main() -> None:
        fetches = Fetches(tmp_path / "p", timeout=600)
        fetches.workers.start(request(how="deaf", note=str(note)))
        deaf = living(note)
        await asyncio.wait_for(fetches.workers.close(), 60)
        assert not deaf.is_running()

    asyncio.run(main())


def test_a_worker_that_the_kernel_does_not_end_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that waits for a disk in the kernel outlives SIGKILL; it must not outlive the daemon's patience."""
    monkeypatch.setattr("uvtokend.daemon.worker.KILLED", 0.2)
    note = tmp_path / "note"

    async def main() -> int:
        fetches = Fetches(tmp_path / "p", timeout=600)
        fetches.workers.start(request(how="hang", note=str(note)))
        hung = living(note)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(subprocess.Popen, "poll", lambda _: None)
            assert await asyncio.wait_for(fetches.workers.close(), 60) == (hung.pid,)
        assert await fetches.workers.close() == ()
        return hung.pid

    assert not psutil.pid_exists(asyncio.run(main()))


@pytest.mark.parametrize("spends", [True, False])
def test_only_one_time_secrets_are_waited_for(spends: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that ignores SIGTERM is killed at once if it is an ordinary one; then the end takes no `SAVING`."""
    monkeypatch.setattr("uvtokend.daemon.worker.spends_one_time_secret", lambda _: spends)
    signals: list[int] = []
    monkeypatch.setattr("uvtokend.daemon.worker.SAVING", 0.3)
    note = tmp_path / "note"

    async def main() -> None:
        fetches = Fetches(tmp_path / "p", timeout=600)
        fetches.workers.start(request(how="deaf", note=str(note)))
        living(note)
        kill = os.killpg

        def killpg(pid: int, number: int) -> None:
            signals.append(number)
            kill(pid, number)

        monkeypatch.setattr(os, "killpg", killpg)
        assert await asyncio.wait_for(fetches.workers.close(), 60) == ()

    asyncio.run(main())
    assert signals == ([signal.SIGTERM, signal.SIGKILL] if spends else [signal.SIGKILL])


def test_a_worker_that_cannot_be_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If no process can be started, that is a transient failure."""
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


@pytest.mark.linux("macOS' kernel is played with /proc")
def test_memory_is_bounded_as_on_a_mac(tmp_path: Path) -> None:
    """Where no limit holds, a worker that fills too much memory ends itself with the same answer."""
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

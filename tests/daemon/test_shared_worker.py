"""A worker that fetches for one request after another, as real processes."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import psutil
import pytest
from plugin import install

from support.daemons import status
from support.waiting import runs, until, until_async
from uvtokend.core import slots, wire
from uvtokend.core.model import Credential, Failure, Frozen, Index, Request, Settings
from uvtokend.core.worker_environment import worker_environment
from uvtokend.daemon import worker
from uvtokend.daemon.worker import Outcome, Workers
from uvtokend.providers import reuse
from uvtokend.sandbox.machine import Machine

#: What the workers run first: one of our own providers, `static`, that does what the user name says. The identity of
#: its credentials is the process ID.
SITE = """
import sys
if "uvtokend.providers.worker" in sys.orig_argv:
    import os, threading, time
    from dataclasses import replace
    from uvtokend.plugin import transient
    from uvtokend.providers import static
    from uvtokend.providers.kit import deadline

    answer, honest, kept = os.dup(1), static.fetch, []
    deadline._GRACE = float(os.environ.get("GRACE", "60"))

    def fetch(request):
        how, _, text = request.option("username").partition(" ")
        if how == "die":
            os._exit(7)
        if how == "hang":
            time.sleep(600)
        if how == "garbage":
            os.write(answer, b"nonsense\\n")
            time.sleep(600)
        if how == "twice":
            os.write(answer, wire(request))
        if how == "busy":
            raise transient("throttled", "Later.", None, 90.0)
        if how == "raise":
            raise RuntimeError
        if how == "much":
            kept.append(b"x" * (200 << 20))
        if how == "thread":
            threading.Thread(target=time.sleep, args=(600,), daemon=True).start()
        if how == "dirty":
            os.environ["DIRT"] = os.environ.pop("PLAIN")
        if how == "plain":
            return replace(honest(request), identity=str(os.getpid()), login="me")
        seen = " ".join(name for name in ("DIRT", "PLAIN", "ALPHA", "BETA") if name in os.environ)
        return replace(honest(request), identity=str(os.getpid()), login=seen)

    def wire(request):
        from uvtokend.core import wire
        return wire.encode_answer(replace(honest(request), identity=str(os.getpid())), True) * 2

    static.fetch = fetch
"""


def wanted(how: str, env: tuple[tuple[str, str], ...] = (), variable: str = "PLAIN") -> Request:
    return Request("static", options=(("password", (("env", variable),)), ("username", how)), env=env)


class Crew:
    """Workers whose outcomes can be awaited.

    Attributes:
        started: The first request of each process.
        outcomes: The outcomes, in order.
    """

    def __init__(
        self, directory: Path, monkeypatch: pytest.MonkeyPatch, limit: int = 1, timeout: float = 600.0
    ) -> None:
        environment = {**install(directory), "PLAIN": "a-secret"}
        (directory / "sitecustomize.py").write_text(SITE)
        self.environment: Callable[[Request], dict[str, str]] = self._plain
        self.base = environment
        self.started: list[Request] = []
        self.outcomes: list[tuple[Request, Outcome]] = []
        self._ended = asyncio.Event()
        self.workers = Workers(limit, timeout, self._environment, self._end)
        honest = worker._Worker

        def start(request: Request, *more: object) -> object:
            self.started.append(request)
            return honest(request, *more)  # type: ignore[arg-type]

        monkeypatch.setattr(worker, "_Worker", start)

    def _plain(self, request: Request) -> dict[str, str]:
        return {**self.base, **dict(request.env)}

    def _environment(self, request: Request) -> dict[str, str]:
        return self.environment(request)

    def _end(self, request: Request, outcome: Outcome) -> None:
        self.outcomes.append((request, outcome))
        self._ended.set()

    async def all(self, *requests: Request) -> list[Outcome]:
        """Start fetches at once, and return their outcomes."""
        for request in requests:
            self.workers.start(request)
        return await self.ended(*requests)

    async def ended(self, *requests: Request) -> list[Outcome]:
        """Return the outcomes of fetches once they have ended."""
        async with asyncio.timeout(60):
            while not {request for request, _ in self.outcomes} >= {*requests}:
                await self._ended.wait()
                self._ended.clear()
        outcomes = dict(self.outcomes)
        return [outcomes[request] for request in requests]


Story = Callable[[Crew], Awaitable[None]]


@pytest.fixture
def play(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Return a function that runs a story with workers, and checks that no process is left."""

    def run(story: Story, limit: int = 1, timeout: float = 600.0) -> None:
        async def main() -> None:
            crew = Crew(tmp_path / "p", monkeypatch, limit, timeout)
            try:
                await story(crew)
            finally:
                assert await crew.workers.close() == ()

        asyncio.run(main())
        left = [child.cmdline() for child in psutil.Process().children()]
        assert [command for command in left if "uvtokend.providers.worker" in command] == []

    return run


def pid(outcome: Outcome) -> int:
    assert isinstance(outcome, Credential), outcome
    assert outcome.identity is not None
    return int(outcome.identity)


def reason(outcome: Outcome) -> str:
    assert isinstance(outcome, Failure)
    return outcome.reason


def test_one_process_serves_all_that_wait(play: Callable[..., None]) -> None:
    """Requests of one cloud that wait for the same slot are fetched by one process, which ends after the last one."""

    async def story(crew: Crew) -> None:
        outcomes = await crew.all(*(wanted(f"ok {number}") for number in range(20)))
        assert len({pid(outcome) for outcome in outcomes}) == len(crew.started) == 1
        until(lambda: not runs(pid(outcomes[0])))
        assert pid((await crew.all(wanted("later")))[0]) != pid(outcomes[0])

    play(story)


def test_a_new_worker_is_waited_for(play: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    """While the CPUs are busy, a request waits for the process that its cloud has just got, although a slot is free."""
    monkeypatch.setattr(worker, "_cpus", lambda: 1)
    monkeypatch.setattr(slots, "START", 600.0)

    async def story(crew: Crew) -> None:
        first, second, other = await crew.all(wanted("ok 1"), wanted("ok 2"), wanted("ok 3", (("X", "1"),)))
        assert pid(first) == pid(second) != pid(other)

    play(story, limit=3)


def test_a_slow_cloud_is_not_waited_for(play: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    """If the new process does not answer, a request that waits for it gets one of its own."""
    monkeypatch.setattr(worker, "_cpus", lambda: 1)
    monkeypatch.setattr(slots, "START", 0.2)

    async def story(crew: Crew) -> None:
        crew.workers.start(wanted("hang"))
        assert pid((await crew.all(wanted("ok")))[0])
        assert len(crew.started) == 2

    play(story, limit=2)


def test_other_environments_are_not_shared(play: Callable[..., None]) -> None:
    """A worker never serves a request whose worker would have another environment."""

    async def story(crew: Crew) -> None:
        first, second = await crew.all(wanted("ok 1"), wanted("ok 2", (("X", "1"),)))
        assert pid(first) != pid(second)

    play(story)


def test_no_secret_reaches_another_index(play: Callable[..., None]) -> None:
    """A secret variable is only in the workers of requests that name it; requests that name the same one share."""
    requests = [wanted("ok 1", (), "ALPHA"), wanted("ok 2", (), "BETA"), wanted("ok 3", (), "ALPHA")]
    indexes = [Index(f"i{n}", f"https://h{n}", f"h{n}", "static", request) for n, request in enumerate(requests)]

    async def story(crew: Crew) -> None:
        base = {**crew.base, "ALPHA": "secret-of-alpha", "BETA": "secret-of-beta"}
        crew.environment = lambda one: worker_environment(base, one, Settings("c", tuple(indexes)))
        outcomes = await crew.all(*requests)
        assert [outcome.login for outcome in outcomes if isinstance(outcome, Credential)] == [
            "PLAIN ALPHA",
            "PLAIN BETA",
            "PLAIN ALPHA",
        ]
        assert pid(outcomes[0]) == pid(outcomes[2]) != pid(outcomes[1])

    play(story)


def test_a_changed_configuration_gets_a_new_process(play: Callable[..., None]) -> None:
    """If a reload changes the workers' environment, the requests that wait do not run in the old one."""

    async def story(crew: Crew) -> None:
        for request in (wanted("ok 1"), wanted("ok 2")):
            crew.workers.start(request)
        crew.environment = lambda _: {**crew.base, "BETA": "1"}
        _, second = await crew.ended(wanted("ok 1"), wanted("ok 2"))
        assert isinstance(second, Credential)
        assert second.login == "PLAIN BETA"
        assert len(crew.started) == 2

    play(story)


def test_plug_ins_and_programs_are_not_shared(play: Callable[..., None]) -> None:
    """Each fetch of a plug-in, and each program of the user, has a process of its own."""
    program = ("echo", '{"username": "me", "password": "p", "expires_in": 3600}')
    plug_ins = [Request("made-up", options=(("number", number),)) for number in range(2)]
    programs = [Request("command", options=(("command", (*program, str(number))),)) for number in range(2)]

    async def story(crew: Crew) -> None:
        await crew.all(*plug_ins, *programs)
        assert crew.started == [*plug_ins, *programs]

    play(story)


def test_the_token_comes_before_the_end_of_its_worker(play: Callable[..., None]) -> None:
    """The worker still runs when the daemon gets the token: its end would take CPU time from the delivery."""

    async def story(crew: Crew) -> None:
        ran: list[bool] = []
        end = crew.workers._ended

        def ended(request: Request, outcome: Outcome) -> None:
            with pytest.raises(psutil.TimeoutExpired):
                psutil.Process(pid(outcome)).wait(0.5)
            ran.append(True)
            end(request, outcome)

        crew.workers._ended = ended
        (outcome,) = await crew.all(wanted("ok"))
        assert ran == [True]
        await until_async(lambda: not runs(pid(outcome)))

    play(story)


def test_a_one_time_secret_is_not_shared(play: Callable[..., None], tmp_path: Path) -> None:
    """A request that spends a one-time secret has a process of its own."""

    def chain(number: int) -> Request:
        secret: Frozen = (("file", str(tmp_path / f"none-{number}")),)
        return Request("jfrog-artifactory", "https://a.example", options=(("refresh-token", secret),))

    async def story(crew: Crew) -> None:
        await crew.all(chain(1), chain(2))
        assert len(crew.started) == 2

    play(story)


@pytest.mark.parametrize(
    ("how", "failure"),
    [("die", "no-answer"), ("hang", "deadline"), ("garbage", "garbage"), ("raise", "unexpected")],
)
def test_a_broken_second_fetch_costs_only_its_request(play: Callable[..., None], how: str, failure: str) -> None:
    """If a worker ends, hangs or answers nonsense in its second fetch, only that request fails. The next one gets a new
    process."""

    async def story(crew: Crew) -> None:
        requests = [wanted("ok 1"), wanted(how), wanted("ok 2")]
        for request in requests:
            crew.workers.start(request, 1.0 if how == "hang" else None)
        first, second, third = await crew.ended(*requests)
        assert reason(second) == failure
        assert crew.started == [wanted("ok 1"), wanted("ok 2")]
        assert pid(third) != pid(first)
        until(lambda: not runs(pid(first)))

    play(story)


def test_a_worker_that_has_ended_costs_nothing(play: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    """If a worker ends right after its answer, the next request gets a new process at once."""
    honest = wire.decode_reply

    def decode(line: bytes) -> tuple[Outcome, bool]:
        reply = honest(line)
        victim = psutil.Process(pid(reply[0]))
        victim.kill()
        until(lambda: victim.status() == psutil.STATUS_ZOMBIE)
        return reply

    monkeypatch.setattr(wire, "decode_reply", decode)

    async def story(crew: Crew) -> None:
        first, second = await crew.all(wanted("ok 1"), wanted("ok 2"))
        assert pid(first) != pid(second)

    play(story)


def test_a_request_that_does_not_fit_gets_a_new_process(play: Callable[..., None]) -> None:
    """A request larger than the pipe does not block the daemon."""

    async def story(crew: Crew) -> None:
        first, second = await crew.all(wanted("ok 1"), wanted("ok " + "x" * (1 << 16)))
        assert pid(first) != pid(second)

    play(story)


@pytest.mark.parametrize("how", ["twice", "much", "thread", "raise"])
def test_a_worker_that_is_not_as_before_ends(play: Callable[..., None], how: str) -> None:
    """After a second answer, a thread that still runs, much memory or an unexpected error, nothing more is fetched."""

    async def story(crew: Crew) -> None:
        await crew.all(wanted(how), wanted("ok"))
        assert crew.started == [wanted(how), wanted("ok")]

    play(story)


def test_a_worker_with_a_helper_program_ends(play: Callable[..., None], tmp_path: Path) -> None:
    """A helper program may leave processes behind, so its worker ends with them."""
    helper = f"sleep 600 & echo $! > {tmp_path}/pid; echo a-secret"
    options: tuple[tuple[str, Frozen], ...] = (("password", (("command", ("sh", "-c", helper)),)), ("username", "me"))

    async def story(crew: Crew) -> None:
        await crew.all(Request("static", options=options), wanted("ok"))
        assert len(crew.started) == 2
        until(lambda: not runs(int((tmp_path / "pid").read_text())))

    play(story)


def test_the_environment_is_restored(play: Callable[..., None]) -> None:
    """A fetch that changes the environment of its process changes nothing for the next one."""

    async def story(crew: Crew) -> None:
        first, second = await crew.all(wanted("dirty"), wanted("ok"))
        assert isinstance(first, Failure)
        assert isinstance(second, Credential)
        assert (second.login, len(crew.started)) == ("PLAIN", 1)

    play(story)


def test_a_classified_failure_does_not_end_a_worker(play: Callable[..., None]) -> None:
    """After a failure that the provider explains, with the time of the next try, the same process serves the next
    request."""

    async def story(crew: Crew) -> None:
        busy, gone, fine = await crew.all(wanted("busy"), wanted("dirty"), wanted("ok"))
        assert isinstance(busy, Failure)
        assert (busy.reason, busy.retry_after, reason(gone)) == ("throttled", 90.0, "no-secret")
        assert crew.started == [wanted("busy")]
        assert pid(fine)

    play(story)


def test_each_fetch_has_a_deadline_of_its_own(play: Callable[..., None]) -> None:
    """The second fetch of a process may take as long as any other, and no longer."""

    async def story(crew: Crew) -> None:
        for request, limit in ((wanted("ok"), 60.0), (wanted("hang"), 0.3)):
            crew.workers.start(request, limit)
        _, hung = await crew.ended(wanted("ok"), wanted("hang"))
        assert isinstance(hung, Failure)
        assert hung.message == "The fetch did not end within 0.3 s and was killed."

    play(story)


def test_a_canceled_second_fetch(play: Callable[..., None]) -> None:
    """A canceled fetch ends its process, which had already served another request, and has no outcome."""

    async def story(crew: Crew) -> None:
        for request in (wanted("ok 1"), wanted("hang")):
            crew.workers.start(request)
        (first,) = await crew.ended(wanted("ok 1"))
        crew.workers.cancel(wanted("hang"))
        (last,) = await crew.all(wanted("ok 2"))
        until(lambda: not runs(pid(first)))
        assert pid(last) != pid(first)
        assert [request for request, _ in crew.outcomes] == [wanted("ok 1"), wanted("ok 2")]

    play(story)


def test_a_restarted_second_fetch(play: Callable[..., None]) -> None:
    """A restart, say after a sleep, kills the process that had already served another request, and starts a new one."""

    async def story(crew: Crew) -> None:
        for request in (wanted("ok"), wanted("hang")):
            crew.workers.start(request)
        (first,) = await crew.ended(wanted("ok"))
        crew.workers.restart(wanted("hang"), limit=0.3)
        (hung,) = await crew.ended(wanted("hang"))
        assert (reason(hung), crew.started) == ("deadline", [wanted("ok"), wanted("hang")])
        until(lambda: not runs(pid(first)))

    play(story)


def test_a_long_second_fetch_gives_way(play: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    """The second fetch of a process gives way like any other: a waiting one runs, and then it starts again."""

    async def story(crew: Crew) -> None:
        for request in (wanted("ok 1"), wanted("hang"), wanted("ok 2")):
            crew.workers.start(request)
        await crew.ended(wanted("ok 1"))
        monkeypatch.setattr(slots, "SLICE", 0.1)
        crew.workers.limit = 1  # checks the slots again
        first, second = await crew.ended(wanted("ok 1"), wanted("ok 2"))
        assert pid(first) != pid(second)
        crew.workers.cancel(wanted("hang"))

    play(story)


# ---------------------------------------------------------------------------------------- the worker by itself


class Child:
    """A worker process, seen from its daemon's side.

    Args:
        directory: An empty directory.
        request: The first request.
        seconds: Its limit.
    """

    def __init__(self, directory: Path, request: Request, seconds: float = 60.0) -> None:
        environment = {**install(directory), "PLAIN": "a-secret"}
        (directory / "sitecustomize.py").write_text(SITE)
        theirs, self.orders = os.pipe()
        more = {"UVTOKEND_ORDERS": str(theirs), "UVTOKEND_FETCH_TIMEOUT": str(seconds), "GRACE": "0.1"}
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", "uvtokend.providers.worker"],
            env={**environment, **more, "UVTOKEND_REQUEST": wire.encode_request(request)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            pass_fds=(theirs,),
            start_new_session=True,
        )
        os.close(theirs)

    def answer(self) -> tuple[Outcome, bool]:
        """Return the next answer."""
        assert self.process.stdout is not None
        return wire.decode_reply(self.process.stdout.readline())

    def ask(self, request: Request, seconds: float = 60.0) -> None:
        """Send another request."""
        os.write(self.orders, wire.encode_order(request, seconds))


@pytest.fixture
def child(tmp_path: Path) -> Iterator[Callable[..., Child]]:
    """Return a function that starts a worker; all workers are ended afterwards."""
    children: list[Child] = []

    def start(request: Request, seconds: float = 60.0) -> Child:
        children.append(Child(tmp_path / str(len(children)), request, seconds))
        return children[-1]

    yield start
    for one in children:
        with contextlib.suppress(OSError):
            os.close(one.orders)
        one.process.kill()
        with one.process:
            pass


def test_a_worker_ends_with_its_daemon(child: Callable[..., Child]) -> None:
    """When the daemon has gone, the pipe is closed, and a worker that waits for a request ends."""
    one = child(wanted("ok"))
    assert one.answer()[1]
    os.close(one.orders)
    assert one.process.wait(60) == 0


def test_the_memory_of_the_daemon_does_not_count(child: Callable[..., Child]) -> None:
    """A worker whose daemon fills much memory can take another request: only its own memory counts."""
    ballast = b"x" * (2 * reuse.MOST)
    assert child(wanted("ok")).answer()[1]
    assert len(ballast) > reuse.MOST


def test_a_worker_waits_for_its_dismissal(child: Callable[..., Child]) -> None:
    """A worker that cannot take another request ends when its daemon closes the pipe, and not while the daemon is busy
    with the answer."""
    one = child(Request("command", options=(("command", ("echo", '{"username": "me", "password": "p"}')),)))
    outcome, again = one.answer()
    assert isinstance(outcome, Credential)
    assert not again
    with pytest.raises(subprocess.TimeoutExpired):
        one.process.wait(0.5)
    os.close(one.orders)
    assert one.process.wait(60) == 0


def test_a_worker_without_a_daemon_ends_at_its_own_deadline(child: Callable[..., Child]) -> None:
    """The second fetch has its own deadline in the worker, too: the first one's no longer counts."""
    one = child(wanted("ok 1"), 0.5)
    assert one.answer()[1]
    one.ask(wanted("ok 2"))
    assert one.answer()[1]
    one.ask(wanted("hang"), 0.2)
    assert one.process.wait(60) == -signal.SIGKILL


@pytest.mark.parametrize("sent", [b"\n", b"[]\n", b"nonsense\n", b"\xff\n", b'["[]", null]\n', b"[" * 5000 + b"\n"])
def test_a_worker_that_reads_nonsense_ends(child: Callable[..., Child], sent: bytes) -> None:
    """A line that is not a request ends the worker without an answer."""
    one = child(wanted("ok"))
    assert one.answer()[1]
    os.write(one.orders, sent)
    assert one.process.wait(60) != 0
    assert one.process.stdout is not None
    assert one.process.stdout.read() == b""


def test_a_helper_program_inherits_nothing(child: Callable[..., Child]) -> None:
    """A helper program has its standard streams and no other file: neither the pipe of requests nor that of answers."""
    script = "import os; print(*(number for number in range(64) if os.path.exists(f'/dev/fd/{number}')))"
    command = (sys.executable, "-c", script)
    options: tuple[tuple[str, Frozen], ...] = (("password", (("command", command),)), ("username", "me"))
    outcome, again = child(Request("static", options=options)).answer()
    assert isinstance(outcome, Credential)
    assert (outcome.password.reveal(), again) == ("0 1 2", False)


def test_a_worker_without_a_pipe_ends_after_one_fetch(tmp_path: Path) -> None:
    """A worker that was started without a pipe for requests answers once, and says that it takes no other."""
    request = {"UVTOKEND_REQUEST": wire.encode_request(wanted("ok")), "UVTOKEND_FETCH_TIMEOUT": "60"}
    environment = {**install(tmp_path / "p"), "PLAIN": "a-secret", **request}
    command = [sys.executable, "-P", "-m", "uvtokend.providers.worker"]
    done = subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, check=True)
    outcome, again = wire.decode_reply(done.stdout)
    assert isinstance(outcome, Credential)
    assert not again


# --------------------------------------------------------------------------------------------------- a whole daemon


@pytest.fixture
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """Return a machine on which `static` does what the user name says, one fetch at a time."""
    created = Machine(tmp_path_factory.mktemp("m"))
    site = created.directory / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(SITE)
    created.environment |= {"PYTHONPATH": str(site), "GRACE": "0.1", "PLAIN": "a-secret"}
    yield created
    created.stop()


def configure(machine: Machine, hows: list[str], timeout: str) -> None:
    machine.write(
        f'[daemon]\nmax-workers = 1\nfetch-timeout = "{timeout}"\n',
        *(
            f'[[index]]\nname = "i{number}"\nurl = "https://h{number}.example/simple/"\nprovider = "static"\n'
            f'username = "{how}"\npassword = {{ env = "PLAIN" }}\n'
            for number, how in enumerate(hows)
        ),
    )


def test_a_daemon_fetches_for_many_indexes_in_one_process(machine: Machine) -> None:
    """After a start, the secrets of all indexes are read by one process, which ends when all are delivered."""
    configure(machine, [f"plain {number}" for number in range(12)], "60s")
    machine.start()
    until(lambda: len(indexes := status(machine)["indexes"]) == 12 and all(index["delivered"] for index in indexes))
    (identity,) = {index["identity"] for index in status(machine)["indexes"]}
    until(lambda: not runs(int(identity)))


def test_a_killed_daemon_leaves_no_shared_worker(machine: Machine) -> None:
    """If the daemon is killed while a worker runs its second fetch, the worker ends itself at that fetch's deadline."""
    configure(machine, ["ok", "hang"], "4s")
    machine.start()
    assert machine.daemon is not None
    daemon = psutil.Process(machine.daemon.pid)
    first = until(lambda: next((index["identity"] for index in status(machine)["indexes"] if index["identity"]), None))
    (worker,) = until(lambda: [child for child in daemon.children() if runs(child.pid)])
    assert worker.pid == int(first)
    machine.daemon.kill()
    machine.daemon.wait()
    until(lambda: not runs(worker.pid))


# ------------------------------------------------------------------------------------------------ random histories


@pytest.mark.parametrize("seed", range(3))
def test_random_histories(play: Callable[..., None], seed: int) -> None:
    """Whatever the fetches do and the daemon orders, each request that is not canceled has exactly one outcome, its
    own, and no process is left."""
    dice = random.Random(seed)
    hows = ("ok", "ok", "ok", "ok", "busy", "die", "garbage", "twice", "raise", "thread", "dirty", "hang")

    async def story(crew: Crew) -> None:
        requests = []
        for number in range(30):
            how = dice.choice(hows)
            env = (("X", str(dice.randrange(2))),) if dice.random() < 0.3 else ()
            request = wanted(f"{how} {number}", env)
            requests.append(request)
            crew.workers.start(request, 0.5 if how == "hang" else None, hung=dice.random() < 0.1)
            if dice.random() < 0.2:
                crew.workers.restart(dice.choice(requests), 0.5)
            if dice.random() < 0.1:
                crew.workers.limit = dice.randint(1, 4)
            if dice.random() < 0.2:
                await asyncio.sleep(dice.random() / 20)
            if dice.random() < 0.1:
                crew.workers.cancel(requests.pop(dice.randrange(len(requests))))
        await crew.ended(*requests)
        asked = [request for request, _ in crew.outcomes]
        assert len(asked) == len({*asked})
        for request, outcome in crew.outcomes:
            how = str(request.option("username")).partition(" ")[0]
            expected = {"busy": "throttled", "die": "no-answer", "garbage": "garbage", "raise": "unexpected"}
            expected |= {"hang": "deadline", "dirty": "no-secret"}
            if isinstance(outcome, Failure):
                assert outcome.reason in {expected.get(how), "deadline"}
            else:
                assert how in {"ok", "twice", "thread"}

    play(story, limit=3)

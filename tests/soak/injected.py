"""The faults part: every system call of a delivery, a purge, an adopt and a state write fails in turn.

A delivery is the daemon's own (`uvtokend.daemon.deliveries`), with the note before the netrc and the state file
after it. After each fault the netrc must have the text from before or after the delivery, unless it was being
written in place. Then the work is repeated without a fault, and a purge follows: the foreign text must be back byte
for byte, without any other file beside it, and no file below the home and the state directory may contain a token.
After a kill or a power cut, the purge is also run at once, with a configuration that no longer has any index.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import shutil
import subprocess
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from unittest import mock

from soak import injection, world
from soak.injection import Fault
from soak.result import Result
from uvtokend.cli import adopt, console, purge
from uvtokend.core import state
from uvtokend.core.events import Deliver, DeliveryEnded
from uvtokend.core.model import Credential, Entry, Index, Request, Secret
from uvtokend.core.netrc.block import split
from uvtokend.core.state import State
from uvtokend.daemon.deliveries import Deliveries, Order
from uvtokend.disk import files, locks, netrc_write
from uvtokend.disk.netrc_sink import NetrcSink
from uvtokend.disk.state_file import Store
from uvtokend.errors import DeliveryFailed, UvtokendError

#: The host of the first delivery, the one that the second delivery adds, and that of an adopted foreign entry.
OURS, NEW, TAKEN = "b.example", "c.example", "a.example"
HOSTS = (OURS, NEW, TAKEN)
FOREIGN = (
    b"# mine\nmachine x.example login me password theirs\nmachine a.example login me password theirs\n"
    b"machine y.example\r\n\tlogin you\n#end \xff\nno last line end"
)
TOKEN = "uvtokend-secret-%d."
DAEMON = """
[daemon]
netrc = "{netrc}"
"""
CONFIG = DAEMON + "".join(
    f"""
[[index]]
name = "{host[0]}"
url = "https://{host}/simple/"
provider = "static"
username = "aws"
password = {{{{ env = "NONE" }}}}
"""
    for host in HOSTS
)
INDEXES = tuple(Index(host[0], f"https://{host}/simple/", host, "static", Request("static", host)) for host in HOSTS)
NOW = datetime(2026, 1, 31, 8, tzinfo=UTC)
PLACES = ("plain", "first", "missing", "symlinked", "hard-linked", "held", "mounted")
WORKS = ("deliver", "purge", "adopt", "state")

Say = Callable[[str], None]


def run(seed: int, scale: float, say: Say) -> Result:
    """Inject every fault, or a share of them.

    Args:
        seed: The seed of the random numbers that choose the share.
        scale: The share of all faults.
        say: Called with each broken law, and with the progress.
    """
    dice = random.Random(seed)
    counts: Counter[str] = Counter()
    broken: list[str] = []
    places = [place for place in PLACES if place != "mounted" or world.may_mount()]
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # ten times as fast as a real disk
    with _quick(), tempfile.TemporaryDirectory(prefix="uvtokend-faults-", dir=memory) as name:
        for place in places:
            for exchanges in (True, False):
                for work in WORKS:
                    scene = _Scene(Path(name), place, work, exchanges)
                    for fault in scene.faults():
                        if dice.random() < scale:
                            counts.update(scene.play(fault))
                    broken += scene.broken
                    for law in scene.broken:
                        say(law)
            say(f"{place}: {counts['runs']} runs so far")
    figures: dict[str, int | float | str] = {
        "runs": counts["runs"],
        "... with a kill": counts["kill"] + counts["kill before"],
        "... with a power cut": counts["power"],
        "... with a short write": counts["short"],
        "... with an error": counts["error"],
        "... after which the work failed": counts["failed"],
        "... after which a file was left beside the netrc": counts["leftover"],
        "... after which the netrc was a mixture, which the next try repaired": counts["mixture"],
        "files": ", ".join(places),
    }
    return Result("faults", figures, tuple(broken))


@contextlib.contextmanager
def _quick() -> Iterator[None]:
    """Shorten every wait to zero, and print nothing."""
    with contextlib.ExitStack() as stack:
        for module, name, value in (
            (files, "PATIENCE", 0.0),
            (files, "TICK", 0.0),
            (locks, "PATIENCE", 0.0),
            (netrc_write, "GRACE", 0.0),
            (console, "say", lambda *_: None),
        ):
            stack.enter_context(mock.patch.object(module, name, value))
        yield


class _Loop:
    """An event loop that does nothing."""

    def call_soon_threadsafe(self, *_: object) -> None:
        """Do nothing."""


class _Thread:
    """A thread that does nothing."""

    def __init__(self, **_: object) -> None:
        """Accept the arguments of a thread."""

    def start(self) -> None:
        """Do nothing."""


def _delivered(order: Order, sink: NetrcSink, store: Store) -> DeliveryEnded:
    """Deliver in this thread, because a process with threads cannot be forked safely."""
    with mock.patch.object(asyncio, "get_running_loop", _Loop), mock.patch.object(threading, "Thread", _Thread):
        deliveries = Deliveries(sink, store, lambda _: None, lambda _: None)
    sink.together = netrc_write.one_by_one
    deliveries._first_look(order.indexes)  # it reads the state file
    return deliveries._deliver(order)


class _Scene:
    """One kind of file and one kind of work."""

    def __init__(self, directory: Path, place: str, work: str, exchanges: bool) -> None:
        self.broken: list[str] = []
        self._directory = directory
        self._place = place
        self._work = work
        self._exchanges = exchanges
        self._before = b"" if place == "missing" else FOREIGN
        self._held: int | None = None
        self._states = State(), State()

    # ------------------------------------------------------------------------------------------------------ playing

    def faults(self) -> list[Fault]:
        """Return every fault that can be injected into the calls that the work makes."""
        with (
            self._set_up(),
            injection.injected(Fault(), self._exchanges) as made,
            contextlib.suppress(UvtokendError),  # adopt refuses a file that another program has open
        ):
            self._once()
        return list(injection.faults(made))

    def play(self, fault: Fault) -> Counter[str]:
        """Inject one fault, and return what to count."""
        kind = fault.kind if isinstance(fault.kind, str) else "error"
        counts: Counter[str] = Counter()
        ended = kind in injection.ENDS and self._work == "deliver" and self._place != "held"  # then the mixture stays
        for heals in (self._heal, self._forget) if ended else (self._heal,):
            counts.update({"runs": 1, kind: 1})
            try:
                with self._set_up():
                    try:
                        injection.run(self._once, fault, self._exchanges, self._directory)
                    except (UvtokendError, OSError):
                        counts["failed"] += 1
                    self._judge(fault, counts)
                    heals()
            except Exception as error:  # noqa: BLE001 - any exception is a finding
                self._break(fault, f"{heals.__name__}: {error!r}")
        return counts

    def _break(self, fault: Fault, law: str) -> None:
        how = "exchanged" if self._exchanges else "renamed"
        self.broken.append(f"{self._work}, {self._place}, {how}, {fault}: {law}")

    def _judge(self, fault: Fault, counts: Counter[str]) -> None:
        text = self._read()
        counts["leftover"] += any(".uvtokend" in name and "lock" not in name for name in os.listdir(self._real.parent))
        foreign = split(text, HOSTS)[1]
        whole = (self._before, self._before.replace(b"machine a.example login me password theirs\n", b""))
        if foreign in whole:
            return
        in_place = self._place in ("hard-linked", "held", "mounted")
        if in_place and (fault.kind in injection.ENDS or fault.for_good):
            counts["mixture"] += 1
        else:
            self._break(fault, f"the netrc is {text!r}")

    def _heal(self) -> None:
        """Repeat the work without a fault; then purge, and check what is left."""
        if self._work == "state":
            loaded = Store(str(self._state)).load()
            assert loaded in self._states, f"the state is {loaded}"
        with contextlib.suppress(UvtokendError):  # adopt refuses a file that another program has open
            self._once()
        if self._work == "deliver":
            entries, foreign = split(self._read())
            assert foreign == self._before, f"after the repair the netrc is {self._read()!r}"
            assert [entry.host for entry in entries] == [OURS, NEW], f"after the repair the netrc is {self._read()!r}"
            self._assert_tidy()
        self._purge()

    def _forget(self) -> None:
        """Remove all indexes from the configuration, then purge."""
        self._config.write_text(DAEMON.format(netrc=self._netrc))
        self._purge()

    def _purge(self) -> None:
        if self._held is not None:
            os.close(self._held)
            self._held = None
        purge.purge(None)
        assert self._read() == self._before, f"after the purge the netrc is {self._read()!r}"
        assert self._place != "hard-linked" or self._real.samefile(self._home / "second"), "the hard link is cut"
        assert self._place != "symlinked" or self._netrc.is_symlink(), "the symbolic link is gone"
        self._assert_tidy()
        for file in self._directory.rglob("*"):
            assert not (file.is_file() and b"uvtokend-secret" in file.read_bytes()), f"a token is left in {file}"

    def _assert_tidy(self) -> None:
        litter = {*os.listdir(self._real.parent)} - {self._real.name, "second", "dotfiles"}
        assert not litter, f"litter: {litter}"

    # -------------------------------------------------------------------------------------------------- the works

    def _once(self) -> None:
        if self._work == "purge":
            purge.purge(None)
        elif self._work == "adopt":
            adopt.adopt("a", None)
        elif self._work == "state":
            self._write_state()
        else:
            self._deliver(1)

    def _deliver(self, number: int) -> None:
        """Deliver as the daemon does, for the first time (0) or later."""
        entries, records = [], []
        for index in INDEXES[: 1 + (number > 0)]:
            token = Secret(TOKEN % number + "x" * (number * 40))
            entries.append(Entry(index.host, "aws", token))
            credential = Credential("aws", token, NOW, NOW + timedelta(hours=1))
            records.append(state.record(index.request, credential, NOW, (index.host,)))
        order = Order(Deliver(tuple(entries)), lambda: tuple(records), INDEXES, 0.5, str(self._config))
        sink = NetrcSink(str(self._netrc))
        sink.take_ownership()
        try:
            ended = _delivered(order, sink, Store(str(self._state)))
        finally:
            sink.release(remove=True)
        if ended.failure is not None:
            assert ended.failure.reason != "unexpected", ended.failure.message
            raise DeliveryFailed(ended.failure.reason, ended.failure.message)

    def _write_state(self) -> None:
        Store(str(self._state)).save(self._states[1])

    # --------------------------------------------------------------------------------------------------- the files

    @contextlib.contextmanager
    def _set_up(self) -> Iterator[None]:
        for name in ("home", "state", "beneath"):
            shutil.rmtree(self._directory / name, ignore_errors=True)
        self._home = self._directory / "home"
        self._home.mkdir(mode=0o700)
        self._state = self._directory / "state" / "uvtokend"
        self._state.mkdir(mode=0o700, parents=True)
        self._netrc = self._home / "netrc"
        self._real = self._home / "dotfiles" / "netrc" if self._place == "symlinked" else self._netrc
        self._config = self._directory / "config.toml"
        self._config.write_text(CONFIG.format(netrc=self._netrc))
        environment = {
            "HOME": str(self._home),
            "PATH": os.defpath,
            "XDG_STATE_HOME": str(self._directory / "state"),
            "UVTOKEND_CONFIG": str(self._config),
            "UVTOKEND_SOCKET": str(self._directory / "none.sock"),
            "UV_CREDENTIALS_DIR": str(self._home / "credentials"),
        }
        with mock.patch.dict(os.environ, environment, clear=True), contextlib.ExitStack() as stack:
            self._make_netrc(stack)
            before = Store(str(self._state)).load()
            new = [Entry(OURS, "aws", Secret("new"))]
            news = state.began(before, str(self._real), new, (), str(self._config), created=False)
            self._states = (before, state.joined(before, news))
            try:
                yield
            finally:
                if self._held is not None:
                    os.close(self._held)

    def _make_netrc(self, stack: contextlib.ExitStack) -> None:
        self._real.parent.mkdir(mode=0o700, exist_ok=True)
        if self._place == "symlinked":
            self._netrc.symlink_to("dotfiles/netrc")
        if self._place != "missing":
            self._real.write_bytes(FOREIGN)
            self._real.chmod(0o600)
        if self._place == "mounted":
            beneath = self._directory / "beneath"
            shutil.copy(self._real, beneath)
            world.mount("--bind", str(beneath), str(self._real))
            stack.callback(subprocess.run, ["umount", "--lazy", str(self._real)], check=True, capture_output=True)
        if self._place == "hard-linked":
            os.link(self._real, self._home / "second")
        if self._place != "first" and (self._place != "missing" or self._work == "purge"):
            self._deliver(0)
        if self._place == "held":
            self._held = os.open(self._real, os.O_WRONLY | os.O_APPEND)

    def _read(self) -> bytes:
        with contextlib.suppress(FileNotFoundError):
            return self._real.read_bytes()
        return b""

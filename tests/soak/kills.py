"""The kills part: kill a process that delivers at a random moment, and check what it left behind.

Directly after the kill the file must be complete, with the text from before or after a delivery; if a rival edits it
as well, it is checked for the entries that it must contain. Then another delivery is made, after which there must be
no other file beside it, and all foreign text must be in its place.
"""

from __future__ import annotations

import contextlib
import netrc as oracle
import os
import random
import select
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import tomllib
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from soak import victim, world
from soak.result import Result
from uvtokend.core.netrc.merge import mixture
from uvtokend.sandbox.machine import find_uv

#: How many kills there are at a scale of 1.
KILLS = 1000
#: The share of kills during a delivery into uv's own store, and the share of the others with a rival.
STORE, RIVAL = 0.1, 0.2
#: Seconds after which a process that has not ended is a broken law.
PATIENCE = 60.0

BEGIN, END, BOM = b"#uvtokend:begin\n", b"#uvtokend:end\n", b"\xef\xbb\xbf"
LINES = (
    b"machine x.example login me password mine\n",
    b"machine y.example\n\tlogin you\n\tpassword yours\n",
    b'machine q.example login "a b" password "c\\"d"\n',
    b"machine z.example login z password z # of old\n",
    b"macdef init\ncd /tmp\nls\n\n",
    b"#note\n",
    b"# two words\n",
    b"\n",
)
COMMENTED = b"# mine\n[[credential]] # first\nservice = 'https://f.example'\nusername = 'f'\npassword = 'theirs'\n"

Say = Callable[[str], None]


def run(seed: int, scale: float, say: Say) -> Result:
    """Kill deliveries, and check each time what is left.

    Args:
        seed: The seed of the random numbers.
        scale: The share of `KILLS`.
        say: Called with each broken law, and with the progress.
    """
    kills = max(1, round(KILLS * scale))
    dice = random.Random(seed)
    counts: Counter[str] = Counter()
    broken: list[str] = []
    for number in range(kills):
        with tempfile.TemporaryDirectory(prefix="uvtokend-kills-") as name:
            scene = _draw(number, Path(name), dice)
            with scene.set_up():
                scene.play()
            counts += scene.counts
            for law in scene.broken:
                broken.append(f"kill {number} ({scene.what}): {law}")
                say(broken[-1])
        if (number + 1) % 100 == 0:
            say(f"{number + 1} kills")
    figures: dict[str, int | float | str] = {
        "kills": kills,
        "... of a delivery into a netrc": counts["netrc"],
        "... into one that a rival also edits": counts["rival"],
        "... into a symlinked one": counts["symlinked"],
        "... into a single-file mount": counts["mounted"] if world.may_mount() else "0 (may not mount here)",
        "... into uv's store, by us": counts["directly"],
        "... into uv's store, by uv auth login": counts["by uv"],
        "deliveries before the kills": counts["deliveries"],
        "edits of rivals": counts["edits"],
        "reads of the file meanwhile": counts["looks"],
        "kills that left a file beside it": counts["leftovers"],
        "kills after the exchange": counts["late"],
        "kills during a write in place, repaired by the next delivery": counts["torn"],
        "netrc files that Python's netrc could read before": counts["readable"],
        "... and after the kill": counts["parsed"],
    }
    return Result("kills", figures, tuple(broken))


class _Scene(ABC):
    """One kill.

    Args:
        directory: An empty directory.
        dice: The random numbers.
        kind: ``netrc`` or ``store``.
        file: The file that the victim writes.
        what: Its description in messages.
    """

    def __init__(self, directory: Path, dice: random.Random, kind: str, file: Path, what: str) -> None:
        self.dice = dice
        self.kind = kind
        self.file = file
        self.what = what
        self.state = directory / "state"
        self.state.mkdir()
        self.path = os.defpath
        self.counts: Counter[str] = Counter()
        self.broken: list[str] = []
        self.typical = 0.0

    @abstractmethod
    def set_up(self) -> contextlib.AbstractContextManager[object]:
        """Make the files that the victim delivers into, and remove them in the end."""

    def watch(self, seconds: float) -> None:
        """Wait while the victim delivers."""
        time.sleep(seconds)

    @abstractmethod
    def judge(self, done: int) -> None:
        """Check what a victim left that reported this many deliveries."""

    @abstractmethod
    def judge_next(self, number: int) -> None:
        """Check the result of the next delivery."""

    def play(self) -> None:
        done = self._kill()
        self.counts["deliveries"] += done
        self.judge(done)
        number = victim.MOST - 1
        try:
            self.deliver(number)
        except Exception as error:  # noqa: BLE001 - any exception is a finding
            self.break_law(f"the next delivery fails: {error!r}")
        else:
            self.judge_next(number)

    def deliver(self, number: int) -> None:
        before = time.monotonic()
        victim.deliver(self.kind, str(self.file), str(self.state), number)
        self.typical = time.monotonic() - before

    def break_law(self, law: str) -> None:
        self.broken.append(law)

    def _kill(self) -> int:
        words = [sys.executable, "-P", victim.__file__, self.kind, str(self.file), str(self.state)]
        environment = {"HOME": str(self.state), "PATH": self.path}
        with subprocess.Popen(words, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            try:
                ready, _, _ = select.select([process.stdout], [], [], PATIENCE)
                if not ready:
                    self.break_law("the victim did not begin")
                # long enough for several deliveries, so that each moment of a delivery is equally likely
                self.watch(self.dice.uniform(0, max(0.008, 2.5 * self.typical)))
                if process.poll() is not None:
                    self.break_law("the victim ended by itself")
            finally:
                process.kill()
            said = process.stdout.read().split()
        return int(said[-1]) if said else 0


class _Netrc(_Scene):
    def __init__(self, directory: Path, dice: random.Random, shape: str, rival: bool, place: str) -> None:
        home = directory / "home"
        home.mkdir(mode=0o700)
        super().__init__(directory, dice, "netrc", home / ".netrc", " ".join(filter(None, [shape, place])))
        self.target = place
        self.real = home / "dotfiles" / "netrc" if place == "symlinked" else self.file
        self.foreign = _text(shape, dice)
        self.missing = shape == "missing"
        self.rival = _Rival(self.real, dice.randrange(2**32)) if rival else None
        self.counts["netrc"] = 1
        self.counts[place] += 1
        self.counts["rival"] = int(rival)

    @contextlib.contextmanager
    def set_up(self) -> Iterator[None]:
        self.real.parent.mkdir(mode=0o700, exist_ok=True)
        if self.target == "symlinked":
            self.file.symlink_to("dotfiles/netrc")
        self._write_foreign()
        self.readable = self.missing or _read_by_python(self.real) is not None
        if self.target == "mounted":
            beneath = self.state / "netrc"
            shutil.copy(self.real, beneath)
            world.mount("--bind", str(beneath), str(self.real))
        try:
            self.deliver(0)  # also measures how long a delivery takes
            self.begun = self.dice.random() < 0.8
            if not self.begun:
                self._write_foreign()
            yield
        finally:
            if self.target == "mounted":
                subprocess.run(["umount", "--lazy", str(self.real)], check=True, capture_output=True)

    def _write_foreign(self) -> None:
        if self.missing:
            self.real.unlink(missing_ok=True)
        else:
            self.real.write_bytes(self.foreign)
            self.real.chmod(0o600)

    def _read(self) -> bytes:
        with contextlib.suppress(FileNotFoundError):
            return self.real.read_bytes()
        return b""

    def text(self, number: int) -> bytes:
        if number == 0 and not self.begun:
            return self.foreign
        bom = BOM if self.foreign.startswith(BOM) else b""
        return bom + _block(number) + self.foreign[len(bom) :]

    def watch(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        with self.rival or contextlib.nullcontext():
            if self.rival or self.target == "mounted" or self.dice.random() < 0.5:
                time.sleep(seconds)
            else:
                while time.monotonic() < until:
                    self._look()

    def _look(self) -> None:
        content = self._read()
        self.counts["looks"] += 1
        number = _number(content)
        if content != self.text(number or 0):
            self.break_law(f"a reader saw {content[:300]!r} of {len(content)} bytes")

    def judge(self, done: int) -> None:
        content = self._read()
        beside = self.real.with_name(f".{self.real.name}.uvtokend")
        self.counts["leftovers"] += beside.exists()
        if self._torn(content, done):
            self.counts["torn"] += 1
            return
        self.counts["readable"] += self.readable
        hosts = {} if self.missing and not content else _read_by_python(self.real)
        if hosts is not None:
            self.counts["parsed"] += self.readable
            ours = {victim.HOSTS.index(host): hosts[host] for host in victim.HOSTS if host in hosts}
            if len({*ours.values()}) > 1:
                self.break_law("one entry is old and one is new")
        elif self.readable:
            self.break_law(f"Python's netrc cannot read {content[:300]!r}")
        if self.rival is None:
            self.counts["late"] += content == self.text(done + 1)
            if content not in {self.text(done), self.text(done + 1)}:
                self.break_law(f"after {done} deliveries the netrc has {len(content)} bytes: {content[:300]!r}")

    def _torn(self, content: bytes, done: int) -> bool:
        """Return whether a mounted file, which cannot be replaced, is a mixture with both complete texts beside it.

        A write in place cannot be better than that; the next delivery must repair the file.
        """
        texts = (self.text(done), self.text(done + 1))
        if self.target != "mounted" or content in texts or not mixture(content, *texts):
            return False
        beside = self.real.with_name(f".{self.real.name}.uvtokend")
        return {beside.read_bytes(), beside.with_name(f"{beside.name}.old").read_bytes()} == {*texts}

    def judge_next(self, number: int) -> None:
        content = self._read()
        if self.rival is None:
            if content != self.text(number):
                self.break_law(f"the next delivery makes {content[:300]!r} of {len(content)} bytes")
        else:
            self.counts["edits"] += len(self.rival.lines)
            lines = content.removeprefix(_block(number)).splitlines(keepends=True)
            lost = Counter(self.foreign.splitlines(keepends=True)) + Counter(self.rival.lines) - Counter(lines)
            added = Counter(lines) - Counter(self.foreign.splitlines(keepends=True)) - Counter(self.rival.lines)
            if lost or added or not content.startswith(_block(number)):
                self.break_law(f"beside a rival, lost {[*lost]}, added {[*added]}")
        if self.real.stat().st_mode & 0o777 != 0o600:
            self.break_law("the netrc is open to other users, or executable")
        names = sorted(os.listdir(self.real.parent))
        if names != sorted([self.real.name]):
            self.break_law(f"litter: {names}")
        if self.target == "symlinked" and not self.file.is_symlink():
            self.break_law("the symlink is gone")


class _Store(_Scene):
    def __init__(self, directory: Path, dice: random.Random, by_uv: bool) -> None:
        home = directory / "credentials"
        home.mkdir(mode=0o700)
        super().__init__(directory, dice, "store", home / "credentials.toml", f"uv's store {'by uv' if by_uv else ''}")
        self.by_uv = by_uv
        self.counts["by uv" if by_uv else "directly"] = 1

    @contextlib.contextmanager
    def set_up(self) -> Iterator[None]:
        # A store as uv writes it, or one with comments, which uv would drop, so that we edit it ourselves.
        plain = COMMENTED.replace(b"# mine\n", b"").replace(b" # first", b"").replace(b"'", b'"')
        self.file.write_bytes(plain if self.by_uv else COMMENTED)
        self.file.chmod(0o600)
        self.deliver(0)
        yield

    def judge(self, done: int) -> None:
        _until_ended(self.state)
        text = self.file.read_bytes()
        self.counts["leftovers"] += self.file.with_name("credentials.toml.new").exists()
        for host in victim.HOSTS:
            secret = self._secret(host)
            if secret not in {victim.entries(number)[0].password.reveal() for number in (done, done + 1)}:
                self.break_law(f"after {done} deliveries uv's store has {secret!r} for {host}: {text!r}")
        self._judge_foreign()

    def judge_next(self, number: int) -> None:
        wanted = victim.entries(number)[0].password.reveal()
        if [self._secret(host) for host in victim.HOSTS] != [wanted, wanted]:
            self.break_law(f"the next delivery makes {self.file.read_bytes()!r}")
        self._judge_foreign()
        litter = {*os.listdir(self.file.parent)} - {f"credentials.toml{end}" for end in ("", ".lock", ".uvtokend")}
        if litter - {".lock", ".gitignore"}:
            self.break_law(f"litter: {litter}")
        asked = subprocess.run(
            [find_uv(), "auth", "token", f"https://{victim.HOSTS[0]}/soak", "--username", victim.LOGIN, "--no-config"],
            env={"HOME": str(self.state), "PATH": os.defpath, "UV_CREDENTIALS_DIR": str(self.file.parent)},
            capture_output=True,
            text=True,
            check=False,
        )
        if asked.stdout.strip() != wanted:
            self.break_law(f"uv itself reads {asked.stdout!r}, {asked.stderr!r}")

    def _secret(self, host: str) -> str | None:
        records = tomllib.loads(self.file.read_text())["credential"]
        mine = [record["password"] for record in records if record["service"] == f"https://{host}/soak"]
        return mine[0] if len(mine) == 1 else None

    def _judge_foreign(self) -> None:
        if not self.by_uv and not self.file.read_bytes().startswith(COMMENTED):
            self.break_law(f"foreign text is lost: {self.file.read_bytes()!r}")
        records = tomllib.loads(self.file.read_text())["credential"]
        if not any(record["username"] == "f" and record["password"] == "theirs" for record in records):
            self.break_law(f"a foreign record is lost: {records}")


class _Rival:
    """A context manager that adds numbered lines to the netrc, in each of the ways in which programs do."""

    def __init__(self, path: Path, seed: int) -> None:
        self.lines: list[bytes] = []
        self._path = path
        self._dice = random.Random(seed)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._edit)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _edit(self) -> None:
        while not self._stop.is_set():
            line = b"machine r%d.example login rival password mine\n" % len(self.lines)
            self._dice.choice([self._append, self._rename, self._in_place])(line)
            self.lines.append(line)
            self._stop.wait(self._dice.uniform(0, 0.01))

    def _append(self, line: bytes) -> None:
        with self._path.open("ab", buffering=0) as file:
            file.write(line)

    def _rename(self, line: bytes) -> None:
        beside = self._path.with_name(".netrc.rival")
        beside.write_bytes(self._path.read_bytes() + line)
        beside.chmod(0o600)
        beside.replace(self._path)

    def _in_place(self, line: bytes) -> None:
        text = self._path.read_bytes() + line
        with self._path.open("wb", buffering=0) as file:
            file.write(text)


def _draw(number: int, directory: Path, dice: random.Random) -> _Scene:
    if dice.random() < STORE:
        return _Store(directory, dice, by_uv=number % 2 == 0)
    if dice.random() < RIVAL:
        return _Netrc(directory, dice, "plain", rival=True, place="")
    shapes = ["plain", "plain", "carriage returns", "no last line end", "undecodable", "byte order mark", "empty"]
    shape = "megabyte" if dice.random() < 0.02 else dice.choice([*shapes, "soup"])
    if dice.random() < 0.1:
        return _Netrc(directory, dice, "missing", rival=False, place=dice.choice(["", "symlinked"]))
    place = dice.choice(["", "", "", "symlinked", "mounted" if world.may_mount() else ""])
    return _Netrc(directory, dice, shape, rival=False, place=place)


def _text(shape: str, dice: random.Random) -> bytes:
    lines = LINES if dice.random() < 0.3 else LINES[:-2]  # no reader understands the last two together
    text = b"".join(dice.choices(lines, k=dice.randint(0, 30)))
    match shape:
        case "plain":
            return b"".join(
                line for line in dice.choices(LINES, k=12) if not line.startswith((b"# ", b"\n", b"macdef"))
            )
        case "carriage returns":
            return text.replace(b"\n", b"\r\n")
        case "no last line end":
            return text.rstrip(b"\n")
        case "undecodable":
            return text + b"machine u.example login \xff\xfe password \x80\n" + dice.randbytes(100).replace(b"#", b"")
        case "byte order mark":
            return BOM + text
        case "empty" | "missing":
            return b""
        case "megabyte":
            return b"".join(b"machine host%d.example login me password mine\n" % number for number in range(22_000))
    return text


def _block(number: int) -> bytes:
    lines = (
        f"machine {each.host} login {each.login} password {each.password.reveal()}\n" for each in victim.entries(number)
    )
    return b"".join([BEGIN, *(line.encode() for line in lines), END])


def _number(text: bytes) -> int | None:
    """Return the number of the delivery that wrote our block."""
    _, separator, rest = text.partition(b" password t")
    return int(rest.partition(b".")[0]) if separator and BEGIN in text else None


def _read_by_python(path: Path) -> Mapping[str, tuple[str, str | None, str]] | None:
    try:
        return oracle.netrc(str(path)).hosts
    except (oracle.NetrcParseError, UnicodeDecodeError):
        return None


def _until_ended(home: Path) -> None:
    """Wait until no child process of a victim runs: a uv may continue, and a forked child may hold a lock."""
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        for name in filter(str.isdigit, os.listdir("/proc")):
            with contextlib.suppress(OSError):
                if f"HOME={home}\0".encode() in Path("/proc", name, "environ").read_bytes():
                    time.sleep(0.005)
                    break
        else:
            return

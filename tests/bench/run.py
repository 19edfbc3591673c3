"""The benchmark: what the daemon costs, and what it saves.

    python tests/bench/run.py [--quick]

Daemon, boto3, uv, and keyring with keyrings.codeartifact are real; the cloud and the index are loopback. What is
compared is measured in turns, so that a busy machine slows all sides down alike. It takes about three minutes, with
``--quick`` one.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import psutil

from uvtokend.sandbox.codeartifact import CodeArtifact
from uvtokend.sandbox.index import PACKAGES, PackageIndex
from uvtokend.sandbox.machine import AwsMachine, find_uv
from uvtokend.sandbox.web import Call

#: A host that the keyring plug-in takes for CodeArtifact's; uv reaches it through the index, which serves as its proxy.
HOST = "acme-123456789012.d.codeartifact.eu-central-1.amazonaws.com"
STAMPED = "stamp.example"
BESIDE = Path(sys.executable).parent
MIB = 1 << 20

#: A provider that notes when it answers.
STAMP = """\
import os, secrets, time
from datetime import UTC, datetime, timedelta
from uvtokend.core.model import Credential, Secret

def fetch(request):
    now = datetime.now(UTC)
    credential = Credential("me", Secret(secrets.token_hex(600)), now, now + timedelta(hours=12))
    with open(os.environ["STAMP_FILE"], "w") as file:
        file.write(str(time.monotonic_ns()))
    return credential
"""


def main() -> int:
    """Measure everything and print it."""
    parser = argparse.ArgumentParser(description="What the daemon costs, and what it saves.")
    parser.add_argument("--quick", action="store_true", help="fewer rounds, and a shorter idle time")
    quick = parser.parse_args().quick
    with tempfile.TemporaryDirectory(prefix="uvtokend-bench-") as name, running(Path(name)) as laptop:
        status(laptop, 25 if quick else 101)
        delivery(laptop, 7 if quick else 25)
        idle(laptop, 31.0 if quick else 121.0)
        installs(laptop, 7 if quick else 25)
    return 0


@contextlib.contextmanager
def running(folder: Path) -> Iterator[AwsMachine]:
    """Run a daemon with two indexes: one of the loopback CodeArtifact, one of the provider above."""
    plugin = folder / "plugin"
    (plugin / "stamp-1.dist-info").mkdir(parents=True)
    (plugin / "stamp-1.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: stamp\nVersion: 1\n")
    (plugin / "stamp-1.dist-info" / "entry_points.txt").write_text("[uvtokend.providers]\nstamp = stamp:fetch\n")
    (plugin / "stamp.py").write_text(STAMP)
    (folder / "laptop").mkdir()
    with CodeArtifact() as cloud:
        laptop = AwsMachine(folder / "laptop", cloud)
        laptop.environment |= {"PYTHONPATH": str(plugin), "STAMP_FILE": str(folder / "stamp")}
        laptop.configure(acme=f"https://{HOST}/pypi/production/simple/")
        with laptop.config.open("a") as file:
            file.write(f'[[index]]\nname = "stamp"\nurl = "https://{STAMPED}/"\nprovider = "stamp"\noptions = {{}}\n')
        laptop.start()
        try:
            until(lambda: all(f"machine {host} " in text(laptop.netrc) for host in (HOST, STAMPED)))
            yield laptop
        finally:
            laptop.stop()


def text(path: Path) -> str:
    """Return what stands in a file, if it is there."""
    return path.read_text() if path.exists() else ""


def until(condition: Callable[[], bool]) -> None:
    """Wait for a condition with a look at it as often as this machine can."""
    end = time.monotonic() + 60
    while not condition():
        if time.monotonic() > end:
            message = "The daemon did not do what the benchmark waits for."
            raise SystemExit(message)
        time.sleep(0.0002)


def turns(what: Mapping[str, Callable[[], None]], rounds: int) -> dict[str, list[float]]:
    """Do everything in turns, in another order each time, and return the seconds of each."""
    seconds: dict[str, list[float]] = {name: [] for name in what}
    names = list(what)
    for _ in range(rounds):
        for name in names:
            began = time.perf_counter()
            what[name]()
            seconds[name].append(time.perf_counter() - began)
        names.append(names.pop(0))
    return seconds


def show(what: str, value: str, aim: str = "") -> None:
    """Print one result."""
    print(f"{what:58} {value:>24}   {f'(to aim for: {aim})' if aim else ''}".rstrip(), flush=True)


def milliseconds(seconds: list[float]) -> str:
    """Return the median, and what 9 of 10 stay below."""
    ninth = statistics.quantiles(seconds, n=10, method="inclusive")[-1]
    return f"{statistics.median(seconds) * 1e3:.1f} ms (p90 {ninth * 1e3:.1f})"


def quietly(laptop: AwsMachine, *command: str) -> None:
    """Run a command that must succeed and say nothing to us."""
    done = subprocess.run(
        command, env=laptop.environment, stdin=subprocess.DEVNULL, capture_output=True, check=False, text=True
    )
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(command)}\n{done.stdout}{done.stderr}")


# ------------------------------------------------------------------------------------------------ what is measured


def status(laptop: AwsMachine, rounds: int) -> None:
    """The time of ``uvtokend status`` against the least that this Python takes."""
    floor = [sys.executable, "-I", "-c", "pass"]
    ours = [str(BESIDE / "uvtokend"), "status"]
    seconds = turns({"floor": lambda: quietly(laptop, *floor), "status": lambda: quietly(laptop, *ours)}, rounds)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    show("python -I -c pass", milliseconds(seconds["floor"]))
    show("uvtokend status", milliseconds(seconds["status"]))
    show("uvtokend status, as a ratio", f"{medians['status'] / medians['floor']:.2f} x", "3 x")


def delivery(laptop: AwsMachine, rounds: int) -> None:
    """The time from an answer to the entry in the netrc, seen by watching the file."""
    answered: list[float] = []

    def note(_: Call) -> None:
        answered.append(time.monotonic())

    def refreshed(name: str) -> float:
        before = laptop.netrc.stat().st_ino
        command = threading.Thread(target=quietly, args=(laptop, str(BESIDE / "uvtokend"), "refresh", name))
        command.start()
        until(lambda: laptop.netrc.stat().st_ino != before)
        seen = time.monotonic()
        command.join()
        return seen

    worker, token, last = [], [], []
    stamp = Path(laptop.environment["STAMP_FILE"])
    laptop.cloud.fault = note
    for _ in range(rounds):
        seen = refreshed("stamp")
        worker.append(seen - int(stamp.read_text()) / 1e9)
        answered.clear()
        seen = refreshed("acme")
        token.append(seen - answered[0])
        last.append(seen - answered[-1])
    laptop.cloud.fault = None
    show("from the provider's answer to the entry", milliseconds(worker), "20 ms")
    show("from CodeArtifact's answer, with boto3 asking who we are", milliseconds(token))
    show("from the cloud's last answer", milliseconds(last))


def idle(laptop: AwsMachine, seconds: float) -> None:
    """What a daemon with nothing to do weighs, and how often it wakes up."""
    assert laptop.daemon is not None
    daemon = psutil.Process(laptop.daemon.pid)
    time.sleep(1)
    before, began = switches(daemon), time.monotonic()
    time.sleep(seconds)
    after, took = switches(daemon), time.monotonic() - began
    memory = daemon.memory_full_info()
    show("idle: RSS", f"{memory.rss / MIB:.1f} MiB", "30 MiB")
    show("idle: USS", f"{memory.uss / MIB:.1f} MiB")
    show(f"idle: wake-ups per minute (seen for {took:.0f} s)", f"{(after - before) / took * 60:.1f}")


def switches(process: psutil.Process) -> int:
    """Return how often the threads of a process have gone to sleep by themselves, and so have woken up."""
    if sys.platform == "linux":
        found = 0
        for file in Path(f"/proc/{process.pid}/task").glob("*/status"):
            lines = dict(line.split(":", 1) for line in file.read_text().splitlines())
            found += int(lines["voluntary_ctxt_switches"])
    else:
        found = process.num_ctx_switches().voluntary
    return found


def installs(laptop: AwsMachine, rounds: int) -> None:
    """The same install through the daemon's netrc, through a keyring plug-in, and without any authentication."""
    cloud = laptop.cloud
    with (
        PackageIndex(lambda _login, _token: True) as public,
        PackageIndex(lambda login, token: login == "aws" and cloud.valid(token)) as private,
    ):
        nobody = {"NETRC": os.devnull}
        plugin = {
            **nobody,
            **cloud.environment(),
            "AWS_ACCESS_KEY_ID": "AKIAEXAMPLE",
            "AWS_SECRET_ACCESS_KEY": "example",
            "PYTHON_KEYRING_BACKEND": "keyrings.codeartifact.CodeArtifactBackend",
            "UV_KEYRING_PROVIDER": "subprocess",
        }
        sides = {
            "an open index, no authentication": installer(laptop, "open", public, nobody),
            "our netrc": installer(laptop, "netrc", private, {}, 'authenticate = "always"'),
            "our netrc, without authenticate": installer(laptop, "auto", private, {}),
            "keyring + keyrings.codeartifact": installer(laptop, "keyring", private, plugin, 'authenticate = "always"'),
        }
        for side in sides.values():
            side()  # whatever has to be loaded from disk is loaded now
        seconds = turns(sides, rounds)
    best = statistics.median(seconds["an open index, no authentication"])
    print(f"\nuv pip install of {len(PACKAGES)} packages, nothing cached, {rounds} rounds in turns:")
    for name, values in seconds.items():
        ratio = f"{(statistics.median(values) / best - 1) * 100:+.0f} %"
        show(f"  {name}", f"{milliseconds(values)}  {ratio:>7}", "+5 %" if name == "our netrc" else "")


def installer(
    laptop: AwsMachine, name: str, index: PackageIndex, env: Mapping[str, str], option: str = ""
) -> Callable[[], None]:
    """Return a function that installs once."""
    file = laptop.directory / f"{name}.toml"
    file.write_text(f'[[index]]\nurl = "http://{HOST}/pypi/production/simple/"\ndefault = true\n{option}\n')
    proxied = {"HTTP_PROXY": index.server.url, "NO_PROXY": "127.0.0.1", "UV_CONFIG_FILE": str(file), **env}

    def install() -> None:
        with tempfile.TemporaryDirectory(dir=laptop.directory) as target:
            done = laptop.install(Path(target), *PACKAGES, env=proxied)
        if done.returncode != 0:
            raise SystemExit(f"{name}: {done.stderr}")

    return install


if __name__ == "__main__":
    find_uv()
    print(f"Python {sys.version.split()[0]}, {os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f}; medians\n")
    sys.exit(main())

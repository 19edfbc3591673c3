"""The faults: each is one function that does harm for a while and takes it back, whatever happens meanwhile."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from soak.rivals import Rival
from soak.schedule import Fault
from soak.verdict import PROMISE, Hinders
from soak.world import FAKETIME, World, may_mount, read_only
from uvtokend.disk import exchange
from uvtokend.sandbox.codeartifact import error, jwe
from uvtokend.sandbox.web import Answer, Call

HTML = b"<!DOCTYPE html><html><body>Please log in to the hotel's network.</body></html>"
DAY = 86400.0


class PromiseBroken(Exception):
    """A fault saw itself that a promise was broken, and says which."""


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of fault.

    Args:
        do: Does it; returns when it is over.
        hinders: What it keeps the daemon from.
        missing: Says why it cannot be done here, or None.
        calm: The rivals must rest meanwhile, or would lose their own text.
    """

    do: Callable[[World, Rival, Fault], None]
    hinders: Hinders
    missing: Callable[[], str | None] = lambda: None
    calm: bool = False


# -------------------------------------------------------------------------------------------------------- the cloud


def cloud_down(world: World, _: Rival, fault: Fault) -> None:
    """Connections are refused."""
    world.cloud.server.down()
    try:
        time.sleep(fault.seconds)
    finally:
        world.cloud.server.up()


def cloud_slow(world: World, _: Rival, fault: Fault) -> None:
    """Each answer takes up to a life of a token; when the fault is over, all that were held back go out."""
    released = threading.Event()

    def hold(_: Call) -> None:
        released.wait(fault.dice * world.life)

    with _answering(world, hold):
        time.sleep(fault.seconds)
    released.set()


def throttled(world: World, _: Rival, fault: Fault) -> None:
    """429 with a Retry-After of up to 15 s."""
    refusal = error(429, "ThrottlingException", "Rate exceeded", Retry_After=str(int(1 + fault.dice * 15)))
    with _answering(world, lambda _: refusal):
        time.sleep(fault.seconds)


def server_error(world: World, _: Rival, fault: Fault) -> None:
    """500 or 503."""
    code = 500 if fault.dice < 0.5 else 503
    with _answering(world, lambda _: error(code, "InternalServerException", "Try again later.")):
        time.sleep(fault.seconds)


def garbage(world: World, _: Rival, fault: Fault) -> None:
    """A captive portal's page, half a JSON object, noise, or an object of another kind."""
    bodies = (HTML, b'{"authorizationToken": "eyJ', os.urandom(2000), b"[]", b'{"expiration": "tomorrow"}', b"")
    kind = {"Content-Type": "text/html" if fault.dice < 0.2 else "application/json"}
    answer = Answer(200, bodies[int(fault.dice * len(bodies))], kind)
    with _answering(world, lambda _: answer):
        time.sleep(fault.seconds)


def dead_on_arrival(world: World, _: Rival, fault: Fault) -> None:
    """Tokens whose end is in the past."""

    def answer(_: Call) -> Answer:
        end = time.time() - 3600
        return Answer.json({"authorizationToken": jwe(end - world.life, end), "expiration": end})

    with _answering(world, answer):
        time.sleep(fault.seconds)


@contextlib.contextmanager
def _answering(world: World, answer: Callable[[Call], Answer | None]) -> Iterator[None]:
    world.cloud.fault = answer
    try:
        yield
    finally:
        world.cloud.fault = None


# ------------------------------------------------------------------------------------------------------- the daemon


def killed(world: World, _: Rival, fault: Fault) -> None:
    """SIGKILL, and a new start at once or after a while."""
    world.kill()
    try:
        time.sleep(0 if fault.dice < 0.3 else fault.seconds)
    finally:
        world.start()


def stopped(world: World, _: Rival, fault: Fault) -> None:
    """SIGSTOP for longer than a token's life, and SIGCONT."""
    world.signal(signal.SIGSTOP)
    try:
        time.sleep(world.life + fault.seconds)
    finally:
        world.signal(signal.SIGCONT)


def clock_set(world: World, _: Rival, fault: Fault) -> None:
    """The wall clock is set, by minutes to days, forward or back; in the end it is set right."""
    world.set_clock(_step(fault.dice))
    try:
        time.sleep(fault.seconds)
    finally:
        world.set_clock(0)


def killed_and_clock_set(world: World, _: Rival, fault: Fault) -> None:
    """The wall clock is set between SIGKILL and a new start, and set right while the new daemon runs."""
    world.kill()
    world.set_clock(_step(fault.dice))
    try:
        world.start()
        time.sleep(fault.seconds)
    finally:
        world.set_clock(0)


def _step(dice: float) -> float:
    size: float = 120 * (2 * DAY / 120) ** (dice * 2 % 1)
    return size if dice < 0.5 else -size


def paused(world: World, _: Rival, fault: Fault) -> None:
    """The machine was paused from outside for minutes to days: its own clocks stood still, and all tokens expired."""
    world.expire()
    world.set_clock(abs(_step(fault.dice)))
    try:
        time.sleep(fault.seconds)
    finally:
        world.set_clock(0)


def runtime_directory_removed(world: World, _: Rival, fault: Fault) -> None:
    """The directory of the control socket goes, and comes back empty or not at all, as at a last logout.

    Raises:
        PromiseBroken: Nobody reaches the daemon any more.
    """
    folder = world.laptop.directory / "run"
    shutil.rmtree(folder)
    if fault.dice < 0.5:
        folder.mkdir(mode=0o700)
    end = time.monotonic() + PROMISE
    while world.laptop.uvtokend("status").returncode == 3:
        if time.monotonic() > end:
            raise PromiseBroken(f"nobody reached the daemon within {PROMISE:g} s after its directory was removed")


def hung_providers(world: World, _: Rival, fault: Fault) -> None:
    """More indexes than there are workers, whose providers hang."""
    before = world.laptop.config.read_text()
    hung = [
        f'[[index]]\nname = "hung{number}"\nurl = "https://hung{number}.example/simple/"\nprovider = "command"\n'
        'command = ["sleep", "600"]\n'
        for number in range(3)
    ]
    world.laptop.write("[daemon]\nmax-workers = 2\n", before, *hung)
    world.signal(signal.SIGHUP)
    try:
        time.sleep(fault.seconds)
    finally:
        world.laptop.write(before)
        world.signal(signal.SIGHUP)


# -------------------------------------------------------------------------------------------------------- the netrc


def disk_hung(world: World, _: Rival, fault: Fault) -> None:
    """fsync does not return, as on a network file system whose server is gone."""
    world.sign.touch()
    try:
        time.sleep(fault.seconds)
    finally:
        world.sign.unlink()


def adopted(world: World, _: Rival, fault: Fault) -> None:
    """Somebody writes entries for our host, and adopts each, while tokens are delivered as fast as that can be.

    Raises:
        PromiseBroken: An entry stands neither in the netrc nor in a backup; or none of ours is in the end.
    """
    end, stop = time.monotonic() + fault.seconds, threading.Event()

    def refresh() -> None:
        while not stop.is_set():
            world.laptop.uvtokend("refresh")

    refreshing = threading.Thread(target=refresh)
    refreshing.start()
    secrets = []
    try:
        while time.monotonic() < end:
            secrets.append(f"mine-{time.time_ns()}")
            _append(world, f"machine 127.0.0.1 login me password {secrets[-1]}\n".encode())
            world.laptop.uvtokend("adopt", "soak")
    finally:
        stop.set()
        refreshing.join()
    end = time.monotonic() + PROMISE
    while (token := world.standing(world.read())) is None or token.end < time.time():
        if world.laptop.uvtokend("adopt", "soak").returncode and time.monotonic() > end:
            raise PromiseBroken(f"no entry of ours stood within {PROMISE:g} s after a foreign one was adopted")
    whole = b"\n".join([*world.read(), *_taken(world.laptop.state / "adopted")])
    if lost := [secret for secret in secrets if secret.encode() not in whole]:
        raise PromiseBroken(f"{len(lost)} of {len(secrets)} foreign entries are neither in the netrc nor in a backup")


def _taken(backups: Path) -> Iterator[bytes]:
    """Yield each piece of text that was ever adopted."""
    for file in backups.glob("*.json*"):
        backup = json.loads(json.loads(file.read_text())["backup"])
        yield from (base64.b64decode(segment["text"]) for segment in backup["segments"])


def _append(world: World, line: bytes) -> None:
    """Add a line to the netrc as a careful editor does: a new file, put in place only if nobody wrote the old one."""
    new = world.netrc.with_name(".netrc.editor")
    while True:
        before = world.netrc.read_bytes()
        new.write_bytes(before + (b"" if before.endswith(b"\n") or not before else b"\n") + line)
        new.chmod(0o600)
        exchange.swap(str(new), str(world.netrc))
        if new.read_bytes() == before:
            new.unlink()
            return
        exchange.swap(str(new), str(world.netrc))  # somebody wrote it meanwhile: theirs goes back


def rivals(world: World, rival: Rival, fault: Fault) -> None:
    """Other programs edit the netrc many times a second, while somebody calls ``uvtokend refresh`` all the time."""
    end = time.monotonic() + fault.seconds
    with rival.hurried():
        while time.monotonic() < end:
            world.laptop.uvtokend("refresh")


def disk_full(world: World, _: Rival, fault: Fault) -> None:
    """Not a byte is left on the disk of netrc and state."""
    filler = world.disk / "filler"
    end = time.monotonic() + fault.seconds
    try:
        with filler.open("ab", buffering=0) as file:
            while time.monotonic() < end:
                for size in (4096, 1):
                    with contextlib.suppress(OSError):
                        while True:
                            file.write(bytes(size))
                time.sleep(0.01)
    finally:
        filler.unlink()


def disk_read_only(world: World, _: Rival, fault: Fault) -> None:
    """The file system of the netrc is read-only."""
    with read_only(world.disk):
        time.sleep(fault.seconds)


def folder_open(world: World, _: Rival, fault: Fault) -> None:
    """Other users may write to the directory of the netrc, so that nothing may be put there."""
    world.disk.chmod(0o777)
    try:
        time.sleep(fault.seconds)
    finally:
        world.disk.chmod(0o700)


def folder_locked(world: World, _: Rival, fault: Fault) -> None:
    """The directory of the netrc may not be written by its owner."""
    world.disk.chmod(0o500)
    try:
        time.sleep(fault.seconds)
    finally:
        world.disk.chmod(0o700)


def _no_mounts() -> str | None:
    return None if may_mount() else "it needs Linux, root and a mount namespace of our own (run.py sees to it)"


def _no_faketime() -> str | None:
    return None if FAKETIME else "libfaketime is not installed: apt-get install faketime"


def _root() -> str | None:
    return "nothing is locked for root" if os.geteuid() == 0 else None


FAULTS: Mapping[str, Kind] = {
    "cloud down": Kind(cloud_down, "fetch"),
    "cloud slow": Kind(cloud_slow, "fetch"),
    "429": Kind(throttled, "fetch"),
    "500": Kind(server_error, "fetch"),
    "garbage": Kind(garbage, "fetch"),
    "dead on arrival": Kind(dead_on_arrival, "fetch"),
    "clock set": Kind(clock_set, "fetch", _no_faketime),
    "daemon killed": Kind(killed, "delivery"),
    "killed, clock set": Kind(killed_and_clock_set, "delivery", _no_faketime),
    "paused": Kind(paused, "fetch", _no_faketime),
    "runtime directory removed": Kind(runtime_directory_removed, "fetch"),
    "hung providers": Kind(hung_providers, "fetch"),
    "disk hung": Kind(disk_hung, "delivery"),
    "adopted": Kind(adopted, "reading", calm=True),
    "daemon stopped": Kind(stopped, "delivery"),
    "rivals": Kind(rivals, "fetch"),
    "disk full": Kind(disk_full, "delivery", _no_mounts, calm=True),
    "disk read-only": Kind(disk_read_only, "delivery", _no_mounts, calm=True),
    "folder open": Kind(folder_open, "delivery", calm=True),
    "folder locked": Kind(folder_locked, "delivery", _root, calm=True),
}

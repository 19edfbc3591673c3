"""The faults: each is one function that does harm for a while and takes it back, whatever happens meanwhile."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from soak.rivals import Rival
from soak.schedule import Fault
from soak.verdict import Hinders
from soak.world import FAKETIME, World, may_mount, read_only
from uvtokend.sandbox.codeartifact import error, jwe
from uvtokend.sandbox.web import Answer, Call

HTML = b"<!DOCTYPE html><html><body>Please log in to the hotel's network.</body></html>"
DAY = 86400.0


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
    """Tokens whose end lies in the past."""

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


# -------------------------------------------------------------------------------------------------------- the netrc


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
    "daemon stopped": Kind(stopped, "delivery"),
    "rivals": Kind(rivals, "fetch"),
    "disk full": Kind(disk_full, "delivery", _no_mounts, calm=True),
    "disk read-only": Kind(disk_read_only, "delivery", _no_mounts, calm=True),
    "folder open": Kind(folder_open, "delivery", calm=True),
    "folder locked": Kind(folder_locked, "delivery", _root, calm=True),
}

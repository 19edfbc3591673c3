"""The faults: each is a function that breaks something for a while and always repairs it."""

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
    """A fault itself has detected that a promise was broken."""


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of fault.

    Args:
        do: Causes the fault; returns when it is over.
        hinders: What the daemon cannot do in the meantime.
        missing: Returns why the fault is not possible on this machine, or None.
        calm: Whether the rivals must pause, because they would lose their own text.
    """

    do: Callable[[World, Rival, Fault], None]
    hinders: Hinders
    missing: Callable[[], str | None] = lambda: None
    calm: bool = False


# -------------------------------------------------------------------------------------------------------- the cloud


def cloud_down(world: World, _: Rival, fault: Fault) -> None:
    """Refuse connections to the cloud."""
    world.cloud.server.down()
    try:
        time.sleep(fault.seconds)
    finally:
        world.cloud.server.up()


def cloud_slow(world: World, _: Rival, fault: Fault) -> None:
    """Delay each response by up to a token's life; when the fault is over, send all delayed responses."""
    released = threading.Event()

    def hold(_: Call) -> None:
        released.wait(fault.dice * world.life)

    with _answering(world, hold):
        time.sleep(fault.seconds)
    released.set()


def throttled(world: World, _: Rival, fault: Fault) -> None:
    """Answer 429 with a Retry-After of up to 15 s."""
    refusal = error(429, "ThrottlingException", "Rate exceeded", Retry_After=str(int(1 + fault.dice * 15)))
    with _answering(world, lambda _: refusal):
        time.sleep(fault.seconds)


def server_error(world: World, _: Rival, fault: Fault) -> None:
    """Answer 500 or 503."""
    code = 500 if fault.dice < 0.5 else 503
    with _answering(world, lambda _: error(code, "InternalServerException", "Try again later.")):
        time.sleep(fault.seconds)


def garbage(world: World, _: Rival, fault: Fault) -> None:
    """Answer with a captive portal's page, half a JSON object, random bytes, or an unexpected object."""
    bodies = (HTML, b'{"authorizationToken": "eyJ', os.urandom(2000), b"[]", b'{"expiration": "tomorrow"}', b"")
    kind = {"Content-Type": "text/html" if fault.dice < 0.2 else "application/json"}
    answer = Answer(200, bodies[int(fault.dice * len(bodies))], kind)
    with _answering(world, lambda _: answer):
        time.sleep(fault.seconds)


def expired_on_arrival(world: World, _: Rival, fault: Fault) -> None:
    """Issue tokens that have already expired."""

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
    """Kill the daemon with SIGKILL, and start it again at once or after a while."""
    world.kill()
    try:
        time.sleep(0 if fault.dice < 0.3 else fault.seconds)
    finally:
        world.start()


def stopped(world: World, _: Rival, fault: Fault) -> None:
    """Suspend the daemon with SIGSTOP for longer than a token's life, then continue it."""
    world.signal(signal.SIGSTOP)
    try:
        time.sleep(world.life + fault.seconds)
    finally:
        world.signal(signal.SIGCONT)


def clock_set(world: World, _: Rival, fault: Fault) -> None:
    """Set the wall clock by minutes to days, forward or back, and finally set it right."""
    world.set_clock(_step(fault.dice))
    try:
        time.sleep(fault.seconds)
    finally:
        world.set_clock(0)


def killed_and_clock_set(world: World, _: Rival, fault: Fault) -> None:
    """Set the wall clock between SIGKILL and a new start, and set it right while the new daemon runs."""
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
    """Pause the machine from outside for minutes to days: its own clocks stop, and all tokens expire."""
    world.expire()
    world.set_clock(abs(_step(fault.dice)))
    try:
        time.sleep(fault.seconds)
    finally:
        world.set_clock(0)


def runtime_directory_removed(world: World, _: Rival, fault: Fault) -> None:
    """Remove the directory of the control socket, as at the last logout; half of the time, create it again, empty.

    Raises:
        PromiseBroken: The daemon can no longer be reached.
    """
    directory = world.laptop.directory / "run"
    shutil.rmtree(directory)
    if fault.dice < 0.5:
        directory.mkdir(mode=0o700)
    end = time.monotonic() + PROMISE
    while world.laptop.uvtokend("status").returncode == 3:
        if time.monotonic() > end:
            raise PromiseBroken(f"the daemon could not be reached within {PROMISE:g} s after its directory was removed")


def hung_providers(world: World, _: Rival, fault: Fault) -> None:
    """Configure more indexes with hanging providers than there are workers."""
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
    """Let fsync hang, as on a network file system whose server is gone."""
    world.sign.touch()
    try:
        time.sleep(fault.seconds)
    finally:
        world.sign.unlink()


def adopted(world: World, _: Rival, fault: Fault) -> None:
    """Write foreign entries for our host and adopt each of them, while tokens are delivered as fast as possible.

    Raises:
        PromiseBroken: A foreign entry is neither in the netrc nor in a backup, or no entry of ours is there in the end.
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
    while (token := world.delivered(world.read())) is None or token.end < time.time():
        if world.laptop.uvtokend("adopt", "soak").returncode and time.monotonic() > end:
            raise PromiseBroken(f"no entry of ours was delivered within {PROMISE:g} s after a foreign one was adopted")
    whole = b"\n".join([*world.read(), *_taken(world.laptop.state / "adopted")])
    if lost := [secret for secret in secrets if secret.encode() not in whole]:
        raise PromiseBroken(f"{len(lost)} of {len(secrets)} foreign entries are neither in the netrc nor in a backup")


def _taken(backups: Path) -> Iterator[bytes]:
    """Yield every text that was ever adopted."""
    for file in backups.glob("*.json*"):
        backup = json.loads(json.loads(file.read_text())["backup"])
        yield from (base64.b64decode(segment["text"]) for segment in backup["segments"])


def _append(world: World, line: bytes) -> None:
    """Add a line to the netrc as a careful editor does: exchange it for a new file,
    unless another program has changed it.
    """
    new = world.netrc.with_name(".netrc.editor")
    while True:
        before = world.netrc.read_bytes()
        ends = before.endswith(b"\n") or not before  # another line end would be an edit that `adopt` does not undo
        new.write_bytes(before + line if ends else line + before)
        new.chmod(0o600)
        exchange.swap(str(new), str(world.netrc))
        if new.read_bytes() == before:
            new.unlink()
            return
        exchange.swap(str(new), str(world.netrc))  # another program has changed it in the meantime: restore that


def rivals(world: World, rival: Rival, fault: Fault) -> None:
    """Edit the netrc many times a second, while another thread calls ``uvtokend refresh`` all the time."""
    end = time.monotonic() + fault.seconds
    with rival.hurried():
        while time.monotonic() < end:
            world.laptop.uvtokend("refresh")


def disk_full(world: World, _: Rival, fault: Fault) -> None:
    """Fill the disk of netrc and state to the last byte."""
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
    """Make the file system of the netrc read-only."""
    with read_only(world.disk):
        time.sleep(fault.seconds)


def directory_open(world: World, _: Rival, fault: Fault) -> None:
    """Let other users write to the directory of the netrc, so that the daemon must not deliver there."""
    world.disk.chmod(0o777)
    try:
        time.sleep(fault.seconds)
    finally:
        world.disk.chmod(0o700)


def directory_locked(world: World, _: Rival, fault: Fault) -> None:
    """Forbid the owner to write to the directory of the netrc."""
    world.disk.chmod(0o500)
    try:
        time.sleep(fault.seconds)
    finally:
        world.disk.chmod(0o700)


def _no_mounts() -> str | None:
    return None if may_mount() else "it needs Linux, root and its own mount namespace (run.py creates one)"


def _no_faketime() -> str | None:
    return None if FAKETIME else "libfaketime is not installed: apt-get install faketime"


def _root() -> str | None:
    return "root can write everywhere" if os.geteuid() == 0 else None


FAULTS: Mapping[str, Kind] = {
    "cloud down": Kind(cloud_down, "fetch"),
    "cloud slow": Kind(cloud_slow, "fetch"),
    "429": Kind(throttled, "fetch"),
    "500": Kind(server_error, "fetch"),
    "garbage": Kind(garbage, "fetch"),
    "expired on arrival": Kind(expired_on_arrival, "fetch"),
    "clock set": Kind(clock_set, "fetch", _no_faketime),
    "daemon killed": Kind(killed, "delivery"),
    "killed, clock set": Kind(killed_and_clock_set, "delivery", _no_faketime),
    "paused": Kind(paused, "expiry", _no_faketime),
    "runtime directory removed": Kind(runtime_directory_removed, "fetch"),
    "hung providers": Kind(hung_providers, "fetch"),
    "disk hung": Kind(disk_hung, "delivery"),
    "adopted": Kind(adopted, "reading", calm=True),
    "daemon stopped": Kind(stopped, "delivery"),
    "rivals": Kind(rivals, "fetch"),
    "disk full": Kind(disk_full, "delivery", _no_mounts, calm=True),
    "disk read-only": Kind(disk_read_only, "delivery", _no_mounts, calm=True),
    "directory open": Kind(directory_open, "delivery", calm=True),
    "directory locked": Kind(directory_locked, "delivery", _root, calm=True),
}

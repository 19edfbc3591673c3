"""Rows: one fetch from each cloud, five fetches after a sign-in, and the recovery when the network returns."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from bench.fleet import until_delivered, until_failed
from bench.processes import run
from bench.stage import Stage, quietly
from bench.table import Aim, Line, alone, compared, missing
from bench.three_clouds import ThreeClouds
from bench.turns import turns
from uvtokend.core import wire
from uvtokend.testing.contract import asked

WORKER = (sys.executable, "-P", "-m", "uvtokend.providers.worker")
#: The most seconds until all tokens are fetched.
_PATIENCE = 120.0


def cold(stage: Stage) -> list[Line]:
    """Compare each worker with a plain script that makes the same call with the same SDK."""
    lines = []
    with ThreeClouds(stage.directory()) as world:
        for provider, table in world.tables.items():
            environment = dict(world.machine.environment)
            request = {"UVTOKEND_REQUEST": wire.encode_request(asked(table)), "UVTOKEND_FETCH_TIMEOUT": "60"}
            answer = run(WORKER, environment | request)
            if not answer.lstrip().startswith('{"credential"'):
                raise SystemExit(f"{provider}: {answer}")
            sides = {
                "worker": quietly(WORKER, environment | request),
                "script": quietly((sys.executable, "-P", "-c", world.scripts[provider]), environment),
            }
            seconds = turns(sides, stage.scale.rounds)
            figures = {provider: seconds["worker"], "a script with the same SDK": seconds["script"]}
            lines.append(compared("one fetch", figures, provider, "a script with the same SDK", Aim(1.1)))
    return lines


def signed_in(stage: Stage) -> list[Line]:
    """Compare ``uvtokend start`` with five leases of three clouds with the peers' commands, run one after the other."""
    row = "sign-in until all are fresh, 5 leases"
    names = ("codeartifact", "codeartifact", "google", "google", "artifacts-keyring")
    asked_ = [stage.peer("keyring", name) for name in names]
    with ThreeClouds(stage.directory()) as world:

        def begin() -> None:
            world.machine.uvtokend("start", "--wait", "60")
            until_delivered(world.machine)

        def others() -> None:
            for peer in asked_:
                assert peer is not None
                peer.ask()

        sides: dict[str, Callable[[], object]] = {"uvtokend start": begin}
        if None not in asked_:
            sides["the peers' commands"] = others
        try:
            forget = {"uvtokend start": partial(_forget, world)}
            seconds = turns(sides, stage.scale.few, afterwards=forget, warm=True)
        finally:
            world.machine.uvtokend("stop")  # the daemon that `start` has started is not a child process
    if len(sides) == 1:
        return [alone(row, "uvtokend start", seconds["uvtokend start"], "s"), *missing(row, stage.peers.missing)]
    return [compared(row, seconds, "uvtokend start", "the peers' commands", Aim(0.5))]


def network(stage: Stage) -> list[Line]:
    """Disconnect and reconnect the network in a network namespace, or only the clouds if that is not possible."""
    row = "network back until all are fresh, 5 leases"
    root = ("unshare", "-n") if os.geteuid() == 0 else ("unshare", "-rn")
    command = (*root, sys.executable, str(Path(__file__).parent / "offline.py"), str(stage.directory()))
    try:
        seconds = _seconds((*command, str(stage.scale.few)))
    except (OSError, subprocess.SubprocessError) as error:
        reason = str(getattr(error, "stderr", "") or error).strip().rpartition("\n")[2]
        note = f"only the clouds return, which the daemon must find out; the network cannot be disconnected: {reason}"
        return [alone(row, "daemon", _clouds_return(stage), "s", note=note)]
    return [alone(row, "daemon", seconds, "s", 5.0)]


def _seconds(command: tuple[str, ...]) -> list[float]:
    """Return the numbers that a command prints; if this process gets SIGTERM, so does the command."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            out, complaint = process.communicate(timeout=_PATIENCE * 10)
        except BaseException:
            process.terminate()
            raise
    if process.returncode != 0:
        raise subprocess.CalledProcessError(process.returncode, command, out, complaint)
    return [float(word) for word in out.split()]


def _clouds_return(stage: Stage) -> list[float]:
    """Return the seconds from the return of the clouds until all tokens are fresh, without a network event."""
    seconds = []
    for _ in range(stage.scale.few):
        with ThreeClouds(stage.directory()) as world:
            world.down()
            world.machine.start()
            try:
                until_failed(world.machine)
                world.up()
                seconds.append(_timed(partial(until_delivered, world.machine)))
            finally:
                world.machine.stop()
    return seconds


def _timed(what: Callable[[], object]) -> float:
    began = time.perf_counter()
    what()
    return time.perf_counter() - began


def _forget(world: ThreeClouds) -> None:
    """Stop the daemon and delete its state."""
    world.machine.uvtokend("stop")
    world.machine.uvtokend("purge", "--yes")

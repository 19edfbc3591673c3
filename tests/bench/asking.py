"""Rows: how fast `status` is, and whether the control socket loses any of many requests."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from pathlib import Path

from bench.fleet import ask
from bench.processes import memory
from bench.stage import FLOOR, Stage, quietly
from bench.table import Aim, Line, alone, compared, missing
from bench.turns import turns

#: The number of concurrent clients.
CLIENTS = 64
UVTOKEND = str(Path(sys.executable).parent / "uvtokend")


def status(stage: Stage) -> list[Line]:
    """Compare ``uvtokend status`` with the start of this Python, and with simple commands of the peers."""
    most = stage.scale.sizes[-1]
    many = f"uvtokend status, {most:,} indexes"
    sides: dict[str, Callable[[], object]] = {
        "python -I -c pass": quietly(FLOOR, {}),
        "uvtokend status, 10 indexes": quietly((UVTOKEND, "status"), stage.fleet(10).environment),
        many: quietly((UVTOKEND, "status"), stage.fleet(most).environment),
    }
    for program, arguments, words in (("keyring", "--help", ("keyring",)), ("aws", "--version", ("aws ",))):
        if (peer := stage.peer(*words)) is not None:
            command = (str(Path(peer.get[0]).parent / program), arguments)
            sides[f"{program} {arguments}"] = quietly(command, dict(peer.environment))
    seconds = turns(sides, stage.scale.rounds)
    stage.used()
    ten, floor = "uvtokend status, 10 indexes", "python -I -c pass"
    lines = [compared("status", seconds, ten, floor, Aim(2.5)), compared("status", seconds, many, floor, Aim(4.0))]
    lines += [compared("status", seconds, ten, name) for name in list(seconds)[3:]]
    return lines + missing("status", stage.peers.missing)


def requests(stage: Stage) -> list[Line]:
    """Send requests from many clients at once: each must be answered, and the memory must not grow."""
    fleet, total = stage.fleet(10), stage.scale.questions
    path, before = fleet.socket, memory(fleet.pid)[0]
    answered, lock, left = [0], threading.Lock(), iter(range(total))

    def client() -> None:
        while True:
            with lock:
                if next(left, None) is None:
                    return
            ask(path, "status")
            with lock:
                answered[0] += 1

    clients = [threading.Thread(target=client) for _ in range(CLIENTS)]
    for each in clients:
        each.start()
    for each in clients:
        each.join()
    stage.used()
    row = f"{total:,} requests of {CLIENTS} clients"
    after = {"RSS afterwards": [memory(fleet.pid)[0]], "RSS before": [before]}
    return [
        alone(row, "requests without an answer", [float(total - answered[0])], "", 0.0),
        compared(row, after, "RSS afterwards", "RSS before", Aim(1.1), "MiB"),
    ]

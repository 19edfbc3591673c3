"""Ask a running daemon over its control socket, which needs no process."""

from __future__ import annotations

import contextlib
import json
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Any

from support.waiting import until
from uvtokend.core.document import ready
from uvtokend.sandbox.machine import Machine

if TYPE_CHECKING:
    from uvtokend.daemon.loop import Daemon


def ask(path: Path | str, method: str) -> Any:
    """Send a request to a daemon without using our client.

    Raises:
        FileNotFoundError: The socket does not exist.
        ConnectionRefusedError: No daemon listens on it any more.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.settimeout(20)
        client.connect(str(path))
        client.sendall(json.dumps({"jsonrpc": "2.0", "id": 7, "method": method}).encode() + b"\n")
        return json.loads(client.makefile().readline())["result"]


async def status_of(daemon: Daemon, names: list[str] | None = None) -> dict[str, Any]:
    """Return the status document of a daemon in this process."""
    document: dict[str, Any] = json.loads(await daemon.requests.status(names))
    return document


def await_daemon(path: Path | str) -> None:
    """Wait until a daemon answers: its socket exists a moment before it listens."""

    def answers() -> bool:
        with contextlib.suppress(FileNotFoundError, ConnectionError, json.JSONDecodeError):
            return bool(ask(path, "version"))
        return False

    until(answers)


def status(machine: Machine) -> dict[str, Any]:
    """Return the status document of a machine's daemon, or one without pid and indexes while no daemon answers."""
    try:
        document: dict[str, Any] = ask(machine.environment["UVTOKEND_SOCKET"], "status")
    except (FileNotFoundError, ConnectionError, json.JSONDecodeError):  # the daemon starts or stops
        return {"pid": None, "indexes": []}
    return document


def index(machine: Machine, name: str) -> dict[str, Any]:
    """Return an index of the status document, or an empty dict while no daemon answers."""
    shown: dict[str, Any] = next((each for each in status(machine)["indexes"] if each["name"] == name), {})
    return shown


def is_ready(machine: Machine) -> bool:
    """Return whether a daemon runs and `uvtokend status` would exit with 0."""
    document = status(machine)
    return document["pid"] is not None and ready(document)


def await_ready(machine: Machine) -> None:
    """Wait until every index of a machine has a valid, delivered token."""
    until(lambda: is_ready(machine))

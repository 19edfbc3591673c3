"""What a running daemon says on its control socket. Waiting for it this way costs no process for each look."""

from __future__ import annotations

import contextlib
import json
import socket
from pathlib import Path
from typing import Any

from support.waiting import until
from uvtokend.core.document import ready
from uvtokend.sandbox.machine import Machine


def ask(path: Path | str, method: str) -> Any:
    """Ask a daemon one thing, without the client under test.

    Raises:
        FileNotFoundError: No daemon was ever there.
        ConnectionRefusedError: None is there any more.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.settimeout(20)
        client.connect(str(path))
        client.sendall(json.dumps({"jsonrpc": "2.0", "id": 7, "method": method}).encode() + b"\n")
        return json.loads(client.makefile().readline())["result"]


def await_daemon(path: Path | str) -> None:
    """Wait until a daemon answers: its socket is there a moment before it listens."""

    def answers() -> bool:
        with contextlib.suppress(FileNotFoundError, ConnectionError, json.JSONDecodeError):
            return bool(ask(path, "version"))
        return False

    until(answers)


def status(machine: Machine) -> dict[str, Any]:
    """Return the status document of a machine's daemon; while none answers, one without a pid and without indexes."""
    try:
        document: dict[str, Any] = ask(machine.environment["UVTOKEND_SOCKET"], "status")
    except (FileNotFoundError, ConnectionError, json.JSONDecodeError):  # not yet, or it ends
        return {"pid": None, "indexes": []}
    return document


def index(machine: Machine, name: str) -> dict[str, Any]:
    """Return what the status document says of one index; nothing while no daemon answers."""
    found: dict[str, Any] = next((each for each in status(machine)["indexes"] if each["name"] == name), {})
    return found


def is_ready(machine: Machine) -> bool:
    """Tell whether a daemon runs, and `uvtokend status` would end with 0."""
    document = status(machine)
    return document["pid"] is not None and ready(document)


def await_ready(machine: Machine) -> None:
    """Wait until every index of a machine has a valid token that is delivered."""
    until(lambda: is_ready(machine))

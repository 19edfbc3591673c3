"""A machine whose daemon has many secrets, with one lease each, and a client for control sockets."""

from __future__ import annotations

import contextlib
import json
import socket
import time
from pathlib import Path
from typing import Any

from bench.processes import run
from uvtokend.sandbox.machine import Machine

#: The most seconds until a whole fleet is delivered.
PATIENCE = 900.0


class Fleet(Machine):
    """A machine with one secret for each index.

    Args:
        directory: An empty directory.
        size: The number of indexes.
        more: Further tables of the configuration.
    """

    def __init__(self, directory: Path, size: int, more: str = "") -> None:
        super().__init__(directory)
        self.size = size
        secrets = self.home / "secrets"
        secrets.mkdir(mode=0o700)
        tables = []
        for number in range(size):
            name = f"index-{number:04}"
            (secrets / name).write_text(f"token-{number:04}-" + "x" * 900)  # as long as CodeArtifact's
            tables.append(
                f'[[index]]\nname = "{name}"\nurl = "https://{name}.example/simple/"\nprovider = "static"\n'
                f'username = "me"\npassword = {{ file = "secrets/{name}" }}\n'
            )
        self.write(*tables, more)

    @property
    def pid(self) -> int:
        """The daemon's process ID."""
        assert self.daemon is not None
        return self.daemon.pid

    @property
    def socket(self) -> str:
        """The path of the control socket."""
        return self.environment["UVTOKEND_SOCKET"]

    def start(self) -> None:  # type: ignore[override]  # its daemon has no environment of its own
        """Start the daemon and wait until everything is delivered."""
        self.begin()
        self.until_delivered()

    def begin(self) -> None:
        """Start the daemon."""
        super().start()

    def until_delivered(self) -> None:
        """Wait until every index has a valid token that uv can read."""
        end = time.monotonic() + PATIENCE
        while self.entries() < self.size and time.monotonic() < end:
            time.sleep(0.05)  # reading the file is cheaper than a status of a thousand indexes
        until_delivered(self)

    def entries(self) -> int:
        """Return the number of entries in the netrc."""
        return self.netrc.read_bytes().count(b"machine ") if self.netrc.exists() else 0

    def command(self, *arguments: str) -> str:
        """Run a uvtokend command, check that it succeeds, and return its output."""
        return run(self.ourselves(*arguments), self.environment)


def until_delivered(machine: Machine) -> None:
    """Wait until every index of a machine's daemon has a valid token that uv can read.

    Raises:
        SystemExit: This takes too long.
    """
    _until(machine, "delivered")


def until_failed(machine: Machine) -> None:
    """Wait until the fetch of every index has failed.

    Raises:
        SystemExit: This takes too long.
    """
    _until(machine, "last_error")


def _until(machine: Machine, key: str) -> None:
    """Wait until a key of the status is true for every index."""
    end, document = time.monotonic() + PATIENCE, None
    while time.monotonic() < end:
        with contextlib.suppress(OSError):  # it has not started yet
            document = ask(machine.environment["UVTOKEND_SOCKET"], "status")
            if all(index[key] for index in document["indexes"]):
                return
        time.sleep(0.005)
    raise SystemExit(f"Not every index has {key}: {document}\n{machine.output.read_text()[-2000:]}")


def ask(path: str, method: str, **params: Any) -> Any:
    """Send a request to a control socket without any code of uvtokend, and return the result.

    Args:
        path: The path of the socket.
        method: The method.
        params: The method's parameters.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(60)
        connection.connect(path)
        request = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
        connection.sendall(json.dumps(request).encode() + b"\n")
        received = bytearray()
        while not received.endswith(b"\n"):
            chunk = connection.recv(1 << 20)
            if not chunk:
                raise ConnectionError("The daemon disconnected.")
            received += chunk
    return json.loads(received)["result"]

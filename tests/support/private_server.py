"""A real pypiserver on loopback, in its own process, that accepts every token that a machine has issued.

Run as a script by the class below, it prints its port.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from support.issuing import Issuing


class PrivateServer:
    """A context manager that runs the server.

    Args:
        machine: The machine whose tokens are accepted, for reading and publishing.

    Attributes:
        url: The URL of the index.
        packages: The directory of its files.
    """

    def __init__(self, machine: Issuing) -> None:
        from support.issuing import CANARY, LOGIN  # the serving process must not import these

        self.packages = machine.directory / "packages"
        self.packages.mkdir()
        command = [sys.executable, __file__, str(self.packages), str(machine.directory / "count"), LOGIN, CANARY]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        assert self._process.stdout is not None
        self.url = f"http://127.0.0.1:{int(self._process.stdout.readline())}/simple/"

    @property
    def files(self) -> set[str]:
        """The names of its files."""
        return {path.name for path in self.packages.iterdir()}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.communicate()


def serve(packages: Path, count: Path, login: str, canary: str) -> None:
    """Serve until killed."""
    from socketserver import ThreadingMixIn
    from wsgiref.simple_server import WSGIServer, make_server

    import pypiserver

    class Server(ThreadingMixIn, WSGIServer):
        daemon_threads = True

    def valid(user: str, password: str) -> bool:
        issued = int(count.read_text()) if count.exists() else 0
        return user == login and password in {f"{canary}-{number}" for number in range(1, issued + 1)}

    options: dict[str, Any] = {
        "auther": valid,
        "authenticate": ["list", "download", "update"],
        "disable_fallback": True,
    }
    site = pypiserver.app(roots=[packages], **options)
    with make_server("127.0.0.1", 0, site, Server) as server:
        print(server.server_address[1], flush=True)
        server.serve_forever()


if __name__ == "__main__":
    serve(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], sys.argv[4])

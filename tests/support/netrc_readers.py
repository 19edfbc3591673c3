"""What a client reads in a netrc: a server records what the client sends."""

from __future__ import annotations

import base64
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from uvtokend.sandbox.web import Server

Sent = dict[str, str | None]
Command = Callable[[str, Path], Sequence[str]]


def sent(server: Server, directory: Path, texts: Mapping[str, bytes], command: Command) -> Sent:
    """Run a client once for each file, two at a time, and return the login and password that it sent, if any."""
    environment = {name: value for name, value in os.environ.items() if not name.upper().startswith(("UV_", "CURL_"))}
    environment |= {"HOME": str(directory), "NO_PROXY": "127.0.0.1", "UV_CACHE_DIR": str(directory / "cache")}

    def run(name: str) -> None:
        path = directory / f"{name}.netrc"
        path.write_bytes(texts[name])
        words = command(f"{server.url}/{name}/simple/", path)
        variables = {**environment, "NETRC": str(path)}
        subprocess.run(words, env=variables, cwd=directory, capture_output=True, check=False, timeout=60)

    server.calls.clear()
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(run, texts))
    received: Sent = {}
    for call in list(server.calls):
        name = call.path.split("/")[1]
        header = call.headers["Authorization"]
        received[name] = base64.b64decode(header.removeprefix("Basic ")).decode() if header else received.get(name)
    assert set(received) == set(texts), "a client sent no request"
    return received


def uv(url: str, _netrc: Path) -> Sequence[str]:
    program = shutil.which("uv", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}") or "uv"
    words = ["pip", "compile", "--no-config", "--quiet", "--python", sys.executable, "--index-url", url, "needs.in"]
    return [program, *words]


def curl(url: str, netrc: Path) -> Sequence[str]:
    return ["curl", "--disable", "--silent", "--output", os.devnull, "--netrc-file", str(netrc), url]

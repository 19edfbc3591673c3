"""Hostile issuers: endless responses, redirects, and tokens with netrc syntax, with the real SDKs."""

from __future__ import annotations

import gzip
import json
import netrc
import os
import socketserver
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from itertools import chain, repeat
from pathlib import Path

import pytest

from clouds.google import GoogleCloud
from uvtokend.core import wire
from uvtokend.core.agent import admit
from uvtokend.core.model import Credential, Entry, Failure, Request
from uvtokend.disk.netrc_sink import NetrcSink
from uvtokend.errors import FetchFailed
from uvtokend.providers import command
from uvtokend.providers.aws import fetch as aws
from uvtokend.providers.azure import fetch as azure
from uvtokend.providers.google import fetch as google
from uvtokend.sandbox.web import Answer, Server

MIB = 1 << 20
#: The most memory in bytes that a worker may use: its limit, plus its code and stacks.
MOST = 640 * MIB
#: The number of bytes after which a server stops, so that a missing limit does not fill the machine's memory.
PATIENCE = 3 << 30
SECRET = "CANARY-of-a-secret-that-must-never-be-shown"
FOREIGN = "machine mine.example login me password mine\n"


@dataclass(frozen=True)
class Case:
    """A provider, and the environment that leads its SDK to a hostile server."""

    request: Request
    fetch: Callable[[Request], Credential]
    environ: dict[str, str]


def cases(url: str, directory: Path) -> dict[str, Case]:
    key = directory / "key.json"
    key.write_text(json.dumps({**GoogleCloud().service_account(), "token_uri": f"{url}/token"}))
    options = (("domain", "acme"), ("domain-owner", "123456789012"), ("region", "eu-central-1"))
    amazon = Request("aws-codeartifact", options=options)
    endpoints = {f"AWS_ENDPOINT_URL_{name}": url for name in ("CODEARTIFACT", "STS")}
    keys = {"AWS_ACCESS_KEY_ID": "AKIAEXAMPLE", "AWS_SECRET_ACCESS_KEY": SECRET}
    machine = Request("azure-artifacts", "https://pkgs.dev.azure.com/acme", (("credential", "managed-identity"),))
    return {
        "aws": Case(amazon, aws.fetch, {**endpoints, **keys}),
        "google": Case(Request("google-artifact-registry"), google.fetch, {"GOOGLE_APPLICATION_CREDENTIALS": str(key)}),
        "azure": Case(
            machine, azure.fetch, {"IDENTITY_ENDPOINT": f"{url}/", "IDENTITY_HEADER": SECRET, "NO_PROXY": "*"}
        ),
    }


def in_worker(case: Case, directory: Path, timeout: float = 60) -> tuple[Failure | Credential, int]:
    """Fetch in a worker as the daemon does. Return the outcome and the worker's memory in bytes."""
    environ = {"HOME": str(directory), "PATH": os.defpath, "NETRC": os.devnull, **case.environ}
    environ |= {"UVTOKEND_REQUEST": wire.encode_request(case.request), "UVTOKEND_FETCH_TIMEOUT": str(timeout)}
    words = [sys.executable, "-P", "-m", "uvtokend.providers.worker"]
    process = subprocess.Popen(
        words, env=environ, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, start_new_session=True
    )
    assert process.stdout is not None
    with process.stdout as pipe:
        line = pipe.read(PATIENCE)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    assert len(line) <= wire.WORKER_LIMIT
    return wire.decode_answer(line), usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)


# --------------------------------------------------------------------------------------------- endless responses


def chunked(pieces: Iterator[bytes]) -> Iterator[bytes]:
    yield b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    for piece in pieces:
        yield b"%x\r\n%b\r\n" % (len(piece), piece)


def sized(body: bytes, *headers: str) -> Iterator[bytes]:
    more = "".join(f"{header}\r\n" for header in headers).encode()
    yield b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n%bContent-Length: %d\r\n\r\n" % (more, len(body))
    yield body


@cache
def bomb() -> bytes:
    """Return a gigabyte that is compressed to one megabyte."""
    return gzip.compress(b" " * 32 * MIB) * 32


ANSWERS: dict[str, Callable[[], Iterator[bytes]]] = {
    "100 MB of JSON": lambda: chunked(chain([b'{"a":['], repeat(b"[]," * MIB, 33), [b"[]]}"])),
    "without end": lambda: chunked(repeat(b"x" * MIB)),
    "a bomb": lambda: sized(bomb(), "Content-Encoding: gzip"),
    "headers without end": lambda: iter([b"HTTP/1.1 200 OK\r\n", *repeat(b"X-More: " + b"x" * 60000 + b"\r\n", 999)]),
    "100,000 deep": lambda: sized(b"[" * 100_000 + b"]" * 100_000),
}


@contextmanager
def serving(answer: Callable[[], Iterator[bytes]]) -> Iterator[str]:
    """Serve a response piece by piece while the client reads, and yield the server's URL."""

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            sent = 0
            try:
                self.request.recv(65536)
                for piece in answer():
                    self.request.sendall(piece)
                    sent += len(piece)
                    if sent > PATIENCE:
                        return
            except OSError:  # the client has disconnected
                return

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("how", list(ANSWERS))
def test_an_endless_response(tmp_path: Path, how: str) -> None:
    """Whatever an SDK receives, the worker's memory is bounded, and the failure does not ask for a sign-in."""
    with serving(ANSWERS[how]) as url, ThreadPoolExecutor(2) as pool:
        results = pool.map(lambda case: in_worker(case, tmp_path), cases(url, tmp_path).values())
        for outcome, memory in results:
            assert isinstance(outcome, Failure)
            assert outcome.kind != "login-required"
            assert outcome.reason != "unexpected"
            assert memory < MOST


def test_an_endless_program(tmp_path: Path) -> None:
    """The same holds for a user's program, which does not inherit the worker's memory limit."""
    scripts = {
        "yes": "too-much",
        "head -c 60000 /dev/zero | tr '\\0' '['": "garbage",
        'test "$(ulimit -Sd)" = "$(ulimit -Hd)" && exit 3': "command-failed",
    }
    for script, reason in scripts.items():
        case = Case(Request("command", options=(("command", ("sh", "-c", script)),)), command.fetch, {})
        outcome, memory = in_worker(case, tmp_path)
        assert isinstance(outcome, Failure)
        assert (outcome.reason, memory < MOST) == (reason, True)


# ---------------------------------------------------------------------------------------------------- redirects


def test_no_redirect_is_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other host gets no request, and so neither a signature nor a key."""
    with Server(lambda _: Answer()) as other:
        lead = Answer(307, b"", {"Location": f"http://localhost:{other.port}/"})
        with Server(lambda _: lead) as issuer:
            for case in cases(issuer.url, tmp_path).values():
                with monkeypatch.context() as patch:
                    failure = refused(case, patch, tmp_path)
                    assert (failure.kind == "login-required", SECRET in repr(failure)) == (False, False)
            assert issuer.calls
        assert other.calls == []


def refused(case: Case, patch: pytest.MonkeyPatch, directory: Path) -> Failure:
    outcome = fetched(case, patch, directory)
    assert isinstance(outcome, Failure)
    return outcome


def fetched(case: Case, patch: pytest.MonkeyPatch, directory: Path) -> Credential | Failure:
    """Fetch in this process, with only the environment of the case."""
    for name in list(os.environ):
        if name.startswith(("AWS_", "AZURE_", "GOOGLE_", "IDENTITY_")) or name.upper().endswith("_PROXY"):
            patch.delenv(name)
    for name, text in {"HOME": str(directory), **case.environ}.items():
        patch.setenv(name, text)
    try:
        return case.fetch(case.request)
    except FetchFailed as error:
        return error.failure


# ------------------------------------------------------------------------------------- tokens with netrc syntax

TOKENS = [
    "a\nmachine evil.example login x password y",
    "a\rdefault login x password y",
    "\u2028machine evil.example",
    "machine",
    "default",
    "#uvtokend:end",
    'quo"te\\and\\\\more"',
    "'",
    "",
    " ",
    "two words",
    "nul\x00",
    "\x1b[2J\x07",
    "\ud800",
    "tökén",
    "x" * (16 * 1024),
    "x" * (16 * 1024 + 1),
]


def answers(token: str) -> Answer:
    """Return a response in which each SDK finds the token under its own key."""
    now = datetime.now(UTC).timestamp()
    body = {
        "authorizationToken": token,
        "expiration": now + 3600,
        "access_token": token,
        "expires_in": 3600,
        "expires_on": str(int(now + 3600)),
        "token_type": "Bearer",
    }
    return Answer.json(body)


@pytest.mark.parametrize("provider", ["aws", "google", "azure", "command"])
def test_a_token_with_netrc_syntax(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, provider: str) -> None:
    """Such a token is refused with a reason, or written so that Python's netrc reads exactly it. Foreign text stays."""
    response = [answers("")]
    delivered = []
    with Server(lambda _: response[0]) as issuer:
        known = cases(issuer.url, tmp_path)
        program = Request("command", options=(("command", ("cat", str(tmp_path / "said"))),))
        case = known.get(provider) or Case(program, command.fetch, {})
        for token in TOKENS:
            response[0] = answers(token)
            (tmp_path / "said").write_text(json.dumps({"username": "me", "password": token}))
            with monkeypatch.context() as patch:
                outcome = admit(fetched(case, patch, tmp_path), "a.example", datetime.now(UTC))
            path = tmp_path / "netrc"
            path.write_text(FOREIGN)
            if isinstance(outcome, Failure):
                assert outcome.kind in {"transient", "rejected"}
                assert outcome.reason != "unexpected"
                continue
            wanted = Entry("a.example", outcome.login, outcome.password)
            NetrcSink(str(path)).deliver([wanted], {"a.example": ()})
            assert path.read_text().endswith(FOREIGN)
            hosts = netrc.netrc(str(path)).hosts
            assert hosts == {"a.example": (outcome.login, "", token), "mine.example": ("me", "", "mine")}
            delivered.append(token)
    assert {"machine", "default", "#uvtokend:end", 'quo"te\\and\\\\more"', "x" * (16 * 1024)} <= set(delivered)
    assert not [token for token in delivered if not token.isprintable() or not token.strip() or len(token) > 16384]

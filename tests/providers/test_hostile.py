"""Issuers that mean harm: answers without end, redirects, tokens that are text for a netrc; against the real SDKs."""

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
#: Bytes that a worker may have taken at its end: its limit, and what counts beside its data (code, stacks).
MOST = 640 * MIB
#: Bytes after which a server gives up: without a limit on the other side this test must not take the machine.
PATIENCE = 3 << 30
SECRET = "CANARY-of-a-secret-that-must-never-be-shown"
FOREIGN = "machine mine.example login me password mine\n"


@dataclass(frozen=True)
class Case:
    """One provider, and the environment that leads its SDK to a hostile server."""

    request: Request
    fetch: Callable[[Request], Credential]
    environ: dict[str, str]


def cases(url: str, folder: Path) -> dict[str, Case]:
    key = folder / "key.json"
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


def in_worker(case: Case, folder: Path, timeout: float = 60) -> tuple[Failure | Credential, int]:
    """Fetch in a worker as the daemon starts it; return what it answered, and the bytes of memory that it took."""
    environ = {"HOME": str(folder), "PATH": os.defpath, "NETRC": os.devnull, **case.environ}
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


# ------------------------------------------------------------------------------------------------ without measure


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
    """Return a gigabyte that travels as one megabyte."""
    return gzip.compress(b" " * 32 * MIB) * 32


ANSWERS: dict[str, Callable[[], Iterator[bytes]]] = {
    "100 MB of JSON": lambda: chunked(chain([b'{"a":['], repeat(b"[]," * MIB, 33), [b"[]]}"])),
    "without end": lambda: chunked(repeat(b"x" * MIB)),
    "a bomb": lambda: sized(bomb(), "Content-Encoding: gzip"),
    "headers without end": lambda: iter([b"HTTP/1.1 200 OK\r\n", *repeat(b"X-More: " + b"x" * 60000 + b"\r\n", 999)]),
    "100,000 deep": lambda: sized(b"[" * 100_000 + b"]" * 100_000),
}


@contextmanager
def saying(answer: Callable[[], Iterator[bytes]]) -> Iterator[str]:
    """Serve an answer piece by piece, for as long as somebody reads, and return where."""

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            said = 0
            try:
                self.request.recv(65536)
                for piece in answer():
                    self.request.sendall(piece)
                    said += len(piece)
                    if said > PATIENCE:
                        return
            except OSError:  # the other side has had enough
                return

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("how", list(ANSWERS))
def test_an_answer_without_measure(tmp_path: Path, how: str) -> None:
    """Whatever is poured into an SDK, the worker's memory is bounded, and the failure is no word about the login."""
    with saying(ANSWERS[how]) as url, ThreadPoolExecutor(2) as pool:
        results = pool.map(lambda case: in_worker(case, tmp_path), cases(url, tmp_path).values())
        for outcome, memory in results:
            assert isinstance(outcome, Failure)
            assert outcome.kind != "login-required"
            assert outcome.reason != "unexpected"
            assert memory < MOST


def test_a_program_without_measure(tmp_path: Path) -> None:
    """The same holds for a program of the user's; what it starts is not bound by our own limit."""
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


# -------------------------------------------------------------------------------------------------- to another host


def test_no_redirect_is_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other host sees nothing: neither a signature nor a key, not even a request."""
    with Server(lambda _: Answer()) as other:
        lead = Answer(307, b"", {"Location": f"http://localhost:{other.port}/"})
        with Server(lambda _: lead) as issuer:
            for case in cases(issuer.url, tmp_path).values():
                with monkeypatch.context() as patch:
                    failure = refused(case, patch, tmp_path)
                    assert (failure.kind == "login-required", SECRET in repr(failure)) == (False, False)
            assert issuer.calls
        assert other.calls == []


def refused(case: Case, patch: pytest.MonkeyPatch, folder: Path) -> Failure:
    found = fetched(case, patch, folder)
    assert isinstance(found, Failure)
    return found


def fetched(case: Case, patch: pytest.MonkeyPatch, folder: Path) -> Credential | Failure:
    """Fetch in this process, in the environment of the case alone."""
    for name in list(os.environ):
        if name.startswith(("AWS_", "AZURE_", "GOOGLE_", "IDENTITY_")) or name.upper().endswith("_PROXY"):
            patch.delenv(name)
    for name, text in {"HOME": str(folder), **case.environ}.items():
        patch.setenv(name, text)
    try:
        return case.fetch(case.request)
    except FetchFailed as error:
        return error.failure


# -------------------------------------------------------------------------------------------- tokens that are text

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
    """Return an answer in which each SDK finds the token where it looks for one."""
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
def test_a_token_that_is_text_for_a_netrc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, provider: str) -> None:
    """It is refused by name, or is in the netrc so that Python reads just it; what others wrote stays."""
    said = [answers("")]
    delivered = []
    with Server(lambda _: said[0]) as issuer:
        known = cases(issuer.url, tmp_path)
        asked = Request("command", options=(("command", ("cat", str(tmp_path / "said"))),))
        case = known.get(provider) or Case(asked, command.fetch, {})
        for token in TOKENS:
            said[0] = answers(token)
            (tmp_path / "said").write_text(json.dumps({"username": "me", "password": token}))
            with monkeypatch.context() as patch:
                found = admit(fetched(case, patch, tmp_path), "a.example", datetime.now(UTC))
            path = tmp_path / "netrc"
            path.write_text(FOREIGN)
            if isinstance(found, Failure):
                assert found.kind in {"transient", "rejected"}
                assert found.reason != "unexpected"
                continue
            wanted = Entry("a.example", found.login, found.password)
            NetrcSink(str(path)).deliver([wanted], {"a.example": ()})
            assert path.read_text().endswith(FOREIGN)
            hosts = netrc.netrc(str(path)).hosts
            assert hosts == {"a.example": (found.login, "", token), "mine.example": ("me", "", "mine")}
            delivered.append(token)
    assert {"machine", "default", "#uvtokend:end", 'quo"te\\and\\\\more"', "x" * (16 * 1024)} <= set(delivered)
    assert not [token for token in delivered if not token.isprintable() or not token.strip() or len(token) > 16384]

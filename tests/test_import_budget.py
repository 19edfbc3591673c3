"""Import budgets: `uvtokend status` runs in prompts and hooks, so it must start nearly as fast as Python itself."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from uvtokend.core import wire
from uvtokend.core.clouds import CLOUDS
from uvtokend.core.model import Request

OURS = {
    "uvtokend",
    "uvtokend.ask",
    "uvtokend.cli",
    "uvtokend.cli.client",
    "uvtokend.cli.console",
    "uvtokend.cli.main",
    "uvtokend.cli.refresh",
    "uvtokend.cli.status",
    "uvtokend.core",
    "uvtokend.core.document",
    "uvtokend.core.index_table",
    "uvtokend.core.prompt",
    "uvtokend.core.report",
    "uvtokend.core.text",
    "uvtokend.errors",
    "uvtokend.paths",
    "uvtokend.peers",
}
#: The imports needed to exchange JSON over a socket and to read a time, on this Python.
NEEDED = "import __future__, _datetime, _json, _socket, json, os, select, socket, stat, sys, time"
EXPENSIVE = {
    "apscheduler",
    "argparse",
    "asyncio",
    "azure",
    "boto3",
    "botocore",
    "dataclasses",
    "google",
    "hashlib",
    "inspect",
    "logging",
    "pathlib",
    "platformdirs",
    "psutil",
    "subprocess",
    "tempfile",
    "threading",
    "tomllib",
    "typing",
    "urllib",
}
EXPENSIVE_FOR_A_WORKER = {"apscheduler", "azure", "boto3", "botocore", "google", "platformdirs", "psutil", "requests"}
INDEX = {
    "name": "a",
    "health": "fresh",
    "state": "waiting",
    "life_left_s": 3000,
    "refresh_at": "2026-01-31T08:00:00Z",
    "delivered": True,
    "failures": 0,
    "last_error": None,
}


@pytest.fixture
def environment(tmp_path: Path) -> Iterator[dict[str, str]]:
    """Serve one status document on a control socket, and return the environment that leads to it."""
    directory = tmp_path / "s"
    directory.mkdir(0o700)
    server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    server.bind(str(directory / "c"))
    server.listen()
    thread = threading.Thread(target=_serve, args=(server,))
    thread.start()
    yield {
        "HOME": str(tmp_path),
        "PYTHONPATH": os.pathsep.join(sys.path),
        "UVTOKEND_SOCKET": str(directory / "c"),
    }
    server.shutdown(socket.SHUT_RDWR)
    thread.join()
    server.close()


def _serve(server: socket.socket) -> None:
    from uvtokend import __version__

    document = {
        "version": __version__,
        "pid": 1,
        "netrc": "/n",
        "delivery": {"ok": True, "problem": None},
        "indexes": [INDEX],
        "login": "me",  # the rest is for `credential`
        "token": "t",
    }
    while True:
        try:
            client, _ = server.accept()
        except OSError:
            return
        with client:
            client.recv(65536)
            client.sendall(json.dumps({"jsonrpc": "2.0", "id": 1, "result": document}).encode() + b"\n")


def imported(code: str, environment: dict[str, str]) -> set[str]:
    """Return the modules that some code loads in a fresh Python, beyond those loaded at its start."""
    code = f"import sys; before = set(sys.modules); {code}; print(*(set(sys.modules) - before), file=sys.stderr)"
    command = [sys.executable, "-S", "-c", code]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return set(done.stderr.split())


@pytest.mark.parametrize("args", [["status"], ["status", "a", "--json"], ["refresh", "--json", "a"]])
def test_a_hot_verb_imports_next_to_nothing(args: list[str], environment: dict[str, str]) -> None:
    """The hot verbs import only what sockets, JSON and times need, plus a few modules of uvtokend."""
    modules = imported(f"from uvtokend.cli.main import main; assert main({args}) == 0", environment)
    assert "uvtokend.cli.client" in modules
    assert modules <= imported(NEEDED, environment) | OURS


def test_a_status_for_a_person_needs_no_json_socket_or_datetime(environment: dict[str, str]) -> None:
    """`uvtokend status` uses `_socket` and `_datetime` directly, because importing json, socket and datetime takes as
    long as Python's start."""
    modules = imported("from uvtokend.cli.main import main; assert main(['status']) == 0", environment)
    assert "_socket" in modules
    assert not modules & {"collections", "datetime", "enum", "json", "math", "operator", "re", "selectors", "socket"}


#: What the keyring command may import besides os and stat.
KEYRING_OURS = {
    "uvtokend",
    "uvtokend.ask",
    "uvtokend.errors",
    "uvtokend.paths",
    "uvtokend.peers",
    "uvtokend.shim",
}
KEYRING_NEEDED = {"__future__", "_json", "_socket", "errno"}


def test_the_keyring_command_imports_nearly_nothing(environment: dict[str, str]) -> None:
    """uv runs the keyring command for every index of every install,
    so it may take at most twice as long as Python's start.
    """
    code = (
        "sys.argv = ['keyring', 'get', 'https://a.example/', 'me']; from uvtokend.shim import main; assert main() == 0"
    )
    modules = imported(code, environment)
    assert "uvtokend.ask" in modules
    assert modules - KEYRING_OURS - imported("import os, stat", environment) <= KEYRING_NEEDED


def test_what_is_needed_is_cheap(environment: dict[str, str]) -> None:
    """The modules allowed above import nothing expensive themselves; otherwise the tests above would prove nothing."""
    roots = {module.partition(".")[0] for module in imported(NEEDED, environment)}
    assert "socket" in roots
    assert not roots & EXPENSIVE


def test_version_imports_no_daemon_and_no_sdk(environment: dict[str, str]) -> None:
    """`--version` loads neither the daemon nor an SDK."""
    modules = imported("from uvtokend.cli.main import main; assert main(['--version']) == 0", environment)
    roots = {module.partition(".")[0] for module in modules}
    assert not roots & {"apscheduler", "asyncio", "azure", "boto3", "google", "platformdirs", "psutil"}
    assert not {module for module in modules if module.startswith("uvtokend.daemon")}


def test_start_imports_little_before_there_is_a_daemon(environment: dict[str, str]) -> None:
    """`start` spawns the daemon before it imports anything expensive, and imports the rest while the daemon starts."""
    unused = {**environment, "UVTOKEND_SOCKET": environment["UVTOKEND_SOCKET"] + "-"}
    report = "print(*(set(sys.modules) - before), file=sys.stderr, flush=True)"  # as `imported` does at the end
    spawn = f"lambda _: ({report}, os._exit(0))"
    code = f"import os; from uvtokend.cli import main, start; start._spawn = {spawn}; main.main(['start'])"
    modules = imported(code, unused)
    assert "uvtokend.service.manager" in modules
    assert not modules & {"psutil", "tomllib", "uvtokend.disk.configuration", "uvtokend.core.model"}
    for_argparse = imported("import argparse; argparse.ArgumentParser().add_argument('x')", environment)
    modules -= for_argparse  # since Python 3.14 this includes dataclasses
    assert not modules & {"dataclasses", "inspect", "pathlib", "platformdirs", "uvtokend.cli.status"}


def test_the_daemon_loads_its_scheduler_after_it_has_started_workers(environment: dict[str, str]) -> None:
    """Everything between the daemon's start and its first worker delays the first token."""
    modules = imported("from uvtokend.cli import parser, run; from uvtokend.daemon import control, main", environment)
    assert "uvtokend.daemon.timer" in modules
    assert not modules & {"apscheduler", "argcomplete", "email", "importlib.metadata", "multiprocessing", "tzlocal"}


#: What no worker may load for a secret in a file or a variable: a thousand such fetches may be due at once.
NOT_FOR_A_SECRET = {"asyncio", "email", "importlib.metadata", "pathlib", "tomllib", "uvtokend.core.uv_store", "zipfile"}


def test_a_worker_loads_its_own_provider_only(environment: dict[str, str]) -> None:
    """The worker of a static secret loads no plug-in search, no SDK, no parser and no other cloud's catalog."""
    request = wire.encode_request(Request("static", options=(("password", (("env", "PW"),)), ("username", "me"))))
    variables = {"PW": "a-secret", "UVTOKEND_REQUEST": request, "UVTOKEND_FETCH_TIMEOUT": "60"}
    modules = imported("from uvtokend.providers.worker import main; main()", {**environment, **variables})
    assert "uvtokend.providers.static" in modules
    assert not modules & (EXPENSIVE_FOR_A_WORKER | NOT_FOR_A_SECRET)
    catalogs = {name.rpartition(".")[2] for name in modules if name.startswith("uvtokend.core.clouds.")}
    assert catalogs == {"catalog", "static"}


#: Provider -> how many modules its worker may import beyond those of Python's own start, and which ones it must not
#: import at all. Imports are nearly the whole cost of a worker. Newer Pythons need a few modules more.
WORKERS = {
    "aws-codeartifact": (440, {"requests", "charset_normalizer", "cryptography"}),
    "google-artifact-registry": (500, {"sqlite3", "boto3", "botocore", "azure", "msal", "apscheduler"}),
    "azure-artifacts": (565, {"boto3", "botocore", "google", "apscheduler"}),
    "jfrog-artifactory": (360, {"boto3", "botocore", "google", "azure", "msal", "cryptography"}),
    "gitlab": (360, {"boto3", "botocore", "google", "azure", "msal", "cryptography"}),
    "nexus": (140, {"boto3", "botocore", "google", "azure", "requests", "urllib3", "asyncio"}),
    "static": (140, {"boto3", "botocore", "google", "azure", "requests", "urllib3", "asyncio"}),
    "command": (140, {"boto3", "botocore", "google", "azure", "requests", "urllib3", "asyncio"}),
}


@pytest.mark.parametrize("provider", CLOUDS)
def test_a_worker_imports_no_more_than_its_own_sdk(provider: str, environment: dict[str, str]) -> None:
    """Each provider's worker stays within its budget of modules, and loads no other provider's SDK."""
    code = f"import uvtokend.providers.worker as w; w.load({provider!r})"
    modules = imported(code, environment)
    most, foreign = WORKERS[provider]
    assert not {module.partition(".")[0] for module in modules} & foreign
    assert len(modules) <= most

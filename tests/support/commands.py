"""Run uvtokend commands without starting Python for each: a server has imported the program and forks for each command.

Python's start and the imports take nine tenths of a command's time, and the tests run thousands of commands. A
command run here is a normal process with its own environment, directory, streams and exit status, and leaves nothing
behind in the process of the tests. Only its start differs: Python's options, the encoding of the streams, and the
modules, which are all imported already. Tests of these start a Python, and so does the program itself for a daemon
or a worker.

Run as a script by `_server`, it serves until its last client disconnects.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import importlib
import json
import os
import pkgutil
import select
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import IO, Any, NoReturn

#: Seconds that a command may take.
LIMIT = 100.0
#: Modules that no command imports: they are for other processes, or for the tests.
_OTHERS = (
    "uvtokend.__main__",
    "uvtokend.keyring_backend",
    "uvtokend.providers",
    "uvtokend.sandbox",
    "uvtokend.testing",
)
#: More descriptors than the server has open.
FILES = 256
_NUMBER = struct.Struct("i")
#: With this variable, packaging/covered.py measures the started processes.
_MEASURED = "COVERAGE_PROCESS_CONFIG"


def run(arguments: Sequence[str], env: Mapping[str, str], cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run ``uvtokend`` without a terminal and without input, and return its output.

    Args:
        arguments: The arguments of the program.
        env: The complete environment.
        cwd: The working directory; None for that of the tests.

    Raises:
        TimeoutExpired: The command took longer than `LIMIT` and was killed.
    """
    words = [sys.executable, "-P", "-m", "uvtokend", *arguments]
    where = str(cwd or Path.cwd())
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        if _MEASURED in os.environ:
            options: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": out, "stderr": err, "cwd": where}
            status = subprocess.run(words, env=env, timeout=LIMIT, check=False, **options).returncode
        else:
            status = _forked({"arguments": list(arguments), "env": dict(env), "cwd": where}, out, err)
        return subprocess.CompletedProcess(words, status, _text(out), _text(err))


def _text(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode(errors="replace")


def _forked(request: Mapping[str, Any], out: IO[bytes], err: IO[bytes]) -> int:
    """Let the server run a command, and return its exit status."""
    text = json.dumps(request).encode()
    ours, theirs = socket.socketpair()
    with ours, ours.makefile("rb") as answer:
        with theirs:
            files = [out.fileno(), err.fileno(), theirs.fileno()]
            socket.send_fds(_server(), [_NUMBER.pack(len(text)) + text], files)
        (process,) = _NUMBER.unpack(answer.read(_NUMBER.size))
        ours.settimeout(LIMIT)
        try:
            (status,) = _NUMBER.unpack(answer.read(_NUMBER.size))
        except TimeoutError:
            os.killpg(process, signal.SIGKILL)
            raise subprocess.TimeoutExpired(list(request["arguments"]), LIMIT) from None
    return int(status)


@cache
def _server() -> socket.socket:
    """Start the server, and return the connection to it."""
    ours, theirs = socket.socketpair()
    atexit.register(ours.close)
    with theirs:
        theirs.set_inheritable(True)
        words = [sys.executable, "-P", __file__, str(theirs.fileno())]
        silent = (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0)
        os.posix_spawn(sys.executable, words, os.environ, file_actions=[silent])
    return ours


# ---------------------------------------------------------------------------------------------------- in the server


def _serve(clients: socket.socket) -> None:
    """Fork for each request; send the client the process ID at once, and the exit status at the end."""
    import uvtokend

    for module in pkgutil.walk_packages(uvtokend.__path__, "uvtokend."):
        if not module.name.startswith(_OTHERS):
            importlib.import_module(module.name)
    gc.freeze()
    woken, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake)
    signal.signal(signal.SIGCHLD, lambda *_: None)  # with the default handler, select() would not return
    running: dict[int, int] = {}
    watched: list[int | socket.socket] = [woken, clients]
    while True:
        ready, _, _ = select.select(watched, [], [])
        if woken in ready:
            os.read(woken, 512)
            _reap(running)
        if clients in ready:
            header, files, *_ = socket.recv_fds(clients, _NUMBER.size, 3)
            if not header:
                return
            request = json.loads(clients.recv(_NUMBER.unpack(header)[0], socket.MSG_WAITALL))
            process = os.fork()
            if process == 0:
                _be(streams=files[:2], **request)
            running[process] = files.pop()
            _tell(running[process], process)
            for file in files:
                os.close(file)


def _reap(running: dict[int, int]) -> None:
    """Send the exit statuses of the commands that have ended."""
    for process, answer in tuple(running.items()):
        ended, status = os.waitpid(process, os.WNOHANG)
        if ended:
            _tell(answer, os.waitstatus_to_exitcode(status))
            os.close(answer)
            del running[process]


def _tell(client: int, number: int) -> None:
    with contextlib.suppress(BrokenPipeError):  # the client has given up
        os.write(client, _NUMBER.pack(number))


def _be(arguments: list[str], env: dict[str, str], cwd: str, streams: list[int]) -> NoReturn:
    """Run the command in this forked process, in its own session, so that Ctrl-C does not reach it."""
    status: Any = 1
    try:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.setsid()
        for number, file in enumerate(streams, 1):
            os.dup2(file, number)
        os.closerange(3, FILES)
        sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115 - open until this process ends
        sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
        sys.stderr = open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
        os.environ.clear()
        os.environ.update(env)
        time.tzset()
        os.chdir(cwd)
        sys.argv = ["uvtokend", *arguments]
        status = importlib.import_module("uvtokend.cli.main").main()
        sys.stdout.flush()
        sys.stderr.flush()
    except BaseException:  # noqa: BLE001 - this process must not continue as a second server
        traceback.print_exc()
        sys.stderr.flush()
    finally:
        os._exit(status)


if __name__ == "__main__":
    _serve(socket.socket(fileno=int(sys.argv[1])))

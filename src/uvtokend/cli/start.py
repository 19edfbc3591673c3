"""``uvtokend start``: the daemon in the background."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from uvtokend import paths
from uvtokend.cli import client, console, parser
from uvtokend.disk import configuration
from uvtokend.errors import FAILED, OK, NotRunning, UvtokendError
from uvtokend.service import manager

EXAMPLES = ("uvtokend start", "uvtokend start --wait 60 && uv sync")

#: Seconds between two looks at a daemon that starts.
_PAUSE = 0.03
#: The daemon's own output starts anew when it has grown to this.
_OUTPUT_LIMIT = 64 * 1024
#: What a daemon says that finds another in its place (`uvtokend.disk.locks`).
_OWNED = "already has an owner"


def arguments(own: argparse.ArgumentParser) -> None:
    """Add the arguments of this verb."""
    parser.add_wait(own)


def run(args: argparse.Namespace) -> int:
    """Start the daemon."""
    return start(args.config, args.wait)


def start(config_file: str | None, wait: float) -> int:
    """Start the daemon in the background, and return when it answers. Running already is success.

    Args:
        config_file: Another configuration file.
        wait: Seconds to wait for its answer.

    Raises:
        ConfigError: The configuration is wrong.
        UvtokendError: It could not start, and why.
    """
    if (running := _version()) is not None:
        console.say(f"uvtokend is running already (pid {running['pid']}).")
        return OK
    settings = configuration.load(config_file)
    deadline = time.monotonic() + wait
    unit = None if _wants_another(config_file) else manager.installed()
    if unit is None:
        child = _spawn(config_file)
        running = _await_answer(deadline, child.problem)
        child.yield_to(running)
    else:
        unit.start()
        running = _await_answer(deadline, lambda: None)
    if running is None:
        message = f"The daemon was started, but has not answered within {wait:g} s."
        raise UvtokendError(message, unit.why_command if unit else "uvtokend log")
    console.say(f"uvtokend is running (pid {running['pid']}).")
    if not settings.indexes:
        console.say("It waits for a configuration. Set one up with: uvtokend init")
    return OK


@dataclass(frozen=True, slots=True)
class _Child:
    """The daemon that we have started.

    Args:
        process: It.
        output: The file that its output is added to.
        begin: Where in that file its output begins, in bytes.
    """

    process: subprocess.Popen[bytes]
    output: str
    begin: int

    def problem(self) -> _StartFailedError | None:
        """Return why it ended, if it did."""
        status = self.process.poll()
        if status is None:
            return None
        with open(self.output, "rb") as file:
            file.seek(self.begin)
            said = file.read(_OUTPUT_LIMIT).decode(errors="replace").strip()
        return _StartFailedError(status, said)

    def yield_to(self, running: Any) -> None:
        """End it if another daemon was quicker: it must not take over later, when that one is stopped."""
        if running is not None and running["pid"] != self.process.pid:
            self.process.terminate()
            self.process.wait()


class _StartFailedError(UvtokendError):
    """The daemon ended at once.

    Args:
        status: Its exit status, or less than 0 for a signal.
        said: Its output.
    """

    def __init__(self, status: int, said: str) -> None:
        how = f"with status {status}" if status >= 0 else f"by signal {-status}"
        sentence = said.removeprefix("uvtokend: ") or f"it ended {how} and said nothing."
        message, _, hint = sentence.partition("\n  fix: ")
        super().__init__(f"The daemon could not start. {message}", hint or None)
        self.exit_status = max(FAILED, status)
        #: Another daemon was quicker, and will answer soon if it is one of this socket.
        self.overtaken = _OWNED in said


def _spawn(config_file: str | None) -> _Child:
    """Start the daemon in a session of its own; what it says before it has its log is added to ``daemon.log``."""
    folder = paths.state_folder()
    paths.private_folder(folder)
    output = os.path.join(folder, "daemon.log")
    # -P: nothing in the folder where a person happens to be may stand in for a module.
    command = [sys.executable, "-P", "-m", "uvtokend", "run", "--quiet"]
    if config_file is not None:
        command += ["--config", paths.config_file(config_file)]
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
    file = os.open(output, flags, 0o600)
    try:
        if os.fstat(file).st_size > _OUTPUT_LIMIT:
            os.ftruncate(file, 0)
        begin = os.fstat(file).st_size
        process = subprocess.Popen(  # noqa: S603 - ourselves
            command, stdin=subprocess.DEVNULL, stdout=file, stderr=file, start_new_session=True, cwd="/", env=_environ()
        )
    finally:
        os.close(file)
    return _Child(process, output, begin)


def _environ() -> dict[str, str]:
    """Return the daemon's environment: it works in ``/``, so paths that are relative to here become absolute."""
    names = {"UVTOKEND_CONFIG", "UVTOKEND_SOCKET", "NETRC"}
    return {
        name: os.path.abspath(os.path.expanduser(value)) if name in names and value else value
        for name, value in os.environ.items()
    }


def _wants_another(config_file: str | None) -> bool:
    """Tell whether another daemon is wanted than that of the installed service, which knows none of these."""
    return config_file is not None or any(os.environ.get(name) for name in ("UVTOKEND_CONFIG", "UVTOKEND_SOCKET"))


def _await_answer(deadline: float, problem: Callable[[], _StartFailedError | None]) -> Any:
    """Return what the daemon says of itself, or None after the deadline.

    Args:
        deadline: On the monotonic clock, in seconds.
        problem: Tells why our own child has ended, if it did.

    Raises:
        UvtokendError: That problem, unless another daemon answers.
    """
    while True:
        # In this order: another daemon that was quicker answers although our own child has ended.
        ended = problem()
        running = _version(max(0.1, min(client.SOON, deadline - time.monotonic())))
        if running is not None:
            return running
        late = time.monotonic() >= deadline
        if ended is not None and (late or not ended.overtaken):
            raise ended
        if late:
            return None
        time.sleep(_PAUSE)


def _version(timeout: float = client.SOON) -> Any:
    """Return what a running daemon says of itself, or None; raise NoAnswerError after so many seconds."""
    try:
        return client.call("version", timeout=timeout)
    except (NotRunning, client.HungUpError):
        return None

"""``uvtokend start``: start the daemon in the background, and wait for its first tokens."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import select
import subprocess
import sys
import time
from typing import Any, NamedTuple

from uvtokend import __version__, paths
from uvtokend.cli import client, console, parser
from uvtokend.core.document import under_way
from uvtokend.errors import FAILED, OK, USAGE, NotRunning, UvtokendError
from uvtokend.service import manager

EXAMPLES = ("uvtokend start", "uvtokend start --wait 60 && uv sync")
DETAILS = """\
Starts the daemon through the installed service, if there is one, waits until its first tokens are delivered or have
failed, and shows the status. If the daemon runs already, this is success, too. A daemon of another version, as after an
upgrade, is restarted."""

#: Seconds between two attempts to reach a daemon that another process starts.
_PAUSE = 0.05
#: Seconds to wait for the answer of another daemon that owns the netrc, before we try to start ours again.
_RETRY = 1.0
#: Seconds that the process gets to end. The kernel does not end a thread that waits for a file system that hangs.
_ENDS = 5.0
#: Seconds between two checks of the first tokens if no event happens meanwhile.
_LOOK = 0.5
#: The file of the daemon's own output is started again at this size, in bytes.
_OUTPUT_LIMIT = 64 * 1024


def arguments(own: argparse.ArgumentParser) -> None:
    """Add the arguments of this verb."""
    parser.add_wait(own)


def run(args: argparse.Namespace) -> int:
    """Start the daemon."""
    return start(args.config, args.wait)


def start(config_file: str | None, wait: float) -> int:
    """Start the daemon in the background, wait for its first tokens, and show the status.

    Args:
        config_file: Another configuration file.
        wait: Seconds to wait for its answer and for its first tokens, together.

    Raises:
        ConfigError: The configuration is invalid.
        UvtokendError: The daemon could not start.
    """
    deadline = time.monotonic() + wait
    running = _version(client.SOON)
    if running is not None and running["version"] == __version__:
        console.say(f"uvtokend is running already (pid {running['pid']}).")
    else:
        if running is not None:
            _check(config_file)
            console.say(f"The running daemon is version {running['version']}, this is {__version__}: it is restarted.")
            _end(running["pid"], config_file)
        running = _start(config_file, deadline, wait)
        console.say(f"uvtokend is running (pid {running['pid']}).")
    from uvtokend.cli import status  # noqa: PLC0415 - while the workers run

    status.show(_first_tokens(deadline), as_json=False, config=config_file)
    return OK


def _check(config_file: str | None) -> None:
    """Raise ConfigError if the configuration is invalid: a person reads every problem here, not in a log."""
    from uvtokend.disk import configuration  # noqa: PLC0415 - half of our imports, while the daemon starts already

    configuration.load(config_file)


def _end(pid: int, config_file: str | None) -> None:
    """Stop the daemon of another version."""
    from uvtokend.cli import stop  # noqa: PLC0415 - psutil takes longer than all the rest that is imported here

    stop.stop(config_file, pid)


def _start(config_file: str | None, deadline: float, wait: float) -> Any:
    """Start the daemon, and return the answer of the running one: ours, or one that was faster."""
    service = manager.installed()
    if service is not None and _wants_another(config_file, service):
        service = None
    with console.Progress("Starting the daemon") as progress:
        if service is None:
            running = _start_child(config_file, deadline, progress)
        else:
            _check(config_file)
            with console.Ticking("Starting the service"):
                service.start()
            running = _await_answer(deadline, progress)
    if running is None:
        message = f"The daemon was started, but did not answer within {wait:g} s."
        raise UvtokendError(message, service.why_command if service else "uvtokend log")
    return running


def _start_child(config_file: str | None, deadline: float, progress: console.Progress) -> Any:
    """Start a daemon of our own. Retry while another one owns the netrc and does not answer, because it is ending."""
    while True:
        child = _spawn(config_file)
        try:
            _check(config_file)  # on another core than the daemon's start
        except BaseException:
            child.end()
            raise
        failure = child.failure(deadline, progress)
        if failure is not None and not failure.overtaken:
            raise failure
        patience = deadline if failure is None else min(deadline, time.monotonic() + _RETRY)
        running = _await_answer(patience, progress)
        if running is not None:
            child.yield_to(running)
            return running
        if time.monotonic() >= deadline:
            _blame_owner(child, config_file)
            return None


def _blame_owner(child: _Child, config_file: str | None) -> None:
    """Raise UvtokendError if another daemon owns the netrc, but cannot be reached."""
    from uvtokend.cli import stop  # noqa: PLC0415 - psutil takes longer than all the rest that is imported here

    owner = stop.unreachable(config_file)
    if owner is not None and owner.pid != child.process.pid:
        child.process.terminate()  # it must not take over later
        message = (
            f"The netrc already has an owner: pid {owner.pid}, which does not answer at {paths.socket_file()}. "
            "If it is ending, it may need 20 s to save a one-time secret; a restart waits for that."
        )
        raise UvtokendError(message, "uvtokend restart")


# ------------------------------------------------------------------------------------------------ a child of ours


class _StartFailedError(UvtokendError):
    """The daemon ended before it was ready.

    Args:
        error: Its message, as an exception.
        status: Its exit status, if it is known.
        overtaken: Whether another daemon was faster, which will answer soon if it uses the same socket.
    """

    def __init__(self, error: UvtokendError, status: int | None, overtaken: bool) -> None:
        super().__init__(f"The daemon could not start. {error.message}", error.hint)
        self.exit_status = USAGE if status == USAGE else FAILED
        self.overtaken = overtaken


class _Child(NamedTuple):
    """The daemon that we have started.

    Args:
        process: The process.
        report: The end of the pipe to which it writes one line of JSON.
        output: The file that its output is appended to.
    """

    process: subprocess.Popen[bytes]
    report: int
    output: str

    def failure(self, deadline: float, progress: console.Progress) -> _StartFailedError | None:
        """Wait until the daemon is ready or has ended; return why it ended, or None.

        Args:
            deadline: The deadline on the monotonic clock, in seconds; afterwards the result is None, too.
            progress: The progress to show meanwhile.
        """
        said = b""
        try:
            while not said.endswith(b"\n"):
                progress.show()
                left = deadline - time.monotonic()
                if left <= 0:
                    return None
                if select.select([self.report], [], [], min(left, _LOOK))[0]:
                    chunk = os.read(self.report, 65536)
                    said += chunk
                    if not chunk:
                        break
        finally:
            os.close(self.report)
        return self._explained(said)

    def _explained(self, said: bytes) -> _StartFailedError | None:
        try:
            line = json.loads(said)
        except ValueError:
            line = {}
        if line.get("ready"):
            return None
        status = self._ended()
        if "code" in line:
            error = client.explained(line, "run")
            return _StartFailedError(error, status, overtaken=line.get("kind") == "AlreadyOwned")
        how = "" if status is None else f" with status {status}" if status >= 0 else f" by signal {-status}"
        silent = UvtokendError(f"It ended{how} before it was ready.", f"tail {paths.quoted(self.output)}")
        return _StartFailedError(silent, status, overtaken=False)

    def yield_to(self, running: Any) -> None:
        """End the process if another daemon was faster, so that it does not take over when that one is stopped."""
        if running is not None and running["pid"] != self.process.pid:
            self.end()

    def end(self) -> None:
        """End the process, and wait until it has ended."""
        self.process.terminate()
        self._ended()

    def _ended(self) -> int | None:
        """Wait for the exit status; None if the kernel does not end a thread that waits for a file system."""
        try:
            return self.process.wait(_ENDS)
        except subprocess.TimeoutExpired:
            return None


def _spawn(config_file: str | None) -> _Child:
    """Start the daemon in a session of its own. Its output before its log is open is appended to ``daemon.log``."""
    directory = paths.state_directory()
    paths.private_directory(directory)
    output = os.path.join(directory, "daemon.log")
    ours, theirs = os.pipe()
    # -P: a file in the current directory must not replace a module.
    command = [sys.executable, "-P", "-m", "uvtokend", "run", "--quiet", "--report-to", str(theirs)]
    if config_file is not None:
        command += ["--config", paths.config_file(config_file)]
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        file = _opened(output, flags)
        try:
            if os.fstat(file).st_size > _OUTPUT_LIMIT:
                os.ftruncate(file, 0)
            process = subprocess.Popen(  # noqa: S603 - ourselves
                command,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                start_new_session=True,
                cwd="/",
                env=_environ(),
                pass_fds=(theirs,),
            )
        finally:
            os.close(file)
    finally:
        os.close(theirs)
    return _Child(process, ours, output)


def _opened(output: str, flags: int) -> int:
    try:
        return os.open(output, flags, 0o600)
    except OSError as error:
        raise paths.unusable(error, output, f"The file {output} cannot be written") from error


def _environ() -> dict[str, str]:
    """Return the daemon's environment. It works in ``/``, so relative paths become absolute."""
    names = {"UVTOKEND_CONFIG", "UVTOKEND_SOCKET", "NETRC"}
    return {
        name: os.path.abspath(os.path.expanduser(value)) if name in names and value else value
        for name, value in os.environ.items()
    }


def _wants_another(config_file: str | None, service: manager.Service) -> bool:
    """Return whether this shell needs another daemon than that of the installed service.

    That daemon's socket, state or configuration may be in other directories than this shell's. systemd gets these
    directories from the login, like the shell; launchd has only those in its property list.
    """
    from uvtokend.service import environment  # noqa: PLC0415 - it knows all clouds, and most people have no service

    named = config_file is not None or any(os.environ.get(name) for name in ("UVTOKEND_CONFIG", "UVTOKEND_SOCKET"))
    known = service.variables
    return named or (
        known is not None and any((os.environ.get(name) or None) != known.get(name) for name in environment.PLACES)
    )


# ------------------------------------------------------------------------------------------------- what it answers


def _await_answer(deadline: float, progress: console.Progress) -> Any:
    """Return the daemon's `version` answer, or None after the deadline.

    Args:
        deadline: On the monotonic clock, in seconds.
        progress: Shown meanwhile.
    """
    while True:
        left = deadline - time.monotonic()
        running = None
        with contextlib.suppress(client.NoAnswerError):  # a daemon on a busy machine may answer the next time
            running = _version(max(0.1, min(client.SOON, left)))
        if running is not None or left <= 0:
            return running
        progress.show()
        time.sleep(_PAUSE)


def _version(timeout: float) -> Any:
    """Return the `version` answer of a running daemon, or None if there is no daemon or it is about to end.

    Raises:
        NoAnswerError: The daemon did not answer within the time limit.
    """
    try:
        version = client.call("version", timeout=timeout)
    except (NotRunning, client.HungUpError):
        return None
    return None if version.get("stopping") else version


def _first_tokens(deadline: float) -> dict[str, Any]:
    """Return the status once no first token is under way, or after the deadline.

    Args:
        deadline: On the monotonic clock, in seconds.
    """
    with client.Connection() as events, console.Progress("Waiting for the first tokens") as progress:
        events.call("events")
        while True:
            document: dict[str, Any] = client.call("status")
            todo = [index for index in document["indexes"] if under_way(index)]
            left = deadline - time.monotonic()
            if not todo or left <= 0:
                return document
            progress.show(f"{len(document['indexes']) - len(todo)} of {len(document['indexes'])}")
            if events.pending() or select.select([events.socket], [], [], min(left, _LOOK))[0]:
                events.read()

"""The client of the control socket: JSON-RPC 2.0, one object per line, with errors that explain themselves.

``uvtokend status`` starts near Python's own floor, so this module imports next to nothing: `socket` and `json` would
cost as much as Python's own start.
"""

from __future__ import annotations

import _socket
import os
import select
import time

from uvtokend import __version__, ask, paths, peers
from uvtokend.errors import INVALID_PARAMS, METHOD_NOT_FOUND, NotRunning, UsageError, UvtokendError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

#: Seconds to wait for an immediate answer of the daemon.
SOON = 5.0
#: Seconds to wait for fetches. Their own deadlines are shorter.
FETCHES = 1800.0
#: Seconds between two updates of the progress.
_LOOK = 0.5
#: Method -> the words for a person who waits for it.
_DOING = {"refresh": "Fetching new tokens", "credential": "Fetching a token"}
#: Seconds between two attempts to connect to a daemon that has not begun to listen.
_AGAIN = 0.02
#: The longest response in bytes; the daemon's own are shorter.
_LIMIT = 16 * 1024 * 1024


class NoAnswerError(UvtokendError):
    """A process listens on the control socket, but does not answer in time."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"The daemon has not answered within {seconds:g} s.", "uvtokend restart")


class HungUpError(UvtokendError):
    """The daemon disconnected before it answered."""

    def __init__(self) -> None:
        message = "The daemon disconnected before it answered: it was stopped, or it crashed."
        super().__init__(message, "uvtokend log")


class Connection:
    """One connection to the daemon. On a terminal, it shows progress if an answer takes longer than a second.

    Args:
        timeout: Seconds to wait for each answer.
        path: The control socket; by default that of this shell.

    Raises:
        NotRunning: No process listens on the socket.
        NoAnswerError: The daemon accepts no more clients.
        UvtokendError: The socket's directory is not private, or another user listens there.

    Attributes:
        pid: The daemon's process ID; 0 if it runs in a PID namespace that is not visible from here.
    """

    def __init__(self, timeout: float = SOON, path: str | None = None) -> None:
        path = path or paths.socket_file()
        paths.check_private(os.path.dirname(path))
        self.timeout = timeout
        self._doing = "Waiting for the daemon"
        self._rest = b""
        try:
            self.socket = _connected(path, timeout)
        except OSError as error:
            if isinstance(error, (FileNotFoundError, NotADirectoryError, ConnectionRefusedError)):
                message = "uvtokend is not running."
                raise NotRunning(message, "uvtokend start") from None
            if isinstance(error, (TimeoutError, BlockingIOError)):
                raise NoAnswerError(timeout) from None
            message = f"The control socket {path} cannot be reached: {error.strerror}."
            raise UvtokendError(message, f"ls -l {paths.quoted(path)}") from None
        self.pid, uid = peers.pid(self.socket), peers.uid(self.socket)
        if uid != os.geteuid():
            self.socket.close()
            message = f"Another user (uid {uid}) listens on the control socket {path}."
            raise UvtokendError(message, f"rm {paths.quoted(path)}")

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def call(self, method: str, params: dict[str, Any] | None = None) -> Any:
        """Call a method and return its result.

        Raises:
            UsageError: No index has one of those names.
            ConfigError: The daemon refuses the new configuration.
            NoAnswerError: The daemon did not answer in time.
            UvtokendError: The daemon refuses, has another version, or disconnected.
        """
        self._doing = _DOING.get(method, self._doing)
        try:
            self.socket.sendall(_request(method, params or {}))
        except TimeoutError:
            raise NoAnswerError(self.timeout) from None
        except OSError:
            pass  # the daemon has disconnected, perhaps after an answer
        answer = self.read()
        if "error" in answer:
            raise explained(answer["error"], method)
        return answer.get("result")

    def read(self) -> dict[str, Any]:
        """Return the next line from the daemon.

        Raises:
            NoAnswerError: No line came in time.
            HungUpError: The daemon disconnected.
            UvtokendError: The line is not from uvtokend.
        """
        while b"\n" not in self._rest:
            try:
                self._await_chunk()
                chunk = self.socket.recv(65536)
            except TimeoutError:
                raise NoAnswerError(self.timeout) from None
            except OSError:
                chunk = b""
            if not chunk:
                raise HungUpError
            self._rest += chunk
            if len(self._rest) > _LIMIT:
                raise _stranger()
        line, _, self._rest = self._rest.partition(b"\n")
        try:
            answer = ask.scanned(line)
        except ValueError:
            raise _stranger() from None
        if not isinstance(answer, dict):
            raise _stranger()
        return answer

    def _await_chunk(self) -> None:
        """Wait until there is something to read.

        Raises:
            TimeoutError: The answer takes too long.
        """
        deadline = time.monotonic() + self.timeout
        if self._may_read(deadline):
            return
        from uvtokend.cli.console import Progress  # noqa: PLC0415 - most answers come at once

        with Progress(self._doing, waited=_LOOK) as progress:
            while not self._may_read(deadline):
                if time.monotonic() >= deadline:
                    raise TimeoutError
                progress.show()

    def _may_read(self, deadline: float) -> bool:
        """Return whether there is something to read before the next update."""
        left = max(0.0, deadline - time.monotonic())
        return bool(select.select([self.socket], [], [], min(left, _LOOK))[0])

    def pending(self) -> bool:
        """Return whether a whole line has arrived already."""
        return b"\n" in self._rest


def _request(method: str, params: dict[str, Any]) -> bytes:
    """Return the line that calls a method."""
    told = "{}"
    if params:
        import json  # noqa: PLC0415 - most calls have no parameters

        told = json.dumps(params)
    return f'{{"jsonrpc": "2.0", "id": 1, "method": {ask.quoted(method)}, "params": {told}}}\n'.encode()


def _connected(path: str, timeout: float) -> _socket.socket:
    """Return a socket that is connected to the daemon.

    If a daemon holds the lock of its socket but refuses connections, it does not listen yet, or accepts no more
    clients: on macOS, a connection to a full queue is refused at once (xnu, bsd/kern/uipc_usrreq.c, unp_connect).

    Raises:
        OSError: The connection failed; TimeoutError after the time limit.
    """
    deadline = time.monotonic() + timeout
    while True:
        client = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
        client.settimeout(timeout)
        try:
            client.connect(path)
        except OSError as error:
            client.close()
            if not (isinstance(error, ConnectionRefusedError) and _is_held(f"{path}.lock")):
                raise
            if time.monotonic() >= deadline:
                raise TimeoutError from None
            time.sleep(_AGAIN)
        else:
            return client


def _is_held(lock: str) -> bool:
    """Return whether a process holds a lock."""
    import fcntl  # noqa: PLC0415 - only if no daemon answers

    try:
        file = os.open(lock, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(file)
    return False


def call(method: str, params: dict[str, Any] | None = None, timeout: float = SOON) -> Any:
    """Call one method of the daemon; see `Connection.call`.

    Args:
        method: A method of the control socket.
        params: Its parameters, by name.
        timeout: Seconds to wait for the answer.
    """
    with Connection(timeout) as connection:
        return connection.call(method, params)


def names(chosen: list[str]) -> dict[str, Any]:
    """Return the parameter with the names of indexes; no names means all."""
    return {"names": chosen} if chosen else {}


def unknown(missing: list[str], known: list[str]) -> UsageError:
    """Return the error about unknown index names, with the known ones."""
    message = f"Unknown index {', '.join(map(repr, missing))}. " + (
        f"Configured: {', '.join(known)}." if known else "No index is configured."
    )
    if known:
        return UsageError(message)
    return UsageError(f"{message} If init recognizes no provider for it, see: uvtokend add --help", "uvtokend init")


def _stranger() -> UvtokendError:
    return UvtokendError("The program that answers on the control socket is not uvtokend.", "uvtokend restart")


def explained(error: Any, method: str) -> UvtokendError:
    """Return the exception for a JSON-RPC error of the daemon.

    Args:
        error: Its ``code``, ``message`` and ``data``.
        method: The method that was called.
    """
    try:
        code, message, data = error["code"], str(error["message"]), error.get("data") or {}
        if code == INVALID_PARAMS and "unknown" in data:
            return unknown([str(name) for name in data["unknown"]], [str(name) for name in data["known"]])
        if "problems" in data:
            return _refused(data["problems"])
        if code == METHOD_NOT_FOUND:
            return _skew(method)
        return UvtokendError(message, data.get("hint"))
    except (KeyError, TypeError, AttributeError):
        return _stranger()


def _refused(problems: list[dict[str, str]]) -> UvtokendError:
    from uvtokend.core.model import Problem  # noqa: PLC0415 - the data types cost too much for the usual case
    from uvtokend.errors import ConfigError  # noqa: PLC0415

    return ConfigError(
        [Problem(str(bad["file"]), str(bad["where"]), str(bad["message"]), str(bad["hint"])) for bad in problems]
    )


def _skew(method: str) -> UvtokendError:
    running = call("version").get("version")
    message = f"The running daemon is version {running}, this is {__version__}: it does not know {method!r}."
    return UvtokendError(message, "uvtokend restart")

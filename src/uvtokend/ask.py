"""Ask the daemon for the credential of a URL, at next to no cost: for the `keyring` command and the keyring backend.

uv starts a ``keyring`` for every index and every run, so this module must cost next to nothing beside Python's own
start. `socket` and `json` would double it; CPython's own ``_socket`` and ``_json``, on which they stand, do not.

A fetch may take a while, but a daemon that has stopped must be noticed: when an answer takes more than `QUICK`, a
second connection asks for the version, which a living daemon answers at once.
"""

from __future__ import annotations

import _json
import _socket
import os

from uvtokend import paths, peers
from uvtokend.errors import NotRunning, UvtokendError

#: Seconds that a living daemon takes at most for what it knows. Two of them are the longest time that nobody answers.
QUICK = 0.8
#: How often to look whether the daemon still lives. Its own patience ends sooner.
_ROUNDS = 40
#: The longest URL that can be meant, and the longest response, in bytes.
_LONGEST = 8192
_LIMIT = 1 << 20
_NO_MATCH = -32002

#: Set in the environment of every worker, and so of every program that it starts.
IN_WORKER = "UVTOKEND_IN_WORKER"

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class NoTokenError(UvtokendError):
    """The URL belongs to an index of ours, which has no valid token; the message says why."""


class ServedCredential:
    """A credential.

    Attributes:
        login: The user name.
        token: The token.
        expires_at: When it expires, as RFC 3339 in UTC; None if that is not known.
    """

    def __init__(self, login: str, token: str, expires_at: str | None) -> None:
        self.login = login
        self.token = token
        self.expires_at = expires_at


def credential(url: str, username: str | None, shim: bool = False) -> ServedCredential | None:
    """Return the credential for a URL; None if it belongs to no index, or its login is another one.

    Args:
        url: A URL, or a bare host; it may be hostile.
        username: The login that it must have; None for any.
        shim: We only ask for the process above us.

    Raises:
        NoTokenError: It belongs to an index that has no valid token.
        NotRunning: No daemon runs.
        UvtokendError: The daemon does not answer, or cannot be trusted.
    """
    if len(url) > _LONGEST or not (url.isascii() and url.isprintable()):
        return None  # as `url_match.asked_url` would say
    if username is not None and len(username) > _LONGEST:
        return None  # nobody's login; the daemon would refuse the line
    if IN_WORKER in os.environ:
        return None  # the daemon waits for this very process: an answer would wait for itself
    name = "null" if username is None else quoted(username)
    params = f'{{"url": {quoted(url)}, "username": {name}, "shim": {str(shim).lower()}}}'
    response = _call("credential", params, _ROUNDS)
    error = response.get("error")
    if isinstance(error, dict) and error.get("code") == _NO_MATCH:
        return None
    if isinstance(error, dict):
        raise NoTokenError(str(error.get("message")), (error.get("data") or {}).get("hint"))
    result = response.get("result")
    if not isinstance(result, dict) or not all(isinstance(result.get(key), str) for key in ("login", "token")):
        raise _stranger()
    return ServedCredential(result["login"], result["token"], result.get("expires_at"))


def _call(method: str, params: str, rounds: int) -> dict[str, Any]:
    """Send one request and return the response; look for a sign of life after each of so many rounds but the last."""
    with _connected() as connection:
        line = f'{{"jsonrpc": "2.0", "id": 1, "method": "{method}", "params": {params}}}\n'
        received = b""
        try:
            connection.sendall(line.encode())
            while not received.endswith(b"\n") and len(received) < _LIMIT:
                try:
                    chunk = connection.recv(65536)
                except TimeoutError:
                    rounds -= 1
                    if not rounds:
                        raise
                    _call("version", "{}", 1)
                    continue
                if not chunk:
                    raise ConnectionResetError
                received += chunk
        except TimeoutError:
            message = "The uvtokend daemon does not answer."
            raise UvtokendError(message, "uvtokend restart") from None
        except OSError:
            message = "The uvtokend daemon stopped before it answered."
            raise UvtokendError(message, "uvtokend start") from None
    return _decoded(received)


class _connected:  # noqa: N801 - used as a function; contextlib would cost a tenth of Python's own start
    """A connection to the daemon of this user."""

    def __enter__(self) -> _socket.socket:
        path = paths.socket_file()
        paths.check_private(os.path.dirname(path))
        self._connection = connection = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
        connection.settimeout(QUICK)
        try:
            connection.connect(path)
        except (FileNotFoundError, NotADirectoryError, ConnectionRefusedError):
            connection.close()
            message = "uvtokend is not running."
            raise NotRunning(message, "uvtokend start") from None
        except OSError as error:
            connection.close()
            message = f"The control socket {path} cannot be reached: {error.strerror or 'it does not answer'}."
            raise UvtokendError(message, "uvtokend restart") from None
        if peers.uid(connection) != os.geteuid():
            connection.close()
            message = f"Another user listens on the control socket {path}."
            raise UvtokendError(message, f"rm {paths.quoted(path)}")
        return connection

    def __exit__(self, *_: object) -> None:
        self._connection.close()


class _Plain:
    """How to read JSON: as `json.loads` does by default."""

    strict = True
    object_hook = object_pairs_hook = None
    parse_float = parse_constant = float
    parse_int = int


def scanned(line: bytes) -> Any:
    """Return what a line of JSON holds. The json package, with its regular expressions, costs half of Python's start.

    Raises:
        ValueError: It is not JSON.
    """
    try:
        value, _ = _json.make_scanner(_Plain())(line.decode(), 0)  # type: ignore[arg-type]  # reads attributes
    except (StopIteration, RecursionError):
        raise ValueError from None
    return value


def _decoded(line: bytes) -> dict[str, Any]:
    try:
        response = scanned(line)
    except ValueError:
        raise _stranger() from None
    if not isinstance(response, dict):
        raise _stranger()
    return response


def say(error: UvtokendError) -> None:
    """Print one line on standard error: what happened, and the fix."""
    fix = f" fix: {error.hint}" if error.hint else ""
    text = f"uvtokend: {error.message}{fix}"
    line = "".join(each if each.isprintable() else "?" for each in text) + "\n"
    try:
        os.write(2, line.encode(errors="replace"))
    except OSError:
        return  # nobody reads it


def quoted(text: str) -> str:
    """Return a text as JSON."""
    return str(_json.encode_basestring_ascii(text))


def _stranger() -> UvtokendError:
    return UvtokendError("The program on the control socket is not uvtokend.", "uvtokend restart")

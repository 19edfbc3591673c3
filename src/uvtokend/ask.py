"""Ask the daemon for the credential of a URL, at the least cost: for the `keyring` command and the keyring backend.

uv starts a ``keyring`` for every index and every run, so this module must cost next to nothing compared with Python's
own start. `socket` and `json` would double that time; CPython's own ``_socket`` and ``_json``, on which they are built,
do not.

A fetch may take a while, but a daemon that hangs must be noticed: if an answer takes more than `QUICK` seconds, a
second connection asks for the version, which a working daemon answers at once.
"""

from __future__ import annotations

import _json
import _socket
import os

from uvtokend import paths, peers
from uvtokend.errors import NO_MATCH, NotRunning, UvtokendError

#: The most seconds that a working daemon takes for an immediate answer. Twice that is the longest silence.
QUICK = 0.8
#: How often to check whether the daemon still works. Its own limit is shorter.
_ROUNDS = 40
#: The longest URL and the longest response, in bytes.
_LONGEST = 8192
_LIMIT = 1 << 20

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
    """Return the credential for a URL; None if the URL belongs to no index, or the index has another login.

    Args:
        url: A URL, or a bare host; it may be hostile.
        username: The login that the credential must have; None for any.
        shim: Whether this process asks only on behalf of its parent.

    Raises:
        NoTokenError: The URL belongs to an index without a valid token.
        NotRunning: No daemon runs.
        UvtokendError: The daemon does not answer, or cannot be trusted.
    """
    if len(url) > _LONGEST or not (url.isascii() and url.isprintable()):
        return None  # as in `url_match.asked_url`
    if username is not None and len(username) > _LONGEST:
        return None  # too long for a login; the daemon would refuse the line
    if IN_WORKER in os.environ:
        return None  # the daemon waits for this process: a deadlock
    name = "null" if username is None else quoted(username)
    params = f'{{"url": {quoted(url)}, "username": {name}, "shim": {str(shim).lower()}}}'
    response = _call("credential", params, _ROUNDS)
    error = response.get("error")
    if isinstance(error, dict) and error.get("code") == NO_MATCH:
        return None
    if isinstance(error, dict):
        raise NoTokenError(str(error.get("message")), (error.get("data") or {}).get("hint"))
    result = response.get("result")
    if not isinstance(result, dict) or not all(isinstance(result.get(key), str) for key in ("login", "token")):
        raise _stranger()
    return ServedCredential(result["login"], result["token"], result.get("expires_at"))


def _call(method: str, params: str, rounds: int) -> dict[str, Any]:
    """Send one request and return the response. After each round but the last, check whether the daemon still works."""
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
    """The settings to parse JSON like `json.loads`."""

    strict = True
    object_hook = object_pairs_hook = None
    parse_float = parse_constant = float
    parse_int = int


def scanned(line: bytes) -> Any:
    """Return the content of a line of JSON. The json package, with its regular expressions, costs half of Python's
    start.

    Raises:
        ValueError: The line is not JSON.
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
        return  # the reader has closed it


def quoted(text: str) -> str:
    """Return a text as JSON."""
    return str(_json.encode_basestring_ascii(text))


def _stranger() -> UvtokendError:
    return UvtokendError("The program on the control socket is not uvtokend.", "uvtokend restart")

"""Encode and decode messages: the lines between the daemon and a worker, and those of the control socket.

All input is treated as hostile: sizes are bounded, and no unexpected exception escapes.

A worker answers each request with one line, which may begin with white space: ``{"credential": {…}}`` or
``{"failure": {…}}``. With ``"again": true`` it can take another request, which is one line, too. The control socket
uses JSON-RPC 2.0 (https://www.jsonrpc.org/specification), one object per line.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, cast, get_args

from uvtokend.core.model import Credential, Failure, FailureKind, Json, Notice, Request, Secret, SignInEnd
from uvtokend.core.rfc3339 import parse_zulu, zulu
from uvtokend.errors import INVALID_PARAMS, INVALID_REQUEST, PARSE_ERROR

#: Enough for a token of 16 KiB, quoted, with its identity and times.
WORKER_LIMIT = 64 * 1024
CONTROL_LIMIT = 64 * 1024

#: The start of Unix time, and a time with room after it for clock changes: a later end counts as no end.
_EPOCH, _NEVER = datetime(1970, 1, 1, tzinfo=UTC), datetime(9000, 1, 1, tzinfo=UTC)


# ---------------------------------------------------------------------------------------------------------- worker


def encode_request(request: Request) -> str:
    """Return a request as the worker reads it. It contains references to secrets, never secrets."""
    return json.dumps([request.provider, request.service, request.options, request.env])


def decode_request(text: str) -> Request:
    """Return the request that `encode_request` wrote."""
    provider, service, options, env = json.loads(text)
    return Request(provider, service, _tuples(options), _tuples(env))


def _tuples(value: Any) -> Any:
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value


def encode_order(request: Request, seconds: float) -> bytes:
    """Return the line that gives a request to a worker that has answered another one.

    Args:
        request: The request.
        seconds: Seconds until the daemon kills the worker.
    """
    return json.dumps([encode_request(request), seconds]).encode() + b"\n"


def decode_order(line: bytes) -> tuple[Request, float]:
    """Return the request and the seconds that `encode_order` wrote."""
    request, seconds = json.loads(line)
    return decode_request(request), float(seconds)


def encode_answer(outcome: Credential | Failure, again: bool = False) -> bytes:
    """Return a worker's answer as one line.

    Args:
        outcome: The outcome of the fetch.
        again: Whether the worker can take another request.
    """
    more = {"again": True} if again else {}
    if isinstance(outcome, Failure):
        failure = {
            "kind": outcome.kind,
            "reason": outcome.reason,
            "message": outcome.message,
            "hint": outcome.hint,
            "retry_after": outcome.retry_after,
        }
        return json.dumps({"failure": failure, **more}).encode() + b"\n"
    end, notice = outcome.sign_in_end, outcome.notice
    credential = {
        "login": outcome.login,
        "password": outcome.password.reveal(),
        "issued_at": zulu(outcome.issued_at),
        "expires_at": zulu(outcome.expires_at),
        "refresh_after": zulu(outcome.refresh_after),
        "identity": outcome.identity,
        "renew": outcome.renew,
        "skew": outcome.skew,
        "sign_in_end": None if end is None else {"name": end.name, "at": zulu(end.at), "command": end.command},
        "notice": None if notice is None else {"reason": notice.reason, "message": notice.message, "hint": notice.hint},
    }
    return json.dumps({"credential": credential, **more}).encode() + b"\n"


def decode_answer(line: bytes) -> Credential | Failure:
    """Return the outcome in a worker's answer. An invalid line is a failure whose message repeats nothing of it."""
    return decode_reply(line)[0]


def decode_reply(line: bytes) -> tuple[Credential | Failure, bool]:
    """Return the outcome as `decode_answer` does, and whether the worker can take another request."""
    try:
        message = _load(line)
        outcome = _failure(message["failure"]) if "failure" in message else _credential(message["credential"])
        return outcome, message.get("again") is True
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
        return Failure("rejected", "garbage", "The provider's answer is not a credential."), False


def _failure(raw: dict[str, Any]) -> Failure:
    if raw["kind"] not in get_args(FailureKind):
        raise ValueError(raw["kind"])
    retry_after = raw.get("retry_after")
    hint = raw.get("hint")
    return Failure(
        cast("FailureKind", raw["kind"]),
        _line(raw["reason"]),
        _line(raw["message"]),
        None if hint is None else _line(hint),
        None if retry_after is None else _finite(retry_after),
    )


def _credential(raw: dict[str, Any]) -> Credential:
    issued = _time(raw["issued_at"])
    if issued is None or not isinstance(raw["login"], str) or not isinstance(raw["password"], str):
        raise ValueError
    identity, renew, skew = raw.get("identity"), raw.get("renew"), raw.get("skew")
    return Credential(
        raw["login"],
        Secret(raw["password"]),
        issued,
        _time(raw["expires_at"]),
        _time(raw.get("refresh_after")),
        None if identity is None else _line(identity),
        None if renew is None else _line(renew),
        None if skew is None else _finite(skew),
        _sign_in_end(raw.get("sign_in_end")),
        _notice(raw.get("notice")),
    )


def _sign_in_end(raw: dict[str, Any] | None) -> SignInEnd | None:
    at = None if raw is None else _time(raw["at"])
    return None if raw is None or at is None else SignInEnd(_line(raw["name"]), at, _line(raw["command"]))


def _notice(raw: dict[str, Any] | None) -> Notice | None:
    if raw is None:
        return None
    hint = raw.get("hint")
    return Notice(_line(raw["reason"]), _line(raw["message"]), None if hint is None else _line(hint))


def _time(raw: object) -> datetime | None:
    time = parse_zulu(raw)
    if time is not None and time < _EPOCH:
        raise ValueError
    return None if time is None or time >= _NEVER else time


def _line(text: object) -> str:
    """Return a text without line breaks and other control characters, of a readable length."""
    line = str(text)[:1000]
    return line if line.isprintable() else "".join(char if char.isprintable() else " " for char in line)


# --------------------------------------------------------------------------------------------------------- control


@dataclass(frozen=True, slots=True)
class Command:
    """One valid line of a control client.

    Args:
        id: The ID that the answer repeats.
        method: The name of the method.
        params: The parameters, by name.
        notification: Whether the line has no ID, so that it gets no answer (JSON-RPC 2.0, section 4.1).
    """

    id: Json
    method: str
    params: dict[str, Json]
    notification: bool = False


@dataclass(frozen=True, slots=True)
class Invalid:
    """One invalid line of a control client, and its answer.

    Args:
        id: The ID that the answer repeats.
        code: The JSON-RPC code.
        message: What is wrong with the line.
        notification: As in `Command`. A line that is not a request at all is answered.
    """

    id: Json
    code: int
    message: str
    notification: bool = False


def decode_command(line: bytes) -> Command | Invalid:
    """Return the command in one control line."""
    try:
        raw = _load(line)
    except (ValueError, RecursionError):
        return Invalid(None, PARSE_ERROR, "This line is not JSON.")
    if not isinstance(raw, dict):
        return Invalid(None, INVALID_REQUEST, "A request is one JSON object.")
    id_ = raw.get("id")
    if not isinstance(id_, str | int | float | None) or isinstance(id_, bool):
        return Invalid(None, INVALID_REQUEST, "An id is a text, a number or null.")
    method, params, notification = raw.get("method"), raw.get("params", {}), "id" not in raw
    if raw.get("jsonrpc") != "2.0" or not isinstance(method, str):
        return Invalid(id_, INVALID_REQUEST, 'A request has "jsonrpc": "2.0" and a "method".')
    if not isinstance(params, dict):
        return Invalid(id_, INVALID_PARAMS, "Parameters are given by name.", notification)
    return Command(id_, method, params, notification)


class Encoded(str):
    """A result that is JSON already."""

    __slots__ = ()


def encode_result(id_: Json, result: Json | Encoded) -> bytes:
    """Return the line that answers a request."""
    if isinstance(result, Encoded):
        return f'{{"jsonrpc": "2.0", "id": {json.dumps(id_)}, "result": {result}}}\n'.encode()
    return _dump({"jsonrpc": "2.0", "id": id_, "result": result})


def encode_error(id_: Json, code: int, message: str, data: Json = None) -> bytes:
    """Return the line that refuses a request."""
    error: dict[str, Json] = {"code": code, "message": message}
    if data is not None:
        error["data"] = data
    return _dump({"jsonrpc": "2.0", "id": id_, "error": error})


def encode_event(event: Json) -> bytes:
    """Return the line that reports an event to a listener."""
    return _dump({"jsonrpc": "2.0", "method": "event", "params": event})


def _load(line: bytes) -> Any:
    """Parse JSON strictly by RFC 8259. Python's own parser also accepts ``NaN``, which breaks arithmetic.

    A number that is too large is refused, too: Python reads it as infinite, and an ID written back as that is not JSON.
    """
    text = line.decode().strip(" \t\r\n")
    value, end = _DECODER.raw_decode(text)
    if end != len(text):
        raise ValueError
    return value


def _finite(raw: Any) -> float:
    number = float(raw)
    if not math.isfinite(number):
        raise ValueError
    return number


#: `json.loads` makes a decoder each time that it is called with options.
_DECODER = json.JSONDecoder(parse_constant=_finite, parse_float=_finite)


def _dump(message: Json) -> bytes:
    return json.dumps(message).encode() + b"\n"

"""Hostile lines for both protocols: none may raise, none may be repeated in a response,
and none may block other clients.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from uvtokend.core import agent, lease, url_match, wire
from uvtokend.core.model import Credential, Failure, Json, Request
from uvtokend.core.wire import Command, Invalid
from uvtokend.daemon.answers import NoMatchError
from uvtokend.daemon.control import ControlServer, UnknownNamesError
from uvtokend.daemon.processes import Process
from uvtokend.errors import UvtokendError

#: A secret that no message may contain.
CANARY = "canary-5ecret"
NOW = datetime(2026, 1, 31, 8, tzinfo=UTC)
#: Seconds after which a server that does not answer counts as blocked.
PATIENCE = 60.0

CONTROL: dict[str, Json] = {"jsonrpc": "2.0", "id": 1, "method": "status", "params": {"names": ["prod"]}}
METHODS = (
    *("status", "refresh", "credential", "reload", "stop", "version", "events", "nothing", ""),
    *("__class__", "status\n"),
)
CREDENTIAL: dict[str, Json] = {
    "login": "aws",
    "password": CANARY,
    "issued_at": "2026-01-31T08:00:00Z",
    "expires_at": "2026-01-31T20:00:00Z",
    "refresh_after": None,
    "identity": "arn",
    "renew": None,
    "skew": 0.5,
}
FAILURE: dict[str, Json] = {
    "kind": "transient",
    "reason": "throttled",
    "message": "Slower.",
    "hint": None,
    "retry_after": 3,
}
#: Raw JSON values; some are accepted only by Python.
VALUES = (
    *("null", "true", "0", "-1", "1e999", "-1e999", "1e308", "9" * 400, "9" * 5000, "NaN", "Infinity", '""', '"x"'),
    *('"\\ud800"', '"\\u0000"', '"a\\nb\\u001b[2J"', "[]", "{}", '[["prod"]]', '["prod", 7]', "[" * 500 + "]" * 500),
    *('{"a": 1, "a": 2}', '"2026-02-30T00:00:00Z"', '"0001-01-01T00:00:00Z"', '"9999-12-31T23:59:59Z"'),
    *('"1969-12-31T23:59:59+23:59"', '"2026-01-31T08:00:00"', '"2026-01-31T08:00:00.123456789Z"', '"soon"', "x", ""),
    f'"{"y" * 20000}"',
)


#: Sent right after a notification, which gets no response: the first response must be to this.
AFTER = b'{"jsonrpc": "2.0", "id": "after", "method": "version"}\n'


def line(dice: random.Random, kind: str) -> bytes:
    """Return a line of a hostile sender.

    Args:
        dice: The random numbers.
        kind: ``control`` or ``worker``.
    """
    chance = dice.random()
    if chance < 0.1:
        return dice.randbytes(dice.randint(0, 200))
    if chance < 0.12:
        return dice.choice([b"[", b'{"a":', b'{"params":[']) * dice.choice([10, 1000, 20000])
    text = _document(dice, kind)
    if chance < 0.5:
        return text.encode()
    raw = bytearray(text.encode())
    for _ in range(dice.randint(1, 4)):
        at = dice.randrange(len(raw) + 1)
        match dice.randrange(4):
            case 0:
                del raw[at : at + dice.randint(1, 10)]
            case 1:
                raw[at:at] = dice.randbytes(dice.randint(1, 4))
            case 2:
                raw[at:at] = dice.choice(VALUES).encode()
            case _:
                raw[at : at + 1] = dice.choice([b'"', b"{", b"}", b"[", b"]", b",", b":", b"\\", b"\xff", b"\0"])
    return bytes(raw)


def _document(dice: random.Random, kind: str) -> str:
    """Return an object that is valid except for a few of its values."""
    if kind == "control":
        members = {name: json.dumps(value) for name, value in CONTROL.items()}
        members["method"] = json.dumps(dice.choice(METHODS))
        inside = {"names": '["prod"]', "wait": "false", CANARY: f'"{CANARY}"'}
        chosen = dice.sample(sorted(inside), dice.randint(0, 3))
        members["params"] = _object({name: inside[name] for name in chosen}, dice)
        return _object(members, dice)
    name, values = dice.choice([("credential", CREDENTIAL), ("failure", FAILURE)])
    members = {name: _object({key: json.dumps(value) for key, value in values.items()}, dice)}
    if dice.random() < 0.5:
        members["again"] = dice.choice(["true", *VALUES])
    if dice.random() < 0.1:
        members |= {"credential": json.dumps(CREDENTIAL), "failure": dice.choice(VALUES)}
    return _object(members, dice)


def _object(members: dict[str, str], dice: random.Random) -> str:
    changed = dict(members)
    for name in members:
        chance = dice.random()
        if chance < 0.02:
            del changed[name]
        elif chance < 0.1:
            changed[name] = dice.choice(VALUES)
    return "{" + ", ".join(f"{json.dumps(name)}: {value}" for name, value in changed.items()) + "}"


class Lines:
    """Decode hostile lines and check the results.

    Args:
        dice: The random numbers.

    Attributes:
        broken: The broken laws, with the lines.
        counts: How many lines of which kind there were.
    """

    def __init__(self, dice: random.Random) -> None:
        self.dice = dice
        self.broken: list[str] = []
        self.counts: Counter[str] = Counter()

    def judge_control(self) -> None:
        """Decode one line of a control client."""
        sent = line(self.dice, "control")
        self.counts["control lines"] += 1
        self._guarded(sent, lambda: self._control(wire.decode_command(sent), sent))

    def _control(self, decoded: Command | Invalid, sent: bytes) -> None:
        self.counts["control lines that are commands"] += isinstance(decoded, Command)
        if isinstance(decoded, Invalid):
            answer = wire.encode_error(decoded.id, decoded.code, decoded.message)
            self._law("an error message does not repeat the line", CANARY not in decoded.message, sent)
        else:
            answer = wire.encode_result(decoded.id, {})
        self._law("a response is one line", answer.count(b"\n") == 1, sent)
        strict(answer)

    def judge_worker(self) -> None:
        """Decode one line of a worker, and pass it to a lease."""
        sent = line(self.dice, "worker")
        self.counts["worker lines"] += 1
        self._guarded(sent, lambda: self._worker(wire.decode_answer(sent), sent))
        self._guarded(sent, lambda: self._reply(*wire.decode_reply(sent), sent))

    def _reply(self, decoded: Credential | Failure, again: bool, sent: bytes) -> None:
        garbage = isinstance(decoded, Failure) and decoded.reason == "garbage"
        self.counts["worker lines after which a worker gets another request"] += again
        self._law("a worker that answers nonsense gets no other request", not (again and garbage), sent)
        self._law("a worker gets another request only if it says so", not again or b"true" in sent, sent)

    def _worker(self, decoded: Credential | Failure, sent: bytes) -> None:
        self.counts["worker lines that are credentials"] += isinstance(decoded, Credential)
        self._law("a secret is in no repr", CANARY not in repr(decoded), sent)
        outcome = agent.admit(decoded, "a.example", NOW)
        self._law("a refusal contains no secret", CANARY not in repr(outcome), sent)
        fetching = lease.ask(lease.Lease(Request("p")), NOW)
        if isinstance(outcome, Credential):
            due = lease.fetched(fetching, outcome, NOW, self.dice.random()).act_at
        else:
            due = lease.failed(fetching, outcome, NOW, self.dice.random()).act_at
            said = (outcome.message, outcome.hint or "", outcome.reason)
            self._law("a message is printable", all(text.isprintable() for text in said), sent)
        self._law("the lease acts again, and later than now", due is not None and due > NOW, sent)

    def _guarded(self, sent: bytes, judge: Callable[[], None]) -> None:
        try:
            judge()
        except Exception as error:  # noqa: BLE001 - any exception is a finding
            self.broken.append(f"{type(error).__name__}: {error}, with {sent[:300]!r}")

    def _law(self, law: str, holds: bool, sent: bytes) -> None:
        if not holds:
            self.broken.append(f"not so: {law}, with {sent[:300]!r}")


def strict(answer: bytes) -> Any:
    """Parse JSON strictly, which Python's parser does not do by default."""

    def refuse(constant: str) -> None:
        message = f"{constant} is not JSON"
        raise ValueError(message)

    return json.loads(answer, parse_constant=refuse)


class _Handler:
    """A daemon with one index."""

    async def status(self, names: list[str] | None) -> dict[str, Json]:
        if names and names != ["prod"]:
            raise UnknownNamesError([name for name in names if name != "prod"], ["prod"])
        return {"indexes": []}

    async def refresh(self, names: list[str] | None, wait: bool) -> dict[str, Json]:
        return {**await self.status(names), "wait": wait}

    async def credential(
        self, url: str, username: str | None, _min_life: float | None, _asker: Process, _name: str | None = None
    ) -> dict[str, Json]:
        if url_match.asked_url(url) is None:
            raise NoMatchError
        return {"login": username, "token": "t", "expires_at": None}

    async def reload(self) -> dict[str, Json]:
        return {"ok": True}

    def stop(self) -> dict[str, Json]:
        raise UvtokendError("Not now.")

    def version(self) -> dict[str, Json]:
        return {"version": "1"}

    def listen(self, _listener: Callable[[dict[str, Json]], None]) -> Callable[[], None]:
        return lambda: None


def against_server(dice: random.Random, samples: int, directory: Path) -> list[str]:
    """Send hostile lines over the real socket of a real server, and return what went wrong.

    Args:
        dice: The random numbers.
        samples: The number of lines.
        directory: An empty directory with a short path.
    """
    broken: list[str] = []
    shares = [samples // 8 + (number < samples % 8) for number in range(8)]

    async def main() -> None:
        path = str(directory / "s")
        server = ControlServer(path, _Handler())
        await server.open()
        try:
            dices = [random.Random(dice.randrange(2**32)) for _ in shares]
            crowd = [_attack(path, mine, share, broken) for mine, share in zip(dices, shares, strict=True)]
            await asyncio.wait_for(asyncio.gather(*crowd), PATIENCE * 10)
        finally:
            await server.close()

    asyncio.run(main())
    return broken


async def _attack(path: str, dice: random.Random, lines: int, broken: list[str]) -> None:
    writer: asyncio.StreamWriter | None = None
    for _ in range(lines):
        sent = line(dice, "control").replace(b"\n", b" ")
        if writer is None:
            reader, writer = await asyncio.open_unix_connection(path, limit=1 << 20)
        hang_up = dice.random() < 0.1
        command = wire.decode_command(sent)
        quiet = command.notification and not hang_up and len(sent) < wire.CONTROL_LIMIT
        try:
            writer.write(sent if hang_up else sent + b"\n")
            if quiet and isinstance(command, Command) and command.method == "events":
                writer.close()
                writer = None
                continue
            if quiet:
                writer.write(AFTER)
            if hang_up and dice.random() < 0.5:
                writer.close()
                writer = None
                continue
            if hang_up:
                writer.write_eof()
            answer = await asyncio.wait_for(reader.readline(), PATIENCE)
        except (ConnectionError, TimeoutError) as error:
            broken.append(f"{type(error).__name__} after {sent[:300]!r}")
            writer = None
            continue
        problem = _problem(answer, silent=hang_up and not sent.strip())
        if quiet and b'"id": "after"' not in answer:
            problem = "a notification is answered"
        if problem:
            broken.append(f"{problem} after {sent[:300]!r}: {answer[:300]!r}")
        if hang_up or len(sent) >= wire.CONTROL_LIMIT or b'"ok": true' in answer:
            writer.close()
            writer = None
        if not await _alive(path):
            broken.append(f"the server does not answer after {sent[:300]!r}")
    if writer is not None:
        writer.close()


def _problem(answer: bytes, silent: bool) -> str | None:
    if not answer:
        return None if silent else "no answer"
    try:
        response = strict(answer)
    except ValueError:
        return "the response is not JSON"
    if response.get("jsonrpc") != "2.0" or ("result" in response) == ("error" in response):
        return "the response is not JSON-RPC"
    return "a secret is repeated" if CANARY in json.dumps(response) else None


async def _alive(path: str) -> bool:
    reader, writer = await asyncio.open_unix_connection(path)
    writer.write(b'{"jsonrpc": "2.0", "id": 1, "method": "version"}\n')
    answer = b""
    with contextlib.suppress(TimeoutError):
        answer = await asyncio.wait_for(reader.readline(), PATIENCE)
    writer.close()
    return b'"result"' in answer

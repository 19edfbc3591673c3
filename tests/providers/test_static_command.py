"""The providers static and command."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import shlex
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from support.loopback import CANARY, asked, quiet
from support.waiting import runs, until
from uvtokend.core.model import Credential, Failure, Frozen
from uvtokend.daemon.worker import Outcome, Workers
from uvtokend.errors import FetchFailed
from uvtokend.providers import command, static


def from_script(script: str) -> Credential:
    """Fetch from a shell script."""
    return command.fetch(asked("command", command=("sh", "-c", script)))


def answered(**members: object) -> Credential:
    """Fetch from a program that prints one JSON object."""
    return from_script(f"printf %s {shlex.quote(json.dumps(members))}")


# ------------------------------------------------------------------------------------------------------------ static


def configured(**options: Frozen) -> Credential:
    return static.fetch(asked("static", **{"username": "me", "password": (("env", "MY_PASSWORD"),), **options}))


def test_a_password(monkeypatch: pytest.MonkeyPatch) -> None:
    """The password is read at each fetch, and without an expiry it has none."""
    for text in ("one", "two"):
        monkeypatch.setenv("MY_PASSWORD", text)
        credential = configured()
        assert (credential.login, credential.password.reveal(), credential.expires_at, credential.identity) == (
            "me",
            text,
            None,
            "me",
        )


@pytest.mark.parametrize("text", ["2099-12-31T00:00:00Z", "2099-12-31T02:00:00+02:00"])
def test_the_expiry_of_a_password(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """`expires` is the expiry, in any time zone, and the credential says how to renew it."""
    monkeypatch.setenv("MY_PASSWORD", "x")
    credential = configured(expires=text)
    assert credential.expires_at == datetime(2099, 12, 31, tzinfo=UTC)
    assert credential.renew is not None
    assert "replace the secret" in credential.renew
    assert configured().renew is None


def test_a_token_that_contains_its_expiry(monkeypatch: pytest.MonkeyPatch) -> None:
    """The expiry is the earlier of a JWT's own and `expires`. An expired JWT is not delivered."""

    def jwt(year: int) -> str:
        claims = json.dumps({"exp": int(datetime(year, 1, 1, tzinfo=UTC).timestamp())})
        return f"e30.{base64.urlsafe_b64encode(claims.encode()).decode().rstrip('=')}.x"

    monkeypatch.setenv("MY_PASSWORD", jwt(2098))
    for expires, year in ((None, 2098), ("2097-01-01T00:00:00Z", 2097), ("2099-01-01T00:00:00Z", 2098)):
        credential = configured(expires=expires)
        assert credential.expires_at == datetime(year, 1, 1, tzinfo=UTC)
        assert credential.renew is not None
    monkeypatch.setenv("MY_PASSWORD", jwt(2020))
    with pytest.raises(FetchFailed) as caught:
        configured()
    assert quiet(caught).reason == "expired"


def test_an_expired_password(monkeypatch: pytest.MonkeyPatch) -> None:
    """An expired password is not delivered, and the failure has a fix."""
    monkeypatch.setenv("MY_PASSWORD", CANARY)
    with pytest.raises(FetchFailed) as caught:
        configured(expires="2020-01-01T00:00:00Z")
    failure = quiet(caught)
    assert (failure.kind, failure.reason) == ("rejected", "expired")
    assert failure.hint is not None
    assert "uvtokend reload" in failure.hint


@pytest.mark.parametrize(
    "options",
    [
        {"expires": "soon"},
        {"expires": "2099-12-31T00:00:00"},
        {"expires": "0001-01-01T00:00:00+14:00"},
        {"expires": 7},
        {"username": None},
        {"username": "a:b"},
        {"username": "a\nb"},
        {"password": CANARY},
        {"password": None},
    ],
)
def test_invalid_options(monkeypatch: pytest.MonkeyPatch, options: dict[str, Frozen]) -> None:
    """Invalid options are refused and not shown."""
    monkeypatch.setenv("MY_PASSWORD", "x")
    with pytest.raises(FetchFailed) as caught:
        configured(**options)
    assert quiet(caught).reason == "bad-options"


# ----------------------------------------------------------------------------------------------------------- command


def test_the_output_of_a_program() -> None:
    """The output is one JSON object; unknown members are ignored."""
    credential = answered(username="me", password=CANARY, note=[1])
    assert (credential.login, credential.password.reveal(), credential.expires_at) == ("me", CANARY, None)
    assert answered(username="", password="x").login == ""


def test_both_forms_of_an_expiry() -> None:
    """The expiry is a number of seconds or a time with its zone. If both are given, the earlier one counts."""
    soon, late = datetime.now(UTC) + timedelta(hours=1), datetime.now(UTC) + timedelta(hours=9)
    at = late.astimezone().isoformat()
    for members, ends in (
        ({"expires_in": 3600}, soon),
        ({"expires_in": 3600.5}, soon),
        ({"expires_at": at}, late),
        ({"expires_at": at, "expires_in": 3600}, soon),
        ({"expires_at": f"{late:%Y-%m-%dT%H:%M:%SZ}", "expires_in": None}, late),
    ):
        credential = answered(username="me", password="x", **members)
        assert credential.expires_at is not None
        assert abs(credential.expires_at - ends) < timedelta(minutes=1)


@pytest.mark.parametrize(
    "members",
    [
        {},
        {"username": "me"},
        {"password": CANARY},
        {"username": 7, "password": CANARY},
        {"username": "a:b", "password": CANARY},
        {"username": "a\nmachine evil.example", "password": CANARY},
        {"username": "me", "password": 7},
        {"username": "me", "password": CANARY, "expires_in": "3600"},
        {"username": "me", "password": CANARY, "expires_in": True},
        {"username": "me", "password": CANARY, "expires_in": float("nan")},
        {"username": "me", "password": CANARY, "expires_in": 1e300},
        {"username": "me", "password": CANARY, "expires_at": 7},
        {"username": "me", "password": CANARY, "expires_at": "soon"},
        {"username": "me", "password": CANARY, "expires_at": "2099-12-31T00:00:00"},
        {"username": "me", "password": CANARY, "expires_at": "0001-01-01T00:00:00+14:00"},
    ],
)
def test_objects_that_are_not_a_credential(members: dict[str, object]) -> None:
    """An invalid object is refused with the reason, but without its values."""
    with pytest.raises(FetchFailed) as caught:
        answered(**members)
    failure = quiet(caught)
    assert (failure.kind, failure.reason) == ("rejected", "garbage")
    assert "machine evil.example" not in failure.message


@pytest.mark.parametrize(
    ("password", "reason"),
    [
        ("", "empty-secret"),
        (f"a\n{CANARY}", "bad-secret"),
        (f"{CANARY}\ud800", "bad-secret"),
        ("x" * 20000, "bad-secret"),
    ],
)
def test_invalid_passwords(password: str, reason: str) -> None:
    """An empty or too long password, or one with a line break or a surrogate, is refused."""
    with pytest.raises(FetchFailed) as caught:
        answered(username="me", password=password)
    assert quiet(caught).reason == reason


@pytest.mark.parametrize("members", [{"expires_in": -1}, {"expires_in": 0}, {"expires_at": "2020-01-01T00:00:00Z"}])
def test_an_expiry_in_the_past(members: dict[str, object]) -> None:
    """An expired credential is not delivered. The failure is transient, since the program may have a newer one next
    time."""
    with pytest.raises(FetchFailed) as caught:
        answered(username="me", password=CANARY, **members)
    failure = quiet(caught)
    assert (failure.kind, failure.reason) == ("transient", "expired-on-arrival")


@pytest.mark.parametrize(
    ("script", "kind", "reason"),
    [
        (f"echo {CANARY}", "rejected", "garbage"),
        (f"echo '[\"{CANARY}\"]'", "rejected", "garbage"),
        ("head -c 60000 /dev/zero | tr '\\0' '['", "rejected", "garbage"),
        ("printf '\\377'", "rejected", "garbage"),
        (f"yes {CANARY}", "rejected", "too-much"),
        ("true", "rejected", "no-answer"),
        (f"echo {CANARY} >&2; exit 1", "transient", "command-failed"),
        ("no-such-program", "rejected", "no-command"),
    ],
)
def test_programs_without_a_valid_object(script: str, kind: str, reason: str) -> None:
    """Invalid, endless or missing output and a failed program each have one kind and one reason, and no output is
    shown."""
    with pytest.raises(FetchFailed) as caught:
        from_script(script)
    failure = quiet(caught)
    assert (failure.kind, failure.reason) == (kind, reason)


@pytest.mark.parametrize("words", [None, (), "prog", ("",), (7,)])
def test_no_command(words: Frozen) -> None:
    """An invalid command is refused."""
    with pytest.raises(FetchFailed) as caught:
        command.fetch(asked("command", command=words))
    assert caught.value.failure.reason == "bad-options"


def test_a_hung_program_is_killed_at_the_deadline(tmp_path: Path) -> None:
    """At the fetch's deadline the program and its children are killed."""
    note = tmp_path / "pids"
    script = f"sleep 600 & echo $$ $! > {note}.new; mv {note}.new {note}; wait"

    async def main(seconds: float) -> Outcome:
        outcomes: asyncio.Queue[Outcome] = asyncio.Queue()
        workers = Workers(1, seconds, lambda _: dict(os.environ), lambda _, outcome: outcomes.put_nowait(outcome))
        workers.start(asked("command", command=("sh", "-c", script)))
        try:
            return await asyncio.wait_for(outcomes.get(), 60)
        finally:
            await workers.close()

    for seconds in (2, 8, 32):  # on a busy machine the program starts late
        outcome = asyncio.run(main(seconds))
        assert isinstance(outcome, Failure)
        assert (outcome.kind, outcome.reason) == ("transient", "deadline")
        if note.exists():
            break
    pids = [int(pid) for pid in note.read_text().split()]
    until(lambda: not any(map(runs, pids)))

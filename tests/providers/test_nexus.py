"""nexus: what is kept elsewhere becomes a netrc entry."""

from __future__ import annotations

from pathlib import Path

import pytest

from uvtokend.core.model import Credential, Failure, Frozen, Request
from uvtokend.providers import worker

CANARY = "CANARY-of-a-secret"


def asked(**options: Frozen) -> Credential | Failure:
    """Fetch as a worker does."""
    return worker.fetch(Request("nexus", options=tuple(sorted(options.items()))))


def kept(folder: Path, name: str, text: str) -> Frozen:
    """Keep a secret in a file and return the reference to it."""
    (folder / name).write_text(text)
    return (("file", str(folder / name)),)


def test_user_and_password(tmp_path: Path) -> None:
    """The user's name is in the configuration; the password has no known end and is read again every time."""
    password = kept(tmp_path, "password", "old\n")
    for text in ("old", "new"):
        (tmp_path / "password").write_text(text)
        found = asked(username="me", password=password)
        assert isinstance(found, Credential)
        assert (found.login, found.password.reveal(), found.identity) == ("me", text, "me")
        assert found.expires_at is None


def test_a_user_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Name code and pass code are both secrets; the name code is the login and no identity to show."""
    monkeypatch.setenv("PASS_CODE", "pass-code")
    found = asked(username=kept(tmp_path, "name", "name-code\n"), password=(("env", "PASS_CODE"),))
    assert isinstance(found, Credential)
    assert (found.login, found.password.reveal(), found.identity) == ("name-code", "pass-code", None)


@pytest.mark.parametrize(
    ("username", "password", "reason"),
    [
        ("me", (("env", "UNSET_VARIABLE"),), "no-secret"),
        ("me", (("file", "/missing/file"),), "no-secret"),
        ("me", CANARY, "bad-options"),
        ("me", None, "bad-options"),
        ((("file", "/missing/file"),), (("env", "CODE"),), "no-secret"),
        ((("env", "CODE_WITH_COLON"),), (("env", "CODE"),), "bad-options"),
        ("", (("env", "CODE"),), "bad-options"),
        ("a:b", (("env", "CODE"),), "bad-options"),
        (None, (("env", "CODE"),), "bad-options"),
        (7, (("env", "CODE"),), "bad-options"),
    ],
)
def test_failures(monkeypatch: pytest.MonkeyPatch, username: Frozen, password: Frozen, reason: str) -> None:
    """What cannot be read blocks until a person repairs it, and no secret is repeated."""
    monkeypatch.setenv("CODE", CANARY)
    monkeypatch.setenv("CODE_WITH_COLON", f"{CANARY}:x")
    found = asked(username=username, password=password)
    assert isinstance(found, Failure)
    assert (found.kind, found.reason) == ("rejected", reason)
    assert CANARY not in repr(found)

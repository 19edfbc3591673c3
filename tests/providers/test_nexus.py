"""nexus: user name and password from references."""

from __future__ import annotations

from pathlib import Path

import pytest

from uvtokend.core.model import Credential, Failure, Frozen, Request
from uvtokend.providers import worker

CANARY = "CANARY-of-a-secret"


def fetch(**options: Frozen) -> Credential | Failure:
    """Fetch as a worker does."""
    return worker.fetch(Request("nexus", options=tuple(sorted(options.items()))))


def in_file(directory: Path, name: str, text: str) -> Frozen:
    """Write a secret to a file and return the reference to it."""
    (directory / name).write_text(text)
    return (("file", str(directory / name)),)


def test_user_and_password(tmp_path: Path) -> None:
    """The user name is in the configuration. The password has no expiry and is read at each fetch."""
    password = in_file(tmp_path, "password", "old\n")
    for text in ("old", "new"):
        (tmp_path / "password").write_text(text)
        credential = fetch(username="me", password=password)
        assert isinstance(credential, Credential)
        assert (credential.login, credential.password.reveal(), credential.identity) == ("me", text, "me")
        assert credential.expires_at is None


def test_a_user_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Name code and pass code are both secrets. The name code is the login, but it is not shown as the identity."""
    monkeypatch.setenv("PASS_CODE", "pass-code")
    credential = fetch(username=in_file(tmp_path, "name", "name-code\n"), password=(("env", "PASS_CODE"),))
    assert isinstance(credential, Credential)
    assert (credential.login, credential.password.reveal(), credential.identity) == ("name-code", "pass-code", None)


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
    """An unreadable or invalid secret is a rejected failure that does not show it."""
    monkeypatch.setenv("CODE", CANARY)
    monkeypatch.setenv("CODE_WITH_COLON", f"{CANARY}:x")
    failure = fetch(username=username, password=password)
    assert isinstance(failure, Failure)
    assert (failure.kind, failure.reason) == ("rejected", reason)
    assert CANARY not in repr(failure)

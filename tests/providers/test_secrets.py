"""Reading secrets from where the configuration says that they are."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import keyring
import keyring.backend
import keyring.errors
import pytest

from support.loopback import CANARY, quiet
from uvtokend.core.model import Failure, Frozen
from uvtokend.errors import FetchFailed
from uvtokend.providers.kit import programs, secrets
from uvtokend.providers.kit.secrets import read_secret


def failure(reference: Frozen) -> Failure:
    """Read, expect a failure, and look for the canary in all that could be logged of it."""
    with pytest.raises(FetchFailed) as caught:
        read_secret(reference)
    return quiet(caught)


def env(name: str) -> Frozen:
    return (("env", name),)


def file(path: Path) -> Frozen:
    return (("file", str(path)),)


def command(*words: str) -> Frozen:
    return (("command", words),)


def entry(service: str, username: str) -> Frozen:
    return (("keyring", (("service", service), ("username", username))),)


# ------------------------------------------------------------------------------------------------- what is no secret


@pytest.mark.parametrize("reference", [None, "text", 7, (), (("env", 7),), (("magic", "x"),), (("command", ()),)])
def test_no_reference(reference: Frozen) -> None:
    """What is no reference is refused, and not shown."""
    assert failure(reference).reason == "bad-options"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b"", "empty-secret"),
        (b"\n", "empty-secret"),
        (b"  \r\n", "empty-secret"),
        (CANARY.encode() + b"\nmore", "bad-secret"),
        (CANARY.encode() + b"\n\n", "bad-secret"),
        (CANARY.encode() + b"\x00", "bad-secret"),
        (CANARY.encode() + b"\x1b[0m", "bad-secret"),
        (CANARY.encode() + b"\xff", "bad-secret"),
        (b"x" * (secrets.LIMIT + 1), "bad-secret"),
    ],
)
def test_what_cannot_stand_in_a_netrc(tmp_path: Path, text: bytes, reason: str) -> None:
    """Empty, longer than a netrc entry may be, not text, or with control characters: refused with the fix."""
    path = tmp_path / "my secret"
    path.write_bytes(text)
    found = failure(file(path))
    assert (found.kind, found.reason) == ("rejected", reason)
    assert found.hint == f"(umask 077; cat > '{path}')"


@pytest.mark.parametrize("end", ["", "\n", "\r\n"])
def test_one_line_break_at_the_end_is_none_of_it(tmp_path: Path, end: str) -> None:
    """Editors and echo put one there."""
    path = tmp_path / "secret"
    path.write_bytes((" pass wörd " + end).encode())
    found = read_secret(file(path))
    assert found.reveal() == " pass wörd "
    assert f"{found!r} {found}" == "**** ****"


# ---------------------------------------------------------------------------------------------------- the environment


def test_a_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is read from the worker's environment; one that is not set is named, with what to do."""
    monkeypatch.setenv("MY_PASSWORD", CANARY)
    assert read_secret(env("MY_PASSWORD")).reveal() == CANARY
    monkeypatch.delenv("MY_PASSWORD")
    found = failure(env("MY_PASSWORD"))
    assert (found.kind, found.reason) == ("rejected", "no-secret")
    assert found.hint == "set MY_PASSWORD in the environment that starts uvtokend, then: uvtokend restart"
    monkeypatch.setenv("MY_PASSWORD", "")
    assert failure(env("MY_PASSWORD")).reason == "empty-secret"


# ------------------------------------------------------------------------------------------------------------- files


def test_files_that_are_none(tmp_path: Path) -> None:
    """A missing file, a directory, a pipe that nobody writes to: each is told at once, and with the fix."""
    missing = failure(file(tmp_path / "nothing"))
    assert (missing.kind, missing.reason) == ("rejected", "no-secret")
    assert missing.hint == f"(umask 077; cat > {tmp_path}/nothing)"
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/null")):
        assert failure(file(path)).hint == f"ls -ld {path}"
    assert failure(file(tmp_path)).hint == f"mv {tmp_path} {tmp_path}.old && (umask 077; cat > {tmp_path})"
    (tmp_path / "file").write_text("x")
    assert failure(file(tmp_path / "file" / "below")).reason == "no-secret"
    assert failure(file(tmp_path / ("x" * 300))).reason == "no-secret"
    assert failure(file(Path("/a\0b"))).reason == "no-secret"


def test_a_file_that_may_not_be_read(tmp_path: Path) -> None:
    """Permissions are told from absence; checked as an ordinary user, since root may read all."""
    path = tmp_path / "secret"
    path.write_text(CANARY)
    path.chmod(0)
    before = os.geteuid()
    if before == 0:
        os.seteuid(65534)
    try:
        found = failure(file(path))
    finally:
        os.seteuid(before)
    assert (found.reason, found.hint) == ("no-secret", f"ls -ld {path}")
    assert "may not be read" in found.message


# ---------------------------------------------------------------------------------------------------------- programs


def test_a_program() -> None:
    """What it prints is the secret; what it complains of is nobody's business."""
    assert read_secret(command("sh", "-c", f"echo {CANARY}; echo noise >&2")).reveal() == CANARY


def test_a_program_has_no_terminal() -> None:
    """Its standard input is closed, so that a question cannot hang."""
    assert read_secret(command("sh", "-c", "read answer || echo nobody")).reveal() == "nobody"


@pytest.mark.parametrize(
    ("script", "kind", "reason"),
    [
        (f"echo {CANARY}; echo {CANARY} >&2; exit 3", "transient", "command-failed"),
        (f"echo {CANARY}; kill -9 $$", "transient", "command-failed"),
        ("no-such-program", "rejected", "no-command"),
        ("true", "rejected", "no-answer"),
        ("echo", "rejected", "no-answer"),
        (f"echo {CANARY}; echo {CANARY}", "rejected", "bad-secret"),
        (f"head -c 20000 /dev/zero | tr '\\0' x; : {CANARY}", "rejected", "bad-secret"),
        (f"yes {CANARY}", "rejected", "too-much"),
    ],
)
def test_programs_that_give_none(script: str, kind: str, reason: str) -> None:
    """Each ends as one kind and one word; neither its output nor its arguments are repeated."""
    found = failure(command("sh", "-c", script))
    assert (found.kind, found.reason) == (kind, reason)


@pytest.mark.parametrize("program", ["no-such-program", "/etc/passwd", "/", "a\0b"])
def test_programs_that_are_none(program: str) -> None:
    """What cannot be started is told as such."""
    assert failure(command(program, CANARY)).reason == "no-command"


def test_a_program_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is ended at its time limit, which is shorter than the fetch's own."""
    monkeypatch.setattr(secrets, "COMMAND_TIMEOUT", 0.3)
    found = failure(command("sh", "-c", f"echo {CANARY}; exec sleep 60"))
    assert (found.kind, found.reason) == ("transient", "timeout")


def test_a_helper_that_keeps_the_output_open(monkeypatch: pytest.MonkeyPatch) -> None:
    """An agent that a program leaves behind does not delay the answer for its own life long."""
    monkeypatch.setattr(programs, "_GRACE", 0.2)
    found = read_secret(command("sh", "-c", f"sleep 1 & echo {CANARY}"))
    assert found.reveal() == CANARY


# ----------------------------------------------------------------------------------------------------------- keyring


class Keyring(keyring.backend.KeyringBackend):
    """A keyring of our own, which fails as it is told."""

    priority = 1
    error: Exception | None = None

    def __init__(self) -> None:
        """Take nothing from the environment, unlike other keyrings."""

    def set_password(self, service: str, username: str, password: str) -> None:
        raise AssertionError((service, username, password))

    def get_password(self, service: str, username: str) -> str | None:
        if self.error is not None:
            raise self.error
        return {("work", "me"): CANARY, ("work", "empty"): ""}.get((service, username))


@pytest.mark.parametrize(
    ("error", "kind", "reason"),
    [
        (keyring.errors.KeyringLocked(CANARY), "login-required", "keyring-locked"),
        (keyring.errors.NoKeyringError(CANARY), "rejected", "no-keyring"),
        (keyring.errors.KeyringError(CANARY), "transient", "keyring-failed"),
        (OSError(CANARY), "transient", "keyring-failed"),
    ],
)
def test_a_keyring(error: Exception, kind: str, reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its entry is the secret; a missing one is told with the command that makes it."""
    mine = Keyring()
    monkeypatch.setattr(keyring.core, "_keyring_backend", mine)
    assert read_secret(entry("work", "me")).reveal() == CANARY
    missing = failure(entry("the work", "you"))
    assert (missing.reason, missing.hint) == ("no-secret", "keyring set 'the work' you")
    assert failure(entry("work", "empty")).reason == "empty-secret"
    mine.error = error
    found = failure(entry("work", "me"))
    assert (found.kind, found.reason) == (kind, reason)


class KeychainError(Exception):
    """What keyring's macOS backend raises first (keyring/backends/macOS/api.py, Error)."""


@pytest.mark.parametrize(
    ("status", "reason"),
    [(-25308, "keychain-refused"), (-25293, "keychain-refused"), (-25291, "keyring-failed")],
    ids=["errSecInteractionNotAllowed", "errSecAuthFailed", "errSecNotAvailable"],
)
def test_a_keychain_that_would_ask(status: int, reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A person has to act, so it is not tried again and again; the command names the program that may read it."""
    mine = Keyring()
    monkeypatch.setattr(keyring.core, "_keyring_backend", mine)
    try:
        raise keyring.errors.KeyringError(CANARY) from KeychainError(status, "Unknown Error")
    except keyring.errors.KeyringError as error:
        mine.error = error
    refused = failure(entry("the work", "me"))
    assert refused.reason == reason
    if reason == "keychain-refused":
        assert refused.kind == "login-required"
        words = '["/usr/bin/security", "find-generic-password", "-s", "the work", "-a", "me", "-w"]'
        assert refused.hint == f"in config.toml, read it by the system's program: {{ command = {words} }}"


def test_without_the_keyring_library(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is an optional extra; where it is missing, the installation that has it is named."""
    monkeypatch.setitem(sys.modules, "keyring", None)
    found = failure(entry("work", "me"))
    assert (found.kind, found.reason) == ("rejected", "no-keyring")
    assert found.hint == "uv tool install 'uvtokend[keyring]'"

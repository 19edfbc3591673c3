"""Secrets are read from where the configuration says."""

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
    """Read a secret, expect a failure, and check that nothing loggable about it contains the canary."""
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


# ------------------------------------------------------------------------------------------- invalid secrets


@pytest.mark.parametrize("reference", [None, "text", 7, (), (("env", 7),), (("magic", "x"),), (("command", ()),)])
def test_no_reference(reference: Frozen) -> None:
    """A value that is not a reference is refused and not shown."""
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
def test_a_secret_that_a_netrc_cannot_hold(tmp_path: Path, text: bytes, reason: str) -> None:
    """A secret that is empty, too long, not text, or has control characters is refused, with the fix."""
    path = tmp_path / "my secret"
    path.write_bytes(text)
    failed = failure(file(path))
    assert (failed.kind, failed.reason) == ("rejected", reason)
    assert failed.hint == f"(umask 077; cat > '{path}')"


@pytest.mark.parametrize("end", ["", "\n", "\r\n"])
def test_a_final_line_break_is_removed(tmp_path: Path, end: str) -> None:
    """One final line break is removed, because editors and echo add it."""
    path = tmp_path / "secret"
    path.write_bytes((" pass wörd " + end).encode())
    secret = read_secret(file(path))
    assert secret.reveal() == " pass wörd "
    assert f"{secret!r} {secret}" == "**** ****"


# ---------------------------------------------------------------------------------------------------- the environment


def test_a_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    """The secret is read from the worker's environment. An unset variable is named, with the fix."""
    monkeypatch.setenv("MY_PASSWORD", CANARY)
    assert read_secret(env("MY_PASSWORD")).reveal() == CANARY
    monkeypatch.delenv("MY_PASSWORD")
    failed = failure(env("MY_PASSWORD"))
    assert (failed.kind, failed.reason) == ("rejected", "no-secret")
    assert failed.hint == "set MY_PASSWORD in the environment that starts uvtokend, then: uvtokend restart"
    monkeypatch.setenv("MY_PASSWORD", "")
    assert failure(env("MY_PASSWORD")).reason == "empty-secret"


# ------------------------------------------------------------------------------------------------------------- files


def test_unusable_files(tmp_path: Path) -> None:
    """A missing file, a directory, and a pipe without a writer are each reported at once, with the fix."""
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
    """A file without read permission is distinguished from a missing one. The test runs as an ordinary user, since
    root may read all."""
    path = tmp_path / "secret"
    path.write_text(CANARY)
    path.chmod(0)
    before = os.geteuid()
    if before == 0:
        os.seteuid(65534)
    try:
        failed = failure(file(path))
    finally:
        os.seteuid(before)
    assert (failed.reason, failed.hint) == ("no-secret", f"ls -ld {path}")
    assert "may not be read" in failed.message


# ---------------------------------------------------------------------------------------------------------- programs


def test_a_program() -> None:
    """The secret is the program's standard output; its standard error is ignored."""
    assert read_secret(command("sh", "-c", f"echo {CANARY}; echo noise >&2")).reveal() == CANARY


def test_a_program_has_no_terminal() -> None:
    """The program's standard input is closed, so that a question cannot hang."""
    assert read_secret(command("sh", "-c", "read answer || echo closed")).reveal() == "closed"


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
def test_programs_without_a_valid_secret(script: str, kind: str, reason: str) -> None:
    """Each failure has one kind and one reason, and shows neither output nor arguments."""
    failed = failure(command("sh", "-c", script))
    assert (failed.kind, failed.reason) == (kind, reason)


@pytest.mark.parametrize("program", ["no-such-program", "/etc/passwd", "/", "a\0b"])
def test_programs_that_cannot_be_started(program: str) -> None:
    """A program that cannot be started is reported as such."""
    assert failure(command(program, CANARY)).reason == "no-command"


def test_a_program_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hung program is killed at its timeout, which is shorter than the fetch's."""
    monkeypatch.setattr(secrets, "COMMAND_TIMEOUT", 0.3)
    failed = failure(command("sh", "-c", f"echo {CANARY}; exec sleep 60"))
    assert (failed.kind, failed.reason) == ("transient", "timeout")


def test_a_helper_that_keeps_the_output_open(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that the program leaves behind, and that keeps the pipe open, does not delay the answer."""
    monkeypatch.setattr(programs, "_GRACE", 0.2)
    secret = read_secret(command("sh", "-c", f"sleep 1 & echo {CANARY}"))
    assert secret.reveal() == CANARY


# ----------------------------------------------------------------------------------------------------------- keyring


class Keyring(keyring.backend.KeyringBackend):
    """A test keyring that fails as a test demands."""

    priority = 1
    error: Exception | None = None

    def __init__(self) -> None:
        """Read nothing from the environment, unlike other keyrings."""

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
    """The keyring's entry is the secret. If it is missing, the fix is the command that creates it."""
    backend = Keyring()
    monkeypatch.setattr(keyring.core, "_keyring_backend", backend)
    assert read_secret(entry("work", "me")).reveal() == CANARY
    missing = failure(entry("the work", "you"))
    assert (missing.reason, missing.hint) == ("no-secret", "keyring set 'the work' you")
    assert failure(entry("work", "empty")).reason == "empty-secret"
    backend.error = error
    failed = failure(entry("work", "me"))
    assert (failed.kind, failed.reason) == (kind, reason)


class KeychainError(Exception):
    """The exception that keyring's macOS backend raises first (keyring/backends/macOS/api.py, Error)."""


@pytest.mark.parametrize(
    ("status", "reason"),
    [(-25308, "keychain-refused"), (-25293, "keychain-refused"), (-25291, "keyring-failed")],
    ids=["errSecInteractionNotAllowed", "errSecAuthFailed", "errSecNotAvailable"],
)
def test_a_keychain_that_would_ask(status: int, reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A person must act, so the fetch is not retried. The fix reads the entry with the system's program."""
    backend = Keyring()
    monkeypatch.setattr(keyring.core, "_keyring_backend", backend)
    try:
        raise keyring.errors.KeyringError(CANARY) from KeychainError(status, "Unknown Error")
    except keyring.errors.KeyringError as error:
        backend.error = error
    refused = failure(entry("the work", "me"))
    assert refused.reason == reason
    if reason == "keychain-refused":
        assert refused.kind == "login-required"
        words = '["/usr/bin/security", "find-generic-password", "-s", "the work", "-a", "me", "-w"]'
        assert refused.hint == f"in config.toml, read it by the system's program: {{ command = {words} }}"


def test_without_the_keyring_library(monkeypatch: pytest.MonkeyPatch) -> None:
    """keyring is an optional extra; if it is missing, the fix installs it."""
    monkeypatch.setitem(sys.modules, "keyring", None)
    failed = failure(entry("work", "me"))
    assert (failed.kind, failed.reason) == ("rejected", "no-keyring")
    assert failed.hint == "uv tool install 'uvtokend[keyring]'"

"""Secrets by reference: ``{ env = … }``, ``{ file = … }``, ``{ command = [...] }``, ``{ keyring = {…} }``.

They are read anew at every fetch, so a secret that was rotated is taken up by itself.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import cast

from uvtokend.core.model import Frozen, Secret
from uvtokend.providers.failures import rejected, transient

#: A token of 16 KiB and a line end.
_LIMIT = 16 * 1024 + 2


def read_secret(reference: Frozen) -> Secret:
    """Return the secret that a reference names, without its final line end.

    Args:
        reference: As the settings froze it: ``(("env", "VAR"),)`` and so on.

    Raises:
        FetchFailed: It is not there, empty, too long, or more than one line.
    """
    ((how, what),) = cast("tuple[tuple[str, Frozen]]", reference)
    match how:
        case "env":
            text, place, mend = _variable(str(what))
        case "file":
            text, place, mend = _file(str(what))
        case "command":
            text, place, mend = _command(cast("tuple[str, ...]", what))
        case _:
            text, place, mend = _keyring(dict(cast("tuple[tuple[str, str], ...]", what)))
    secret = text.removesuffix("\n").removesuffix("\r")
    if not secret:
        raise rejected("no-secret", f"{place} is empty.", mend)
    if len(secret) > _LIMIT or not secret.isprintable():
        raise rejected("bad-secret", f"{place} is too long, or not one line of printable text.", mend)
    return Secret(secret)


def _variable(name: str) -> tuple[str, str, str]:
    mend = f"export {name}=… and uvtokend restart"
    if name not in os.environ:
        raise rejected("no-secret", f"The environment variable {name} is not set for the daemon.", mend)
    return os.environ[name], f"The environment variable {name}", mend


def _file(path: str) -> tuple[str, str, str]:
    mend = f"ls -l {path}"
    try:
        with Path(path).open(encoding="utf-8") as file:
            return file.read(_LIMIT + 1), f"The file {path}", mend
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise rejected("no-secret", f"The secret's file {path} cannot be read: {why}.", mend) from None


def _command(command: tuple[str, ...]) -> tuple[str, str, str]:
    return run(command), f"What {command[0]} printed", command[0]


def _keyring(entry: dict[str, str]) -> tuple[str, str, str]:
    service, username = entry["service"], entry["username"]
    mend = f"keyring set {service} {username}"
    try:
        import keyring  # noqa: PLC0415 - an optional extra
    except ImportError:
        message = "The keyring library is not installed beside uvtokend."
        raise rejected("no-keyring", message, "uv tool install 'uvtokend[keyring]'") from None
    try:
        secret = keyring.get_password(service, username)
    except Exception as error:  # noqa: BLE001 - backends raise what they like
        raise transient("no-keyring", f"The keyring did not answer ({type(error).__name__}).", mend) from None
    if secret is None:
        raise rejected("no-secret", f"The keyring holds nothing for {service} and {username}.", mend)
    return secret, "The keyring's entry", mend


def run(command: tuple[str, ...], limit: int = _LIMIT) -> str:
    """Return what a command prints; the worker's deadline bounds it.

    Args:
        command: Program and arguments.
        limit: Most characters that it may print.

    Raises:
        FetchFailed: It is missing, fails, or prints too much or no text. What it printed is never repeated.
    """
    program = command[0]
    try:
        with subprocess.Popen(  # noqa: S603 - the user's own configuration names it
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        ) as process:
            assert process.stdout is not None  # noqa: S101 - for the type checker: it is a pipe
            printed = process.stdout.read(limit + 1)
            if len(printed) > limit:
                process.kill()
                raise rejected("too-much", f"The command {program} printed far more than a credential.", program)
    except OSError as error:
        message = f"The command {program} cannot be run: {error.strerror}."
        raise rejected("no-command", message, f"command -v {program}") from None
    if process.returncode != 0:
        message = f"The command {program} failed with status {process.returncode}."
        raise transient("command-failed", message, f"run it at a terminal: {program}")
    try:
        return printed.decode()
    except UnicodeDecodeError:
        raise rejected("garbage", f"The command {program} printed something that is no text.", program) from None

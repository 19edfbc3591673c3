"""The ``keyring`` command that `uvtokend keyring install` puts on PATH: it asks the daemon, at next to no cost.

It understands what uv, pip, pipx and build run, with the options in any order (keyring's own ``cli.py``)::

    keyring get URL USERNAME                     prints the token
    keyring get URL [USERNAME] --mode creds      prints the login and the token, each on a line
    … --output json                              prints them as one JSON object

1. Whatever does not belong to an index of ours goes to the next ``keyring`` on PATH, with its arguments, streams and
   exit status. If there is none, it ends as keyring does when it finds nothing: status 1, nothing printed.
2. A URL of ours without a valid token is not handed over: one line on standard error says why.
3. Empty and relative entries of PATH are skipped, since they depend on where somebody runs uv, and so is every copy of
   this command. A command that hands over back to us is skipped the second time, so there is no loop.
4. Nothing here takes long: see `uvtokend.ask`, and tests/test_import_budget.py for what may be imported.
"""

from __future__ import annotations

import os
import sys

from uvtokend import ask
from uvtokend.errors import UvtokendError

#: What every file that we made begins with, after its ``#!`` line.
MARK = "# uvtokend: this keyring command"
_HEAD = 1024
#: Programs that we handed over to already, further up.
_SKIP = "UVTOKEND_KEYRING_SKIP"
FOUND, NOTHING, USAGE = 0, 1, 2
_INTERRUPTED = 130


class KeyringQuestion:
    """What ``keyring get`` is asked for.

    Attributes:
        service: A URL or a host.
        username: The login, or None.
        creds: The login is printed, too.
        json: As one JSON object.
    """

    def __init__(self, service: str, username: str | None, creds: bool, json: bool) -> None:
        self.service = service
        self.username = username
        self.creds = creds
        self.json = json


def main() -> int:
    """Answer this process's arguments, or hand over; return the exit status."""
    arguments = sys.argv[1:]
    try:
        return _answer(arguments)
    except KeyboardInterrupt:
        return _INTERRUPTED


def _answer(arguments: list[str]) -> int:
    question = parse(arguments)
    if question is None:
        return _hand_over(arguments, USAGE)
    try:
        credential = ask.credential(question.service, question.username, shim=True)
    except ask.NoTokenError as error:
        ask.say(error)
        return NOTHING
    except UvtokendError as error:
        ask.say(error)
        credential = None
    if credential is None:
        return _hand_over(arguments, NOTHING)
    return _print(question, credential)


def parse(arguments: list[str]) -> KeyringQuestion | None:
    """Return what is asked for; None for anything but a complete ``get`` with options that we know."""
    options = {"--mode": "password", "--output": "plain"}
    words: list[str] = []
    rest = iter(arguments)
    for argument in rest:
        name, given, value = argument.partition("=")
        if argument == "--":
            words += rest
        elif name in options:
            options[name] = value if given else next(rest, "")
        elif argument.startswith("-"):
            return None
        else:
            words.append(argument)
    mode, output = options.values()
    if mode not in {"password", "creds"} or output not in {"plain", "json"}:
        return None
    if len(words) not in ((3,) if mode == "password" else (2, 3)) or words[0] != "get":
        return None
    return KeyringQuestion(words[1], words[2] if len(words) == 3 else None, mode == "creds", output == "json")


def following(path: str, skipped: list[str]) -> str | None:
    """Return the next ``keyring`` on a PATH that is not a shim of ours, or None.

    Args:
        path: The value of PATH.
        skipped: Programs to skip.
    """
    for directory in path.split(os.pathsep):
        program = os.path.join(directory, "keyring")
        usable = os.path.isabs(directory) and os.path.isfile(program) and os.access(program, os.X_OK)
        if usable and program not in skipped and not is_ours(program):
            return program
    return None


def is_ours(program: str) -> bool:
    """Return whether a file is one that `uvtokend keyring install` made."""
    try:
        with open(program, "rb") as file:
            return f"\n{MARK}".encode() in file.read(_HEAD)
    except OSError:
        return False


def _hand_over(arguments: list[str], otherwise: int) -> int:
    """Become the next ``keyring``; return a status where there is none."""
    skipped = [each for each in os.environ.get(_SKIP, "").split(os.pathsep) if each]
    while (program := following(os.environ.get("PATH", ""), skipped)) is not None:
        import signal  # noqa: PLC0415 - only where a slower command follows

        skipped.append(program)
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # Python ignores it, and the next command would inherit that
        try:
            os.execve(program, [program, *arguments], {**os.environ, _SKIP: os.pathsep.join(skipped)})  # noqa: S606
        except OSError:
            continue  # its interpreter is gone
    if otherwise == USAGE:
        message = "This keyring command answers only 'keyring get URL USERNAME' and 'keyring --mode creds get URL'."
        ask.say(UvtokendError(message, "uvtokend help answering"))
    return otherwise


def _print(question: KeyringQuestion, credential: ask.ServedCredential) -> int:
    pairs = {"username": credential.login, "password": credential.token}
    if not question.creds:
        del pairs["username"]
    text = "".join(f"{value}\n" for value in pairs.values())
    if question.json:
        text = "{" + ", ".join(f'"{key}": {ask.quoted(value)}' for key, value in pairs.items()) + "}\n"
    data = text.encode()
    try:
        while data:
            data = data[os.write(1, data) :]
    except OSError:
        return NOTHING  # the reader has closed it
    return FOUND

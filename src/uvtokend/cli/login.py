"""``uvtokend login``: run the needed sign-in commands, one after another, on this terminal."""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import subprocess
from typing import Any

from uvtokend.cli import client, console, disk, fetches, parser
from uvtokend.core import clouds
from uvtokend.core.document import enabled, ready
from uvtokend.core.model import Settings
from uvtokend.disk import configuration
from uvtokend.errors import FAILED, OK, NotRunning

EXAMPLES = ("uvtokend login", "uvtokend login private-registry")
DETAILS = """\
Runs the sign-in commands that `uvtokend status` names, such as `aws sso login --profile dev`, each once, and fetches
the tokens that waited for them. Does nothing if every sign-in is still valid."""

#: Characters in a command that only a shell or a person understands.
_SHELL = frozenset("<>|;&`$")


def arguments(own: argparse.ArgumentParser) -> None:
    """Add the arguments of this verb."""
    parser.add_names(own)


def run(args: argparse.Namespace) -> int:
    """Run every needed sign-in command.

    Returns:
        0 if every named index is signed in now, otherwise 1.

    Raises:
        UsageError: No index has one of those names.
        ConfigError: The configuration is invalid.
    """
    settings = configuration.load(args.config)
    fetch = _Fetcher(settings)
    document = fetch.known(args.names)
    waiting = _needed(document)
    if not waiting:
        return _nothing_to_do(document)
    done = [names for hint, names in waiting.items() if _sign_in(hint, names, settings)]
    if not done:
        return FAILED
    fetch.again(sorted(name for names in done for name in names))
    after = fetch.known(args.names)
    left = _needed(after)
    for hint, names in left.items():
        message = next(index["last_error"]["message"] for index in after["indexes"] if index["name"] == names[0])
        console.say(f"{', '.join(names)}: {message}", hint)
    if not left:
        console.say("You are signed in." if ready(after) else "You are signed in; see: uvtokend status")
    return FAILED if left else OK


class _Fetcher:
    """Fetches tokens through the daemon, or without one.

    Args:
        settings: The configuration, in case no daemon runs.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._document: dict[str, Any] | None = None

    def known(self, names: list[str]) -> dict[str, Any]:
        """Return the status document of these indexes; without a daemon, after fetching what is due."""
        try:
            document: dict[str, Any] = client.call("status", client.names(names))
        except NotRunning:
            document = self._document or self._alone(names)
            document = {**document, "indexes": [index for index in document["indexes"] if _is_named(index, names)]}
        return document

    def again(self, names: list[str]) -> None:
        """Fetch for these indexes."""
        try:
            client.call("refresh", client.names(names), client.FETCHES)
        except NotRunning:
            self._document = self._alone(names)

    def _alone(self, names: list[str]) -> dict[str, Any]:
        disk.chosen(self._settings, names)
        return fetches.once(self._settings, names)


def _is_named(index: dict[str, Any], names: list[str]) -> bool:
    return not names or index["name"] in names


def _needed(document: dict[str, Any]) -> dict[str, list[str]]:
    """Return the sign-in commands, each with the names of the indexes that wait for it."""
    waiting: dict[str, list[str]] = {}
    for index in document["indexes"]:
        error = index["last_error"]
        if enabled(index) and error is not None and error["kind"] == "login-required":
            waiting.setdefault(error["hint"] or error["message"], []).append(index["name"])
    return waiting


def _nothing_to_do(document: dict[str, Any]) -> int:
    if not ready(document):
        console.say("No index needs a sign-in, but not all are ready.", "uvtokend status")
        return FAILED
    console.say("No index needs a sign-in.")
    return OK


def _sign_in(hint: str, names: list[str], settings: Settings) -> bool:
    """Run one sign-in command, and return whether it succeeded.

    Args:
        hint: The command. Only sign-in commands of known programs are run; the person must run any other.
        names: The indexes that wait for it. The command runs in the environment of the first one.
        settings: The configuration.
    """
    told = ", ".join(names)
    words = _words(hint)
    page = _pages().get(words[0]) if words else None
    if page is None or "login" not in words:
        console.say(f"{told}: there is no sign-in command to run.", hint)
        return False
    path = shutil.which(words[0])
    if path is None:
        console.say(f"{told}: {words[0]} is not installed, or not on PATH.", f"install it: {page}")
        return False
    console.say(f"{told}: {hint}")
    extra = next((dict(index.request.env) for index in settings.indexes if index.name == names[0]), {})
    status = subprocess.run([path, *words[1:]], env={**os.environ, **extra}, check=False).returncode  # noqa: S603
    if status != 0:
        console.say(f"{told}: the command failed with status {status}.", hint)
    return status == 0


def _pages() -> dict[str, str]:
    """Return the programs for signing in, each with its installation page."""
    pages = {cloud.program.name: cloud.program.page for cloud in clouds.CLOUDS.values() if cloud.program is not None}
    return {**pages, "azd": "https://learn.microsoft.com/azure/developer/azure-developer-cli/install-azd"}


def _words(hint: str) -> list[str]:
    """Return the words of a plain command; none if it needs a shell, or a person to complete it."""
    if any(char in _SHELL for char in hint):
        return []
    try:
        return shlex.split(hint)
    except ValueError:
        return []

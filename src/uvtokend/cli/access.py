"""Get the credentials of named indexes for one command: from the running daemon, or else by a fetch."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import NoReturn

from uvtokend import paths
from uvtokend.cli import client, disk, fetches
from uvtokend.core.child_environment import Access
from uvtokend.core.model import Failure, Secret
from uvtokend.disk.configuration import load
from uvtokend.errors import NotRunning, UsageError, UvtokendError

#: Seconds to wait for an answer; the daemon's own limit is shorter.
_PATIENCE = 60.0


#: Checks the name, URL and provider of an index before its token is returned; raises an error if it must not be.
Check = Callable[[str, str, str], None]


def accesses(names: list[str], config: str | None, check: Check = lambda *_: None) -> list[Access]:
    """Return the credentials of indexes, in their order.

    Args:
        names: The names of the indexes.
        config: Another configuration file, if no daemon runs.
        check: Called for each index before any token is fetched.

    Raises:
        UsageError: No index has one of those names.
        ConfigError: The configuration is invalid.
        UvtokendError: An index has no valid token; the message says why.
    """
    wanted = list(dict.fromkeys(names))
    try:
        return _from_daemon(wanted, check)
    except NotRunning:
        return _fetched(wanted, config, check)


def become(command: list[str], environment: dict[str, str]) -> NoReturn:
    """Replace this process with a command, so that signals, streams and exit status are its own.

    Raises:
        UsageError: The command is missing, or it cannot be executed.
    """
    for number in (signal.SIGPIPE, signal.SIGXFSZ):  # Python ignores these signals, and the command would inherit that
        signal.signal(number, signal.SIG_DFL)
    try:
        os.execvpe(command[0], command, environment)  # noqa: S606 - the user's own command line
    except OSError as error:
        message = f"The command {command[0]!r} cannot be executed: {error.strerror}."
    except ValueError:
        message = "The command or its environment contains a NUL character."
    raise UsageError(message, f"command -v {paths.quoted(command[0])}")


def _from_daemon(names: list[str], check: Check) -> list[Access]:
    accesses = []
    with client.Connection(_PATIENCE) as daemon:
        indexes = daemon.call("status", client.names(names))["indexes"]
        for index in indexes:
            if index.get("enabled") is False:
                raise disk.disabled(str(index["name"]))
            check(index["name"], index["url"], index["provider"])
        for index in indexes:
            name, url, provider = str(index["name"]), str(index["url"]), str(index["provider"])
            answer = daemon.call("credential", {"url": url, "name": name})
            accesses.append(Access(name, url, provider, str(answer["login"]), Secret(answer["token"])))
    return sorted(accesses, key=lambda access: names.index(access.name))


def _fetched(names: list[str], config: str | None, check: Check) -> list[Access]:
    settings = load(config)
    indexes = disk.chosen(settings, names)
    for index in indexes:
        check(index.name, index.url, index.provider)
    outcomes = fetches.alone(settings, indexes)
    accesses = []
    for index in indexes:
        outcome = outcomes[index.request]
        if isinstance(outcome, Failure):
            raise UvtokendError(f"There is no token for the index {index.name!r}: {outcome.message}", outcome.hint)
        accesses.append(Access(index.name, index.url, index.provider, outcome.login, outcome.password))
    return accesses

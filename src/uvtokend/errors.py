"""The errors that uvtokend raises on purpose, and the exit status of each.

::

    UvtokendError            1  something failed; `message` says what and why, `hint` how to fix it
    ├── FetchFailed          1  a provider could not get a token; contains a `Failure`
    ├── DeliveryFailed       1  uvtokend has a token but could not write it to its sink
    ├── NotRunning           3  no daemon answers on the control socket
    ├── AlreadyOwned         1  another daemon owns the netrc or the socket
    └── UsageError           2  wrong usage, such as an unknown index name; or there is no home directory
        └── ConfigError      2  the configuration is invalid; contains every problem at once

The message of an error is a sentence. If the user can fix the problem, the hint is the exact command. Neither ever
contains a secret, so both may be logged.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from uvtokend.core.model import Failure, Problem

OK = 0
FAILED = 1
USAGE = 2
NOT_RUNNING = 3

#: The error codes of the control socket: those of JSON-RPC 2.0, and two of our own.
PARSE_ERROR = -32700
INVALID_REQUEST = -32600
METHOD_NOT_FOUND = -32601
INVALID_PARAMS = -32602
#: The daemon refuses, for the reason in the message.
REFUSED = -32001
#: `credential` was asked for a URL that belongs to no index.
NO_MATCH = -32002


class UvtokendError(Exception):
    """Something failed, and the user should know about it.

    Args:
        message: One sentence that says what happened and why.
        hint: The exact command or edit that fixes the problem, if there is one.
    """

    exit_status = FAILED

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class FetchFailed(UvtokendError):
    """A provider could not get a token; `failure` says why."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message, failure.hint)
        self.failure = failure


class DeliveryFailed(UvtokendError):
    """A sink could not be written.

    Args:
        reason: One kebab-case word for machines, as in `last_error.reason` of the status.
        message: One sentence that says what happened and why.
        hint: The exact command or edit that fixes the problem, if there is one.
    """

    def __init__(self, reason: str, message: str, hint: str | None = None) -> None:
        super().__init__(message, hint)
        self.reason = reason


class NotRunning(UvtokendError):
    """No daemon answers on the control socket."""

    exit_status = NOT_RUNNING


class AlreadyOwned(UvtokendError):
    """Another process owns the netrc or the socket that this process needs."""


class UsageError(UvtokendError):
    """The command line asks for something that does not exist, or the environment has no home directory."""

    exit_status = USAGE


class ConfigError(UsageError):
    """The configuration is invalid; `problems` contains every problem."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__("\n".join(str(problem) for problem in problems))
        self.problems = tuple(problems)

"""Every error that uvtokend raises on purpose, and the exit status that each one means.

::

    UvtokendError            1  something failed; `message` says what and why, `hint` what fixes it
    ├── FetchFailed          1  a provider could not get a token; carries a `Failure`
    ├── DeliveryFailed       1  a token is there, but its sink could not be written
    ├── NotRunning           3  no daemon answers on the control socket
    ├── AlreadyOwned         1  another daemon owns the netrc or the socket
    └── UsageError           2  wrong usage: an unknown index name too, or an environment without a home
        └── ConfigError      2  the configuration is wrong; carries every problem at once

An error that reaches a person is a sentence and, where a person can repair it, the exact command. Its text never
contains a secret, so it may be logged.
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


class UvtokendError(Exception):
    """Something failed that a person should read about.

    Args:
        message: One sentence: what happened and why.
        hint: The exact command or edit that fixes it, where there is one.
    """

    exit_status = FAILED

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class FetchFailed(UvtokendError):
    """A provider could not get a token, and says why."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message, failure.hint)
        self.failure = failure


class DeliveryFailed(UvtokendError):
    """A sink could not be written.

    Args:
        reason: One word for machines, as in `last_error.reason` of the status.
    """

    def __init__(self, reason: str, message: str, hint: str | None = None) -> None:
        super().__init__(message, hint)
        self.reason = reason


class NotRunning(UvtokendError):
    """No daemon answers on the control socket."""

    exit_status = NOT_RUNNING


class AlreadyOwned(UvtokendError):
    """Another process owns what this one needs for itself: a netrc, the socket."""


class UsageError(UvtokendError):
    """The command line asks for something that does not exist, or the environment has no home directory."""

    exit_status = USAGE


class ConfigError(UsageError):
    """The configuration is invalid; the error carries all of its problems."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__("\n".join(str(problem) for problem in problems))
        self.problems = tuple(problems)

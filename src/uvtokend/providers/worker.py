"""The worker: a child process that makes one fetch, answers one line and ends.

The request comes in the environment, since the standard input is closed, and is taken out of it at once, so that no
helper inherits it. The answer goes to the standard output as it was at the start; whatever an SDK prints goes nowhere.
"""

from __future__ import annotations

import contextlib
import logging
import os
import resource
import subprocess
from importlib.metadata import entry_points
from typing import Any

from uvtokend.core import wire
from uvtokend.core.model import Credential, Failure, Request
from uvtokend.errors import FetchFailed
from uvtokend.providers import deadline

GROUP = "uvtokend.providers"
#: Bytes of memory that a worker may fill; with an SDK loaded it takes 45 MiB.
MEMORY = 512 << 20
_TOO_MUCH = Failure("rejected", "too-much", "The provider was answered far more than a credential.")


def main() -> None:
    """Fetch what the environment asks for and answer it."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core dump would hold the token
    _bound_memory(MEMORY)
    subprocess.Popen = _Helper  # type: ignore[misc]  # before an SDK takes hold of it
    logging.disable()  # botocore's debug log prints the token
    answer = os.dup(1)
    os.dup2(2, 1)
    request = wire.decode_request(os.environ.pop("UVTOKEND_REQUEST"))
    deadline.start(float(os.environ.pop("UVTOKEND_FETCH_TIMEOUT")))
    line = wire.encode_answer(fetch(request))
    while line:
        line = line[os.write(answer, line) :]


def fetch(request: Request) -> Credential | Failure:
    """Call the request's provider; whatever happens ends as a credential or a classified failure."""
    found = tuple(entry_points(group=GROUP, name=request.provider))
    if not found:
        message = f"There is no provider {request.provider!r} in this installation."
        return Failure(
            "rejected", "no-provider", message, "install its package where uvtokend is, or name another provider"
        )
    try:
        outcome = found[0].load()(request)
    except FetchFailed as error:
        return error.failure
    except MemoryError:
        return _TOO_MUCH
    except Exception as error:  # noqa: BLE001 - nothing escapes unclassified; its text may hold a secret
        message = (
            f"The provider {request.provider!r} failed in a way that it does not explain ({type(error).__name__})."
        )
        return Failure("transient", "unexpected", message)
    if isinstance(outcome, Credential):
        return _TOO_MUCH if len(outcome.password.reveal()) > wire.WORKER_LIMIT else outcome
    return Failure("rejected", "garbage", f"The provider {request.provider!r} did not answer a credential.")


def _bound_memory(size: int) -> None:
    """Let no answer, however long, take the machine's memory (getrlimit(2), RLIMIT_DATA; macOS does not enforce it)."""
    hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
    with contextlib.suppress(ValueError, OSError):  # a stricter limit stands already
        resource.setrlimit(resource.RLIMIT_DATA, (size, hard))


class _Helper(subprocess.Popen[Any]):
    """A program that an SDK or we start: it inherits no limit of ours, which a Java or Node of its own would hit."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
        resource.setrlimit(resource.RLIMIT_DATA, (hard, hard))
        try:
            super().__init__(*args, **kwargs)
        finally:
            resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


if __name__ == "__main__":
    main()
    os._exit(0)  # the line is out: no SDK thread may hold us back

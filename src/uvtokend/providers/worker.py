"""The worker: a child process that runs a fetch, and prints one line.

The request is in the environment, since the standard input is closed, and is removed from it at once, so that no helper
inherits it. The answer is written to the original standard output. The output of SDKs is discarded.

Then the worker waits at the pipe for more requests, if the daemon has given it one, until the daemon closes that pipe
or kills the worker. If it is as good as a new one (`uvtokend.providers.reuse`), the daemon may send another request. It
also waits if it is not: the daemon dismisses it when the token is delivered, and until then the end of a process would
take CPU time from the delivery.
"""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from typing import Any, ClassVar

from uvtokend import undumpable
from uvtokend.core import wire
from uvtokend.core.clouds import CLOUDS
from uvtokend.core.model import Credential, Failure, Request, Secret
from uvtokend.errors import FetchFailed
from uvtokend.providers import reuse
from uvtokend.providers.kit import deadline
from uvtokend.providers.kit.failures import rejected
from uvtokend.providers.loading import load

#: Bytes of memory that a worker may fill; with an SDK loaded it takes 45 MiB.
MEMORY = 512 << 20
#: White space before an answer: the daemon wakes up while the answer is encoded.
COMING = b" "
#: Seconds between two checks of the memory if the system enforces no limit.
_LOOK = 0.05
_TOO_MUCH = Failure("rejected", "too-much", "The response that the provider received is far larger than a credential.")


def main() -> None:
    """Run the fetch that the environment describes, and print the outcome; then run those that the daemon sends."""
    gc.disable()  # it would take a tenth of the time of a fetch, for a process that runs for seconds
    undumpable.protect()  # before there is a token
    answer = os.dup(1)
    _bound_memory(MEMORY, answer)
    subprocess.Popen = _Helper  # type: ignore[misc]  # before an SDK takes hold of it
    logging.disable()  # botocore's debug log prints the token
    os.dup2(2, 1)
    request = wire.decode_request(os.environ.pop("UVTOKEND_REQUEST"))
    seconds = float(os.environ.pop("UVTOKEND_FETCH_TIMEOUT"))
    orders = _orders()
    start = _Helper.start = reuse.Start()
    while True:
        deadline.start(seconds)
        outcome = fetch(request, start.provider_loaded)
        os.write(answer, COMING)
        again = orders is not None and start.is_regained(outcome)
        _say(answer, outcome, again)
        order = None if orders is None else _next(orders)
        if order is None:
            return
        request, seconds = order
        start.restore()


def _orders() -> int | None:
    """Return the file descriptor on which the daemon sends more requests, if it does. No helper inherits it."""
    number = os.environ.pop("UVTOKEND_ORDERS", None)
    if number is None:
        return None
    os.set_inheritable(int(number), False)
    return int(number)


def _next(orders: int) -> tuple[Request, float] | None:
    """Return the next request and its limit in seconds, as soon as the daemon sends it; None if it sends none."""
    line = bytearray()
    while not line.endswith(b"\n"):
        piece = os.read(orders, wire.WORKER_LIMIT)
        if not piece:
            return None
        line += piece
    return wire.decode_order(bytes(line))


def fetch(request: Request, loaded: Callable[[], object] = lambda: None) -> Credential | Failure:
    """Call the request's provider and return its credential, or a classified failure whatever happens.

    Args:
        request: The request.
        loaded: Called when the provider has been imported.
    """
    name = request.provider
    try:
        _know_all_options(request)
        if "SSL_CERT_DIR" in os.environ:
            from uvtokend.providers.kit import bundle  # noqa: PLC0415 - few workers need it, and it imports ssl

            bundle.gather(os.environ)
        provider = load(name)
        loaded()
        outcome = provider(request)
    except FetchFailed as error:
        return error.failure
    except MemoryError:
        return _TOO_MUCH
    except (Exception, SystemExit) as error:  # noqa: BLE001 - nothing escapes unclassified; its text may hold a secret
        message = f"The provider {name!r} failed with an unexpected error ({type(error).__name__})."
        return Failure("transient", "unexpected", message)
    if not isinstance(outcome, Credential):
        return Failure("rejected", "garbage", f"The provider {name!r} did not return a credential.")
    if wrong := misshapen(outcome):
        return Failure("rejected", "garbage", f"The provider {name!r} returned an invalid credential: {wrong}.")
    return _TOO_MUCH if len(outcome.password.reveal()) > wire.WORKER_LIMIT else outcome


def misshapen(credential: Any) -> str | None:  # a plug-in's author may not check his types
    """Return why a credential cannot be delivered, or None."""
    if not isinstance(credential.password, Secret):
        return "its password is not a Secret"
    if not isinstance(credential.login, str):
        return "its login is not text"
    times = (credential.issued_at, credential.expires_at, credential.refresh_after)
    if credential.issued_at is None or any(time is not None and time.utcoffset() is None for time in times):
        return "one of its times has no time zone"
    return None


def _know_all_options(request: Request) -> None:
    """Refuse an option unknown to our own provider (a newer daemon may send one); a plug-in checks its own."""
    if request.provider in CLOUDS:
        known = CLOUDS[request.provider].options
        for key in (key for key, _ in request.options if key not in known):
            raise rejected("bad-options", f"{request.provider} knows no option {key!r}.", "uvtokend restart")


def _say(answer: int, outcome: Credential | Failure, again: bool = False) -> None:
    line = wire.encode_answer(outcome, again)
    while line:
        line = line[os.write(answer, line) :]


def _bound_memory(size: int, answer: int) -> None:
    """Keep a huge response from using up all memory.

    Args:
        size: In bytes.
        answer: The file descriptor of the answer, for a platform without a limit that holds.
    """
    if sys.platform == "darwin":
        _watch_memory(size, answer)
    else:
        _limit_memory(size)


def _watch_memory(size: int, answer: int) -> None:
    """End this process with an answer when it fills too much memory."""
    from threading import Thread  # noqa: PLC0415 - macOS only

    from uvtokend import darwin  # noqa: PLC0415 - macOS only

    def exceeded() -> None:
        _say(answer, _TOO_MUCH)
        os._exit(0)

    Thread(target=darwin.watch_memory, args=(size, exceeded, _LOOK), daemon=True).start()


def _limit_memory(size: int) -> None:
    """Let the kernel refuse more memory: getrlimit(2), RLIMIT_DATA."""
    hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
    with contextlib.suppress(ValueError, OSError):  # a stricter limit stands already
        resource.setrlimit(resource.RLIMIT_DATA, (size, hard))


class _Helper(subprocess.Popen[Any]):
    """A helper program: it does not inherit our memory limit, which Java and Node exceed at start."""

    start: ClassVar[reuse.Start | None] = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        if self.start is not None:
            self.start.has_helpers = True
        soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
        resource.setrlimit(resource.RLIMIT_DATA, (hard, hard))
        try:
            super().__init__(*args, **kwargs)
        finally:
            resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


if __name__ == "__main__":
    main()
    os._exit(0)  # the line is out: no SDK thread may hold us back

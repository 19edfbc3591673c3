"""The witness: a child process that calls one provider directly and reports everything that it can observe.

It is the counterpart of the worker for `uvtokend.testing`. The worker prints only one line. The witness enables every
log and reports the outcome, the log records, the output and the prompts of a provider. It does not know the secrets, so
it does not look for them; the test does.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import tempfile
import traceback
from collections.abc import Iterator
from typing import Any

from uvtokend.core import wire
from uvtokend.core.model import Credential
from uvtokend.errors import FetchFailed
from uvtokend.providers import loading, worker

#: The audit events of a prompt, which nobody could answer (Python library reference, "Audit events table").
_PROMPTS = {"builtins.input": "calls input()", "webbrowser.open": "opens a browser"}


def main() -> None:
    """Call the provider of the request in the environment, and write a report in JSON."""
    report = os.dup(1)
    request = wire.decode_request(os.environ.pop("UVTOKEND_REQUEST"))
    os.environ.pop("UVTOKEND_FETCH_TIMEOUT")
    asked, log = _see_prompts(), _Log()
    with tempfile.TemporaryFile() as printed:
        os.dup2(printed.fileno(), 1)
        try:
            provider = loading.load(request.provider)
            log.listen()
            seen = _outcome(provider(request))
        except BaseException as error:  # noqa: BLE001 - the report contains whatever escapes the provider
            seen = _raised(error)
        sys.stdout.flush()
        sys.stderr.flush()  # otherwise an unfinished line would be lost
        printed.seek(0)
        seen |= {"printed": printed.read().decode(errors="replace"), "asked": asked, "logged": log.lines}
    line = json.dumps(seen).encode()
    while line:
        line = line[os.write(report, line) :]


def _outcome(outcome: object) -> dict[str, Any]:
    if not isinstance(outcome, Credential):
        return {"kind": "nonsense", "type": type(outcome).__name__}
    if wrong := worker.misshapen(outcome):
        return {"kind": "misshapen", "wrong": wrong}
    times = {}
    for name in ("issued_at", "expires_at", "refresh_after"):
        time = getattr(outcome, name)
        times[name] = None if time is None else (time.timestamp(), time.utcoffset().total_seconds())
    password = outcome.password
    shown = {
        "the credential's repr": repr(outcome),
        "the credential as a text": f"{outcome}",
        "the password's repr": f"{password!r} {[password]}",
        "the password as a text": f"{password} {str(password)} {password:>9}",  # noqa: RUF010 - both are tried
        "the login": outcome.login,
        "the identity": str(outcome.identity),
    }
    return {"kind": "credential", "token": password.reveal(), "times": times, "shown": shown}


def _raised(error: BaseException) -> dict[str, Any]:
    shown = {
        "the traceback": "".join(traceback.format_exception(error)),
        "the chain of exceptions": "\n".join(_told(one) for one in _chain(error)),
    }
    if not isinstance(error, FetchFailed):
        return {"kind": "escaped", "type": type(error).__name__, "shown": shown}
    failure = error.failure
    told = {name: getattr(failure, name) for name in ("kind", "reason", "message", "hint", "retry_after")}
    return {"kind": "failure", "failure": told, "shown": {**shown, "the failure": repr(failure)}}


def _told(error: BaseException) -> str:
    return f"{error!r} {error} {error.args!r} {getattr(error, '__notes__', '')} {vars(error)!r}"


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """Return an error and all errors attached to it, even if ``from None`` hides them from the traceback."""
    seen: dict[int, BaseException] = {}
    todo = [error]
    while todo:
        one = todo.pop()
        if one is None or id(one) in seen:
            continue
        seen[id(one)] = one
        todo += [one.__cause__, one.__context__]
        if isinstance(one, BaseExceptionGroup):
            todo += one.exceptions
    yield from seen.values()


def _see_prompts() -> list[str]:
    asked: list[str] = []

    def see(event: str, arguments: tuple[Any, ...]) -> None:
        if event in _PROMPTS:
            asked.append(_PROMPTS[event])
        elif event == "open" and arguments[0] in ("/dev/tty", b"/dev/tty"):
            asked.append("opens the terminal")

    sys.addaudithook(see)
    return asked


class _Log(logging.Handler):
    """Records every log record, with everything that another handler could print."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def listen(self) -> None:
        """Enable every existing logger at every level, including those of SDKs; later loggers inherit it."""
        logging.root.addHandler(self)
        logging.root.setLevel(logging.DEBUG)
        for logger in map(logging.getLogger, tuple(logging.root.manager.loggerDict)):
            logger.setLevel(logging.DEBUG)
            logger.disabled, logger.propagate = False, True

    def emit(self, record: logging.LogRecord) -> None:
        """Record the message with its arguments, extras and exception."""
        try:
            text = self.format(record)
        except Exception:  # noqa: BLE001 - the provider's message may not match its arguments
            text = str(record.msg)
        self.lines.append(f"{text} {vars(record)!r}")


if __name__ == "__main__":
    main()
    os._exit(0)

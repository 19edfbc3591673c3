"""The worker: a child process that makes one fetch, answers one line and ends.

The request comes in the environment, since the standard input is closed, and is taken out of it at once, so that no
helper inherits it. The answer goes to the standard output as it was at the start; whatever an SDK prints goes nowhere.
"""

from __future__ import annotations

import contextlib
import logging
import os
import resource
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import EntryPoint, distributions, entry_points
from typing import Any

from uvtokend import undumpable
from uvtokend.core import wire
from uvtokend.core.clouds import CLOUDS
from uvtokend.core.model import Credential, Failure, Request, Secret
from uvtokend.errors import FetchFailed
from uvtokend.providers.kit import deadline
from uvtokend.providers.kit.failures import rejected

GROUP = "uvtokend.providers"
#: The package that our own providers come from: no plug-in takes the place of one of them.
OURS = "uvtokend"
#: Bytes of memory that a worker may fill; with an SDK loaded it takes 45 MiB.
MEMORY = 512 << 20
_TOO_MUCH = Failure("rejected", "too-much", "The provider was answered far more than a credential.")


def main() -> None:
    """Fetch what the environment asks for and answer it."""
    undumpable.protect()  # before there is a token
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
    name = request.provider
    try:
        _know_all_options(request)
        outcome = load(name)(request)
    except FetchFailed as error:
        return error.failure
    except MemoryError:
        return _TOO_MUCH
    except (Exception, SystemExit) as error:  # noqa: BLE001 - nothing escapes unclassified; its text may hold a secret
        message = f"The provider {name!r} failed in a way that it does not explain ({type(error).__name__})."
        return Failure("transient", "unexpected", message)
    if not isinstance(outcome, Credential):
        return Failure("rejected", "garbage", f"The provider {name!r} did not answer a credential.")
    if wrong := misshapen(outcome):
        return Failure("rejected", "garbage", f"The provider {name!r} answered a credential of which {wrong}.")
    return _TOO_MUCH if len(outcome.password.reveal()) > wire.WORKER_LIMIT else outcome


def load(name: str) -> Callable[[Request], object]:
    """Return a provider's function. Only the plug-ins of this name are looked at: one that is broken harms no other.

    Raises:
        FetchFailed: There is none or more than one, or it cannot be imported.
    """
    found = find(name)
    if not found:
        message = f"There is no provider {name!r} in this installation."
        raise rejected("no-provider", message, "install its package where uvtokend is, or name another provider")
    packages = sorted({package(point) for point in found})
    if len(found) > 1:
        message = f"More than one plug-in calls itself {name!r}: {', '.join(packages)}."
        raise rejected("ambiguous-provider", message, _uv("uninstall", packages[-1]))
    try:
        provider = found[0].load()
    except (Exception, SystemExit) as error:  # noqa: BLE001 - an import runs anybody's code; its text may hold a secret
        missing = f": there is no {error.name}" if isinstance(error, ModuleNotFoundError) else ""
        why = f"cannot be imported ({type(error).__name__}{missing})"
    else:
        if callable(provider):
            return provider  # type: ignore[no-any-return]
        why = "is not a function"
    message = f"The provider {name!r} of the package {packages[0]} {why}."
    raise rejected("broken-provider", message, _uv("install", "--reinstall", packages[0])) from None


def find(name: str) -> tuple[EntryPoint, ...]:
    """Return the entry points of one provider: for a name of ours, only our own, whoever else claims it."""
    return tuple(point for point in claims(name) if name not in CLOUDS or package(point) == OURS)


def claims(name: str) -> tuple[EntryPoint, ...]:
    """Return all the entry points that claim a name."""
    try:
        return tuple(entry_points(group=GROUP, name=name))
    except Exception:  # noqa: BLE001 - one package's entry_points.txt is none; it harms only that package
        return tuple(_one_by_one(name))


def package(point: EntryPoint) -> str:
    """Return the name of the package that an entry point comes from."""
    return point.dist.name if point.dist is not None else "?"


def misshapen(credential: Any) -> str | None:  # a plug-in's author may not check his types
    """Say what of a credential could not be delivered as it stands, or return None."""
    if not isinstance(credential.password, Secret):
        return "the password is not a Secret"
    if not isinstance(credential.login, str):
        return "the login is not text"
    times = (credential.issued_at, credential.expires_at, credential.refresh_after)
    if credential.issued_at is None or any(time is not None and time.utcoffset() is None for time in times):
        return "a time has no zone"
    return None


def _one_by_one(name: str) -> Iterator[EntryPoint]:
    for installed in distributions():
        try:
            yield from installed.entry_points.select(group=GROUP, name=name)
        except Exception:  # noqa: BLE001, S112 - this is the broken one
            continue


def _uv(*words: str) -> str:
    """Return the command that changes the environment that we run in, whichever kind it is."""
    verb, *more = words
    return shlex.join(["uv", "pip", verb, "--python", sys.executable, *more])


def _know_all_options(request: Request) -> None:
    """Refuse an option that a provider of ours does not know, say of a newer daemon; a plug-in checks its own."""
    if request.provider in CLOUDS:
        known = CLOUDS[request.provider].options
        for key in (key for key, _ in request.options if key not in known):
            raise rejected("bad-options", f"{request.provider} knows no option {key!r}.", "uvtokend restart")


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

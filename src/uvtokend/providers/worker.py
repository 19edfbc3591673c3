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
_TOO_MUCH = Failure("rejected", "too-much", "The response that the provider received is far larger than a credential.")


def main() -> None:
    """Run the fetch that the environment describes, and print the outcome."""
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
    """Call the request's provider and return its credential, or a classified failure whatever happens."""
    name = request.provider
    try:
        _know_all_options(request)
        outcome = load(name)(request)
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


def load(name: str) -> Callable[[Request], object]:
    """Return a provider's function. Only plug-ins with this name are examined, so a broken one harms no other.

    Raises:
        FetchFailed: No plug-in or more than one provides it, or it cannot be imported.
    """
    found = find(name)
    if not found:
        message = f"The provider {name!r} is not installed."
        raise rejected("no-provider", message, "install its package beside uvtokend, or name another provider")
    packages = sorted({package(point) for point in found})
    if len(found) > 1:
        message = f"More than one plug-in provides {name!r}: {', '.join(packages)}."
        raise rejected("ambiguous-provider", message, _uv("uninstall", packages[-1]))
    try:
        provider = found[0].load()
    except (Exception, SystemExit) as error:  # noqa: BLE001 - an import runs anybody's code; its text may hold a secret
        missing = f": {error.name} is missing" if isinstance(error, ModuleNotFoundError) else ""
        why = f"cannot be imported ({type(error).__name__}{missing})"
    else:
        if callable(provider):
            return provider  # type: ignore[no-any-return]
        why = "is not a function"
    message = f"The provider {name!r} of the package {packages[0]} {why}."
    raise rejected("broken-provider", message, _uv("install", "--reinstall", packages[0])) from None


def find(name: str) -> tuple[EntryPoint, ...]:
    """Return the entry points of one provider: for a name of ours, only our own, even if another package claims it."""
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
    """Return why a credential cannot be delivered, or None."""
    if not isinstance(credential.password, Secret):
        return "its password is not a Secret"
    if not isinstance(credential.login, str):
        return "its login is not text"
    times = (credential.issued_at, credential.expires_at, credential.refresh_after)
    if credential.issued_at is None or any(time is not None and time.utcoffset() is None for time in times):
        return "one of its times has no time zone"
    return None


def _one_by_one(name: str) -> Iterator[EntryPoint]:
    for installed in distributions():
        try:
            yield from installed.entry_points.select(group=GROUP, name=name)
        except Exception:  # noqa: BLE001, S112 - this is the broken one
            continue


def _uv(*words: str) -> str:
    """Return a command that changes the environment that uvtokend runs in."""
    verb, *more = words
    return shlex.join(["uv", "pip", verb, "--python", sys.executable, *more])


def _know_all_options(request: Request) -> None:
    """Refuse an option unknown to our own provider (a newer daemon may send one); a plug-in checks its own."""
    if request.provider in CLOUDS:
        known = CLOUDS[request.provider].options
        for key in (key for key, _ in request.options if key not in known):
            raise rejected("bad-options", f"{request.provider} knows no option {key!r}.", "uvtokend restart")


def _bound_memory(size: int) -> None:
    """Keep a huge response from using up all memory (getrlimit(2), RLIMIT_DATA; macOS does not enforce it)."""
    hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
    with contextlib.suppress(ValueError, OSError):  # a stricter limit stands already
        resource.setrlimit(resource.RLIMIT_DATA, (size, hard))


class _Helper(subprocess.Popen[Any]):
    """A helper program: it does not inherit our memory limit, which Java and Node exceed at start."""

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

"""``uvtokend init``: finds the private indexes that uv knows and writes down what is missing."""

from __future__ import annotations

import asyncio
import os
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

from uvtokend import config, paths
from uvtokend.cli import client, console
from uvtokend.core import discovery, environment
from uvtokend.core.discovery import Candidate
from uvtokend.core.model import Credential, Failure, Request, Settings
from uvtokend.core.settings import Source, parse
from uvtokend.daemon.worker import Outcome, Workers
from uvtokend.errors import FAILED, OK, NotRunning, UvtokendError

_HEADER = "# uvtokend: the private indexes whose tokens are kept fresh. Made by `uvtokend init`; yours to edit.\n"


def run(places: list[str], yes: bool, config_file: str | None) -> int:
    """Show what uv's configuration names, ask, try each index once, and add what is missing.

    Args:
        places: Project folders or files; the current folder if there is none.
        yes: Do not ask.
        config_file: Another configuration file of ours.

    Raises:
        UvtokendError: Without a terminal only ``--yes`` goes on; or the configuration is wrong.
    """
    target = paths.config_file(config_file)
    settings = config.load(config_file) if os.path.exists(target) or config_file is None else Settings(target)
    candidates = list(_candidates([Path(place) for place in places or ["."]]))
    found = discovery.missing(candidates, settings.indexes)
    _show(candidates, found)
    if not found:
        console.say("There is nothing to add.")
        return OK if settings.indexes else FAILED
    if not yes and not _agreed(target):
        return FAILED
    text = discovery.tables(found, os.environ.get("AWS_PROFILE"))
    added = _checked(target, text)
    _try(added, settings)
    _append(target, text)
    console.say(f"Added {len(found)} to {target}.")
    _reload()
    return OK


def _candidates(places: list[Path]) -> Iterator[Candidate]:
    """Yield what uv would read: the projects', the user's and the system's files, and the environment."""
    for place in places:
        files = [place] if place.is_file() else [place / "uv.toml", place / "pyproject.toml"]
        for file in files:
            yield from _read(file)
    home = os.environ.get("XDG_CONFIG_HOME") or str(Path.home() / ".config")
    system = os.environ.get("XDG_CONFIG_DIRS") or "/etc/xdg"
    for folder in (home, *system.split(":"), "/etc"):
        yield from _read(Path(folder) / "uv" / "uv.toml")
    yield from discovery.from_environment(os.environ)


def _read(file: Path) -> Iterator[Candidate]:
    try:
        document = tomllib.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return
    except (OSError, ValueError, RecursionError):
        console.say(f"{file} cannot be read, so it is left out.")
        return
    if file.name == "pyproject.toml":
        tool = document.get("tool")
        document = tool.get("uv", {}) if isinstance(tool, dict) else {}
    if isinstance(document, dict):
        yield from discovery.from_document(document, str(file))


def _show(candidates: list[Candidate], found: list[Candidate]) -> None:
    for candidate in found:
        name = f"{candidate.name}: " if candidate.name else ""
        console.out(f"{name}{candidate.url}\n    {candidate.provider}, from {candidate.place!r}\n")
    for candidate in candidates:
        if candidate.credential:
            console.say(f"A password stands in the URL of an index in {candidate.place!r}. Write instead:")
            console.say(f'    url = "{candidate.url}"')


def _agreed(target: str) -> bool:
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        message = "Without a terminal, uvtokend init does not ask, and adds nothing."
        raise UvtokendError(message, "uvtokend init --yes")
    console.out(f"Try these once, and add them to {target}? [y/N] ")
    return sys.stdin.readline().strip().lower() in {"y", "yes"}


def _checked(target: str, text: str) -> Settings:
    """Return the settings as they will be; what would not be accepted is never written."""
    try:
        before = Path(target).read_bytes()
    except FileNotFoundError:
        before = b""
    folder = os.path.dirname(target)
    whole = parse([Source(target, before + text.encode(), folder)], str(Path.home()), os.environ)
    new = {index.name for index in parse([Source(target, text.encode(), folder)], "/", {}).indexes}
    return Settings(target, tuple(index for index in whole.indexes if index.name in new))


def _try(added: Settings, settings: Settings) -> None:
    """Fetch each token once and say what works and what is missing; nothing is delivered."""
    requests = list(dict.fromkeys(index.request for index in added.indexes))
    outcomes = asyncio.run(_fetch_all(requests, settings))
    for index in added.indexes:
        outcome = outcomes[index.request]
        if isinstance(outcome, Credential):
            console.out(f"{index.name}: works{f', as {outcome.identity}' if outcome.identity else ''}\n")
        else:
            assert isinstance(outcome, Failure)  # noqa: S101 - for the type checker
            console.out(f"{index.name}: {outcome.message}\n" + (f"  mend: {outcome.hint}\n" if outcome.hint else ""))


async def _fetch_all(requests: list[Request], settings: Settings) -> dict[Request, Outcome]:
    outcomes: dict[Request, Outcome] = {}
    done = asyncio.Event()

    def ended(request: Request, outcome: Outcome) -> None:
        outcomes[request] = outcome
        if len(outcomes) == len(requests):
            done.set()

    def inside(request: Request) -> dict[str, str]:
        return environment.worker_environment(os.environ, request, settings)

    workers = Workers(settings.max_workers, settings.fetch_timeout, inside, ended)
    try:
        for request in requests:
            workers.start(request)
        await done.wait()
    finally:
        workers.close()
    return outcomes


def _append(target: str, text: str) -> None:
    """Add to the end of the file, or make it; what stands in it stays."""
    folder = os.path.dirname(target)
    os.makedirs(folder, mode=0o700, exist_ok=True)
    file = os.open(target, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    with os.fdopen(file, "r+b") as opened:
        before = opened.read()
        glue = "" if before.endswith(b"\n") or not before else "\n"
        opened.write((f"{glue}{text}" if before else _HEADER + text).encode())
        opened.flush()
        os.fsync(opened.fileno())


def _reload() -> None:
    try:
        client.call("reload")
        console.say("The running daemon has taken it up.")
    except NotRunning:
        console.say("Start it with: uvtokend start")

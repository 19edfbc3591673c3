"""``uvtokend init``: finds the private indexes that uv knows and writes down what is missing."""

from __future__ import annotations

import asyncio
import os
import shlex
import sys
from collections.abc import Iterable, Sequence

from uvtokend import config, paths
from uvtokend.cli import configfile, console, uvfiles
from uvtokend.core import discovery, edit, environment
from uvtokend.core.discovery import Candidate, Plan
from uvtokend.core.model import Credential, Failure, Index, Request, Settings
from uvtokend.core.report import clean
from uvtokend.daemon.worker import Outcome, Workers
from uvtokend.errors import FAILED, OK, UvtokendError


def run(places: Sequence[str], yes: bool, config_file: str | None) -> int:
    """Show what uv's configuration names, ask, try each index once, and add what is missing.

    Args:
        places: Project folders or files; the current folder if there is none.
        yes: Do not ask.
        config_file: Another configuration file of ours.

    Raises:
        UvtokendError: Without a terminal only ``--yes`` goes on; or the configuration is wrong.
    """
    target = paths.config_file(config_file)
    settings = config.load(config_file, config.read(target) or b"")
    found = uvfiles.candidates(places, os.environ)
    # botocore asks for the two variables in this order.
    profile = os.environ.get("AWS_DEFAULT_PROFILE") or os.environ.get("AWS_PROFILE")
    plan = discovery.plan(found, settings.indexes, settings.disabled, profile)
    _show(plan)
    _warn_of_passwords(found)
    if not plan.additions:
        _say_nothing_to_add(found, plan)
        return OK if settings.indexes and not plan.conflicts else FAILED
    tables = [addition.table for addition in plan.additions]

    def change(text: str) -> str:
        return edit.append(text, tables)

    whole = configfile.preview(config_file, change)  # what would not be accepted is not even asked about
    if not yes and not _agreed(target):
        console.say("Nothing was added.")
        return FAILED
    names = {str(table["name"]) for table in tables}
    _try([index for index in whole.indexes if index.name in names], whole)
    settings = configfile.edit(config_file, change)
    console.say(f"Added {len(tables)} to {target}.")
    configfile.tell_daemon(settings)
    return OK


def _show(plan: Plan) -> None:
    for addition in plan.additions:
        candidate = addition.candidate
        console.out(clean(f"{addition.table['name']}: {candidate.url}") + "\n")
        sink = f", sink {addition.table['sink']}" if "sink" in addition.table else ""
        console.out(clean(f"    {candidate.provider}{sink}, from {candidate.place}") + "\n")
        if addition.note is not None:
            console.out(clean(f"    {addition.note}") + "\n")
    for sentence in plan.conflicts:
        console.say(sentence)
    if plan.unknown:
        console.say("No provider is known for these. A public index needs none; a private one can be added so:")
        for candidate in plan.unknown:
            name = f" --name {shlex.quote(candidate.name)}" if candidate.name else ""
            console.say(f"    uvtokend add {shlex.quote(candidate.url)}{name} --set provider=…")


def _warn_of_passwords(found: Iterable[Candidate]) -> None:
    for candidate in dict.fromkeys(found):
        if candidate.credential:
            console.say(f"A password stands in the URL of an index in {candidate.place}. Write instead:")
            console.say(f"    {candidate.line}")


def _say_nothing_to_add(found: Sequence[Candidate], plan: Plan) -> None:
    if plan.conflicts:
        return
    known = sum(candidate.provider is not None for candidate in found)
    console.say(
        "There is nothing to add: all that uv knows is configured."
        if known
        else "There is nothing to add: uv's configuration names no private index here."
    )


def _agreed(target: str) -> bool:
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        message = "Without a terminal, uvtokend init does not ask, and adds nothing."
        raise UvtokendError(message, "uvtokend init --yes")
    console.out(clean(f"Try these once, and add them to {target}? [y/N] "))
    return sys.stdin.readline().strip().lower() in {"y", "yes"}


def _try(added: Sequence[Index], settings: Settings) -> None:
    """Fetch each token once and say what works and what is missing; nothing is delivered."""
    requests = list(dict.fromkeys(index.request for index in added))
    outcomes = asyncio.run(_fetch_all(requests, settings))
    for index in added:
        outcome = outcomes[index.request]
        if isinstance(outcome, Credential):
            works = f"{index.name}: works{f', as {outcome.identity}' if outcome.identity else ''}"
            console.out(clean(works) + "\n")
        else:
            assert isinstance(outcome, Failure)  # noqa: S101 - for the type checker
            console.out(clean(f"{index.name}: {outcome.message}") + "\n")
            console.out(clean(f"  mend: {outcome.hint}") + "\n" if outcome.hint else "")


async def _fetch_all(requests: Sequence[Request], settings: Settings) -> dict[Request, Outcome]:
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

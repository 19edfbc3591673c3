"""``uvtokend init``: finds the private indexes that uv knows and writes down what is missing."""

from __future__ import annotations

import argparse
import asyncio
import os
import shlex
import shutil
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence

from uvtokend import paths
from uvtokend.cli import console, reload
from uvtokend.core import worker_environment
from uvtokend.core.clouds import CLOUDS
from uvtokend.core.config import edit, init_plan
from uvtokend.core.config.discovery import Candidate
from uvtokend.core.config.init_plan import Proposal
from uvtokend.core.model import Credential, Failure, Index, Request, Settings
from uvtokend.core.report import clean
from uvtokend.daemon.worker import Outcome, Workers
from uvtokend.disk import config_editor, configuration, uv_files
from uvtokend.errors import FAILED, OK, UvtokendError

EXAMPLES = ("uvtokend init", "uvtokend init --yes ~/code/project")
DETAILS = (
    "Reads uv's own configuration, asks, tries each index once, and adds what is missing. Never overwrites anything."
)


def arguments(own: argparse.ArgumentParser) -> None:
    """Add the arguments of this verb."""
    own.add_argument(
        "paths",
        metavar="PATH",
        nargs="*",
        help="a project directory, a pyproject.toml or a uv.toml (default: current directory)",
    )
    own.add_argument("--yes", action="store_true", help="don't ask")


def run(args: argparse.Namespace) -> int:
    """Set up the indexes that uv knows; see `init`."""
    return init(args.paths, args.yes, args.config)


def init(places: Sequence[str], yes: bool, config_file: str | None) -> int:
    """Show what uv's configuration names, ask, try each index once, and add what is missing.

    Args:
        places: Project directories or files; the current directory if there is none.
        yes: Do not ask.
        config_file: Another configuration file of ours.

    Raises:
        UvtokendError: Without a terminal only ``--yes`` goes on; or the configuration is wrong.
    """
    target = paths.config_file(config_file)
    text = configuration.read(target) or b""
    settings = configuration.load(config_file, text)
    candidates = uv_files.candidates(places, os.environ, console.say)
    plan = init_plan.plan(candidates, settings.indexes, settings.disabled, os.environ, text.decode())
    _show(plan)
    _warn_of_passwords(candidates)
    if not (plan.additions or plan.drafts):
        _say_nothing_to_add(candidates, plan)
        return OK if settings.indexes and not plan.conflicts else FAILED
    tables = [addition.table for addition in plan.additions]

    def change(text: str) -> str:
        return edit.append(text, tables, [draft.remark for draft in plan.drafts])

    whole = config_editor.preview(config_file, change)  # what would not be accepted is not even asked about
    if not yes and not _agreed(places, plan, target):
        console.say("Nothing was added.")
        return FAILED
    names = {str(table["name"]) for table in tables}
    if names:
        _try([index for index in whole.indexes if index.name in names], whole)
    settings = config_editor.edit(config_file, change)
    _say_what_is_done(plan, target)
    if tables:
        reload.tell_daemon(settings)
    return OK if tables else FAILED


def _show(plan: Proposal) -> None:
    for addition in plan.additions:
        candidate = addition.candidate
        provider = addition.table.get("provider", candidate.provider)
        sink = f", sink {addition.table['sink']}" if "sink" in addition.table else ""
        _show_one(str(addition.table["name"]), candidate, f"{provider}{sink}")
        if addition.note is not None:
            console.out(clean(f"    {addition.note}") + "\n")
    for draft in plan.drafts:
        _show_one(draft.name, draft.candidate, f"{draft.candidate.provider}, which needs a secret that only you have")
    for sentence in (*plan.conflicts, *plan.cautions):
        console.say(sentence)
    if plan.unknown:
        console.say("No provider is known for these. A public index needs none; a private one can be added so:")
        for candidate in plan.unknown:
            name = f" --name {shlex.quote(candidate.name)}" if candidate.name else ""
            options = "".join(f" --set {shlex.quote(each)}" for each in init_plan.suggested(candidate))
            console.say(f"    uvtokend add {shlex.quote(candidate.url.text)}{name}{options}")


def _show_one(name: str, candidate: Candidate, what: str) -> None:
    console.out(clean(f"{name}: {candidate.url.text}") + "\n")
    console.out(clean(f"    {what}; named in {candidate.source}") + "\n")


def _say_what_is_done(plan: Proposal, target: str) -> None:
    if plan.additions:
        console.say(f"Added to {target}: {', '.join(str(each.table['name']) for each in plan.additions)}.")
    if plan.drafts:
        names = ", ".join(draft.name for draft in plan.drafts)
        console.say(f"Written to {target} as comments, for you to complete: {names}. Then: uvtokend reload")
    if plan.project:
        console.say(
            "uv tells two organizations on one host apart by the user names in their URLs. So pyproject.toml needs "
            "these indexes (uv.toml the same, as [[index]]) in the place of those without a user name:"
        )
        console.out("\n" + "\n".join(plan.project) + "\n")


def _warn_of_passwords(candidates: Iterable[Candidate]) -> None:
    for candidate in dict.fromkeys(candidates):
        if candidate.secret:
            console.say(f"The URL of an index in {candidate.source} contains a password or token. Revoke it and write:")
            console.say(f"    {candidate.line}")


def _say_nothing_to_add(candidates: Sequence[Candidate], plan: Proposal) -> None:
    if plan.conflicts:
        return
    if any(candidate.provider is not None for candidate in candidates):
        console.say("There is nothing to add: every private index that uv knows here is configured already.")
    elif candidates:
        console.say("There is nothing to add: no provider is known for the indexes that uv knows here.")
    else:
        console.say("There is nothing to add: uv's configuration names no index here.")
        console.say("Run it in a project that uses a private index, or add one: uvtokend add https://…/simple/")


def _agreed(places: Sequence[str], plan: Proposal, target: str) -> bool:
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        message = "Without a terminal, uvtokend init does not ask, and adds nothing."
        raise UvtokendError(message, shlex.join(["uvtokend", "init", "--yes", *places]))
    what = "Try these once, and add them" if plan.additions else "Write these as comments"
    console.out(clean(f"{what} to {target}? [y/N] "))
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
            for line in _fix(outcome.hint, os.environ):
                console.out(clean(f"  {line}") + "\n")


def _fix(hint: str | None, environ: Mapping[str, str]) -> Iterator[str]:
    """Yield a fix and, if its program is not on PATH, where to get that."""
    if hint is None:
        return
    yield f"fix: {hint}"
    words = hint.split()
    for program in (cloud.program for cloud in CLOUDS.values()):
        if program is not None and program.name in words and not shutil.which(program.name, path=environ.get("PATH")):
            yield f"{program.name} is not on your PATH. To install it: {program.page}"


async def _fetch_all(requests: Sequence[Request], settings: Settings) -> dict[Request, Outcome]:
    outcomes: dict[Request, Outcome] = {}
    done = asyncio.Event()

    def ended(request: Request, outcome: Outcome) -> None:
        outcomes[request] = outcome
        if len(outcomes) == len(requests):
            done.set()

    def inside(request: Request) -> dict[str, str]:
        return worker_environment.worker_environment(os.environ, request, settings)

    workers = Workers(settings.max_workers, settings.fetch_timeout, inside, ended)
    try:
        for request in requests:
            workers.start(request)
        await done.wait()
    finally:
        await workers.close()
    return outcomes

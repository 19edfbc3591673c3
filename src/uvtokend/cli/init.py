"""``uvtokend init``: find the private indexes that uv knows, and add the missing ones to ``config.toml``."""

from __future__ import annotations

import argparse
import asyncio
import os
import shlex
import shutil
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence

from uvtokend import paths
from uvtokend.cli import console, reload
from uvtokend.core import clouds, worker_environment
from uvtokend.core.clouds import CLOUDS
from uvtokend.core.config import edit, init_plan, templates
from uvtokend.core.config.discovery import Candidate
from uvtokend.core.config.init_plan import Proposal
from uvtokend.core.model import Credential, Failure, Request, Settings
from uvtokend.core.text import clean
from uvtokend.core.urls import IndexUrl
from uvtokend.daemon.worker import Outcome, Workers
from uvtokend.disk import config_editor, configuration, uv_projects
from uvtokend.doctor import project, uv
from uvtokend.doctor.facts import gather
from uvtokend.errors import FAILED, OK, UvtokendError

EXAMPLES = ("uvtokend init", "uvtokend init --yes ~/code/project")
#: The checks of `doctor` whose findings a newcomer should see at once.
_ADVICE = frozenset({"url-differs", "name-differs", "authenticate-missing", "authenticate-never", "public-fallback"})
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
    """Show the indexes in uv's configuration, ask, try each index once, and add the missing ones.

    Args:
        places: Project directories or files; the current directory if there is none.
        yes: Do not ask.
        config_file: Another configuration file of ours.

    Raises:
        UvtokendError: There is neither a terminal nor ``--yes``, or the configuration is invalid.
    """
    target = paths.config_file(config_file)
    text = configuration.read(target) or b""
    settings = configuration.load(config_file, text)
    candidates = uv_projects.candidates(places, os.environ, console.say)
    stored = clouds.stored_sign_ins(os.environ, lambda path: os.path.exists(os.path.expanduser(path)))
    plan = init_plan.plan(candidates, settings.indexes, settings.disabled, os.environ, text.decode(), stored)
    _show(plan)
    _warn_of_passwords(candidates)
    if not (plan.additions or plan.drafts):
        _say_nothing_to_add(candidates, plan)
        _advise(places, config_file)
        return OK if settings.indexes and not plan.conflicts else FAILED
    tables = [addition.table for addition in plan.additions]

    def change(text: str) -> str:
        return edit.append(text, tables, [draft.remark for draft in plan.drafts])

    whole = config_editor.preview(config_file, change)  # what would be refused is not asked about
    if not yes and not _agreed(places, plan, target):
        console.say("Nothing was added.")
        return FAILED
    if tables:
        _try(tables, whole, stored, lambda: config_editor.preview(config_file, change))
    settings = config_editor.edit(config_file, change)
    _say_what_is_done(plan, target)
    if tables:
        reload.tell_daemon(settings)
    _advise(places, config_file)
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
        console.say(
            "No provider is known for these. A public index needs none; a private one can be added like this, with your"
        )
        console.say("own user name and file. The other providers: uvtokend help provider-other")
        for candidate in plan.unknown:
            console.say(f"    {templates.by_hand(candidate.url, candidate.name)}")


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
            "these indexes (uv.toml the same, as [[index]]) instead of those without a user name:"
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
        console.say("Nothing was added: no provider is known for the indexes that uv knows here.")
    else:
        console.say("There is nothing to add: uv's configuration names no index here.")
        console.say("Run it in a project that uses a private index, or see: uvtokend add --help")
        _say_what_only_pip_knows()


def _say_what_only_pip_knows() -> None:
    """Name the private indexes in pip's configuration, which uv does not read, with the lines that uv needs."""
    for url, place in {url: place for place, url in project.pip_indexes(os.environ)}.items():
        parsed = IndexUrl.parse(url)
        if clouds.recognize(parsed) is not None:
            console.say(f"pip's configuration ({place}) names {url}, but uv does not read it.")
            first, *lines = project.lines_for_uv(parsed.name, url, os.environ).splitlines()
            console.say(f"  fix: {first}")
            for line in [*lines, "and run uvtokend init again"]:
                console.say(f"    {line}")


def _agreed(places: Sequence[str], plan: Proposal, target: str) -> bool:
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        message = "Without a terminal, uvtokend init does not ask, and adds nothing."
        raise UvtokendError(message, shlex.join(["uvtokend", "init", "--yes", *places]))
    what = "Try these once, and add them" if plan.additions else "Write these as comments"
    console.out(clean(f"{what} to {target}? [y/N] "))
    return sys.stdin.readline().strip().lower() in {"y", "yes"}


def _try(tables: list[edit.Table], whole: Settings, stored: Collection[str], changed: Callable[[], Settings]) -> None:
    """Fetch each token once and print the results; nothing is delivered.

    If no sign-in is found, but the cloud's program keeps one, that one is tried, and used if it works.

    Args:
        tables: The tables to add; options that choose the program's sign-in are added if needed.
        whole: The configuration with these tables.
        stored: The providers whose program keeps a sign-in.
        changed: Returns the configuration with the changed tables.
    """
    providers = {index.name: index.provider for index in whole.indexes}
    outcomes = _fetched([str(table["name"]) for table in tables], whole)
    before = {number: dict(tables[number]) for number in range(len(tables))}
    again: dict[str, str] = {}
    for table in tables:
        name = str(table["name"])
        cloud = CLOUDS.get(providers[name])
        strange = isinstance(outcome := outcomes[name], Failure) and outcome.reason == "no-credentials"
        if strange and providers[name] in stored and cloud is not None and cloud.stored and cloud.program:
            table.update(cloud.stored.options)
            again[name] = cloud.program.name
    second = _fetched([*again], changed()) if again else {}
    for number, table in enumerate(tables):
        name = str(table["name"])
        if isinstance(second.get(name), Credential):
            outcomes[name] = second[name]
        elif name in again:
            tables[number] = before[number]
            del again[name]
        _say_how_it_went(name, outcomes[name], again.get(name))


def _fetched(names: Sequence[str], settings: Settings) -> dict[str, Outcome]:
    """Fetch the tokens of indexes, one fetch per request."""
    chosen = {index.name: index.request for index in settings.indexes if index.name in names}
    with console.Ticking("Trying to fetch the tokens"):
        outcomes = asyncio.run(_fetch_all(list(dict.fromkeys(chosen.values())), settings))
    return {name: outcomes[request] for name, request in chosen.items()}


def _say_how_it_went(name: str, outcome: Outcome, program: str | None) -> None:
    if isinstance(outcome, Credential):
        who = f", as {outcome.identity}" if outcome.identity else ""
        how = f", with the sign-in of {program}" if program is not None else ""
        console.out(clean(f"{name}: works{who}{how}") + "\n")
        return
    assert isinstance(outcome, Failure)  # noqa: S101 - for the type checker
    console.out(clean(f"{name}: {outcome.message}") + "\n")
    for line in _fix(outcome.hint, os.environ):
        console.out(clean(f"  {line}") + "\n")


def _advise(places: Sequence[str], config_file: str | None) -> None:
    """Print the lines to add to uv's own configuration for the configured indexes."""
    told: dict[tuple[str, str | None], None] = {}
    for place in places or (None,):
        facts = gather(os.path.dirname(place) if place and os.path.isfile(place) else place, config_file, None)
        findings = (finding for check in uv.CHECKS for finding in check(facts) if finding.name in _ADVICE)
        told |= dict.fromkeys((finding.message, finding.fix) for finding in findings)
    for message, fix in told:
        console.say(message, fix)


def _fix(hint: str | None, environ: Mapping[str, str]) -> Iterator[str]:
    """Yield a fix and, if its program is not on PATH, the installation page."""
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

"""The clouds' own programs and the environment: is everything there that a sign-in needs?"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator

from uvtokend.core import clouds
from uvtokend.doctor.daemon import environment_of, restart
from uvtokend.doctor.facts import Facts
from uvtokend.doctor.finding import Finding, error, note

#: Program -> its installation page.
_PAGES = {cloud.program.name: cloud.program.page for cloud in clouds.CLOUDS.values() if cloud.program is not None}


def missing(facts: Facts) -> Iterator[Finding]:
    """A program that an index needs, or that the fix of its failure names, is not on PATH here or for the daemon."""
    theirs = environment_of(facts.status) if facts.status is not None else None
    for program, (runs, names) in _needed(facts).items():
        install = f"install {program}: {_PAGES[program]}" if program in _PAGES else f"install {program}"
        what = f"{', '.join(names)} {'needs' if len(names) == 1 else 'need'}"
        if shutil.which(program) is None:
            report = error if runs else note
            yield report("program-missing", f"{program} is not on PATH in this shell; {what} it.", program, install)
        elif runs and theirs is not None and shutil.which(program, path=theirs.get("PATH", os.defpath)) is None:
            message = f"{program} is on PATH in this shell, but not in the daemon's environment; {what} it there."
            yield error("program-missing", message, f"PATH={theirs.get('PATH', '')}", restart())


def _needed(facts: Facts) -> dict[str, tuple[bool, list[str]]]:
    """Return the programs, whether fetching a token runs them, and for which indexes."""
    programs: dict[str, tuple[bool, list[str]]] = {}
    for index in facts.indexes:
        cloud = clouds.CLOUDS.get(index.provider)
        runs = cloud.runs(index.request) if cloud is not None else ()
        hint = str((facts.said(index).get("last_error") or {}).get("hint") or "").partition(" ")[0]
        for program in dict.fromkeys([*runs, *([hint] if hint in _PAGES else [])]):
            needed, names = programs.get(program, (False, []))
            programs[program] = needed or program in runs, [*names, index.name]
    return programs


def temporary(facts: Facts) -> Iterator[Finding]:
    """This shell has temporary credentials, which a daemon started from here would inherit."""
    if facts.status is not None:
        return  # the daemon's own environment counts, and the daemon reports it itself
    for notice in dict.fromkeys(clouds.temporary_credentials(facts.environ, index.request) for index in facts.indexes):
        if notice is not None:
            yield note(notice.reason, notice.message, None, notice.hint)


CHECKS = (missing, temporary)

"""The clouds' own programs and the environment: is what a sign-in needs there?"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator

from uvtokend.core.model import Index
from uvtokend.core.shadows import temporary_credentials
from uvtokend.doctor.daemon import environment_of
from uvtokend.doctor.facts import Facts
from uvtokend.doctor.finding import Finding, error, note

#: Program -> what installs it, in words.
_PROGRAMS = {
    "aws": "the AWS CLI",
    "gcloud": "the Google Cloud CLI",
    "az": "the Azure CLI",
    "azd": "the Azure Developer CLI",
    "jf": "the JFrog CLI",
}


def missing(facts: Facts) -> Iterator[Finding]:
    """A program that an index needs, or that the fix of its failure names, is not on PATH here or for the daemon."""
    theirs = environment_of(facts.status["pid"]) if facts.status is not None else None
    for program, (needed, names) in _needed(facts).items():
        indexes = ", ".join(names)
        if shutil.which(program) is None:
            message = (
                f"{program} ({_PROGRAMS[program]}) is not on PATH in this shell; signing in for {indexes} needs it."
            )
            yield (error if needed else note)("program-missing", message, program, f"install {_PROGRAMS[program]}")
        elif theirs is not None and shutil.which(program, path=theirs.get("PATH", os.defpath)) is None and needed:
            message = (
                f"{program} is on PATH in this shell, but not for the running daemon, which needs it for {indexes}."
            )
            yield error(
                "program-missing",
                message,
                f"PATH={theirs.get('PATH', '')}",
                "uvtokend service install && uvtokend restart",
            )


def _needed(facts: Facts) -> dict[str, tuple[bool, list[str]]]:
    """Return the programs, whether fetching a token runs them, and the indexes."""
    found: dict[str, tuple[bool, list[str]]] = {}
    for index in facts.indexes:
        run, hinted = _run_by(index), str((facts.said(index).get("last_error") or {}).get("hint") or "").split(" ")[0]
        for program in dict.fromkeys([run, hinted]):
            if program in _PROGRAMS:
                needed, names = found.get(program, (False, []))
                found[program] = needed or program == run, [*names, index.name]
    return found


def _run_by(index: Index) -> str:
    match index.provider, index.request.option("source"), index.request.option("credential"):
        case "google-artifact-registry", "gcloud", _:
            return "gcloud"
        case "jfrog-artifactory", "jf", _:
            return "jf"
        case "azure-artifacts", _, "cli":
            return "az"
        case "azure-artifacts", _, "developer-cli":
            return "azd"
    return ""


def temporary(facts: Facts) -> Iterator[Finding]:
    """Temporary credentials of this shell, which a daemon started from here would take over."""
    if facts.status is not None:
        return  # the daemon's own environment is what counts, and it says so itself
    for notice in dict.fromkeys(temporary_credentials(facts.environ, index.request) for index in facts.indexes):
        if notice is not None:
            yield note(notice.reason, notice.message, None, notice.hint)


CHECKS = (missing, temporary)

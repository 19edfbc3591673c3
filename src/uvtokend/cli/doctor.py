"""``uvtokend doctor``: find every known reason why an install fails although there is a token, each with its fix."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from uvtokend.cli import client, console
from uvtokend.core.text import BOLD, RED, clean, wrapped
from uvtokend.doctor import checks
from uvtokend.doctor.facts import Facts, gather
from uvtokend.doctor.finding import Finding
from uvtokend.errors import FAILED, OK, NotRunning, UvtokendError

EXAMPLES = ("uvtokend doctor", "uvtokend doctor ~/code/project", "uvtokend doctor --offline --json")
DETAILS = (
    "Reads what uv reads in this directory, compares it with config.toml, and asks each index once with the token that "
    "uvtokend delivered. Exits 0 if uv can install, 1 if there is an error."
)


def arguments(own: argparse.ArgumentParser) -> None:
    """Add the arguments of this verb."""
    own.add_argument("project", nargs="?", metavar="PROJECT", help="the project's directory (default: this one)")
    own.add_argument("--json", action="store_true", help="print the findings for machines")
    own.add_argument("--offline", action="store_true", help="ask no index")


def run(args: argparse.Namespace) -> int:
    """Run all checks and show their findings.

    Returns:
        0 if there is no error, 1 otherwise; notes do not count.

    Raises:
        UsageError: The project does not exist.
    """
    facts = gather(args.project, args.config, daemon_status())
    findings = examine(facts, args.offline)
    if args.json:
        document = {"ok": not _errors(findings), "findings": [finding.json() for finding in findings]}
        console.out(json.dumps(document, indent=1) + "\n")
    else:
        console.out(_text(facts, findings, args.offline))
    return FAILED if _errors(findings) else OK


def examine(facts: Facts, offline: bool) -> list[Finding]:
    """Run the checks in parallel."""
    if offline:
        return checks.run(facts, checks.OFFLINE, checks.LIMIT)
    from uvtokend.doctor import network  # noqa: PLC0415 - it imports TLS, which --offline does not need

    with console.Ticking("Asking the indexes"):
        return checks.run(facts, (*checks.OFFLINE, *network.checks(facts)), checks.ONLINE_LIMIT)


def daemon_status() -> Mapping[str, Any] | None:
    """Return the daemon's status document, or None if no daemon answers."""
    try:
        document = {**client.call("status"), "environment": client.call("version").get("environment")}
    except NotRunning:
        return None
    except UvtokendError as error:
        console.complain(error)
        return None
    return document


def _errors(findings: Sequence[Finding]) -> list[Finding]:
    return [finding for finding in findings if finding.severity == "error"]


def _text(facts: Facts, findings: Sequence[Finding], offline: bool) -> str:
    lines: list[str] = []
    width, colored = console.width(sys.stdout), console.colored(sys.stdout)
    for finding in findings:
        label = _painted(finding.severity, RED if finding.severity == "error" else BOLD, colored)
        first, *rest = wrapped(clean(f"{finding.severity}: {finding.message}"), width)
        lines += [label + first.removeprefix(finding.severity), *rest]
        if finding.culprit is not None and finding.culprit not in finding.message:
            lines.append(f"  where: {clean(finding.culprit)}")
        if finding.fix is not None:
            above, *below = finding.fix.splitlines()
            lines.append(f"  fix: {_painted(clean(above), BOLD, colored)}")
            lines += [f"    {clean(line)}" for line in below]
    lines.append(_summary(facts, findings, offline))
    return "\n".join(lines) + "\n"


def _summary(facts: Facts, findings: Sequence[Finding], offline: bool) -> str:
    errors, notes = len(_errors(findings)), len(findings) - len(_errors(findings))
    counted = ", ".join(_counted(number, word) for number, word in ((errors, "error"), (notes, "note")) if number)
    count = len(facts.indexes)
    what = f"{_counted(count, 'index' if count == 1 else 'indexe')}{', not asked' if offline and count else ''}"
    return f"Checked {what}: {counted or 'no problems found'}."


def _counted(number: int, word: str) -> str:
    return f"{number} {word}{'' if number == 1 else 's'}"


def _painted(text: str, shade: str, colored: bool) -> str:
    return f"\x1b[{shade}m{text}\x1b[0m" if colored else text

"""All checks, and how they are run: side by side, each with a time limit, so that no check hides another."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence

from uvtokend.doctor import configuration, daemon, disk, netrc, programs, project, uv
from uvtokend.doctor.facts import Facts
from uvtokend.doctor.finding import Finding, note

Check = Callable[[Facts], Iterable[Finding]]

#: Checks that ask nobody beyond this machine, in the order in which their findings are shown.
OFFLINE: tuple[Check, ...] = (
    *configuration.CHECKS,
    *netrc.CHECKS,
    *uv.CHECKS,
    *project.CHECKS,
    *disk.CHECKS,
    *programs.CHECKS,
    *daemon.CHECKS,
)
#: Seconds that all checks together may take, and with the network.
LIMIT = 2.0
ONLINE_LIMIT = 8.0


def run(facts: Facts, checks: Sequence[Check], limit: float) -> list[Finding]:
    """Run checks side by side and return their findings, errors first, otherwise in the order of the checks.

    Args:
        facts: What they look at.
        checks: Those to run.
        limit: Seconds; a check that takes longer is reported and left alone.
    """
    results: dict[int, list[Finding]] = {}

    def work(number: int, check: Check) -> None:
        try:
            results[number] = list(check(facts))
        except Exception as problem:  # noqa: BLE001 - one broken check must not hide the others
            message = f"The check {_name(check)} failed: {type(problem).__name__}."
            results[number] = [note("check-failed", message, None, "report it, with this line")]

    # A thread that hangs, say in a dead network file system, must not keep the process alive.
    threads = [threading.Thread(target=work, args=each, daemon=True) for each in enumerate(checks)]
    for thread in threads:
        thread.start()
    waiting = threading.Event()
    watcher = threading.Thread(target=_join, args=(threads, waiting), daemon=True)
    watcher.start()
    waiting.wait(limit)
    findings: list[Finding] = []
    for number, check in enumerate(checks):
        slow = note("check-slow", f"Check {_name(check)} did not end within {limit:g} s.", None, None)
        findings += results.get(number, [slow])
    return sorted(distinct(findings), key=lambda finding: finding.severity != "error")


def _name(check: Check) -> str:
    return str(getattr(check, "__name__", "of one index"))


def _join(threads: Sequence[threading.Thread], done: threading.Event) -> None:
    for thread in threads:
        thread.join()
    done.set()


def distinct(findings: Iterable[Finding]) -> list[Finding]:
    """Return findings, each culprit of one name once: two checks may come upon the same mistake."""
    seen: dict[tuple[str, str | None, str | None], Finding] = {}
    for finding in findings:
        seen.setdefault((finding.name, finding.culprit, finding.fix), finding)
    return list(seen.values())

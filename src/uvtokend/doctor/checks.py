"""Run all checks in parallel, each with a time limit, so that no check hides another."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence

from uvtokend.doctor import configuration, daemon, disk, netrc, programs, project, uv
from uvtokend.doctor.facts import Facts
from uvtokend.doctor.finding import Finding, note

Check = Callable[[Facts], Iterable[Finding]]

#: Checks without the network, in the order in which their findings are shown.
OFFLINE: tuple[Check, ...] = (
    *configuration.CHECKS,
    *netrc.CHECKS,
    *uv.CHECKS,
    *project.CHECKS,
    *disk.CHECKS,
    *programs.CHECKS,
    *daemon.CHECKS,
)
#: Seconds for all checks together: without the network, and with it.
LIMIT = 2.0
ONLINE_LIMIT = 8.0


def run(facts: Facts, checks: Sequence[Check], limit: float) -> list[Finding]:
    """Run checks in parallel and return their findings, errors first, otherwise in the order of the checks.

    Args:
        facts: The facts that they read.
        checks: The checks to run.
        limit: The time limit in seconds; a check that takes longer is reported and abandoned.
    """
    results: dict[int, list[Finding]] = {}

    def work(number: int, check: Check) -> None:
        try:
            results[number] = list(check(facts))
        except Exception as problem:  # noqa: BLE001 - one broken check must not hide the others
            message = f"The check {_name(check)} failed: {type(problem).__name__}."
            results[number] = [note("check-failed", message, None, "report it, with this line")]

    # A thread that hangs, for example in a network file system, must not keep the process running.
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
    """Return findings without duplicates: two checks may find the same mistake."""
    seen: dict[tuple[str, str | None, str | None], Finding] = {}
    for finding in findings:
        seen.setdefault((finding.name, finding.culprit, finding.fix), finding)
    return list(seen.values())

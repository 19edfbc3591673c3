"""Rows: the memory, processor time and wake-ups of an idle daemon."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from statistics import mean, median

from bench.processes import Watch, cpu, memory, switches
from bench.stage import Stage
from bench.table import Aim, Line, alone, compared
from uvtokend.daemon.timer import GUARD_TICK

_DAY, _HOUR = 86400.0, 3600.0
#: Seconds after which a newly started daemon is idle: it cleans up at its first guard tick.
_SETTLED = 27.0
ASYNCIO = """
import asyncio, os
async def main():
    os.write(1, b"ready\\n")
    await asyncio.Event().wait()
asyncio.run(main())
"""
#: The imports of a daemon that would fetch without workers.
SDKS = """
import boto3, azure.identity, google.auth.transport.requests, google.oauth2.service_account
keys = dict(region_name="eu-central-1", aws_access_key_id="AKIAEXAMPLE", aws_secret_access_key="example")
aws = boto3.client("codeartifact", **keys)
azure_ = azure.identity.DefaultAzureCredential()
google_ = google.auth.transport.requests.Request()
"""


def begin(stage: Stage) -> None:
    """Start the daemons that no other row starts, so that they are idle when they are measured."""
    for size in stage.scale.sizes[:-1]:
        stage.fleet(size)


def measure(stage: Stage) -> list[Line]:
    """Measure idle daemons of all sizes at once, together with a process that holds the SDKs and a plain event loop."""
    sizes = stage.scale.sizes
    fleets = {size: stage.fleet(size) for size in sizes}
    with ExitStack() as stack:
        sdks = stack.enter_context(_python(SDKS + ASYNCIO))
        bare = stack.enter_context(_python(ASYNCIO))
        stage.rest(_SETTLED)
        pids = [fleet.pid for fleet in fleets.values()]
        began, slept = time.monotonic(), {pid: switches(pid) for pid in pids}
        watch = Watch(*pids)
        try:
            spent = _spent(pids, stage.scale.idle)
        finally:
            watch.close()
        took = time.monotonic() - began
        slept = {pid: round((switches(pid) - slept[pid]) / took * _HOUR) for pid in pids}
        resident = {f"uvtokend with {size:,} indexes": [memory(fleet.pid)[0]] for size, fleet in fleets.items()}
        resident |= {"the three SDKs in one process": [memory(sdks)[0]], "bare asyncio": [memory(bare)[0]]}
        unique = {size: memory(fleet.pid)[1] for size, fleet in fleets.items()}
    lines = []
    for size, fleet in fleets.items():
        name = "1 index" if size == 1 else f"{size:,} indexes"
        limit = 28.0 if size <= 10 else None
        lines.append(alone("idle: RSS", name, resident[f"uvtokend with {size:,} indexes"], "MiB", limit))
        if (private := unique[size]) is not None:
            lines.append(alone("idle: USS", name, [private], "MiB"))
        note = f"seen for {took:.0f} s; {slept[fleet.pid]:,} switches between threads and sleep per hour"
        lines.append(alone("idle: wake-ups per hour", name, [watch.woke[fleet.pid] / took * _HOUR], "", 150.0, note))
        ticks = spent[fleet.pid]
        note = f"mean of {len(ticks)} guard ticks; their median makes {median(ticks):.3g} s"
        lines.append(alone("idle: CPU seconds per day", name, [mean(ticks)], "s", 5.0, note))
    ten, most = "uvtokend with 10 indexes", f"uvtokend with {sizes[-1]:,} indexes"
    lines.append(compared(f"idle: RSS at {sizes[-1]:,} indexes", resident, most, ten, Aim(1.25), "MiB"))
    others = ("the three SDKs in one process", "bare asyncio")
    return lines + [compared("idle: RSS at 10 indexes", resident, ten, other, None, "MiB") for other in others]


def _spent(pids: Sequence[int], seconds: float) -> dict[int, list[float]]:
    """Return the processor seconds per day of processes, once for each guard tick in so many seconds.

    Each window is as long as the time between two ticks, so it has one tick of each daemon. A mean far from the median
    shows that something happened in one of them.
    """
    spent: dict[int, list[float]] = {pid: [] for pid in pids}
    for _ in range(max(1, int(seconds / GUARD_TICK))):
        began, used = time.monotonic(), {pid: cpu(pid) for pid in pids}
        time.sleep(GUARD_TICK)
        took = time.monotonic() - began
        for pid in pids:
            spent[pid].append((cpu(pid) - used[pid]) / took * _DAY)
    return spent


@contextmanager
def _python(code: str) -> Iterator[int]:
    """Run code in a new Python, and yield its process ID once it is ready."""
    with subprocess.Popen([sys.executable, "-P", "-c", code], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        try:
            if process.stdout.readline() != b"ready\n":
                raise SystemExit("A process to compare with did not start.")
            yield process.pid
        finally:
            process.kill()

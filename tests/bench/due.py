"""Rows: many leases due at once, as after a weekend, fetched by real workers."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from bench.fleet import Fleet, ask
from bench.processes import cpu
from bench.stage import Stage
from bench.table import Line, alone

#: Seconds between two reads of the netrc (deliveries are half a second apart), and between two requests.
_LOOK, _ASK = 0.05, 0.01


def measure(stage: Stage) -> list[Line]:
    """Start a daemon whose leases are all due; meanwhile send requests and count the writes of its netrc."""
    size = stage.scale.sizes[-1]
    fleet = stage.new_fleet(size)
    seen = _Seen(fleet)
    try:
        began = time.monotonic()
        fleet.begin()
        seen.start()
        fleet.until_delivered()
        took, used = time.monotonic() - began, cpu(fleet.pid)
    finally:
        seen.close()
        stage.used()
    row = f"{size:,} leases due at once"
    share = size / 1000  # the limits are for a thousand leases
    return [
        alone(row, "until all are delivered", [took], "s", 90.0 * share if share == 1 else None),
        alone(row, "CPU of the daemon", [used], "s", 10.0 * share),
        alone(row, "writes of the netrc per second", [seen.writes / max(took, 1.0)], "", 2.0),
        alone(row, "worst answer to version", [max(seen.latencies["version"])], "s", 0.05, seen.note("version")),
        alone(
            row, "worst answer to status of one index", [max(seen.latencies["status"])], "s", None, seen.note("status")
        ),
    ]


class _Seen:
    """Measurements of a busy daemon from outside.

    Attributes:
        writes: How often its netrc was replaced.
        latencies: Method -> the seconds of each response.
    """

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self.writes = 0
        self.latencies: dict[str, list[float]] = {"version": [], "status": []}
        self._ended = threading.Event()
        self._threads = [
            threading.Thread(target=self._watch),
            threading.Thread(target=self._ask, args=("version",)),
            threading.Thread(target=self._ask, args=("status",), kwargs={"names": ["index-0000"]}),
        ]

    def start(self) -> None:
        """Start measuring."""
        while not _answers(lambda: ask(self._fleet.socket, "version")):
            time.sleep(0.001)
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """Stop measuring."""
        self._ended.set()
        for thread in self._threads:
            if thread.is_alive():
                thread.join()

    def note(self, method: str) -> str:
        """Return how many responses were measured."""
        return f"of {len(self.latencies[method])}"

    def _watch(self) -> None:
        before = 0
        while not self._ended.wait(_LOOK):
            now = self._fleet.netrc.stat().st_ino if self._fleet.netrc.exists() else 0
            self.writes += now != before
            before = now

    def _ask(self, method: str, **params: Any) -> None:
        while not self._ended.wait(_ASK):
            began = time.perf_counter()
            ask(self._fleet.socket, method, **params)
            self.latencies[method].append(time.perf_counter() - began)


def _answers(question: Callable[[], object]) -> bool:
    try:
        question()
    except OSError:
        return False
    return True

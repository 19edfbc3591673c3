"""The benchmark: what uvtokend costs, compared with its peers and with the least possible, in one table.

    python tests/bench/run.py [--quick] [--rows NAME,…] [--plot FILE.svg] [--json FILE] [--cache DIR]

uv, the SDKs, the peers and the daemon are real; the clouds and the indexes are on loopback. The compared sides take
turns. ``--quick`` uses smaller numbers and takes two minutes once the peers are installed.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from bench import asking, delivering, due, fetching, idle, installs, plot, table
from bench.processes import load
from bench.stage import QUICK, Scale, Stage
from bench.table import Line
from support.places import benchmark_cache

ROWS: Mapping[str, Callable[[Stage], list[Line]]] = {
    # Rows that use the daemons come first, so that these are idle in the last row.
    "due": due.measure,
    "status": asking.status,
    "requests": asking.requests,
    "deliver": delivering.measure,
    "install": installs.measure,
    "keyring": installs.keyring,
    "fetch": fetching.cold,
    "sign-in": fetching.signed_in,
    "network": fetching.network,
    "idle": idle.measure,
}


def main() -> int:
    """Measure the chosen rows and print the table; the exit status is 1 if an aim is not met."""
    parser = argparse.ArgumentParser(
        description="What uvtokend costs, compared with its peers and with the least possible."
    )
    parser.add_argument("--quick", action="store_true", help="fewer turns and smaller numbers, within two minutes")
    parser.add_argument("--rows", metavar="NAME,…", default=",".join(ROWS), help=f"some of: {', '.join(ROWS)}")
    parser.add_argument("--plot", metavar="FILE", type=Path, help="draw the figures into an SVG file")
    parser.add_argument("--json", metavar="FILE", type=Path, help="write the figures for machines")
    parser.add_argument("--cache", metavar="DIR", type=Path, default=benchmark_cache(), help="where the peers are kept")
    args = parser.parse_args()
    chosen = args.rows.split(",")
    if unknown := [name for name in chosen if name not in ROWS]:
        parser.error(f"unknown rows: {', '.join(unknown)}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # also stops what was started
    lines: list[Line] = []
    with Stage(QUICK if args.quick else Scale(), args.cache, _say) as stage:
        if "idle" in chosen:
            idle.begin(stage)
        for name in chosen:
            _say(f"measuring: {name}")
            lines += ROWS[name](stage)
        versions = stage.versions()
    note = f"Medians of one run, in turns. Python {sys.version.split()[0]}, {load()}."
    print(f"{note}\n{versions}\n")
    print(table.shown(lines))
    if args.json:
        args.json.write_text(json.dumps([line.as_json() for line in lines], indent=1) + "\n")
    if args.plot:
        args.plot.write_text(plot.draw(lines, note))
    return int(any(line.met is False for line in lines))


def _say(what: str) -> None:
    print(what, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())

"""Run the soak test:

    python tests/soak/run.py [daemon|kills|faults|fuzz|jfrog|gitlab|all] [--minutes M] [--seed N] [--scale X]

A seed decides what happens, and is printed: the same seed repeats the same faults.
The exit status is 1 if a promise was broken.
"""

from __future__ import annotations

import argparse
import secrets
import signal
import sys
import time
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from soak.result import Result

PARTS = {
    "daemon": "soak.daemon",
    "kills": "soak.kills",
    "faults": "soak.injected",
    "fuzz": "soak.fuzz",
    "jfrog": "soak.jfrog_kills",
    "gitlab": "soak.gitlab_kills",
}
#: Minutes that the daemon part takes at a scale of 1; the others have their own numbers of repetitions.
MINUTES = 15.0


def main() -> int:
    """Run the chosen parts and print their results."""
    parser = argparse.ArgumentParser(description="Test the real daemon under faults: no stale token, no lost text.")
    parser.add_argument("part", nargs="?", choices=[*PARTS, "all"], default="all")
    parser.add_argument("--minutes", type=float, help=f"the duration of the daemon part (default: {MINUTES:g})")
    parser.add_argument("--seed", type=int, help="the seed of the random numbers (default: a new one each time)")
    parser.add_argument("--scale", type=float, default=1.0, help="multiplies the number of repetitions (default: 1)")
    args = parser.parse_args()
    sys.path[0] = str(Path(__file__).resolve().parent.parent)  # the parts are soak.daemon, soak.kills, ...
    seed = secrets.randbelow(1_000_000) if args.seed is None else args.seed
    signal.signal(signal.SIGTERM, _interrupt)
    if args.part in {"daemon", "kills", "faults", "all"}:
        import_module("soak.world").enter_namespace()
    parts = list(PARTS) if args.part == "all" else [args.part]
    broken = 0
    for part in parts:
        scale = args.minutes / MINUTES if part == "daemon" and args.minutes else args.scale
        again = f"python tests/soak/run.py {part} --seed {seed} --scale {scale:g}"
        _say(f"{part}: {again}")
        try:
            result = _run(part, seed, scale)
        except KeyboardInterrupt:
            _say(f"{part}: interrupted and cleaned up.")
            return 130
        _say(result.text())
        if result.broken:
            _say(f"  again: {again}")
        broken += len(result.broken)
    return 1 if broken else 0


def _run(part: str, seed: int, scale: float) -> Result:
    module: Any = import_module(PARTS[part])
    return cast("Result", module.run(seed, scale, lambda text: _say(f"{time.strftime('%H:%M:%S')}  {text}")))


def _say(text: str) -> None:
    print(text, flush=True)


def _interrupt(_number: int, _frame: object) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())

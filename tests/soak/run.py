"""The soak, as one command:

    python tests/soak/run.py [daemon|kills|faults|fuzz|jfrog|gitlab|all] [--minutes M] [--seed N] [--scale X]

What happens is drawn from a seed, which is printed: the same seed draws the same faults again. The exit status is 1 if
a promise was broken.
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
#: Minutes that the daemon's part takes at a scale of 1; the others count, and know their own numbers.
MINUTES = 15.0


def main() -> int:
    """Run what is asked for and print what came out."""
    parser = argparse.ArgumentParser(description="Faults against the real thing: nothing stale, nothing lost.")
    parser.add_argument("part", nargs="?", choices=[*PARTS, "all"], default="all")
    parser.add_argument("--minutes", type=float, help=f"how long the daemon's part takes (default: {MINUTES:g})")
    parser.add_argument("--seed", type=int, help="what is drawn (default: another one each time)")
    parser.add_argument("--scale", type=float, default=1.0, help="how much of everything (default: 1)")
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
            _say(f"{part}: interrupted; all was cleaned up.")
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

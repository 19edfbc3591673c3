"""Print the seconds from the network's return until all tokens are fresh; runs in its own network namespace.

    unshare -n python tests/bench/offline.py DIRECTORY ROUNDS

The three clouds are on loopback. While loopback is down nothing answers; then it is set up and gets another address,
as an interface does on every network that a laptop joins.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from bench.fleet import until_delivered, until_failed
from bench.three_clouds import ThreeClouds

#: An address for documentation (RFC 5737).
ADDRESS = "192.0.2.10/24"


def main() -> int:
    """Measure as many rounds as requested."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # also stops the daemon
    directory, rounds = Path(sys.argv[1]), int(sys.argv[2])
    for _ in range(rounds):
        with tempfile.TemporaryDirectory(dir=directory) as name:
            print(_once(Path(name)), flush=True)
    return 0


def _once(directory: Path) -> float:
    _ip("link", "set", "lo", "up")
    with ThreeClouds(directory) as world:
        _ip("link", "set", "lo", "down")
        world.machine.start()
        try:
            until_failed(world.machine)
            _ip("link", "set", "lo", "up")
            _ip("addr", "add", ADDRESS, "dev", "lo")
            began = time.monotonic()
            until_delivered(world.machine)
            return time.monotonic() - began
        finally:
            world.machine.stop()
            _ip("addr", "del", ADDRESS, "dev", "lo")


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, stdin=subprocess.DEVNULL)


if __name__ == "__main__":
    sys.exit(main())

"""The fuzzing part: generated netrc files and hostile lines, judged by independent programs."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Callable
from pathlib import Path

from soak.fuzz_lines import Lines, against_server
from soak.fuzz_netrc import Netrcs, against_uv
from soak.result import Result

#: Numbers at a scale of 1: netrc files, files that uv reads, lines of each kind, lines over a socket.
FILES, UV, LINES, SOCKET = 100_000, 300, 100_000, 1_000

Say = Callable[[str], None]


def run(seed: int, scale: float, say: Say) -> Result:
    """Generate files and lines, and check the results.

    Args:
        seed: The seed of the random numbers.
        scale: The share of all the numbers above.
        say: Called with each broken law, and with the progress.
    """
    dice = random.Random(seed)
    files, samples, lines, over_socket = (max(1, round(scale * number)) for number in (FILES, UV, LINES, SOCKET))
    netrcs, hostile = Netrcs(dice), Lines(dice)
    for number in range(files):
        netrcs.judge_one()
        if (number + 1) % 10_000 == 0:
            say(f"{number + 1} netrc files")
    netrcs.close()
    for _ in range(lines):
        hostile.judge_control()
        hostile.judge_worker()
    say(f"{lines} lines of each kind")
    with tempfile.TemporaryDirectory(prefix="uvtokend-fuzz-") as directory:
        socket = against_server(dice, over_socket, Path(directory))
        say(f"{over_socket} lines over a socket")
        real = against_uv(dice, samples, Path(directory))
    broken = (*netrcs.broken, *hostile.broken, *socket, *real)
    for law in broken:
        say(law)
    figures: dict[str, int | float | str] = {
        "netrc files": files,
        **netrcs.counts,
        "files that uv itself read": samples,
        **hostile.counts,
        "control lines over a socket": over_socket,
    }
    return Result("fuzz", figures, broken)

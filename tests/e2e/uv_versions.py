"""Holds our answer to which credential uv sends against several versions of uv: the oldest supported to the newest.

    python tests/e2e/uv_versions.py [VERSION | newest | path of a uv]…

Without arguments: `VERSIONS`. A version is installed from the package index that is configured; `installed` is the one
beside this Python. Prints a line for each version and for each disagreement; the exit status is 1 if there is one that
is not accepted.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from support.arrangements import ARRANGEMENTS
from support.uv_judge import Stage, wire
from uvtokend.core.uv.order import Sources, decide
from uvtokend.disk import uv_files
from uvtokend.sandbox.machine import find_uv

#: The oldest uv that is supported, the first ones that read their own store and rename it, and the newest.
VERSIONS = ("0.4.30", "0.8.24", "installed", "newest")
#: What older versions do in their own way, by chance: they take either of two equal records.
ACCEPTED = {"two records of one prefix"}


def version_of(uv: str) -> str:
    """Return the version that a uv says it is."""
    return subprocess.run([uv, "--version"], capture_output=True, text=True, check=True).stdout.split()[1]


def disagreements(uv: str, folder: Path) -> Iterator[tuple[str, str]]:
    """Yield the name of each arrangement in which a uv does something else than we say, and what both do."""
    version = tuple(int(part) for part in version_of(uv).split("."))
    stage = Stage(folder)
    try:
        for arrangement in ARRANGEMENTS:
            project, environment = stage.set(arrangement)
            configuration = uv_files.project(str(project), environment).configuration(environment)
            netrc = uv_files.text_file(uv_files.netrc(environment))
            decision = decide(
                Sources(configuration, environment, netrc, uv_files.store(environment), version), stage.url
            )
            real = stage.sent(uv, project, environment)
            ours = () if decision.stops else (wire(decision),)
            asked = decision.sent is not None and decision.sent.source == "keyring"
            if real[-1:] != ours and not (asked and real[-1:] and real[-1].endswith(":kp")):
                yield arrangement.name, f"uv sends {real}, we say {ours}"
    finally:
        stage.close()


def found(word: str, folder: Path) -> str:
    """Return the path of the uv that a word names."""
    if "/" in word:
        return word
    if word == "installed":
        return find_uv()
    wanted = "uv" if word == "newest" else f"uv=={word}"
    subprocess.run([find_uv(), "pip", "install", "--quiet", "--target", folder, wanted], check=True)
    return str(folder / "bin" / "uv")


def main(words: list[str]) -> int:
    """Compare each version and return the exit status."""
    wrong = 0
    with tempfile.TemporaryDirectory() as name:
        for number, word in enumerate(words or VERSIONS):
            uv = found(word, Path(name, f"uv{number}"))
            differing = [*disagreements(uv, Path(name, f"stage{number}"))]
            alike = len(ARRANGEMENTS) - len(differing)
            print(f"uv {version_of(uv)}: {alike} of {len(ARRANGEMENTS)} arrangements as we say", flush=True)
            for arrangement, what in differing:
                accepted = arrangement in ACCEPTED
                wrong += not accepted
                print(f"  {arrangement}: {what}{' (accepted)' if accepted else ''}", flush=True)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""Compare our prediction of which credential uv sends with several versions of uv,
from the oldest supported to the newest.

    python tests/e2e/uv_versions.py [VERSION | newest | path of a uv]…

Without arguments: `VERSIONS`. A version is installed from the configured package index; `installed` is the uv beside
this Python. Prints a line for each version and for each disagreement; the exit status is 1 if a disagreement is not
accepted.
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
from uvtokend.disk import uv_files, uv_projects
from uvtokend.sandbox.machine import find_uv

#: The oldest supported uv, the first ones that read and rename their own store, and the newest.
VERSIONS = ("0.4.30", "0.8.24", "installed", "newest")
#: Disagreements with older versions that are accepted: they use either of two equal records.
ACCEPTED = {"two records of one prefix"}


def version_of(uv: str) -> str:
    """Return a uv's version."""
    return subprocess.run([uv, "--version"], capture_output=True, text=True, check=True).stdout.split()[1]


def disagreements(uv: str, directory: Path) -> Iterator[tuple[str, str]]:
    """Yield each arrangement in which uv differs from our prediction, and what both do."""
    version = tuple(int(part) for part in version_of(uv).split("."))
    stage = Stage(directory)
    try:
        for arrangement in ARRANGEMENTS:
            project, environment = stage.set(arrangement)
            configuration = uv_projects.project(str(project), environment).configuration(environment)
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


def path_of(word: str, directory: Path) -> str:
    """Return the path of the uv that a word names."""
    if "/" in word:
        return word
    if word == "installed":
        return find_uv()
    wanted = "uv" if word == "newest" else f"uv=={word}"
    subprocess.run([find_uv(), "pip", "install", "--quiet", "--target", directory, wanted], check=True)
    return str(directory / "bin" / "uv")


def main(words: list[str]) -> int:
    """Compare each version and return the exit status."""
    wrong = 0
    with tempfile.TemporaryDirectory() as name:
        for number, word in enumerate(words or VERSIONS):
            uv = path_of(word, Path(name, f"uv{number}"))
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

"""Holds our answer to which credential uv sends against other versions of uv than the installed one.

Run by hand, with versions or paths of uv; a version is installed from the package index that is configured::

    python tests/e2e/uv_versions.py 0.4.30 0.8.24
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

#: What older versions do in their own way, by chance: they take either of two equal records.
ACCEPTED = {"two records of one prefix"}


def disagreements(uv: str, folder: Path) -> Iterator[str]:
    """Yield each arrangement in which a uv does something else than we say."""
    said = subprocess.run([uv, "--version"], capture_output=True, text=True, check=True).stdout.split()[1]
    version = tuple(int(part) for part in said.split("."))
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
                yield f"{said}: {arrangement.name}: uv sends {real}, we say {ours}"
    finally:
        stage.close()


def installed(version: str, folder: Path) -> str:
    """Return the path of a uv of a version."""
    if "/" in version:
        return version
    subprocess.run([find_uv(), "pip", "install", "--quiet", "--target", folder, f"uv=={version}"], check=True)
    return str(folder / "bin" / "uv")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        found: list[str] = []
        for number, word in enumerate(sys.argv[1:]):
            uv = installed(word, Path(name, f"uv{number}"))
            found += disagreements(uv, Path(name, f"stage{number}"))
        for line in found:
            print(line)
        sys.exit(any(line.split(": ")[1] not in ACCEPTED for line in found))

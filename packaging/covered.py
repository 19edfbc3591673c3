"""Run the tests and print how much of each part of the package they execute, in all of their processes.

    python packaging/covered.py [arguments for pytest]

Daemons, commands and workers are processes of their own, so coverage.py starts in each of them. That makes the tests
slower, so the normal test command measures the core alone. A process that is killed, or that gets an environment of its
own, is not counted, so the true figures are higher.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parent.parent
COVERAGE = (sys.executable, "-m", "coverage")
CONFIGURATION = f"--rcfile={ROOT / 'packaging' / 'coverage.toml'}"
#: Tests of what a process imports, or of how much memory it takes, which a tracer in the process would fail.
UNTRACED = ("tests/test_import_budget.py",)


def main(arguments: list[str]) -> int:
    """Run the tests, print a row for each part, and return pytest's exit status."""
    with tempfile.TemporaryDirectory() as directory:
        data = Path(directory) / "data"
        # Workers of other users write their data here too.
        Path(directory).chmod(0o777)
        environment = {**os.environ, "COVERAGE_FILE": str(data)}
        left_out = [f"--ignore={name}" for name in UNTRACED]
        tests = ["-m", "pytest", "-n", "auto", "--dist", "worksteal", *left_out, *arguments]
        status = run(["run", CONFIGURATION, *tests], environment)
        run(["combine", "--quiet", CONFIGURATION], environment)
        run(["json", "--quiet", CONFIGURATION, "-o", f"{data}.json"], environment)
        report(json.loads(Path(f"{data}.json").read_text())["files"])
    return status


def run(words: list[str], environment: dict[str, str]) -> int:
    """Run one command of coverage.py in the checkout."""
    return subprocess.run([*COVERAGE, *words], cwd=ROOT, env=environment, check=False).returncode


def report(files: dict[str, dict[str, dict[str, int]]]) -> None:
    """Print the share of statements and branches that were executed, for each part of the package."""
    parts: dict[str, list[dict[str, int]]] = defaultdict(list)
    for name, file in files.items():
        inside = Path(name).parts
        inside = inside[inside.index("uvtokend") + 1 :]
        parts[inside[0] if len(inside) > 1 else "(top)"].append(file["summary"])
    for part, summaries in sorted(parts.items()):
        print(row(part, summaries))
    print(row("all", [summary for summaries in parts.values() for summary in summaries]))


def row(name: str, summaries: Sequence[dict[str, int]]) -> str:
    """Return one line of the table."""
    keys = ("covered_lines", "num_statements", "covered_branches", "num_branches")
    lines, statements, taken, branches = (sum(summary[key] for summary in summaries) for key in keys)
    share = 100 * (lines + taken) / ((statements + branches) or 1)
    return f"{name:12} {share:5.1f} %   {lines}/{statements} statements, {taken}/{branches} branches"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

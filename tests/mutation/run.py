"""Mutation testing of decisions: ``core/`` and the decision code of ``daemon/``.

    nice -n 19 python tests/mutation/run.py --sample 500 --seed 1          # a sample of everything
    nice -n 19 python tests/mutation/run.py --module core/lease.py         # all mutants of one module
    python tests/mutation/run.py --report results.jsonl                    # the score of these results

A run copies the checkout, runs the tests once to record which of them reach which line, and judges the mutants one by
one in one process (see `judge`). Each result is appended to ``--results``, and a mutant that has a result is not judged
again, so a run may be interrupted and continued. `equivalent.txt` lists the survivors that no test can kill, each with
its reason; they do not count. `survivors.txt` has the last scores and the open survivors. A full run takes hours. It
needs Linux.

No maintained tool fits: mutmut 3 changes nothing outside of functions, where policy and catalogs are, and cannot draw a
sample; cosmic-ray starts pytest, with all imports, again for each mutant.
"""

from __future__ import annotations

import argparse
import ast
import functools
import hashlib
import json
import math
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

from mutation.judge import JOB, RESULTS, TIMES
from mutation.operators import mutants

ROOT = Path(__file__).parents[2]
PACKAGE = Path("src/uvtokend")
#: Not mutated: code that only displays, and entry points, which decide nothing.
EXCLUDED = {"daemon/main.py", "daemon/notify.py", "daemon/desktop.py"}
#: Not run: the simulator's long tests, and tests that run the daemon as a process, whose coverage is not recorded.
#: Compare survivors with them by hand.
LEFT_OUT = ("core/test_simulation.py", "daemon/test_daemon.py", "daemon/test_ours.py")
#: The seconds of tests, the quickest first, that each mutant must survive.
BUDGET = 30.0

#: The seconds after which a test counts as hung, since the machine may be busy.
LONG = 900

Contexts = Mapping[str, Mapping[int, list[str]]]


@dataclass(frozen=True)
class Task:
    """A mutant and how to judge it.

    Args:
        module: The module, below the package.
        file: The same in the copy.
        start: As in `Mutant`; `end`, `text`, `line` and `operator` too.
        before: The text that is changed.
        function: The qualified name of the outermost function around it, or None.
        tests: The tests to run, the quickest first.
        seconds: How long they take without the mutant.
    """

    module: str
    file: str
    start: int
    end: int
    text: str
    line: int
    operator: str
    before: str
    function: str | None
    tests: list[str]
    seconds: float


class Map:
    """Which tests reach which line, and how long they take."""

    def __init__(self, contexts: Contexts, times: Mapping[str, float]) -> None:
        self._contexts = contexts
        self.times = times

    @classmethod
    def made(cls, tree: Path, package: str, cache: Path) -> Map:
        """Run the tests with coverage; for an unchanged test file, read the result of an earlier run."""
        names = {str(file.relative_to(tree)): file for file in sorted((tree / "tests" / package).rglob("test_*.py"))}
        left_out = {f"tests/{name}" for name in LEFT_OUT}
        others = {*(tree / "src").rglob("*.py"), *(tree / "tests" / package).rglob("*.py")} - {*names.values()}
        file = cache / f"{package}-{_digest(sorted(others))}.json"
        known: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}
        wanted = {name: _digest([path]) for name, path in names.items() if name not in left_out}
        changed = [name for name, digest in wanted.items() if known.get(name, {}).get("digest") != digest]
        if changed:
            measured = _measured(tree, package, changed)
            if again := [name for name in changed if measured[name]["failed"]]:  # the machine may have been busy
                measured |= _measured(tree, package, again)
            for name in changed:
                for test in measured[name].pop("failed"):
                    print(f"{test} fails without a mutant, and is left out", flush=True)
            known |= {name: {"digest": wanted[name], **measured[name]} for name in changed}
            cache.mkdir(parents=True, exist_ok=True)
            file.write_text(json.dumps(known))
        contexts: dict[str, dict[int, list[str]]] = {}
        times: dict[str, float] = {}
        for name in wanted:
            times |= known[name]["times"]
            for module, lines in known[name]["lines"].items():
                for line, tests in lines.items():
                    contexts.setdefault(module, {}).setdefault(int(line), []).extend(tests)
        return cls(contexts, times)

    def of_lines(self, module: str, lines: Iterable[int]) -> set[str]:
        """Return the tests that reach any of these lines of a module."""
        known = self._contexts.get(module, {})
        return {test for line in lines for test in known.get(line, ())}

    def of_module(self, module: str) -> set[str]:
        """Return the tests that reach any line of a module."""
        return self.of_lines(module, self._contexts.get(module, {}))

    def beside(self, module: str) -> set[str]:
        """Return the tests in the directory that mirrors a module's, because tests may read a table without reaching
        a line of it."""
        return {test for test in self.times if Path(test.partition("::")[0]).parent == Path("tests", module).parent}

    def chosen(self, module: str, tests: Iterable[str], budget: float) -> tuple[list[str], float]:
        """Return the most useful tests first, until the budget is spent, and their seconds."""
        mirror = f"tests/{Path(module).parent}/test_{Path(module).stem}.py"
        ordered = sorted(tests, key=lambda test: (not test.startswith(mirror), self.times[test], test))
        taken: list[str] = []
        seconds = 0.0
        for test in ordered:
            if taken and seconds + self.times[test] > budget:
                continue
            taken.append(test)
            seconds += self.times[test]
        return taken, seconds


def _measured(tree: Path, package: str, names: list[str]) -> dict[str, Any]:
    """Run test files with one coverage context for each test, and return the result of each file."""
    rc, data, times = tree / ".mutation.rc", tree / ".mutation.cov", tree / ".mutation.times"
    rc.write_text(f"[run]\nsource = uvtokend.{package}\n")
    coverage = ["--cov", f"--cov-config={rc}", "--cov-report=", "--cov-context=test"]
    _pytest(tree, [*coverage, *names], {"COVERAGE_FILE": str(data), TIMES: str(times)})
    from coverage import CoverageData

    measured: dict[str, Any] = {name: {"times": {}, "lines": {}, "failed": []} for name in names}
    results = json.loads(times.read_text())
    for test in results["failed"]:
        measured[test.partition("::")[0]]["failed"].append(test)
    passed: dict[str, float] = results["passed"]
    for test, seconds in passed.items():
        measured[test.partition("::")[0]]["times"][test] = seconds
    lines = CoverageData(str(data))
    lines.read()
    for file in lines.measured_files():
        module = str(Path(file).relative_to(tree / PACKAGE))
        for line, contexts in lines.contexts_by_lineno(file).items():
            for test in sorted({context.partition("|")[0] for context in contexts} & passed.keys()):
                measured[test.partition("::")[0]]["lines"].setdefault(module, {}).setdefault(line, []).append(test)
    return measured


def _suite(package: str) -> list[str]:
    return [f"tests/{package}", *(f"--ignore=tests/{file}" for file in LEFT_OUT)]


def _pytest(tree: Path, arguments: list[str], environment: Mapping[str, str]) -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "mutation.judge", "-p", "no:cacheprovider", "-n0"]
    path = os.pathsep.join([str(tree / "src"), str(Path(__file__).parents[1])])
    done = subprocess.run(
        [*command, "-o", "tmp_path_retention_policy=none", "-o", f"timeout={LONG}", *arguments],
        cwd=tree,
        env={**os.environ, "PYTHONPATH": path, **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode > 1:  # a test that fails without a mutant is not in the map
        sys.exit(f"{done.stdout[-5000:]}\nThe test run failed.")


def _digest(files: Iterable[Path]) -> str:
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


@functools.cache
def _tree(source: bytes) -> ast.Module:
    return ast.parse(source)


def modules() -> list[str]:
    """Return the modules to change, below the package."""
    files = [*(ROOT / PACKAGE / "core").rglob("*.py"), *(ROOT / PACKAGE / "daemon").glob("*.py")]
    names = sorted(str(file.relative_to(ROOT / PACKAGE)) for file in files)
    return [name for name in names if name not in EXCLUDED]


def function_at(source: bytes, start: int) -> str | None:
    """Return the qualified name of the outermost function whose body contains a position, or None."""
    starts = [0]
    for line in source.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))

    def search(body: Iterable[ast.stmt], prefix: str) -> str | None:
        for node in body:
            first = node.body[0] if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) else None
            if first is None or not starts[first.lineno - 1] <= start < starts[node.end_lineno or 0]:
                continue
            name = f"{prefix}{node.name}"  # type: ignore[attr-defined] # it is a class or a function
            return search(node.body, f"{name}.") if isinstance(node, ast.ClassDef) else name
        return None

    return search(_tree(source).body, "")


def first_line(source: bytes, line: int) -> int:
    """Return the first line of the innermost statement around a line."""
    lines = [node.lineno for node in ast.walk(_tree(source)) if isinstance(node, ast.stmt)]
    return max(first for first in lines if first <= line)


def equivalent() -> set[tuple[str, str, str, str]]:
    """Return the mutants that no test can kill: module, text of the line, what is changed, what it becomes."""
    rows = set()
    for line in (Path(__file__).parent / "equivalent.txt").read_text().splitlines():
        if line and not line.startswith("#"):
            module, text, before, after, _ = (part.strip() for part in line.split(" | ", 4))
            rows.add((module, text, before, after))
    return rows


def key(task: Mapping[str, Any]) -> tuple[str, str, str, str]:
    """Return what identifies a mutant, whatever its line number."""
    return task["module"], task["source"], task["before"], task["text"].strip()


def tasks(tree: Path, name: str) -> Iterator[dict[str, Any]]:
    """Yield every mutant of a module, as `Task` without tests, with the text of its line as `source`."""
    file = tree / PACKAGE / name
    source = file.read_bytes()
    lines = source.decode().splitlines()
    for mutant in mutants(source):
        before = source[mutant.start : mutant.end].decode()
        task = Task(name, str(file), **asdict(mutant), before=before, function=None, tests=[], seconds=0.0)
        yield {**asdict(task), "source": lines[mutant.line - 1].strip()}


def with_tests(task: dict[str, Any], reach: Map, budget: float) -> dict[str, Any]:
    """Return a task with its function, and with the tests that may kill it."""
    name, source = task["module"], Path(task["file"]).read_bytes()
    function = function_at(source, task["start"])
    reached = reach.of_lines(name, range(first_line(source, task["line"]), task["line"] + 1))
    if function is None:
        reached |= reach.of_module(name) | reach.beside(name)
    tests, seconds = reach.chosen(name, reached, budget)
    if function is None or not tests:  # tests may read a table without reaching a line of its module
        more, longer = reach.chosen(name, reach.times.keys() - {*tests}, budget)
        tests, seconds = tests + more, seconds + longer
    return {**task, "function": function, "tests": tests, "seconds": seconds}


def interval(killed: int, counted: int) -> tuple[float, float]:
    """Return the bounds of Wilson's 95 % interval of a proportion."""
    if not counted:
        return 0.0, 1.0
    z, share = 1.96, killed / counted
    middle = (share + z * z / (2 * counted)) / (1 + z * z / counted)
    half = z * math.sqrt(share * (1 - share) / counted + z * z / (4 * counted * counted)) / (1 + z * z / counted)
    return middle - half, middle + half


def report(results: Path) -> None:
    """Print the score of each package and its survivors."""
    known = equivalent()
    latest: dict[tuple[str, str, str, str, int], dict[str, Any]] = {}
    for line in results.read_text().splitlines():
        result = json.loads(line)
        latest[(*key(result), result["start"])] = result
    for package in ("core", "daemon"):
        of_package = [result for result in latest.values() if result["module"].startswith(package)]
        if not of_package:
            continue
        counted = [result for result in of_package if result["verdict"] != "survived" or key(result) not in known]
        verdicts = Counter(result["verdict"] for result in counted)
        killed = verdicts["killed"] + verdicts["timed out"]
        low, high = interval(killed, len(counted))
        print(f"{package}/: {len(of_package)} mutants, {len(of_package) - len(counted)} of them equivalent: ", end="")
        print(f"{killed} of {len(counted)} killed ({verdicts['timed out']} by a timeout), ", end="")
        print(f"{killed / max(1, len(counted)):.1%} (95 % interval {low:.1%} to {high:.1%})")
        for result in sorted(counted, key=lambda one: (one["module"], one["line"])):
            if result["verdict"] == "survived":
                before, after = (" ".join(result[name].split())[-60:] for name in ("before", "text"))
                print(f"  {result['module']}:{result['line']}: {result['source']}: {before} -> {after}")


def main() -> None:
    """Run with the options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--module", action="append", help="only this module, as core/lease.py; may be repeated")
    parser.add_argument("--package", choices=["core", "daemon"], help="only this package")
    parser.add_argument("--line", type=int, action="append", help="only mutants of this line; may be repeated")
    parser.add_argument("--sample", type=int, help="judge this many mutants, chosen at random")
    parser.add_argument("--seed", type=int, default=1, help="the seed of the choice (default: 1)")
    parser.add_argument("--budget", type=float, default=BUDGET, help="seconds of tests for each (default: 30)")
    parser.add_argument("--results", type=Path, default=Path("mutation.jsonl"), help="(default: mutation.jsonl)")
    parser.add_argument("--survivors", action="store_true", help="judge again what survived in --results")
    parser.add_argument("--thorough", action="store_true", help="all examples of each property, and no budget")
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "uvtokend-mutation")
    parser.add_argument("--report", type=Path, help="print the score of these results, and run nothing")
    options = parser.parse_args()
    if options.report:
        report(options.report)
        return
    if options.thorough:
        os.environ["MUTATION_EXAMPLES"] = "100"
        options.budget = math.inf
    results = options.results.resolve()
    with tempfile.TemporaryDirectory() as directory:
        tree = Path(directory).resolve() / "tree"
        ignored = shutil.ignore_patterns(".git", ".venv", "__pycache__", ".*_cache", "dist")
        shutil.copytree(ROOT, tree, ignore=ignored)
        names = options.module or [name for name in modules() if name.startswith(options.package or "")]
        todo = [task for name in names for task in tasks(tree, name)]
        if options.line:
            todo = [task for task in todo if task["line"] in options.line]
        print(f"{len(todo)} mutants in {len(names)} modules", flush=True)
        if options.sample is not None:
            todo = random.Random(options.seed).sample(todo, min(options.sample, len(todo)))
        todo = chosen_of(todo, results, options.survivors)
        packages = sorted({task["module"].partition("/")[0] for task in todo})
        maps = {package: Map.made(tree, package, options.cache) for package in packages}
        todo = [with_tests(task, maps[task["module"].partition("/")[0]], options.budget) for task in todo]
        todo.sort(key=lambda task: task["function"] is None)  # those take a pytest each, so they come last
        job = tree / "mutation-job.json"
        job.write_text(json.dumps(todo))
        if todo:
            suites = dict.fromkeys(argument for package in packages for argument in _suite(package))
            _pytest(tree, [*suites], {JOB: str(job), RESULTS: str(results)})
    report(results)


def chosen_of(todo: list[dict[str, Any]], results: Path, survivors: bool) -> list[dict[str, Any]]:
    """Return the tasks that were not judged before, or only those whose mutant survived."""
    if not results.exists():
        return todo
    before = {key(result): result["verdict"] for result in map(json.loads, results.read_text().splitlines())}
    if survivors:
        return [task for task in todo if before.get(key(task)) == "survived"]
    return [task for task in todo if key(task) not in before]


if __name__ == "__main__":
    main()

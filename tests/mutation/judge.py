"""A pytest plugin that judges mutants, each in a forked child that runs the tests that reach the changed line.

pytest collects once. In the child, the changed function gets its new code in place, without an import; the changed
module is also on disk, for the processes that tests start. For a change outside of functions (a constant, a default)
the child unloads every module of the checkout and runs its own pytest, which imports them again; third-party modules
(pytest, Hypothesis, SDKs) stay imported. Tests that have killed mutants of the same module run first.

A mutant is *killed* if a test fails, *timed out* if the tests take many times as long as without it, and otherwise it
*survived*. Processes that a killed test leaves behind become our children and are killed.
"""

from __future__ import annotations

import ctypes
import functools
import gc
import json
import os
import resource
import select
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any

import pytest
from hypothesis import settings

#: Examples of each property. With `--thorough` a survivor is judged again with as many as usual.
EXAMPLES = int(os.environ.get("MUTATION_EXAMPLES", "15"))
JOB = "MUTATION_JOB"
RESULTS = "MUTATION_RESULTS"
TIMES = "MUTATION_TIMES"
ONLY = "MUTATION_ONLY"
#: How many times as long as without the mutant the tests may take, in CPU time, and the additional seconds.
PATIENCE = 5.0
GRACE = 10.0
#: The additional seconds of wall-clock time, since the machine may be busy.
WALL = 60.0
#: The exit status of a child in which the run itself failed instead of a test.
BROKEN = 99
_SUBREAPER = 36  # PR_SET_CHILD_SUBREAPER, <linux/prctl.h>


class Times:
    """Record how long each test that passes takes, in seconds, for the map."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._times: dict[str, float] = {}
        self._failed: set[str] = set()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Add the time of one phase."""
        self._times[report.nodeid] = self._times.get(report.nodeid, 0.0) + report.duration
        if report.failed:
            self._failed.add(report.nodeid)

    def pytest_sessionfinish(self) -> None:
        """Write the times to the file."""
        passed = {test: time for test, time in self._times.items() if test not in self._failed}
        self._file.write_text(json.dumps({"passed": passed, "failed": sorted(self._failed)}))


class First:
    """Remember the first test, or test file, that failed."""

    def __init__(self) -> None:
        self.failed = ""

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Record a failed test."""
        self.pytest_collectreport(report)

    def pytest_collectreport(self, report: pytest.TestReport | pytest.CollectReport) -> None:
        """Record a failed collection, because a mutant may prevent a test file from being imported."""
        if report.failed and not self.failed:
            self.failed = report.nodeid


class Judge:
    """Run mutants instead of the tests.

    Args:
        job: A file with one JSON object for each mutant: see `run.Task`.
        results: The file to which one JSON object is appended for each result.
    """

    def __init__(self, job: Path, results: Path) -> None:
        self._tasks: list[dict[str, Any]] = json.loads(job.read_text())
        self._results = results
        self._failed = False
        self._kills: Counter[tuple[str, str]] = Counter()
        self._functions: dict[tuple[str, str], list[FunctionType]] = {}
        self._caches: list[Any] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Record a failure, in a child."""
        self._failed = self._failed or report.failed

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """Judge every mutant of the job."""
        ctypes.CDLL(None).prctl(_SUBREAPER, 1, 0, 0, 0)
        items = {item.nodeid: item for item in session.items}
        self._functions, self._caches = _loaded()
        gc.freeze()  # no child looks through what all of them share
        session.config._tmp_path_factory.getbasetemp()  # type: ignore[attr-defined] # one for all children
        for task in self._tasks:
            began = time.monotonic()
            module = task["module"]
            tests = sorted(task["tests"], key=lambda test: -self._kills[module, test])
            verdict, test = self._judged(task, [items[test] for test in tests if test in items])
            if verdict == "killed":
                self._kills[module, test] += 1
            result = {**task, "tests": len(tests), "verdict": verdict, "by": test, "took": time.monotonic() - began}
            with self._results.open("a") as file:
                file.write(json.dumps(result) + "\n")
        return True

    def _judged(self, task: dict[str, Any], chosen: list[pytest.Item]) -> tuple[str, str]:
        if not chosen:
            return "survived", ""
        module = Path(task["file"])
        source = module.read_bytes()
        before = module.stat()
        changed = source[: task["start"]] + task["text"].encode() + source[task["end"] :]
        module.write_bytes(changed)
        os.utime(module, ns=(before.st_atime_ns, time.time_ns()))
        sys.stdout.flush()
        sys.stderr.flush()
        reader, writer = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(reader)
            self._child(task, changed, chosen, writer)
        os.close(writer)
        try:
            ended = _waited(pid, WALL + 2 * PATIENCE * task["seconds"])
            test = os.read(reader, 4096).decode()
        finally:
            os.close(reader)
            _end_orphans()
            module.write_bytes(source)
            os.utime(module, ns=(before.st_atime_ns, before.st_mtime_ns))
        if ended == BROKEN:
            raise RuntimeError(test)
        if ended is None or ended in {-signal.SIGXCPU, -signal.SIGKILL}:
            return "timed out", test
        return ("survived" if ended == 0 else "killed"), test

    def _child(self, task: dict[str, Any], changed: bytes, chosen: list[pytest.Item], writer: int) -> None:
        """Run the tests and exit with 0 if all pass."""
        os.setpgid(0, 0)
        limit = int(GRACE + PATIENCE * task["seconds"])
        resource.setrlimit(resource.RLIMIT_CPU, (limit, resource.RLIM_INFINITY))
        try:
            if task["function"] is None or not self._in_place(task["file"], task["function"], changed):
                self._own_pytest(chosen, writer)
            for number, item in enumerate(chosen):
                following = chosen[number + 1] if number + 1 < len(chosen) else None
                item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
                if self._failed:
                    os.write(writer, item.nodeid.encode())
                    os._exit(1)
        except BaseException:  # noqa: BLE001 - not the mutant's fault: reported to the run, which stops
            os.write(writer, traceback.format_exc()[-2000:].encode())
            os._exit(BROKEN)
        os._exit(0)

    def _in_place(self, file: str, function: str, changed: bytes) -> bool:
        """Give a loaded function its changed code; return False if that is not possible."""
        code = {_key(code): code for code in _codes(compile(changed, file, "exec", dont_inherit=True))}
        done = False
        for candidate in self._functions.get((file, function), ()):
            if _key(candidate.__code__) in code:
                try:
                    candidate.__code__ = code[_key(candidate.__code__)]
                except ValueError:  # it closes over other names
                    return False
                done = True
        for cache in self._caches:
            cache.cache_clear()
        return done

    def _own_pytest(self, chosen: list[pytest.Item], writer: int) -> None:
        """Run the tests with a pytest that imports the changed module, and exit.

        The file of the first test runs alone, because it kills most mutants, and collecting all files takes seconds.
        """
        for name in (JOB, RESULTS, TIMES):
            os.environ.pop(name, None)
        beside = [item for item in chosen if item.path == chosen[0].path]
        for part in (beside, [item for item in chosen if item.path != chosen[0].path]):
            if part:
                self._part(part, writer)
        os._exit(0)

    def _part(self, part: list[pytest.Item], writer: int) -> None:
        """Import everything again and run some tests; exit if one fails."""
        for name, value in [*sys.modules.items()]:
            if (getattr(value, "__file__", None) or "").startswith(f"{Path.cwd()}/"):
                del sys.modules[name]
        only = Path(f"mutation-only-{os.getpid()}.json")  # an environment variable holds at most 128 KiB
        only.write_text(json.dumps([item.nodeid for item in part]))
        os.environ[ONLY] = str(only.resolve())
        first = First()
        options = ["-q", "-x", "-n0", "-p", "mutation.judge", "-p", "no:cacheprovider", "-p", "no:faulthandler"]
        files = dict.fromkeys(str(item.path) for item in part)
        status = pytest.main([*options, "-o", "tmp_path_retention_policy=none", *files], plugins=[first])
        os.write(writer, first.failed.encode())
        if status == pytest.ExitCode.USAGE_ERROR or (status == pytest.ExitCode.NO_TESTS_COLLECTED and not first.failed):
            os.write(writer, f"pytest ended with {status}".encode())
            os._exit(BROKEN)
        if status:
            os._exit(1)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Measure every test for the map; otherwise run only the tests that the environment names, in that order."""
    if TIMES in os.environ:
        for item in items:
            item.own_markers = [mark for mark in item.own_markers if mark.name != "no_cover"]
    if ONLY in os.environ:
        place = {test: number for number, test in enumerate(json.loads(Path(os.environ[ONLY]).read_text()))}
        items[:] = sorted((item for item in items if item.nodeid in place), key=lambda item: place[item.nodeid])


def pytest_configure(config: pytest.Config) -> None:
    """Judge, or record times, as the environment writer, with few Hypothesis examples unless a test sets the number."""
    settings.register_profile("mutation", settings.get_profile("uvtokend"), max_examples=EXAMPLES)
    settings.load_profile("mutation")
    if JOB in os.environ:
        config.pluginmanager.register(Judge(Path(os.environ[JOB]), Path(os.environ[RESULTS])))
    if TIMES in os.environ:
        config.pluginmanager.register(Times(Path(os.environ[TIMES])))


def _loaded() -> tuple[dict[tuple[str, str], list[FunctionType]], list[Any]]:
    """Return the functions of this process by file and qualified name, and the caches of functions."""
    functions: dict[tuple[str, str], list[FunctionType]] = {}
    caches = []
    gc.collect()
    for candidate in gc.get_objects():
        if isinstance(candidate, FunctionType):
            functions.setdefault((candidate.__code__.co_filename, candidate.__code__.co_qualname), []).append(candidate)
        elif isinstance(candidate, functools._lru_cache_wrapper):
            caches.append(candidate)
    return functions, caches


def _codes(code: CodeType) -> Iterator[CodeType]:
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield constant
            yield from _codes(constant)


def _key(code: CodeType) -> tuple[str, int]:
    return code.co_qualname, code.co_firstlineno


def _descriptor(pid: int) -> int:
    """Return a file descriptor that becomes readable when a child ends; only Linux has one."""
    if sys.platform == "linux":
        return os.pidfd_open(pid)
    raise OSError


def _waited(pid: int, seconds: float) -> int | None:
    """Wait for a child and return its exit status. After the timeout, kill it and return None."""
    descriptor = _descriptor(pid)
    try:
        late = not select.select([descriptor], [], [], seconds)[0]
    finally:
        os.close(descriptor)
    if late:
        os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    return None if late else os.waitstatus_to_exitcode(status)


def _end_orphans() -> None:
    """Kill the processes that the tests of a mutant left running."""
    children = Path(f"/proc/self/task/{os.getpid()}/children")
    while pids := children.read_text().split():
        for pid in pids:
            os.kill(int(pid), signal.SIGKILL)
            os.waitpid(int(pid), 0)

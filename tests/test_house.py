"""Project rules that no linter checks; they apply to every file that is in the repository or about to be added."""

from __future__ import annotations

import ast
import os
import re
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from support.needs import NEEDS

ROOT = Path(__file__).parent.parent
TOP = {"pyproject.toml", "README.md", "LICENSE", "src", "tests", "packaging", "launchd", "systemd"}
#: Package registries, each split in two so that this file does not contain their names.
REGISTRIES = [("pypi", "org"), ("pythonhosted", "org"), ("npmjs", "org"), ("npmjs", "com"), ("crates", "io")]


def files() -> list[Path]:
    """Return the files that git tracks or would add; without git, all files except in directories that tools create."""
    command = ["git", "-c", f"safe.directory={ROOT}", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")
        paths = [ROOT / name for name in listed if name]
    except (OSError, subprocess.CalledProcessError):
        paths = [file for top in [*TOP, ".ci"] for file in [ROOT / top, *(ROOT / top).rglob("*")]]
    return sorted(file for file in paths if file.is_file() and "__pycache__" not in file.parts)


FILES = files()
TESTS = [file for file in FILES if file.is_relative_to(ROOT / "tests") and file.name.startswith("test_")]


def lines_with(pattern: str) -> list[str]:
    wanted = re.compile(pattern)
    return [
        f"{file.relative_to(ROOT)}:{number}: {line.strip()}"
        for file in FILES
        for number, line in enumerate(file.read_text().splitlines(), 1)
        if wanted.search(line)
    ]


def test_the_files_are_seen() -> None:
    """The list of files is not empty; otherwise the tests below would prove nothing."""
    assert {ROOT / "README.md", ROOT / ".ci" / "run", Path(__file__)} <= set(FILES)


def test_the_top_level_is_tidy() -> None:
    """The top level contains only the expected files and directories, and dot-files."""
    tops = {file.relative_to(ROOT).parts[0] for file in FILES}
    assert {top for top in tops if not top.startswith(".")} == TOP


@pytest.mark.parametrize("registry", REGISTRIES, ids=[first for first, _ in REGISTRIES])
def test_no_registry_is_named(registry: tuple[str, str]) -> None:
    """No file names a package registry, because users may install from a mirror."""
    assert lines_with(rf"(?i)\b{registry[0]}\.{registry[1]}\b") == []


def test_no_path_of_this_machine_is_named() -> None:
    """No file contains the absolute path of this checkout, so a checkout works in any directory."""
    assert lines_with(rf"(?<![\w.}}]){re.escape(str(ROOT))}/") == []


def test_every_test_has_a_docstring() -> None:
    """Every test has a docstring that says what must hold."""
    silent = [
        f"{file.name}:{node.name}"
        for file in TESTS
        if file.suffix == ".py"
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_")
        if not ast.get_docstring(node)
    ]
    assert silent == []


def test_names_have_one_meaning() -> None:
    """No two classes of the package share a name, and nothing in package or tests is just called ``found``."""
    tops = (ROOT / "src", ROOT / "tests")
    modules = [file for file in FILES if file.suffix == ".py" and any(file.is_relative_to(top) for top in tops)]
    nodes = [(file, node) for file in modules for node in ast.walk(ast.parse(file.read_text()))]
    packaged = [node for file, node in nodes if file.is_relative_to(ROOT / "src")]
    classes = Counter(node.name for node in packaged if isinstance(node, ast.ClassDef))
    assert [name for name, times in classes.items() if times > 1] == []
    names = [(file.name, getattr(node, key, None)) for file, node in nodes for key in ("id", "arg", "name", "attr")]
    assert [file for file, name in names if isinstance(name, str) and name.strip("_") == "found"] == []


@pytest.mark.parametrize(
    "words", [("pragma", ": no "), ("TO", "DO"), ("FIX", "ME"), ("pytest.", "skip"), ("x", "fail")]
)
def test_nothing_is_postponed(words: tuple[str, str]) -> None:
    """No file excludes a line from coverage, skips a test, or marks something as unfinished."""
    assert lines_with(rf"\b{re.escape(''.join(words))}") == []


@pytest.mark.parametrize("file", TESTS, ids=[file.name for file in TESTS])
def test_every_linux_marker_gives_a_reason(file: Path) -> None:
    """Every test marked `linux` gives the reason as one string in the marker."""
    if file.suffix != ".py":
        return
    if "mark.linux" not in (text := file.read_text()):
        return
    uses = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Attribute | ast.Call)]
    named = sum(isinstance(use, ast.Attribute) and ast.unparse(use) == "pytest.mark.linux" for use in uses)
    reasons = [
        use.args[0].value
        for use in uses
        if isinstance(use, ast.Call) and ast.unparse(use.func) == "pytest.mark.linux"
        if len(use.args) == 1 and isinstance(use.args[0], ast.Constant)
    ]
    assert len(reasons) == named
    assert all(reasons)


def test_every_marker_of_a_need_is_declared() -> None:
    """The markers that say what a test needs are the same in pyproject.toml and in `support.needs`."""
    text = (ROOT / "pyproject.toml").read_text()
    assert set(re.findall(r'"(\w+)(?:\(reason\))?: needs ', text)) == set(NEEDS)


def test_signals_work_in_a_test_run_in_the_background() -> None:
    """In a background test run, child processes react to SIGINT, which a shell's background jobs ignore."""
    script = "trap '' INT HUP; exec \"$@\""
    words = (
        "import conftest, subprocess, sys; sys.exit(subprocess.run(['sh', '-c', 'kill -INT $$; sleep 9']).returncode)"
    )
    command = ["sh", "-c", script, "sh", sys.executable, "-c", words]
    done = subprocess.run(command, cwd=ROOT / "tests", capture_output=True, check=False, timeout=60)
    assert done.returncode == 256 - signal.SIGINT, done.stderr


def test_a_test_run_uses_no_proxy_of_its_shell() -> None:
    """The variables that name a proxy, in both cases and even if empty, are unset for the tests and what they start."""
    words = "import conftest, os; print([name for name in os.environ if name.lower().endswith('_proxy')])"
    proxies = {"https_proxy": "", "HTTP_PROXY": "http://127.0.0.1:9", "all_proxy": "x", "NO_PROXY": "*"}
    done = subprocess.run(
        [sys.executable, "-c", words],
        env={**os.environ, **proxies},
        cwd=ROOT / "tests",
        capture_output=True,
        check=True,
        timeout=60,
    )
    assert done.stdout == b"[]\n"


def test_scripts_are_executable_and_valid() -> None:
    """Every file that starts with #! is executable and is valid shell."""
    scripts = [file for file in FILES if file.read_bytes().startswith(b"#!")]
    assert [file.name for file in scripts if not os.access(file, os.X_OK)] == []
    for file in scripts:
        subprocess.run(["bash", "-n", str(file)], check=True)

"""Which tests `support.needs` leaves out on which platform; every test run reports them at its end."""

from __future__ import annotations

import ast
import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from support import needs
from uvtokend.service import launchd

TESTS = Path(__file__).parent


@pytest.mark.parametrize(
    ("mac", "domain", "expected"),
    [(False, None, {"macos", "gui"}), (True, "gui/501", {"linux"}), (True, None, {"linux", "gui"})],
)
def test_what_a_platform_leaves_out(
    mac: bool, domain: str | None, expected: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Linux leaves out the macOS tests, a Mac the Linux tests,
    and a Mac that nobody is logged in to also the GUI tests.
    """
    monkeypatch.setattr(needs, "_MAC", mac)
    monkeypatch.setattr(needs, "_LINUX", not mac)
    monkeypatch.setattr(launchd, "domain", lambda: domain)
    assert {name for name in ("linux", "macos", "gui") if needs.NEEDS[name]()} == expected
    assert (needs.NEEDS["systemd"]() is not None) >= mac


def test_no_test_checks_the_platform_itself() -> None:
    """No test returns early on another platform, which would pass without running; markers leave tests out visibly."""
    silent = [
        f"{file.name}:{node.lineno}"
        for file in TESTS.rglob("test_*.py")
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.If) and "sys.platform" in ast.unparse(node.test)
        if any(isinstance(line, ast.Return) for line in node.body)
    ]
    assert silent == []
    assert sys.platform in {"linux", "darwin"}


def test_the_hosted_workflow_has_macs() -> None:
    """The hosted workflow tests Apple silicon and Intel, three Pythons, with enough descriptors and short paths."""
    job = yaml.safe_load((TESTS.parent / ".github" / "workflows" / "test.yml").read_text())["jobs"]["macos"]
    assert job["strategy"]["matrix"] == {"os": ["macos-15", "macos-15-intel"], "python": ["3.11", "3.14", "homebrew"]}
    scripts = [step["run"] for step in job["steps"] if "run" in step]
    for script in scripts:
        subprocess.run(["bash", "-euc", "-n", script], check=True)
    assert scripts[-1].splitlines() == [
        "ulimit -n 4096",
        "python3 packaging/bootstrap.py test -n auto --basetemp /tmp/u",
    ]


def test_types_are_checked_for_both_platforms(monkeypatch: pytest.MonkeyPatch) -> None:
    """The strict check runs mypy for both Linux and macOS, whichever platform it runs on."""
    spec = importlib.util.spec_from_file_location("bootstrap", TESTS.parent / "packaging" / "bootstrap.py")
    assert spec is not None
    assert spec.loader is not None
    bootstrap = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(bootstrap)
    ran: list[list[str]] = []
    monkeypatch.setattr(bootstrap, "run", ran.append)
    monkeypatch.setattr(bootstrap, "together", ran.extend)
    assert bootstrap.check("python", ["-q"]) == 0
    commands = [" ".join(command) for command in ran if "mypy" in command]
    assert [command.split("--platform ")[1].split()[0] for command in commands] == ["linux", "darwin"]

"""What is shipped: the wheel's and the sdist's file lists, and the entry points."""

from __future__ import annotations

import re
import subprocess
import sys
import tarfile
import zipfile
from importlib.metadata import entry_points
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
VERBS = (
    "run",
    "start",
    "stop",
    "restart",
    "reload",
    "status",
    "refresh",
    "once",
    "log",
    "purge",
    "adopt",
    "demo",
    "init",
)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Wheel and sdist, built without a network."""
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "hatchling", "build", "-d", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    return folder


def test_the_wheel_holds_the_source_and_nothing_else(built: Path) -> None:
    """Every module, the type marker, the licence; no test."""
    with zipfile.ZipFile(next(built.glob("*.whl"))) as wheel:
        names = {name for name in wheel.namelist() if ".dist-info/" not in name}
        info = {name.partition("/")[2] for name in wheel.namelist() if ".dist-info/" in name}
    source = {str(file.relative_to(ROOT / "src")) for file in (ROOT / "src").rglob("*.py")}
    assert names == source | {"uvtokend/py.typed"}
    assert info == {"METADATA", "WHEEL", "RECORD", "entry_points.txt", "licenses/LICENSE"}


def test_the_sdist_can_be_built_and_tested_from(built: Path) -> None:
    """Source, tests, units and packaging are in it; caches and environments are not."""
    with tarfile.open(next(built.glob("*.tar.gz"))) as sdist:
        names = {name.partition("/")[2] for name in sdist.getnames()}
    tops = {name.partition("/")[0] for name in names}
    assert {"src", "tests", "packaging", "systemd", "launchd", "README.md", "LICENSE", "pyproject.toml"} <= tops
    assert not [name for name in names if "__pycache__" in name or name.startswith((".venv", ".mypy", "dist"))]


def test_every_provider_resolves() -> None:
    """Each entry point names a function that can be imported."""
    found = entry_points(group="uvtokend.providers")
    names = {"aws-codeartifact", "google-artifact-registry", "azure-artifacts", "static", "command"}
    assert names <= {point.name for point in found}
    for point in found:
        if point.name in names:
            assert callable(point.load())


def test_the_readme_names_every_verb_and_no_other() -> None:
    """What the README's table offers is what `--help` offers."""
    text = subprocess.run(
        [sys.executable, "-m", "uvtokend", "--help"], check=True, capture_output=True, text=True
    ).stdout
    offered = set(re.findall(r"^ {4}([a-z]+) ", text, re.MULTILINE))
    table = (ROOT / "README.md").read_text().partition("## Commands")[2].partition("\n## ")[0]
    assert offered == set(VERBS)
    assert all(f"`uvtokend {verb}" in table or f"`{verb}`" in table for verb in VERBS)


def test_the_top_level_is_tidy() -> None:
    """What is tracked at the top is what a newcomer expects there."""
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False).stdout
    tops = {line.partition("/")[0] for line in listed.splitlines()}
    wanted = {"pyproject.toml", "README.md", "LICENSE", "src", "tests", "packaging", "launchd", "systemd"}
    assert {top for top in tops if not top.startswith(".")} <= wanted

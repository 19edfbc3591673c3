"""What is shipped: the files in wheel and sdist, the metadata, the entry points, and the pinned requirements."""

from __future__ import annotations

import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from email import message_from_string
from importlib.metadata import entry_points
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from uvtokend import __version__
from uvtokend.cli.verbs import VERBS
from uvtokend.core.clouds import CLOUDS

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build wheel and sdist without a network, and return their directory."""
    directory = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "hatchling", "build", "-d", str(directory)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    return directory


def test_the_wheel_holds_the_source_and_nothing_else(built: Path) -> None:
    """The wheel contains every module, the help topics, the type marker and the license, and no test."""
    with zipfile.ZipFile(next(built.glob("*.whl"))) as wheel:
        names = {name for name in wheel.namelist() if ".dist-info/" not in name}
        info = {name.partition("/")[2] for name in wheel.namelist() if ".dist-info/" in name}
    files = [file for kind in ("*.py", "*.md") for file in (ROOT / "src").rglob(kind)]
    source = {str(file.relative_to(ROOT / "src")) for file in files}
    assert names == source | {"uvtokend/py.typed"}
    assert info == {"METADATA", "WHEEL", "RECORD", "entry_points.txt", "licenses/LICENSE"}


def test_the_sdist_can_be_built_and_tested_from(built: Path) -> None:
    """The sdist contains source, tests, units and packaging, but no caches and no environments."""
    with tarfile.open(next(built.glob("*.tar.gz"))) as sdist:
        names = {name.partition("/")[2] for name in sdist.getnames()}
    tops = {name.partition("/")[0] for name in names}
    wanted = {"src", "tests", "packaging", "systemd", "launchd", ".ci", "README.md", "LICENSE", "pyproject.toml"}
    assert tops == wanted | {"PKG-INFO", ".gitignore"}
    assert not [name for name in names if "__pycache__" in name]
    tests = {str(file.relative_to(ROOT)) for file in (ROOT / "tests").rglob("*.py")}
    assert tests <= names


def test_the_metadata(built: Path) -> None:
    """The wheel's metadata repeats the project's versions, license, dependencies and README."""
    with zipfile.ZipFile(next(built.glob("*.whl"))) as wheel:
        (name,) = (name for name in wheel.namelist() if name.endswith("/METADATA"))
        metadata = message_from_string(wheel.read(name).decode())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert (metadata["Name"], metadata["Version"]) == ("uvtokend", __version__)
    assert (metadata["Requires-Python"], metadata["License-Expression"]) == (">=3.11", "MIT")
    needed = {Requirement(text) for text in metadata.get_all("Requires-Dist", []) if "extra" not in text}
    assert needed == {Requirement(text) for text in project["dependencies"]}
    assert metadata.get_payload() == (ROOT / "README.md").read_text()


@pytest.mark.parametrize("name", ["demo", "dev"])
def test_the_pinned_requirements(name: str) -> None:
    """Every pin has a hash and names no host, and each dependency is pinned to a version that the project accepts."""
    text = (ROOT / "packaging" / f"requirements-{name}.txt").read_text()
    assert "://" not in text
    pins = [pin for pin in text.replace("\\\n", " ").splitlines() if pin]
    assert [
        pin for pin in pins if not re.match(r"[a-z0-9-]+(\[[a-z,]+\])?==[^ ]+ .*--hash=sha256:[0-9a-f]{64}", pin)
    ] == []
    versions = {re.split(r"\[|==", pin)[0]: pin.partition("==")[2].split()[0] for pin in pins}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    needed = [*project["project"]["dependencies"], *project["build-system"]["requires"]]
    needed += project["project"]["optional-dependencies"]["demo"]
    for requirement in map(Requirement, needed):
        assert requirement.specifier.contains(versions[requirement.name]), requirement


def test_every_provider_resolves() -> None:
    """Each entry point names a function that can be imported."""
    points = entry_points(group="uvtokend.providers")
    names = {"aws-codeartifact", "google-artifact-registry", "azure-artifacts", "static", "command"}
    assert names <= {point.name for point in points}
    for point in points:
        if point.name in names:
            assert callable(point.load())
    (command,) = entry_points(group="console_scripts", name="uvtokend")
    assert callable(command.load())


def test_the_entry_points_match_the_catalogs() -> None:
    """The entry points are the same as the catalogs, by which a worker loads our own providers without a search."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["entry-points"]["uvtokend.providers"] == {
        name: f"{cloud.module}:fetch" for name, cloud in CLOUDS.items()
    }
    assert all(cloud.provider == name for name, cloud in CLOUDS.items())


def test_help_and_documentation_name_every_verb() -> None:
    """`--help` lists every verb, and the README or a help topic describes it."""
    command = [sys.executable, "-m", "uvtokend", "--help"]
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert {*VERBS} <= set(re.findall(r"^ {2}([a-z-]+) +\S", text, re.MULTILINE))
    topics = sorted((ROOT / "src" / "uvtokend" / "help").glob("*.md"))
    documents = "".join(file.read_text() for file in [ROOT / "README.md", *topics])
    assert [verb for verb in VERBS if not re.search(rf"(uvtokend |`){verb}\b", documents)] == []

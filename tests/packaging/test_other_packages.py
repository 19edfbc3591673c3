"""The Homebrew formula, as a release creates it, and the Nix expressions, each read by its own tool."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement

from uvtokend import __version__
from uvtokend.sandbox.web import Answer, Call, Server
from uvtokend.service import systemd

PACKAGING = Path(__file__).parent.parent.parent / "packaging"
NIX = PACKAGING / "nix"


@pytest.fixture(scope="module")
def brew() -> Iterator[Any]:
    """Import the script that writes the formula as a module."""
    sys.path.insert(0, str(PACKAGING / "homebrew"))
    yield import_module("formula")
    sys.path.remove(str(PACKAGING / "homebrew"))


class Index(Server):
    """A package index with a source distribution of every pinned library (PEP 691, "Project Detail").

    Args:
        pins: The pinned libraries.

    Attributes:
        wrong: The name of a library whose file has another hash than the pinned one.
    """

    def __init__(self, pins: dict[str, Any]) -> None:
        self._pins = pins
        self.wrong = ""
        super().__init__(self._page)

    def _page(self, call: Call) -> Answer:
        assert call.headers["Accept"] == "application/vnd.pypi.simple.v1+json"
        pin = self._pins[call.path.strip("/").rpartition("/")[2]]
        stem = f"{pin.name.replace('-', '_')}-{pin.version}"
        sha256 = "0" * 64 if pin.name == self.wrong else min(pin.hashes)
        names = (f"{stem}-py3-none-any.whl", f"{stem}0.tar.gz", f"{stem}.tar.gz")
        files = [{"filename": name, "url": f"/files/{name}", "hashes": {"sha256": sha256}} for name in names]
        return Answer.json({"meta": {"api-version": "1.1"}, "name": pin.name, "files": files})


def test_the_formula_is_complete(brew: Any, tmp_path: Path) -> None:
    """Every imported library is a resource with its pinned hash, or a formula; Ruby can parse the result."""
    sdist = tmp_path / "uvtokend-1.tar.gz"
    sdist.write_bytes(b"made up")
    pins = brew.pins()
    with Index(pins) as index:
        text = brew.formula(
            f"{index.url}/simple", sdist, "https://example.com/uvtokend-1.tar.gz", "https://example.com/", "3.13"
        )
    resources = dict(re.findall(r'resource "([a-z0-9-]+)" do\n {4}url ".*?"\n {4}sha256 "([0-9a-f]{64})"', text))
    project = tomllib.loads((PACKAGING.parent / "pyproject.toml").read_text())["project"]
    direct = {Requirement(need).name for need in project["dependencies"]}
    assert direct <= {*resources}
    assert {"jmespath", "msal", "pyjwt", "tzlocal", "urllib3"} <= {*resources}
    assert {*brew.needed()} == {*resources} | brew.BROUGHT_ALONG
    assert not {"uv", "hatchling", "cryptography"} & {*resources}
    assert all(sha256 in pins[name].hashes for name, sha256 in resources.items())
    assert hashlib.sha256(b"made up").hexdigest() in text
    assert "service do" in text
    assert "{" not in re.sub(r"#\{bin\}", "", text)
    (tmp_path / "uvtokend.rb").write_text(text)
    if (ruby := shutil.which("ruby")) is not None:
        subprocess.run([ruby, "-wc", str(tmp_path / "uvtokend.rb")], check=True, capture_output=True)


def test_a_file_with_another_hash_is_refused(brew: Any, tmp_path: Path) -> None:
    """If the index returns a file with another hash than the pinned one, no formula is written."""
    (tmp_path / "s").write_bytes(b"")
    with Index(brew.pins()) as index:
        index.wrong = "tomlkit"
        with pytest.raises(SystemExit, match=r"tomlkit.*another hash"):
            brew.formula(index.url, tmp_path / "s", "u", "h", "3.13")


def nix(expression: str) -> Any:
    """Evaluate an expression if Nix is installed; it does not use the store."""
    program = shutil.which("nix-instantiate")
    if program is None:
        return None
    command = [program, "--eval", "--strict", "--json", "--option", "build-users-group", "", "--expr", expression]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def test_the_nix_package_lists_every_library() -> None:
    """The Nix package has the libraries of pyproject.toml and the program's version, also when Nix evaluates it."""
    project = tomllib.loads((PACKAGING.parent / "pyproject.toml").read_text())["project"]
    needed = sorted(Requirement(text).name for text in project["dependencies"])
    text = (NIX / "package.nix").read_text()
    listed = re.search(r"dependencies = with python3Packages; \[(.*?)\]", text, re.DOTALL)
    assert listed is not None
    assert sorted(listed[1].split()) == needed
    names = " ".join(f'{name} = "{name}";' for name in (*needed, "hatchling"))
    arguments = f"""{{
        lib = {{ licenses.mit = "MIT"; platforms.unix = []; }};
        python3Packages = {{ {names} buildPythonApplication = given: {{ inherit (given) version dependencies; }}; }};
    }}"""
    evaluated = nix(f"import {NIX}/package.nix {arguments}")
    assert evaluated in (None, {"version": __version__, "dependencies": needed})


def test_the_home_manager_module_matches_the_unit() -> None:
    """The service of the home-manager module has the settings of the packaged unit, and Nix can parse every file."""
    text = (NIX / "home-manager.nix").read_text()
    unit = dict(line.split("=", 1) for line in systemd.unit().splitlines() if "=" in line and line[0] != "#")
    for key in ("Type", "NotifyAccess", "Restart", "RestartPreventExitStatus", "KillMode", "UMask"):
        assert f'{key} = "{unit[key]}";' in text
    for key in ("RestartSec", "TimeoutStopSec", "WatchdogSec", "LimitCORE"):
        assert f"{key} = {unit[key]};" in text
    if (program := shutil.which("nix-instantiate")) is not None:
        files = [str(file) for file in sorted(NIX.glob("*.nix"))]
        subprocess.run([program, "--parse", *files], check=True, capture_output=True)

"""The launchd agent, as far as it can be checked without a Mac: the plist's form, keys and types (launchd.plist(5))."""

from __future__ import annotations

import os
import plistlib
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from uvtokend import service

FOLDER = Path(__file__).parent.parent.parent / "launchd"
TYPES: dict[str, type] = {
    "Label": str,
    "ProgramArguments": list,
    "EnvironmentVariables": dict,
    "RunAtLoad": bool,
    "KeepAlive": dict,
    "ThrottleInterval": int,
    "ProcessType": str,
    "Umask": int,
}


@pytest.fixture
def agent() -> dict[str, Any]:
    """The one property list."""
    (file,) = FOLDER.glob("*.plist")
    with file.open("rb") as opened:
        return {**plistlib.load(opened), "file": file.stem}


def test_keys_and_types(agent: dict[str, Any]) -> None:
    """Known keys with their types only: launchd ignores others in silence."""
    file = agent.pop("file")
    assert {key: type(value) for key, value in agent.items()} == TYPES
    assert agent["Label"] == file
    assert all(isinstance(text, str) for text in agent["EnvironmentVariables"].values())
    assert agent["ProcessType"] in {"Background", "Standard", "Adaptive", "Interactive"}


def test_what_it_runs(agent: dict[str, Any]) -> None:
    """``uvtokend run`` with umask 077, again after a crash, not after a stop; helpers are on the PATH."""
    program, *arguments = agent["ProgramArguments"]
    assert Path(program).is_absolute()
    assert "exec uvtokend run" in arguments[-1]
    assert agent["Umask"] == 0o077
    assert agent["KeepAlive"] == {"SuccessfulExit": False}
    assert {"/opt/homebrew/bin", "/usr/local/bin", "/usr/bin"} <= set(agent["EnvironmentVariables"]["PATH"].split(":"))


def test_it_finds_the_program_in_the_home_folder(agent: dict[str, Any], tmp_path: Path) -> None:
    """With launchd's poor environment, the user's own program is run, in the process that launchd watches."""
    program = tmp_path / ".local" / "bin" / "uvtokend"
    program.parent.mkdir(parents=True)
    program.write_text('#!/bin/sh\necho "$$ $@"\n')
    program.chmod(0o755)
    environment = {"HOME": str(tmp_path), **agent["EnvironmentVariables"]}
    with subprocess.Popen(agent["ProgramArguments"], env=environment, stdout=subprocess.PIPE, text=True) as process:
        said, _ = process.communicate(timeout=20)
    assert said == f"{process.pid} run --quiet\n"


def test_it_is_loaded_and_started_by_start_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An installed agent is found without a word to launchd; to start it is to load it first, which may fail."""
    agents, asked = tmp_path / "Library" / "LaunchAgents", tmp_path / "asked"
    agents.mkdir(parents=True)
    shutil.copy(next(FOLDER.glob("*.plist")), agents)
    launchctl = tmp_path / "launchctl"
    launchctl.write_text(f'#!/bin/sh\necho "$*" >> "{asked}"\ntest "$1" = kickstart\n')
    launchctl.chmod(0o755)
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    found = service.installed()
    assert found is not None
    assert not asked.exists()
    found.start()
    domain = f"gui/{os.getuid()}"
    (plist,) = agents.iterdir()
    assert asked.read_text() == f"bootstrap {domain} {plist}\nkickstart {domain}/io.github.uvtokend\n"

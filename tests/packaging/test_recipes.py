"""The recipes for many machines: their configurations are read, their files parsed, and their scripts run."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from support.desk import TOKEN, Desk, desk
from uvtokend.core.config.settings import Source, parse

__all__ = ["desk"]

HELP = Path(__file__).parent.parent.parent / "src" / "uvtokend" / "help"
TOPIC = (HELP / "fleet.md").read_text()


def blocks(language: str, heading: str = "", topic: str = TOPIC) -> list[str]:
    """Return the code blocks of a language, of the whole topic or below one heading."""
    part = re.search(rf"^## {heading}\n(.*?)(?=^## |\Z)", topic, re.MULTILINE | re.DOTALL) if heading else None
    text = part[1] if part is not None else topic
    assert part is not None or not heading, heading
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("topic", ["fleet", "ci"])
def test_the_configurations_are_read(topic: str) -> None:
    """Each TOML block is a configuration that uvtokend takes without a problem."""
    found = blocks("toml", topic=(HELP / f"{topic}.md").read_text())
    assert len(found) >= 2
    for text in found:
        parse([Source("config.toml", text.encode(), "/home/me")], "/home/me", {})


def test_other_files_are_parsed() -> None:
    """The playbook has tasks with a name and one module each; the container's file is JSON; braces of HCL are even."""
    (playbook,) = (yaml.safe_load(text) for text in blocks("yaml", "Ansible"))
    for task in playbook[0]["tasks"]:
        assert len([key for key in task if key.startswith("ansible.builtin.")]) == 1, task
    (container,) = (json.loads(text) for text in blocks("json", "Development containers"))
    assert container["containerEnv"]["NETRC"].startswith("/run/netrc/")
    assert "target=/run/netrc," in container["mounts"][0]
    (job,) = blocks("hcl", "Nomad")
    assert job.count("{") == job.count("}")
    assert job.count('NETRC = "${NOMAD_ALLOC_DIR}/data/private/netrc"') == 3


def test_the_device_management_script(tmp_path: Path) -> None:
    """Run as Jamf runs it, with the target volume as third argument, it puts both files where they are looked for."""
    (script,) = blocks("sh", "Jamf and other device management")
    for name in ("config.toml", "io.github.uvtokend.plist"):
        (tmp_path / name).write_text(name)
    volume = tmp_path / "volume"
    subprocess.run(["sh", "-c", script, "sh", "", "", str(volume)], cwd=tmp_path, check=True)
    site = volume / "Library" / "Application Support" / "uvtokend" / "config.toml"
    agent = volume / "Library" / "LaunchAgents" / "io.github.uvtokend.plist"
    assert (site.read_text(), agent.read_text()) == ("config.toml", "io.github.uvtokend.plist")
    assert (site.stat().st_mode & 0o777, site.parent.stat().st_mode & 0o777) == (0o644, 0o755)


@pytest.mark.parametrize("works", [True, False])
def test_the_slurm_prolog(desk: Desk, tmp_path: Path, works: bool) -> None:
    """The node's first task fetches and every task gets NETRC; a failure is printed to the job and names the cause."""
    desk.configure(("a", "a.example"))
    if not works:
        desk.answer("a", "garbage")
    (script,) = blocks("sh", "SLURM")
    directory = tmp_path / "job"
    script = script.replace("/tmp/uvtokend-$SLURM_JOB_ID", str(directory))
    (desk.home / "uvtokend").write_text(f'#!/bin/sh\nexec {sys.executable} -P -m uvtokend "$@"\n')
    (desk.home / "uvtokend").chmod(0o755)
    for local in ("0", "1"):
        environment = {**desk.env, "SLURM_JOB_ID": "4711", "SLURM_LOCALID": local}
        environment["PATH"] = f"{desk.home}:{environment['PATH']}"
        done = subprocess.run(["sh", "-c", script], env=environment, capture_output=True, text=True, check=True)
        assert done.stdout.endswith(f"export NETRC={directory}/netrc\n")
        assert ("print " in done.stdout) == (not works and local == "0")
    assert directory.stat().st_mode & 0o777 == 0o700
    netrc = directory / "netrc"
    assert (netrc.exists() and TOKEN in netrc.read_text()) == works

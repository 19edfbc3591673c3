"""The recipes for many machines: their configurations are valid, their files can be parsed, and their scripts work."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from support.desk import TOKEN, Desk, desk
from support.namespace import in_namespace
from uvtokend.core.config.settings import parse
from uvtokend.core.config.toml_document import Source

__all__ = ["desk"]

HELP = Path(__file__).parent.parent.parent / "src" / "uvtokend" / "help"
TOPIC = (HELP / "fleet.md").read_text()


def blocks(language: str, heading: str = "", topic: str = TOPIC) -> list[str]:
    """Return the code blocks of a language, in the whole topic or below one heading."""
    part = re.search(rf"^## {heading}\n(.*?)(?=^## |\Z)", topic, re.MULTILINE | re.DOTALL) if heading else None
    text = part[1] if part is not None else topic
    assert part is not None or not heading, heading
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("topic", ["fleet", "ci"])
def test_the_configurations_are_valid(topic: str) -> None:
    """Every TOML block is a valid configuration."""
    examples = blocks("toml", topic=(HELP / f"{topic}.md").read_text())
    assert len(examples) >= 2
    for text in examples:
        parse([Source("config.toml", text.encode(), "/home/me")], "/home/me", {})


def test_other_files_can_be_parsed() -> None:
    """Each task of the playbook has one module, the container's file is JSON,
    and the braces of the HCL are balanced.
    """
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
    """Run as Jamf runs it, with the target volume as third argument,
    the script installs both files in the right place.
    """
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
    """The node's first task fetches and every task gets NETRC; if the fetch fails, the job's output says why."""
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


@pytest.mark.ansible
def test_ansible_accepts_the_playbook(tmp_path: Path) -> None:
    """The real ansible-playbook finds no unknown module and no wrong key."""
    (playbook,) = blocks("yaml", "Ansible")
    (tmp_path / "playbook.yml").write_text(playbook)
    command = ["ansible-playbook", "--syntax-check", "-i", "workstations,", str(tmp_path / "playbook.yml")]
    environment = {**os.environ, "HOME": str(tmp_path), "ANSIBLE_LOCAL_TEMP": str(tmp_path)}
    subprocess.run(command, env=environment, check=True, capture_output=True)


@pytest.mark.systemd_creds
def test_systemd_creds_keeps_the_secret(desk: Desk, tmp_path: Path) -> None:
    """The recipe's command encrypts the secret, and its reference decrypts it for each fetch.

    The test leaves out `--user`, which older systemd versions do not have, and uses its own machine key.
    """
    (shell,) = blocks("sh", "systemd-creds")
    (table,) = blocks("toml", "systemd-creds")
    secret = tmp_path / "nexus.cred"
    for mine in ("~/.config/uvtokend/nexus.cred", "/home/robot/.config/uvtokend/nexus.cred"):
        shell, table = (text.replace(mine, str(secret)) for text in (shell, table))
    desk.configure(daemon=table.replace('"--user", ', ""))
    (tmp_path / "key").mkdir()
    script = shell.replace("--user ", "") + f"{shlex.quote(sys.executable)} -m uvtokend once\n"
    done = in_namespace(
        f"mount --bind {tmp_path / 'key'} /var/lib/systemd", ["sh", "-euc", script], env={**desk.env, "SECRET": TOKEN}
    )
    assert done.returncode == 0, done.stderr
    assert f"machine nexus.example.com login robot password {TOKEN}" in desk.netrc.read_text()
    assert TOKEN.encode() not in secret.read_bytes()
    assert TOKEN not in done.stdout + done.stderr


def test_the_tasks_of_the_nomad_job(desk: Desk, tmp_path: Path) -> None:
    """With the job's arguments and environment, the first task writes the netrc to the path that the main task reads.

    Nomad creates the shared directory with mode 0777 (its ``client/allocdir``); the directory of the netrc is private.
    """
    (job,) = blocks("hcl", "Nomad")
    tasks = dict(re.findall(r'  task "(.*?)" \{\n(.*?)^  \}', job, re.MULTILINE | re.DOTALL))
    shared = tmp_path / "alloc"
    (shared / "data").mkdir(parents=True)
    (shared / "data").chmod(0o777)

    def environment(task: str) -> dict[str, str]:
        variables = re.findall(
            r'^ +(\w+) += "(.*)"$', re.findall(r"env \{\n(.*?)\}\n", tasks[task], re.DOTALL)[0], re.MULTILINE
        )
        return {name: text.replace("${NOMAD_ALLOC_DIR}", str(shared)) for name, text in variables}

    desk.configure(("a", "a.example"))
    arguments = json.loads(re.findall(r"args += (.*)", tasks["first-tokens"])[0])
    desk.extra = {**environment("first-tokens"), "UVTOKEND_CONFIG": str(desk.config)}
    desk.run(*arguments)
    netrc = Path(environment("train")["NETRC"])
    assert TOKEN in netrc.read_text()
    assert netrc.parent.stat().st_mode & 0o777 == 0o700
    assert environment("tokens") == environment("first-tokens")

"""``uvtokend init``, as a newcomer runs it: in a project that uses CodeArtifact, with a valid login."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from uvtokend.sandbox.codeartifact import CodeArtifact
from uvtokend.sandbox.laptop import Laptop

URL = "https://acme-123456789012.d.codeartifact.eu-central-1.amazonaws.com/pypi/prod/simple/"
PROJECT = f'[project]\nname = "x"\nversion = "1"\n[[tool.uv.index]]\nname = "acme"\nurl = "{URL}"\n'


@pytest.fixture
def laptop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Laptop]:
    """A machine with an AWS login, a project, and no configuration of ours."""
    with CodeArtifact() as cloud:
        machine = Laptop(tmp_path_factory.mktemp("l"), cloud)
        machine.environment |= {
            **cloud.environment(),
            "AWS_SHARED_CREDENTIALS_FILE": str(machine.home / "aws"),
            "AWS_PROFILE": "dev",
            "AWS_EC2_METADATA_DISABLED": "true",
            "XDG_CONFIG_HOME": str(machine.home / ".config"),
        }
        del machine.environment["UVTOKEND_CONFIG"]
        machine.config = machine.home / ".config" / "uvtokend" / "config.toml"
        project(machine).mkdir()
        (project(machine) / "pyproject.toml").write_text(PROJECT)
        yield machine
        machine.uvtokend("stop")


def project(laptop: Laptop) -> Path:
    return laptop.folder / "project"


def test_init_and_start(laptop: Laptop) -> None:
    """Two commands: the index is found, tried, written down with its profile, and served."""
    done = laptop.uvtokend("init", "--yes", str(project(laptop)))
    assert done.returncode == 0, done.stderr
    assert "acme: works, as arn:aws:sts::" in done.stdout
    assert f'name = "acme"\nurl = "{URL}"\nprofile = "dev"\n' in laptop.config.read_text()
    assert laptop.config.stat().st_mode & 0o777 == 0o600
    assert laptop.uvtokend("start").returncode == 0
    shown = laptop.uvtokend("refresh", "--json")
    assert shown.returncode == 0
    assert json.loads(shown.stdout)["indexes"][0]["delivered"]


def test_it_asks_first(laptop: Laptop) -> None:
    """Without a terminal and ``--yes`` nothing is fetched and nothing is written."""
    done = laptop.uvtokend("init", str(project(laptop)))
    assert (done.returncode, laptop.cloud.fetches) == (1, 0)
    assert "uvtokend init --yes" in done.stderr
    assert not laptop.config.exists()


def test_it_never_overwrites(laptop: Laptop) -> None:
    """A second run adds nothing; a file with comments keeps them to the byte; new indexes come behind."""
    laptop.uvtokend("init", "--yes", str(project(laptop)))
    before = laptop.config.read_text() + "# mine, without a line end"
    laptop.config.write_text(before)
    assert laptop.uvtokend("init", "--yes", str(project(laptop))).returncode == 0
    assert laptop.config.read_text() == before
    other = PROJECT.replace('"acme"', '"second"').replace("/prod/", "/dev/")
    (project(laptop) / "pyproject.toml").write_text(other)
    assert laptop.uvtokend("init", "--yes", str(project(laptop))).returncode == 0
    assert laptop.config.read_text().startswith(before)
    assert "second" in laptop.config.read_text()


def test_a_login_that_is_missing_is_named(laptop: Laptop) -> None:
    """The index is added all the same, with the command that mends it."""
    (laptop.home / "aws").write_text("")
    done = laptop.uvtokend("init", "--yes", str(project(laptop)))
    assert done.returncode == 0
    assert "aws configure" in done.stdout


def test_a_password_in_a_url_is_not_taken(laptop: Laptop) -> None:
    """It is said, with the line to write instead, and stands in no file of ours."""
    (project(laptop) / "pyproject.toml").write_text(PROJECT.replace("https://", "https://aws:hunter2@"))
    done = laptop.uvtokend("init", "--yes", str(project(laptop)))
    assert done.returncode == 0
    assert f'url = "{URL}"' in done.stderr
    assert "hunter2" not in done.stdout + done.stderr + laptop.config.read_text()


def test_nothing_to_find(laptop: Laptop) -> None:
    """A project without private indexes, or with a file that is no TOML, is no success and no crash."""
    for text in ("", "[tool", "tool = 1", "[tool]\nuv = 1"):
        (project(laptop) / "pyproject.toml").write_text(text)
        done = laptop.uvtokend("init", "--yes", str(project(laptop)))
        assert done.returncode == 1
        assert "nothing to add" in done.stderr

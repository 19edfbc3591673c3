"""``uvtokend init`` as a newcomer runs it: in a project that uses CodeArtifact, with a valid AWS login."""

from __future__ import annotations

import json
import os
import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from support import places
from support.terminal import Terminal
from uvtokend.cli import init
from uvtokend.core.clouds import CLOUDS
from uvtokend.sandbox.codeartifact import CodeArtifact
from uvtokend.sandbox.machine import AwsMachine

URL = "https://acme-123456789012.d.codeartifact.eu-central-1.amazonaws.com/pypi/prod/simple/"
PROJECT = f'[project]\nname = "x"\nversion = "1"\n[[tool.uv.index]]\nname = "acme"\nurl = "{URL}"\n'


@pytest.fixture
def laptop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AwsMachine]:
    """Make a machine with an AWS login, a project, and no configuration."""
    with CodeArtifact() as cloud:
        machine = AwsMachine(tmp_path_factory.mktemp("l"), cloud)
        machine.environment |= {
            **cloud.environment(),
            "AWS_SHARED_CREDENTIALS_FILE": str(machine.home / "aws"),
            "AWS_PROFILE": "dev",
            "AWS_EC2_METADATA_DISABLED": "true",
            "XDG_CONFIG_HOME": str(machine.home / ".config"),
        }
        del machine.environment["UVTOKEND_CONFIG"]
        machine.config = places.config_file(machine.home)
        project(machine).mkdir()
        (project(machine) / "pyproject.toml").write_text(PROJECT)
        yield machine
        machine.uvtokend("stop")


def project(laptop: AwsMachine) -> Path:
    return laptop.directory / "project"


def test_init_and_start(laptop: AwsMachine) -> None:
    """`init` finds the index, tries it and writes it with its profile; after `start`, its token is delivered."""
    done = laptop.uvtokend("init", "--yes", str(project(laptop)))
    assert done.returncode == 0, done.stderr
    assert "acme: works, as arn:aws:sts::" in done.stdout
    assert f'name = "acme"\nurl = "{URL}"\nprofile = "dev"\n' in laptop.config.read_text()
    assert laptop.config.stat().st_mode & 0o777 == 0o600
    assert laptop.uvtokend("start").returncode == 0
    shown = laptop.uvtokend("refresh", "--json")
    assert shown.returncode == 0
    assert json.loads(shown.stdout)["indexes"][0]["delivered"]


def test_init_asks_first(laptop: AwsMachine) -> None:
    """Without a terminal and without ``--yes``, `init` fetches and writes nothing, and exits with 1."""
    done = laptop.uvtokend("init", str(project(laptop)))
    assert (done.returncode, laptop.cloud.fetches) == (1, 0)
    assert "uvtokend init --yes" in done.stderr
    assert not laptop.config.exists()


def test_init_only_appends_to_the_configuration(laptop: AwsMachine) -> None:
    """A second `init` changes nothing; a new index is appended, and the text before it stays byte for byte."""
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


def test_a_missing_sign_in_is_named(laptop: AwsMachine) -> None:
    """Without AWS credentials, `init` still adds the index, and names the command that signs in."""
    (laptop.home / "aws").write_text("")
    done = laptop.uvtokend("init", "--yes", str(project(laptop)))
    assert done.returncode == 0
    assert "aws configure" in done.stdout


def test_a_password_in_a_url_is_not_copied(laptop: AwsMachine) -> None:
    """A secret in a project's URL is reported with the line to write instead, and is neither printed nor stored."""
    (project(laptop) / "pyproject.toml").write_text(PROJECT.replace("https://", "https://aws:hunter2@"))
    done = laptop.uvtokend("init", "--yes", str(project(laptop)))
    assert done.returncode == 0
    assert f'url = "{URL}"' in done.stderr
    assert "hunter2" not in done.stdout + done.stderr + laptop.config.read_text()


def test_a_project_without_private_indexes(laptop: AwsMachine) -> None:
    """A project without private indexes, or with invalid TOML, exits with 1 and a message, without a traceback."""
    for text in ("", "[tool", "tool = 1", "[tool]\nuv = 1"):
        (project(laptop) / "pyproject.toml").write_text(text)
        done = laptop.uvtokend("init", "--yes", str(project(laptop)))
        assert done.returncode == 1
        assert "nothing to add" in done.stderr


@pytest.mark.parametrize("answer", ["y", "Yes", "n", "x"])
def test_init_asks_before_it_fetches(laptop: AwsMachine, answer: str) -> None:
    """On a terminal, `init` asks before it fetches or writes anything; only "y" or "yes" continues."""
    yes = answer.lower().startswith("y")
    with Terminal(laptop.ourselves("init"), laptop.environment, project(laptop), keyboard=True) as terminal:
        terminal.expect(re.escape("[y/N] "))
        assert (laptop.cloud.fetches, laptop.config.exists()) == (0, False)
        terminal.type(answer)
        status, seen = terminal.end(), terminal.text
    assert f"acme: {URL}\r\n" in seen
    assert f"Try these once, and add them to {laptop.config}? [y/N] " in seen
    assert (status, laptop.config.exists(), laptop.cloud.fetches) == ((0, True, 1) if yes else (1, False, 0))
    assert ("works, as arn:aws:sts::" in seen, "Nothing was added." in seen) == (yes, not yes)


def test_an_invalid_configuration_is_reported_first(laptop: AwsMachine) -> None:
    """If the configuration is already invalid, `init` reports that, tries nothing and writes nothing."""
    laptop.config.parent.mkdir(parents=True)
    laptop.config.write_text("colour = 1\n")
    done = laptop.uvtokend("init", "--yes", str(project(laptop)))
    assert (done.returncode, laptop.cloud.fetches) == (2, 0)
    assert f"{laptop.config}: colour: Unknown key." in done.stderr
    assert laptop.config.read_text() == "colour = 1\n"


def test_control_characters_are_escaped(laptop: AwsMachine) -> None:
    """Control characters in a hostile project's directory or index names are escaped in output and configuration."""
    directory = laptop.directory / "p\x1b[2J"
    directory.mkdir()
    text = PROJECT.replace('"acme"', '"a\\u001b[2Jb"') + '[[tool.uv.index]]\nurl = "https://x.example/\\u001b[2J"\n'
    (directory / "pyproject.toml").write_text(text)
    done = laptop.uvtokend("init", "--yes", str(directory))
    assert done.returncode == 0, done.stderr
    assert "\x1b" not in done.stdout + done.stderr + laptop.config.read_text()
    assert "p\\x1b[2J/pyproject.toml" in done.stdout


def test_two_tokens_for_one_host_go_to_uvs_store(laptop: AwsMachine) -> None:
    """Two domains behind one VPC endpoint both go to uv's store;
    `init` says that one uv run can use only one of them.
    """
    host = "https://vpce-1-a.d.codeartifact.eu-central-1.vpce.amazonaws.com/pypi/d"
    urls = [f"{host}/{domain}-123456789012/prod/simple/" for domain in ("acme", "beta")]
    (project(laptop) / "uv.toml").write_text("".join(f'[[index]]\nurl = "{url}"\n' for url in urls))
    (project(laptop) / "pyproject.toml").unlink()
    done = laptop.uvtokend("init", "--yes", str(project(laptop)))
    assert done.returncode == 0, done.stderr
    assert "One uv run can use only one of them" in done.stderr
    tables = tomllib.loads(laptop.config.read_text())["index"]
    assert [(table["name"], table["sink"]) for table in tables] == [("prod", "uv-store"), ("prod-2", "uv-store")]
    assert done.stdout.count("works, as arn:aws:sts::") == 2
    assert laptop.uvtokend("once").returncode == 0
    assert not laptop.netrc.exists()


AZURE = "https://pkgs.dev.azure.com/{}/_packaging/feed/pypi/simple/"


def test_two_azure_organizations(laptop: AwsMachine) -> None:
    """Each of two Azure organizations gets a login, and lines for uv.toml; once those are there, `init` prints none."""
    nowhere = "http://127.0.0.1:9"  # no request is made, because nobody is signed in
    variables = ("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "AZURE_POD_IDENTITY_AUTHORITY_HOST")
    laptop.environment |= dict.fromkeys(variables, nowhere)
    laptop.environment["PATH"] = os.path.dirname(laptop.ourselves()[0])
    file = project(laptop) / "uv.toml"
    file.write_text("".join(f'[[index]]\nname = "{org}"\nurl = "{AZURE.format(org)}"\n' for org in ("acme", "beta")))
    (project(laptop) / "pyproject.toml").unlink()
    done = laptop.uvtokend("init", "--yes", str(project(laptop)))
    assert done.returncode == 0, done.stderr
    assert all(f"\n{org}: " in done.stdout for org in ("acme", "beta"))
    assert "works" not in done.stdout
    tables = tomllib.loads(laptop.config.read_text())["index"]
    assert [(table["sink"], table["username"]) for table in tables] == [("uv-store", "acme"), ("uv-store", "beta")]
    lines = done.stdout[done.stdout.index("[[tool.uv.index]]") :]
    named = [(index["name"], index["url"]) for index in tomllib.loads(lines)["tool"]["uv"]["index"]]
    assert named[1] == ("acme-files", "https://acme@pkgs.dev.azure.com/acme/")
    file.write_text(lines.replace("tool.uv.", ""))
    before = laptop.config.read_text()
    assert laptop.uvtokend("init", "--yes", str(project(laptop))).returncode == 0
    laptop.config.unlink()
    again = laptop.uvtokend("init", "--yes", str(project(laptop)))
    assert (laptop.config.read_text(), "[[tool.uv.index]]" in again.stdout) == (before, False)


JFROG = "https://acme.jfrog.io/artifactory/api/pypi/{}/simple/"


def test_an_index_with_unknown_credentials_gets_a_template(laptop: AwsMachine) -> None:
    """If only the user has the secret, `init` adds a commented template once;
    completed, it serves further indexes too.
    """
    file = project(laptop) / "pyproject.toml"
    file.write_text(PROJECT.replace(URL, JFROG.format("local")))
    done = laptop.uvtokend("init", "--yes", str(project(laptop)))
    assert done.returncode == 1
    assert f"Written to {laptop.config} as comments, for you to complete: acme." in done.stderr
    text = laptop.config.read_text()
    again = laptop.uvtokend("init", "--yes", str(project(laptop)))
    assert (again.returncode, laptop.config.read_text()) == (1, text)
    assert "Complete it and remove the #." in again.stderr
    (laptop.home / "token").write_text("the-canary")
    completed = text.replace('# username = "YOU"\n', "").replace("# password", "# access-token")
    completed = "\n".join(line.removeprefix("# ") for line in completed.replace("~/FILE", "~/token").splitlines()[1:])
    laptop.config.write_text(completed)
    assert laptop.uvtokend("once").returncode == 0
    assert "machine acme.jfrog.io" in laptop.netrc.read_text()
    file.write_text(PROJECT.replace(URL, JFROG.format("remote")).replace('"acme"', '"second"'))
    done = laptop.uvtokend("init", "--yes", str(project(laptop)))
    assert (done.returncode, "second: works" in done.stdout) == (0, True), done.stdout
    assert laptop.config.read_text().startswith(completed)
    assert "the-canary" not in done.stdout + done.stderr + laptop.config.read_text()


def test_a_self_hosted_server_gets_a_command_to_complete(laptop: AwsMachine) -> None:
    """For a self-hosted server, `init` guesses the provider from the path and prints an `add` command that works."""
    url = "https://nexus.example/repository/pypi/simple/"
    (project(laptop) / "pyproject.toml").write_text(PROJECT.replace(URL, url))
    done = laptop.uvtokend("init", "--yes", str(project(laptop)))
    assert done.returncode == 1
    (command,) = [line for line in done.stderr.splitlines() if line.startswith("    uvtokend add ")]
    (laptop.home / "FILE").write_text("secret")
    words = shlex.split(command)[1:]
    assert "provider=nexus" in words
    done = laptop.uvtokend(*words)
    assert done.returncode == 0, done.stderr
    assert laptop.uvtokend("once").returncode == 0
    assert "login YOU password secret" in laptop.netrc.read_text()
    assert laptop.uvtokend("remove", "acme").returncode == 0
    assert "nexus.example" not in laptop.netrc.read_text()


def test_a_fix_links_to_a_missing_program(tmp_path: Path) -> None:
    """If the sign-in command's program is not on PATH, the fix is followed by the page that says how to install it."""
    here = {"PATH": str(tmp_path)}
    program = CLOUDS["google-artifact-registry"].program
    assert program is not None
    line = f"gcloud is not on your PATH. To install it: {program.page}"
    assert [*init._fix(program.sign_in, here)] == [f"fix: {program.sign_in}", line]
    (tmp_path / "gcloud").write_text("")
    (tmp_path / "gcloud").chmod(0o755)
    assert [*init._fix(program.sign_in, here)] == [f"fix: {program.sign_in}"]
    assert [*init._fix(None, here)] == []


def test_the_lines_that_uv_needs_are_printed(laptop: AwsMachine) -> None:
    """If a project's index misses `authenticate` or `explicit`, `init` prints the line to add, until it is there."""
    file = project(laptop) / "pyproject.toml"
    done = laptop.uvtokend("init", "--yes", str(project(laptop)))
    assert done.returncode == 0, done.stderr
    assert f'  fix: add authenticate = "always" below {file}:6' in done.stderr
    assert f"  fix: add explicit = true below {file}:6, and pin its packages under [tool.uv.sources]" in done.stderr
    file.write_text(f'{PROJECT}authenticate = "always"\nexplicit = true\n')
    done = laptop.uvtokend("init", "--yes", str(project(laptop)))
    assert done.returncode == 0
    assert "every private index that uv knows here is configured already" in done.stderr
    assert "fix:" not in done.stderr
    file.write_text(PROJECT.replace("/prod/", "/other/"))
    assert "have different URLs" in laptop.uvtokend("init", "--yes", str(project(laptop))).stderr


def test_without_any_aws_profile_the_fix_creates_one(laptop: AwsMachine) -> None:
    """Without any AWS profile, the index is still added, and the fix creates the first profile: `aws configure sso`."""
    del laptop.environment["AWS_PROFILE"]
    laptop.environment |= {"AWS_SHARED_CREDENTIALS_FILE": "/nowhere/c", "AWS_CONFIG_FILE": "/nowhere/f"}
    done = laptop.uvtokend("init", "--yes", str(project(laptop)))
    assert done.returncode == 0, done.stderr
    assert "  fix: aws configure sso\n" in done.stdout


GCLOUD = """#!/bin/sh
echo '{"credential": {"access_token": "ya29.example", "token_expiry": "2099-01-01T00:00:00Z"},
"configuration": {"properties": {"core": {"account": "me@example.com"}}}}'
"""


def test_the_sign_in_of_gcloud_is_used_without_default_credentials(laptop: AwsMachine) -> None:
    """Without default credentials, `init` tries gcloud's sign-in, and writes `source = "gcloud"` only if that works."""
    programs, settings = laptop.home / "bin", laptop.home / "gcloud"
    programs.mkdir()
    settings.mkdir()
    (programs / "gcloud").write_text(GCLOUD)
    (programs / "gcloud").chmod(0o755)
    (settings / "credentials.db").touch()
    laptop.environment |= {"NO_GCE_CHECK": "true", "CLOUDSDK_CONFIG": str(settings)}
    laptop.environment["PATH"] = f"{programs}:{laptop.environment['PATH']}"
    url = "https://europe-west3-python.pkg.dev/acme-ml/models/simple/"
    (project(laptop) / "pyproject.toml").write_text(PROJECT.replace(URL, url))
    done = laptop.uvtokend("init", "--yes", str(project(laptop)))
    assert done.returncode == 0, done.stderr
    assert "acme: works, as me@example.com, with the sign-in of gcloud\n" in done.stdout
    assert 'source = "gcloud"\n' in laptop.config.read_text()
    (programs / "gcloud").write_text("#!/bin/sh\nexit 1\n")  # if gcloud fails too, no source is written
    laptop.config.unlink()
    done = laptop.uvtokend("init", "--yes", str(project(laptop)))
    assert "works" not in done.stdout
    assert "source" not in laptop.config.read_text()


def test_the_sign_in_of_jf_is_used(laptop: AwsMachine) -> None:
    """If the user has signed in with jf, `init` uses that and writes no template to complete."""
    config = laptop.home / ".jfrog" / "jfrog-cli.conf.v6"
    config.parent.mkdir()
    server = {"serverId": "acme", "url": "https://acme.jfrog.io/", "accessToken": "cmVmdGtuOjAxOmV4YW1wbGU"}
    config.write_text(json.dumps({"servers": [server], "version": "6"}))
    (project(laptop) / "pyproject.toml").write_text(PROJECT.replace(URL, JFROG.format("local")))
    done = laptop.uvtokend("init", "--yes", str(project(laptop)))
    assert done.returncode == 0, done.stderr
    assert "acme: works" in done.stdout
    assert 'source = "jf"\n' in laptop.config.read_text()


def test_an_index_that_only_pip_knows(laptop: AwsMachine) -> None:
    """For an index that only pip knows, `init` prints the lines for uv.toml; once they are there, it adds the index."""
    (project(laptop) / "pyproject.toml").write_text('[project]\nname = "x"\nversion = "1"\n')
    laptop.environment["PIP_INDEX_URL"] = URL.replace("https://", "https://aws:hunter2@")
    done = laptop.uvtokend("init", "--yes", str(project(laptop)))
    assert (done.returncode, "hunter2" in done.stdout + done.stderr) == (1, False)
    assert f"pip's configuration (PIP_INDEX_URL) names {URL}, but uv does not read it." in done.stderr
    file = laptop.home / ".config" / "uv" / "uv.toml"
    assert f"  fix: add to {file}:\n    [[index]]\n" in done.stderr
    lines = done.stderr.partition(f"{file}:\n")[2].splitlines()[:4]
    file.parent.mkdir(parents=True)
    file.write_text("".join(f"{line.strip()}\n" for line in lines))
    done = laptop.uvtokend("init", "--yes", str(project(laptop)))
    assert done.returncode == 0, done.stderr
    assert "prod: works, as arn:aws:sts::" in done.stdout

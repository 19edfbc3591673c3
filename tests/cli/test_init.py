"""``uvtokend init``, as a newcomer runs it: in a project that uses CodeArtifact, with a valid login."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import shlex
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from support import places
from uvtokend.cli import init
from uvtokend.core.clouds import CLOUDS
from uvtokend.sandbox.codeartifact import CodeArtifact
from uvtokend.sandbox.machine import AwsMachine

URL = "https://acme-123456789012.d.codeartifact.eu-central-1.amazonaws.com/pypi/prod/simple/"
PROJECT = f'[project]\nname = "x"\nversion = "1"\n[[tool.uv.index]]\nname = "acme"\nurl = "{URL}"\n'


@pytest.fixture
def laptop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AwsMachine]:
    """A machine with an AWS login, a project, and no configuration of ours."""
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


def test_it_asks_first(laptop: AwsMachine) -> None:
    """Without a terminal and ``--yes`` nothing is fetched and nothing is written."""
    done = laptop.uvtokend("init", str(project(laptop)))
    assert (done.returncode, laptop.cloud.fetches) == (1, 0)
    assert "uvtokend init --yes" in done.stderr
    assert not laptop.config.exists()


def test_it_never_overwrites(laptop: AwsMachine) -> None:
    """A second run adds nothing; a file with comments keeps them byte for byte; new indexes come behind."""
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


def test_a_login_that_is_missing_is_named(laptop: AwsMachine) -> None:
    """The index is added anyway, with the command that repairs it."""
    (laptop.home / "aws").write_text("")
    done = laptop.uvtokend("init", "--yes", str(project(laptop)))
    assert done.returncode == 0
    assert "aws configure" in done.stdout


def test_a_password_in_a_url_is_not_taken(laptop: AwsMachine) -> None:
    """A secret in a URL is reported with the line to write instead, and is never written to a file of ours."""
    (project(laptop) / "pyproject.toml").write_text(PROJECT.replace("https://", "https://aws:hunter2@"))
    done = laptop.uvtokend("init", "--yes", str(project(laptop)))
    assert done.returncode == 0
    assert f'url = "{URL}"' in done.stderr
    assert "hunter2" not in done.stdout + done.stderr + laptop.config.read_text()


def test_nothing_to_find(laptop: AwsMachine) -> None:
    """A project without private indexes, or with invalid TOML, causes an error and no traceback."""
    for text in ("", "[tool", "tool = 1", "[tool]\nuv = 1"):
        (project(laptop) / "pyproject.toml").write_text(text)
        done = laptop.uvtokend("init", "--yes", str(project(laptop)))
        assert done.returncode == 1
        assert "nothing to add" in done.stderr


def on_terminal(laptop: AwsMachine, answer: str) -> tuple[str, int]:
    """Run ``uvtokend init`` in the project on a terminal, and answer its question."""
    ours, theirs = pty.openpty()
    words = laptop.ourselves("init")
    process = subprocess.Popen(
        words, stdin=theirs, stdout=theirs, stderr=theirs, env=laptop.environment, cwd=project(laptop)
    )
    os.close(theirs)
    seen = b""
    with contextlib.suppress(OSError):  # EIO: the last process on the terminal has ended
        while chunk := os.read(ours, 65536):
            seen += chunk
            if b"[y/N] " in seen and answer:
                assert (laptop.cloud.fetches, laptop.config.exists()) == (0, False)
                os.write(ours, f"{answer}\n".encode())
                answer = ""
    os.close(ours)
    return seen.decode(), process.wait(timeout=30)


@pytest.mark.parametrize("answer", ["y", "Yes", "n", "x"])
def test_a_person_is_asked_before_anything_is_fetched(laptop: AwsMachine, answer: str) -> None:
    """Only "yes" continues."""
    yes = answer.lower().startswith("y")
    seen, status = on_terminal(laptop, answer)
    assert f"acme: {URL}\r\n" in seen
    assert f"Try these once, and add them to {laptop.config}? [y/N] " in seen
    assert (status, laptop.config.exists(), laptop.cloud.fetches) == ((0, True, 1) if yes else (1, False, 0))
    assert ("works, as arn:aws:sts::" in seen, "Nothing was added." in seen) == (yes, not yes)


def test_what_is_wrong_already_is_told_first(laptop: AwsMachine) -> None:
    """Nothing is tried or written over a configuration that is wrong."""
    laptop.config.parent.mkdir(parents=True)
    laptop.config.write_text("colour = 1\n")
    done = laptop.uvtokend("init", "--yes", str(project(laptop)))
    assert (done.returncode, laptop.cloud.fetches) == (2, 0)
    assert f"{laptop.config}: colour: Unknown key." in done.stderr
    assert laptop.config.read_text() == "colour = 1\n"


def test_control_characters_are_shown_as_such(laptop: AwsMachine) -> None:
    """A checkout may be hostile: neither its directory's name nor its indexes' names reach the terminal raw."""
    folder = laptop.directory / "p\x1b[2J"
    folder.mkdir()
    text = PROJECT.replace('"acme"', '"a\\u001b[2Jb"') + '[[tool.uv.index]]\nurl = "https://x.example/\\u001b[2J"\n'
    (folder / "pyproject.toml").write_text(text)
    done = laptop.uvtokend("init", "--yes", str(folder))
    assert done.returncode == 0, done.stderr
    assert "\x1b" not in done.stdout + done.stderr + laptop.config.read_text()
    assert "p\\x1b[2J/pyproject.toml" in done.stdout


def test_two_tokens_for_one_host_go_to_the_store(laptop: AwsMachine) -> None:
    """Two domains behind one VPC endpoint: both are tried and delivered; what uv cannot do with them is said."""
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


def test_two_organisations_of_azure(laptop: AwsMachine) -> None:
    """Each gets a user name, and uv's lines for it are shown; once they are in the project, all is well."""
    nowhere = "http://127.0.0.1:9"  # nobody is asked, as there is no login
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


def test_a_login_that_nobody_can_guess_is_left_to_complete(laptop: AwsMachine) -> None:
    """The template is added once, as a comment. Once completed, it works, also for the next repository there."""
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


def test_a_server_of_ones_own_is_left_to_add(laptop: AwsMachine) -> None:
    """It cannot be recognised: the command is shown, it is found by its paths, and it works when completed."""
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


def test_a_fix_says_where_its_program_comes_from(tmp_path: Path) -> None:
    """A command that is not installed is no fix yet: its page is named beside it."""
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
    """Without authenticate and explicit uv fails open: each is named with the line to paste, until it is there."""
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


def test_without_any_aws_profile_the_first_one_is_made(laptop: AwsMachine) -> None:
    """A newcomer to AWS needs a profile before a sign-in; the index is added anyway."""
    del laptop.environment["AWS_PROFILE"]
    laptop.environment |= {"AWS_SHARED_CREDENTIALS_FILE": "/nowhere/c", "AWS_CONFIG_FILE": "/nowhere/f"}
    done = laptop.uvtokend("init", "--yes", str(project(laptop)))
    assert done.returncode == 0, done.stderr
    assert "  fix: aws configure sso\n" in done.stdout


GCLOUD = """#!/bin/sh
echo '{"credential": {"access_token": "ya29.example", "token_expiry": "2099-01-01T00:00:00Z"},
"configuration": {"properties": {"core": {"account": "me@example.com"}}}}'
"""


def test_the_sign_in_of_gcloud_is_used_where_there_is_no_other(laptop: AwsMachine) -> None:
    """After only `gcloud auth login` there are no default credentials: what works is tried, said and written down."""
    programs, kept = laptop.home / "bin", laptop.home / "gcloud"
    programs.mkdir()
    kept.mkdir()
    (programs / "gcloud").write_text(GCLOUD)
    (programs / "gcloud").chmod(0o755)
    (kept / "credentials.db").touch()
    laptop.environment |= {"NO_GCE_CHECK": "true", "CLOUDSDK_CONFIG": str(kept)}
    laptop.environment["PATH"] = f"{programs}:{laptop.environment['PATH']}"
    url = "https://europe-west3-python.pkg.dev/acme-ml/models/simple/"
    (project(laptop) / "pyproject.toml").write_text(PROJECT.replace(URL, url))
    done = laptop.uvtokend("init", "--yes", str(project(laptop)))
    assert done.returncode == 0, done.stderr
    assert "acme: works, as me@example.com, with the sign-in of gcloud\n" in done.stdout
    assert 'source = "gcloud"\n' in laptop.config.read_text()
    (programs / "gcloud").write_text("#!/bin/sh\nexit 1\n")  # and where that one does not work, either, nothing is
    laptop.config.unlink()
    done = laptop.uvtokend("init", "--yes", str(project(laptop)))
    assert "works" not in done.stdout
    assert "source" not in laptop.config.read_text()


def test_the_sign_in_of_jf_is_used(laptop: AwsMachine) -> None:
    """Who has signed in with jf needs to complete nothing."""
    kept = laptop.home / ".jfrog" / "jfrog-cli.conf.v6"
    kept.parent.mkdir()
    server = {"serverId": "acme", "url": "https://acme.jfrog.io/", "accessToken": "cmVmdGtuOjAxOmV4YW1wbGU"}
    kept.write_text(json.dumps({"servers": [server], "version": "6"}))
    (project(laptop) / "pyproject.toml").write_text(PROJECT.replace(URL, JFROG.format("local")))
    done = laptop.uvtokend("init", "--yes", str(project(laptop)))
    assert done.returncode == 0, done.stderr
    assert "acme: works" in done.stdout
    assert 'source = "jf"\n' in laptop.config.read_text()


def test_an_index_that_only_pip_knows(laptop: AwsMachine) -> None:
    """uv reads nothing of pip's configuration: the lines to paste are printed, and with them init continues."""
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

"""Daemons with another environment, version or configuration:
doctor's first problem names the cause, and its fix works.

The real uv confirms both.
"""

from __future__ import annotations

import shutil
import subprocess
import sys

import pytest

from clouds.tls import TlsProxy
from support.mounts import namespace, sh
from support.patient import Patient, patient, prepared_machine
from support.waiting import until
from uvtokend import __version__
from uvtokend.sandbox.codeartifact import ACCOUNT, CodeArtifact, error
from uvtokend.sandbox.machine import find_uv
from uvtokend.sandbox.web import Answer, Call

__all__ = ["patient", "prepared_machine"]

#: A daemon of an older version: the current code with another version number.
OLD = """\
import sys
import uvtokend
uvtokend.__version__ = "0.0.9"
from uvtokend.cli.main import main
sys.exit(main())
"""
#: A uv older than 0.8.15, which does not read uv's store; `uv self update` replaces it with the current one.
OLD_UV = """\
#!/bin/sh
case "$1 $2" in
  "--version ") echo "uv 0.8.14" ;;
  "self update") ln -sf {uv} "$0" ;;
  *) UV_CREDENTIALS_DIR={empty} exec {uv} "$@" ;;
esac
"""
TOKEN_PROGRAM = """\
#!/bin/sh
echo '{"username": "aws", "password": "good-token", "expires_in": 3600}'
"""
AWS = f"""\
[[index]]
name = "acme"
url = "{{url}}"
provider = "aws-codeartifact"
domain = "acme"
domain-owner = "{ACCOUNT}"
region = "eu-central-1"
"""


@pytest.fixture
def empty(patient: Patient) -> Patient:
    """Return a machine that has no token yet."""
    patient.netrc.unlink()
    shutil.rmtree(patient.machine.state)
    return patient


def first(patient: Patient) -> dict[str, str]:
    """Return doctor's first finding."""
    finding: dict[str, str] = patient.doctor("--offline")[0]
    return finding


def problem(patient: Patient) -> tuple[str, str]:
    """Return the first problem of `status`, and its fix."""
    lines = patient.ours("status")[1].splitlines()
    return lines[1], lines[2].removeprefix("  fix: ")


def test_a_daemon_of_an_older_version(patient: Patient) -> None:
    """If the daemon is older than the command, as after an upgrade,
    `status` and doctor name both versions and the fix.
    """
    program = patient.machine.home / "old" / "uvtokend"
    program.parent.mkdir()
    program.write_text(OLD)
    words = [sys.executable, str(program), "run", "--quiet"]
    with subprocess.Popen(words, env=patient.machine.environment, start_new_session=True):
        until(lambda: patient.ours("status")[0] == 0)
        assert patient.uv(), patient.said
        message = f"The running daemon is version 0.0.9, this is {__version__}."
        assert patient.ours("status")[2].splitlines() == [message, "  fix: uvtokend restart"]
        finding = first(patient)
        assert (finding["name"], finding["message"]) == ("version", message)
        patient.repair(finding["fix"])
    assert patient.ours("status")[2] == ""
    assert patient.doctor("--offline") == []
    assert patient.uv(), patient.said


def test_a_daemon_with_another_configuration(empty: Patient) -> None:
    """If the daemon read another config.toml than this shell uses, `status` and doctor name both files and the fix."""
    other = empty.machine.home / "other.toml"
    text = empty.machine.config.read_text().replace('"acme"', '"other"')
    other.write_text(text.replace(empty.index.url, "https://other.example/simple/"))
    other.chmod(0o600)
    assert empty.ours("start", "--config", str(other))[0] == 0
    assert not empty.uv()
    message, fix = problem(empty)
    expected = f"The running daemon has read {other}, but the configuration of this shell is {empty.machine.config}."
    assert (message, fix) == (expected, "uvtokend restart")
    finding = first(empty)
    assert (finding["name"], finding["fix"]) == ("other-configuration", fix)
    assert empty.ours("status", "--config", str(other))[1].count("fix:") == 0
    empty.repair(fix)
    assert empty.ours("status")[1].count("fix:") == 0
    assert empty.uv(), empty.said


def test_a_program_that_is_only_on_the_shells_path(empty: Patient) -> None:
    """If a program's directory is on this shell's PATH but not on the daemon's, a restart from this shell fixes it."""
    programs = empty.machine.home / "tools"
    programs.mkdir()
    (programs / "corp-token").write_text(TOKEN_PROGRAM)
    (programs / "corp-token").chmod(0o755)
    index = f'[[index]]\nname = "acme"\nurl = "{empty.index.url}"\nprovider = "command"\ncommand = ["corp-token"]\n'
    empty.machine.write(index)
    assert empty.ours("start")[0] == 0
    empty.env["PATH"] = f"{programs}:{empty.machine.environment['PATH']}"
    assert not empty.uv()
    message, fix = problem(empty)
    assert message.startswith("acme: corp-token cannot be started: ")
    assert fix == "command -v corp-token && uvtokend restart"
    finding = first(empty)
    assert (finding["name"], finding["fix"]) == ("program-missing", "uvtokend restart")
    assert "not in the daemon's environment" in finding["message"]
    empty.repair(fix)
    assert empty.uv(), empty.said
    assert empty.doctor("--offline") == []


@pytest.mark.parametrize("only", ["the proxy", "the certificates"])
def test_network_settings_that_only_the_shell_has(empty: Patient, only: str) -> None:
    """If the daemon misses this shell's proxy or certificates, doctor names the variable with both values."""
    with CodeArtifact() as cloud, TlsProxy({"localhost": cloud._answer}) as proxy:
        empty.index.valid = lambda _, token: cloud.valid(token)
        empty.machine.write(AWS.format(url=empty.index.url))
        empty.env.update(dict.fromkeys(cloud.environment(), "https://localhost:1"))
        empty.env.update(AWS_ACCESS_KEY_ID="AKIAEXAMPLE", AWS_SECRET_ACCESS_KEY="example")
        variables = {"HTTPS_PROXY": proxy.url, "SSL_CERT_FILE": proxy.ca_file}
        late = "HTTPS_PROXY" if only == "the proxy" else "SSL_CERT_FILE"
        empty.env.update({name: value for name, value in variables.items() if name != late})
        assert empty.ours("start")[0] == 0
        empty.env[late] = variables[late]
        assert not empty.uv()
        finding = first(empty)
        assert (finding["name"], finding["severity"]) == ("environment-differs", "error")
        assert f"{late}: here {variables[late]!r}, there not set" in finding["message"]
        assert finding["fix"] == "uvtokend restart"
        empty.repair(finding["fix"])
        assert empty.uv(), empty.said
        assert empty.doctor("--offline") == []


def test_temporary_credentials_in_the_daemons_environment(empty: Patient) -> None:
    """If expired temporary credentials in the daemon's environment hide a valid sign-in,
    the fix unsets these variables.
    """

    def expires(call: Call) -> Answer | None:
        refused = error(403, "ExpiredTokenException", "The security token included in the request is expired")
        return refused if "ASIAEXAMPLE" in call.headers.get("Authorization", "") else None

    names = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
    with CodeArtifact(fault=expires) as cloud:
        empty.index.valid = lambda _, token: cloud.valid(token)
        empty.machine.write(AWS.format(url=empty.index.url))
        (empty.machine.home / ".aws").mkdir()
        keys = "aws_access_key_id = AKIAEXAMPLE\naws_secret_access_key = example\n"
        (empty.machine.home / ".aws" / "credentials").write_text(f"[default]\n{keys}")
        empty.env.update(cloud.environment(), AWS_EC2_METADATA_DISABLED="true")
        empty.env.update(dict(zip(names, ("ASIAEXAMPLE", "example", "old"), strict=True)))
        assert empty.ours("start")[0] == 0
        assert not empty.uv()
        message, fix = problem(empty)
        assert "The credentials of the environment that uvtokend was started from have expired" in message
        assert fix == f"unset {' '.join(names)} && uvtokend restart"
        assert first(empty)["fix"] == fix
        assert "temporary-environment" in {each["name"] for each in empty.doctor("--offline")}
        for command in fix.split(" && "):
            empty.repair(command)
        assert empty.uv(), empty.said
        assert empty.doctor("--offline") == []


@pytest.mark.mounts
def test_a_netrc_that_is_a_single_file_mount(patient: Patient) -> None:
    """If the netrc is a single-file mount, as in containers, uv works,
    but `status` and doctor advise mounting a directory.
    """
    home = str(patient.machine.home)
    with namespace(patient.project) as words:
        patient.inside[:] = words
        try:
            sh(words, 'mount --bind "$D/.netrc" "$D/.netrc"', D=home)
            assert patient.ours("start")[0] == 0
            assert patient.ours("refresh")[0] == 0
            assert patient.uv(), patient.said
            assert patient.ours("status")[1].splitlines()[1].startswith("The netrc is a single-file mount")
            finding = first(patient)
            assert (finding["name"], patient.netrc.name in finding["message"]) == ("single-file-mount", True)
            assert finding["fix"] == "mount a directory instead, and let NETRC name the file in it"
            assert patient.ours("stop")[0] == 0
            sh(words, 'umount "$D/.netrc"; mkdir "$D/k"; mv "$D/.netrc" "$D/k"; mount --bind "$D/k" "$D/k"', D=home)
            patient.env["NETRC"] = str(patient.machine.home / "k" / ".netrc")
            assert patient.ours("start")[0] == 0
            assert patient.doctor("--offline") == []
            assert patient.uv(), patient.said
        finally:
            patient.ours("stop")
            patient.inside.clear()


def test_a_uv_that_is_too_old(patient: Patient) -> None:
    """If uv is too old to read the store that the token is delivered to,
    doctor names uv's version, and the fix updates it.
    """
    programs = patient.machine.home / "bin"
    programs.mkdir()
    uv = programs / "uv"
    uv.write_text(OLD_UV.format(uv=find_uv(), empty=patient.machine.home / "empty"))
    uv.chmod(0o755)
    patient.env["PATH"] = f"{programs}:{patient.machine.environment['PATH']}"
    patient.machine.config.write_text(patient.machine.config.read_text() + 'sink = "uv-store"\n')
    assert patient.ours("start")[0] == 0

    def installs() -> bool:
        return patient.run([str(uv), "lock", "--no-cache"]).returncode == 0

    assert not installs()
    finding = first(patient)
    assert (finding["name"], finding["culprit"]) == ("uv-too-old", str(uv))
    assert "which uv 0.8.14 does not read" in finding["message"]
    assert finding["fix"] == "uv self update"
    assert patient.run(["sh", "-c", finding["fix"]]).returncode == 0
    assert installs()
    assert all(each["severity"] == "note" for each in patient.doctor("--offline"))

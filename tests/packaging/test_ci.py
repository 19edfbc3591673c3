"""The shell parts of the CI files, run as a runner runs them: with the job's OIDC token and no stored secret.

`uv` and `pip` are stand-ins that install nothing; `uv` keeps the netrc that a real one would read.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from uvtokend.sandbox.codeartifact import CodeArtifact
from uvtokend.sandbox.web import Answer, Call, Server

ROOT = Path(__file__).parent.parent.parent
CI = ROOT / "packaging" / "ci"
TOPIC = (ROOT / "src" / "uvtokend" / "help" / "ci.md").read_text()
AWS = """\
[[index]]
name = "acme"
url = "https://acme-123456789012.d.codeartifact.eu-central-1.amazonaws.com/pypi/prod/simple/"
"""
HOST = "acme-123456789012.d.codeartifact.eu-central-1.amazonaws.com"


class Runner:
    """A fresh machine of a CI service.

    Args:
        directory: An empty directory.
    """

    def __init__(self, directory: Path) -> None:
        self.home, self.checkout = directory / "home", directory / "checkout"
        self.netrc_of_uv = directory / "netrc-of-uv"
        for path in (self.home, self.checkout, directory / "bin", directory / "temp"):
            path.mkdir()
        self.program("uv", f'[ "$1" != sync ] || cp "$HOME/.netrc" {shlex.quote(str(self.netrc_of_uv))}')
        self.program("pip", "true")
        self.program("uvtokend", f'exec {shlex.quote(sys.executable)} -P -m uvtokend "$@"')
        self.environment = {
            "HOME": str(self.home),
            "PATH": os.pathsep.join([str(directory / "bin"), os.path.dirname(sys.executable), os.defpath]),
            "RUNNER_TEMP": str(directory / "temp"),
            "XDG_RUNTIME_DIR": str(self.home),
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def program(self, name: str, text: str) -> None:
        """Put a shell script on the PATH."""
        file = self.home.parent / "bin" / name
        file.write_text(f"#!/bin/sh\n{text}\n")
        file.chmod(0o755)

    def configure(self, name: str, text: str) -> None:
        """Write a file of the checkout."""
        file = self.checkout / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def run(self, script: str, environment: Mapping[str, str]) -> str:
        """Run a step as runners do; it must succeed."""
        done = subprocess.run(
            ["bash", "--noprofile", "--norc", "-e", "-o", "pipefail", "-c", script],
            cwd=self.checkout,
            env={**self.environment, **environment},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr


@pytest.fixture
def runner(tmp_path: Path) -> Runner:
    """A fresh machine."""
    return Runner(tmp_path)


def load(name: str) -> dict[str, Any]:
    """Return a CI file."""
    content: dict[str, Any] = yaml.safe_load((CI / name).read_text())
    return content


def example(heading: str) -> str:
    """Return the configuration that the help topic shows under a heading."""
    found = re.search(rf"^## {heading}\n.*?^```toml\n(.*?)^```$", TOPIC, re.MULTILINE | re.DOTALL)
    assert found is not None
    return found[1]


def assumed(cloud: CodeArtifact) -> dict[str, str]:
    """Return the form with which a role was assumed."""
    forms = [call.form() for call in cloud.server.calls]
    (found,) = (form for form in forms if form.get("Action") == "AssumeRoleWithWebIdentity")
    return found


@pytest.mark.curl
def test_the_github_action_signs_in_with_the_jobs_token(runner: Runner, cloud: CodeArtifact) -> None:
    """The runner's OIDC endpoint is asked for the audience, AWS gets the token, and only a private file holds it.

    The endpoint is that of GitHub's reference "OpenID Connect": a bearer token, ``&audience=``, and ``{"value": …}``.
    """

    def endpoint(call: Call) -> Answer:
        if call.headers["Authorization"] != "bearer request-token" or call.query["audience"] != "sts.amazonaws.com":
            return Answer(401)
        return Answer.json({"value": "job-oidc-token", "count": 1})

    (step,) = load("action.yml")["runs"]["steps"]
    defaults = {name: wanted["default"] for name, wanted in load("action.yml")["inputs"].items()}
    assert step["env"] == {name.upper(): f"${{{{ inputs.{name} }}}}" for name in defaults}
    runner.configure(defaults["config"], AWS)
    with Server(endpoint) as github:
        said = runner.run(
            step["run"],
            {
                **cloud.environment(),
                **{name.upper(): value for name, value in defaults.items()},
                "AUDIENCE": "sts.amazonaws.com",
                "ACTIONS_ID_TOKEN_REQUEST_URL": f"{github.url}/token?api-version=2.0",
                "ACTIONS_ID_TOKEN_REQUEST_TOKEN": "request-token",
                "AWS_ROLE_ARN": "arn:aws:iam::123456789012:role/ci",
            },
        )
    assert assumed(cloud)["WebIdentityToken"] == "job-oidc-token"
    assert HOST in (runner.home / ".netrc").read_text()
    (held,) = (file for file in runner.home.parent.rglob("*") if file.is_file() and b"job-oidc" in file.read_bytes())
    assert held.stat().st_mode & 0o777 == 0o600
    assert "job-oidc-token" not in said


def test_the_github_action_after_a_login_action(runner: Runner, cloud: CodeArtifact) -> None:
    """Without an audience no endpoint is asked: the credentials of the cloud's own action are used."""
    (step,) = load("action.yml")["runs"]["steps"]
    runner.configure("uvtokend.toml", AWS)
    keys = {"AWS_ACCESS_KEY_ID": "ASIAEXAMPLE", "AWS_SECRET_ACCESS_KEY": "x", "AWS_SESSION_TOKEN": "y"}
    given = {"CONFIG": "uvtokend.toml", "VERSION": "", "AUDIENCE": ""}
    runner.run(step["run"], {**cloud.environment(), **keys, **given})
    assert HOST in (runner.home / ".netrc").read_text()


def test_the_gitlab_job(runner: Runner, cloud: CodeArtifact) -> None:
    """The job's OIDC token reaches AWS through a file, and `CI_JOB_TOKEN` GitLab's own registry."""
    job = load("gitlab-ci.yml")["test"]
    (name,) = job["id_tokens"]
    file = runner.home / "aws-token"
    variables = {**job["variables"], "AWS_WEB_IDENTITY_TOKEN_FILE": str(file)}  # the job's own lies in /tmp
    runner.configure("ci/uvtokend.toml", AWS + example("GitLab CI"))
    given = {name: "gitlab-oidc-token", "CI_JOB_TOKEN": "job-token-1"}
    runner.run("\n".join(job["script"]), {**cloud.environment(), **variables, **given})
    assert assumed(cloud)["WebIdentityToken"] == "gitlab-oidc-token"
    assert file.stat().st_mode & 0o777 == 0o600
    read = runner.netrc_of_uv.read_text()
    assert HOST in read
    assert "machine gitlab.com login gitlab-ci-token password job-token-1" in read


def test_the_azure_pipeline(runner: Runner) -> None:
    """`$(System.AccessToken)` is delivered as it is, before uv runs."""
    (step,) = (step for step in load("azure-pipelines.yml")["steps"] if "bash" in step)
    assert step["env"] == {"SYSTEM_ACCESSTOKEN": "$(System.AccessToken)"}
    runner.configure("ci/uvtokend.toml", example("Azure Pipelines"))
    runner.run(step["bash"], {"SYSTEM_ACCESSTOKEN": "build-service-token"})
    assert "machine pkgs.dev.azure.com" in runner.netrc_of_uv.read_text()
    assert "build-service-token" in runner.netrc_of_uv.read_text()

"""The shell scripts of the CI files, run as a runner runs them: with the job's OIDC token and without a stored secret.

`uv` and `pip` are replaced by scripts that install nothing; this `uv` saves the netrc that the real one would read.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from clouds.azure import ORGANIZATION, PACKAGES_HOST, AzureCloud
from clouds.google import POOL, GoogleCloud
from clouds.tls import TlsProxy
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
        """Put a shell script on PATH."""
        file = self.home.parent / "bin" / name
        file.write_text(f"#!/bin/sh\n{text}\n")
        file.chmod(0o755)

    def configure(self, name: str, text: str) -> None:
        """Write a file of the checkout."""
        file = self.checkout / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def run(self, script: str, environment: Mapping[str, str]) -> str:
        """Run a step as runners do, check that it succeeds, and return its output."""
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
    """Return a fresh machine."""
    return Runner(tmp_path)


def load(name: str) -> dict[str, Any]:
    """Return the content of a CI file."""
    content: dict[str, Any] = yaml.safe_load((CI / name).read_text())
    return content


def example(heading: str) -> str:
    """Return the configuration that the help topic shows under a heading."""
    block = re.search(rf"^## {heading}\n.*?^```toml\n(.*?)^```$", TOPIC, re.MULTILINE | re.DOTALL)
    assert block is not None
    return block[1]


@dataclass
class Federation:
    """A cloud that exchanges a job's OIDC token for a credential.

    Args:
        config: The configuration of the index.
        host: The host of the index.
        audience: The audience that the token must have.
        environment: The variables of the job's settings, and those that lead the SDK to the emulator.
        trust: Makes the cloud accept an OIDC token.
        opens: Returns whether the index accepts a password.
        file: The content of ``ci/google.json``.
    """

    config: str
    host: str
    audience: str
    environment: dict[str, str]
    trust: Callable[[str], object]
    opens: Callable[[str], bool]
    file: str | None = None


@contextmanager
def aws() -> Iterator[Federation]:
    """Emulate AWS with a role that the job assumes."""
    with CodeArtifact() as made:
        environment = {**made.environment(), "AWS_ROLE_ARN": "arn:aws:iam::123456789012:role/ci"}
        trusted: list[str] = []

        def opens(password: str) -> bool:
            forms = [call.form() for call in made.server.calls]
            used = [form["WebIdentityToken"] for form in forms if form.get("Action") == "AssumeRoleWithWebIdentity"]
            return made.valid(password) and used == trusted

        yield Federation(AWS, HOST, "sts.amazonaws.com", environment, trusted.append, opens)


@contextmanager
def azure() -> Iterator[Federation]:
    """Emulate Entra with a trust for the issuer of the job's token."""
    made = AzureCloud()
    client, _ = made.application()
    with TlsProxy(made.sites) as proxy:
        url = f"https://{PACKAGES_HOST}/{ORGANIZATION}/_packaging/feed/pypi/simple/"
        environment = {"HTTPS_PROXY": proxy.url, "REQUESTS_CA_BUNDLE": proxy.ca_file}
        environment |= {"AZURE_CLIENT_ID": client, "AZURE_TENANT_ID": made.tenant}
        config = f'[[index]]\nname = "feed"\nurl = "{url}"\ncredential = "workload-identity"\n'
        audience = "api://AzureADTokenExchange"
        yield Federation(config, PACKAGES_HOST, audience, environment, made.assertions.add, made.opens)


@contextmanager
def google() -> Iterator[Federation]:
    """Emulate Google with a workload identity pool whose members may impersonate the service account of the example."""
    made = GoogleCloud()
    host = "europe-west3-python.pkg.dev"
    example = json.loads((CI / "google.json").read_text())
    audience = example["audience"]
    account = example["service_account_impersonation_url"].rpartition("/")[2].partition(":")[0]
    made.impersonable.add(account)
    file = json.dumps({**example, "audience": POOL})
    with TlsProxy(made.sites) as proxy:
        environment = {"HTTPS_PROXY": proxy.url, "REQUESTS_CA_BUNDLE": proxy.ca_file, "NO_GCE_CHECK": "true"}
        config = f'[[index]]\nname = "models"\nurl = "https://{host}/acme/models/simple/"\n'

        def opens(password: str) -> bool:
            return made.valid(password) and made.holder(password) == account

        yield Federation(config, host, f"https:{audience}", environment, made.subjects.add, opens, file)


FEDERATIONS = {"aws": aws, "azure": azure, "google": google}


@pytest.fixture(params=FEDERATIONS)
def federation(request: pytest.FixtureRequest) -> Iterator[tuple[str, Federation]]:
    """Return each cloud with its name."""
    with FEDERATIONS[request.param]() as made:
        yield request.param, made


def password(netrc: str, host: str) -> str:
    """Return the password of a host's entry."""
    entry = re.search(rf"machine {re.escape(host)} login \S+ password (\S+)", netrc)
    assert entry is not None, netrc
    return entry[1]


def assumed(cloud: CodeArtifact) -> dict[str, str]:
    """Return the form of the request that assumed the role."""
    forms = [call.form() for call in cloud.server.calls]
    (accepted,) = (form for form in forms if form.get("Action") == "AssumeRoleWithWebIdentity")
    return accepted


@pytest.mark.curl
def test_the_github_action_signs_in_with_the_jobs_token(runner: Runner, cloud: CodeArtifact) -> None:
    """The action fetches an OIDC token for the audience and passes it to AWS; only a private file contains it.

    The endpoint follows GitHub's reference "OpenID Connect": a bearer token, ``&audience=``, and ``{"value": …}``.
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
        output = runner.run(
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
    assert "job-oidc-token" not in output


def test_the_github_action_after_a_login_action(runner: Runner, cloud: CodeArtifact) -> None:
    """Without an audience, the action requests no OIDC token and uses the credentials of the
    cloud's own login action.
    """
    (step,) = load("action.yml")["runs"]["steps"]
    runner.configure("uvtokend.toml", AWS)
    keys = {"AWS_ACCESS_KEY_ID": "ASIAEXAMPLE", "AWS_SECRET_ACCESS_KEY": "x", "AWS_SESSION_TOKEN": "y"}
    given = {"CONFIG": "uvtokend.toml", "VERSION": "", "AUDIENCE": ""}
    runner.run(step["run"], {**cloud.environment(), **keys, **given})
    assert HOST in (runner.home / ".netrc").read_text()


@pytest.mark.curl
def test_the_github_action_signs_in_to_azure(runner: Runner) -> None:
    """With Entra's audience and the two IDs that its documentation names, the action opens an Azure feed."""
    (step,) = load("action.yml")["runs"]["steps"]
    with azure() as cloud, Server(lambda call: Answer.json({"value": "token-for-" + call.query["audience"]})) as github:
        cloud.trust(f"token-for-{cloud.audience}")
        runner.configure("uvtokend.toml", cloud.config)
        given = {"CONFIG": "uvtokend.toml", "VERSION": "", "AUDIENCE": cloud.audience}
        given |= {"ACTIONS_ID_TOKEN_REQUEST_URL": f"{github.url}/?a=b", "ACTIONS_ID_TOKEN_REQUEST_TOKEN": "t"}
        runner.run(step["run"], {**cloud.environment, **given})
        assert cloud.opens(password((runner.home / ".netrc").read_text(), cloud.host))


def test_github_after_googles_login_action(runner: Runner) -> None:
    """The file that google-github-actions/auth writes, with the runner's endpoint and its bearer token, is sufficient.

    The keys of `credential_source` are those in its ``client/workload_identity_federation.ts``.
    """
    (step,) = load("action.yml")["runs"]["steps"]

    def endpoint(call: Call) -> Answer:
        return Answer.json({"value": "job-oidc-token"}) if call.headers["Authorization"] == "Bearer r" else Answer(401)

    with google() as cloud, Server(endpoint) as github:
        cloud.trust("job-oidc-token")
        source = {"url": f"{github.url}/?audience=x", "headers": {"Authorization": "Bearer r"}}
        source |= {"format": {"type": "json", "subject_token_field_name": "value"}}
        runner.configure("gha-creds.json", json.dumps({**json.loads(cloud.file or ""), "credential_source": source}))
        runner.configure("uvtokend.toml", cloud.config)
        given = {"CONFIG": "uvtokend.toml", "VERSION": "", "AUDIENCE": ""}
        given["GOOGLE_APPLICATION_CREDENTIALS"] = str(runner.checkout / "gha-creds.json")
        runner.run(step["run"], {**cloud.environment, **given})
        assert cloud.opens(password((runner.home / ".netrc").read_text(), cloud.host))


def test_the_gitlab_jobs(runner: Runner, federation: tuple[str, Federation]) -> None:
    """The job's OIDC token signs in to each cloud through a private file,
    and `CI_JOB_TOKEN` to GitLab's own registry.
    """
    name, cloud = federation
    jobs = load("gitlab-ci.yml")
    job = jobs[name]
    assert job["id_tokens"]["OIDC_TOKEN"]["aud"] == cloud.audience
    file = runner.home / "oidc-token"
    written = {**jobs[job["extends"]]["variables"], **job["variables"]}
    assert "/tmp/oidc-token" in written.values()
    places = {"/tmp/oidc-token": str(file), "$CI_PROJECT_DIR": str(runner.checkout)}

    def ours(text: str) -> str:
        for place, own in places.items():
            text = text.replace(place, own)
        return text

    variables = {key: ours(text) for key, text in written.items()}
    runner.configure("ci/uvtokend.toml", cloud.config + example("GitLab CI"))
    if cloud.file is not None:
        runner.configure("ci/google.json", ours(cloud.file))
    cloud.trust("gitlab-oidc-token")
    given = {"OIDC_TOKEN": "gitlab-oidc-token", "CI_JOB_TOKEN": "job-token-1"}
    script = "\n".join(jobs[job["extends"]]["script"])
    runner.run(script, {**variables, **cloud.environment, **given})
    assert file.stat().st_mode & 0o777 == 0o600
    read = runner.netrc_of_uv.read_text()
    assert cloud.opens(password(read, cloud.host))
    assert password(read, "gitlab.com") == "job-token-1"


def steps_of(job: str) -> list[dict[str, Any]]:
    """Return the steps of a job in Azure Pipelines."""
    (chosen,) = (each for each in load("azure-pipelines.yml")["jobs"] if each["job"] == job)
    steps: list[dict[str, Any]] = chosen["steps"]
    return steps


def test_the_azure_pipeline(runner: Runner) -> None:
    """The pipeline delivers `$(System.AccessToken)` before uv runs."""
    (step,) = (step for step in steps_of("own") if "bash" in step)
    assert step["env"] == {"SYSTEM_ACCESSTOKEN": "$(System.AccessToken)"}
    runner.configure("ci/uvtokend.toml", example("Azure Pipelines"))
    runner.run(step["bash"], {"SYSTEM_ACCESSTOKEN": "build-service-token"})
    assert password(runner.netrc_of_uv.read_text(), "pkgs.dev.azure.com") == "build-service-token"


def test_the_azure_pipeline_with_a_service_connection(runner: Runner, federation: tuple[str, Federation]) -> None:
    """The OIDC token that the task AzureCLI@2 passes to its script opens each cloud,
    and only a private file contains it.
    """
    _, cloud = federation
    (step,) = (step["inputs"] for step in steps_of("federated") if step["task"] == "AzureCLI@2")
    assert step["addSpnToEnvironment"]
    runner.configure("ci/uvtokend.toml", cloud.config)
    if cloud.file is not None:
        runner.configure("ci/google.json", cloud.file)
    cloud.trust("pipeline-oidc-token")
    temporary = runner.home.parent / "temp"
    environment = dict(cloud.environment)
    given = {"idToken": "pipeline-oidc-token", "AGENT_TEMPDIRECTORY": str(temporary)}
    given["servicePrincipalId"] = environment.pop("AZURE_CLIENT_ID", "")
    given["tenantId"] = environment.pop("AZURE_TENANT_ID", "")
    output = runner.run(step["inlineScript"], {**environment, **given})
    assert cloud.opens(password(runner.netrc_of_uv.read_text(), cloud.host))
    assert (temporary / "oidc-token").stat().st_mode & 0o777 == 0o600
    assert "pipeline-oidc-token" not in output

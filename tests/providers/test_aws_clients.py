"""The emulator with third-party clients, which must work with it as boto3 does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from uvtokend.sandbox.codeartifact import CodeArtifact

INDEX = "https://acme-123456789012.d.codeartifact.eu-central-1.amazonaws.com/pypi/production/simple/"


def run(cloud: CodeArtifact, home: Path, module: str, *arguments: str) -> str:
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "AWS_ACCESS_KEY_ID": "AKIAEXAMPLE",
        "AWS_SECRET_ACCESS_KEY": "example",
        "AWS_EC2_METADATA_DISABLED": "true",
        "PYTHON_KEYRING_BACKEND": "keyrings.codeartifact.CodeArtifactBackend",
        **cloud.environment(),
    }
    # Run as a module, because a script's first line cannot name a Python whose path contains a space.
    command = [sys.executable, "-m", module, *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=True).stdout


def test_the_aws_command(cloud: CodeArtifact, tmp_path: Path) -> None:
    """``aws codeartifact get-authorization-token`` reads the token and its expiry."""
    what = ("codeartifact", "get-authorization-token", "--domain", "acme", "--region", "eu-central-1")
    answer = json.loads(run(cloud, tmp_path, "awscli", *what, "--output", "json"))
    assert cloud.valid(answer["authorizationToken"])
    assert answer["expiration"]


def test_the_aws_command_configures_pip(cloud: CodeArtifact, tmp_path: Path) -> None:
    """``aws codeartifact login`` requests the token and the repository's URL, and combines them into one URL."""
    where = ("--domain", "acme", "--domain-owner", "123456789012", "--repository", "production")
    what = ("codeartifact", "login", "--tool", "pip", *where, "--region", "eu-central-1", "--dry-run")
    url = run(cloud, tmp_path, "awscli", *what).split()[-1]
    user, _, host = url.removeprefix("https://").partition("@")
    assert f"https://{host}" == INDEX
    login, _, token = user.partition(":")
    assert login == "aws"
    assert cloud.valid(token)


def test_a_duration_out_of_range_is_refused(cloud: CodeArtifact, tmp_path: Path) -> None:
    """The service checks the range of the duration, because no client does."""
    what = ("codeartifact", "get-authorization-token", "--domain", "acme", "--region", "eu-central-1")
    with pytest.raises(subprocess.CalledProcessError) as caught:
        run(cloud, tmp_path, "awscli", *what, "--duration-seconds", "800")
    assert "ValidationException" in caught.value.stderr


def test_keyrings_codeartifact(cloud: CodeArtifact, tmp_path: Path) -> None:
    """The keyring plug-in gets a token that the index accepts."""
    assert cloud.valid(run(cloud, tmp_path, "keyring", "get", INDEX, "aws").strip())

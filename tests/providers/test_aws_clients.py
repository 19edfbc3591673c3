"""The emulator against clients that we did not write: they must be as content with it as boto3 is."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

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
    # As a module: the first line of a script cannot name a Python whose path has a space in it.
    command = [sys.executable, "-m", module, *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=True).stdout


def test_the_aws_command(cloud: CodeArtifact, tmp_path: Path) -> None:
    """``aws codeartifact get-authorization-token`` reads token and end of life."""
    what = ("codeartifact", "get-authorization-token", "--domain", "acme", "--region", "eu-central-1")
    answer = json.loads(run(cloud, tmp_path, "awscli", *what, "--output", "json"))
    assert cloud.valid(answer["authorizationToken"])
    assert answer["expiration"]


def test_keyrings_codeartifact(cloud: CodeArtifact, tmp_path: Path) -> None:
    """The keyring plug-in gets a token that the index would let in."""
    assert cloud.valid(run(cloud, tmp_path, "keyring", "get", INDEX, "aws").strip())

"""Third-party clients get their tokens from our loopback Google.

keyrings.google-artifactregistry-auth calls google-auth's ``google.auth.default``, which also looks for a project.
gcloud signs in with a credential file and asks whose token it got.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from clouds import google as fake
from clouds.google_world import TARGET, World, asked, loopback_world
from uvtokend.providers.google import fetch as google
from uvtokend.sandbox.web import Server

#: The PATH before a world replaces it.
PATH = os.environ["PATH"]
INDEX = "https://europe-west3-python.pkg.dev/sandbox-project/packages/simple/"


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    with loopback_world(tmp_path, monkeypatch) as created:
        yield created


def keyring() -> str:
    """Return the password that keyring's command prints for the index."""
    backend = {"PYTHON_KEYRING_BACKEND": "keyrings.gauth.GooglePythonAuth"}
    command = [sys.executable, "-m", "keyring", "get", INDEX, "oauth2accesstoken"]
    done = subprocess.run(
        command, env={**os.environ, **backend}, capture_output=True, text=True, check=True, timeout=60
    )
    return done.stdout.strip()


def service_account(world: World) -> str:
    world.use(world.cloud.service_account())
    return f"builder@{fake.PROJECT}.iam.gserviceaccount.com"


def user(world: World) -> str:
    world.well_known(world.cloud.user())
    return "person@example.com"


def federated(world: World) -> str:
    world.cloud.impersonable.add(TARGET)
    world.use(world.cloud.external_account({"file": world.subject()}, TARGET))
    return TARGET


def program(world: World) -> str:
    world.executable()
    return "principal:" + fake.POOL


def workforce(world: World) -> str:
    world.executable(fake.WORKFORCE)
    return "principal:" + fake.WORKFORCE


def aws(world: World) -> str:
    world.aws()
    return "principal:" + fake.POOL


#: How to prepare a world, and how often google.auth.default then requests the project's id.
CASES: dict[Callable[[World], str], int] = {
    service_account: 0,
    user: 0,
    federated: 1,
    program: 1,
    workforce: 1,
    aws: 1,
}


@pytest.mark.parametrize("prepare", CASES, ids=lambda prepare: prepare.__name__)
def test_keyring(world: World, prepare: Callable[[World], str]) -> None:
    """Google's keyring backend gets a valid token of the right identity through the proxy."""
    holder = prepare(world)
    token = keyring()
    assert world.cloud.valid(token)
    assert world.cloud.holder(token) == holder
    assert world.proxy.refused == []
    assert world.paths().count(f"{fake.PROJECTS_HOST}/v1/projects/{fake.PROJECT_NUMBER}") == CASES[prepare]


@pytest.mark.parametrize("audience", [fake.POOL, fake.WORKFORCE])
def test_the_project_of_an_external_account(world: World, audience: str) -> None:
    """google-auth reads the project's id from the response."""
    world.executable(audience)
    script = (
        "import google.auth; print(google.auth.default(scopes=['https://www.googleapis.com/auth/cloud-platform'])[1])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == fake.PROJECT


def test_keyring_on_a_machine(world: World) -> None:
    """Google's keyring backend gets the machine's token from the metadata server."""
    with Server(world.cloud.metadata) as metadata:
        world.machine(metadata)
        token = keyring()
    assert world.cloud.valid(token)
    assert world.cloud.holder(token) == fake.MACHINE


@pytest.mark.gcloud
def test_gcloud(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The real gcloud signs in with a credential file, learns whose token it got, and passes it to our provider."""
    world.executable(fake.WORKFORCE)
    file = os.environ["GOOGLE_APPLICATION_CREDENTIALS"]
    monkeypatch.delenv("GOOGLE_APPLICATION_CREDENTIALS")
    monkeypatch.setenv("PATH", f"{os.environ['PATH']}{os.pathsep}{PATH}")
    monkeypatch.setenv("CLOUDSDK_CORE_CUSTOM_CA_CERTS_FILE", world.proxy.ca_file)
    monkeypatch.setenv("CLOUDSDK_COMPONENT_MANAGER_DISABLE_UPDATE_CHECK", "1")
    sign_in = ["gcloud", "auth", "login", f"--cred-file={file}", "--quiet"]
    subprocess.run(sign_in, stdin=subprocess.DEVNULL, capture_output=True, check=True, timeout=100)
    assert world.paths() == [f"{fake.STS_HOST}/v1/{call}" for call in ("token", "introspect")]
    credential = google.fetch(asked(source="gcloud"))
    assert credential.identity == world.cloud.holder(credential.password.reveal()) == "principal:" + fake.WORKFORCE
    assert world.cloud.valid(credential.password.reveal())

"""A client that we did not write, keyrings.google-artifactregistry-auth, gets its token from our loopback Google.

It asks google-auth's own ``google.auth.default``, so it also checks that the emulator answers what that calls.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from clouds import google as fake
from clouds.google_world import TARGET, World, loopback_world
from uvtokend.sandbox.web import Server

INDEX = "https://europe-west3-python.pkg.dev/sandbox-project/packages/simple/"


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    with loopback_world(tmp_path, monkeypatch) as made:
        monkeypatch.setenv("GOOGLE_CLOUD_PROJECT", fake.PROJECT)  # or it would ask a further API for one
        yield made


def keyring() -> str:
    """Return the password that keyring's own command prints for the index."""
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


@pytest.mark.parametrize("prepare", [service_account, user, federated], ids=lambda prepare: prepare.__name__)
def test_keyring(world: World, prepare: Callable[[World], str]) -> None:
    """Google's keyring backend gets a valid token of the right identity through the proxy."""
    holder = prepare(world)
    token = keyring()
    assert world.cloud.valid(token)
    assert world.cloud.holder(token) == holder
    assert world.proxy.refused == []


def test_keyring_on_a_machine(world: World) -> None:
    """Google's keyring backend finds the metadata server and gets the machine's token from it."""
    with Server(world.cloud.metadata) as metadata:
        world.machine(metadata)
        token = keyring()
    assert world.cloud.valid(token)
    assert world.cloud.holder(token) == fake.MACHINE

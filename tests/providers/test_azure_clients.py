"""Clients that we did not write get their credentials from our loopback Azure.

artifacts-keyring-nofuss and Microsoft's own provider discover tenant and token service from the feed's response, so
they also check the package host.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from clouds import azure as fake
from clouds.azure_world import LEGACY, SERVICE, World, loopback_world
from clouds.tls import TlsProxy
from uvtokend.sandbox.web import Server


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    with TlsProxy({}) as proxy:
        yield loopback_world(tmp_path, monkeypatch, proxy)


def keyring(service: str = SERVICE, package: str = "artifacts_keyring_nofuss") -> list[str]:
    """Return the user name and password that keyring's command prints, or nothing."""
    backend = {"PYTHON_KEYRING_BACKEND": f"{package}.ArtifactsKeyringBackend"}
    index = f"{service}/_packaging/packages/pypi/simple/"
    command = [sys.executable, "-m", "keyring", "--mode", "creds", "get", index]
    done = subprocess.run(
        command, env={**os.environ, **backend}, capture_output=True, text=True, check=False, timeout=60
    )
    return done.stdout.split()


def az(world: World) -> str:
    world.tool("az", f'"{world.cloud.user_token()}"')  # matches --query accessToken
    return fake.PERSON


def workload(world: World) -> str:
    return world.workload()


@pytest.mark.parametrize(
    ("service", "prepare", "login", "kind"),
    [
        (SERVICE, az, "VssSessionToken", "session"),
        (LEGACY, az, "VssSessionToken", "session"),
        (SERVICE, workload, "bearer", "app"),
    ],
    ids=["az", "az, legacy host", "workload identity"],
)
def test_keyring(world: World, service: str, prepare: Callable[[World], str], login: str, kind: str) -> None:
    """The keyring backend gets a valid token of the right identity and kind."""
    holder = prepare(world)
    username, token = keyring(service)
    assert (username, world.cloud.kind(token), world.cloud.holder(token)) == (login, kind, holder)
    assert world.cloud.valid(token)


def test_a_managed_identity(world: World) -> None:
    """azure-identity's default chain, called by another program, finds the managed identity."""
    with Server(world.cloud.machine) as server:
        world.machine(server)
        username, token = keyring()
    assert (username, world.cloud.holder(token)) == ("bearer", world.cloud.machine_clients[0])


def test_a_person_who_never_signed_in(world: World) -> None:
    """If the person never signed in to Azure DevOps, the other client gets no credential and raises no exception."""
    az(world)
    world.cloud.faults["session"] = lambda _: fake.FIRST_SIGN_IN
    world.set(ARTIFACTS_KEYRING_NOFUSS_PROVIDER="azure_cli")
    assert keyring() == []


@pytest.mark.artifacts_keyring
def test_microsofts_own_provider(world: World) -> None:
    """A person signs in to Microsoft's provider with a device code, and its session token can install and publish.

    The provider requests 90 days, is refused, and accepts the life that Azure DevOps chooses.
    """
    world.cloud.interval, world.cloud.approving = 1, True
    world.set(
        SSL_CERT_FILE=world.proxy.ca_file,
        DOTNET_SYSTEM_GLOBALIZATION_INVARIANT="1",  # its .NET would look for libicu
        NUGET_CREDENTIALPROVIDER_MSAL_FILECACHE_ENABLED="false",
    )
    username, token = keyring(package="artifacts_keyring")
    assert (username, world.cloud.kind(token), world.cloud.holder(token)) == ("VssSessionToken", "session", fake.PERSON)
    assert world.cloud.scopes(token) == {"vso.packaging_write", "vso.drop_write"}
    assert world.proxy.refused == []
    requested = [call.path for call in world.calls(fake.LOGIN_HOST)]
    assert requested == [f"/{world.cloud.tenant}/oauth2/v2.0/{kind}" for kind in ("devicecode", "token")]
    assert len(world.calls(fake.SECURITY_HOST)) == 2

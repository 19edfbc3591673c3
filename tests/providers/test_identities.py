"""Identities: the options of an index reach the SDK, and the identity that the cloud returns is shown."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from clouds import azure as fake_azure
from clouds import azure_world, google_world
from clouds import google as fake_google
from clouds.tls import TlsProxy
from uvtokend.core.model import Credential
from uvtokend.providers.aws import fetch as aws
from uvtokend.providers.google import fetch as google
from uvtokend.sandbox.codeartifact import CodeArtifact
from uvtokend.sandbox.web import Server
from uvtokend.testing import asked

CODEARTIFACT = 'url = "https://acme-123456789012.d.codeartifact.eu-central-1.amazonaws.com/pypi/production/simple/"\n'
GAR = 'url = "https://europe-west3-python.pkg.dev/acme/models/simple/"\n'
FEED = f'url = "https://pkgs.dev.azure.com/{fake_azure.ORGANIZATION}/_packaging/feed/pypi/simple/"\n'
ALICE, BUILD = "arn:aws:iam::123456789012:user/alice", "arn:aws:iam::123456789012:user/build"
ROLE = "arn:aws:iam::210987654321:role/reader"
ASSUMED = "arn:aws:sts::210987654321:assumed-role/reader"


# -------------------------------------------------------------------------------------------------------------- AWS


@pytest.fixture
def cloud(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[CodeArtifact]:
    """Return an AWS that knows two users, with a profile for each and one that assumes a role."""
    (tmp_path / "config").write_text(
        "[profile alice]\naws_access_key_id = AKIAALICE\naws_secret_access_key = x\n"
        "[profile build]\naws_access_key_id = AKIABUILD\naws_secret_access_key = x\n"
        f"[profile reader]\nrole_arn = {ROLE}\nsource_profile = build\nrole_session_name = ci\n"
    )
    for name in [name for name in os.environ if name.upper().startswith(("AWS_", "HTTP"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with CodeArtifact() as created:
        created.identities = {"AKIAALICE": ALICE, "AKIABUILD": BUILD}
        for name, value in created.environment().items():
            monkeypatch.setenv(name, value)
        yield created


@pytest.mark.parametrize(
    ("table", "identity", "signer"),
    [
        ('profile = "alice"', ALICE, "AKIAALICE"),
        ('profile = "build"', BUILD, "AKIABUILD"),
        ('profile = "reader"', f"{ASSUMED}/ci", "ASIAEXAMPLE"),
        (f'profile = "alice"\nrole-arn = "{ROLE}"', f"{ASSUMED}/uvtokend", "ASIAEXAMPLE"),
    ],
)
def test_profile_and_role(cloud: CodeArtifact, table: str, identity: str, signer: str) -> None:
    """CodeArtifact is asked with the keys of the profile or role that the index names, and the identity is shown."""
    credential = aws.fetch(asked(CODEARTIFACT + table))
    assert credential.identity == identity
    (call,) = (call for call in cloud.server.calls if call.path == "/v1/authorization-token")
    assert f"Credential={signer}/" in call.headers["Authorization"]
    roles = [call.form()["RoleArn"] for call in cloud.server.calls if call.form().get("Action") == "AssumeRole"]
    assert roles == ([ROLE] if identity.startswith(ASSUMED) else [])


# ----------------------------------------------------------------------------------------------------------- Google


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[google_world.World]:
    """Return a loopback Google."""
    with google_world.loopback_world(tmp_path, monkeypatch) as created:
        yield created


@pytest.mark.parametrize(("lifetime", "seconds"), [("", "3600s"), ('lifetime = "12h"', "43200s")])
def test_credentials_file_and_impersonation(world: google_world.World, lifetime: str, seconds: str) -> None:
    """The file's account requests a token of the impersonated account with the configured life."""
    world.use(world.cloud.user("other@example.com"))
    builder = world.cloud.service_account()
    world.cloud.impersonable.add(google_world.TARGET)
    world.cloud.longest = 43200
    table = f'credentials-file = "{world.file(builder, "key.json")}"\n{lifetime}\n'
    credential = google.fetch(asked(f'{GAR}{table}impersonate-service-account = "{google_world.TARGET}"'))
    assert credential.identity == google_world.TARGET
    (asking,) = (call for host, call in world.proxy.calls if host == fake_google.IAM_HOST)
    assert google_world.TARGET in asking.path
    assert json.loads(asking.body)["lifetime"] == seconds
    assert world.cloud.holder(asking.headers["Authorization"].removeprefix("Bearer ")) == builder["client_email"]
    assert credential.expires_at is not None
    life = (credential.expires_at - credential.issued_at).total_seconds()
    assert life == pytest.approx(float(seconds.removesuffix("s")), abs=5)


def test_a_credentials_file_alone(world: google_world.World) -> None:
    """`credentials-file` overrides the environment, and its account is shown."""
    world.use(world.cloud.user("other@example.com"))
    builder = world.cloud.service_account()
    credential = google.fetch(asked(f'{GAR}credentials-file = "{world.file(builder, "key.json")}"'))
    assert credential.identity == builder["client_email"] == world.cloud.holder(credential.password.reveal())


# ------------------------------------------------------------------------------------------------------------ Azure


@pytest.fixture(scope="module")
def proxy() -> Iterator[TlsProxy]:
    """Return one proxy for all tests."""
    with TlsProxy({}) as created:
        yield created


@pytest.fixture
def azure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, proxy: TlsProxy) -> azure_world.World:
    """Return a loopback Azure."""
    return azure_world.loopback_world(tmp_path, monkeypatch, proxy)


@contextmanager
def machine(azure: azure_world.World) -> Iterator[Server]:
    with Server(azure.cloud.machine) as server:
        azure.machine(server)
        yield server


def fetch(table: str) -> Credential:
    from uvtokend.providers.azure import fetch as provider

    return provider.fetch(asked(FEED + table))


def logins(azure: azure_world.World) -> list[tuple[str, dict[str, str]]]:
    """Return the tenant and the form of each token request to Entra."""
    calls = (call for call in azure.calls(fake_azure.LOGIN_HOST) if call.method == "POST")
    return [(call.path.split("/")[1], call.form()) for call in calls]


def test_an_application_in_a_named_tenant(azure: azure_world.World) -> None:
    """`tenant-id` overrides the environment, and the application's id is shown."""
    client = azure.environment()
    azure.set(AZURE_TENANT_ID="another.example")
    credential = fetch(f'credential = "environment"\ntenant-id = "{azure.cloud.tenant}"')
    assert credential.identity == client
    ((tenant, form),) = logins(azure)
    assert (tenant, form["client_id"], form["grant_type"]) == (azure.cloud.tenant, client, "client_credentials")
    assert "client_secret" in form


def test_a_workload_in_a_named_tenant(azure: azure_world.World) -> None:
    """`tenant-id` and `client-id` override the environment, and the file's assertion is sent."""
    client = azure.workload()
    azure.set(AZURE_TENANT_ID="another.example", AZURE_CLIENT_ID="another")
    credential = fetch(f'credential = "workload-identity"\ntenant-id = "{azure.cloud.tenant}"\nclient-id = "{client}"')
    assert credential.identity == client
    ((tenant, form),) = logins(azure)
    assert (tenant, form["client_id"]) == (azure.cloud.tenant, client)
    assert form["client_assertion"] in azure.cloud.assertions


@pytest.mark.parametrize("credential", ["managed-identity", "default"])
def test_one_of_a_machines_identities(azure: azure_world.World, credential: str) -> None:
    """`client-id` selects one of the machine's identities, which is shown."""
    azure.cloud.machine_clients.append("22222222-aaaa-bbbb-cccc-000000000000")
    with machine(azure) as server:
        fetched = fetch(f'credential = "{credential}"\nclient-id = "{azure.cloud.machine_clients[1]}"')
        assert server.calls[-1].query["client_id"] == azure.cloud.machine_clients[1]
    assert fetched.identity == azure.cloud.machine_clients[1]


@pytest.mark.parametrize(
    ("credential", "tool", "words"),
    [("cli", "az", "--tenant"), ("developer-cli", "azd", "--tenant-id")],
)
def test_a_person_in_a_named_tenant(azure: azure_world.World, credential: str, tool: str, words: str) -> None:
    """The tool is asked for a token of that tenant, and the identity is the person, not the tool."""
    token = azure.cloud.user_token()
    azure.tool(tool, azure.cloud.az_answer(token) if tool == "az" else azure.cloud.azd_answer(token))
    fetched = fetch(f'credential = "{credential}"\ntenant-id = "{azure.cloud.tenant}"')
    assert fetched.identity == fake_azure.PERSON
    assert f"{words} {azure.cloud.tenant}" in azure.arguments(tool)

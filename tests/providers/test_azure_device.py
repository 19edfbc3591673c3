"""The flow of Microsoft's own credential provider, step by step with msal and our loopback Azure.

The provider itself needs 76 MB; if it is installed, ``test_azure_clients.py`` runs it. The steps are those of
artifacts-credprovider 1.4.1: it requests the feed twice, the second time with an empty user and password, takes the
authority and the token service from the second response, signs a person in with a device code, and exchanges the Entra
token for a session token with write access.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msal
import pytest
import requests
from azure.identity import DeviceCodeCredential

from clouds import azure as fake
from clouds.azure_world import SERVICE, World, loopback_world
from clouds.tls import TlsProxy

#: The provider's own application (its source, ``AzureArtifacts.ClientId``).
CLIENT = "d5a56ea4-7369-46b8-a538-c370805301bf"


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    with TlsProxy({}) as proxy:
        yield loopback_world(tmp_path, monkeypatch, proxy)


def discovered(world: World) -> tuple[str, str]:
    """Return the authority and the token service from the feed's response to an empty user and password."""
    feed = f"{SERVICE}/_packaging/packages/pypi/simple/"
    stranger = requests.get(feed, timeout=10)
    again = requests.get(feed, headers={"Authorization": "Basic Og=="}, timeout=10)
    assert (stranger.status_code, again.status_code) == (401, 401)
    assert stranger.headers["WWW-Authenticate"] == again.headers["WWW-Authenticate"]
    authority = again.headers["WWW-Authenticate"].partition("authorization_uri=")[2].partition(",")[0]
    return authority, again.headers["X-VSS-AuthorizationEndpoint"]


def test_the_flow_of_microsofts_provider(world: World) -> None:
    """A person signs in with a device code, and the session token that the provider requests can publish."""
    authority, security = discovered(world)
    tenant = authority.rpartition("/")[2]
    application = msal.PublicClientApplication(CLIENT, authority=f"https://{fake.LOGIN_HOST}/{tenant}")
    flow = application.initiate_device_flow([f"{fake.RESOURCE}/.default"])
    pending = application.acquire_token_by_device_flow(dict(flow), exit_condition=lambda _: True)
    assert pending["error"] == "authorization_pending"
    world.cloud.approve(flow["device_code"])
    entra = application.acquire_token_by_device_flow(flow)
    until = datetime.now(UTC) + timedelta(hours=20)
    answer = requests.post(
        f"{security}_apis/Token/SessionTokens",
        params={"tokenType": "Compact", "api-version": "5.0-preview.1"},
        json={
            "displayName": "Azure DevOps Artifacts Credential Provider",
            "scope": "vso.packaging_write vso.drop_write",
            "validTo": until.isoformat(),
        },
        headers={"Authorization": f"Bearer {entra['access_token']}"},
        timeout=10,
    )
    token = answer.json()["token"]
    assert world.cloud.holder(token) == fake.PERSON
    assert world.cloud.scopes(token) == {"vso.packaging_write", "vso.drop_write"}


def test_a_device_code_of_azure_identity(world: World) -> None:
    """azure-identity checks the ID token in the response more strictly than msal does."""
    approved = threading.Event()

    def shown(_: str, code: str, __: datetime) -> None:
        assert len(code) == 8
        device = next(iter(world.cloud.devices()))
        world.cloud.approve(device)
        approved.set()

    credential = DeviceCodeCredential(CLIENT, tenant_id=world.cloud.tenant, prompt_callback=shown)
    token = credential.get_token(f"{fake.RESOURCE}/.default").token
    assert approved.is_set()
    assert (world.cloud.kind(token), world.cloud.holder(token)) == ("user", fake.PERSON)


@pytest.mark.parametrize("scope", ["https://management.core.windows.net//.default", f"{fake.RESOURCE}/.default"])
def test_scopes_of_a_service_principal(world: World, scope: str) -> None:
    """`az login --service-principal` first requests a token for Azure management, which Azure DevOps refuses."""
    client, secret = world.cloud.application()
    authority = f"https://{fake.LOGIN_HOST}/{world.cloud.tenant}"
    application = msal.ConfidentialClientApplication(client, client_credential=secret, authority=authority)
    token = application.acquire_token_for_client([scope])["access_token"]
    assert world.cloud.valid(token)
    assert world.cloud.opens(token) == scope.startswith(fake.RESOURCE)


def test_an_unknown_scope(world: World) -> None:
    """An unknown resource is refused, and so are two scopes at once."""
    client, secret = world.cloud.application()
    authority = f"https://{fake.LOGIN_HOST}/{world.cloud.tenant}"
    application = msal.ConfidentialClientApplication(client, client_credential=secret, authority=authority)
    for scopes in (["https://nothing.example/.default"], [f"{fake.RESOURCE}/.default", f"{fake.RESOURCE}/read"]):
        assert "AADSTS70011" in application.acquire_token_for_client(scopes)["error_description"]

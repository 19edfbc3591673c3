"""azure-artifacts, with the real azure-identity and a loopback Azure behind a TLS-terminating proxy."""

from __future__ import annotations

import json
import logging
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import quote

import pytest

from clouds import azure as fake
from clouds.azure_world import LEGACY, SERVICE, World, asked, loopback_world
from clouds.tls import TlsProxy
from support.loopback import CANARY
from uvtokend.core import wire
from uvtokend.core.model import Credential, Failure
from uvtokend.providers.azure import failures, transport
from uvtokend.providers.kit import jwt
from uvtokend.sandbox.web import Answer, Call, Server, Site

Setting = Callable[[World], object]


@pytest.fixture(scope="module")
def proxy() -> Iterator[TlsProxy]:
    with TlsProxy({}) as created:
        yield created


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, proxy: TlsProxy) -> World:
    return loopback_world(tmp_path, monkeypatch, proxy)


def saying(answer: Answer) -> Site:
    return lambda _: answer


def left(credential: Credential) -> float:
    assert credential.expires_at is not None
    return (credential.expires_at - datetime.now(UTC)).total_seconds()


@contextmanager
def machine(world: World, site: Site | None = None) -> Iterator[Server]:
    with Server(site or world.cloud.machine) as server:
        world.machine(server)
        yield server


# ------------------------------------------------------------------------------------------------ a person's token
# ------------------------------------------------------------------------------------------------ a person's token


def check_session(world: World, credential: Credential, holder: str = fake.PERSON) -> None:
    token = credential.password.reveal()
    assert world.cloud.valid(token)
    assert world.cloud.kind(token) == "session"
    assert (credential.login, credential.identity) == ("VssSessionToken", holder)


@pytest.mark.parametrize("credential", ["cli", "developer-cli"])
@pytest.mark.parametrize("service", [SERVICE, LEGACY])
def test_an_entra_token_is_exchanged_for_a_session_token(world: World, credential: str, service: str) -> None:
    """A person's Entra token is exchanged at the organization's own token service for a session token for packages."""
    token = world.log_in()
    world.tool("azd", world.cloud.azd_answer(token))
    fetched = world.fetch(service, credential=credential)
    check_session(world, fetched)
    assert 23 * 3600 < left(fetched) < 24 * 3600
    (host, call), *_ = [(host, call) for host, call in world.proxy.calls if call.method == "POST"]
    assert host == ("vssps.dev.azure.com" if service == SERVICE else "sandbox.vssps.visualstudio.com")
    assert call.path.endswith("/_apis/Token/SessionTokens")
    assert json.loads(call.body)["scope"] == "vso.packaging_write"
    assert call.headers["X-TFS-FedAuthRedirect"] == "Suppress"


@pytest.mark.parametrize("zone", ["Asia/Kathmandu", "America/St_Johns"])
def test_the_time_zone_does_not_change_the_expiry_of_azd(world: World, zone: str) -> None:
    """azd prints UTC, which azure-identity reads as local time. Without a correction, a valid token would be refused
    east of Greenwich, and an expired one delivered west of it."""
    token = world.log_in()
    world.tool("azd", world.cloud.azd_answer(token))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TZ", zone)
        time.tzset()
        fetched = world.fetch(credential="developer-cli", token="entra")
    time.tzset()
    assert fetched.expires_at == jwt.end(token)


def test_access_chooses_the_scope(world: World) -> None:
    """A session token has write access by default, because saving a package from upstream requires it. `access` can
    limit it."""
    world.log_in()
    assert world.cloud.scopes(world.fetch(credential="cli").password.reveal()) == {"vso.packaging_write"}
    assert world.cloud.scopes(world.fetch(credential="cli", access="read").password.reveal()) == {"vso.packaging"}


def test_access_is_refused_for_an_entra_token(world: World) -> None:
    """An Entra token has all scopes of its identity, so `access = "read"` is refused instead of ignored."""
    world.environment()
    failure = world.failure(credential="environment", access="read")
    assert (failure.kind, failure.reason) == ("rejected", "bad-options")
    assert 'remove access = "read"' in (failure.hint or "")


def test_the_organizations_tenant_is_looked_up(world: World) -> None:
    """A guest must sign in to the organization's tenant, which is read from the package host's response without
    credentials."""
    world.log_in()
    world.fetch(credential="cli")
    assert f"--tenant {world.cloud.tenant}" in world.arguments()
    assert [call.headers.get("Authorization") for call in world.calls("pkgs.dev.azure.com")] == [None]


def test_a_named_tenant_is_not_looked_up(world: World) -> None:
    """A tenant-id in the configuration is used without a look-up."""
    world.log_in()
    world.fetch(credential="cli", tenant_id="example.com")
    assert "--tenant example.com" in world.arguments()
    assert "pkgs.dev.azure.com" not in world.hosts()


@pytest.mark.parametrize(
    "answer",
    [
        Answer(401, b"", {"WWW-Authenticate": 'Basic realm="https://pkgsprodweu0.pkgs.visualstudio.com/"'}),
        Answer(401, b"", {"WWW-Authenticate": "Bearer authorization_uri=https://login.windows.net.evil.example/x"}),
        Answer(401, b"", {"WWW-Authenticate": "Bearer authorization_uri=https://login.windows.net/--debug"}),
        Answer(503),
        fake.PORTAL,
    ],
    ids=["basic only", "foreign host", "invalid tenant", "fault", "portal"],
)
def test_a_host_that_names_no_tenant(world: World, answer: Answer) -> None:
    """The tenant lookup is optional: the token service is asked next, and an invalid name never becomes an argument."""
    world.log_in()
    world.cloud.faults["packages"] = saying(answer)
    check_session(world, world.fetch(credential="cli"))
    assert f"--tenant {world.cloud.tenant}" in world.arguments()


def test_without_a_tenant(world: World) -> None:
    """If the tenant is unknown, az decides."""
    world.log_in()
    world.cloud.faults["packages"] = saying(Answer(404))
    world.cloud.tenant = ""
    check_session(world, world.fetch(credential="cli"))
    assert "--tenant" not in world.arguments()


def test_a_shorter_life_is_used_if_a_long_one_is_refused(world: World) -> None:
    """After a 400 for the requested expiry, the organization's own is used."""
    world.log_in()
    world.cloud.session_limit = 8 * 3600
    assert 3.9 * 3600 < left(world.fetch(credential="cli")) <= 4 * 3600


@pytest.mark.parametrize("ahead", [-3600, 3600])
def test_the_expiry_is_on_our_clock(world: World, ahead: float) -> None:
    """Azure DevOps gives the expiry on its own clock, which is converted to ours."""
    world.log_in()
    world.cloud.session_limit, world.cloud.clock_ahead = 0, ahead
    fetched = world.fetch(credential="cli")
    assert 3.9 * 3600 < left(fetched) <= 4 * 3600 + 2
    assert fetched.skew == pytest.approx(-ahead, abs=5)


def test_entras_clock_is_compared_too(world: World) -> None:
    """Entra's response to an application shows the difference between the clocks; a tool's output does not."""
    world.environment()
    assert world.fetch(credential="environment").skew == 0
    world.cloud.clock_ahead = 600
    assert world.fetch(credential="environment").skew == pytest.approx(-600, abs=5)
    world.log_in()
    assert world.fetch(credential="cli", token="entra").skew is None


def test_a_person_may_have_the_entra_token(world: World) -> None:
    """With `token = "entra"` the token of az is delivered itself, without a request to Azure DevOps."""
    token = world.log_in()
    fetched = world.fetch(credential="cli", token="entra", tenant_id=world.cloud.tenant)
    assert fetched.password.reveal() == token
    assert (fetched.login, fetched.identity) == ("VssSessionToken", fake.PERSON)
    assert world.hosts() == []


def test_a_pat_is_delivered_as_it_is(world: World) -> None:
    """A personal access token is delivered as it is, also for a self-hosted server, and its expiry is unknown."""
    world.set(WORK_PAT=CANARY + "\n")
    fetched = world.fetch(pat=(("env", "WORK_PAT"),))
    assert (fetched.password.reveal(), fetched.login, fetched.expires_at) == (CANARY, "VssSessionToken", None)
    assert world.fetch(credential="pat", pat=(("env", "WORK_PAT"),)).password.reveal() == CANARY
    assert world.fetch("https://tfs.example", pat=(("env", "WORK_PAT"),)).password.reveal() == CANARY
    assert (fetched.login, world.fetch(username="acme", pat=(("env", "WORK_PAT"),)).login) == (
        "VssSessionToken",
        "acme",
    )
    assert world.hosts() == []


def test_a_pat_with_an_expiry(world: World) -> None:
    """The expiry comes from the configuration or from a pipeline's JWT, and the page that creates a new token is
    named."""
    world.set(WORK_PAT=CANARY)
    configured = world.fetch(pat=(("env", "WORK_PAT"),), expires="2099-12-31T00:00:00Z")
    assert configured.expires_at == datetime(2099, 12, 31, tzinfo=UTC)
    assert configured.renew is not None
    assert "https://dev.azure.com/sandbox/_usersSettings/tokens" in configured.renew
    assert world.fetch(pat=(("env", "WORK_PAT"),)).renew is None
    world.set(WORK_PAT=world.cloud.user_token())
    known = world.fetch(pat=(("env", "WORK_PAT"),))
    assert 0 < left(known) <= 3600
    assert known.identity == fake.PERSON
    assert known.renew is not None
    assert world.failure(pat=(("env", "WORK_PAT"),), expires="2020-01-01T00:00:00Z").reason == "expired"


# ------------------------------------------------------------------------------------------ an application's token


def check_entra(world: World, credential: Credential, client: str) -> None:
    token = credential.password.reveal()
    assert world.cloud.valid(token)
    assert world.cloud.kind(token) == "app"
    assert (credential.login, credential.identity) == ("VssSessionToken", client)
    assert "vssps.dev.azure.com" not in world.hosts()


@pytest.mark.parametrize("credential", ["environment", "default"])
def test_a_service_principal_keeps_its_entra_token(world: World, credential: str) -> None:
    """An application's Entra token is delivered itself, because it cannot get a session token."""
    client = world.environment()
    fetched = world.fetch(credential=credential)
    check_entra(world, fetched, client)
    assert 3500 < left(fetched) <= 3600


@pytest.mark.parametrize("credential", ["workload-identity", "default"])
def test_a_workload_identity(world: World, credential: str) -> None:
    """A federated token from a file is exchanged for an Entra token."""
    client = world.workload()
    check_entra(world, world.fetch(credential=credential), client)


@pytest.mark.parametrize("credential", ["managed-identity", "default"])
def test_a_managed_identity(world: World, credential: str) -> None:
    """A virtual machine's token is valid for a day, and the issuer's refresh time is passed on."""
    with machine(world) as server:
        fetched = world.fetch(credential=credential)
    check_entra(world, fetched, world.cloud.machine_clients[0])
    assert 86000 < left(fetched) <= 86400
    assert fetched.refresh_after is not None
    assert abs((fetched.refresh_after - datetime.now(UTC)) - timedelta(hours=12)) < timedelta(minutes=2)
    assert all(call.path == "/metadata/identity/oauth2/token" for call in server.calls)


def test_one_of_several_managed_identities(world: World) -> None:
    """client-id names a user-assigned identity."""
    world.cloud.machine_clients.append("22222222-2222-2222-2222-222222222222")
    with machine(world):
        fetched = world.fetch(credential="managed-identity", client_id=world.cloud.machine_clients[1])
    check_entra(world, fetched, world.cloud.machine_clients[1])


def test_none_of_several_managed_identities(world: World) -> None:
    """Without a client id, a machine with several identities cannot choose; the fix names the option."""
    world.cloud.machine_clients.append("22222222-2222-2222-2222-222222222222")
    world.cloud.machine_default = False
    with machine(world):
        for credential in ("managed-identity", "default"):
            failure = world.failure(credential=credential)
            assert (failure.kind, failure.reason) == ("rejected", "several-identities")
            assert 'client-id = "CLIENT-ID"' in (failure.hint or "")
        world.log_in()
        check_session(world, world.fetch())


def test_the_identity_of_app_service(world: World) -> None:
    """App Service has its own endpoint, which requires a header and is called without a proxy."""
    world.set(HTTP_PROXY="http://127.0.0.1:9", http_proxy="http://127.0.0.1:9")
    with Server(world.cloud.machine) as server:
        world.set(IDENTITY_ENDPOINT=f"{server.url}/msi/token", IDENTITY_HEADER=world.cloud.identity_header)
        fetched = world.fetch(credential="managed-identity")
    check_entra(world, fetched, world.cloud.machine_clients[0])


def test_az_may_be_logged_in_as_an_application(world: World) -> None:
    """The claims of the token determine whose it is, not the tool that returned it."""
    client = world.environment()
    token = world.fetch(credential="environment").password.reveal()
    world.tool("az", world.cloud.az_answer(token))
    check_entra(world, world.fetch(credential="cli", tenant_id=world.cloud.tenant), client)


def test_no_netrc_entry_is_ever_sent(world: World) -> None:
    """requests would send a netrc entry instead of our Bearer header, so our session ignores netrc."""
    world.log_in()
    netrc = world.home / "netrc"
    netrc.write_text(f"default login me password {CANARY}\n")
    netrc.chmod(0o600)
    world.set(NETRC=str(netrc))
    check_session(world, world.fetch(credential="cli"))
    authorizations = [call.headers.get("Authorization", "") for _, call in world.proxy.calls]
    assert not [text for text in authorizations if text.startswith("Basic")]


# ------------------------------------------------------------------------------------------- the credential chain


def test_the_first_configured_credential_decides(world: World) -> None:
    """A wrong secret in the environment is a failure although az is signed in: the identity never changes silently."""
    world.environment()
    world.set(AZURE_CLIENT_SECRET="wrong")
    world.log_in()
    assert world.failure().reason == "wrong-secret"


NO_MACHINE = [
    Answer.json({"error": "invalid_request", "error_description": "Identity not found"}, 400),
    Answer(403, b"connecting to 169.254.169.254:80: unreachable"),  # Docker Desktop (azure-identity ``imds.py``)
    Answer(302, b"", {"Location": "http://wlan.example/"}),
    fake.PORTAL,
]


@pytest.mark.parametrize("answer", NO_MACHINE, ids=["none assigned", "Docker Desktop", "redirect", "portal"])
def test_absent_credentials_are_skipped(world: World, answer: Answer) -> None:
    """If neither an application nor a managed identity is configured, az is used."""
    world.log_in()
    with machine(world, saying(answer)):
        check_session(world, world.fetch())


def test_a_faulty_identity_endpoint_decides(world: World) -> None:
    """A faulty identity endpoint is a failure, and az is not used instead."""
    world.log_in()
    with machine(world, saying(Answer(500))):
        failure = world.failure()
    assert (failure.kind, failure.reason) == ("transient", "server-error")


def test_the_environment_may_narrow_the_chain(world: World) -> None:
    """azure-identity's own variable AZURE_TOKEN_CREDENTIALS is honored."""
    world.environment()
    world.set(AZURE_TOKEN_CREDENTIALS="dev")
    world.log_in()
    check_session(world, world.fetch())
    world.set(AZURE_TOKEN_CREDENTIALS="nonsense")
    assert world.failure().reason == "bad-options"


def test_no_credential_at_all(world: World) -> None:
    """If no credential is configured, the fix is the sign-in command for the organization's tenant."""
    world.cloud.machine_clients.clear()
    with machine(world):
        failure = world.failure()
        assert (failure.kind, failure.reason) == ("login-required", "no-credentials")
        assert failure.hint == f"az login --tenant {world.cloud.tenant}"
        world.program("azd", "echo 'ERROR: not logged in, run `azd auth login` to login' >&2; exit 1\n")
        assert world.failure().hint == f"azd auth login --tenant-id {world.cloud.tenant}"


# ------------------------------------------------------------------------------------------------ Entra's errors


def entra(code: int, error: str = "invalid_client", status: int = 401) -> Answer:
    return fake.refusal(code, f"Something about {CANARY} and nobody's business.", error, status)


ENTRA: dict[str, tuple[Answer, str, str, str | None]] = {
    "wrong secret": (entra(7000215), "rejected", "wrong-secret", "az ad app credential reset --id {client}"),
    "expired secret": (entra(7000222), "rejected", "secret-expired", "az ad app credential reset --id {client}"),
    "unknown application": (entra(700016, "unauthorized_client", 400), "rejected", "no-such-application", None),
    "unknown tenant": (entra(90002, "invalid_request", 400), "rejected", "no-such-tenant", None),
    "disabled": (entra(7000112), "rejected", "application-disabled", None),
    "policy": (entra(53003, "access_denied", 400), "rejected", "conditional-access", None),
    "no Azure DevOps": (entra(500011, "invalid_resource", 400), "rejected", "no-azure-devops", None),
    "throttled": (entra(90055, "temporarily_unavailable", 400), "transient", "throttled", None),
    "policy, 403": (entra(53003, "access_denied", 403), "rejected", "conditional-access", None),
    "token protection": (entra(530084, "access_denied", 401), "rejected", "conditional-access", None),
    "token protection, 403": (entra(530084, "access_denied", 403), "rejected", "conditional-access", None),
    "unavailable": (entra(90033, "temporarily_unavailable", 400), "transient", "server-error", None),
    "unknown number": (entra(1234567), "rejected", "refused", None),
    "no number": (Answer.json({"error": "temporarily_unavailable"}, 400), "transient", "server-error", None),
    "fault": (Answer(500), "transient", "server-error", None),
    "throttled by status": (Answer(429, b"", {"Retry-After": "17"}), "transient", "throttled", None),
    "throttled with a body": (
        Answer.json({"error": "temporarily_unavailable", "error_codes": [90055]}, 429, Retry_After="17"),
        "transient",
        "throttled",
        None,
    ),
    "portal": (fake.PORTAL, "transient", "captive-portal", None),
    "redirect": (Answer(302, b"", {"Location": "http://wlan.example/"}), "transient", "captive-portal", None),
    "no JSON": (Answer(200, b"{", {"Content-Type": "application/json"}), "transient", "bad-answer", None),
    "no token": (Answer.json({"token_type": "Bearer"}), "transient", "bad-answer", None),
    "invalid JSON": (Answer.json([CANARY]), "transient", "bad-answer", None),
    "sign-up wanted": (Answer(511), "transient", "captive-portal", None),
}


@pytest.mark.parametrize("whole", [True, False], ids=["all calls", "token only"])
@pytest.mark.parametrize("case", ENTRA)
def test_errors_of_entra(world: World, case: str, whole: bool) -> None:
    """Each error of Entra for an application has one kind, one reason and at most one fix."""
    answer, kind, reason, hint = ENTRA[case]
    client = world.environment()
    twin = fake.AzureCloud()
    well = twin.sites["login.microsoftonline.com"]
    world.cloud.faults["login"] = lambda call: answer if whole or call.method == "POST" else well(call)
    failure = world.failure(credential="environment")
    assert (failure.kind, failure.reason) == (kind, reason)
    assert failure.hint == (hint.format(client=client) if hint else None)
    assert failure.retry_after == (17 if answer.status == 429 else None)


NO_NETWORK = (
    "HTTPSConnectionPool(host='login.microsoftonline.com', port=443): Max retries exceeded with url: /x "
    "(Caused by NewConnectionError('Name or service not known')). Try az login"
)
APP = "12345678-1234-1234-1234-123456789abc"
AZ: dict[str, tuple[str, str, str, str | None]] = {
    "not logged in": ("Please run 'az login' to setup account.", "login-required", "not-logged-in", ""),
    "factor": ("AADSTS50076: Due to a configuration change …", "login-required", "mfa-required", "scope"),
    "refresh token": ("AADSTS70043: The refresh token has expired", "login-required", "login-expired", ""),
    "inactive": ("AADSTS700082: expired due to inactivity. run: az login", "login-required", "login-expired", ""),
    "password": ("AADSTS50173: The provided grant has expired", "login-required", "login-expired", ""),
    "old assertion": ("AADSTS700024: Client assertion is not …", "login-required", "login-expired", ""),
    "consent": ("AADSTS65001: has not consented", "login-required", "interaction-required", "scope"),
    "not a guest": ("AADSTS50020: User account from identity provider …", "rejected", "no-such-user", ""),
    "policy": ("AADSTS53003: Access has been blocked", "rejected", "conditional-access", "scope"),
    "token protection": ("AADSTS530084: Access has been blocked", "rejected", "conditional-access", "scope"),
    "principal": (f"AADSTS7000222: … secret keys for app '{APP}' are", "rejected", "secret-expired", "principal"),
    "principal, unnamed": ("AADSTS7000222: …", "rejected", "secret-expired", "unnamed principal"),
    "unknown number": ("AADSTS1234567: hm", "login-required", "login-refused", ""),
    "no network": (NO_NETWORK, "transient", "unreachable", None),
    "certificate": ("[SSL: CERTIFICATE_VERIFY_FAILED] …", "transient", "untrusted-certificate", None),
    "anything": ("Traceback (most recent call last): …", "transient", "tool-failed", "version"),
}


@pytest.mark.parametrize("case", AZ)
def test_errors_of_az(world: World, case: str) -> None:
    """The error output of az is classified and not shown."""
    output, kind, reason, hint = AZ[case]
    (world.home / "output").write_text(f"ERROR: {output} {CANARY}\n")
    world.program("az", f"cat {world.home / 'output'} >&2; exit 1\n")
    failure = world.failure(credential="cli")
    login = f"az login --tenant {world.cloud.tenant}"
    principal = f"az login --service-principal --username {APP} --tenant {world.cloud.tenant}"
    commands = {
        "": login,
        "scope": f"{login} --scope {fake.RESOURCE}/.default",
        "version": "az version",
        "principal": principal,
        "unnamed principal": principal.replace(APP, "CLIENT-ID"),
        None: None,
    }
    assert (failure.kind, failure.reason, failure.hint) == (kind, reason, commands[hint])


@pytest.mark.parametrize(
    ("output", "reason", "hint"),
    [
        (
            "ERROR: not logged in, run `azd auth login` to login",
            "not-logged-in",
            "azd auth login --tenant-id example.com",
        ),
        (
            '{"error":"reauthentication required, run `azd auth login`"}',
            "not-logged-in",
            "azd auth login --tenant-id example.com",
        ),
        ('{"error":"AADSTS70043: expired"}', "login-expired", "azd auth login --tenant-id example.com"),
        (
            f"AADSTS7000222: The provided client secret keys for app '{APP}' are expired.",
            "secret-expired",
            f"azd auth login --client-id {APP} --client-secret '' --tenant-id example.com",
        ),
        ("dial tcp: lookup login.microsoftonline.com: no such host", "unreachable", None),
    ],
)
def test_azd_fails(world: World, output: str, reason: str, hint: str | None) -> None:
    """The error output of azd is classified and not shown."""
    (world.home / "said").write_text(f"{output} {CANARY}\n")
    world.program("azd", f"cat {world.home / 'said'} >&2; exit 1\n")
    failure = world.failure(credential="developer-cli", tenant_id="example.com")
    assert (failure.reason, failure.hint) == (reason, hint)


def test_there_is_no_az(world: World) -> None:
    """If az is missing or cannot be started, the failure says so."""
    failure = world.failure(credential="cli")
    assert (failure.kind, failure.reason) == ("rejected", "no-az")
    world.program("az", "")
    (world.home / "bin" / "az").write_text("#!/nonexistent/interpreter\n")
    assert world.failure(credential="cli").reason == "no-az"


@pytest.mark.parametrize(
    "output", ["", "hello", "[]", '{"accessToken": 7, "expires_on": 1}', f'{{"accessToken": "{CANARY}"}}']
)
def test_az_answers_no_token(world: World, output: str) -> None:
    """Invalid output of az is not used as a token and not shown."""
    world.tool("az", output)
    failure = world.failure(credential="cli")
    assert (failure.kind, failure.reason) in {("transient", "bad-answer"), ("transient", "unexpected")}


def test_az_answers_an_expired_token(world: World) -> None:
    """A tool may issue an expired token from its cache."""
    world.log_in(life=-10)
    assert world.failure(credential="cli").reason == "expired-on-arrival"


@pytest.mark.parametrize("credential", ["cli", "default"])
def test_az_hangs(world: World, credential: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hung az is a timeout, and no other tool is used instead."""
    monkeypatch.setattr(failures, "TOOL_TIMEOUT", 1)
    world.set(AZURE_TOKEN_CREDENTIALS="dev")
    world.program("az", "exec sleep 60\n")
    world.tool("azd", world.cloud.azd_answer(world.cloud.user_token()))
    failure = world.failure(credential=credential)
    assert (failure.kind, failure.reason) == ("transient", "timeout")


# ----------------------------------------------------------------------------------------- Azure DevOps' errors

TENANT_LOGIN = "az login --tenant {tenant}"
NETWORK = "connect to your company's network or VPN; if that does not help, send this sentence to your administrator"
SESSION: dict[str, tuple[Answer, str, str, str | None]] = {
    "never signed in": (
        fake.FIRST_SIGN_IN,
        "login-required",
        "first-sign-in",
        "open https://dev.azure.com/sandbox in a browser and sign in",
    ),
    "not a member": (
        fake.problem("TF400813: The user is not authorized."),
        "login-required",
        "token-refused",
        TENANT_LOGIN,
    ),
    "redirect to sign-in": (fake.SIGN_IN, "login-required", "token-refused", TENANT_LOGIN),
    "sign-in page": (fake.SIGN_IN_PAGE, "login-required", "token-refused", TENANT_LOGIN),
    "policy": (fake.problem(fake.POLICY), "rejected", "conditional-access", NETWORK),
    "policy, 403": (fake.problem(fake.POLICY, 403), "rejected", "conditional-access", NETWORK),
    "policy in a header": (
        Answer(403, b"", {"X-TFS-ServiceError": quote(fake.POLICY)}),
        "rejected",
        "conditional-access",
        NETWORK,
    ),
    "token protection": (
        fake.problem("AADSTS530084: Access has been blocked.", 403),
        "rejected",
        "conditional-access",
        NETWORK,
    ),
    "forbidden": (fake.problem("no", 403), "rejected", "forbidden", 'ask its administrator, or set token = "entra"'),
    "unknown organization": (Answer(404), "rejected", "no-such-organization", "open https://dev.azure.com/sandbox"),
    "bad request": (
        fake.problem("no", 400),
        "rejected",
        "refused",
        'set token = "entra" to use the Entra token itself',
    ),
    "fault": (Answer(503, b"", {"Retry-After": "30"}), "transient", "server-error", None),
    "throttled": (Answer(429), "transient", "throttled", None),
    "portal": (fake.PORTAL, "transient", "captive-portal", None),
    "redirect": (Answer(302, b"", {"Location": "http://wlan.example/"}), "transient", "captive-portal", None),
    "no token": (Answer.json({"displayName": CANARY}), "transient", "bad-answer", None),
    "line break": (Answer.json({"token": f"a\n{CANARY}"}), "transient", "bad-answer", None),
    "no JSON": (Answer(200, CANARY.encode()), "transient", "bad-answer", None),
    "past": (
        Answer.json({"token": CANARY, "validTo": "2020-01-01T00:00:00Z"}),
        "transient",
        "expired-on-arrival",
        None,
    ),
}


@pytest.mark.parametrize("case", SESSION)
def test_errors_of_azure_devops(world: World, case: str) -> None:
    """Each error of the exchange has one kind, one reason and at most one fix."""
    world.log_in()
    answer, kind, reason, hint = SESSION[case]
    world.cloud.faults["session"] = saying(answer)
    failure = world.failure(credential="cli")
    expected = hint.format(tenant=world.cloud.tenant) if hint else None
    assert (failure.kind, failure.reason, failure.hint) == (kind, reason, expected)


@pytest.mark.parametrize("status", [401, 403])
def test_the_message_of_a_policy_is_shown(world: World, status: int) -> None:
    """Only Azure DevOps knows which condition failed, so its message is shown, whatever the status."""
    world.log_in()
    world.cloud.faults["session"] = saying(fake.problem(fake.POLICY, status))
    message = world.failure(credential="cli").message
    assert fake.POLICY in message
    assert "sandbox" in message


@pytest.mark.parametrize("end", [None, 7, "soon"])
def test_an_unknown_expiry(world: World, end: object) -> None:
    """If neither the response nor the token names an expiry, it is unknown, and the token is fetched again soon."""
    world.log_in()
    world.cloud.faults["session"] = saying(Answer.json({"token": "abc", "validTo": end}))
    assert world.fetch(credential="cli").expires_at is None
    token = world.cloud.user_token(life=7200)  # any JWT works
    world.cloud.faults["session"] = saying(Answer.json({"token": token, "validTo": end}))
    assert 7100 < left(world.fetch(credential="cli")) <= 7200


def test_an_organization_of_a_personal_account(world: World) -> None:
    """An organization of a personal account accepts no Entra token, so the fix is a personal access token."""
    world.log_in()
    world.cloud.personal = True
    failure = world.failure(credential="cli")
    assert (failure.kind, failure.reason) == ("rejected", "personal-organization")
    assert "pat" in (failure.hint or "")


def test_a_redirect_is_not_followed(world: World) -> None:
    """The Entra token is sent only to the organization's own token service, not to the target of a redirect."""
    token = world.log_in()
    reached: list[Call] = []
    sites = dict(world.cloud.sites)
    sites["evil.example"] = lambda call: reached.append(call) or Answer()  # type: ignore[func-returns-value]
    world.proxy.sites = sites
    world.cloud.faults["session"] = saying(Answer(307, b"", {"Location": "https://evil.example/"}))
    world.failure(credential="cli")
    assert not reached
    sent = {host for host, call in world.proxy.calls if token in call.headers.get("Authorization", "")}
    assert sent == {"vssps.dev.azure.com"}


@pytest.mark.parametrize(
    "service",
    [
        "https://pkgs.dev.azure.com.evil.example/sandbox",
        "https://pkgs.dev.azure.com@evil.example/sandbox",
        "https://pkgs.dev.azure.com/a/b",
        "https://pkgs.dev.azure.com/..",
        "https://pkgs.dev.azure.com/",
        "https://evil.example/#.pkgs.visualstudio.com",
        "https://x.y.pkgs.visualstudio.com",
        "http://pkgs.dev.azure.com/sandbox",
        "https://index.example/simple/",
        "",
    ],
)
def test_a_token_is_sent_to_no_other_host(world: World, service: str) -> None:
    """The whole host must match before any token is requested."""
    world.log_in()
    assert world.failure(service, credential="cli").reason == "bad-url"
    assert world.hosts() == []


def test_a_session_token_for_an_application(world: World) -> None:
    """An application cannot get a session token. If the configuration demands one, the fix removes that line."""
    world.environment()
    failure = world.failure(credential="environment", token="session")
    assert (failure.kind, failure.reason) == ("rejected", "token-refused")
    assert 'token = "session"' in (failure.hint or "")


# --------------------------------------------------------------------------------------------- a machine's identity

MACHINE: dict[str, tuple[Answer, str, str]] = {
    "none assigned": (
        Answer.json({"error": "invalid_request", "error_description": "Identity not found"}, 400),
        "rejected",
        "no-identity",
    ),
    "not ready": (Answer(410), "transient", "server-error"),
    "not found": (Answer(404), "transient", "server-error"),
    "throttled": (Answer(429), "transient", "throttled"),
    "fault": (Answer(500), "transient", "server-error"),
    "portal": (fake.PORTAL, "rejected", "no-identity"),
    "redirect": (Answer(302, b"", {"Location": "http://wlan.example/"}), "rejected", "no-identity"),
    "wrong header": (Answer.json({"statusCode": 401}, 401), "rejected", "refused"),
    "no JSON": (Answer(200, b"hello"), "rejected", "no-identity"),
    "Docker Desktop": (Answer(403, b"connecting to 169.254.169.254:80: unreachable"), "rejected", "no-identity"),
}


@pytest.mark.parametrize("case", MACHINE)
def test_the_identity_endpoint_fails(world: World, case: str) -> None:
    """Each error of the identity endpoint has one kind and one reason, and the request is not repeated."""
    answer, kind, reason = MACHINE[case]
    with machine(world, saying(answer)) as server:
        failure = world.failure(credential="managed-identity")
    assert (failure.kind, failure.reason) == (kind, reason)
    assert len(server.calls) == 1


def test_an_unreachable_identity_endpoint(world: World) -> None:
    """An identity endpoint that is configured but unreachable may start later, so the failure is transient."""
    with Server(saying(Answer())) as server:
        gone = server.url
    world.set(AZURE_POD_IDENTITY_AUTHORITY_HOST=gone)
    for credential in ("managed-identity", "default"):
        failure = world.failure(credential=credential)
        assert (failure.kind, failure.reason) == ("transient", "unreachable")


# ------------------------------------------------------------------------------------------------ the configuration


def test_missing_environment_variables(world: World) -> None:
    """The failure names the variables that are not set."""
    world.set(AZURE_CLIENT_ID="11111111-1111-1111-1111-111111111111")
    failure = world.failure(credential="environment")
    assert (failure.kind, failure.reason) == ("rejected", "not-configured")
    assert "AZURE_TENANT_ID" in failure.message
    assert "AZURE_CLIENT_SECRET" in failure.message
    assert world.failure(credential="workload-identity").reason == "not-configured"


def test_a_missing_file(world: World) -> None:
    """A missing token or certificate file is named, although azure-identity raises built-in exceptions."""
    world.workload()
    world.set(AZURE_FEDERATED_TOKEN_FILE=str(world.home / "nothing"))
    failure = world.failure(credential="workload-identity")
    assert (failure.kind, failure.reason) == ("rejected", "missing-file")
    assert "nothing" in failure.message
    world.set(AZURE_CLIENT_CERTIFICATE_PATH=str(world.home / "absent.pem"))
    for credential in ("environment", "default"):
        assert world.failure(credential=credential).reason == "missing-file"
    (world.home / "absent.pem").write_text(CANARY)
    assert world.failure(credential="environment").reason == "bad-certificate"


def test_an_old_assertion(world: World) -> None:
    """Kubernetes replaces an expired assertion by itself, so the failure is transient."""
    world.workload()
    world.cloud.assertions.clear()
    failure = world.failure(credential="workload-identity")
    assert (failure.kind, failure.reason) == ("transient", "assertion-expired")


@pytest.mark.parametrize(
    "options",
    [
        {"credential": "pat"},
        {"credential": "cli", "pat": (("env", "X"),)},
        {"credential": "cli", "client_id": "x"},
        {"credential": "environment", "client_id": "x"},
        {"credential": "magic"},
        {"credential": "cli", "access": "all"},
        {"credential": "cli", "token": "entra", "access": "read"},
        {"pat": (("env", "X"),), "access": "read"},
        {"credential": "cli", "expires": "2099-12-31T00:00:00Z"},
        {"tenant_id": "a b"},
        {"tenant_id": "--debug"},
        {"client_id": 7, "credential": "managed-identity"},
    ],
)
def test_incompatible_options(world: World, options: dict[str, str]) -> None:
    """Incompatible options are refused before any token is requested."""
    world.log_in()
    assert world.failure(**options).reason == "bad-options"
    assert world.hosts() == []


# ------------------------------------------------------------------------------------------------------ the network


def test_a_refused_connection(world: World) -> None:
    """A refused connection is reported as such, although azure-identity calls it a failed authentication."""
    world.environment()
    with socket.create_server(("127.0.0.1", 0)) as closed:
        gone = f"http://127.0.0.1:{closed.getsockname()[1]}"
    world.set(HTTPS_PROXY=gone)
    failure = world.failure(credential="environment")
    assert (failure.kind, failure.reason) == ("transient", "unreachable")
    world.log_in()
    assert world.failure(credential="cli").reason == "unreachable"


def test_a_proxy_that_refuses_a_host(world: World) -> None:
    """A host that the proxy refuses is unreachable."""
    world.log_in()
    sites = dict(world.cloud.sites)
    del sites["vssps.dev.azure.com"]
    world.proxy.sites = sites
    assert world.failure(credential="cli").reason == "unreachable"


def test_an_untrusted_certificate(world: World) -> None:
    """An untrusted certificate is distinguished from an unreachable network."""
    world.patch.delenv("REQUESTS_CA_BUNDLE")
    world.environment()
    assert world.failure(credential="environment").reason == "untrusted-certificate"
    world.log_in()
    assert world.failure(credential="cli").reason == "untrusted-certificate"


def test_a_missing_ca_bundle(world: World) -> None:
    """A missing CA bundle is reported, although requests raises a built-in exception."""
    world.set(REQUESTS_CA_BUNDLE=str(world.home / "nothing.pem"))
    world.environment()
    failure = world.failure(credential="environment")
    assert (failure.kind, failure.reason) == ("rejected", "ca-bundle")


@pytest.mark.parametrize("endpoint", ["login", "session", "machine"])
def test_a_server_that_never_answers(world: World, endpoint: fake.Endpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    """Our timeouts apply to every call, including those of azure-core, whose own timeout is 300 s."""
    monkeypatch.setattr(transport, "TIMEOUT", (0.5, 0.5))
    monkeypatch.setattr(transport, "MACHINE_TIMEOUT", (0.5, 0.5))
    over = threading.Event()

    def hang(_: Call) -> Answer:
        over.wait(30)
        return Answer(503)

    world.cloud.faults[endpoint] = hang
    try:
        with machine(world):
            if endpoint == "login":
                world.environment()
            world.log_in()
            how = {"login": "environment", "session": "cli"}.get(endpoint, "managed-identity")
            failure = world.failure(credential=how)
    finally:
        over.set()
    assert (failure.kind, failure.reason) == ("transient", "timeout")


# ------------------------------------------------------------------------------------------------------- the secrets


def test_no_secret_in_any_log(
    world: World, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    """With every log level on, nothing is logged, and no token, secret or assertion is printed."""
    caplog.set_level(logging.DEBUG)
    logging.debug("the log is on")
    world.environment()
    world.fetch(credential="environment")
    world.workload()
    world.fetch(credential="workload-identity")
    world.log_in()
    world.fetch(credential="cli")
    with machine(world):
        world.fetch(credential="managed-identity")
    world.tool("az", f'{{"accessToken": "{CANARY}", "expires_on": 7}}')
    world.failure(credential="cli")
    world.program("az", f"echo {CANARY} >&2; exit 1\n")
    world.failure(credential="cli")
    printed = capfd.readouterr()
    assert caplog.messages == ["the log is on"]
    world.check_quiet(printed.out + printed.err)
    assert len(world.cloud.issued()) == 5


def test_in_a_worker(world: World) -> None:
    """The worker prints one line, the credential or the failure, and nothing else."""
    client = world.environment()
    for options, good in (({"credential": "environment"}, True), ({"credential": "workload-identity"}, False)):
        env = {
            **os.environ,
            "UVTOKEND_REQUEST": wire.encode_request(asked(**options)),
            "UVTOKEND_FETCH_TIMEOUT": "60",
        }
        command = [sys.executable, "-P", "-m", "uvtokend.providers.worker"]
        done = subprocess.run(command, env=env, stdin=subprocess.DEVNULL, capture_output=True, timeout=60, check=True)
        outcome = wire.decode_answer(done.stdout)
        assert done.stderr == b""
        assert isinstance(outcome, Credential if good else Failure)
        if isinstance(outcome, Credential):
            check_entra(world, outcome, client)

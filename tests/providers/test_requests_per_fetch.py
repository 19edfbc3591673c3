"""How many requests a fetch makes, since each is a round trip."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest

from bench.fetching import WORKER
from bench.front import Responder
from bench.processes import run
from bench.three_clouds import ThreeClouds
from clouds import gitlab_world, jfrog, jfrog_world
from uvtokend.core import wire
from uvtokend.core.model import Credential
from uvtokend.sandbox.web import Answer, Call, Server
from uvtokend.testing.contract import asked

#: Provider -> method and path of each request of one fetch, for the sign-ins of `ThreeClouds`.
REQUESTS = {
    "aws-codeartifact": ["POST / (GetCallerIdentity)", "POST /v1/authorization-token"],
    "google-artifact-registry": ["POST /token"],
    "azure-artifacts": ["GET /TENANT/v2.0/.well-known/openid-configuration", "POST /TENANT/oauth2/v2.0/token"],
}


@pytest.fixture
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ThreeClouds]:
    """Run three clouds, and a machine that is signed in to all of them."""
    with ThreeClouds(tmp_path_factory.mktemp("w")) as world:
        yield world


def _recording(respond: Responder, requests: list[str], tenant: str) -> Responder:
    def answer(head: bytes, body: bytes) -> bytes:
        method, target, _ = head.decode().split(" ", 2)
        requests.append(f"{method} {target.partition('?')[0]}".replace(tenant, "TENANT"))
        return respond(head, body)

    return answer


@pytest.mark.parametrize("provider", REQUESTS)
def test_a_fetch_makes_only_necessary_requests(provider: str, world: ThreeClouds) -> None:
    """A real worker with the real SDK requests the token, and only what no other response contains."""
    requests: list[str] = []
    hosts, tenant = world.front.hosts, world.azure.tenant
    hosts |= {host: _recording(respond, requests, tenant) for host, respond in hosts.items()}
    request = {"UVTOKEND_REQUEST": wire.encode_request(asked(world.tables[provider])), "UVTOKEND_FETCH_TIMEOUT": "60"}
    answer = run(WORKER, world.machine.environment | request)
    assert answer.lstrip().startswith('{"credential"')
    for call in world.aws.server.calls:
        action = f" ({call.form()['Action']})" if call.path == "/" else ""
        requests += [f"{call.method} {call.path}{action}"]
    assert sorted(requests) == REQUESTS[provider]


def calls_of(worker: subprocess.Popen[bytes], calls: Iterable[Call]) -> list[str]:
    """Return method and path of each request of a fetch, after checking that it succeeded."""
    outcome = wire.decode_answer(worker.communicate(timeout=60)[0].rstrip())
    assert isinstance(outcome, Credential)
    return [f"{call.method} {call.path}" for call in calls]


def refreshed(world: jfrog_world.World) -> None:
    world.plant()


def refreshed_alone(world: jfrog_world.World) -> None:
    world.platform.wants_proof = False
    world.plant(with_access=False)


def exchanged(world: jfrog_world.World) -> None:
    subject = jfrog.jwt("ci@example.com", time.time(), time.time() + 600)
    world.platform.subjects[subject] = "robot"
    world.options = {"oidc-provider": "ci", "oidc-token": world.keep("subject", subject)}


def accessed(world: jfrog_world.World) -> None:
    world.options = {"access-token": world.keep("access", world.platform.pair()[0])}


def with_password(world: jfrog_world.World) -> None:
    world.options = {"username": "person", "password": world.keep("password", "pass word")}


@pytest.mark.parametrize(
    ("prepare", "requests"),
    [
        (refreshed, ["POST /access/api/v1/tokens"]),
        (refreshed_alone, ["POST /access/api/v1/tokens"]),
        (exchanged, ["POST /access/api/v1/oidc/token"]),
        (accessed, []),
        (with_password, []),
    ],
)
def test_a_fetch_from_jfrog_makes_one_request(
    prepare: Callable[[jfrog_world.World], None],
    requests: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A refresh or an exchange is one request; an access token and a password are only read."""
    with jfrog_world.loopback_world(tmp_path, monkeypatch) as world:
        prepare(world)
        assert calls_of(world.worker(), world.platform.server.calls) == requests


def personal(world: gitlab_world.World) -> None:
    world.options = {"token": world.keep(world.cloud.personal())}


def rotation_that_waits(world: gitlab_world.World) -> None:
    world.plant()


def rotation_that_is_due(world: gitlab_world.World) -> None:
    world.plant(90, 85)


def of_deploying(world: gitlab_world.World) -> None:
    world.options = {"token": world.keep("deploy-secret"), "kind": "deploy", "username": "gitlab+deploy-token-1"}


def of_job(world: gitlab_world.World) -> None:
    world.options = {"token": world.keep("job-secret"), "kind": "job"}


ABOUT = "GET /api/v4/personal_access_tokens/self"


@pytest.mark.parametrize(
    ("prepare", "requests"),
    [
        (personal, [ABOUT]),
        (rotation_that_waits, [ABOUT]),
        (rotation_that_is_due, [ABOUT, "POST /api/v4/personal_access_tokens/self/rotate"]),
        (of_deploying, []),
        (of_job, []),
    ],
)
def test_a_fetch_from_gitlab_asks_about_the_token(
    prepare: Callable[[gitlab_world.World], None],
    requests: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One request returns the expiry of a personal token, and a second one rotates it. Other kinds are only read."""
    with gitlab_world.loopback_world(tmp_path, monkeypatch) as world:
        prepare(world)
        assert calls_of(world.worker(), world.cloud.server.calls) == requests


def test_a_fetch_for_nexus_makes_no_request(tmp_path: Path) -> None:
    """User name and password are only read: the worker asks neither the server of the index nor a proxy."""
    secret = tmp_path / "password"
    secret.write_text("password\n")
    with Server(lambda _: Answer.json({}, 404)) as server:
        table = (
            f'url = "{server.url}/repository/pypi/simple/"\nname = "corp"\nprovider = "nexus"\nusername = "me"\n'
            f'password = {{ file = "{secret}" }}\n'
        )
        proxies = dict.fromkeys(("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY"), server.url)
        request = {"UVTOKEND_REQUEST": wire.encode_request(asked(table)), "UVTOKEND_FETCH_TIMEOUT": "60"}
        environment = {"HOME": str(tmp_path), **proxies, **request}
        worker = subprocess.Popen(WORKER, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
        assert calls_of(worker, server.calls) == []

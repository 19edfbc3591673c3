"""How many requests a fetch makes, since each is a round trip."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from bench.fetching import WORKER
from bench.front import Responder
from bench.processes import run
from bench.three_clouds import ThreeClouds
from uvtokend.core import wire
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
    assert answer.startswith('{"credential"')
    for call in world.aws.server.calls:
        action = f" ({call.form()['Action']})" if call.path == "/" else ""
        requests += [f"{call.method} {call.path}{action}"]
    assert sorted(requests) == REQUESTS[provider]

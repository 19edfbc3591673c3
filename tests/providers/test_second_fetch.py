"""A second fetch in the same worker, with the real SDKs: it does what the first one does, and sees what has changed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from bench.front import Responder
from bench.three_clouds import ThreeClouds
from clouds.google import PROJECT
from uvtokend.core import wire
from uvtokend.core.model import Credential, Request
from uvtokend.testing.contract import asked


@pytest.fixture
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ThreeClouds]:
    """Run three clouds, and a machine that is signed in to all of them."""
    with ThreeClouds(tmp_path_factory.mktemp("w")) as world:
        yield world


def fetches(
    world: ThreeClouds, requests: list[Request], between: Callable[[], None] = lambda: None
) -> list[Credential]:
    """Fetch several times in one worker, and return the credentials.

    Args:
        world: The clouds and the machine.
        requests: What is fetched.
        between: Called after each fetch.
    """
    theirs, ours = os.pipe()
    more = {"UVTOKEND_ORDERS": str(theirs), "UVTOKEND_FETCH_TIMEOUT": "60"}
    environment = {**world.machine.environment, **more, "UVTOKEND_REQUEST": wire.encode_request(requests[0])}
    command = [sys.executable, "-P", "-m", "uvtokend.providers.worker"]
    credentials = []
    with subprocess.Popen(
        command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, pass_fds=(theirs,)
    ) as process:
        os.close(theirs)
        assert process.stdout is not None
        try:
            for number in range(len(requests)):
                if number:
                    os.write(ours, wire.encode_order(requests[number], 60.0))
                outcome, again = wire.decode_reply(process.stdout.readline())
                assert isinstance(outcome, Credential)
                assert again
                credentials.append(outcome)
                between()
        finally:
            os.close(ours)
    assert process.returncode == 0
    return credentials


@pytest.mark.parametrize("provider", ["aws-codeartifact", "google-artifact-registry", "azure-artifacts"])
def test_a_second_fetch_makes_the_same_requests(provider: str, world: ThreeClouds) -> None:
    """No SDK answers the second fetch from a cache: it makes the same requests as the first, and gets a new token."""
    requests: list[str] = []

    def recording(respond: Responder) -> Responder:
        def answer(head: bytes, body: bytes) -> bytes:
            requests.append(head.decode().partition(" HTTP/")[0])
            return respond(head, body)

        return answer

    world.front.hosts |= {host: recording(respond) for host, respond in world.front.hosts.items()}
    rounds: list[list[str]] = []

    def note() -> None:
        calls = world.aws.server.calls
        rounds.append(sorted([*requests, *(f"{call.method} {call.path}" for call in calls)]))
        requests.clear()
        calls.clear()

    request = asked(world.tables[provider])
    credentials = fetches(world, [request] * 3, note)
    assert rounds[0] == rounds[1] == rounds[2] != []
    assert len({credential.password.reveal() for credential in credentials}) == 3


def test_a_changed_google_file_is_seen(world: ThreeClouds) -> None:
    """If the identity of the sign-in changes between two fetches of a worker, the second fetch is for the new one."""
    request = asked(world.tables["google-artifact-registry"])
    file = Path(str(request.option("credentials-file")))
    names = iter(("second", "third"))

    def sign_in() -> None:
        name = f"{next(names)}@{PROJECT}.iam.gserviceaccount.com"
        file.write_text(json.dumps(world.google.service_account(name)))

    first, second = fetches(world, [request] * 2, sign_in)
    assert first.identity != second.identity == f"second@{PROJECT}.iam.gserviceaccount.com"


def test_changed_aws_files_are_seen(world: ThreeClouds) -> None:
    """If the keys of a profile change between two fetches of a worker, the second one uses the new keys."""
    credentials = world.machine.home / "credentials"
    environment = world.machine.environment
    environment["AWS_SHARED_CREDENTIALS_FILE"] = str(credentials)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        del environment[name]
    used: list[set[str]] = []
    keys = iter(("AKIASECOND", "AKIATHIRD"))

    def write(key: str) -> None:
        credentials.write_text(f"[default]\naws_access_key_id = {key}\naws_secret_access_key = example\n")

    def sign_in() -> None:
        calls = world.aws.server.calls
        used.append({call.headers["Authorization"].partition("Credential=")[2].partition("/")[0] for call in calls})
        calls.clear()
        write(next(keys))

    write("AKIAFIRST")
    fetches(world, [asked(world.tables["aws-codeartifact"])] * 2, sign_in)
    assert used == [{"AKIAFIRST"}, {"AKIASECOND"}]


@pytest.mark.parametrize("provider", ["aws-codeartifact", "google-artifact-registry", "azure-artifacts"])
def test_many_fetches_fill_no_memory(provider: str, world: ThreeClouds) -> None:
    """Twenty fetches leave no more memory in a worker than a few: what an SDK leaves behind is collected."""
    sizes: list[int] = []

    def look() -> None:
        worker = psutil.Process().children()[-1]
        sizes.append(worker.memory_info().rss)

    fetches(world, [asked(world.tables[provider])] * 20, look)
    assert sizes[-1] < sizes[2] + (4 << 20)

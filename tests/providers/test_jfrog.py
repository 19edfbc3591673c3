"""jfrog-artifactory, over real HTTP with a loopback platform where a refresh token works once."""

from __future__ import annotations

import base64
import json
import signal
import socket
import stat
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from clouds import jfrog as fake
from clouds.jfrog_world import CANARY, World, loopback_world, outcome
from clouds.tls import TlsProxy
from support.waiting import until
from uvtokend.core.model import Credential, Failure, Secret
from uvtokend.providers import worker
from uvtokend.providers.jfrog import refresh_chain
from uvtokend.providers.kit import once
from uvtokend.sandbox.web import Answer, Call, Server

HOUR = timedelta(hours=1)
FUTURE = datetime(2099, 1, 31, 8, 0, tzinfo=UTC)


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    with loopback_world(tmp_path, monkeypatch) as created:
        yield created


Setting = Callable[[World], None]


def password(world: World) -> None:
    world.platform.passwords["person"] = "pass word"
    world.options = {"username": "person", "password": world.keep("password", "pass word")}


def access(world: World) -> None:
    world.options = {"access-token": world.keep("access", world.platform.pair()[0])}


def reference(world: World) -> None:
    world.platform.reference = True
    access(world)


def refresh(world: World) -> None:
    world.plant()


def oidc(world: World) -> None:
    subject = fake.jwt("ci@example.com", time.time(), time.time() + 600)
    world.platform.subjects[subject] = "robot"
    world.options = {"oidc-provider": "ci", "oidc-token": world.keep("subject", subject)}


def named(*steps: Setting) -> Setting:
    """Set something up, with a user name in the configuration."""

    def run(world: World) -> None:
        for step in steps:
            step(world)
        world.options["username"] = "person"

    return run


def jf(world: World, **members: object) -> None:
    """Sign jf in to the platform, with these members of a server in its configuration file (jfrog-cli-core
    ``config.go``)."""
    server = {"serverId": "acme", "url": f"{world.platform.url}/", "isDefault": True, **members}
    other = {"serverId": "other", "url": "https://other.example/", "accessToken": CANARY}
    world.jf({"servers": [other, server], "version": "6"})
    world.options = {"source": "jf"}


def jf_token(world: World) -> None:
    access, refresh = world.platform.pair()
    jf(world, user="person", accessToken=access, refreshToken=refresh)


def jf_password(world: World) -> None:
    world.platform.passwords["person"] = "pass word"
    jf(world, user="person", password="pass word")


#: The setup, the login, the identity, and whether the expiry is known.
WAYS: dict[str, tuple[Setting, str, str | None, bool]] = {
    "password": (password, "person", "person", False),
    "access token": (access, "person", "person", True),
    "access token, named": (named(access), "person", "person", True),
    "reference token": (reference, "", None, False),
    "reference token, named": (named(reference), "person", "person", False),
    "refresh token": (refresh, "person", "person", True),
    "refresh token, named": (named(refresh), "person", "person", True),
    "OIDC": (oidc, "robot", "robot", True),
    "jf, token": (jf_token, "person", "person", True),
    "jf, password": (jf_password, "person", "person", False),
}


@pytest.mark.parametrize("way", WAYS)
def test_every_way(world: World, way: str) -> None:
    """Each way to sign in gives a credential that Artifactory accepts, with its login and its expiry."""
    prepare, login, identity, ends = WAYS[way]
    prepare(world)
    credential = world.fetch()
    assert world.platform.valid(credential.login, credential.password.reveal())
    assert (credential.login, credential.identity) == (login, identity)
    assert (credential.expires_at is not None) == ends
    if credential.expires_at is not None:
        assert abs(credential.expires_at - credential.issued_at - HOUR) < timedelta(seconds=60)


def test_an_access_token_is_only_read(world: World) -> None:
    """No request is sent, a replaced token is noticed, and the credential says what to do before it expires."""
    access(world)
    credential = world.fetch()
    assert credential.renew == f"put a new access token into the file {world.home / 'access'}"
    other, _ = world.platform.pair()
    world.keep("access", other)
    assert world.fetch().password.reveal() == other
    assert world.platform.server.calls == []


@pytest.mark.parametrize(
    ("subject", "login", "identity"),
    [
        ("jfrt@01abc/users/me@example.com", "me@example.com", "me@example.com"),
        ("jfrt@01abc/users/a/b", "a/b", "a/b"),
        ("jfrt@01abc/users/a:b", "", "jfrt@01abc/users/a:b"),
        ("jfrt@01abc/users/", "", "jfrt@01abc/users/"),
        ("jfxr@01abc", "", "jfxr@01abc"),
        ("a\nb", "", None),
        (7, "", None),
    ],
)
def test_the_user_of_a_token(world: World, subject: Any, login: str, identity: str | None) -> None:
    """The login is the user in the token, or empty, which Artifactory accepts."""
    claims = base64.urlsafe_b64encode(json.dumps({"sub": subject}).encode()).decode().rstrip("=")
    world.options = {"access-token": world.keep("access", f"e30.{claims}.x")}
    credential = world.fetch()
    assert (credential.login, credential.identity, credential.expires_at) == (login, identity, None)


@pytest.mark.parametrize("invalid", ["x", "x.y.z", "e30.e30.x", "e30.WzFd.x", "e30._w.x"])
def test_a_token_without_claims(world: World, invalid: str) -> None:
    """A token that is not a JWT, or a JWT without an expiry, has no known expiry."""
    world.options = {"access-token": world.keep("access", invalid)}
    assert (world.fetch().expires_at, world.fetch().login) == (None, "")


def test_over_tls_and_through_a_proxy(world: World) -> None:
    """A cloud platform is contacted over TLS, with the environment's CA bundle and proxy."""
    world.plant()
    world.service = "https://acme.jfrog.io"
    with TlsProxy({"acme.jfrog.io": world.platform.server.site}) as proxy:
        world.patch.setenv("HTTPS_PROXY", proxy.url)
        world.patch.setenv("REQUESTS_CA_BUNDLE", proxy.ca_file)
        assert world.platform.valid("person", world.fetch().password.reveal())
        assert [(host, call.path) for host, call in proxy.calls] == [("acme.jfrog.io", fake.TOKENS)]


def test_below_a_prefix(world: World) -> None:
    """A self-hosted platform may be below a path of its host."""
    world.plant()
    world.service = f"{world.platform.url}/tools"
    site = world.platform.server.site

    def below(call: Call) -> Answer:
        moved = replace(call, path=call.path.removeprefix("/tools"))
        return Answer(404) if moved == call else site(moved)

    world.platform.server.site = below
    assert world.platform.valid("person", world.fetch().password.reveal())


# ------------------------------------------------------------------------------------------------------ the expiry


@pytest.mark.parametrize("prepare", [refresh, oidc], ids=lambda prepare: prepare.__name__)
@pytest.mark.parametrize(
    ("tells_life", "opaque", "life", "known"),
    [
        (True, False, 3600, True),
        (False, False, 3600, True),
        (True, True, 3600, True),
        (False, True, 3600, False),
        (True, False, None, False),
        (False, True, None, False),
    ],
)
def test_the_expiry_of_a_new_token(
    world: World, prepare: Setting, tells_life: bool, opaque: bool, life: float | None, known: bool
) -> None:
    """The expiry comes from expires_in or the JWT's exp, converted to our clock. Without both it is unknown."""
    platform = world.platform
    platform.tells_life, platform.reference, platform.life, platform.clock_ahead = tells_life, opaque, life, 5000
    prepare(world)
    credential = world.fetch()
    assert (credential.expires_at is not None) == known
    assert credential.skew is not None
    assert abs(credential.skew + 5000) < 60
    if credential.expires_at is not None:
        assert abs(credential.expires_at - datetime.now(UTC) - HOUR) < timedelta(seconds=60)


@pytest.mark.parametrize(("expires_in", "hours"), [(None, 1), (0, 1), (1800, 0.5), ("1800", 0.5), (7200, 1)])
def test_an_earlier_expires_in(world: World, expires_in: Any, hours: float) -> None:
    """The earlier of the two expiries counts; 0 means that the token has no expiry of its own (jfrog-client-go)."""
    oidc(world)
    token = fake.jwt("robot", time.time(), time.time() + 3600)
    world.platform.fault = lambda _: Answer.json({"access_token": token, "expires_in": expires_in})
    credential = world.fetch()
    assert credential.expires_at is not None
    assert abs(credential.expires_at - datetime.now(UTC) - hours * HOUR) < timedelta(seconds=60)


#: Invalid expiries, and the reason of the failure.
NO_ENDS = [
    (-5, "expired-on-arrival"),
    (float("nan"), "bad-answer"),
    (float("inf"), "bad-answer"),
    (1e30, "bad-answer"),
    (10**400, "bad-answer"),
    ("soon", "bad-answer"),
    (True, "bad-answer"),
    ([], "bad-answer"),
]


@pytest.mark.parametrize(("expires_in", "reason"), NO_ENDS, ids=str)
def test_an_invalid_expiry(world: World, expires_in: Any, reason: str) -> None:
    """A token with an invalid expiry is refused, because without an expiry it would be delivered forever."""
    oidc(world)
    world.platform.fault = lambda _: Answer.json({"access_token": fake.reference(), "expires_in": expires_in})
    failure = world.failure()
    assert (failure.kind, failure.reason) == ("transient", reason)


@pytest.mark.parametrize("exp", [-5, 5, float("nan"), 1e30, "soon"], ids=str)
def test_a_jwt_with_an_invalid_expiry(world: World, exp: Any) -> None:
    """The same holds for a JWT's own expiry, in the configuration and in a response. The value 5 is in 1970."""
    claims = base64.urlsafe_b64encode(json.dumps({"sub": "x", "exp": exp}).encode()).decode().rstrip("=")
    token = f"e30.{claims}.x"
    world.options = {"access-token": world.keep("access", token)}
    assert world.failure().reason in {"expired", "bad-answer"}
    oidc(world)
    world.platform.fault = lambda _: Answer.json({"access_token": token})
    assert world.failure().reason in {"expired-on-arrival", "bad-answer"}


@pytest.mark.parametrize(("expires_in", "reason"), NO_ENDS, ids=str)
def test_an_invalid_expiry_does_not_lose_the_chain(world: World, expires_in: Any, reason: str) -> None:
    """The old refresh token is used up, so the new one is stored even if the response is otherwise invalid."""
    world.plant()
    world.fetch()
    site = world.platform.server.site

    def damaged(call: Call) -> Answer:
        body = json.loads(site(call).body)
        return Answer.json({**body, "expires_in": expires_in})

    world.platform.server.site = damaged
    assert world.failure().reason == reason
    world.platform.server.site = site
    assert world.platform.alive(world.link()["refresh_token"])
    assert world.platform.valid("person", world.fetch().password.reveal())


# --------------------------------------------------------------------------------------------- OIDC and jf's sign-in


def test_an_exchange_can_be_narrowed(world: World) -> None:
    """project-key and identity-mapping are sent as jfrog-client-go sends them, and only if configured."""
    oidc(world)
    world.fetch()
    world.options |= {"project-key": "web", "identity-mapping": "ci-readers"}
    world.fetch()
    plain, narrow = (json.loads(call.body) for call in world.platform.server.calls)
    more = {"project_key": "web", "identity_mapping_name": "ci-readers"}
    assert narrow == {**plain, **more}
    assert not {*more} & {*plain}


def test_an_integration_with_several_mappings(world: World) -> None:
    """A platform that accepts the OIDC token only within a project refuses it without the project key."""
    oidc(world)
    (subject,) = world.platform.subjects
    world.platform.projects[subject] = "web"
    assert world.failure().reason == "oidc-refused"
    world.options["project-key"] = "web"
    assert world.fetch().login == "robot"


def test_jfs_file_is_only_read(world: World) -> None:
    """The file stays unchanged and no request is sent, because only jf refreshes its token."""
    jf_token(world)
    file = world.home / ".jfrog" / "jfrog-cli.conf.v6"
    before, at = file.read_bytes(), file.stat().st_mtime_ns
    credential = world.fetch()
    assert (file.read_bytes(), file.stat().st_mtime_ns) == (before, at)
    assert world.platform.server.calls == []
    assert credential.renew == "jf rt ping --server-id acme"


def test_jf_may_have_another_directory(world: World) -> None:
    """JFROG_CLI_HOME_DIR moves the file. A server also matches by the URL of its Artifactory alone."""
    jf(world, url="", artifactoryUrl=f"{world.platform.url.upper()}/artifactory/", accessToken=fake.reference())
    (world.home / ".jfrog").rename(world.home / "elsewhere")
    assert world.failure().reason == "not-logged-in"
    world.patch.setenv("JFROG_CLI_HOME_DIR", str(world.home / "elsewhere"))
    assert world.fetch().login == ""


# ------------------------------------------------------------------------------------------------------ the chain


def test_each_link_leads_to_the_next(world: World) -> None:
    """The seed is used once. Each refresh uses the previous refresh token and authenticates with the last access
    token."""
    seed = world.plant()
    tokens = [world.fetch().password.reveal() for _ in range(3)]
    bodies = [json.loads(call.body) for call in world.platform.server.calls]
    proofs = [call.headers["Authorization"].removeprefix("Bearer ") for call in world.platform.server.calls]
    assert bodies[0] == {"grant_type": "refresh_token", "refresh_token": seed, "refreshable": True}
    assert proofs == [(world.home / "access").read_text().strip(), *tokens[:2]]
    assert len({link["refresh_token"] for link in bodies}) == 3
    assert world.platform.alive(world.link()["refresh_token"])
    assert (world.link()["access_token"], world.link()["asked_at"]) == (tokens[2], None)


def test_the_chain_is_private(world: World) -> None:
    """Only the user can read the chain's directory and files, whatever the umask."""
    world.plant()
    world.fetch()
    directory = world.chains()[0].parent
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert {stat.S_IMODE(file.stat().st_mode) for file in directory.iterdir()} == {0o600}
    assert sorted(file.suffix for file in directory.iterdir()) == [".json", ".lock"]


def test_another_seed_is_another_chain(world: World) -> None:
    """A new refresh token starts a new chain. The old chain is kept, and used again with its seed."""
    old = world.plant()
    world.fetch()
    options = dict(world.options)
    world.plant("other")
    assert world.fetch().login == "other"
    world.options = {**options, "refresh-token": world.keep("old", old)}
    assert world.fetch().login == "person"
    assert world.platform.refreshed == 3
    assert len(world.chains()) == 2


def test_a_seed_for_two_platforms_is_two_chains(world: World) -> None:
    """A token of one platform is never sent to another."""
    world.plant()
    world.fetch()
    with Server(lambda _: fake.access_error(404, "NOT_FOUND", "?")) as other:
        world.service = other.url
        world.failure()
        assert json.loads(other.calls[0].body)["refresh_token"] == (world.home / "refresh").read_text().strip()
    assert len(world.chains()) == 2


def test_the_order_of_writes_during_a_refresh(world: World) -> None:
    """When the request reaches the platform, the mark and the space for the response are on disk. When the fetch
    returns, both new tokens are on disk and the mark is removed."""
    observed: list[tuple[bool, int]] = []

    def stage(name: str) -> None:
        if name == "arrived":
            room = world.chains()[-1].with_suffix(".json.room")
            observed.append((world.link()["asked_at"] is not None, room.stat().st_size))

    world.platform.stage = stage
    world.plant()
    credential = world.fetch()
    assert observed == [(True, refresh_chain.ROOM)]
    assert (world.link()["access_token"], world.link()["asked_at"]) == (credential.password.reveal(), None)


@pytest.mark.linux("/proc/locks lists the processes that wait for a lock")
def test_two_at_once_refresh_once(world: World) -> None:
    """The second process waits for the first and uses its result; a later fetch refreshes again."""
    world.plant()
    began, go_on = threading.Event(), threading.Event()

    def stage(name: str) -> None:
        if name == "arrived":
            began.set()
            go_on.wait(60)

    world.platform.stage = stage
    first = world.worker()
    assert began.wait(60)
    others = [world.worker() for _ in range(2)]
    lock = world.chains()[-1].with_suffix(".json.lock").stat().st_ino
    until(lambda: _waiting_for(lock) == 2)
    go_on.set()
    outcomes = [outcome(process) for process in (first, *others)]
    tokens = {one.password.reveal() for one in outcomes if isinstance(one, Credential)}
    assert len(tokens) == 1
    assert world.platform.refreshed == 1
    assert all(isinstance(one, Credential) and one.expires_at is not None for one in outcomes)
    world.fetch()
    assert world.platform.refreshed == 2


def _waiting_for(inode: int) -> int:
    """Return how many processes wait for a lock (proc(5), /proc/locks: waiters are behind an arrow)."""
    lines = Path("/proc/locks").read_text().splitlines()
    return sum("->" in line and f":{inode} " in line for line in lines)


def test_a_request_that_was_not_sent_leaves_no_mark(world: World) -> None:
    """If the server is unreachable the chain gets no mark, and the next fetch continues."""
    world.plant()
    world.fetch()
    before = world.link()
    world.patch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    assert (world.failure().kind, world.failure().reason) == ("transient", "unreachable")
    assert world.link() == before
    world.patch.delenv("HTTP_PROXY")
    world.fetch()


def test_a_request_is_not_sent_after_a_slow_name_lookup(world: World) -> None:
    """If the name lookup ends after the fetch has given up, the request is not sent."""
    world.plant()
    world.service = f"http://slow.example:{world.platform.server.port}"
    known, lookup_started = threading.Event(), threading.Event()
    real = socket.getaddrinfo

    def slow(host: Any, *more: Any, **rest: Any) -> Any:
        if host != "slow.example":
            return real(host, *more, **rest)
        lookup_started.set()
        known.wait(60)
        return real("127.0.0.1", *more, **rest)

    world.patch.setattr(socket, "getaddrinfo", slow)
    world.patch.setattr(once, "TIMEOUT", 0.2)
    before = {*threading.enumerate()}
    assert (world.failure().kind, world.link()["asked_at"]) == ("transient", None)
    known.set()
    for thread in {*threading.enumerate()} - before:
        thread.join(60)
    assert world.platform.refreshed == 0
    assert lookup_started.is_set()


def test_a_lost_response(world: World) -> None:
    """The refresh token is used up and the response never arrived. The mark stays, the next fetch reports what
    happened with the fix, and a new seed is enough to continue."""
    world.plant()
    world.fetch()

    def stage(name: str) -> None:
        if name == "burnt":
            raise OSError

    world.platform.stage = stage
    failure = world.failure()
    assert (failure.kind, failure.reason) == ("transient", "unreachable")
    marked = world.link()["asked_at"]
    assert marked is not None
    world.platform.stage = lambda _: None
    for _ in range(2):
        failure = world.failure()
        assert (failure.kind, failure.reason) == ("login-required", "chain-lost")
        assert f"{datetime.fromisoformat(marked):%Y-%m-%d %H:%M} UTC" in failure.message
        assert failure.hint is not None
        assert failure.hint.endswith(f"put its refresh token into the file {world.home / 'refresh'}")
        assert world.link()["asked_at"] == marked
    world.plant()
    world.fetch()


def test_a_worker_saves_the_chain_before_it_ends(world: World) -> None:
    """SIGTERM is delayed during a refresh, so that the new tokens are on disk before the worker ends."""
    world.plant()
    processes: list[subprocess.Popen[bytes]] = []
    started = threading.Event()

    def stage(name: str) -> None:
        if name == "burnt":
            assert started.wait(60)
            processes[0].send_signal(signal.SIGTERM)

    world.platform.stage = stage
    processes.append(world.worker())
    started.set()
    processes[0].communicate(timeout=60)
    assert world.platform.refreshed == 1
    assert (world.platform.alive(world.link()["refresh_token"]), world.link()["asked_at"]) == (True, None)
    world.platform.stage = lambda _: None
    world.fetch()


@pytest.mark.linux("/proc/locks lists the processes that wait for a lock")
def test_a_worker_that_only_waits_ends_at_once(world: World) -> None:
    """Before a refresh begins, for example while it waits for a lock, SIGTERM ends the worker at once."""
    seed = world.plant()
    with refresh_chain.held(world.service, Secret(seed)):
        lock = next((world.home / "state" / "uvtokend" / "chains").glob("*.lock")).stat().st_ino
        waiting = world.worker()
        until(lambda: _waiting_for(lock) == 1)
        waiting.send_signal(signal.SIGTERM)
        waiting.communicate(timeout=60)
    assert waiting.returncode == -signal.SIGTERM
    assert world.platform.server.calls == []


def test_a_late_response(world: World) -> None:
    """The request times out long before the fetch is killed. The mark stays, and the token still works if the
    platform did nothing."""
    world.plant()
    hold = threading.Event()

    def fault(_: Any) -> Answer:
        hold.wait(60)
        return Answer(503)

    world.platform.fault = fault
    world.patch.setattr(once, "TIMEOUT", 0.2)
    failure = world.failure()
    hold.set()
    assert (failure.kind, failure.reason) == ("transient", "timeout")
    assert world.link()["asked_at"] is not None
    world.platform.fault = None
    world.patch.setattr(once, "TIMEOUT", 20.0)
    world.fetch()
    assert world.link()["asked_at"] is None


def test_no_request_starts_without_enough_time(world: World) -> None:
    """A fetch with too little time left sends nothing, and names the setting to change."""
    world.plant()
    failure = outcome(world.worker(timeout=once.LEAST - 1))
    assert isinstance(failure, Failure)
    assert (failure.kind, failure.reason, failure.hint) == (
        "transient",
        "deadline",
        'set fetch-timeout = "60s" in [daemon]',
    )
    assert world.platform.server.calls == []
    assert world.link()["asked_at"] is None


def test_a_server_error_may_have_done_nothing(world: World) -> None:
    """After a 500 it is unknown whether the refresh token was used. If it was not, the chain continues."""
    world.plant()
    world.platform.fault = lambda _: Answer(500)
    assert world.failure().reason == "server-error"
    world.platform.fault = None
    world.fetch()
    assert world.link()["asked_at"] is None


def test_an_expired_access_token(world: World) -> None:
    """A platform with a grace period accepts an expired access token, and another needs none. If it is refused, the
    failure says so."""
    world.platform.life, world.platform.replaces = -1.0, False
    world.plant()
    assert world.failure().reason == "login-expired"
    world.platform.grace = 3600.0
    world.platform.life = 3600.0
    world.fetch()
    world.platform.grace, world.platform.wants_proof = 0.0, False
    world.platform.revoke(world.link()["access_token"])
    assert world.platform.valid("person", world.fetch().password.reveal())


def test_a_platform_that_returns_no_new_refresh_token(world: World) -> None:
    """The last access token is used until it expires, and the credential says what to do before."""
    world.platform.successor = False
    world.plant()
    first, second = world.fetch(), world.fetch()
    assert first.password.reveal() == second.password.reveal()
    assert first.renew is not None
    assert "jf access-token-create --refreshable" in first.renew
    assert world.platform.refreshed == 1
    file = world.chains()[0]
    file.write_bytes(json.dumps({**world.link(), "expires_at": "2026-01-01T00:00:00Z"}).encode())
    failure = world.failure()
    assert (failure.kind, failure.reason) == ("login-required", "chain-ended")


@pytest.mark.parametrize("broken", [b"", b"{", b"[]", b"{}", b'{"refresh_token": 7}', b"\xff"])
def test_a_broken_file(world: World, broken: bytes) -> None:
    """If the chain's file is damaged, only the seed is left. If the seed was used, the failure has the fix."""
    world.plant()
    world.fetch()
    world.chains()[0].write_bytes(broken)
    failure = world.failure()
    assert (failure.kind, failure.reason) == ("login-required", "login-expired")
    assert str(world.home / "refresh") in (failure.hint or "")


def test_a_disk_that_cannot_be_written(world: World) -> None:
    """If the response cannot be stored, no request is sent. If storing fails after all, the failure says so."""
    world.plant()
    world.fetch()
    room = world.chains()[0].with_suffix(".json.room")
    room.mkdir()
    sent_before = len(world.platform.server.calls)
    failure = world.failure()
    assert (failure.kind, failure.reason) == ("transient", "chain-file")
    assert len(world.platform.server.calls) == sent_before
    assert world.link()["asked_at"] is None
    room.rmdir()

    def stage(name: str) -> None:
        if name == "burnt":
            room.unlink()
            room.mkdir()

    world.platform.stage = stage
    failure = world.failure()
    assert (failure.kind, failure.reason) == ("login-required", "chain-lost")
    assert world.link()["asked_at"] is not None


@pytest.mark.parametrize("prepare", ["open", "symlink", "file"])
def test_a_directory_that_others_can_read(world: World, prepare: str) -> None:
    """A refresh token is never stored where others could read it."""
    world.plant()
    directory = world.home / "state" / "uvtokend" / "chains"
    directory.parent.mkdir(parents=True, mode=0o700)
    match prepare:
        case "open":
            directory.mkdir()
            directory.chmod(0o755)
        case "symlink":
            directory.symlink_to(world.home)
        case "file":
            directory.write_text("")
    failure = world.failure()
    assert (failure.kind, failure.reason) == ("rejected", "state-directory")
    assert str(directory) in (failure.hint or "")
    assert world.platform.server.calls == []


# ------------------------------------------------------------------------------------------------------- failures


def answering(prepare: Setting, answer: Answer) -> Setting:
    def run(world: World) -> None:
        prepare(world)
        world.platform.fault = lambda _: answer

    return run


def again(answer: Answer) -> Setting:
    """Refresh a chain once, and then give this response."""

    def run(world: World) -> None:
        world.plant()
        world.fetch()
        world.platform.fault = lambda _: answer

    return run


def then(prepare: Setting, change: Setting) -> Setting:
    def run(world: World) -> None:
        prepare(world)
        change(world)

    return run


def used(world: World) -> None:
    world.plant()
    world.platform.revoke((world.home / "refresh").read_text().strip())


def alone(world: World) -> None:
    world.plant(with_access=False)


def others(world: World) -> None:
    world.plant()
    world.keep("access", world.platform.pair("other")[0])


def expired(world: World) -> None:
    token = fake.jwt("person", time.time() - 7200, time.time() - 3600)
    world.options = {"access-token": world.keep("access", token)}


def unmapped(world: World) -> None:
    oidc(world)
    world.platform.subjects.clear()


def unmapped_and_old(world: World) -> None:
    subject = fake.jwt("ci@example.com", time.time() - 7200, time.time() - 3600)
    world.options = {"oidc-provider": "ci", "oidc-token": world.keep("subject", subject)}


def unknown_integration(world: World) -> None:
    oidc(world)
    world.options["oidc-provider"] = "other"


def nowhere(world: World) -> None:
    world.service = "http://127.0.0.1:9"


def no_bundle(world: World) -> None:
    world.service = "https://127.0.0.1:9"
    world.patch.setenv("REQUESTS_CA_BUNDLE", str(world.home / "missing.pem"))


def distrusted(world: World) -> None:
    proxy = TlsProxy({"acme.jfrog.io": world.platform.server.site})
    world.closing.append(proxy.close)
    world.patch.setenv("HTTPS_PROXY", proxy.url)
    world.service = "https://acme.jfrog.io"


def unknown_to_the_proxy(world: World) -> None:
    distrusted(world)
    world.service = "https://other.jfrog.io"


def only(**options: Any) -> Setting:
    return lambda world: world.options.update({name.replace("_", "-"): value for name, value in options.items()})


def without_address(world: World) -> None:
    world.plant()
    world.service = ""


def jf_elsewhere(world: World) -> None:
    jf(world, url="https://acme.jfrog.io.evil.example/", accessToken=CANARY)


def jf_old(world: World, **more: object) -> None:
    token = fake.jwt("person", time.time() - 7200, time.time() - 3600)
    jf(world, accessToken=token, **more)


def jf_old_pair(world: World) -> None:
    jf_old(world, refreshToken=CANARY)


def jf_twice(world: World) -> None:
    server = {"url": world.platform.url, "accessToken": CANARY}
    world.jf({"servers": [{**server, "serverId": name} for name in ("one", "two")]})
    world.options = {"source": "jf"}


def jf_encrypted(world: World) -> None:
    world.jf({"servers": [{"serverId": "acme", "url": world.platform.url, "accessToken": CANARY}], "enc": True})
    world.options = {"source": "jf"}


def jf_file(document: object) -> Setting:
    def run(world: World) -> None:
        world.jf(document)
        world.options = {"source": "jf"}

    return run


NO = fake.access_error
PAGE = Answer(200, f"<html>{CANARY}</html>".encode(), {"Content-Type": "text/html; charset=utf-8"})
GONE = Answer(404, f"<html>{CANARY}</html>".encode(), {"Content-Type": "text/html"})
BUSY = Answer(429, CANARY.encode(), {"Retry-After": "17"})
AWAY = Answer(302, b"", {"Location": "https://sso.example/login"})
LARGE = Answer(200, b'{"access_token": "' + b"x" * 70000 + b'"}', {"Content-Type": "application/json"})
NOTHING = Answer.json({"token_type": CANARY})
SPACE = Answer.json({"access_token": f"{CANARY} x", "expires_in": 3600})
PAIR = Answer.json({"access_token": "a b", "refresh_token": "next", "expires_in": 3600})
DEAD = Answer.json({"access_token": fake.jwt("robot", 0, time.time() - 60)})
LIST = Answer(200, f'["{CANARY}"]'.encode(), {"Content-Type": "application/json"})
NEW = "create a new token pair"

#: The setup, and the failure: kind, reason, and words of the hint.
FAILURES: dict[str, tuple[Setting, str, str, str | None]] = {
    "refresh: seed was used, revoked or has expired": (used, "login-required", "refresh-token-refused", NEW),
    "refresh: another program used it": (
        again(NO(404, "NOT_FOUND", CANARY)),
        "login-required",
        "refresh-token-refused",
        NEW,
    ),
    "refresh: of another instance": (
        answering(refresh, NO(400, "BAD_REQUEST", CANARY)),
        "login-required",
        "refresh-token-refused",
        NEW,
    ),
    "refresh: no access token known": (alone, "login-required", "no-access-token", "add access-token"),
    "refresh: access token refused": (
        answering(refresh, NO(401, "UNAUTHORIZED", "Invalid token, expired")),
        "login-required",
        "login-expired",
        NEW,
    ),
    "refresh: access token refused by Artifactory": (
        answering(refresh, fake.artifactory_error(401, "Token failed verification: expired")),
        "login-required",
        "login-expired",
        NEW,
    ),
    "refresh: another user's access token": (others, "rejected", "forbidden", "allow-refreshable"),
    "refresh: refused otherwise": (answering(refresh, NO(422, "X", CANARY)), "rejected", "refused", NEW),
    "refresh: a stranger's 400": (answering(refresh, Answer(400, CANARY.encode())), "rejected", "refused", NEW),
    "refresh: busy": (answering(refresh, BUSY), "transient", "throttled", None),
    "refresh: fault": (answering(refresh, Answer(502, CANARY.encode())), "transient", "server-error", None),
    "refresh: login page": (answering(refresh, PAGE), "transient", "captive-portal", None),
    "refresh: network wants a login": (answering(refresh, Answer(511)), "transient", "captive-portal", None),
    "refresh: redirect": (answering(refresh, AWAY), "rejected", "redirected", "url"),
    "refresh: no Access API": (answering(refresh, GONE), "rejected", "no-access-api", "curl -i http://127.0.0.1"),
    "refresh: method not allowed": (answering(refresh, Answer(405)), "rejected", "no-access-api", "curl"),
    "refresh: no token in the answer": (answering(refresh, NOTHING), "transient", "bad-answer", None),
    "refresh: no JSON object": (answering(refresh, LIST), "transient", "bad-answer", None),
    "refresh: answer without end": (answering(refresh, LARGE), "transient", "bad-answer", None),
    "refresh: token with a space": (answering(refresh, PAIR), "transient", "bad-answer", None),
    "refresh: nothing listens": (then(refresh, nowhere), "transient", "unreachable", None),
    "refresh: certificate is not trusted": (then(refresh, distrusted), "transient", "untrusted-certificate", None),
    "refresh: proxy refuses": (then(refresh, unknown_to_the_proxy), "transient", "unreachable", None),
    "refresh: bundle is missing": (then(refresh, no_bundle), "rejected", "ca-bundle", "REQUESTS_CA_BUNDLE"),
    "refresh: URL hides the platform": (without_address, "rejected", "bad-url", "Set Me Up"),
    "refresh: seed is missing": (
        only(refresh_token=(("file", "/missing/seed"),)),
        "rejected",
        "no-secret",
        "/missing/seed",
    ),
    "OIDC: no user mapped": (unmapped, "rejected", "oidc-refused", "oidc-provider"),
    "OIDC: token has expired": (unmapped_and_old, "login-required", "oidc-token-expired", "subject"),
    "OIDC: integration is unknown": (unknown_integration, "rejected", "oidc-refused", "oidc-provider"),
    "OIDC: forbidden": (answering(oidc, NO(403, "FORBIDDEN", CANARY)), "rejected", "oidc-refused", "oidc-provider"),
    "OIDC: busy": (answering(oidc, BUSY), "transient", "throttled", None),
    "OIDC: fault": (answering(oidc, Answer(500, CANARY.encode())), "transient", "server-error", None),
    "OIDC: login page": (answering(oidc, PAGE), "transient", "captive-portal", None),
    "OIDC: redirect": (answering(oidc, AWAY), "rejected", "redirected", "url"),
    "OIDC: no Access API": (answering(oidc, GONE), "rejected", "no-access-api", "curl"),
    "OIDC: no token in the answer": (answering(oidc, NOTHING), "transient", "bad-answer", None),
    "OIDC: answer without end": (answering(oidc, LARGE), "transient", "bad-answer", None),
    "OIDC: token with a space": (answering(oidc, SPACE), "transient", "bad-answer", None),
    "OIDC: expired token": (answering(oidc, DEAD), "transient", "expired-on-arrival", None),
    "OIDC: nothing listens": (then(oidc, nowhere), "transient", "unreachable", None),
    "access token: has expired": (expired, "rejected", "expired", "access"),
    "access token: is missing": (
        only(access_token=(("env", "UNSET_VARIABLE"),)),
        "rejected",
        "no-secret",
        "UNSET_VARIABLE",
    ),
    "jf: is not installed": (only(source="jf"), "login-required", "not-logged-in", "jf login"),
    "jf: knows other platforms only": (jf_elsewhere, "login-required", "not-logged-in", "jf login"),
    "jf: has no secret": (jf, "login-required", "not-logged-in", "jf login"),
    "jf: token has expired": (jf_old, "login-required", "login-expired", "jf login"),
    "jf: token has expired, and jf can renew it": (jf_old_pair, "login-required", "login-expired", "jf rt ping"),
    "jf: two names for one platform": (jf_twice, "rejected", "ambiguous-login", "jf config use"),
    "jf: encrypted": (jf_encrypted, "rejected", "encrypted-login", "access-token"),
    "jf: a file of something else": (jf_file([CANARY]), "rejected", "bad-file", "jf config show"),
    "jf: no servers": (jf_file({"servers": CANARY}), "login-required", "not-logged-in", "jf login"),
    "options: none": (only(), "rejected", "bad-options", None),
    "options: two ways": (
        then(refresh, only(username="me", password=(("env", "X"),))),
        "rejected",
        "bad-options",
        None,
    ),
    "options: invalid user": (then(access, only(username="a:b")), "rejected", "bad-options", None),
    "options: no user": (then(access, only(username=7)), "rejected", "bad-options", None),
}


@pytest.mark.parametrize("case", FAILURES)
def test_failures_are_classified(world: World, case: str) -> None:
    """Each failure has its kind, its reason and its fix, and contains no text of the server."""
    prepare, kind, reason, hint = FAILURES[case]
    prepare(world)
    try:
        failure = world.failure()
    finally:
        for close in world.closing:
            close()
    assert (failure.kind, failure.reason) == (kind, reason)
    assert (hint is None) == (failure.hint is None)
    assert hint is None or hint in (failure.hint or "")
    assert failure.message.endswith(".")


def test_how_long_to_wait(world: World) -> None:
    """The platform's Retry-After is passed on."""
    answering(refresh, BUSY)(world)
    assert world.failure().retry_after == 17.0


REFUSALS = ["refresh: of another instance", "refresh: access token refused", "refresh: busy", "refresh: redirect",
            "refresh: another user's access token", "refresh: no Access API", "refresh: a stranger's 400"]  # fmt: skip


@pytest.mark.parametrize("case", REFUSALS)
def test_a_refusal_leaves_no_mark(world: World, case: str) -> None:
    """If the response says that nothing was done, the chain is unchanged, and no later failure reports a loss."""
    FAILURES[case][0](world)
    before = world.link() if world.chains() else None
    world.failure()
    assert world.link()["asked_at"] is None
    assert before is None or world.link() == before


@pytest.mark.parametrize("prepare", [refresh, oidc], ids=lambda prepare: prepare.__name__)
def test_no_redirect_is_followed(world: World, prepare: Setting) -> None:
    """No token is sent to the target of a redirect."""
    prepare(world)
    with Server(lambda _: Answer.json({"access_token": "stranger"})) as other:
        for status in (301, 302, 303, 307, 308):
            world.platform.fault = lambda _, status=status: Answer(status, b"", {"Location": f"{other.url}/"})
            assert world.failure().reason == "redirected"
        assert other.calls == []


def test_netrc_does_not_replace_the_token(world: World) -> None:
    """requests would replace our Bearer header with a netrc entry for the host, so our session ignores netrc."""
    world.plant()
    netrc = world.home / "netrc"
    netrc.write_text("machine 127.0.0.1 login stranger password wrong\n")
    netrc.chmod(0o600)
    world.patch.setenv("NETRC", str(netrc))
    world.fetch()
    assert world.platform.server.calls[0].headers["Authorization"].startswith("Bearer ")


def test_the_provider_is_loaded_by_its_name(world: World) -> None:
    """The worker loads the provider by its name, and returns its failures."""
    password(world)
    outcome = worker.fetch(world.request)
    assert isinstance(outcome, Credential)
    world.options = {}
    assert isinstance(worker.fetch(world.request), Failure)

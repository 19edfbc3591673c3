"""gitlab, over real HTTP with a loopback GitLab that revokes all successors when a revoked token is rotated."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, time, timedelta
from pathlib import Path
from typing import Any

import pytest

from clouds import gitlab as fake
from clouds.gitlab_world import World, loopback_world
from support.loopback import CANARY
from support.waiting import until
from uvtokend.core import wire
from uvtokend.core.model import Credential, Failure, Notice
from uvtokend.disk import one_time_secrets
from uvtokend.disk.one_time_secrets import KeptMark, RemovedSecrets
from uvtokend.providers.gitlab import rotation
from uvtokend.sandbox.web import Answer, Call, Server

Setting = Callable[[World], object]


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    with loopback_world(tmp_path, monkeypatch) as created:
        yield created


def personal(world: World) -> None:
    world.options = {"token": world.keep(world.cloud.personal())}


def deploy(world: World) -> None:
    world.cloud.deploy["deploy-secret"] = ("gitlab+deploy-token-1", ("read_package_registry",))
    world.options = {"token": world.keep("deploy-secret"), "kind": "deploy", "username": "gitlab+deploy-token-1"}


def job(world: World) -> None:
    world.cloud.jobs.add("job-secret")
    world.patch.setenv("CI_JOB_TOKEN", "job-secret")
    world.options = {"token": (("env", "CI_JOB_TOKEN"),), "kind": "job"}


def rotating(world: World) -> None:
    world.plant()


# -------------------------------------------------------------------------------------------------- kinds of tokens

#: The setup, the login, the identity, and whether the expiry is known.
WAYS: dict[str, tuple[Setting, str, str, bool]] = {
    "personal": (personal, "__token__", "laptop (user 1337)", True),
    "rotating": (rotating, "__token__", "laptop (user 1337)", True),
    "deploy": (deploy, "gitlab+deploy-token-1", "gitlab+deploy-token-1", False),
    "job": (job, "gitlab-ci-token", "gitlab-ci-token", False),
}


@pytest.mark.parametrize("way", WAYS)
def test_every_kind(world: World, way: str) -> None:
    """Each kind of token becomes a credential that the package registry accepts."""
    prepare, login, identity, ends = WAYS[way]
    prepare(world)
    credential = world.fetch()
    assert world.cloud.valid(credential.login, credential.password.reveal())
    assert (credential.login, credential.identity, credential.expires_at is not None) == (login, identity, ends)


def test_the_expiry_of_a_personal_token(world: World) -> None:
    """A token expires when its date begins, in UTC on GitLab's clock. The credential says where to create a new one."""
    world.cloud.clock_ahead = 3600
    personal(world)
    credential = world.fetch()
    expires = world.cloud.expires(world.kept())
    assert expires is not None
    assert credential.expires_at is not None
    assert abs(credential.expires_at + timedelta(hours=1) - datetime.combine(expires, time(), UTC)) < timedelta(
        seconds=5
    )
    assert credential.skew == pytest.approx(-3600, abs=5)
    assert credential.renew is not None
    assert f"{world.cloud.url}/-/user_settings/personal_access_tokens" in credential.renew
    assert str(world.file) in credential.renew


def test_a_configured_user_name(world: World) -> None:
    """GitLab ignores the user name of a personal access token, so any name may be configured."""
    personal(world)
    world.options["username"] = "me"
    assert world.fetch().login == "me"


def test_a_token_without_an_expiry(world: World) -> None:
    """A self-hosted GitLab may have tokens without an expiry, which are never rotated."""
    for rotate in (False, True):
        world.plant(days=None)
        world.options["rotate"] = rotate
        assert world.fetch().expires_at is None
    assert world.cloud.rotated == 0


@pytest.mark.parametrize("status", [400, 404])
def test_a_token_that_gitlab_does_not_describe(world: World, status: int) -> None:
    """For an OAuth token, or with an older GitLab, the token is delivered without an expiry."""
    personal(world)
    world.cloud.fault = lambda _: Answer.json({"message": CANARY}, status)
    credential = world.fetch()
    assert (credential.expires_at, credential.identity) == (None, None)


def test_a_token_is_sent_only_to_its_own_server(world: World) -> None:
    """No redirect is followed, and no netrc entry replaces the token."""
    personal(world)
    netrc = world.home / "netrc"
    netrc.write_text("default login stranger password wrong\n")
    netrc.chmod(0o600)
    world.patch.setenv("NETRC", str(netrc))
    with Server(lambda _: Answer()) as other:
        world.cloud.fault = lambda _: Answer(307, b"", {"Location": f"{other.url}/"})
        assert world.failure().reason == "redirected"
        assert other.calls == []
    assert [call.headers.get("Authorization") for call in world.cloud.server.calls] == [None]


# ---------------------------------------------------------------------------------------------------------- rotation


#: How many days a token is valid in total, its age in days, and the time of day on GitLab's clock.
YOUNG = [(90, 60, "12:00"), (6, 3, "23:50"), (2, 1, "00:01"), (2, 1, "07:50"), (1, 0, "15:50")]
OLD = [(90, 80, "00:01"), (365, 355, "12:00"), (6, 5, "00:01"), (2, 1, "08:10"), (2, 1, "23:50"), (1, 0, "16:10")]


@pytest.mark.parametrize(("days", "age", "hour"), YOUNG)
def test_a_young_token_is_not_rotated(world: World, days: int, age: int, hour: str) -> None:
    """A rotation revokes the token that a running uv uses, so it is done as late as is safe."""
    world.at(hour)
    token = world.plant(days, age)
    credential = world.fetch()
    assert (credential.password.reveal(), world.cloud.rotated, credential.renew) == (token, 0, None)
    assert credential.refresh_after is not None
    assert credential.expires_at is not None
    margin = min(rotation.LONGEST_MARGIN, timedelta(days=days) / 3)
    assert credential.expires_at - credential.refresh_after == margin


@pytest.mark.parametrize(("days", "age", "hour"), OLD)
def test_an_old_token_is_rotated(world: World, days: int, age: int, hour: str) -> None:
    """In the last third of its life, at most 14 days before its expiry, a token is replaced in its file. The new one
    is valid as long as the old one was in total, and at least 2 days, so that it expires later."""
    world.at(hour)
    old = world.plant(days, age)
    credential = world.fetch()
    new = credential.password.reveal()
    assert (world.kept(), world.cloud.rotated) == (new, 1)
    assert world.cloud.active(new)
    assert not world.cloud.active(old)
    expires, before = world.cloud.expires(new), world.cloud.expires(old)
    assert expires is not None
    assert before is not None
    assert expires > before
    assert expires == world.cloud.today() + timedelta(days=max(days, 2))
    assert world.marks() == []
    assert world.fetch().password.reveal() == new


def test_the_expiry_is_always_requested(world: World) -> None:
    """Without `expires_at` in the request GitLab would choose a week."""
    world.plant(90, 85)
    world.fetch()
    bodies = [json.loads(call.body) for call in world.cloud.server.calls if call.method == "POST"]
    assert [set(content) for content in bodies] == [{"expires_at"}]


def test_each_rotation_leads_to_the_next(world: World) -> None:
    """A chain of rotations keeps working, because no revoked token is ever sent again."""
    world.plant(6)
    tokens = {world.kept()}
    for _ in range(3):
        world.cloud.clock_ahead += 5 * 86400
        world.fetch()
        tokens.add(world.kept())
    assert (len(tokens), world.cloud.active(world.kept())) == (4, True)


def test_the_file_stays_what_it_was(world: World) -> None:
    """A rotation keeps the file's mode, symlink and line end, and leaves no other file beside it."""
    world.plant(90, 85)
    world.file.chmod(0o400)
    real = world.home / "real"
    world.file.rename(real)
    world.file.symlink_to(real)
    world.fetch()
    assert world.file.is_symlink()
    assert stat.S_IMODE(real.stat().st_mode) == 0o400
    assert real.read_text().endswith("\n")
    assert not [path for path in world.home.iterdir() if path.name.endswith(".uvtokend")]


def test_a_file_with_two_names(world: World) -> None:
    """A hard-linked file is written in place, so that both names have the new token."""
    world.plant(90, 85)
    other = world.home / "other"
    os.link(world.file, other)
    world.fetch()
    assert other.read_text() == world.file.read_text()
    assert world.cloud.active(world.kept())


def test_the_order_of_writes_during_a_rotation(world: World) -> None:
    """When the request reaches GitLab, the mark is on disk. When the fetch returns, the new token is on disk."""
    marks_seen: list[int] = []
    world.cloud.stage = lambda name: marks_seen.append(len(world.marks())) if name == "arrived" else None
    world.plant(90, 85)
    credential = world.fetch()
    assert (marks_seen, world.marks(), world.kept()) == ([1], [], credential.password.reveal())


def test_two_at_once_rotate_once(world: World) -> None:
    """The second process waits for the first, and then uses the new token."""
    world.plant(90, 85)
    began, go_on = threading.Event(), threading.Event()

    def stage(name: str) -> None:
        if name == "arrived":
            began.set()
            go_on.wait(60)

    world.cloud.stage = stage
    first = world.worker()
    assert began.wait(60)
    second = world.worker()
    go_on.set()
    outcomes = [wire.decode_answer(process.communicate(timeout=60)[0].rstrip()) for process in (first, second)]
    tokens = {one.password.reveal() for one in outcomes if isinstance(one, Credential)}
    assert (tokens, world.cloud.rotated) == ({world.kept()}, 1)


def lose(world: World) -> str:
    """Rotate, and lose the response."""
    old = world.plant(90, 85)

    def stage(name: str) -> None:
        if name == "burnt":
            raise OSError

    world.cloud.stage = stage
    failure = world.failure()
    world.cloud.stage = lambda _: None
    assert (failure.kind, failure.reason) == ("login-required", "rotation-lost")
    return old


def test_a_lost_response(world: World) -> None:
    """After a lost response the old token is never sent again, because that would revoke the new one too. A new
    token in the file is enough to continue."""
    old = lose(world)
    sent_before = len(world.cloud.server.calls)
    for _ in range(2):
        failure = world.failure()
        assert (failure.kind, failure.reason) == ("login-required", "rotation-lost")
        assert failure.hint is not None
        assert f"{world.cloud.url}/-/user_settings/personal_access_tokens" in failure.hint
        assert str(world.file) in failure.hint
    assert (len(world.cloud.server.calls), world.kept()) == (sent_before, old)
    world.keep(world.cloud.personal())
    assert world.cloud.active(world.fetch().password.reveal())
    assert world.marks() == []


@pytest.mark.parametrize(
    "answer",
    [Answer(502), Answer(408), Answer(200, b"{"), Answer.json({"token": f"{CANARY}\n!"}), Answer.json({"token": 7})],
    ids=["gateway", "time-out", "no JSON", "invalid token", "no token"],
)
def test_an_ambiguous_response(world: World, answer: Answer) -> None:
    """After such a response it is unknown whether GitLab rotated the token, so the old one is not sent again."""
    world.plant(90, 85)
    world.cloud.fault = lambda call: answer if call.method == "POST" else None
    assert world.failure().reason == "rotation-lost"
    world.cloud.fault = None
    assert world.failure().reason == "rotation-lost"
    assert world.cloud.rotated == 0


def test_a_lost_response_outlives_purge(world: World) -> None:
    """The old token stays blocked after `uvtokend purge`. Once another token is in its file, no mark remains."""
    world.plant(90, 85)
    world.cloud.fault = lambda call: Answer(502) if call.method == "POST" else None
    assert world.failure().reason == "rotation-lost"
    world.cloud.fault = None
    (mark,) = world.marks()
    removal = one_time_secrets.remove(mark.parent)
    assert removal == RemovedSecrets(False, (KeptMark(mark, str(world.file), is_copy=False),))
    assert sorted(mark.parent.iterdir()) == [mark]
    assert world.failure().reason == "rotation-lost"
    assert world.cloud.rotated == 0
    world.keep(world.cloud.personal())
    assert one_time_secrets.remove(mark.parent) == RemovedSecrets(False)
    assert not mark.parent.exists()


def test_a_request_that_was_not_sent_leaves_no_mark(world: World) -> None:
    """If the server is unreachable there is no mark, and the next fetch continues."""
    world.plant(90, 85)
    world.patch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    assert world.failure().reason == "unreachable"
    world.patch.delenv("HTTP_PROXY")
    site = world.cloud.server.site

    def gone(call: Call) -> Answer:
        world.patch.setenv("HTTP_PROXY", "http://127.0.0.1:9")  # from now on
        return site(call)

    world.cloud.server.site = gone
    assert noticed(world, world.kept()).reason == "unreachable"
    world.patch.delenv("HTTP_PROXY")
    world.cloud.server.site = site
    assert world.marks() == []
    assert world.cloud.active(world.fetch().password.reveal())


def noticed(world: World, token: str) -> Notice:
    """Fetch, expect the token to be delivered unchanged, and return the notice."""
    credential = world.fetch()
    assert credential.password.reveal() == token == world.kept()
    assert credential.renew
    assert credential.notice is not None
    texts = f"{credential.notice} {credential.renew}"
    assert not [secret for secret in [*world.cloud.issued(), CANARY] if secret in texts]
    return credential.notice


REFUSALS: dict[str, tuple[Answer, str]] = {
    "scope": (fake.insufficient_scope("api self_rotate"), "missing-scope"),
    "another kind": (Answer.json({"message": "405 Method Not Allowed"}, 405), "no-rotation"),
    "older GitLab": (Answer.json({"error": "404 Not Found"}, 404), "no-rotation"),
    "throttled": (Answer(429, CANARY.encode(), {"Retry-After": "17"}), "throttled"),
    "redirect": (Answer(302, b"", {"Location": "https://sso.example/"}), "redirected"),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_a_refused_rotation_leaves_the_old_token_in_use(world: World, case: str) -> None:
    """If the response says that nothing was done, there is no mark, and the old token is delivered with a notice."""
    answer, reason = REFUSALS[case]
    old = world.plant(90, 85)
    world.cloud.fault = lambda call: answer if call.method == "POST" else None
    notice = noticed(world, old)
    assert notice.reason == reason
    assert "used until it expires" in notice.message
    assert world.marks() == []
    world.cloud.fault = None
    assert world.fetch().password.reveal() == world.kept() != old


def test_a_token_that_expires_during_its_rotation(world: World) -> None:
    """If a rotation is refused with 401, the token has expired and is not delivered, and there is no mark."""
    old = world.plant(90, 85)
    world.cloud.fault = lambda call: fake.invalid_token(CANARY) if call.method == "POST" else None
    failure = world.failure()
    assert (failure.kind, failure.reason) == ("login-required", "token-refused")
    assert (world.marks(), world.kept()) == ([], old)


def test_a_life_that_the_server_no_longer_allows(world: World) -> None:
    """If an administrator has shortened the allowed life, the notice says so, and a person must create a new token."""
    token = world.plant(90, 85)
    world.cloud.longest = 30
    notice = noticed(world, token)
    assert notice.reason == "rotation-refused"
    assert "limit" in notice.message


def test_a_token_without_the_scope_to_rotate_itself(world: World) -> None:
    """The missing scope is reported without a rotation request."""
    notice = noticed(world, world.plant(90, 85, scopes=("read_api",)))
    assert notice.reason == "missing-scope"
    assert "self_rotate" in (notice.hint or "")
    assert [call.method for call in world.cloud.server.calls] == ["GET"]


def test_a_disk_that_cannot_be_written(world: World) -> None:
    """If the new token cannot be stored, nothing is requested. If storing fails after all, our own file keeps the
    token until it can be stored."""
    token = world.plant(90, 85)
    beside = world.home / ".token.uvtokend"
    beside.mkdir()
    assert noticed(world, token).reason == "token-file"
    assert (world.cloud.rotated, world.marks()) == (0, [])
    beside.rmdir()
    write = rotation.TokenFile._write

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    world.patch.setattr(rotation.TokenFile, "_write", full)
    for _ in range(2):
        failure = world.failure()
        assert (failure.kind, failure.reason) == ("transient", "token-file")
        assert world.cloud.rotated == 1
    (mark,) = world.marks()
    assert stat.S_IMODE(mark.stat().st_mode) == 0o600
    assert one_time_secrets.remove(mark.parent).kept == (KeptMark(mark, str(world.file), is_copy=True),)
    world.patch.setattr(rotation.TokenFile, "_write", write)
    assert world.cloud.active(world.fetch().password.reveal())
    assert (world.cloud.active(world.kept()), world.marks()) == (True, [])


def test_a_token_replaced_during_a_rotation(world: World) -> None:
    """A token that a person puts there during a rotation is not overwritten."""
    world.plant(90, 85)
    other = world.cloud.personal()

    def stage(name: str) -> None:
        if name == "burnt":
            world.keep(other)

    world.cloud.stage = stage
    assert world.failure().reason == "token-replaced"
    assert world.fetch().password.reveal() == other


def test_a_worker_saves_the_token_before_it_ends(world: World) -> None:
    """SIGTERM is delayed during a rotation, so that the new token is in the file before the worker ends."""
    world.plant(90, 85)
    processes: list[subprocess.Popen[bytes]] = []
    started = threading.Event()

    def stage(name: str) -> None:
        if name == "burnt":
            assert started.wait(60)
            processes[0].send_signal(signal.SIGTERM)

    world.cloud.stage = stage
    processes.append(world.worker())
    started.set()
    processes[0].communicate(timeout=60)
    assert world.cloud.rotated == 1
    assert (world.cloud.active(world.kept()), world.marks()) == (True, [])


@pytest.mark.parametrize("broken", [b"", b"{", b"[]", b'{"token_sha256": 7}'])
def test_a_broken_mark(world: World, broken: bytes) -> None:
    """A damaged mark is ignored, and GitLab's response to the token is reported."""
    lose(world)
    world.marks()[0].write_bytes(broken)
    failure = world.failure()
    assert (failure.kind, failure.reason) == ("login-required", "token-refused")


# ------------------------------------------------------------------------------------------------------- failures


def answering(answer: Answer) -> Setting:
    def run(world: World) -> None:
        personal(world)
        world.cloud.fault = lambda _: answer

    return run


def revoked(world: World) -> None:
    personal(world)
    world.cloud.revoke(world.kept())


def expired(world: World) -> None:
    world.plant(30, 31)


def useless(world: World) -> None:
    world.options = {"token": world.keep(world.cloud.personal(("read_user", "self_rotate")))}


def nowhere(world: World) -> None:
    personal(world)
    world.service = "http://127.0.0.1:9"


def without_address(world: World) -> None:
    personal(world)
    world.service = ""


def only(**options: Any) -> Setting:
    return lambda world: world.options.update(options)


ELSEWHERE = (("env", "X"),)
FAILURES: dict[str, tuple[Setting, str, str, str | None]] = {
    "revoked": (revoked, "login-required", "token-refused", "personal_access_tokens"),
    "expired": (expired, "login-required", "token-refused", "personal_access_tokens"),
    "unknown": (answering(Answer.json({"message": CANARY}, 401)), "login-required", "token-refused", "read_api"),
    "blocked user": (answering(Answer.json({"message": CANARY}, 403)), "rejected", "forbidden", "administrator"),
    "dpop": (answering(fake.insufficient_scope(CANARY)), "rejected", "refused", "personal_access_tokens"),
    "scopes": (useless, "rejected", "missing-scope", "read_api"),
    "throttled": (answering(Answer(429)), "transient", "throttled", None),
    "fault": (answering(Answer(502, CANARY.encode())), "transient", "server-error", None),
    "portal": (answering(Answer(200, b"<html>", {"Content-Type": "text/html"})), "transient", "captive-portal", None),
    "invalid date": (answering(Answer.json({"expires_at": CANARY})), "transient", "bad-answer", None),
    "nothing listens": (nowhere, "transient", "unreachable", None),
    "no API in the URL": (without_address, "rejected", "bad-url", "package's page"),
    "no file": (only(token=(("file", "/missing/token"),)), "rejected", "no-secret", "/missing/token"),
    "rotate without a file": (only(token=ELSEWHERE, rotate=True), "rejected", "bad-options", "file"),
    "rotate a deploy token": (only(token=ELSEWHERE, rotate=True, kind="deploy"), "rejected", "bad-options", "rotate"),
    "deploy without a name": (only(token=ELSEWHERE, kind="deploy"), "rejected", "bad-options", "username"),
    "job with a name": (only(token=ELSEWHERE, kind="job", username="me"), "rejected", "bad-options", "username"),
    "a job's name": (only(token=ELSEWHERE, username="gitlab-ci-token"), "rejected", "bad-options", "job"),
    "invalid kind": (only(token=ELSEWHERE, kind="group"), "rejected", "bad-options", None),
    "invalid name": (only(token=ELSEWHERE, username="a:b"), "rejected", "bad-options", None),
}


@pytest.mark.parametrize("case", FAILURES)
def test_failures_are_classified(world: World, case: str) -> None:
    """Each failure has its kind, its reason and its fix, and contains no text of the server and no secret."""
    prepare, kind, reason, hint = FAILURES[case]
    prepare(world)
    failure = world.failure()
    assert (failure.kind, failure.reason) == (kind, reason)
    assert (hint is None) == (failure.hint is None)
    assert hint is None or hint in (failure.hint or "")
    assert failure.message.endswith(".")


def test_in_a_worker(world: World) -> None:
    """The worker loads the provider by its name, and writes one line."""
    personal(world)
    outcome = wire.decode_answer(world.worker().communicate(timeout=60)[0].rstrip())
    assert isinstance(outcome, Credential)
    world.cloud.revoke(world.kept())
    assert isinstance(wire.decode_answer(world.worker().communicate(timeout=60)[0].rstrip()), Failure)
    until(lambda: world.marks() == [])

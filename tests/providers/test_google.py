"""google-artifact-registry, with the real google-auth and a loopback Google behind a TLS-terminating proxy."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from clouds import google as fake
from clouds.google_world import TARGET, World, asked, loopback_world
from clouds.tls import TlsProxy
from support.loopback import CANARY
from uvtokend.core.fixes import set_clock
from uvtokend.core.model import Credential, Failure
from uvtokend.providers.google import fetch as google
from uvtokend.providers.google import files, gcloud, transport
from uvtokend.sandbox.web import Answer, Server, Site

LOGIN = "gcloud auth application-default login"
BUILDER = f"builder@{fake.PROJECT}.iam.gserviceaccount.com"
HTML = Answer(200, b"<html>Please log in to this network</html>", {"Content-Type": "text/html"})
FUTURE = datetime(2099, 1, 31, 8, 0, tzinfo=UTC)


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    with loopback_world(tmp_path, monkeypatch) as created:
        yield created


def check(world: World, credential: Credential, identity: str | None, holder: str | None = None) -> None:
    """Check that a credential is the one that Google issued: valid, for the right identity, with its real expiry."""
    token = credential.password.reveal()
    assert world.cloud.valid(token)
    assert world.cloud.holder(token) == (holder or identity)
    assert (credential.login, credential.identity) == ("oauth2accesstoken", identity)
    assert credential.expires_at is not None
    assert credential.expires_at.tzinfo is UTC
    assert abs(credential.expires_at - credential.issued_at - timedelta(seconds=world.cloud.life)) < timedelta(
        seconds=60
    )
    assert world.proxy.refused == []


# --------------------------------------------------------------------------------------- the forms of a sign-in


def service_account(world: World) -> None:
    world.use(world.cloud.service_account())


def user(world: World) -> None:
    world.well_known(world.cloud.user())


def user_named(world: World) -> None:
    world.use(world.cloud.user())


def workforce(world: World) -> None:
    world.use(world.cloud.workforce_user())


def federated(world: World) -> None:
    world.use(world.cloud.external_account({"file": world.subject()}))


def federated_program(world: World) -> None:
    world.executable()


def federated_workforce(world: World) -> None:
    world.executable(fake.WORKFORCE)


def federated_aws(world: World) -> None:
    world.aws()


def federated_impersonating(world: World) -> None:
    world.cloud.impersonable.add(TARGET)
    world.use(world.cloud.external_account({"file": world.subject()}, TARGET))


def impersonating(world: World) -> None:
    world.cloud.impersonable.add(TARGET)
    url, source = fake.impersonation_url(TARGET), world.cloud.user()
    kind = "impersonated_service_account"
    world.well_known({"type": kind, "service_account_impersonation_url": url, "source_credentials": source})


Setting = Callable[[World], None]

FORMS: dict[str, tuple[Setting, str, str | None]] = {
    "service account": (service_account, BUILDER, None),
    "user": (user, "person@example.com", None),
    "user named by the variable": (user_named, "person@example.com", None),
    "workforce user": (workforce, fake.WORKFORCE, "workforce@example.com"),
    "external account, file": (federated, fake.POOL, "principal:" + fake.POOL),
    "external account, program": (federated_program, fake.POOL, "principal:" + fake.POOL),
    "external account, workforce": (federated_workforce, fake.WORKFORCE, "principal:" + fake.WORKFORCE),
    "external account, AWS": (federated_aws, fake.POOL, "principal:" + fake.POOL),
    "external account, impersonating": (federated_impersonating, TARGET, None),
    "impersonated service account": (impersonating, TARGET, None),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_adc(world: World, form: str) -> None:
    """Each kind of ADC results in a valid token for its identity, with requests to Google only and without gcloud."""
    prepare, identity, holder = FORMS[form]
    marker = world.home / "gcloud-was-run"
    world.program(f": > {marker}\n")
    prepare(world)
    check(world, google.fetch(asked()), identity, holder)
    assert not marker.exists()


def test_a_credentials_file_overrides_the_environment(world: World) -> None:
    """With `credentials-file` only that file is used, and Google is asked exactly once."""
    world.use(world.cloud.user("other@example.com"))
    path = world.file(world.cloud.service_account(), "key.json")
    check(world, google.fetch(asked(source="adc", credentials_file=path)), BUILDER)
    assert world.paths() == ["oauth2.googleapis.com/token"]


@pytest.mark.parametrize("prepare", [service_account, user, federated], ids=lambda prepare: prepare.__name__)
def test_impersonation_with_a_lifetime(world: World, prepare: Setting) -> None:
    """Any source may impersonate, and the requested life is the reported one."""
    prepare(world)
    world.cloud.impersonable.add(TARGET)
    world.cloud.longest, world.cloud.life = 43200, 7200
    check(world, google.fetch(asked(impersonate_service_account=TARGET, lifetime=7200)), TARGET)


def test_a_subject_token_from_a_url(world: World) -> None:
    """The subject token may come from a URL. Errors of that URL are not reported as Google's."""
    subject = Path(world.subject()).read_text()
    answers = [Answer(200, subject.encode()), Answer(403, CANARY.encode()), Answer(200, b""), HTML]
    with Server(lambda _: answers.pop(0)) as issuer:
        world.use(world.cloud.external_account({"url": f"{issuer.url}/token"}))
        check(world, google.fetch(asked()), fake.POOL, "principal:" + fake.POOL)
        reasons = [(failure.kind, failure.reason) for failure in (world.failure(), world.failure(), world.failure())]
    assert reasons == [("transient", "subject-token")] * 2 + [("transient", "captive-portal")]


def test_the_expiry_is_on_our_clock(world: World) -> None:
    """Google gives an impersonated token's expiry on its own clock, which is converted to ours."""
    user(world)
    world.cloud.impersonable.add(TARGET)
    world.cloud.clock_ahead = 5000
    credential = google.fetch(asked(impersonate_service_account=TARGET))
    check(world, credential, TARGET)
    assert credential.skew == pytest.approx(-5000, abs=5)
    world.cloud.clock_ahead = 0
    assert google.fetch(asked()).skew == 0


def test_netrc_does_not_replace_the_token(world: World) -> None:
    """requests would replace our Bearer header with a netrc entry for the host, so our session ignores netrc."""
    user(world)
    world.cloud.impersonable.add(TARGET)
    netrc = world.file("default login stranger password wrong\n", "netrc")
    Path(netrc).chmod(0o600)
    world.patch.setenv("NETRC", netrc)
    check(world, google.fetch(asked(impersonate_service_account=TARGET)), TARGET)


def test_the_metadata_server(world: World) -> None:
    """On a Google machine the token comes from the metadata server, and a cached one has its real expiry."""
    world.patch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    with Server(world.cloud.metadata) as metadata:
        world.machine(metadata)
        first, second = world.worker(), world.worker()
    assert isinstance(first, Credential)
    assert isinstance(second, Credential)
    check(world, first, fake.MACHINE)
    assert first.password.reveal() == second.password.reveal()
    assert first.expires_at is not None
    assert second.expires_at is not None
    assert abs(first.expires_at - second.expires_at) <= timedelta(seconds=3)


def test_the_metadata_server_impersonating(world: World) -> None:
    """A machine's identity may impersonate too, without a request for its universe domain."""
    world.cloud.impersonable.add(TARGET)
    with Server(world.cloud.metadata) as metadata:
        world.machine(metadata)
        credential = world.worker(impersonate_service_account=TARGET)
        paths = [call.path for call in metadata.calls]
    assert isinstance(credential, Credential)
    check(world, credential, TARGET)
    assert not [path for path in paths if "universe" in path or "project" in path]


@pytest.mark.parametrize("url", ["http://169.254.169.254/x", "http://metadata.google.internal/x"])
def test_the_metadata_server_is_never_reached_through_a_proxy(world: World, url: str) -> None:
    """A proxy would return the token of its own machine, so requests to the metadata server bypass it."""
    with Server(lambda _: Answer(200, b"", {"Metadata-Flavor": "Google"})) as proxy:
        world.patch.setenv("HTTP_PROXY", proxy.url)
        world.patch.setattr(socket, "create_connection", _nowhere)
        world.patch.setattr(socket, "getaddrinfo", _nowhere)
        assert not transport.Transport().is_metadata_server(url.split("/")[2])
        assert proxy.calls == []


def _nowhere(*_: Any, **__: Any) -> Any:
    raise OSError


# -------------------------------------------------------------------------------------------------------- failures


def answering(answer: Answer) -> Site:
    return lambda _: answer


def at(endpoint: fake.Endpoint, answer: Answer) -> Setting:
    return lambda world: world.cloud.faults.update({endpoint: answering(answer)})


def both(*steps: Setting) -> Setting:
    def run(world: World) -> None:
        for step in steps:
            step(world)

    return run


def nothing(world: World) -> None:
    """Set up nothing at all."""


def no_proxy(world: World) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        world.patch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{free.getsockname()[1]}")


def host_unknown_to_the_proxy(world: World) -> None:
    world.proxy.sites = {}


def distrusted(world: World) -> None:
    with TlsProxy({}) as other:
        world.file(Path(other.ca_file).read_text(), "other.pem")
    world.patch.setenv("REQUESTS_CA_BUNDLE", str(world.home / "other.pem"))


def no_bundle(world: World) -> None:
    world.patch.setenv("REQUESTS_CA_BUNDLE", str(world.home / "missing.pem"))


def named_file(content: Any) -> Setting:
    return lambda world: world.patch.setenv("GOOGLE_APPLICATION_CREDENTIALS", world.file(content))


def named_missing(world: World) -> None:
    user(world)
    world.patch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(world.home / "missing.json"))


def named_directory(world: World) -> None:
    world.patch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(world.home))


def broken_login(world: World) -> None:
    world.well_known({"type": "authorized_user", "client_id": "x"})


def other_key(world: World) -> None:
    old = world.cloud.service_account()
    world.cloud.service_account()
    world.use(old)


def no_address(world: World) -> None:
    world.use({**world.cloud.service_account(), "token_uri": CANARY})


def unknown_account(world: World) -> None:
    world.use(fake.GoogleCloud().service_account())


def ahead(world: World) -> None:
    service_account(world)
    world.cloud.clock_ahead = 79 * 60


def logged_out(world: World) -> None:
    world.well_known(fake.GoogleCloud().user())


def stale_subject(world: World) -> None:
    federated(world)
    world.cloud.subjects.clear()


def impersonated_signed_out(world: World) -> None:
    kind, url = "impersonated_service_account", fake.impersonation_url(TARGET)
    gone = fake.GoogleCloud().user()
    world.well_known({"type": kind, "service_account_impersonation_url": url, "source_credentials": gone})


def other_pool(world: World) -> None:
    world.use({**world.cloud.external_account({"file": world.subject()}), "audience": "//iam.googleapis.com/other"})


def program_forbidden(world: World) -> None:
    federated_program(world)
    world.patch.delenv("GOOGLE_EXTERNAL_ACCOUNT_ALLOW_EXECUTABLES")


def program_failing(world: World) -> None:
    federated_program(world)
    world.program(f"echo {CANARY}; exit 1\n", "subject-token")


def disabled(world: World) -> None:
    message = f"IAM Service Account Credentials API has not been used in project 1 before {CANARY}."
    world.cloud.faults["iam"] = answering(fake.problem(403, "PERMISSION_DENIED", message, reason="SERVICE_DISABLED"))


def allowed(world: World) -> None:
    world.cloud.impersonable.add(TARGET)


def refusal(error: str, subtype: str = "", status: int = 400) -> Answer:
    return fake.refusal(error, CANARY, subtype, status)


TO_TARGET = {"impersonate_service_account": TARGET}
BUSY = Answer(429, CANARY.encode(), {"Retry-After": "17"})
GARBAGE = Answer(200, f'"{CANARY}"'.encode(), {"Content-Type": "application/json"})
SPACE = Answer.json({"access_token": f"{CANARY} x", "expires_in": 3599})
SOON = Answer.json({"access_token": CANARY, "expires_in": "soon"})
KEYS = f"gcloud iam service-accounts keys create new-key.json --iam-account {BUILDER}"
PEOPLE = fake.POOL.partition("/providers/")[0]
BIND = f"gcloud iam service-accounts add-iam-policy-binding {TARGET} --member"

#: The setup, the options, and the failure: kind, reason, hint.
FAILURES: dict[str, tuple[Setting, dict[str, Any], str, str, str | None]] = {
    "nothing is set up": (nothing, {}, "login-required", "no-credentials", LOGIN),
    "named file is missing": (named_missing, {}, "rejected", "no-credentials-file", None),
    "named file is a directory": (named_directory, {}, "rejected", "bad-credentials-file", None),
    "named file is not JSON": (named_file(CANARY), {}, "rejected", "bad-credentials-file", None),
    "named file is a list": (named_file([CANARY]), {}, "rejected", "bad-credentials-file", None),
    "named file has an unknown type": (named_file({"type": CANARY}), {}, "rejected", "bad-credentials-file", None),
    "key is invalid": (
        named_file({"type": "service_account", "client_email": "a@b", "token_uri": "x", "private_key": CANARY}),
        {},
        "rejected",
        "bad-credentials-file",
        None,
    ),
    "key has no token URL": (
        no_address,
        {},
        "rejected",
        "bad-credentials-file",
        None,
    ),
    "impersonation of nothing": (
        named_file({"type": "impersonated_service_account"}),
        {},
        "rejected",
        "bad-credentials-file",
        None,
    ),
    "login file is broken": (broken_login, {}, "login-required", "bad-credentials-file", LOGIN),
    "login was revoked": (logged_out, {}, "login-required", "login-expired", LOGIN),
    "reauthentication": (
        both(user, at("token", fake.REAUTHENTICATE)),
        {},
        "login-required",
        "reauthentication",
        LOGIN,
    ),
    "reauthentication, other subtype": (
        both(user, at("token", refusal("invalid_grant", "rapt_required"))),
        {},
        "login-required",
        "reauthentication",
        LOGIN,
    ),
    "workforce login was revoked": (
        both(workforce, at("sts", fake.REVOKED)),
        {},
        "login-required",
        "login-expired",
        LOGIN,
    ),
    "client was deleted": (
        both(user, at("token", refusal("deleted_client", status=401))),
        {},
        "login-required",
        "client-refused",
        LOGIN,
    ),
    "policy": (both(user, at("token", refusal("admin_policy_enforced"))), {}, "rejected", "policy", None),
    "unknown refusal of a user": (both(user, at("token", refusal("invalid_scope"))), {}, "rejected", "refused", LOGIN),
    "refusal without a body": (both(user, at("token", Answer(403))), {}, "rejected", "refused", LOGIN),
    "key was deleted": (other_key, {}, "rejected", "key-revoked", KEYS),
    "account was deleted": (
        unknown_account,
        {},
        "rejected",
        "account-gone",
        f"gcloud iam service-accounts describe {BUILDER}",
    ),
    "clock is wrong": (ahead, {}, "transient", "clock-skew", set_clock()),
    "refusal of a service account": (
        both(service_account, at("token", refusal("invalid_scope"))),
        {},
        "rejected",
        "refused",
        None,
    ),
    "subject token is stale": (stale_subject, {}, "transient", "subject-token", None),
    "subject token's program fails": (
        program_failing,
        {},
        "login-required",
        "executable-failed",
        "run subject-token at a terminal to see why",
    ),
    "subject token's program is forbidden": (
        program_forbidden,
        {},
        "rejected",
        "executable-not-allowed",
        'set env = { GOOGLE_EXTERNAL_ACCOUNT_ALLOW_EXECUTABLES = "1" } for this index',
    ),
    "subject token is for another audience": (
        both(federated, at("sts", fake.refusal("invalid_grant", "The audience in ID Token [x] does not match."))),
        {},
        "rejected",
        "wrong-subject-token",
        "compare the token with the provider's issuer and audiences",
    ),
    "pool's identity may not impersonate": (
        federated,
        TO_TARGET,
        "rejected",
        "impersonation-denied",
        f"{BIND}=principal:{PEOPLE}/subject/SUBJECT --role=roles/iam.workloadIdentityUser",
    ),
    "sign-in behind an impersonation has expired": (
        impersonated_signed_out,
        {},
        "login-required",
        "login-expired",
        f"gcloud auth application-default login --impersonate-service-account={TARGET}",
    ),
    "pool is another": (other_pool, {}, "rejected", "federation-refused", None),
    "may not impersonate": (
        service_account,
        TO_TARGET,
        "rejected",
        "impersonation-denied",
        f"{BIND}=serviceAccount:{BUILDER} --role=roles/iam.serviceAccountTokenCreator",
    ),
    "impersonated account is gone": (
        both(user, at("iam", fake.problem(404, "NOT_FOUND", f"Not found; {CANARY}"))),
        TO_TARGET,
        "rejected",
        "account-gone",
        f"gcloud iam service-accounts describe {TARGET}",
    ),
    "API is off": (
        both(user, disabled),
        TO_TARGET,
        "rejected",
        "api-disabled",
        "gcloud services enable iamcredentials.googleapis.com",
    ),
    "impersonation is refused": (
        both(user, at("iam", fake.problem(400, CANARY, CANARY))),
        TO_TARGET,
        "rejected",
        "refused",
        None,
    ),
    "garbage instead of an impersonation": (
        both(user, at("iam", Answer.json({"accessToken": CANARY, "expireTime": "soon"}))),
        TO_TARGET,
        "transient",
        "bad-answer",
        None,
    ),
    "user may not impersonate": (
        user,
        TO_TARGET,
        "rejected",
        "impersonation-denied",
        f"{BIND}=user:ACCOUNT --role=roles/iam.serviceAccountTokenCreator",
    ),
    "life is too long": (both(user, allowed), {**TO_TARGET, "lifetime": 7200}, "rejected", "lifetime", None),
    "source's token is refused": (
        both(user, at("iam", fake.problem(401, "UNAUTHENTICATED", CANARY))),
        TO_TARGET,
        "rejected",
        "refused",
        None,
    ),
    "busy": (both(user, at("token", BUSY)), {}, "transient", "throttled", None),
    "busy in OAuth's words": (
        both(user, at("token", refusal("rate_limit_exceeded", status=403))),
        {},
        "transient",
        "throttled",
        None,
    ),
    "fault at Google": (both(user, at("token", Answer(500, CANARY.encode()))), {}, "transient", "server-error", None),
    "fault at Google, later": (
        both(user, allowed, at("iam", Answer(503, CANARY.encode()))),
        TO_TARGET,
        "transient",
        "server-error",
        None,
    ),
    "fault in OAuth's words": (
        both(user, at("token", refusal("internal_failure"))),
        {},
        "transient",
        "server-error",
        None,
    ),
    "captive portal": (both(user, at("token", HTML)), {}, "transient", "captive-portal", None),
    "captive portal of an exchange": (both(federated, at("sts", HTML)), {}, "transient", "captive-portal", None),
    "captive portal, redirecting": (
        both(user, at("token", Answer(302, b"", {"Location": "https://portal.example/"}))),
        {},
        "transient",
        "captive-portal",
        None,
    ),
    "captive portal, honest": (both(user, at("token", Answer(511))), {}, "transient", "captive-portal", None),
    "garbage": (both(user, at("token", GARBAGE)), {}, "transient", "bad-answer", None),
    "token with a space": (both(user, at("token", SPACE)), {}, "transient", "bad-answer", None),
    "expiry is not a number": (both(user, at("token", SOON)), {}, "transient", "bad-answer", None),
    "no token in the answer": (both(user, at("token", Answer.json({}))), {}, "transient", "bad-answer", None),
    "nothing listens": (both(user, no_proxy), {}, "transient", "unreachable", None),
    "proxy refuses": (both(user, host_unknown_to_the_proxy), {}, "transient", "unreachable", None),
    "certificate is not trusted": (both(user, distrusted), {}, "transient", "untrusted-certificate", None),
    "bundle is missing": (
        both(user, no_bundle),
        {},
        "rejected",
        "ca-bundle",
        'correct REQUESTS_CA_BUNDLE, or write ca-bundle = "system" in [daemon]',
    ),
    "source is unknown": (user, {"source": "guess"}, "rejected", "bad-options", None),
    "file with gcloud": (nothing, {"source": "gcloud", "credentials_file": "x"}, "rejected", "bad-options", None),
    "life without impersonation": (user, {"lifetime": 600}, "rejected", "bad-options", None),
    "life is beyond the limit": (user, {**TO_TARGET, "lifetime": 43201}, "rejected", "bad-options", None),
}


@pytest.mark.parametrize("case", FAILURES)
def test_failures(world: World, case: str) -> None:
    """Every failure is classified at the first response, has its fix, and shows no secret."""
    prepare, options, kind, reason, hint = FAILURES[case]
    world.program(": > gcloud-was-run\n")
    prepare(world)
    failure = world.failure(**options)
    assert (failure.kind, failure.reason, failure.hint) == (kind, reason, hint)
    assert failure.message.endswith(".")
    assert len(world.proxy.calls) <= 2
    assert not (world.home / "gcloud-was-run").exists()


@pytest.mark.parametrize("content", [None, "", "[]"])
def test_a_token_file_that_is_missing_or_wrong(world: World, content: str | None) -> None:
    """Retrying would not create the file, so the failure is rejected and names it."""
    file = world.home / "missing"
    if content is not None:
        file.write_text(content)
    source = {"file": str(file), "format": {"type": "json", "subject_token_field_name": "token"}}
    world.use(world.cloud.external_account(source))
    failure = world.failure()
    assert (failure.kind, failure.reason) == (
        "rejected",
        "no-subject-token" if content is None else "bad-subject-token",
    )
    assert str(file) in failure.message
    assert world.proxy.calls == []


def test_a_slow_program_is_retried() -> None:
    """If an external account's program times out, the failure is transient."""
    slow = files.Subject(command="/opt/tool --audience x").problem(subprocess.TimeoutExpired("x", 5))
    assert slow is not None
    assert (slow.failure.kind, slow.failure.reason) == ("transient", "timeout")
    assert files.Subject().problem(ValueError()) is None


@pytest.mark.parametrize(
    ("accounts", "hint"),
    [
        (["me@example.com"], 'set source = "gcloud" for this index, or run: gcloud auth application-default login'),
        ([], "gcloud auth application-default login"),
    ],
)
def test_only_gcloud_is_signed_in(world: World, accounts: list[str], hint: str) -> None:
    """After only ``gcloud auth login`` there are no default credentials. The failure names the account and the fix."""
    world.program(": > gcloud-was-run\n")
    store = world.home / "gcloud" / "credentials.db"
    store.parent.mkdir()
    with contextlib.closing(sqlite3.connect(store)) as database:
        database.execute("CREATE TABLE credentials (account_id TEXT PRIMARY KEY, value BLOB)")
        database.executemany("INSERT INTO credentials VALUES (?, ?)", [(name, CANARY) for name in accounts])
        database.commit()
    failure = world.failure()
    assert (failure.kind, failure.reason, failure.hint) == ("login-required", "no-credentials", hint)
    assert all(name in failure.message for name in accounts)
    assert not (world.home / "gcloud-was-run").exists()


def test_retry_after_is_passed_on(world: World) -> None:
    """Google's Retry-After is passed on in seconds."""
    user(world)
    world.cloud.faults["token"] = answering(BUSY)
    assert world.failure().retry_after == 17


@pytest.mark.parametrize("limit", ["CALL_TIMEOUT", "TIMEOUT"])
def test_a_google_that_never_answers(world: World, limit: str) -> None:
    """If Google accepts a connection but never answers, the fetch ends at its timeout."""
    user(world)
    over = threading.Event()
    world.cloud.faults["token"] = fake.hanging(over.wait)
    world.patch.setattr(transport if limit == "CALL_TIMEOUT" else google, limit, 0.3)
    try:
        failure = world.failure()
    finally:
        over.set()
    assert (failure.kind, failure.reason) == ("transient", "timeout")


def test_a_machine_without_a_service_account(world: World) -> None:
    """If the metadata server answers 404 because the machine has no service account, the failure is rejected."""
    answer = world.cloud.metadata

    def site(call: Any) -> Answer:
        return Answer(404, CANARY.encode()) if "service-accounts" in call.path else answer(call)

    with Server(site) as metadata:
        world.machine(metadata)
        failure = world.worker()
    assert isinstance(failure, Failure)
    assert (failure.kind, failure.reason, failure.hint) == ("rejected", "no-service-account", None)


def test_a_foreign_metadata_server(world: World) -> None:
    """A server at the well-known address without Google's header gets no token request."""
    with Server(answering(Answer(200, b"latest"))) as metadata:
        world.machine(metadata)
        world.patch.delenv("GCE_METADATA_HOST")
        failure = world.worker()
        asked_for = [call.path for call in metadata.calls]
    assert isinstance(failure, Failure)
    assert (failure.kind, failure.reason, failure.hint) == ("login-required", "no-credentials", LOGIN)
    assert asked_for == ["/"]


def test_a_named_metadata_server_that_is_down(world: World) -> None:
    """If the environment names a metadata server that does not answer, the failure is transient."""
    world.patch.delenv("NO_GCE_CHECK")
    world.patch.setenv("GCE_METADATA_HOST", "127.0.0.1:9")
    failure = world.failure()
    assert (failure.kind, failure.reason) == ("transient", "unreachable")


# --------------------------------------------------------------------------------------------------------- gcloud


def install_gcloud(world: World, properties: str = '{"core": {"account": "person@example.com"}}') -> None:
    """Install a fake gcloud that records its arguments and answers as documented for config-helper."""
    world.secrets.append(CANARY)
    answer = (
        f'{{"credential": {{"access_token": "{CANARY}", "token_expiry": "2099-01-31T08:00:00Z"}},'
        f' "configuration": {{"properties": {properties}}}}}'
    )
    note = f'echo "$@" > {world.home}/arguments\n/usr/bin/env > {world.home}/environment\n'
    world.program(f"{note}echo '{answer}'\n")


def test_gcloud_as_the_source(world: World) -> None:
    """gcloud returns a new token of its own account and gets our CA bundle. ADC is not used."""
    user(world)
    install_gcloud(world)
    credential = google.fetch(asked(source="gcloud"))
    assert (credential.login, credential.password.reveal()) == ("oauth2accesstoken", CANARY)
    assert (credential.expires_at, credential.identity) == (FUTURE, "person@example.com")
    arguments = (world.home / "arguments").read_text()
    assert arguments.startswith("config config-helper --force-auth-refresh --format=json(credential.access_token,")
    environment = (world.home / "environment").read_text()
    assert "CLOUDSDK_CORE_DISABLE_PROMPTS=1" in environment
    assert f"CLOUDSDK_CORE_CUSTOM_CA_CERTS_FILE={world.proxy.ca_file}" in environment
    assert world.proxy.calls == []


def test_gcloud_that_impersonates(world: World) -> None:
    """If gcloud itself impersonates, the identity is the impersonated account."""
    install_gcloud(
        world, json.dumps({"core": {"account": "a@example.com"}, "auth": {"impersonate_service_account": TARGET}})
    )
    assert google.fetch(asked(source="gcloud")).identity == TARGET


def test_impersonation_by_the_account_of_gcloud(world: World) -> None:
    """gcloud's token may be the source of an impersonation."""
    allowed(world)
    token = world.cloud.user_token("person@example.com")
    world.program(f'echo \'{{"credential": {{"access_token": "{token}"}}}}\'\n')
    check(world, google.fetch(asked(source="gcloud", impersonate_service_account=TARGET)), TARGET)
    assert [path.rpartition("/")[2] for path in world.paths()] == [f"{TARGET}:generateAccessToken"]


def test_gcloud_without_an_expiry(world: World) -> None:
    """gcloud documents that the expiry of some tokens is unknown, and then it stays unknown."""
    world.program('echo \'{"credential": {"access_token": "abc", "token_expiry": null}}\'\n')
    credential = google.fetch(asked(source="gcloud"))
    assert (credential.expires_at, credential.identity) == (None, None)


REFRESHING = "There was a problem refreshing your current auth tokens:"
ADVICE = "\nPlease run:\n\n  $ gcloud auth login\n\nto obtain new credentials."
POOLED = "HTTPSConnectionPool(host='oauth2.googleapis.com', port=443): Max retries exceeded with url: /token"
OF_ACCOUNT = "There was a problem refreshing auth tokens for account builder@example.com:"
KEY_ADVICE = "\nPlease run:\n\n  $ gcloud auth activate-service-account --key-file=SERVICE_ACCOUNT_FILE_PATH"
SHORT_LIVED = json.loads(fake.SKEWED.body)["error_description"]
#: The real output of gcloud 528 with this loopback Google, except for "certificate" and "unknown".
GCLOUD_FAILURES = {
    "no account": (
        f"You do not currently have an active account selected.{ADVICE}",
        ("login-required", "no-account", "gcloud auth login"),
    ),
    "revoked": (
        f"{REFRESHING} ('invalid_grant: Token has been expired or revoked.', '{CANARY}'){ADVICE}",
        ("login-required", "login-expired", "gcloud auth login"),
    ),
    "reauthentication": (
        f"{REFRESHING} Reauthentication failed. cannot prompt during non-interactive execution.{ADVICE}",
        ("login-required", "reauthentication", "gcloud auth login"),
    ),
    "unreachable, with the advice to log in": (
        f"{REFRESHING} {POOLED}{ADVICE}",
        ("transient", "unreachable", None),
    ),
    "key was deleted": (
        f"{OF_ACCOUNT} ('invalid_grant: Invalid JWT Signature.', '{CANARY}'){KEY_ADVICE}",
        ("login-required", "login-expired", "gcloud auth login --cred-file=KEY.json"),
    ),
    "clock is wrong": (
        f"{OF_ACCOUNT} ('invalid_grant: {SHORT_LIVED}', '{CANARY}'){KEY_ADVICE}",
        ("transient", "clock-skew", set_clock()),
    ),
    "fault at Google, with the advice to log in": (
        f"{OF_ACCOUNT} {KEY_ADVICE}",
        ("transient", "gcloud-failed", "gcloud config config-helper --format='value(credential.token_expiry)'"),
    ),
    "may not impersonate": (
        f"PERMISSION_DENIED: Failed to impersonate [{TARGET}]. Make sure the account that's trying to impersonate it",
        ("rejected", "impersonation-denied", None),
    ),
    "certificate": (
        f"{REFRESHING} {POOLED} (Caused by SSLError(1, '[SSL: CERTIFICATE_VERIFY_FAILED]')){ADVICE}",
        ("transient", "untrusted-certificate", None),
    ),
    "unknown": (
        CANARY,
        ("transient", "gcloud-failed", "gcloud config config-helper --format='value(credential.token_expiry)'"),
    ),
}


@pytest.mark.parametrize("case", GCLOUD_FAILURES)
def test_gcloud_failing(world: World, case: str) -> None:
    """gcloud's errors are classified and not shown, and no other source is used instead."""
    user(world)
    complaint, expected = GCLOUD_FAILURES[case]
    path = world.file(f"ERROR: (gcloud.config.config-helper) {complaint}\n", "complaint")
    world.program(f'while read -r line; do echo "$line" >&2; done < {path}\nexit 1\n')
    failure = world.failure(source="gcloud")
    assert (failure.kind, failure.reason, failure.hint) == expected
    assert world.proxy.calls == []


@pytest.mark.parametrize(
    "answer", ["", "nonsense", "[]", '{"credential": null}', '{"credential": {"access_token": ""}}']
)
def test_invalid_output_of_gcloud(world: World, answer: str) -> None:
    """Output without a token is a transient failure."""
    world.program(f"echo '{answer}'\n")
    failure = world.failure(source="gcloud")
    assert (failure.kind, failure.reason) == ("transient", "bad-answer")


def test_gcloud_missing(world: World) -> None:
    """Without gcloud on PATH the source fails, and ADC is not used, although it would work."""
    user(world)
    failure = world.failure(source="gcloud")
    assert (failure.kind, failure.reason) == ("rejected", "no-gcloud")
    (world.home / "bin" / "gcloud").write_text("not a program")
    (world.home / "bin" / "gcloud").chmod(0o755)
    assert world.failure(source="gcloud").reason == "no-gcloud"
    assert world.proxy.calls == []


def test_a_gcloud_that_hangs(world: World) -> None:
    """A hung gcloud ends at its timeout, although a child keeps the pipe open. The child is in our process group, so
    it is killed with the fetch."""
    note = world.home / "child"
    world.program(f"/bin/sleep 600 &\necho $! > {note}.new\n/bin/mv {note}.new {note}\nwait\n")
    world.patch.setattr(gcloud, "TIMEOUT", 1.0)
    failure = world.failure(source="gcloud")
    assert (failure.kind, failure.reason) == ("transient", "timeout")
    child = int(note.read_text())
    try:
        assert os.getpgid(child) == os.getpgrp()
    finally:
        os.kill(child, signal.SIGKILL)


# --------------------------------------------------------------------------------------------------------- secrets

_DEBUG = """
import json, logging, sys, warnings
logging.basicConfig(level=logging.DEBUG, stream=sys.stderr)
logging.getLogger("google").setLevel(logging.DEBUG)
logging.debug("the log is on")
from uvtokend.core.model import Request
from uvtokend.errors import FetchFailed
from uvtokend.providers.google.fetch import fetch
options = tuple(sorted(json.loads(sys.argv[1]).items()))
try:
    print("got", repr(fetch(Request("google-artifact-registry", options=options))))
except FetchFailed as failed:
    logging.exception("failed")
    print("failed", failed, repr(failed.failure))
"""


@pytest.mark.parametrize("faulty", [False, True])
@pytest.mark.parametrize(
    "prepare", [service_account, user, federated_impersonating], ids=lambda setting: setting.__name__
)
def test_no_secret_is_shown(world: World, prepare: Setting, faulty: bool) -> None:
    """With all debug logging enabled, the output contains no token, key, refresh token or client secret."""
    prepare(world)
    allowed(world)
    world.secrets.append(CANARY)
    if faulty:
        world.cloud.faults["iam"] = answering(fake.problem(400, CANARY, CANARY))
    env = {**os.environ, "GOOGLE_SDK_PYTHON_LOGGING_SCOPE": "google"}
    command = [sys.executable, "-c", _DEBUG, json.dumps({"impersonate-service-account": TARGET, "lifetime": 600})]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.startswith("failed" if faulty else "got")
    assert done.stderr.count("DEBUG") == 1
    output = done.stdout + done.stderr
    assert not [secret for secret in [*world.secrets, *world.cloud.issued()] if secret in output]

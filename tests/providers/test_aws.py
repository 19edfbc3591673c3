"""aws-codeartifact: the real boto3 against the emulator, through every way to log in and every way to fail."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from botocore.config import Config

from uvtokend.core import wire
from uvtokend.core.model import Credential, Failure, Frozen, Request
from uvtokend.errors import FetchFailed
from uvtokend.providers import aws
from uvtokend.sandbox import codeartifact
from uvtokend.sandbox.codeartifact import CodeArtifact
from uvtokend.sandbox.web import Answer, Call

ROLE = "arn:aws:iam::123456789012:role/dev"
LEAK = "[profile dev]\ncredential_process = sh -c 'echo the-canary >&2; exit 1'"
MFA = (
    f"[profile dev]\nrole_arn = {ROLE}\nsource_profile = base\nmfa_serial = arn:aws:iam::1:mfa/me\n"
    "[profile base]\naws_access_key_id = A\naws_secret_access_key = the-canary"
)
HTML = Answer(200, b"<html><body>Please pay for the Wi-Fi.</body></html>", {"Content-Type": "text/html"})
START = "https://acme.awsapps.example/start"


def request(**options: Frozen) -> Request:
    known: dict[str, Frozen] = {"domain": "acme", "domain-owner": "123456789012", "region": "eu-central-1"}
    known |= {name.replace("_", "-"): value for name, value in options.items()}
    return Request("aws-codeartifact", options=tuple(sorted(known.items())))


@pytest.fixture
def cloud(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[CodeArtifact]:
    """The emulator, and an environment in which nothing but it can be found."""
    for name in ("AWS_PROFILE", "AWS_CA_BUNDLE", "AWS_DEFAULT_REGION", "HTTPS_PROXY", "https_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with CodeArtifact() as emulator:
        for name, value in emulator.environment().items():
            monkeypatch.setenv(name, value)
        yield emulator


@pytest.fixture
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """Static keys in the environment."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "the-canary-key")


def configure(tmp_path: Path, text: str) -> None:
    (tmp_path / ".aws").mkdir(exist_ok=True)
    (tmp_path / ".aws" / "config").write_text(text)


def sso_session(tmp_path: Path, seconds: float, refresh: bool = False) -> None:
    configure(
        tmp_path,
        f"[sso-session corp]\nsso_start_url = {START}\nsso_region = eu-central-1\n"
        "sso_registration_scopes = sso:account:access\n"
        "[profile dev]\nsso_session = corp\nsso_account_id = 123456789012\nsso_role_name = dev\n"
        "region = eu-central-1\n",
    )
    cache = tmp_path / ".aws" / "sso" / "cache"
    cache.mkdir(parents=True)
    token = {"accessToken": "sso", "startUrl": START, "region": "eu-central-1", "expiresAt": _iso(seconds)}
    if refresh:
        token |= {
            "refreshToken": "r",
            "clientId": "c",
            "clientSecret": "s",
            "registrationExpiresAt": _iso(86400),
        }
    (cache / f"{hashlib.sha1(b'corp').hexdigest()}.json").write_text(json.dumps(token))


def _iso(seconds: float) -> str:
    return (datetime.now(UTC) + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")


def failure(wanted: Request) -> Failure:
    with pytest.raises(FetchFailed) as caught:
        aws.fetch(wanted)
    assert "canary" not in f"{caught.value} {caught.value.failure}"
    assert caught.value.__cause__ is None
    return caught.value.failure


def in_worker(wanted: Request) -> tuple[Credential | Failure, str]:
    """Fetch in a real worker, since botocore looks for the SSO cache once; return what it printed too."""
    environment = {**os.environ, "UVTOKEND_REQUEST": wire.encode_request(wanted), "UVTOKEND_FETCH_TIMEOUT": "60"}
    command = [sys.executable, "-m", "uvtokend.providers.worker"]
    done = subprocess.run(command, env=environment, capture_output=True, timeout=60, check=True)
    line, _, more = done.stdout.partition(b"\n")
    return wire.decode_answer(line), (more + done.stderr).decode()


@pytest.mark.usefixtures("keys")
def test_a_token_with_its_end_and_its_identity(cloud: CodeArtifact) -> None:
    """Login ``aws``, the emulator's token, its own times, and who it is for."""
    cloud.life = 43200
    credential = aws.fetch(request())
    assert credential.login == "aws"
    assert cloud.valid(credential.password.reveal())
    assert credential.expires_at is not None
    assert 43198 < (credential.expires_at - credential.issued_at).total_seconds() < 43202
    assert credential.identity == "arn:aws:sts::123456789012:assumed-role/dev/me"
    asked = cloud.server.calls[0]
    assert asked.query == {"domain": "acme", "domain-owner": "123456789012"}


@pytest.mark.usefixtures("keys")
def test_the_duration_is_passed_on(cloud: CodeArtifact) -> None:
    """0 is asked for as 0, not left out."""
    for duration in (0, 900):
        aws.fetch(request(duration=duration))
        assert [call for call in cloud.server.calls if call.query][-1].query["duration"] == str(duration)


@pytest.mark.usefixtures("keys")
def test_no_identity_is_no_failure(cloud: CodeArtifact) -> None:
    """STS being away costs the name, not the token."""
    cloud.fault = lambda call: codeartifact.sts_error(500, "Internal", "no") if call.path == "/" else None
    assert aws.fetch(request()).identity is None


@pytest.mark.usefixtures("keys")
def test_a_role_is_assumed_on_top(cloud: CodeArtifact) -> None:
    """``role-arn`` asks STS with the chain's identity, and CodeArtifact with the role's."""
    assert aws.fetch(request(role_arn=ROLE)).identity
    actions = [call.form().get("Action") for call in cloud.server.calls if call.path == "/"]
    assert actions[0] == "AssumeRole"
    token_call = next(call for call in cloud.server.calls if call.path == "/v1/authorization-token")
    assert "ASIAEXAMPLE" in (token_call.headers["Authorization"] or "")


def test_a_profile(cloud: CodeArtifact, tmp_path: Path) -> None:
    """A named profile with keys, and one that assumes a role through it."""
    configure(
        tmp_path,
        "[profile base]\naws_access_key_id = AKIABASE\naws_secret_access_key = x\n"
        f"[profile dev]\nrole_arn = {ROLE}\nsource_profile = base\nregion = eu-central-1\n",
    )
    assert aws.fetch(request(profile="base"))
    assert "AKIABASE" in (cloud.server.calls[0].headers["Authorization"] or "")
    assert aws.fetch(request(profile="dev"))


def test_web_identity(cloud: CodeArtifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pod's or runner's own token is exchanged for the role's keys."""
    (tmp_path / "jwt").write_text("the-canary-jwt")
    monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(tmp_path / "jwt"))
    monkeypatch.setenv("AWS_ROLE_ARN", ROLE)
    assert aws.fetch(request())
    assert cloud.server.calls[0].form()["Action"] == "AssumeRoleWithWebIdentity"


def test_a_container(cloud: CodeArtifact, monkeypatch: pytest.MonkeyPatch) -> None:
    """The container's credentials endpoint."""
    monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"{cloud.url}/container")
    assert aws.fetch(request())


def test_a_credential_process(cloud: CodeArtifact, tmp_path: Path) -> None:
    """A helper of the user's own prints the keys."""
    answer = json.dumps({"Version": 1, "AccessKeyId": "AKIAPROCESS", "SecretAccessKey": "x"})
    (tmp_path / "answer").write_text(answer)
    configure(tmp_path, f"[profile dev]\ncredential_process = cat {tmp_path / 'answer'}\n")
    assert aws.fetch(request(profile="dev"))
    assert "AKIAPROCESS" in (cloud.server.calls[0].headers["Authorization"] or "")


@pytest.mark.parametrize(("left", "refresh"), [(7200, False), (60, True), (-3600, True)])
def test_an_sso_session(cloud: CodeArtifact, tmp_path: Path, left: float, refresh: bool) -> None:
    """A living SSO session serves; one that ends is renewed where it may be."""
    sso_session(tmp_path, left, refresh)
    outcome, _ = in_worker(request(profile="dev"))
    assert isinstance(outcome, Credential)
    assert any(call.path == "/token" for call in cloud.server.calls) == refresh


@pytest.mark.parametrize("left", [-3600, None])
def test_an_sso_session_that_has_ended(cloud: CodeArtifact, tmp_path: Path, left: float | None) -> None:
    """No session, or a dead one: the exact command."""
    sso_session(tmp_path, left or 0)
    if left is None:
        for file in (tmp_path / ".aws" / "sso" / "cache").iterdir():
            file.unlink()
    found, _ = in_worker(request(profile="dev"))
    assert isinstance(found, Failure)
    assert (found.kind, found.reason) == ("login-required", "sso-expired")
    assert found.hint == "aws sso login --profile dev"
    assert cloud.fetches == 0


def answers(answer: Answer) -> Callable[[Call], Answer | None]:
    return lambda call: answer if call.path == "/v1/authorization-token" else None


ERRORS = [
    (codeartifact.error(403, "ExpiredTokenException", "expired"), "login-required", "credentials-expired"),
    (codeartifact.error(403, "UnrecognizedClientException", "Invalid"), "login-required", "bad-credentials"),
    (codeartifact.error(403, "InvalidSignatureException", "Signature expired: …"), "transient", "clock-skew"),
    (codeartifact.error(403, "InvalidSignatureException", "It does not match"), "login-required", "bad-credentials"),
    (codeartifact.error(403, "AccessDeniedException", "is not authorized to perform"), "rejected", "denied"),
    (codeartifact.error(404, "ResourceNotFoundException", "Domain not found"), "rejected", "no-domain"),
    (codeartifact.error(400, "ValidationException", "duration"), "rejected", "bad-option"),
    (codeartifact.error(402, "ServiceQuotaExceededException", "quota"), "rejected", "quota"),
    (codeartifact.error(429, "ThrottlingException", "slow", Retry_After="1"), "transient", "throttled"),
    (codeartifact.error(500, "InternalServerException", "oops"), "transient", "server-error"),
    (codeartifact.error(503, "Whatever", "oops"), "transient", "server-error"),
    (codeartifact.error(418, "Teapot", "no"), "rejected", "refused"),
    (HTML, "transient", "captive-portal"),
    (Answer.json({"odd": 1}), "transient", "captive-portal"),
]


@pytest.mark.usefixtures("keys")
@pytest.mark.parametrize(("answer", "kind", "reason"), ERRORS, ids=[f"{row[2]}-{row[0].status}" for row in ERRORS])
def test_what_codeartifact_refuses(cloud: CodeArtifact, answer: Answer, kind: str, reason: str) -> None:
    """Every answer that is no token ends classified."""
    cloud.fault = answers(answer)
    found = failure(request())
    assert (found.kind, found.reason) == (kind, reason)


@pytest.mark.usefixtures("keys")
def test_retry_after_is_passed_on(cloud: CodeArtifact) -> None:
    """The issuer's wish reaches the schedule, also in whole minutes."""
    cloud.fault = answers(codeartifact.error(429, "ThrottlingException", "slow", Retry_After="7"))
    assert failure(request()).retry_after == 7


@pytest.mark.usefixtures("keys")
@pytest.mark.parametrize(("code", "kind"), [("AccessDenied", "rejected"), ("ExpiredToken", "login-required")])
def test_what_sts_refuses(cloud: CodeArtifact, code: str, kind: str) -> None:
    """A role that may not be assumed, and caller's keys that have expired."""
    cloud.fault = lambda call: codeartifact.sts_error(403, code, "no") if call.path == "/" else None
    assert failure(request(role_arn=ROLE)).kind == kind


@pytest.mark.parametrize(
    ("config", "profile", "kind", "reason"),
    [
        ("", None, "login-required", "no-credentials"),
        ("", "dev", "rejected", "no-profile"),
        ("[profile dev]\ncredential_process = echo garbage", "dev", "rejected", "bad-process"),
        (LEAK, "dev", "login-required", "credential-process"),
        ("[profile dev]\ncredential_process = /does/not/exist", "dev", "rejected", "no-file"),
        ("[profile dev]\naws_access_key_id = AKIA", "dev", "login-required", "no-credentials"),
        ("[profile dev", "dev", "rejected", "bad-profile"),
        (MFA, "dev", "login-required", "mfa"),
        (f"[profile dev]\nrole_arn = {ROLE}\nsource_profile = dev", "dev", "rejected", "bad-profile"),
        ("[profile dev]\nrole_arn = x\nsource_profile = gone", "dev", "rejected", "bad-profile"),
    ],
)  # fmt: skip
def test_a_login_that_is_not_there(
    cloud: CodeArtifact, tmp_path: Path, config: str, profile: str | None, kind: str, reason: str
) -> None:
    """Whatever is wrong with the profile is named, prompts do not hang, and what helpers print does not leak."""
    configure(tmp_path, config)
    found = failure(request(profile=profile) if profile else request())
    assert (found.kind, found.reason) == (kind, reason)
    assert found.hint
    assert cloud.fetches == 0


def test_an_expired_answer_of_a_credential_process(cloud: CodeArtifact, tmp_path: Path) -> None:
    """A helper that hands out dead keys means a login."""
    answer = {"Version": 1, "AccessKeyId": "A", "SecretAccessKey": "x", "SessionToken": "t", "Expiration": _iso(-60)}
    (tmp_path / "answer").write_text(json.dumps(answer))
    configure(tmp_path, f"[profile dev]\ncredential_process = cat {tmp_path / 'answer'}\n")
    assert failure(request(profile="dev")).reason == "credentials-expired"
    assert cloud.fetches == 0


@pytest.mark.usefixtures("keys")
def test_a_cloud_that_is_away(cloud: CodeArtifact, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody answers: transient, so that it is tried again soon."""
    monkeypatch.setenv("AWS_ENDPOINT_URL_CODEARTIFACT", "http://127.0.0.1:9")
    assert failure(request()).reason == "unreachable"


@pytest.mark.usefixtures("keys")
def test_a_cloud_that_never_answers(cloud: CodeArtifact, monkeypatch: pytest.MonkeyPatch) -> None:
    """Our own time limit ends it."""
    release = threading.Event()
    brief = Config(connect_timeout=1, read_timeout=0.3, retries={"total_max_attempts": 1})
    monkeypatch.setattr(aws, "_CONFIG", brief)

    def hang(_: Call) -> Answer | None:
        release.wait(30)
        return None

    cloud.fault = hang
    assert failure(request()).reason == "timeout"
    release.set()


def test_a_container_that_is_away(cloud: CodeArtifact, monkeypatch: pytest.MonkeyPatch) -> None:
    """An endpoint that is down is no verdict on the login; a foreign one is refused by botocore."""
    monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://127.0.0.1:9/x")
    assert failure(request()).kind == "transient"
    monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://evil.example/x")
    assert failure(request()).reason == "bad-profile"


@pytest.mark.usefixtures("keys")
def test_no_secret_is_said_even_at_debug_level(cloud: CodeArtifact, tmp_path: Path) -> None:
    """A worker prints its one line and nothing else, though botocore's debug log would hold the token."""
    (tmp_path / "sitecustomize.py").write_text("import logging\nlogging.basicConfig(level=logging.DEBUG)\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(tmp_path))
        outcome, printed = in_worker(request())
    assert isinstance(outcome, Credential)
    assert cloud.valid(outcome.password.reveal())
    assert printed == ""


def test_the_shape_of_a_token() -> None:
    """Five segments, the first one JSON with the seven keys, and the length that real ones have."""
    token = codeartifact.jwe(1000, 44200)
    assert len(token.split(".")) == 5
    assert 1100 < len(token) < 1550
    assert aws._issued(token) == datetime.fromtimestamp(1000, UTC)
    assert aws._issued("garbage") is None

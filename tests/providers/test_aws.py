"""aws-codeartifact: the real boto3 with the emulator, for every way to sign in and every way to fail."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import subprocess
import sys
import threading
import tomllib
import traceback
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from functools import cache
from pathlib import Path

import pytest
from botocore import exceptions as raised
from botocore.config import Config
from botocore.loaders import JSONFileLoader

from support.loopback import forget
from uvtokend.core import wire
from uvtokend.core.model import Credential, Failure, Frozen, Request
from uvtokend.errors import FetchFailed
from uvtokend.providers.aws import failures
from uvtokend.providers.aws import fetch as aws
from uvtokend.providers.aws.sign_in import ProfileSignIn, sso_end
from uvtokend.sandbox import codeartifact
from uvtokend.sandbox.codeartifact import CodeArtifact
from uvtokend.sandbox.web import Answer, Call

LOUD = "sh -c 'echo the-canary >&2; exit 1'"
ROLE = "arn:aws:iam::123456789012:role/dev"
PAGE = b"<html><body>Please pay for the Wi-Fi.</body></html>"
HTML = Answer(200, PAGE, {"Content-Type": "text/html"})
OLD = datetime(2020, 1, 1, tzinfo=UTC).timestamp()
LEAK = f"[profile dev]\ncredential_process = {LOUD}"
MFA = (
    f"[profile dev]\nrole_arn = {ROLE}\nsource_profile = base\nmfa_serial = arn:aws:iam::1:mfa/me\n"
    "[profile base]\naws_access_key_id = A\naws_secret_access_key = the-canary"
)
START = "https://acme.awsapps.example/start"


def request(**options: Frozen) -> Request:
    known: dict[str, Frozen] = {"domain": "acme", "domain-owner": "123456789012", "region": "eu-central-1"}
    known |= {name.replace("_", "-"): value for name, value in options.items()}
    return Request("aws-codeartifact", options=tuple(sorted(known.items())))


@pytest.fixture(scope="module", autouse=True)
def _models_are_read_once() -> Iterator[None]:
    """Cache botocore's files; otherwise it would parse megabytes of JSON in each test."""
    read = cache(JSONFileLoader().load_file)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(JSONFileLoader, "load_file", lambda _, path: read(path))
        yield


@pytest.fixture
def cloud(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[CodeArtifact]:
    """Return the emulator, in an environment where boto3 can find nothing else."""
    forget(monkeypatch, ("AWS_", "_PROXY"))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with CodeArtifact() as emulator:
        for name, value in emulator.environment().items():
            monkeypatch.setenv(name, value)
        yield emulator


@pytest.fixture
def keys(cloud: CodeArtifact, monkeypatch: pytest.MonkeyPatch) -> None:  # it clears the environment first
    """Set static keys in the environment."""
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
        "region = eu-central-1\n"
        f"[profile role]\nrole_arn = {ROLE}\nsource_profile = dev\n",
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
    assert "canary" not in "".join(traceback.format_exception(caught.value))
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None
    return caught.value.failure


def in_worker(wanted: Request) -> tuple[Credential | Failure, str]:
    """Fetch in a real worker, because botocore reads the location of the SSO cache once. Return the outcome and the
    output."""
    environment = {**os.environ, "UVTOKEND_REQUEST": wire.encode_request(wanted), "UVTOKEND_FETCH_TIMEOUT": "60"}
    command = [sys.executable, "-m", "uvtokend.providers.worker"]
    done = subprocess.run(command, env=environment, capture_output=True, timeout=60, check=True)
    line, _, more = done.stdout.partition(b"\n")
    return wire.decode_answer(line), (more + done.stderr).decode()


@pytest.mark.usefixtures("keys")
def test_a_token_with_its_expiry_and_its_identity(cloud: CodeArtifact) -> None:
    """The credential has the login ``aws``, the emulator's token and times, and the identity it is for."""
    cloud.life = 43200
    credential = aws.fetch(request())
    assert credential.login == "aws"
    assert cloud.valid(credential.password.reveal())
    assert credential.expires_at is not None
    assert 43198 < (credential.expires_at - credential.issued_at).total_seconds() < 43202
    assert credential.identity == "arn:aws:sts::123456789012:assumed-role/dev/me"
    assert credential.skew == 0
    (request_call,) = (call for call in cloud.server.calls if call.path == "/v1/authorization-token")
    assert request_call.query == {"domain": "acme", "domain-owner": "123456789012"}


@pytest.mark.usefixtures("keys")
def test_a_fetch_does_not_look_for_all_services(monkeypatch: pytest.MonkeyPatch) -> None:
    """botocore looks on the disk only for the models of the services that it calls, not for those of 400 others."""
    looks: list[str] = []
    honest = JSONFileLoader.exists

    def exists(loader: JSONFileLoader, path: str) -> bool:
        looks.append(path)
        return bool(honest(loader, path))

    monkeypatch.setattr(JSONFileLoader, "exists", exists)
    aws.fetch(request(role_arn=ROLE))
    services = {Path(path).parts[-3] for path in looks}
    assert services == {"codeartifact", "sts"}


@pytest.mark.usefixtures("keys")
def test_the_duration_is_passed_on(cloud: CodeArtifact) -> None:
    """A duration of 0 is sent as 0, not omitted."""
    for duration in (0, 900):
        aws.fetch(request(duration=duration))
        assert [call for call in cloud.server.calls if call.query][-1].query["duration"] == str(duration)


@pytest.mark.usefixtures("keys")
def test_an_unknown_identity_is_not_a_failure(cloud: CodeArtifact) -> None:
    """If STS fails, only the identity is unknown; the token is returned."""
    cloud.fault = lambda call: codeartifact.sts_error(500, "Internal", "no") if call.path == "/" else None
    assert aws.fetch(request()).identity is None


@pytest.mark.usefixtures("keys")
def test_a_role_is_assumed(cloud: CodeArtifact) -> None:
    """With ``role-arn`` the chain's identity assumes the role, and CodeArtifact is asked with the role's keys."""
    assert aws.fetch(request(role_arn=ROLE)).identity == "arn:aws:sts::123456789012:assumed-role/dev/uvtokend"
    actions = [call.form().get("Action") for call in cloud.server.calls if call.path == "/"]
    assert actions == ["AssumeRole"], "AssumeRole already returns the identity, so STS is asked once"
    token_call = next(call for call in cloud.server.calls if call.path == "/v1/authorization-token")
    assert "ASIAEXAMPLE" in (token_call.headers["Authorization"] or "")


@pytest.mark.usefixtures("keys")
@pytest.mark.parametrize("minutes", [-4, 4])
def test_times_are_on_this_machines_clock(cloud: CodeArtifact, minutes: int) -> None:
    """The response's ``Date`` corrects the difference between the clocks, of which AWS allows some minutes."""
    there = datetime.now(UTC) + timedelta(minutes=minutes)
    end = there.timestamp() + 900
    body = {"authorizationToken": codeartifact.jwe(there.timestamp(), end), "expiration": end}
    cloud.fault = answers(Answer.json(body, Date=format_datetime(there, usegmt=True)))
    credential = aws.fetch(request())
    assert credential.expires_at is not None
    assert abs(credential.expires_at - datetime.now(UTC) - timedelta(seconds=900)) < timedelta(seconds=10)
    assert abs(credential.issued_at - datetime.now(UTC)) < timedelta(seconds=10)
    assert credential.skew == pytest.approx(-60 * minutes, abs=5)


def test_a_profile(cloud: CodeArtifact, tmp_path: Path) -> None:
    """A named profile with keys works, and so does one that assumes a role through it."""
    configure(
        tmp_path,
        "[profile base]\naws_access_key_id = AKIABASE\naws_secret_access_key = x\n"
        f"[profile dev]\nrole_arn = {ROLE}\nsource_profile = base\nregion = eu-central-1\n",
    )
    assert aws.fetch(request(profile="base"))
    assert "AKIABASE" in (cloud.server.calls[0].headers["Authorization"] or "")
    assert aws.fetch(request(profile="dev"))
    assert not (tmp_path / ".aws" / "cli").exists(), "keys must not be written to disk"


@pytest.mark.parametrize("of_shell", ["", "unknown"])
def test_the_profile_of_the_shell_does_not_count(
    cloud: CodeArtifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, of_shell: str
) -> None:
    """An index's own profile works, and so does a role that it assumes, even if AWS_PROFILE names no profile."""
    configure(tmp_path, "[profile base]\naws_access_key_id = AKIABASE\naws_secret_access_key = x\n")
    monkeypatch.setenv("AWS_PROFILE", of_shell)
    assert aws.fetch(request(profile="base"))
    assert aws.fetch(request(profile="base", role_arn=ROLE))


def mfa(tmp_path: Path, cached: str | None) -> None:
    """Configure a role that needs MFA, and write the cache file of the aws command with its usual name."""
    device = "arn:aws:iam::123456789012:mfa/me"
    configure(
        tmp_path,
        "[profile base]\naws_access_key_id = AKIABASE\naws_secret_access_key = the-canary\n"
        f"[profile dev]\nrole_arn = {ROLE}\nsource_profile = base\nmfa_serial = {device}\n",
    )
    if cached is not None:
        parameters = json.dumps({"RoleArn": ROLE, "SerialNumber": device}, sort_keys=True)
        file = tmp_path / ".aws" / "cli" / "cache" / f"{hashlib.sha1(parameters.encode()).hexdigest()}.json"
        file.parent.mkdir(parents=True)
        file.write_text(cached)


def session_keys(seconds: float) -> str:
    keys = {"AccessKeyId": "ASIACACHED", "SecretAccessKey": "the-canary", "SessionToken": "t"}
    return json.dumps({"Credentials": {**keys, "Expiration": _iso(seconds)}})


def test_an_mfa_session_of_the_aws_command(cloud: CodeArtifact, tmp_path: Path) -> None:
    """After one interactive call of the aws command, its cached session is used without a prompt."""
    mfa(tmp_path, session_keys(3000))
    assert aws.fetch(request(profile="dev"))
    assert "ASIACACHED" in (cloud.server.calls[0].headers["Authorization"] or "")


@pytest.mark.parametrize("cached", [None, session_keys(-60), "{", "[]", '{"Credentials": {}}'])
def test_no_mfa_session(cloud: CodeArtifact, tmp_path: Path, cached: str | None) -> None:
    """Without a valid cached session, because it is missing, expired or damaged, a person must enter an MFA code."""
    mfa(tmp_path, cached)
    failed = failure(request(profile="dev"))
    assert (failed.kind, failed.reason) == ("login-required", "mfa")
    assert failed.hint == "aws sts get-caller-identity --profile dev"
    assert cloud.server.calls == []


def test_web_identity(cloud: CodeArtifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The token of a pod or CI runner is exchanged for the role's keys."""
    (tmp_path / "jwt").write_text("the-canary-jwt")
    monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(tmp_path / "jwt"))
    monkeypatch.setenv("AWS_ROLE_ARN", ROLE)
    assert aws.fetch(request())
    assert cloud.server.calls[0].form()["Action"] == "AssumeRoleWithWebIdentity"


@pytest.mark.parametrize(
    ("code", "kind", "reason"),
    [
        ("ExpiredTokenException", "login-required", "bad-identity"),
        ("InvalidIdentityToken", "login-required", "bad-identity"),
        ("AccessDenied", "rejected", "denied"),
        ("IDPCommunicationError", "transient", "server-error"),
        (None, "rejected", "no-file"),
    ],
)
def test_a_web_identity_that_is_refused(
    cloud: CodeArtifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str | None, kind: str, reason: str
) -> None:
    """A refused token of the web identity is not reported as a problem of a person's keys. If its file is missing,
    nothing is requested."""
    if code is not None:
        (tmp_path / "jwt").write_text("the-canary-jwt")
        cloud.fault = lambda _: codeartifact.sts_error(400, code, "no")
    monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(tmp_path / "jwt"))
    monkeypatch.setenv("AWS_ROLE_ARN", ROLE)
    failed = failure(request())
    assert (failed.kind, failed.reason) == (kind, reason)


def test_a_container(cloud: CodeArtifact, monkeypatch: pytest.MonkeyPatch) -> None:
    """The keys come from the container's credentials endpoint."""
    monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"{cloud.url}/container")
    assert aws.fetch(request())


def test_a_credential_process(cloud: CodeArtifact, tmp_path: Path) -> None:
    """The keys come from the output of the user's helper program."""
    answer = json.dumps({"Version": 1, "AccessKeyId": "AKIAPROCESS", "SecretAccessKey": "x"})
    (tmp_path / "answer").write_text(answer)
    configure(tmp_path, f"[profile dev]\ncredential_process = cat {tmp_path / 'answer'}\n")
    assert aws.fetch(request(profile="dev"))
    assert "AKIAPROCESS" in (cloud.server.calls[0].headers["Authorization"] or "")


@pytest.mark.parametrize(("left", "refresh"), [(7200, False), (60, True), (-3600, True)])
def test_an_sso_session(cloud: CodeArtifact, tmp_path: Path, left: float, refresh: bool) -> None:
    """A valid SSO session is used; one that is about to end is refreshed if it has a refresh token."""
    sso_session(tmp_path, left, refresh)
    outcome, _ = in_worker(request(profile="dev"))
    assert isinstance(outcome, Credential)
    assert any(call.path == "/token" for call in cloud.server.calls) == refresh


@pytest.mark.parametrize("left", [-3600, None])
def test_an_sso_session_that_has_ended(cloud: CodeArtifact, tmp_path: Path, left: float | None) -> None:
    """Without a valid SSO session, the fix is the exact sign-in command."""
    sso_session(tmp_path, left or 0)
    if left is None:
        for file in (tmp_path / ".aws" / "sso" / "cache").iterdir():
            file.unlink()
    failed, _ = in_worker(request(profile="dev"))
    assert isinstance(failed, Failure)
    assert (failed.kind, failed.reason) == ("login-required", "sso-expired")
    assert failed.hint == "aws sso login --profile dev"
    assert cloud.fetches == 0


SSO_ERRORS = [
    ("/token", codeartifact.error(400, "InvalidGrantException", "no"), "login-required", "sso-expired"),
    ("/token", codeartifact.error(500, "InternalServerException", "oops"), "transient", "server-error"),
    ("/token", HTML, "transient", "captive-portal"),
    ("/token", Answer(302, PAGE, {"Location": "http://portal.example/"}), "transient", "captive-portal"),
    (
        "/federation/credentials",
        codeartifact.error(401, "UnauthorizedException", "no"),
        "login-required",
        "sso-expired",
    ),
    ("/federation/credentials", codeartifact.error(403, "ForbiddenException", "No access"), "rejected", "denied"),
    ("/federation/credentials", codeartifact.error(404, "ResourceNotFoundException", "no"), "rejected", "denied"),
    ("/federation/credentials", codeartifact.error(429, "TooManyRequestsException", "no"), "transient", "throttled"),
]


@pytest.mark.parametrize(("path", "answer", "kind", "reason"), SSO_ERRORS)
def test_errors_of_sso(cloud: CodeArtifact, tmp_path: Path, path: str, answer: Answer, kind: str, reason: str) -> None:
    """A server error does not mean that the session ended, although botocore says so, and it names no CodeArtifact
    permission."""
    sso_session(tmp_path, -60, refresh=True)
    cloud.fault = lambda call: answer if call.path == path else None
    failed, printed = in_worker(request(profile="dev"))
    assert isinstance(failed, Failure)
    assert (failed.kind, failed.reason) == (kind, reason)
    assert "codeartifact" not in (failed.hint or "")
    assert printed == ""


@pytest.mark.parametrize("cached", ["", "{}", "[]"])
def test_the_sign_in_of_a_roles_source_profile_is_named(cloud: CodeArtifact, tmp_path: Path, cached: str) -> None:
    """If a role is reached through an SSO profile, the fix signs in to that profile. A damaged cache counts as no
    session."""
    sso_session(tmp_path, 7200)
    for file in (tmp_path / ".aws" / "sso" / "cache").iterdir():
        file.write_text(cached)
    failed, _ = in_worker(request(profile="role"))
    assert isinstance(failed, Failure)
    assert failed.kind == "login-required"
    assert failed.hint == "aws sso login --profile dev"
    assert cloud.server.calls == []


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
    (Answer(302, PAGE, {"Location": "http://portal.example/"}), "transient", "captive-portal"),
    (Answer(403, PAGE, {"Content-Type": "text/html; charset=utf-8"}), "transient", "captive-portal"),
    (Answer.json({"other": 1}), "transient", "captive-portal"),
    (Answer.json({"authorizationToken": "", "expiration": 4e9}), "transient", "captive-portal"),
    (Answer.json({"authorizationToken": "x", "expiration": OLD}), "transient", "expired-on-arrival"),
]


@pytest.mark.usefixtures("keys")
@pytest.mark.parametrize(("answer", "kind", "reason"), ERRORS, ids=[f"{row[2]}-{row[0].status}" for row in ERRORS])
def test_errors_of_codeartifact(cloud: CodeArtifact, answer: Answer, kind: str, reason: str) -> None:
    """Every response without a valid token is a failure with a kind and a reason."""
    cloud.fault = answers(answer)
    failed = failure(request())
    assert (failed.kind, failed.reason) == (kind, reason)


@pytest.mark.usefixtures("keys")
def test_retry_after_is_passed_on(cloud: CodeArtifact) -> None:
    """Retry-After is passed on in seconds, even if a proxy sends it as a date by its own clock."""
    cloud.fault = answers(codeartifact.error(429, "ThrottlingException", "slow", Retry_After="7"))
    assert failure(request()).retry_after == 7
    later = {"Date": "Thu, 01 Jan 2026 00:00:00 GMT", "Retry-After": "Thu, 01 Jan 2026 00:00:09 GMT"}
    cloud.fault = answers(Answer(503, PAGE, later))
    assert failure(request()).retry_after == 9


@pytest.mark.usefixtures("keys")
def test_a_response_that_botocore_cannot_parse(cloud: CodeArtifact) -> None:
    """botocore raises built-in exceptions for values of the wrong type; the failure is transient and does not blame
    the profile."""
    cloud.fault = answers(codeartifact.error(429, "ThrottlingException", "slow", Retry_After="Thu, 01 Jan 2026"))
    assert failure(request()).kind == "transient"
    cloud.fault = answers(Answer.json({"authorizationToken": "x", "expiration": "soon"}))
    assert failure(request()).kind == "transient"


@pytest.mark.usefixtures("keys")
@pytest.mark.parametrize(("code", "kind"), [("AccessDenied", "rejected"), ("ExpiredToken", "login-required")])
def test_errors_of_sts(cloud: CodeArtifact, code: str, kind: str) -> None:
    """A role that may not be assumed is rejected, and expired keys need a sign-in."""
    cloud.fault = lambda call: codeartifact.sts_error(403, code, "no") if call.path == "/" else None
    failed = failure(request(role_arn=ROLE))
    assert failed.kind == kind
    assert ("sts:AssumeRole" in (failed.hint or "")) == (code == "AccessDenied")


@pytest.mark.usefixtures("keys")
def test_expired_keys_in_the_environment(cloud: CodeArtifact) -> None:
    """Expired keys in the environment shadow every sign-in, so the fix unsets them."""
    cloud.fault = answers(codeartifact.error(403, "ExpiredTokenException", "The token is expired"))
    hint = failure(request()).hint
    assert hint == "unset AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY AWS_SESSION_TOKEN && uvtokend restart"


def test_the_fix_names_the_indexs_own_files(
    cloud: CodeArtifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For an index with its own AWS_CONFIG_FILE, the fix changes that file, not ~/.aws."""
    file = tmp_path / "my work"
    file.write_text("[profile dev]\nregion = eu-central-1\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(file))
    wanted = request(profile="dev")
    failed = failure(Request(wanted.provider, options=wanted.options, env=(("AWS_CONFIG_FILE", str(file)),)))
    assert failed.hint == f"AWS_CONFIG_FILE='{file}' aws configure --profile dev"
    assert cloud.server.calls == []


@pytest.mark.parametrize(
    ("error", "kind", "reason", "hint"),
    [
        (raised.LoginRefreshRequired(), "login-required", "login-expired", "aws login --profile dev"),
        (
            raised.LoginTokenLoadError(error_msg="the-canary"),
            "login-required",
            "login-expired",
            "aws login --profile dev",
        ),
        (raised.LoginInsufficientPermissions(), "rejected", "denied", failures.RIGHTS),
        (raised.UnknownEndpointError(service_name="x", region_name="y"), "rejected", "bad-option", None),
        (raised.RefreshWithMFAUnsupportedError(), "login-required", "mfa", None),
        (ZeroDivisionError("the-canary"), "transient", "unexpected", None),
    ],
)
def test_errors_that_the_emulator_cannot_cause(error: Exception, kind: str, reason: str, hint: str | None) -> None:
    """``aws login`` needs awscrt, which is not installed, so its errors are classified directly. An unknown
    exception is classified too."""
    failed = failures.classify(error, ProfileSignIn("dev", "dev", "aws login --profile dev", "login"))
    assert (failed.kind, failed.reason) == (kind, reason)
    assert failed.hint == hint if hint else "canary" not in failed.message


@pytest.mark.parametrize(
    ("config", "profile", "kind", "reason"),
    [
        ("", None, "login-required", "no-credentials"),
        ("", "dev", "rejected", "no-profile"),
        ("[profile dev]\ncredential_process = echo garbage", "dev", "rejected", "bad-process"),
        (LEAK, "dev", "login-required", "credential-process"),
        ("[profile dev]\ncredential_process = /does/not/exist", "dev", "rejected", "no-file"),
        ("[profile dev]\ncredential_process = echo []", "dev", "rejected", "bad-process"),
        ("[profile dev]\ncredential_process = printf '\\377'", "dev", "rejected", "bad-process"),
        ("[profile dev]\ncredential_process = sh -c 'x", "dev", "rejected", "bad-profile"),
        (
            f"[profile dev]\nrole_arn = {ROLE}\nsource_profile = base\n[profile base]\ncredential_process = {LOUD}",
            "dev",
            "login-required",
            "credential-process",
        ),
        (
            f"[profile dev]\nrole_arn = {ROLE}\ncredential_source = Environment",
            "dev",
            "login-required",
            "no-credentials",
        ),
        ("[profile dev]\nlogin_session = me", "dev", "rejected", "no-crt"),
        ("[profile dev]\naws_access_key_id = AKIA", "dev", "login-required", "no-credentials"),
        ("[profile dev", "dev", "rejected", "bad-profile"),
        (MFA, "dev", "login-required", "mfa"),
        (f"[profile dev]\nrole_arn = {ROLE}\nsource_profile = dev", "dev", "rejected", "bad-profile"),
        ("[profile dev]\nrole_arn = x\nsource_profile = gone", "dev", "rejected", "bad-profile"),
    ],
)  # fmt: skip
def test_an_incomplete_or_invalid_profile(
    cloud: CodeArtifact, tmp_path: Path, config: str, profile: str | None, kind: str, reason: str
) -> None:
    """Every problem of a profile is reported with a fix, prompts do not hang, and the output of helpers is not
    shown."""
    configure(tmp_path, config)
    failed = failure(request(profile=profile) if profile else request())
    assert (failed.kind, failed.reason) == (kind, reason)
    assert failed.hint
    assert cloud.fetches == 0


OF_TOOLS = {
    "saml2aws": (
        f"aws_security_token = t\nx_principal_arn = {ROLE}\nx_security_token_expires = {{end}}",
        "saml2aws login --profile dev",
    ),
    "gimme-aws-creds": ("aws_security_token = t\nx_security_token_expires = {end}", "gimme-aws-creds"),
    "aws-azure-login": ("aws_expiration = {end}", "aws-azure-login --profile dev"),
    "another": ("", "sign in again with the program that wrote the temporary keys of the profile dev"),
}


@pytest.mark.parametrize("tool", OF_TOOLS)
def test_temporary_keys_name_the_program_that_renews_them(cloud: CodeArtifact, tmp_path: Path, tool: str) -> None:
    """``aws configure`` would keep the old session token, so the fix is the sign-in command of the program that
    wrote the keys."""
    lines, command = OF_TOOLS[tool]
    configure(tmp_path, "[profile dev]\nregion = eu-central-1\n")
    written = "[dev]\naws_access_key_id = ASIAX\naws_secret_access_key = x\naws_session_token = t\n"
    (tmp_path / ".aws" / "credentials").write_text(written + lines.format(end=_iso(1800)))
    sign_in_end = aws.fetch(request(profile="dev")).sign_in_end
    if lines:
        assert sign_in_end is not None
        assert (sign_in_end.name, sign_in_end.command) == ("the temporary keys of the AWS profile 'dev'", command)
        assert timedelta(minutes=29) < sign_in_end.at - datetime.now(UTC) <= timedelta(minutes=30)
    else:
        assert sign_in_end is None
    cloud.fault = answers(codeartifact.error(403, "ExpiredTokenException", "The token is expired"))
    failed = failure(request(profile="dev"))
    assert (failed.reason, failed.hint) == ("credentials-expired", command)
    assert failed.message == "The credentials of the AWS profile 'dev' have expired."


@pytest.mark.parametrize(
    ("cache", "end"),
    [
        ('{"expiresAt": "2026-01-31T08:00:00Z"}', datetime(2026, 1, 31, 8, tzinfo=UTC)),
        ('{"expiresAt": "2026-01-31T08:00:00UTC"}', datetime(2026, 1, 31, 8, tzinfo=UTC)),
        ('{"expiresAt": "2026-01-31T08:00:00Z", "refreshToken": "r"}', None),
        ('{"expiresAt": "2026-01-31T08:00:00"}', None),
        ('{"expiresAt": 7}', None),
        ("{}", None),
        ("[]", None),
        ("", None),
    ],
)
def test_the_end_of_an_sso_session(cache: str, end: datetime | None) -> None:
    """The end is known only if no refresh token renews the session. A damaged cache yields none."""
    assert sso_end(cache.encode()) == end


@pytest.mark.parametrize("refresh", [False, True])
def test_a_credential_knows_the_end_of_its_sign_in(cloud: CodeArtifact, tmp_path: Path, refresh: bool) -> None:
    """The token may be valid for hours after the sign-in ends, so the credential names that time too."""
    sso_session(tmp_path, 7200, refresh)
    outcome, _ = in_worker(request(profile="dev"))
    assert isinstance(outcome, Credential)
    assert cloud.fetches == 1
    end = outcome.sign_in_end
    named = None if end is None else (end.name, end.command)
    one = ("the AWS SSO session of the AWS profile 'dev'", "aws sso login --profile dev")
    assert named == (None if refresh else one)


def test_a_slow_identity_request_does_not_delay_the_token(
    cloud: CodeArtifact, keys: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The identity is requested in parallel, and the token waits for it only briefly."""
    monkeypatch.setattr(aws, "_PATIENCE", 0.0)
    started, released = threading.Event(), threading.Event()

    def slow(call: Call) -> Answer | None:
        if b"GetCallerIdentity" in call.body:
            started.set()
            released.wait(30)
        return None

    cloud.fault = slow
    credential = aws.fetch(request())
    assert (credential.login, credential.identity) == ("aws", None)
    assert started.wait(30)
    released.set()


@pytest.mark.usefixtures("keys")
@pytest.mark.parametrize(
    ("headers", "wait"),
    [
        ({"x-amz-retry-after": "2500"}, 3.0),
        ({"x-amz-retry-after": "7200000"}, 7200.0),
        ({"x-amz-retry-after": "soon"}, None),
        ({"x-amz-retry-after": "-1"}, None),
        ({"retry-after": "7", "x-amz-retry-after": "2500"}, 7.0),
    ],
)
def test_the_retry_header_of_aws(cloud: CodeArtifact, headers: dict[str, str], wait: float | None) -> None:
    """AWS's own header gives the wait in milliseconds; the standard header takes precedence."""
    answer = codeartifact.error(429, "ThrottlingException", "Rate exceeded")
    cloud.fault = answers(replace(answer, headers={**answer.headers, **headers}))
    assert failure(request()).retry_after == wait


def test_the_extra_for_aws_login_is_named(cloud: CodeArtifact, tmp_path: Path) -> None:
    """A session of ``aws login`` needs awscrt, and the fix installs the extra that contains it."""
    configure(tmp_path, "[profile dev]\nlogin_session = me")
    failed = failure(request(profile="dev"))
    assert (failed.hint or "").endswith("'uvtokend[aws-login]'")
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    assert project["optional-dependencies"]["aws-login"] == ["botocore[crt]"]
    assert cloud.fetches == 0


def test_an_expired_answer_of_a_credential_process(cloud: CodeArtifact, tmp_path: Path) -> None:
    """If a helper program returns expired keys, the failure says that the credentials have expired."""
    answer = {"Version": 1, "AccessKeyId": "A", "SecretAccessKey": "x", "SessionToken": "t", "Expiration": _iso(-60)}
    (tmp_path / "answer").write_text(json.dumps(answer))
    configure(tmp_path, f"[profile dev]\ncredential_process = cat {tmp_path / 'answer'}\n")
    assert failure(request(profile="dev")).reason == "credentials-expired"
    assert cloud.fetches == 0


@pytest.mark.usefixtures("keys")
def test_an_unreachable_cloud(cloud: CodeArtifact, monkeypatch: pytest.MonkeyPatch) -> None:
    """If nothing answers, the failure is transient, and a proxy's password is not shown."""
    monkeypatch.setenv("AWS_ENDPOINT_URL_CODEARTIFACT", "http://127.0.0.1:9")
    assert failure(request()).reason == "unreachable"
    monkeypatch.setenv("AWS_ENDPOINT_URL_CODEARTIFACT", "https://codeartifact.example")
    monkeypatch.setenv("HTTPS_PROXY", "http://me:the-canary@127.0.0.1:9")
    assert failure(request()).reason == "unreachable"


@pytest.mark.usefixtures("keys")
def test_tls_that_cannot_be_trusted(cloud: CodeArtifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A peer without TLS is a transient failure and a missing CA bundle a rejected one. Both fixes mention
    ca-bundle."""
    monkeypatch.setenv("AWS_ENDPOINT_URL_CODEARTIFACT", cloud.url.replace("http:", "https:"))
    failed = failure(request())
    assert (failed.kind, failed.reason) == ("transient", "tls")
    assert "ca-bundle" in (failed.hint or "")
    monkeypatch.setenv("AWS_CA_BUNDLE", str(tmp_path / "gone.pem"))
    failed = failure(request())
    assert (failed.kind, failed.reason) == ("rejected", "ca-bundle")
    assert failed.message == f"The CA bundle {tmp_path / 'gone.pem'} does not exist."
    assert failed.hint == 'correct AWS_CA_BUNDLE, or write ca-bundle = "system" in [daemon]'


@pytest.mark.usefixtures("keys")
def test_a_cloud_that_never_answers(cloud: CodeArtifact, monkeypatch: pytest.MonkeyPatch) -> None:
    """Our own timeout ends the request."""
    release = threading.Event()
    brief = Config(connect_timeout=1, read_timeout=0.3, retries={"total_max_attempts": 1})
    monkeypatch.setattr(aws, "_CONFIG", brief)

    def hang(_: Call) -> Answer | None:
        release.wait(30)
        return None

    cloud.fault = hang
    assert failure(request()).reason == "timeout"
    release.set()


def test_an_unreachable_container_endpoint(cloud: CodeArtifact, monkeypatch: pytest.MonkeyPatch) -> None:
    """An unreachable endpoint is a transient failure. botocore refuses a foreign endpoint."""
    monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://127.0.0.1:9/x")
    assert failure(request()).kind == "transient"
    monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://evil.example/x")
    assert failure(request()).reason == "bad-profile"


@pytest.mark.usefixtures("keys")
def test_no_secret_is_printed_at_debug_level(cloud: CodeArtifact, tmp_path: Path) -> None:
    """A worker prints only its one line, although botocore's debug log would contain the token."""
    (tmp_path / "sitecustomize.py").write_text("import logging\nlogging.basicConfig(level=logging.DEBUG)\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(tmp_path))
        outcome, printed = in_worker(request())
    assert isinstance(outcome, Credential)
    assert cloud.valid(outcome.password.reveal())
    assert printed == ""


@pytest.mark.usefixtures("keys")
def test_no_secret_is_logged_in_this_process(cloud: CodeArtifact, caplog: pytest.LogCaptureFixture) -> None:
    """A program that calls the provider with debug logging gets no token in its log, and its own logging still
    works."""
    with caplog.at_level(logging.DEBUG):
        logging.getLogger("botocore.parsers").setLevel(logging.DEBUG)
        token = aws.fetch(request()).password.reveal()
        logging.getLogger("mine").debug("afterwards")
    assert cloud.valid(token)
    assert caplog.messages == ["afterwards"]


def test_the_shape_of_an_emulated_token() -> None:
    """The emulated token has five segments, a JSON header of the usual size, and the length of real tokens."""
    token = codeartifact.jwe(1_700_000_000, 1_700_043_200)
    assert len(token.split(".")) == 5
    assert 1100 < len(token) < 1550
    assert len(token.partition(".")[0]) == 176
    assert aws._issued(token) == datetime.fromtimestamp(1_700_000_000, UTC)
    assert aws._issued("garbage") is None


@pytest.mark.parametrize(
    ("config", "fix"),
    [
        ("[profile dev]\nregion = eu-central-1", 'write profile = "dev" instead of "devv", then: uvtokend reload'),
        ("[profile other]\nregion = eu-central-1", "aws configure sso --profile devv"),
    ],
)
def test_a_profile_that_does_not_exist(cloud: CodeArtifact, tmp_path: Path, config: str, fix: str) -> None:
    """The fix names the most similar existing profile, otherwise the command that creates the missing one."""
    configure(tmp_path, config)
    failed = failure(request(profile="devv"))
    assert (failed.reason, cloud.fetches) == ("no-profile", 0)
    assert failed.hint is not None
    assert failed.hint.endswith(fix)

"""Mistakes with AWS profiles: `status` and `doctor` name the cause first,
and their fix works, as the real uv confirms.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from support.daemons import await_ready
from uvtokend.core import fixes
from uvtokend.sandbox.codeartifact import ACCOUNT, CodeArtifact, error
from uvtokend.sandbox.index import PackageIndex
from uvtokend.sandbox.machine import Machine
from uvtokend.sandbox.web import Answer, Call

PROFILES = f"""\
[profile dev]
aws_access_key_id = AKIAEXAMPLE
aws_secret_access_key = example
[profile single]
sso_session = corp
sso_account_id = {ACCOUNT}
sso_role_name = dev
region = eu-central-1
[sso-session corp]
sso_start_url = https://corp.example/start
sso_region = eu-central-1
[profile ci]
role_arn = arn:aws:iam::{ACCOUNT}:role/ci
source_profile = dev
"""
#: An `aws` that writes the cache file of a successful `aws sso login` (botocore, `SSOTokenProvider`).
SIGNS_IN = f"""\
#!/bin/sh
mkdir -p "$HOME/.aws/sso/cache"
echo "$*" > "$HOME/called"
echo '{{"startUrl": "https://corp.example/start", "region": "eu-central-1", "accessToken": "example",
"expiresAt": "2099-01-01T00:00:00Z"}}' > "$HOME/.aws/sso/cache/{hashlib.sha1(b"corp").hexdigest()}.json"
"""
DENIED = (
    f"User: arn:aws:sts::{ACCOUNT}:assumed-role/ci/me is not authorized to perform: "
    f"codeartifact:GetAuthorizationToken on resource: arn:aws:codeartifact:eu-central-1:{ACCOUNT}:domain/acme"
)


class Office:
    """A machine with AWS profiles and a running daemon,
    and an index that accepts the tokens of the CodeArtifact emulator.
    """

    def __init__(self, machine: Machine, cloud: CodeArtifact, index: PackageIndex) -> None:
        self.machine = machine
        self.cloud = cloud
        self.index = index
        machine.environment |= {**cloud.environment(), "AWS_EC2_METADATA_DISABLED": "true"}
        programs = machine.home / "bin"
        programs.mkdir()
        (programs / "aws").write_text(SIGNS_IN)
        (programs / "aws").chmod(0o755)
        machine.environment["PATH"] = f"{programs}:{machine.environment['PATH']}"
        (machine.home / ".aws").mkdir()
        (machine.home / ".aws" / "config").write_text(PROFILES)

    def use(self, profile: str) -> None:
        """Write config.toml with this profile, and let the daemon load it."""
        self.machine.write(
            f'[[index]]\nname = "acme"\nurl = "{self.index.url}"\nprovider = "aws-codeartifact"\n'
            f'profile = "{profile}"\ndomain = "acme"\ndomain-owner = "{ACCOUNT}"\nregion = "eu-central-1"\n'
        )
        self.machine.uvtokend("reload")

    def problem(self) -> tuple[str, str]:
        """Return the first problem and its fix, after checking that `start`,
        `status` and `doctor` print the same ones.
        """
        started = self.machine.uvtokend("start")  # waits until the fetch has failed
        assert started.returncode == 0, started.stderr
        first, fix = started.stdout.splitlines()[1:3]
        shown = self.machine.uvtokend("status")
        assert (shown.returncode, shown.stdout.splitlines()[1:3]) == (1, [first, fix])
        examined = self.machine.uvtokend("doctor", "--offline")
        assert (examined.returncode, examined.stdout.splitlines()[:2]) == (1, [f"error: {first}", fix])
        return first, fix.removeprefix("  fix: ")

    def uv(self) -> bool:
        """Install with the real uv, and return whether it succeeded."""
        words = ("--reinstall", "--default-index", self.index.url, "--no-deps", "alpha")
        return self.machine.install(self.machine.directory / "target", *words).returncode == 0


@pytest.fixture(scope="module")
def office(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Office]:
    """Return one office for all tests of this file,
    since starting a daemon and an emulator takes longer than a test.
    """
    with CodeArtifact() as cloud, PackageIndex(lambda _, token: cloud.valid(token)) as index:
        office = Office(Machine(tmp_path_factory.mktemp("m")), cloud, index)
        yield office
        office.machine.uvtokend("stop")


def test_a_misspelled_profile(office: Office) -> None:
    """For a misspelled AWS profile, the fix names the similar one that exists; with it, uv installs."""
    office.use("dve")
    problem, fix = office.problem()
    assert problem == "acme: The AWS profile 'dve' does not exist."
    assert not office.uv()
    edit = re.fullmatch(r"write (.+) instead of (.+), then: uvtokend reload", fix)
    assert edit is not None
    assert edit[1] == 'profile = "dev"'
    text = office.machine.config.read_text()
    office.machine.config.write_text(text.replace(f"profile = {edit[2]}", edit[1]))
    assert office.machine.uvtokend("reload").returncode == 0
    assert office.machine.uvtokend("start").stdout.splitlines()[0] == "The index is ready."
    assert office.uv()


def test_an_expired_sso_session(office: Office) -> None:
    """For an expired SSO session the fix is the sign-in command; once it has run, the daemon fetches by itself."""
    office.use("single")
    problem, fix = office.problem()
    assert "SSO session" in problem
    assert "'single'" in problem
    assert fix == "aws sso login --profile single"
    assert not office.uv()
    assert office.machine.run(["sh", "-c", fix]).returncode == 0
    assert (office.machine.home / "called").read_text() == "sso login --profile single\n"
    await_ready(office.machine)
    assert office.uv()


def test_a_role_without_the_permission(office: Office) -> None:
    """If the role misses a permission, the problem quotes AWS, and the fix says what to ask for."""

    def denies(call: Call) -> Answer | None:
        denied = call.path == "/v1/authorization-token"
        return error(403, "AccessDeniedException", DENIED) if denied else None

    office.cloud.fault = denies
    office.use("ci")
    problem, fix = office.problem()
    assert "the AWS profile 'ci'" in problem
    assert DENIED in problem
    assert fix.startswith("ask for codeartifact:GetAuthorizationToken")
    assert not office.uv()
    office.cloud.fault = None  # the administrator grants the permission
    assert office.machine.uvtokend("refresh").returncode == 0
    assert office.uv()


def test_a_clock_that_is_wrong(office: Office) -> None:
    """If AWS refuses a signature because this clock is wrong, the problem names the clock and not the profile."""
    late = "Signature expired: 20261121T130000Z is now earlier than 20261121T175500Z (20261121T180000Z - 5 min.)"

    def refuses(call: Call) -> Answer | None:
        away = {"Date": format_datetime(datetime.now(UTC) + timedelta(hours=5), usegmt=True)}
        refused = call.path == "/v1/authorization-token"
        return error(403, "InvalidSignatureException", late, **away) if refused else None

    office.cloud.fault = refuses
    office.cloud.tokens.clear()
    office.use("dev")
    problem, fix = office.problem()
    assert "clock" in problem
    assert fix in {fixes.set_clock(), fixes.show_clock()}
    assert not office.uv()
    office.cloud.fault = None  # the clock is correct again
    assert office.machine.uvtokend("refresh").returncode == 0
    assert office.uv()

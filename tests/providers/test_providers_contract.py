"""Every built-in provider keeps the contract for plug-ins, with the real SDKs and the emulators."""

from __future__ import annotations

import json
import os
import secrets
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import pytest

from clouds import azure, azure_world, gitlab_world, google, google_world, jfrog_world
from clouds.tls import TlsProxy
from support.loopback import CANARY
from uvtokend.core.clouds import CLOUDS
from uvtokend.core.model import FailureKind
from uvtokend.sandbox import codeartifact
from uvtokend.sandbox.codeartifact import CodeArtifact
from uvtokend.sandbox.web import Answer
from uvtokend.testing import ProviderContract


class TestAws(ProviderContract):
    """aws-codeartifact: a profile's keys, a credential_process with output, and a missing permission."""

    failures: ClassVar[dict[str, FailureKind]] = {"credential-process": "login-required", "denied": "rejected"}

    @pytest.fixture(autouse=True)
    def world(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        self.key = "secret-key-" + secrets.token_hex(20)
        self.config = tmp_path / "config"
        self.config.write_text(f"[profile dev]\naws_access_key_id = AKIAEXAMPLE\naws_secret_access_key = {self.key}\n")
        for name in [name for name in os.environ if name.upper().startswith(("AWS_", "HTTP"))]:
            monkeypatch.delenv(name)
        with CodeArtifact() as self.cloud:
            for name, value in {**self.cloud.environment(), "AWS_EC2_METADATA_DISABLED": "true"}.items():
                monkeypatch.setenv(name, value)
            yield

    def works(self) -> str:
        return f"""
        url = "https://acme-123456789012.d.codeartifact.eu-central-1.amazonaws.com/pypi/production/simple/"
        profile = "dev"
        env = {{ AWS_CONFIG_FILE = "{self.config}" }}
        """

    def fails(self, reason: str) -> str:
        if reason == "credential-process":
            leak = self.config.with_name("leak")
            leak.write_text(f"echo {self.key} >&2; exit 1\n")
            self.config.write_text(f"[profile dev]\ncredential_process = sh {leak}\n")
        else:
            refused = codeartifact.error(403, "AccessDeniedException", "It is not authorized.")
            self.cloud.fault = lambda call: refused if call.path == "/v1/authorization-token" else None
        return self.works()

    def secrets(self) -> list[str]:
        return [self.key, *self.cloud.tokens]


class TestGoogle(ProviderContract):
    """google-artifact-registry: an account that impersonates another, one that may not, and an expired sign-in."""

    failures: ClassVar[dict[str, FailureKind]] = {"impersonation-denied": "rejected", "login-expired": "login-required"}

    @pytest.fixture(autouse=True)
    def world(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        with google_world.loopback_world(tmp_path, monkeypatch) as self.created:
            monkeypatch.setenv("GOOGLE_SDK_PYTHON_LOGGING_SCOPE", "google")
            self.created.cloud.impersonable.add(google_world.TARGET)
            self.created.secrets.append(CANARY)
            yield

    def works(self) -> str:
        self.created.use(self.created.cloud.service_account())
        return self.table()

    def table(self) -> str:
        return f"""
        url = "https://europe-west3-python.pkg.dev/acme/models/simple/"
        impersonate-service-account = "{google_world.TARGET}"
        """

    def fails(self, reason: str) -> str:
        if reason == "login-expired":
            self.created.use(google.GoogleCloud().user())
            return self.table()
        canary = CANARY
        refused = google.problem(403, "PERMISSION_DENIED", canary, reason="IAM_PERMISSION_DENIED", domain=canary)
        self.created.cloud.faults["iam"] = lambda _: refused
        return self.works()

    def secrets(self) -> list[str]:
        return [*self.created.secrets, *self.created.cloud.issued()]


@pytest.fixture(scope="module")
def proxy() -> Iterator[TlsProxy]:
    """Return one proxy for all Azure worlds, because its certificates take time to create."""
    with TlsProxy({}) as created:
        yield created


class TestAzure(ProviderContract):
    """azure-artifacts: a person's session token, an az with output, and an application's wrong secret."""

    failures: ClassVar[dict[str, FailureKind]] = {"not-logged-in": "login-required", "wrong-secret": "rejected"}

    @pytest.fixture(autouse=True)
    def world(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, proxy: TlsProxy) -> None:
        self.created = azure_world.loopback_world(tmp_path, monkeypatch, proxy)

    def works(self) -> str:
        self.created.log_in()
        return self.table("cli")

    def table(self, credential: str) -> str:
        return f"""
        url = "https://pkgs.dev.azure.com/{azure.ORGANIZATION}/_packaging/feed/pypi/simple/"
        credential = "{credential}"
        """

    def fails(self, reason: str) -> str:
        if reason == "not-logged-in":
            self.created.program("az", f"echo \"Please run 'az login'. {CANARY}\" >&2; exit 1\n")
            return self.table("cli")
        self.created.environment()
        refused = azure.refusal(7000215, f"Invalid client secret: {CANARY}")
        self.created.cloud.faults["login"] = lambda _: refused
        return self.table("environment")

    def secrets(self) -> list[str]:
        return [*self.created.secrets, *self.created.cloud.issued()]


class TestJFrog(ProviderContract):
    """jfrog-artifactory: a chain of refresh tokens, a used one, and a user who may not refresh."""

    failures: ClassVar[dict[str, FailureKind]] = {"refresh-token-refused": "login-required", "forbidden": "rejected"}

    @pytest.fixture(autouse=True)
    def world(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        with jfrog_world.loopback_world(tmp_path, monkeypatch) as self.created:
            self.seed = self.created.plant()
            yield

    def works(self) -> str:
        return f"""
        url = "{self.created.service}/artifactory/api/pypi/pypi/simple/"
        provider = "jfrog-artifactory"
        access-token = {{ file = "{self.created.home / "access"}" }}
        refresh-token = {{ file = "{self.created.home / "refresh"}" }}
        """

    def fails(self, reason: str) -> str:
        if reason == "forbidden":
            body = json.dumps({"errors": [{"code": "FORBIDDEN", "message": CANARY}]}).encode()
            self.created.platform.fault = lambda _: Answer(403, body, {"Content-Type": "application/json"})
        else:
            self.created.platform.revoke(self.seed)
        return self.works()

    def secrets(self) -> list[str]:
        return [self.seed, CANARY, *self.created.platform.issued()]


class TestGitLab(ProviderContract):
    """gitlab: a rotated token, a revoked one, and one that cannot read packages."""

    failures: ClassVar[dict[str, FailureKind]] = {"token-refused": "login-required", "missing-scope": "rejected"}

    @pytest.fixture(autouse=True)
    def world(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        with gitlab_world.loopback_world(tmp_path, monkeypatch) as self.created:
            self.created.plant(90, 85)
            yield

    def works(self) -> str:
        return f"""
        url = "{self.created.service}/api/v4/projects/42/packages/pypi/simple/"
        provider = "gitlab"
        token = {{ file = "{self.created.file}" }}
        rotate = true
        """

    def fails(self, reason: str) -> str:
        if reason == "token-refused":
            self.created.cloud.revoke(self.created.kept())
        else:
            self.created.plant(90, 0, ("read_user",))
        return self.works()

    def secrets(self) -> list[str]:
        return self.created.cloud.issued()


class TestNexus(ProviderContract):
    """nexus: the two codes of a user token, a missing pass code, and an invalid name code."""

    failures: ClassVar[dict[str, FailureKind]] = {"no-secret": "rejected", "bad-options": "rejected"}

    @pytest.fixture(autouse=True)
    def world(self, tmp_path: Path) -> None:
        self.codes = [f"{kind}-{secrets.token_hex(16)}" for kind in ("name", "pass")]
        self.files = [tmp_path / "name", tmp_path / "pass"]
        for file, code in zip(self.files, self.codes, strict=True):
            file.write_text(code + "\n")

    def works(self) -> str:
        return f"""
        url = "https://nexus.example/repository/pypi/simple/"
        provider = "nexus"
        username = {{ file = "{self.files[0]}" }}
        password = {{ file = "{self.files[1]}" }}
        """

    def fails(self, reason: str) -> str:
        if reason == "no-secret":
            self.files[1].unlink()
        else:
            self.files[0].write_text(f"{self.codes[0]}:{CANARY}")
        return self.works()

    def secrets(self) -> list[str]:
        return [*self.codes[1:], CANARY]


class TestStatic(ProviderContract):
    """static: a password in a file, a missing file, and an expired password."""

    failures: ClassVar[dict[str, FailureKind]] = {"expired": "rejected", "no-secret": "rejected"}

    @pytest.fixture(autouse=True)
    def world(self, tmp_path: Path) -> None:
        self.password = "password-" + secrets.token_hex(16)
        self.file = tmp_path / "password"
        self.file.write_text(self.password + "\n")

    def works(self) -> str:
        return f"""
        url = "https://packages.example/simple/"
        provider = "static"
        username = "me"
        password = {{ file = "{self.file}" }}
        """

    def fails(self, reason: str) -> str:
        if reason == "expired":
            return self.works() + "expires = 2020-01-01T00:00:00Z"
        self.file.unlink()
        return self.works()

    def secrets(self) -> list[str]:
        return [self.password]


class TestCommand(ProviderContract):
    """command: a program that answers, one with invalid output, and one that fails with output."""

    failures: ClassVar[dict[str, FailureKind]] = {"command-failed": "transient", "garbage": "rejected"}

    @pytest.fixture(autouse=True)
    def world(self, tmp_path: Path) -> None:
        self.password = "password-" + secrets.token_hex(16)
        self.program = tmp_path / "program"
        self.answers({"username": "me", "password": self.password, "expires_in": 3600})

    def answers(self, answer: object, status: int = 0) -> None:
        script = f"#!/bin/sh\ncat <<'END'\n{json.dumps(answer)}\nEND\necho {self.password} >&2\nexit {status}\n"
        self.program.write_text(script)
        self.program.chmod(0o755)

    def works(self) -> str:
        return f"""
        url = "https://packages.example/simple/"
        provider = "command"
        command = ["{self.program}"]
        """

    def fails(self, reason: str) -> str:
        self.answers({"username": self.password, "password": 7}, status=int(reason == "command-failed"))
        return self.works()

    def secrets(self) -> list[str]:
        return [self.password]


def test_every_provider_is_tested() -> None:
    """Every provider in the catalog has a ProviderContract here, which its docstring names."""
    here = [member for member in vars(sys.modules[__name__]).values() if isinstance(member, type)]
    texts = [member.__doc__ or "" for member in here if issubclass(member, ProviderContract)]
    assert {text.partition(":")[0] for text in texts} >= set(CLOUDS)

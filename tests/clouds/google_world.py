"""The environment of the tests of google-artifact-registry: a loopback Google, and no way to the real one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from clouds import google as fake
from clouds.tls import TlsProxy
from support import loopback
from support.loopback import CANARY, forget, program, quiet
from uvtokend.core import wire
from uvtokend.core.model import Credential, Failure, Frozen, Request
from uvtokend.errors import FetchFailed
from uvtokend.providers.google import fetch as google
from uvtokend.sandbox.web import Server

TARGET = f"deployer@{fake.PROJECT}.iam.gserviceaccount.com"
#: Parts of names of variables that could lead a library to a real service.
FOREIGN = ("PROXY", "GOOGLE_", "CLOUDSDK_", "GCE_", "CA_BUNDLE", "SSL_CERT", "GCLOUD")


@dataclass
class World:
    """A loopback Google, the proxy in front of it, and an empty home directory."""

    cloud: fake.GoogleCloud
    proxy: TlsProxy
    home: Path
    patch: pytest.MonkeyPatch
    secrets: list[str] = field(default_factory=list)

    def file(self, content: Any, name: str = "credentials.json") -> str:
        path = self.home / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        inner = content.get("source_credentials", content) if isinstance(content, dict) else {}
        self.secrets += [inner[key] for key in ("private_key", "refresh_token", "client_secret") if key in inner]
        return str(path)

    def use(self, content: Any) -> str:
        """Let GOOGLE_APPLICATION_CREDENTIALS name a file with this content."""
        path = self.file(content)
        self.patch.setenv("GOOGLE_APPLICATION_CREDENTIALS", path)
        return path

    def well_known(self, content: Any) -> str:
        return self.file(content, "gcloud/application_default_credentials.json")

    def subject(self, name: str = "subject") -> str:
        """Write a subject token that the security token service accepts."""
        token = "subject-token-" + os.urandom(16).hex()
        self.cloud.subjects.add(token)
        self.secrets.append(token)
        path = self.home / name
        path.write_text(token)
        return str(path)

    def executable(self, audience: str = fake.POOL) -> None:
        """Use an external account whose subject token a program prints."""
        printed = {"version": 1, "success": True, "token_type": fake.JWT, "id_token": Path(self.subject()).read_text()}
        path = self.program(f"echo '{json.dumps(printed)}'\n", "subject-token")
        source = {"executable": {"command": path, "timeout_millis": 5000}}
        self.use(self.cloud.external_account(source, audience=audience))
        self.patch.setenv("GOOGLE_EXTERNAL_ACCOUNT_ALLOW_EXECUTABLES", "1")

    def aws(self) -> None:
        """Use an external account whose subject token is a signed AWS request."""
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
            self.patch.setenv(name, CANARY)
        self.patch.setenv("AWS_REGION", "eu-central-1")
        verification = "https://sts.{region}.amazonaws.com?Action=GetCallerIdentity&Version=2011-06-15"
        source = {"environment_id": "aws1", "regional_cred_verification_url": verification}
        self.use({**self.cloud.external_account(source), "subject_token_type": fake.AWS_REQUEST})

    def program(self, script: str, name: str = "gcloud") -> str:
        return program(self.home / "bin" / name, script)

    def machine(self, metadata: Server) -> None:
        """Act as a machine whose metadata server is `metadata`;
        google-auth reads these variables when it is imported.
        """
        self.patch.delenv("NO_GCE_CHECK")
        self.patch.setenv("GCE_METADATA_HOST", metadata.url.removeprefix("http://"))
        self.patch.setenv("GCE_METADATA_IP", metadata.url.removeprefix("http://"))

    def worker(self, **options: Frozen) -> Credential | Failure:
        """Fetch in a worker process, as the daemon does."""
        env = {**os.environ, "UVTOKEND_REQUEST": wire.encode_request(asked(**options)), "UVTOKEND_FETCH_TIMEOUT": "60"}
        command = [sys.executable, "-P", "-m", "uvtokend.providers.worker"]
        done = subprocess.run(command, env=env, stdin=subprocess.DEVNULL, capture_output=True, check=True, timeout=60)
        return wire.decode_answer(done.stdout.rstrip())

    def failure(self, **options: Frozen) -> Failure:
        """Fetch, expect a failure, and check that nothing that could be logged of it contains a secret."""
        with pytest.raises(FetchFailed) as caught:
            google.fetch(asked(**options))
        return quiet(caught, [*self.secrets, CANARY])

    def paths(self) -> list[str]:
        return [f"{host}{call.path}" for host, call in self.proxy.calls]


def asked(**options: Frozen) -> Request:
    return loopback.asked("google-artifact-registry", **options)


@contextmanager
def loopback_world(home: Path, patch: pytest.MonkeyPatch) -> Iterator[World]:
    """Make an environment in `home` without other proxies, gcloud, netrc and other ways to the real service."""
    forget(patch, FOREIGN)
    cloud = fake.GoogleCloud()
    (home / "bin").mkdir()
    with TlsProxy(cloud.sites) as proxy:
        settings = {
            "HOME": str(home),
            "CLOUDSDK_CONFIG": str(home / "gcloud"),
            "PATH": str(home / "bin"),
            "HTTPS_PROXY": proxy.url,
            "REQUESTS_CA_BUNDLE": proxy.ca_file,
            "NETRC": os.devnull,
            "NO_GCE_CHECK": "true",
        }
        for name, value in settings.items():
            patch.setenv(name, value)
        yield World(cloud, proxy, home, patch)

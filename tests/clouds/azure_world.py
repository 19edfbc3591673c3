"""The environment of the tests of azure-artifacts: a loopback Azure, and no way to a real one."""

from __future__ import annotations

import os
import shlex
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from clouds.azure import ORGANIZATION, AzureCloud
from clouds.tls import TlsProxy
from support import loopback
from support.loopback import CANARY, forget, program, quiet
from uvtokend.core.model import Credential, Failure, Frozen, Request
from uvtokend.errors import FetchFailed
from uvtokend.providers.azure import fetch as azure
from uvtokend.sandbox.web import Call, Server

SERVICE = f"https://pkgs.dev.azure.com/{ORGANIZATION}"
LEGACY = f"https://{ORGANIZATION}.pkgs.visualstudio.com"
#: Parts of names of variables that could lead a library to a real service.
FOREIGN = ("PROXY", "AZURE_", "IDENTITY_", "IMDS_", "MSI_", "CA_BUNDLE", "SSL_CERT", "ARTIFACTS_", "VSS_")


@dataclass
class World:
    """A loopback Azure, the proxy in front of it, and an empty home directory."""

    cloud: AzureCloud
    proxy: TlsProxy
    home: Path
    patch: pytest.MonkeyPatch
    secrets: list[str] = field(default_factory=lambda: [CANARY])

    def set(self, **variables: str) -> None:
        for name, text in variables.items():
            self.patch.setenv(name, text)

    def program(self, name: str, script: str) -> None:
        program(self.home / "bin" / name, script)

    def tool(self, name: str, answer: str) -> None:
        """Install a tool that prints an answer and logs its arguments to ``<name>.log``."""
        (self.home / f"{name}.json").write_text(answer)
        log, output = shlex.quote(str(self.home / f"{name}.log")), shlex.quote(str(self.home / f"{name}.json"))
        self.program(name, f'echo "$@" >> {log}\ncat {output}\n')

    def log_in(self, life: float | None = None) -> str:
        """Sign a person in to az and return the token."""
        token = self.cloud.user_token(life=life)
        self.tool("az", self.cloud.az_answer(token))
        return token

    def arguments(self, name: str = "az") -> str:
        return (self.home / f"{name}.log").read_text()

    def environment(self) -> str:
        """Put an application and its secret into the environment, and return its client ID."""
        client, secret = self.cloud.application()
        self.secrets.append(secret)
        self.set(AZURE_CLIENT_ID=client, AZURE_TENANT_ID=self.cloud.tenant, AZURE_CLIENT_SECRET=secret)
        return client

    def workload(self) -> str:
        """Put a workload identity into the environment, and return its client ID."""
        client, _ = self.cloud.application()
        assertion = "assertion-" + os.urandom(16).hex()
        self.secrets.append(assertion)
        self.cloud.assertions.add(assertion)
        path = self.home / "assertion"
        path.write_text(assertion)
        self.set(AZURE_CLIENT_ID=client, AZURE_TENANT_ID=self.cloud.tenant, AZURE_FEDERATED_TOKEN_FILE=str(path))
        return client

    def machine(self, server: Server) -> None:
        """Act as a virtual machine whose identity endpoint is `server`."""
        self.set(AZURE_POD_IDENTITY_AUTHORITY_HOST=server.url)

    def fetch(self, service: str = SERVICE, **options: Frozen) -> Credential:
        return azure.fetch(asked(service, **options))

    def failure(self, service: str = SERVICE, **options: Frozen) -> Failure:
        """Fetch, expect a failure, and check that nothing that could be logged of it contains a secret."""
        with pytest.raises(FetchFailed) as caught:
            self.fetch(service, **options)
        return quiet(caught, [*self.secrets, *self.cloud.issued()])

    def check_quiet(self, shown: str) -> None:
        assert not [secret for secret in [*self.secrets, *self.cloud.issued()] if secret in shown]

    def calls(self, host: str) -> list[Call]:
        return [call for name, call in self.proxy.calls if name == host]

    def hosts(self) -> list[str]:
        return [host for host, _ in self.proxy.calls]


def asked(service: str = SERVICE, **options: Frozen) -> Request:
    return loopback.asked("azure-artifacts", service, **options)


def loopback_world(home: Path, patch: pytest.MonkeyPatch, proxy: TlsProxy) -> World:
    """Make an environment in which every library reaches only this Azure; the proxy may be reused."""
    forget(patch, FOREIGN)
    cloud = AzureCloud()
    (home / "bin").mkdir()
    proxy.sites = cloud.sites
    proxy.calls.clear()
    world = World(cloud, proxy, home, patch)
    world.set(
        HOME=str(home),
        PATH=f"{home / 'bin'}:/bin",
        HTTPS_PROXY=proxy.url,
        REQUESTS_CA_BUNDLE=proxy.ca_file,
        NETRC=os.devnull,
    )
    return world

"""Publishing with each provider's credential: the real `uv publish` and twine, and indexes that check every upload.

Each provider's help page says what a credential needs to publish; here each emulator enforces it.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import uv

from clouds import azure_world, gitlab_world, google_world, jfrog_world
from clouds.tls import TlsProxy
from support.loopback import asked
from uvtokend.core import clouds
from uvtokend.core.model import Credential
from uvtokend.core.urls import IndexUrl
from uvtokend.providers import worker
from uvtokend.sandbox import registries
from uvtokend.sandbox.codeartifact import CodeArtifact
from uvtokend.sandbox.index import PackageIndex, wheel
from uvtokend.sandbox.registries import Registry
from uvtokend.sandbox.web import Answer, Call

Publishes = Callable[[str, str], bool]
FILE = "iota-1.0-py3-none-any.whl"


@dataclass
class World:
    """A directory, an isolated environment, and the resources that a test has opened."""

    home: Path
    patch: pytest.MonkeyPatch
    opened: ExitStack = field(default_factory=ExitStack)


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    created = World(tmp_path, monkeypatch)
    with created.opened:
        yield created


def aws(world: World) -> tuple[Credential, Publishes]:
    cloud = world.opened.enter_context(CodeArtifact())
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        world.patch.delenv(name)
    keys = world.home / "aws"
    keys.write_text("[default]\naws_access_key_id = AKIAEXAMPLE\naws_secret_access_key = example\n")
    for name, value in {**cloud.environment(), "AWS_SHARED_CREDENTIALS_FILE": str(keys)}.items():
        world.patch.setenv(name, value)
    where = {"domain": "acme", "domain_owner": "123456789012", "region": "eu-central-1"}
    credential = worker.fetch(asked("aws-codeartifact", **where))
    assert isinstance(credential, Credential)
    return credential, lambda login, token: login == "aws" and cloud.valid(token)


def google(world: World) -> tuple[Credential, Publishes]:
    cloud_world = world.opened.enter_context(google_world.loopback_world(world.home, world.patch))
    cloud_world.use(cloud_world.cloud.service_account())
    credential = cloud_world.worker()
    assert isinstance(credential, Credential)
    return credential, lambda login, token: login == "oauth2accesstoken" and cloud_world.cloud.valid(token)


def azure(world: World) -> tuple[Credential, Publishes]:
    cloud_world = azure_world.loopback_world(world.home, world.patch, world.opened.enter_context(TlsProxy({})))
    cloud_world.log_in()

    def publishes(_: str, token: str) -> bool:
        return cloud_world.cloud.opens(token) and "vso.packaging_write" in cloud_world.cloud.scopes(token)

    return cloud_world.fetch(credential="cli"), publishes


def jfrog(world: World) -> tuple[Credential, Publishes]:
    cloud_world = world.opened.enter_context(jfrog_world.loopback_world(world.home, world.patch))
    cloud_world.plant()
    return cloud_world.fetch(), cloud_world.platform.valid


def gitlab(world: World) -> tuple[Credential, Publishes]:
    cloud_world = world.opened.enter_context(gitlab_world.loopback_world(world.home, world.patch))
    cloud_world.plant(90, 85, ("api",))
    return cloud_world.fetch(), cloud_world.cloud.publishes


def nexus(world: World) -> tuple[Credential, Publishes]:
    for name in ("name", "pass"):
        (world.home / name).write_text(f"{name}-code\n")
    codes = {
        "username": (("file", str(world.home / "name")),),
        "password": (("file", str(world.home / "pass")),),
    }
    credential = worker.fetch(asked("nexus", **codes))
    assert isinstance(credential, Credential)
    return credential, lambda login, token: (login, token) == ("name-code", "pass-code")


PROVIDERS: dict[str, tuple[Callable[[World], tuple[Credential, Publishes]], Registry]] = {
    "aws-codeartifact": (aws, registries.CODEARTIFACT),
    "google-artifact-registry": (google, registries.ARTIFACT_REGISTRY),
    "azure-artifacts": (azure, registries.AZURE),
    "jfrog-artifactory": (jfrog, registries.ARTIFACTORY),
    "gitlab": (gitlab, registries.GITLAB),
    "nexus": (nexus, registries.NEXUS),
}


def publish(world: World, tool: str, url: str, credential: Credential) -> subprocess.CompletedProcess[str]:
    """Publish a wheel; uv gets the credential from netrc, twine from its environment."""
    file, netrc = world.home / FILE, world.home / "netrc-of-uv"
    file.write_bytes(wheel("iota", "1.0"))
    token = credential.password.reveal()
    netrc.write_text(f"machine 127.0.0.1\nlogin {credential.login}\npassword {token}\n")
    netrc.chmod(0o600)
    plain = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH") if name in os.environ}
    if tool == "uv":
        command = [uv.find_uv_bin(), "publish", "--trusted-publishing", "never", "--publish-url", url, str(file)]
        more = {"NETRC": str(netrc), "UV_NO_CONFIG": "1", "UV_CACHE_DIR": str(world.home / "cache")}
    else:
        options = ["--non-interactive", "--disable-progress-bar", "--config-file", os.devnull]
        command = [sys.executable, "-m", "twine", "upload", *options, "--repository-url", url, str(file)]
        more = {"TWINE_USERNAME": credential.login, "TWINE_PASSWORD": token, "NETRC": os.devnull}
    return subprocess.run(
        command,
        env={**plain, "HOME": str(world.home), **more},
        cwd=world.home,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_every_provider_with_an_upload_url_is_tested() -> None:
    """Every provider whose upload URL differs from the usual one is in the table."""
    url = IndexUrl.parse("https://a.example/api/v4/groups/acme/_packaging/feed/pypi/simple/")
    usual = clouds.CLOUDS["static"].upload(url)
    assert {name for name, cloud in clouds.CLOUDS.items() if cloud.upload(url) != usual} <= PROVIDERS.keys()


@pytest.mark.parametrize("tool", ["uv", "twine"])
@pytest.mark.parametrize("provider", PROVIDERS)
def test_publish(world: World, provider: str, tool: str) -> None:
    """The file arrives at the provider's own upload URL, with the credential that the provider returns."""
    prepare, registry = PROVIDERS[provider]
    credential, publishes = prepare(world)
    with PackageIndex(publishes, registry=registry) as index:
        url = clouds.upload_url(provider, IndexUrl.parse(index.url))
        assert url.rstrip("/") == index.upload_url.rstrip("/")
        done = publish(world, tool, url, credential)
        assert done.returncode == 0, done.stdout + done.stderr
        assert index.files[FILE].data == (world.home / FILE).read_bytes()
        assert credential.password.reveal() not in done.stdout + done.stderr


@pytest.mark.parametrize("tool", ["uv", "twine"])
def test_a_token_that_can_only_read(world: World, tool: str) -> None:
    """As the help page says, GitLab refuses an upload with the scope read_api."""
    cloud_world = world.opened.enter_context(gitlab_world.loopback_world(world.home, world.patch))
    cloud_world.plant()
    credential = cloud_world.fetch()
    with PackageIndex(cloud_world.cloud.valid, registry=registries.GITLAB) as index:
        answer = index.server.site

        def site(call: Call) -> Answer:
            allowed = cloud_world.cloud.publishes(credential.login, credential.password.reveal())
            return Answer(403) if call.method == "POST" and not allowed else answer(call)

        index.server.site = site
        assert publish(world, tool, index.upload_url, credential).returncode != 0
        assert FILE not in index.files

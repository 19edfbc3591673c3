"""Publishing with what each provider delivers: the real `uv publish` and twine, and indexes that check every upload.

What a credential needs to publish is in the provider's help page; here each emulator enforces it.
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
    """A directory, an environment that leads nowhere else, and what a test has opened."""

    home: Path
    patch: pytest.MonkeyPatch
    opened: ExitStack = field(default_factory=ExitStack)


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    made = World(tmp_path, monkeypatch)
    with made.opened:
        yield made


def aws(world: World) -> tuple[Credential, Publishes]:
    cloud = world.opened.enter_context(CodeArtifact())
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        world.patch.delenv(name)
    keys = world.home / "aws"
    keys.write_text("[default]\naws_access_key_id = AKIAEXAMPLE\naws_secret_access_key = example\n")
    for name, value in {**cloud.environment(), "AWS_SHARED_CREDENTIALS_FILE": str(keys)}.items():
        world.patch.setenv(name, value)
    where = {"domain": "acme", "domain_owner": "123456789012", "region": "eu-central-1"}
    found = worker.fetch(asked("aws-codeartifact", **where))
    assert isinstance(found, Credential)
    return found, lambda login, token: login == "aws" and cloud.valid(token)


def google(world: World) -> tuple[Credential, Publishes]:
    made = world.opened.enter_context(google_world.loopback_world(world.home, world.patch))
    made.use(made.cloud.service_account())
    found = made.worker()
    assert isinstance(found, Credential)
    return found, lambda login, token: login == "oauth2accesstoken" and made.cloud.valid(token)


def azure(world: World) -> tuple[Credential, Publishes]:
    made = azure_world.loopback_world(world.home, world.patch, world.opened.enter_context(TlsProxy({})))
    made.log_in()

    def publishes(_: str, token: str) -> bool:
        return made.cloud.opens(token) and "vso.packaging_write" in made.cloud.scopes(token)

    return made.fetch(credential="cli"), publishes


def jfrog(world: World) -> tuple[Credential, Publishes]:
    made = world.opened.enter_context(jfrog_world.loopback_world(world.home, world.patch))
    made.plant()
    return made.fetch(), made.platform.valid


def gitlab(world: World) -> tuple[Credential, Publishes]:
    made = world.opened.enter_context(gitlab_world.loopback_world(world.home, world.patch))
    made.plant(90, 85, ("api",))
    return made.fetch(), made.cloud.publishes


def nexus(world: World) -> tuple[Credential, Publishes]:
    for name in ("name", "pass"):
        (world.home / name).write_text(f"{name}-code\n")
    codes = {
        "username": (("file", str(world.home / "name")),),
        "password": (("file", str(world.home / "pass")),),
    }
    found = worker.fetch(asked("nexus", **codes))
    assert isinstance(found, Credential)
    return found, lambda login, token: (login, token) == ("name-code", "pass-code")


PROVIDERS: dict[str, tuple[Callable[[World], tuple[Credential, Publishes]], Registry]] = {
    "aws-codeartifact": (aws, registries.CODEARTIFACT),
    "google-artifact-registry": (google, registries.ARTIFACT_REGISTRY),
    "azure-artifacts": (azure, registries.AZURE),
    "jfrog-artifactory": (jfrog, registries.ARTIFACTORY),
    "gitlab": (gitlab, registries.GITLAB),
    "nexus": (nexus, registries.NEXUS),
}


def publish(world: World, tool: str, url: str, found: Credential) -> subprocess.CompletedProcess[str]:
    """Publish a wheel: uv finds the credential in netrc, twine in its environment."""
    file, netrc = world.home / FILE, world.home / "netrc-of-uv"
    file.write_bytes(wheel("iota", "1.0"))
    token = found.password.reveal()
    netrc.write_text(f"machine 127.0.0.1\nlogin {found.login}\npassword {token}\n")
    netrc.chmod(0o600)
    plain = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH") if name in os.environ}
    if tool == "uv":
        command = [uv.find_uv_bin(), "publish", "--trusted-publishing", "never", "--publish-url", url, str(file)]
        more = {"NETRC": str(netrc), "UV_NO_CONFIG": "1", "UV_CACHE_DIR": str(world.home / "cache")}
    else:
        options = ["--non-interactive", "--disable-progress-bar", "--config-file", os.devnull]
        command = [sys.executable, "-m", "twine", "upload", *options, "--repository-url", url, str(file)]
        more = {"TWINE_USERNAME": found.login, "TWINE_PASSWORD": token, "NETRC": os.devnull}
    return subprocess.run(
        command,
        env={**plain, "HOME": str(world.home), **more},
        cwd=world.home,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_every_provider_publishes_here() -> None:
    """Every provider that publishes to another URL than its index's is in the table."""
    url = IndexUrl.parse("https://a.example/api/v4/groups/acme/_packaging/feed/pypi/simple/")
    usual = clouds.CLOUDS["static"].upload(url)
    assert {name for name, cloud in clouds.CLOUDS.items() if cloud.upload(url) != usual} <= PROVIDERS.keys()


@pytest.mark.parametrize("tool", ["uv", "twine"])
@pytest.mark.parametrize("provider", PROVIDERS)
def test_publish(world: World, provider: str, tool: str) -> None:
    """The file arrives at the provider's own upload URL, with the credential that the provider delivers."""
    prepare, registry = PROVIDERS[provider]
    found, publishes = prepare(world)
    with PackageIndex(publishes, registry=registry) as index:
        url = clouds.upload_url(provider, IndexUrl.parse(index.url))
        assert url.rstrip("/") == index.upload_url.rstrip("/")
        done = publish(world, tool, url, found)
        assert done.returncode == 0, done.stdout + done.stderr
        assert index.files[FILE].data == (world.home / FILE).read_bytes()
        assert found.password.reveal() not in done.stdout + done.stderr


@pytest.mark.parametrize("tool", ["uv", "twine"])
def test_a_token_that_can_only_read(world: World, tool: str) -> None:
    """GitLab refuses an upload with the scope read_api, as the help page says."""
    made = world.opened.enter_context(gitlab_world.loopback_world(world.home, world.patch))
    made.plant()
    found = made.fetch()
    with PackageIndex(made.cloud.valid, registry=registries.GITLAB) as index:
        answer = index.server.site

        def site(call: Call) -> Answer:
            allowed = made.cloud.publishes(found.login, found.password.reveal())
            return Answer(403) if call.method == "POST" and not allowed else answer(call)

        index.server.site = site
        assert publish(world, tool, index.upload_url, found).returncode != 0
        assert FILE not in index.files

"""What a session token permits: the real uv installs from a feed and publishes to it, and the feed enforces scopes."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import uv

from clouds.azure import FEED, PACKAGES_HOST
from clouds.azure_world import World, loopback_world
from clouds.tls import TlsProxy
from uvtokend.sandbox.index import PackageIndex, wheel

BASE = f"https://{PACKAGES_HOST}"


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """Return a world where a person is signed in to az and one package of the feed is not saved from upstream yet."""
    with TlsProxy({}) as proxy, PackageIndex(lambda _, __: True, registry=FEED) as index:
        created = loopback_world(tmp_path, monkeypatch, proxy)
        index.base = BASE
        created.cloud.feed = index
        created.cloud.unsaved = {"theta"}
        created.log_in()
        yield created


def run(world: World, access: str, *words: str) -> subprocess.CompletedProcess[str]:
    """Run uv with a new session token as its only credential, and only the proxy as its network."""
    netrc = world.home / "netrc"
    token = world.fetch(credential="cli", access=access).password.reveal()
    netrc.write_text(f"machine {PACKAGES_HOST}\nlogin VssSessionToken\npassword {token}\n")
    more = {
        "NETRC": str(netrc),
        "SSL_CERT_FILE": world.proxy.ca_file,
        "UV_NO_CONFIG": "1",
        "UV_CACHE_DIR": str(world.home / "cache"),
        "UV_HTTP_RETRIES": "0",
        "UV_NO_PROGRESS": "1",
    }
    return subprocess.run(
        [uv.find_uv_bin(), *words],
        env={**os.environ, **more},
        cwd=world.home,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def install(world: World, access: str, name: str) -> subprocess.CompletedProcess[str]:
    index = f"{BASE}{FEED.root}/simple/"
    return run(world, access, "pip", "install", "--target", f"target-{name}", "--no-deps", "--index-url", index, name)


def publish(world: World, access: str) -> subprocess.CompletedProcess[str]:
    file = world.home / "iota-1.0-py3-none-any.whl"
    file.write_bytes(wheel("iota", "1.0"))
    return run(
        world, access, "publish", "--trusted-publishing", "never", "--publish-url", f"{BASE}{FEED.upload}", str(file)
    )


def test_a_session_token_saves_from_upstream(world: World) -> None:
    """The default token installs a package that the feed has not saved from upstream yet; a read-only token is
    refused."""
    refused = install(world, "read", "theta")
    assert refused.returncode != 0
    assert "403" in refused.stderr
    done = install(world, "write", "theta")
    assert done.returncode == 0, done.stderr
    assert world.cloud.unsaved == set()


def test_a_read_only_token_installs_what_is_saved(world: World) -> None:
    """For saved packages the scope vso.packaging suffices, which `access = "read"` requests."""
    done = install(world, "read", "zeta")
    assert done.returncode == 0, done.stderr


def test_a_session_token_publishes(world: World) -> None:
    """`uv publish` works with the default token through netrc; a read-only token is refused."""
    assert world.cloud.feed is not None
    refused = publish(world, "read")
    assert refused.returncode != 0
    assert "iota-1.0-py3-none-any.whl" not in world.cloud.feed.files
    done = publish(world, "write")
    assert done.returncode == 0, done.stderr
    assert "iota-1.0-py3-none-any.whl" in world.cloud.feed.files

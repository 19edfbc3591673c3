"""Artifactory and Nexus, end to end: the real daemon and workers, the real uv, and a netrc between them."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator

import pytest

from clouds.jfrog import JFrog
from support.daemons import await_ready
from support.machines import bare_machine, keep
from uvtokend.sandbox.index import PackageIndex
from uvtokend.sandbox.machine import Machine
from uvtokend.sandbox.registries import ARTIFACTORY, NEXUS
from uvtokend.sandbox.web import Answer, Call


@pytest.fixture
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    with bare_machine(tmp_path_factory) as made:
        yield made


def start(machine: Machine) -> None:
    """Start the daemon and wait for its first delivery."""
    machine.start()
    wait(machine, lambda: machine.netrc.exists() and "password" in machine.netrc.read_text())


def wait(machine: Machine, condition: Callable[[], bool]) -> None:
    """Wait until a condition holds, at most 60 s."""
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, machine.uvtokend("status").stdout
        time.sleep(0.02)


def installs(machine: Machine, index: PackageIndex, name: str) -> None:
    """Install a package with the real uv and the netrc."""
    target = machine.directory / name
    done = machine.install(target, "--index-url", index.url, name)
    assert done.returncode == 0, done.stderr
    assert (target / f"{name}.py").exists()


@pytest.fixture
def artifactory() -> Iterator[tuple[JFrog, PackageIndex]]:
    """Emulate a platform on one host: the Access API, and a PyPI repository that accepts its tokens."""
    with JFrog() as platform, PackageIndex(platform.valid, registry=ARTIFACTORY) as index:
        repository = index.server.site

        def site(call: Call) -> Answer:
            return platform.server.site(call) if call.path.startswith("/access/") else repository(call)

        index.server.site = site
        yield platform, index


def test_uv_installs_from_artifactory(machine: Machine, artifactory: tuple[JFrog, PackageIndex]) -> None:
    """uv keeps working while a chain of refresh tokens replaces each token;
    only the netrc and the chain's file contain them.
    """
    platform, index = artifactory
    access, refresh = platform.pair()
    machine.write(
        f'[[index]]\nname = "acme"\nurl = "{index.url}"\nprovider = "jfrog-artifactory"\n'
        f"access-token = {keep(machine, 'access', access)}\nrefresh-token = {keep(machine, 'refresh', refresh)}\n"
    )
    start(machine)
    installs(machine, index, "zeta")
    old = machine.netrc.read_text()
    assert "login person" in old
    assert machine.uvtokend("refresh").returncode == 0
    assert machine.netrc.read_text() != old
    installs(machine, index, "delta")
    (chain,) = (machine.state / "chains").glob("*.json")
    seeds = {machine.home / "access", machine.home / "refresh"}
    for token in platform.issued():
        holders = {
            path for path in machine.directory.rglob("*") if path.is_file() and token.encode() in path.read_bytes()
        }
        assert holders - seeds <= {machine.netrc, chain}


def test_uv_installs_with_a_token_without_a_user(machine: Machine, artifactory: tuple[JFrog, PackageIndex]) -> None:
    """A reference token names no user; uv sends the empty login, which Artifactory accepts."""
    platform, index = artifactory
    platform.reference = True
    token = keep(machine, "access", platform.pair()[0])
    machine.write(f'[[index]]\nurl = "{index.url}"\nprovider = "jfrog-artifactory"\naccess-token = {token}\n')
    start(machine)
    assert 'login ""' in machine.netrc.read_text()
    installs(machine, index, "zeta")


def test_uv_installs_from_nexus(machine: Machine) -> None:
    """Both codes of a Nexus user token work from separate references;
    a replaced pass code is delivered at the next refresh.
    """
    codes = {("name-code", "pass-code"), ("name-code", "new pass")}
    with PackageIndex(lambda login, code: (login, code) in codes, registry=NEXUS) as index:
        machine.environment["NEXUS_NAME"] = "name-code"
        machine.write(
            f'[[index]]\nname = "corp"\nurl = "{index.url}"\nprovider = "nexus"\nusername = {{ env = "NEXUS_NAME" }}\n'
            f"password = {keep(machine, 'pass', 'pass-code')}\n"
        )
        start(machine)
        installs(machine, index, "zeta")
        shown = machine.uvtokend("status", "--json").stdout
        assert '"username": "****"' in shown  # the name code is a secret, too
        assert "name-code" not in shown + machine.uvtokend("log").stdout
        keep(machine, "pass", "new pass")
        codes.remove(("name-code", "pass-code"))
        assert machine.uvtokend("refresh").returncode == 0
        installs(machine, index, "delta")


def test_the_status_warns_about_a_global_pat(machine: Machine) -> None:
    """If two Azure organizations share a personal access token, `status` warns that such tokens will stop working."""
    pat = keep(machine, "pat", "p" * 52)
    machine.write(
        *(
            f'[[index]]\nname = "{name}"\nurl = "https://pkgs.dev.azure.com/{name}/_packaging/feed/pypi/simple/"\n'
            f'username = "{name}"\npat = {pat}\nsink = "uv-store"\n'
            for name in ("acme", "globex")
        )
    )
    machine.start()
    await_ready(machine)
    shown = json.loads(machine.uvtokend("status", "--json").stdout)
    reasons = [[notice["reason"] for notice in index["notices"]] for index in shown["indexes"]]
    assert reasons == [["global-pat"], ["global-pat"]]

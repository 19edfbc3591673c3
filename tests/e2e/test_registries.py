"""Artifactory and Nexus, end to end: real daemon, real workers, real uv, and a netrc between them."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator

import pytest

from clouds.jfrog import JFrog
from support.daemons import await_ready
from uvtokend.sandbox.index import PackageIndex
from uvtokend.sandbox.machine import Machine
from uvtokend.sandbox.registries import ARTIFACTORY, NEXUS
from uvtokend.sandbox.web import Answer, Call


@pytest.fixture
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """A machine whose daemon is ended at the end."""
    made = Machine(tmp_path_factory.mktemp("m"))  # a short path, since a socket is in it
    yield made
    made.stop()


def keep(machine: Machine, name: str, text: str) -> str:
    """Keep a secret in a file, and return the reference to it in TOML."""
    file = machine.home / name
    file.write_text(text)
    file.chmod(0o600)
    return f'{{ file = "~/{name}" }}'


def start(machine: Machine) -> None:
    """Start the daemon and wait for its first delivery."""
    machine.start()
    wait(machine, lambda: machine.netrc.exists() and "password" in machine.netrc.read_text())


def wait(machine: Machine, condition: Callable[[], bool]) -> None:
    """Wait until a condition holds, and not for ever."""
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, machine.uvtokend("status").stdout
        time.sleep(0.02)


def installs(machine: Machine, index: PackageIndex, name: str) -> None:
    """uv installs a package with what it finds in the netrc."""
    target = machine.directory / name
    done = machine.install(target, "--index-url", index.url, name)
    assert done.returncode == 0, done.stderr
    assert (target / f"{name}.py").exists()


@pytest.fixture
def artifactory() -> Iterator[tuple[JFrog, PackageIndex]]:
    """A platform on one host: the Access API, and a PyPI repository that believes it."""
    with JFrog() as platform, PackageIndex(platform.valid, registry=ARTIFACTORY) as index:
        repository = index.server.site

        def site(call: Call) -> Answer:
            return platform.server.site(call) if call.path.startswith("/access/") else repository(call)

        index.server.site = site
        yield platform, index


def test_uv_installs_from_artifactory(machine: Machine, artifactory: tuple[JFrog, PackageIndex]) -> None:
    """A chain of refresh tokens carries uv from token to token, though each old one dies at once; the tokens are in
    the netrc and the chain's file alone."""
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


def test_uv_installs_with_a_token_of_nobody(machine: Machine, artifactory: tuple[JFrog, PackageIndex]) -> None:
    """A reference token names no user: the empty login that Artifactory takes is one that uv sends."""
    platform, index = artifactory
    platform.reference = True
    token = keep(machine, "access", platform.pair()[0])
    machine.write(f'[[index]]\nurl = "{index.url}"\nprovider = "jfrog-artifactory"\naccess-token = {token}\n')
    start(machine)
    assert 'login ""' in machine.netrc.read_text()
    installs(machine, index, "zeta")


def test_uv_installs_from_nexus(machine: Machine) -> None:
    """A user token's two codes, kept apart; a pass code that is replaced is delivered at the next refresh."""
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
        assert '"username": "****"' in shown  # kept like a password, shown like one
        assert "name-code" not in shown + machine.uvtokend("log").stdout
        keep(machine, "pass", "new pass")
        codes.remove(("name-code", "pass-code"))
        assert machine.uvtokend("refresh").returncode == 0
        installs(machine, index, "delta")


def test_a_global_pat_is_told_in_the_status(machine: Machine) -> None:
    """Two organizations that share one personal access token work, and the status says for how long."""
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

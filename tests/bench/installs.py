"""Rows: what an installation pays for its credential, with us, with the peers, and without any."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from bench.asking import UVTOKEND
from bench.fleet import until_delivered
from bench.peers import Peer
from bench.processes import run
from bench.stage import FLOOR, Stage, quietly
from bench.table import Aim, Line, compared, missing
from bench.turns import Figures, ratio, spread, turns
from uvtokend.sandbox.codeartifact import ACCOUNT, CodeArtifact
from uvtokend.sandbox.index import PackageIndex
from uvtokend.sandbox.machine import AwsMachine, find_uv

OPEN = "no authentication"
SHIM = "memory + keyring shim"
#: Our sides, and the sink of each.
OURS = {"netrc": "netrc", "uv-store": "uv-store", SHIM: "memory"}
FLOOR_NAME = "python -I -c pass"
#: How much faster, without an aim.
FASTER = Aim(0.0, at_least=True)


@dataclass(frozen=True, slots=True)
class Side:
    """One way to install.

    Args:
        url: The index.
        environment: All variables.
        token: Returns variables that have to be asked for before each installation.
        private: The index asks for a credential.
    """

    url: str
    environment: Mapping[str, str]
    token: Callable[[], Mapping[str, str]] = dict
    private: bool = True


def measure(stage: Stage) -> list[Line]:
    """Install one wheel and many, and sync a project that has nothing to do, in turns."""
    lines = []
    with _sides(stage) as sides:
        many = stage.scale.wheels
        for count in (1, many):
            wheels = tuple(f"wheel{number}" for number in range(count))
            installers = {name: _installer(stage, side, wheels) for name, side in sides.items()}
            rounds = stage.scale.rounds if count == 1 else stage.scale.few
            seconds = turns(installers | {FLOOR_NAME: quietly(FLOOR, {})}, rounds)
            row = f"uv pip install, {count} {'wheel' if count == 1 else 'wheels'}"
            lines += _lines(row, seconds, one=count == 1)
        syncs = {name: _syncer(stage, name, side) for name, side in sides.items()}
        seconds = turns(syncs, stage.scale.rounds)
        for name in list(seconds)[1:]:
            lines.append(
                compared("uv sync, nothing to do", seconds, name, OPEN, Aim(1.03) if name == "netrc" else None)
            )
    return lines + missing("uv pip install", stage.peers.missing)


def keyring(stage: Stage) -> list[Line]:
    """Ask for one token: our ``keyring`` command, and those of the peers."""
    with _ours(stage) as laptop:
        host = _host("memory")
        command = (str(laptop.home / "bin" / "keyring"), "get", f"https://{host}/pypi/production/simple/", "aws")
        rivals = [peer for peer in stage.peers.available if peer.keyring]
        sides: dict[str, Callable[[], object]] = {
            "shim": quietly(command, laptop.environment),
            FLOOR_NAME: quietly(FLOOR, {}),
            **{peer.name: quietly(peer.get, dict(peer.environment)) for peer in rivals},
        }
        seconds = turns(sides, stage.scale.rounds)
    lines = [compared("keyring get", seconds, "shim", FLOOR_NAME, Aim(2.0))]
    lines += [compared("keyring get", seconds, "shim", peer.name, Aim(4.0, at_least=True)) for peer in rivals]
    return lines + missing("keyring get", stage.peers.missing)


def _lines(row: str, seconds: Figures, one: bool) -> list[Line]:
    lines = [
        compared(row, seconds, "netrc", OPEN, Aim(1.03)),
        compared(row, seconds, "uv-store", OPEN),
        _over_floor(row, seconds) if one else compared(row, seconds, SHIM, OPEN, Aim(1.25)),
    ]
    for peer in [name for name in seconds if name not in {OPEN, FLOOR_NAME, *OURS}]:
        # Many wheels take their time with any credential, and without one: there it is only shown.
        lines.append(compared(row, seconds, "netrc", peer, Aim(4.0, at_least=True) if one else FASTER))
        lines.append(compared(row, seconds, SHIM, peer, Aim(3.0, at_least=True) if one else FASTER))
    return lines


def _over_floor(row: str, seconds: Figures) -> Line:
    """Return what the shim adds to an installation, as a multiple of Python's own start."""
    added = [ours - open_ for ours, open_ in zip(seconds[SHIM], seconds[OPEN], strict=True)]
    floor = seconds[FLOOR_NAME]
    name = f"{SHIM}, less {OPEN}"
    return Line(
        f"{row}: what is added",
        name,
        spread(added).median,
        "s",
        FLOOR_NAME,
        spread(floor).median,
        ratio(added, floor),
        Aim(2.0),
    )


@contextmanager
def _sides(stage: Stage) -> Iterator[dict[str, Side]]:
    """Set all sides up: the same wheels behind the same proxy, each for another credential."""
    found = stage.peers
    wheels: dict[str, tuple[str, ...]] = {f"wheel{number}": () for number in range(stage.scale.wheels)}
    everybody = PackageIndex(lambda _login, _token: True, wheels)
    found.serve("open.example", everybody)
    with _ours(stage) as laptop:
        through = {"HTTPS_PROXY": found.proxy.url, "SSL_CERT_FILE": found.proxy.ca_file, "NO_PROXY": "127.0.0.1"}
        nobody = {**laptop.environment, **through, "NETRC": os.devnull, "HOME": str(laptop.directory)}
        sides = {OPEN: Side(f"https://open.example{everybody.registry.root}/simple/", nobody, private=False)}
        indexes = [everybody]
        for name, sink in OURS.items():
            index = PackageIndex(lambda login, token: login == "aws" and laptop.cloud.valid(token), wheels)
            found.serve(_host(sink), index)
            indexes.append(index)
            environment = {**laptop.environment, **through}
            if sink == "memory":
                environment |= {"UV_KEYRING_PROVIDER": "subprocess", "NETRC": os.devnull}
            sides[name] = Side(f"https://{_host(sink)}{index.registry.root}/simple/", environment)
        for peer in found.available:
            index = PackageIndex(peer.valid, wheels, peer.registry)
            found.serve(peer.host, index)
            indexes.append(index)
            name = peer.name if peer.keyring else f"{peer.name} before it"
            sides[name] = _theirs(peer, laptop)
        try:
            yield sides
        finally:
            for index in indexes:
                index.close()


def _theirs(peer: Peer, laptop: AwsMachine) -> Side:
    common = {
        name: text for name, text in laptop.environment.items() if name.startswith("UV_") and name != "UV_CACHE_DIR"
    }
    environment = {**common, **peer.environment, "UV_KEYRING_PROVIDER": "subprocess" if peer.keyring else "disabled"}
    if peer.keyring:
        return Side(peer.url, environment)

    def token() -> Mapping[str, str]:
        return {"UV_INDEX_PRIVATE_USERNAME": peer.login, "UV_INDEX_PRIVATE_PASSWORD": peer.ask()}

    return Side(peer.url, environment, token)


@contextmanager
def _ours(stage: Stage) -> Iterator[AwsMachine]:
    """Run a daemon that keeps one token in each kind of sink, with a ``keyring`` command before all others on PATH."""
    with CodeArtifact() as cloud:
        laptop = AwsMachine(stage.directory(), cloud)
        laptop.configure(
            **{sink.replace("-", ""): f"https://{_host(sink)}/pypi/production/simple/" for sink in OURS.values()}
        )
        text = laptop.config.read_text()
        for sink in OURS.values():
            domain = sink.replace("-", "")
            text = text.replace(f'name = "{domain}"\n', f'name = "{domain}"\nsink = "{sink}"\n')
        laptop.config.write_text(text)
        binary = laptop.home / "bin"
        laptop.environment["PATH"] = os.pathsep.join([str(binary), laptop.environment["PATH"]])
        run((UVTOKEND, "keyring", "install", str(binary)), laptop.environment)
        laptop.start()
        try:
            until_delivered(laptop)
            yield laptop
        finally:
            laptop.stop()


def _host(sink: str) -> str:
    return f"{sink.replace('-', '')}-{ACCOUNT}.d.codeartifact.eu-central-1.amazonaws.com"


def _index(side: Side) -> str:
    authenticate = "always" if side.private else "never"
    return f'[[index]]\nname = "private"\nurl = "{side.url}"\ndefault = true\nauthenticate = "{authenticate}"\n'


def _installer(stage: Stage, side: Side, wheels: tuple[str, ...]) -> Callable[[], object]:
    """Return a function that installs once, with nothing cached."""
    directory = stage.directory()
    (directory / "uv.toml").write_text(_index(side))
    environment = {**side.environment, "UV_CONFIG_FILE": str(directory / "uv.toml")}

    def install() -> None:
        with tempfile.TemporaryDirectory(dir=directory) as target:
            where = ("--no-cache", "--quiet", "--python", sys.executable, "--target", target)
            run((find_uv(), "pip", "install", *where, *wheels), {**environment, **side.token()})

    return install


def _syncer(stage: Stage, name: str, side: Side) -> Callable[[], object]:
    """Return a function that syncs a project that is in sync."""
    directory = stage.directory()
    project = '[project]\nname = "tidy"\nversion = "1"\nrequires-python = ">=3.11"\ndependencies = ["wheel0"]\n'
    (directory / "pyproject.toml").write_text(project + _index(side).replace("[[index]]", "[[tool.uv.index]]"))
    where = ("sync", "--quiet", "--python", sys.executable, "--project", str(directory))
    environment = {**side.environment, "UV_CACHE_DIR": str(directory / "cache")}
    return lambda: run((find_uv(), *where), {**environment, **side.token()})

"""Rows: the time that an installation spends on its credential, with uvtokend,
with the peers, and without a credential.

Every installation has its own cache, prepared before the clock starts: it knows the Python interpreter, which uv
examines only once, and contains no page and no wheel. All sides get the same pages and wheels from one fast index
(`bench.pages`), each with its own credential. The sides that run no peer are fast, so they run several times per turn.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from bench.asking import UVTOKEND
from bench.fleet import until_delivered
from bench.pages import Pages
from bench.peers import Peer
from bench.processes import run
from bench.stage import FLOOR, Stage, quietly
from bench.table import Aim, Line, compared, missing
from bench.turns import Figures, ratio, spread, turns
from uvtokend.sandbox.codeartifact import ACCOUNT, CodeArtifact
from uvtokend.sandbox.machine import AwsMachine, find_uv
from uvtokend.sandbox.registries import CODEARTIFACT

OPEN = "no authentication"
SHIM = "memory + keyring shim"
#: The sides with uvtokend, and the sink of each.
OURS = {"netrc": "netrc", "uv-store": "uv-store", SHIM: "memory"}
FLOOR_NAME = "python -I -c pass"


@dataclass(frozen=True, slots=True)
class Side:
    """One way to install.

    Args:
        url: The URL of the index.
        environment: All variables.
        token: Returns variables that must be fetched before each installation.
        private: Whether the index needs a credential.
    """

    url: str
    environment: Mapping[str, str]
    token: Callable[[], Mapping[str, str]] = dict
    private: bool = True


def measure(stage: Stage) -> list[Line]:
    """Install one wheel and many, and sync an up-to-date project, in turns."""
    lines = []
    rounds, runs = stage.scale.rounds, dict.fromkeys((OPEN, *OURS, FLOOR_NAME), stage.scale.runs)
    with _sides(stage) as sides:
        for count in (1, stage.scale.wheels):
            installers = {name: _Installer(stage, side, _names(count)) for name, side in sides.items()}
            commands: dict[str, Callable[[], object]] = {name: each.install for name, each in installers.items()}
            if count == 1:
                commands[FLOOR_NAME] = quietly(FLOOR, {})
            renew = {name: each.renew for name, each in installers.items()}
            seconds = turns(commands, rounds, runs, renew, warm=count > 1)
            row = f"uv pip install, {count} {'wheel' if count == 1 else 'wheels'}"
            lines += _lines(row, seconds)
        syncs = {name: _syncer(stage, name, side) for name, side in sides.items()}
        seconds = turns(syncs, rounds, runs)
        for name in list(seconds)[1:]:
            lines.append(
                compared("uv sync, nothing to do", seconds, name, OPEN, Aim(1.03) if name == "netrc" else None)
            )
    return lines + missing("uv pip install", stage.peers.missing)


def keyring(stage: Stage) -> list[Line]:
    """Get one token with our ``keyring`` command and with those of the peers."""
    with _ours(stage) as laptop:
        command = (str(laptop.home / "bin" / "keyring"), "get", _url("memory"), "aws")
        rivals = [peer for peer in stage.peers.available if peer.keyring]
        sides: dict[str, Callable[[], object]] = {
            "shim": quietly(command, laptop.environment),
            FLOOR_NAME: quietly(FLOOR, {}),
            **{peer.name: quietly(peer.get, dict(peer.environment)) for peer in rivals},
        }
        seconds = turns(sides, stage.scale.rounds, dict.fromkeys(("shim", FLOOR_NAME), stage.scale.runs))
    lines = [compared("keyring get", seconds, "shim", FLOOR_NAME, Aim(2.0))]
    lines += [compared("keyring get", seconds, "shim", peer.name, Aim(4.0, at_least=True)) for peer in rivals]
    return lines + missing("keyring get", stage.peers.missing)


def _lines(row: str, seconds: Figures) -> list[Line]:
    lines = [
        compared(row, seconds, "netrc", OPEN, Aim(1.03)),
        compared(row, seconds, "uv-store", OPEN),
        _over_floor(row, seconds) if FLOOR_NAME in seconds else compared(row, seconds, SHIM, OPEN, Aim(1.25)),
    ]
    for peer in [name for name in seconds if name not in {OPEN, FLOOR_NAME, *OURS}]:
        lines.append(compared(row, seconds, "netrc", peer, Aim(4.0, at_least=True)))
        lines.append(compared(row, seconds, SHIM, peer, Aim(3.0, at_least=True)))
    return lines


def _over_floor(row: str, seconds: Figures) -> Line:
    """Return what the shim adds to an installation, as a multiple of Python's start."""
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
    """Set up all sides: the same wheels behind the same front, each with another credential."""
    rivals = stage.peers
    hosts, names = rivals.front.hosts, _names(stage.scale.wheels)
    hosts[_host("open")] = Pages(CODEARTIFACT.root, names)
    with _ours(stage) as laptop:
        through = {"HTTPS_PROXY": rivals.front.url, "SSL_CERT_FILE": rivals.front.ca_file, "NO_PROXY": "127.0.0.1"}
        nobody = {**laptop.environment, **through, "NETRC": os.devnull, "HOME": str(laptop.directory)}
        sides = {OPEN: Side(_url("open"), nobody, private=False)}
        for name, sink in OURS.items():
            hosts[_host(sink)] = Pages(
                CODEARTIFACT.root, names, lambda login, token: login == "aws" and laptop.cloud.valid(token)
            )
            environment = {**laptop.environment, **through}
            if sink == "memory":
                environment |= {"UV_KEYRING_PROVIDER": "subprocess", "NETRC": os.devnull}
            sides[name] = Side(_url(sink), environment)
        for peer in rivals.available:
            hosts[peer.host] = Pages(peer.registry.root, names, peer.valid)
            name = peer.name if peer.keyring else f"{peer.name} before it"
            sides[name] = _theirs(peer, laptop)
        yield sides


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
    """Run a daemon that delivers a token to each kind of sink, with our ``keyring`` command first on PATH."""
    with CodeArtifact() as cloud:
        laptop = AwsMachine(stage.directory(), cloud)
        laptop.configure(**{sink.replace("-", ""): _url(sink) for sink in OURS.values()})
        text = laptop.config.read_text()
        for sink in OURS.values():
            domain = sink.replace("-", "")
            text = text.replace(f'name = "{domain}"\n', f'name = "{domain}"\nsink = "{sink}"\n')
        laptop.config.write_text(text)
        binary = laptop.home / "bin"
        laptop.environment["PATH"] = os.pathsep.join([str(binary), laptop.environment["PATH"]])
        run((UVTOKEND, "keyring", "install", str(binary)), laptop.environment)
        laptop.start()
        del laptop.environment["UV_LINK_MODE"]  # use uv's default, which is faster
        try:
            until_delivered(laptop)
            yield laptop
        finally:
            laptop.stop()


def _host(sink: str) -> str:
    return f"{sink.replace('-', '')}-{ACCOUNT}.d.codeartifact.eu-central-1.amazonaws.com"


def _url(sink: str) -> str:
    return f"https://{_host(sink)}{CODEARTIFACT.root}/simple/"


def _index(side: Side) -> str:
    authenticate = "always" if side.private else "never"
    return f'[[index]]\nname = "private"\nurl = "{side.url}"\ndefault = true\nauthenticate = "{authenticate}"\n'


def _names(count: int) -> tuple[str, ...]:
    return tuple(f"wheel{number}" for number in range(count))


class _Installer:
    """One side's installations, each without a cached page or wheel.

    Args:
        stage: Where it happens.
        side: The side.
        wheels: What is installed.
    """

    def __init__(self, stage: Stage, side: Side, wheels: tuple[str, ...]) -> None:
        directory = stage.memory()
        (directory / "uv.toml").write_text(_index(side))
        self._side = side
        self._environment = {**side.environment, "UV_CONFIG_FILE": str(directory / "uv.toml")}
        self._warm, self._cache, self._target = (directory / name for name in ("warm", "cache", "target"))
        python = ("--quiet", "--python", sys.executable)
        run((find_uv(), "pip", "list", *python, "--cache-dir", str(self._warm)), self._environment)
        where = ("--cache-dir", str(self._cache), "--target", str(self._target))
        self._command = (find_uv(), "pip", "install", *python, *where, *wheels)
        self.renew()

    def install(self) -> None:
        """Install; before the next time, call `renew`."""
        run(self._command, {**self._environment, **self._side.token()})

    def renew(self) -> None:
        """Delete what was installed, and prepare the cache for the next time."""
        for used in (self._cache, self._target):
            shutil.rmtree(used, ignore_errors=True)
        shutil.copytree(self._warm, self._cache)


def _syncer(stage: Stage, name: str, side: Side) -> Callable[[], object]:
    """Return a function that syncs an up-to-date project."""
    directory = stage.directory()
    project = '[project]\nname = "tidy"\nversion = "1"\nrequires-python = ">=3.11"\ndependencies = ["wheel0"]\n'
    (directory / "pyproject.toml").write_text(project + _index(side).replace("[[index]]", "[[tool.uv.index]]"))
    where = ("sync", "--quiet", "--python", sys.executable, "--project", str(directory))
    environment = {**side.environment, "UV_CACHE_DIR": str(directory / "cache")}
    return lambda: run((find_uv(), *where), {**environment, **side.token()})

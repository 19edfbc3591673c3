"""The programs that people use today instead of uvtokend, each in its own environment, with a loopback cloud.

Run by hand, it installs all of them, gets a token from each, and prints the result::

    python tests/bench/peers.py [DIRECTORY]

The directory keeps the environments for the next run. Every peer has its fastest setup: keyring knows the one
backend to load, nothing else has to be discovered, and the clouds answer at once. A peer that cannot be installed is
in `Peers.missing`, with the reason.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from bench.front import Front, responder
from clouds.azure import FEED, PACKAGES_HOST, AzureCloud
from clouds.google import PROJECT, GoogleCloud
from uvtokend.sandbox.codeartifact import ACCOUNT, CodeArtifact
from uvtokend.sandbox.machine import find_uv
from uvtokend.sandbox.registries import ARTIFACT_REGISTRY, CODEARTIFACT, Registry

REGION = "eu-central-1"
AWS_HOST = f"acme-{ACCOUNT}.d.codeartifact.{REGION}.amazonaws.com"
GOOGLE_HOST = "europe-west3-python.pkg.dev"
#: The most seconds for an installation, and for one token.
_INSTALL, _ANSWER = 300.0, 60.0


@dataclass(frozen=True, slots=True)
class Peer:
    """A program that gets a token for an index.

    Args:
        name: Its name in a table.
        versions: The versions of its parts.
        host: The host of its index.
        registry: How that index lays out its pages; `PackageIndex` takes it.
        login: The login that belongs to the token.
        environment: All variables. The directory of its programs is first on PATH, so that uv with
            ``keyring-provider = "subprocess"`` finds its ``keyring``.
        get: The command that prints a token, and nothing else, to standard output.
        valid: Returns whether the index accepts a login and a token.
        keyring: Whether it is a ``keyring``, which uv runs itself.
    """

    name: str
    versions: str
    host: str
    registry: Registry
    login: str
    environment: Mapping[str, str]
    get: tuple[str, ...]
    valid: Callable[[str, str], bool]
    keyring: bool = True

    @property
    def url(self) -> str:
        """The URL of the index."""
        return f"https://{self.host}{self.registry.root}/simple/"

    def ask(self) -> str:
        """Return a token from the peer.

        Raises:
            RuntimeError: It returned no token, or one that the index refuses.
        """
        done = subprocess.run(
            self.get,
            env=dict(self.environment),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=_ANSWER,
        )
        token = done.stdout.strip()
        if done.returncode != 0 or not self.valid(self.login, token):
            message = f"{self.name} got no valid token (exit status {done.returncode}): {done.stderr.strip()[-500:]}"
            raise RuntimeError(message)
        return token


@dataclass(frozen=True, slots=True)
class Peers:
    """All peers, and the front of their clouds.

    Args:
        front: Serves every host. uv reaches it with ``HTTPS_PROXY`` and ``SSL_CERT_FILE``, which are in the environment
            of every peer.
        available: The peers that returned a valid token.
        missing: The name of a peer that cannot be used here -> the reason.
    """

    front: Front
    available: tuple[Peer, ...]
    missing: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class _Clouds:
    aws: CodeArtifact
    google: GoogleCloud
    azure: AzureCloud


@dataclass(frozen=True, slots=True)
class _Setting:
    """The environment of a peer.

    Args:
        name: Its name in a table.
        versions: The installed versions.
        bin: The directory of its programs.
        home: Its home directory.
        common: The variables that all peers have.
    """

    name: str
    versions: str
    bin: Path
    home: Path
    common: Mapping[str, str]

    def peer(
        self,
        where: tuple[str, Registry, str],
        valid: Callable[[str, str], bool],
        more: Mapping[str, str],
        command: tuple[str, ...] = (),
    ) -> Peer:
        """Return a peer for a host, a registry and a login; without a command, it is a keyring."""
        host, registry, login = where
        path = os.pathsep.join([str(self.bin), os.environ.get("PATH", os.defpath)])
        get = command or (str(self.bin / "keyring"), "get", f"https://{host}{registry.root}/simple/", login)
        environment = {**self.common, "HOME": str(self.home), "PATH": path, **more}
        return Peer(self.name, self.versions, host, registry, login, environment, get, valid, keyring=not command)


@contextmanager
def peers(cache: Path) -> Iterator[Peers]:
    """Install the peers and start the clouds.

    Args:
        cache: A directory for their environments, which may exist from an earlier run.
    """
    with (
        tempfile.TemporaryDirectory(prefix="uvtokend-peers-") as name,
        CodeArtifact() as aws,
        Front() as front,
    ):
        clouds = _Clouds(aws, GoogleCloud(), AzureCloud())
        sites = {**clouds.google.sites, **clouds.azure.sites}
        front.hosts |= {host: responder(site) for host, site in sites.items()}
        common = {
            "HTTPS_PROXY": front.url,
            "NO_PROXY": "127.0.0.1",
            "REQUESTS_CA_BUNDLE": front.ca_file,
            "SSL_CERT_FILE": front.ca_file,
            "NETRC": os.devnull,
        }
        available, missing = [], {}
        for each, (requirements, arrange) in PEERS.items():
            home = Path(name, requirements[-1])
            home.mkdir()
            try:
                programs, versions = _installed(cache / requirements[-1], requirements)
                peer = arrange(_Setting(each, versions, programs, home, common), clouds)
                peer.ask()
            except (OSError, RuntimeError, subprocess.SubprocessError) as error:
                missing[each] = str(error).splitlines()[-1]
            else:
                available.append(peer)
        yield Peers(front, tuple(available), missing)


def _installed(directory: Path, requirements: tuple[str, ...]) -> tuple[Path, str]:
    """Install a peer unless it is installed, and return the directory of its programs and its versions.

    Raises:
        RuntimeError: It cannot be installed.
    """
    python, done = directory / "bin" / "python", directory / "installed"
    if not done.exists():
        _uv("venv", "--quiet", "--clear", "--python", sys.executable, str(directory))
        _uv("pip", "install", "--quiet", "--python", str(python), *requirements)
        # Otherwise the first run would also measure the compilation.
        subprocess.run([python, "-m", "compileall", "-q", directory / "lib"], check=False, capture_output=True)
        done.write_text(_uv("pip", "freeze", "--python", str(python)))
    frozen = dict(line.split("==") for line in done.read_text().split() if "==" in line)
    return directory / "bin", ", ".join(f"{name} {frozen[name]}" for name in requirements)


def _uv(*arguments: str) -> str:
    command = [find_uv(), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_INSTALL)
    if done.returncode != 0:
        message = f"The installation failed: {done.stderr.strip()[-500:]}"
        raise RuntimeError(message)
    return done.stdout


# --------------------------------------------------------------------------------------------- how each is set up


def _aws(clouds: _Clouds) -> tuple[Callable[[str, str], bool], dict[str, str]]:
    environment = {
        "AWS_ACCESS_KEY_ID": "AKIAEXAMPLE",
        "AWS_SECRET_ACCESS_KEY": "example",
        "AWS_EC2_METADATA_DISABLED": "true",
        **clouds.aws.environment(),
    }
    return lambda login, token: login == "aws" and clouds.aws.valid(token), environment


def _keyrings_codeartifact(setting: _Setting, clouds: _Clouds) -> Peer:
    valid, environment = _aws(clouds)
    environment["PYTHON_KEYRING_BACKEND"] = "keyrings.codeartifact.CodeArtifactBackend"
    return setting.peer((AWS_HOST, CODEARTIFACT, "aws"), valid, environment)


def _aws_cli(setting: _Setting, clouds: _Clouds) -> Peer:
    valid, environment = _aws(clouds)
    where = ("--domain", "acme", "--domain-owner", ACCOUNT, "--region", REGION)
    shown = ("--query", "authorizationToken", "--output", "text")
    command = (str(setting.bin / "aws"), "codeartifact", "get-authorization-token", *where, *shown)
    return setting.peer((AWS_HOST, CODEARTIFACT, "aws"), valid, environment, command)


def _keyrings_google(setting: _Setting, clouds: _Clouds) -> Peer:
    key = setting.home / "service-account.json"
    key.write_text(json.dumps(clouds.google.service_account()))
    environment = {
        "GOOGLE_APPLICATION_CREDENTIALS": str(key),
        "GOOGLE_CLOUD_PROJECT": PROJECT,
        "NO_GCE_CHECK": "true",
        "CLOUDSDK_CONFIG": str(setting.home / "gcloud"),
        "PYTHON_KEYRING_BACKEND": "keyrings.gauth.GooglePythonAuth",
    }
    where = (GOOGLE_HOST, ARTIFACT_REGISTRY, "oauth2accesstoken")
    return setting.peer(where, lambda login, token: login == where[2] and clouds.google.valid(token), environment)


def _artifacts_keyring(setting: _Setting, clouds: _Clouds) -> Peer:
    """Pass the emulator's token to Microsoft's plug-in in a variable, as its documentation advises for builds.

    Its credential provider, a .NET program, then calls no token service.
    """
    where = (PACKAGES_HOST, FEED, "VssSessionToken")
    endpoint = {"endpoint": f"https://{PACKAGES_HOST}{FEED.root}/simple/", "username": where[2]}
    given = {"endpointCredentials": [{**endpoint, "password": clouds.azure.user_token(life=86400)}]}
    environment = {
        "VSS_NUGET_EXTERNAL_FEED_ENDPOINTS": json.dumps(given),
        "ARTIFACTS_KEYRING_NONINTERACTIVE_MODE": "true",
        "DOTNET_SYSTEM_GLOBALIZATION_INVARIANT": "1",
        "PYTHON_KEYRING_BACKEND": "artifacts_keyring.ArtifactsKeyringBackend",
    }
    return setting.peer(where, lambda login, token: login == where[2] and clouds.azure.opens(token), environment)


#: Name -> the requirements, and the function that sets it up. The last requirement names the environment.
PEERS: Mapping[str, tuple[tuple[str, ...], Callable[[_Setting, _Clouds], Peer]]] = {
    "keyring + keyrings.codeartifact": (("keyring", "keyrings-codeartifact"), _keyrings_codeartifact),
    "keyring + keyrings.google-artifactregistry-auth": (
        ("keyring", "keyrings-google-artifactregistry-auth"),
        _keyrings_google,
    ),
    "keyring + artifacts-keyring": (("keyring", "artifacts-keyring"), _artifacts_keyring),
    "aws codeartifact get-authorization-token": (("awscli",), _aws_cli),
}


def main() -> int:
    """Install all peers and print what each returns."""
    with ExitStack() as opened:
        given = sys.argv[1:]
        cache = given[0] if given else opened.enter_context(tempfile.TemporaryDirectory(prefix="uvtokend-peers-"))
        installed = opened.enter_context(peers(Path(cache)))
        for peer in installed.available:
            print(f"{peer.name}: a valid token for {peer.url} ({peer.versions})")
        for name, why in installed.missing.items():
            print(f"{name}: not available here: {why}")
        return int(bool(installed.missing))


if __name__ == "__main__":
    sys.exit(main())

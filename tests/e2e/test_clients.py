"""Third-party programs that install and publish: pipx, build, flit, uv and twine, with a real pypiserver.

poetry and hatch are too large for every run: ``tests/e2e/other_clients.py`` runs them by hand.
"""

from __future__ import annotations

import importlib.metadata
import io
import os
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.issuing import CANARY, LOGIN, Issuing
from support.private_server import PrivateServer
from uvtokend.sandbox.index import wheel
from uvtokend.sandbox.machine import find_uv

#: Prevents programs from reading the netrc that the daemon writes.
BLIND = {"NETRC": os.devnull}
#: A shell command that copies the variables of `exec` into flit's own ones.
FLIT = (
    'FLIT_INDEX_URL="$TWINE_REPOSITORY_URL" FLIT_USERNAME="$TWINE_USERNAME" FLIT_PASSWORD="$TWINE_PASSWORD" '
    'exec "$0" -m flit publish'
)


@pytest.fixture
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Issuing]:
    """Make a machine with our keyring first on PATH; its daemon is not started."""
    made = Issuing(tmp_path_factory.mktemp("c"))
    made.configure()
    assert made.uvtokend("keyring", "install", str(made.home / "bin")).returncode == 0
    made.environment["PATH"] = f"{made.home / 'bin'}{os.pathsep}{made.environment['PATH']}"
    yield made
    made.close()


@pytest.fixture
def server(machine: Issuing) -> Iterator[PrivateServer]:
    """Start a real pypiserver, and a daemon with a token for it."""
    with PrivateServer(machine) as started:
        machine.configure(acme=started.url)
        machine.begin()
        yield started


def zipped(files: dict[str, bytes]) -> bytes:
    memory = io.BytesIO()
    with zipfile.ZipFile(memory, "w") as archive:
        for entry, data in files.items():
            archive.writestr(entry, data)
    return memory.getvalue()


def tool(name: str) -> bytes:
    """Return a wheel that installs a command."""
    plain = zipfile.ZipFile(io.BytesIO(wheel(name, "1.0")))
    files = {entry: plain.read(entry) for entry in plain.namelist()}
    files[f"{name}.py"] += b"def main() -> None:\n    print('it works')\n"
    files[f"{name}-1.0.dist-info/entry_points.txt"] = f"[console_scripts]\n{name} = {name}:main\n".encode()
    files[f"{name}-1.0.dist-info/RECORD"] = "".join(f"{entry},,\n" for entry in files).encode()
    return zipped(files)


def installed(name: str) -> tuple[str, bytes]:
    """Return file name and content of a wheel, rebuilt from a package that is installed in this environment."""
    distribution = importlib.metadata.distribution(name)
    paths = [path for path in distribution.files or [] if ".." not in path.parts and path.suffix != ".pyc"]
    files = {str(path): Path(str(path.locate())).read_bytes() for path in paths}
    return f"{name}-{distribution.version}-py3-none-any.whl", zipped(files)


def project(directory: Path, name: str, build: str) -> Path:
    """Make a project that a build backend or flit can build."""
    directory.mkdir()
    metadata = f'[project]\nname = "{name}"\nversion = "1.0"\nrequires-python = ">=3.11"\ndescription = "A test."\n\n'
    (directory / "pyproject.toml").write_text(metadata + build)
    (directory / f"{name}.py").write_text('"""A test."""\n__version__ = "1.0"\n')
    return directory


@pytest.mark.parametrize("backend", [pytest.param("pip", marks=pytest.mark.ensurepip), "uv"])
def test_pipx_installs_with_keyring(machine: Issuing, backend: str) -> None:
    """pipx installs a command that works; it turns on pip's keyring provider itself, and uv's if it is configured."""
    machine.begin()
    machine.index.add("gadget-1.0-py3-none-any.whl", tool("gadget"))
    machine.index.add(*installed("pip"))  # pipx requires a newer pip than the one bundled with Python
    homes = {"PIPX_HOME": str(machine.home / "pipx"), "PIPX_BIN_DIR": str(machine.home / "tools")}
    url = machine.index.url.replace("://", f"://{LOGIN}@")
    words = ["install", "--backend", backend, "--index-url", url]
    words += ["--pip-args=--keyring-provider subprocess"] if backend == "uv" else []
    clean = {"PIP_CONFIG_FILE": os.devnull, "PIP_NO_INPUT": "1"}
    done = machine.run([sys.executable, "-m", "pipx", *words, "gadget"], env={**BLIND, **homes, **clean})
    assert done.returncode == 0, done.stdout + done.stderr
    assert machine.run([str(machine.home / "tools" / "gadget")]).stdout == "it works\n"
    log = (machine.state / "events.jsonl").read_text()
    assert "answered" in log
    assert CANARY not in log + done.stdout + done.stderr


@pytest.mark.parametrize("installer", ["pip", "uv"])
def test_build_gets_its_requirements_with_keyring(machine: Issuing, installer: str) -> None:
    """build, with pip or with uv, uses the keyring on PATH to install what a build backend requires."""
    machine.begin()
    backend = 'requires = ["alpha"]\nbuild-backend = "backend"\nbackend-path = ["."]\n'
    directory = project(machine.directory / "work", "sigma", f"[build-system]\n{backend}")
    (directory / "backend.py").write_text(
        "import alpha, pathlib\n"
        "def build_wheel(where, settings=None, metadata=None):\n"
        "    pathlib.Path(where, 'sigma-1.0-py3-none-any.whl').write_text(alpha.version)\n"
        "    return 'sigma-1.0-py3-none-any.whl'\n"
    )
    url = machine.index.url.replace("://", f"://{LOGIN}@")
    where = {"PIP_INDEX_URL": url, "UV_DEFAULT_INDEX": url, "PIP_CONFIG_FILE": os.devnull, "PIP_NO_INPUT": "1"}
    command = [sys.executable, "-m", "build", "--wheel", "--installer", installer, str(directory)]
    done = machine.run(command, env={**BLIND, **where})
    assert done.returncode == 0, done.stdout + done.stderr
    assert (directory / "dist" / "sigma-1.0-py3-none-any.whl").read_text() == "2.0"


def test_flit_publishes_with_the_keyring_backend(machine: Issuing, server: PrivateServer) -> None:
    """flit publishes with the password that our keyring backend returns for the configured user name."""
    directory = project(
        machine.directory / "work",
        "sigma",
        '[build-system]\nrequires = ["flit_core"]\nbuild-backend = "flit_core.buildapi"\n',
    )
    target = {"FLIT_INDEX_URL": server.url.removesuffix("simple/"), "FLIT_USERNAME": LOGIN}
    done = machine.run([sys.executable, "-m", "flit", "publish"], directory, {**BLIND, **target})
    assert done.returncode == 0, done.stdout + done.stderr
    assert server.files == {"sigma-1.0-py3-none-any.whl", "sigma-1.0.tar.gz"}, done.stdout + done.stderr


def test_a_real_pypiserver(machine: Issuing, server: PrivateServer) -> None:
    """uv, twine and flit publish through `exec`, and uv installs with keyring and netrc; a wrong token is refused."""
    for name, command in (
        ("omega", [find_uv(), "publish", "--trusted-publishing", "never"]),
        ("theta", [sys.executable, "-m", "twine", "upload", "--non-interactive", "--disable-progress-bar"]),
    ):
        file = machine.directory / f"{name}-1.0-py3-none-any.whl"
        file.write_bytes(wheel(name, "1.0"))
        done = machine.run([*machine.ourselves("exec", "acme", "--"), *command, str(file)], env=BLIND)
        assert done.returncode == 0, done.stdout + done.stderr
    directory = project(
        machine.directory / "work",
        "sigma",
        '[build-system]\nrequires = ["flit_core"]\nbuild-backend = "flit_core.buildapi"\n',
    )
    command = machine.ourselves("exec", "acme", "--", "/bin/sh", "-c", FLIT, sys.executable)
    done = machine.run(command, directory, BLIND)
    assert done.returncode == 0, done.stdout + done.stderr
    assert {"omega-1.0-py3-none-any.whl", "theta-1.0-py3-none-any.whl", "sigma-1.0-py3-none-any.whl"} < server.files
    url = server.url.replace("://", f"://{LOGIN}@")
    for number, keyring in enumerate((["--keyring-provider", "subprocess"], [])):
        where = machine.directory / f"target{number}"
        done = machine.install(where, *keyring, "--index-url", url, "omega", "theta", env=BLIND if keyring else {})
        assert done.returncode == 0, done.stderr
        assert {path.name for path in where.glob("*.py")} == {"omega.py", "theta.py"}
    wrong = url.replace(f"{LOGIN}@", f"{LOGIN}:{CANARY}-0@")
    assert machine.install(machine.directory / "none", "--index-url", wrong, "omega", env=BLIND).returncode != 0

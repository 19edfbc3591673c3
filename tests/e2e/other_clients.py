"""Run poetry and hatch, which are too large for every test run, against a real pypiserver and our daemon.

Run by hand; each is installed from the configured package index into its own environment::

    python tests/e2e/other_clients.py [DIRECTORY]

The directory keeps the environments for the next run. The last line says how many checks passed.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from support.issuing import CANARY, LOGIN, Issuing
from support.private_server import PrivateServer
from uvtokend.sandbox.index import wheel
from uvtokend.sandbox.machine import find_uv

ROOT = Path(__file__).parent.parent.parent
BLIND = {"NETRC": os.devnull}
PROJECT = '[project]\nname = "{name}"\nversion = "1.0"\nrequires-python = ">=3.11"\ndescription = "A test."\n'
HATCHLING = '[build-system]\nrequires = ["hatchling"]\nbuild-backend = "hatchling.build"\n'


def installed(cache: Path, name: str) -> Path:
    """Return the directory of a client's programs, installed together with our keyring backend."""
    directory = cache / name
    if not (directory / "done").exists():
        python = str(directory / "bin" / "python")
        # with hatchling installed, hatch needs no build backend from an index
        requirements = [name, "hatchling", f"{ROOT}[keyring]"]
        for command in (
            ["venv", "--quiet", "--clear", "--python", sys.executable, str(directory)],
            ["pip", "install", "--quiet", "--python", python, *requirements],
        ):
            subprocess.run([find_uv(), *command], check=True)
        (directory / "done").touch()
    return directory / "bin"


def project(directory: Path, name: str, more: str = "") -> Path:
    directory.mkdir(parents=True)
    (directory / "pyproject.toml").write_text(PROJECT.format(name=name) + more)
    (directory / f"{name}.py").write_text("")
    return directory


def poetry_locks_and_installs(machine: Issuing, server: PrivateServer, programs: Path) -> None:
    """poetry asks keyring for a source's URL; no user name is configured and no password is stored."""
    (server.packages / "alpha-1.0-py3-none-any.whl").write_bytes(wheel("alpha", "1.0"))
    source = f'[[tool.poetry.source]]\nname = "acme"\nurl = "{server.url}"\npriority = "primary"\n'
    mode = "[tool.poetry]\npackage-mode = false\n"
    directory = project(machine.directory / "install", "work", f'dependencies = ["alpha"]\n{mode}{source}')
    for words in (["lock"], ["sync", "--no-root"]):
        poetry(machine, programs, directory, *words)
    assert list(directory.glob(".venv/lib/*/site-packages/alpha.py"))


def poetry_publishes(machine: Issuing, server: PrivateServer, programs: Path) -> None:
    """poetry reads a repository's credential from its own variables, which a shell fills from those of `exec`."""
    directory = project(machine.directory / "publish", "kappa", HATCHLING)
    (directory / "dist").mkdir()
    (directory / "dist" / "kappa-1.0-py3-none-any.whl").write_bytes(wheel("kappa", "1.0"))
    script = (
        'POETRY_REPOSITORIES_ACME_URL="$TWINE_REPOSITORY_URL" POETRY_HTTP_BASIC_ACME_USERNAME="$TWINE_USERNAME" '
        'POETRY_HTTP_BASIC_ACME_PASSWORD="$TWINE_PASSWORD" exec "$0" publish --no-interaction --repository acme'
    )
    through_exec(machine, directory, script, str(programs / "poetry"))
    assert "kappa-1.0-py3-none-any.whl" in server.files


def hatch_publishes_with_keyring(machine: Issuing, server: PrivateServer, programs: Path) -> None:
    """hatch asks keyring for the upload URL and the configured user name."""
    directory = hatched(machine, "lambda_")
    words = ["publish", "--no-prompt", "--repo", server.url.removesuffix("simple/"), "--user", LOGIN]
    done = machine.run([str(programs / "hatch"), *words], directory, {**BLIND, "HATCH_INDEX_CA_CERT": ""})
    assert done.returncode == 0, done.stdout + done.stderr
    assert "lambda_-1.0-py3-none-any.whl" in server.files


def hatch_publishes_with_exec(machine: Issuing, server: PrivateServer, programs: Path) -> None:
    """hatch reads the credential from its own variables, which a shell fills from those of `exec`."""
    directory = hatched(machine, "omicron")
    script = (
        'HATCH_INDEX_REPO="$TWINE_REPOSITORY_URL" HATCH_INDEX_USER="$TWINE_USERNAME" '
        'HATCH_INDEX_AUTH="$TWINE_PASSWORD" exec "$0" publish --no-prompt'
    )
    through_exec(machine, directory, script, str(programs / "hatch"))
    assert "omicron-1.0-py3-none-any.whl" in server.files


def hatched(machine: Issuing, name: str) -> Path:
    directory = project(machine.directory / name, name, HATCHLING)
    (directory / "dist").mkdir()
    (directory / "dist" / f"{name}-1.0-py3-none-any.whl").write_bytes(wheel(name, "1.0"))
    return directory


def through_exec(machine: Issuing, directory: Path, script: str, program: str) -> None:
    done = machine.run(machine.ourselves("exec", "acme", "--", "/bin/sh", "-c", script, program), directory, BLIND)
    assert done.returncode == 0, done.stdout + done.stderr
    assert CANARY not in done.stdout + done.stderr


def poetry(machine: Issuing, programs: Path, directory: Path, *words: str) -> None:
    own = {"POETRY_VIRTUALENVS_IN_PROJECT": "true", "POETRY_CACHE_DIR": str(machine.home / "poetry")}
    done = machine.run([str(programs / "poetry"), "--no-interaction", *words], directory, {**BLIND, **own})
    assert done.returncode == 0, done.stdout + done.stderr
    assert CANARY not in done.stdout + done.stderr


CHECKS: tuple[tuple[str, Callable[[Issuing, PrivateServer, Path], None]], ...] = (
    ("poetry", poetry_locks_and_installs),
    ("poetry", poetry_publishes),
    ("hatch", hatch_publishes_with_keyring),
    ("hatch", hatch_publishes_with_exec),
)


def main() -> int:
    """Run every check and report which passed."""
    passed = 0
    with ExitStack() as opened:
        given = sys.argv[1:]
        cache = Path(given[0] if given else opened.enter_context(tempfile.TemporaryDirectory(prefix="uvtokend-other-")))
        for name, check in CHECKS:
            programs = installed(cache, name)
            version = subprocess.run([programs / name, "--version"], capture_output=True, text=True, check=True).stdout
            with tempfile.TemporaryDirectory(prefix="uvtokend-other-") as directory:
                machine = Issuing(Path(directory))
                try:
                    with PrivateServer(machine) as server:
                        machine.configure(acme=server.url)
                        machine.begin()
                        check(machine, server, programs)
                except AssertionError as error:
                    print(f"{check.__name__}: FAILED: {error}")
                else:
                    passed += 1
                    print(f"{check.__name__}: ok ({version.strip()})")
                finally:
                    machine.close()
    print(f"{passed} of {len(CHECKS)} passed")
    return int(passed < len(CHECKS))


if __name__ == "__main__":
    sys.exit(main())

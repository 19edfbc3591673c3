"""Run the tests with the lowest versions that pyproject.toml allows. This is what proves its lower bounds.

    .venv/bin/python packaging/lowest.py [--highest] [arguments for pytest]

The environment is `.venv-lowest` (or `.venv-highest`) in the checkout. The libraries of the project get the lowest
versions, or with `--highest` the newest; the test tools are those of requirements-dev.txt. Without arguments the tests
of all providers run.
"""

import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
#: The tools that the tests of the core and of the providers import.
TOOLS = ("hypothesis", "pytest", "pytest-cov", "pytest-timeout", "pytest-xdist", "trustme", "twine", "uv")
#: The clients that the other tests of providers hold against our emulators are not installed here.
TESTS = ("tests/providers", "--ignore-glob=*_clients.py", "-n", "2")


def main(arguments: list[str]) -> int:
    """Make the environment, run pytest in it, and return its exit status."""
    highest = arguments[:1] == ["--highest"]
    resolution = "highest" if highest else "lowest-direct"
    environment = ROOT / (".venv-highest" if highest else ".venv-lowest")
    python = str(environment / "bin" / "python")
    with tempfile.TemporaryDirectory() as directory:
        lock = str(Path(directory, "lock.txt"))
        compiled = ["pip", "compile", "--quiet", "--resolution", resolution, "--extra", "keyring", "--no-annotate"]
        uv(*compiled, "--python", sys.executable, "--output-file", lock, "pyproject.toml")
        print(Path(lock).read_text())
        uv("venv", "--quiet", "--clear", "--python", sys.executable, str(environment))
        uv("pip", "install", "--quiet", "--python", python, "--requirement", lock, *tools())
    uv("pip", "install", "--quiet", "--python", python, "--no-deps", "--editable", ".")
    command = [python, "-m", "pytest", "-q", "-p", "no:cacheprovider", *(arguments[highest:] or TESTS)]
    return subprocess.run(command, cwd=ROOT, check=False).returncode


def tools() -> list[str]:
    """Return the test tools with the versions of requirements-dev.txt."""
    pins = dict(
        re.findall(r"^([a-z0-9-]+)==(\S+)", (ROOT / "packaging" / "requirements-dev.txt").read_text(), re.MULTILINE)
    )
    return [f"{name}=={pins[name]}" for name in TOOLS]


def uv(*words: str) -> None:
    """Run the uv of this environment, at the root of the checkout."""
    subprocess.run([str(Path(sys.executable).with_name("uv")), *words], cwd=ROOT, check=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

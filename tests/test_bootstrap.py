"""The README's two setup commands on machines where something is missing:
each prints one clear message, writes nothing.
"""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
BOOTSTRAP = Path("packaging") / "bootstrap.py"


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """Return a copy of the parts of the checkout that the setup needs."""
    shutil.copytree(ROOT / "packaging", tmp_path / "checkout" / "packaging")
    shutil.copy(ROOT / "pyproject.toml", tmp_path / "checkout")
    return tmp_path / "checkout"


def bootstrap(checkout: Path, *arguments: str, missing: str = "") -> subprocess.CompletedProcess[str]:
    shims = checkout.parent / "shims"
    (shims / missing).mkdir(parents=True)
    (shims / missing / "__init__.py").write_text(f'raise ImportError("No module named {missing}")\n')
    command = [sys.executable, str(checkout / BOOTSTRAP), *arguments]
    environment = {**os.environ, "PYTHONPATH": str(shims)}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)


def test_bootstrap_starts_on_an_old_python() -> None:
    """An old Python can parse bootstrap.py, so that it can report that it is too old."""
    ast.parse((ROOT / BOOTSTRAP).read_text(), feature_version=(3, 7))


@pytest.mark.parametrize("arguments", [(), ("tests",), ("--help",)])
def test_wrong_usage(checkout: Path, arguments: tuple[str, ...]) -> None:
    """Anything but the two commands exits with 2 and a message that names both commands."""
    done = bootstrap(checkout, *arguments)
    assert done.returncode == 2
    assert "demo" in done.stderr
    assert "test" in done.stderr


@pytest.mark.parametrize(("missing", "hint"), [("pip", "apt-get install python3-pip"), ("venv", "python3-venv")])
def test_what_is_missing_is_named(checkout: Path, missing: str, hint: str) -> None:
    """If the distribution left out a Python module, the message names the package that provides it."""
    done = bootstrap(checkout, "demo", missing=missing)
    assert done.returncode == 2
    assert hint in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(checkout.glob(".venv*"))


def test_an_up_to_date_environment_is_reused(checkout: Path) -> None:
    """An up-to-date environment is reused; one without its interpreter is set up again although its stamp matches."""
    environment, before = checkout / ".venv-demo", set(checkout.iterdir())
    code = f"""
import sys; sys.path.insert(0, {str(checkout / "packaging")!r}); sys.dont_write_bytecode = True
import bootstrap
ran = []
def run(command):
    ran.append(command)
    if "venv" in command:
        import pathlib; (pathlib.Path(command[-1]) / "bin").mkdir(parents=True, exist_ok=True)
        (pathlib.Path(command[-1]) / "bin" / "python").touch()
bootstrap.run = run
for _ in range(2):
    bootstrap.prepare({str(environment)!r}, {str(checkout / "packaging" / "requirements-demo.txt")!r})
    print(len(ran))
import os; os.remove({str(environment / "bin" / "python")!r})
bootstrap.prepare({str(environment)!r}, {str(checkout / "packaging" / "requirements-demo.txt")!r})
print(len(ran), all("--require-hashes" in c or "--no-deps" in c for c in ran if "pip" in c))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.split("\n") == ["== setting up .venv-demo", "3", "3", "== setting up .venv-demo", "6 True", ""]
    assert set(checkout.iterdir()) == before | {environment}

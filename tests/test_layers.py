"""Who may import what, and why."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

SRC = Path(__file__).parent.parent / "src"
FILES = sorted((SRC / "uvtokend").rglob("*.py"))
SDKS = {"boto3", "botocore", "google", "azure", "msal", "requests", "urllib3", "keyring"}
EFFECTS = {"time", "random", "socket", "subprocess", "asyncio", "threading", "pathlib", "secrets", "tempfile", "shutil"}

RULES = [
    ("core", EFFECTS, "the core decides; clock, dice, files and sockets are somebody else's"),
    ("core", {f"uvtokend.{part}" for part in ("daemon", "providers", "cli", "sandbox")}, "it is the lowest"),
    ("daemon", {"uvtokend.providers"}, "the daemon spawns providers; importing one would load an SDK into it"),
    ("daemon", {"uvtokend.cli", "uvtokend.sandbox", "psutil"}, "the daemon stays small"),
    ("providers", {"uvtokend.daemon", "uvtokend.cli"}, "a worker knows nothing of who spawned it"),
]  # fmt: skip


def imports(file: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{name.name}" for name in node.names)


def breaches(part: str, forbidden: set[str]) -> list[str]:
    return [
        f"{file.relative_to(SRC)} imports {name}"
        for file in FILES
        if file.is_relative_to(SRC / "uvtokend" / part)
        for name in imports(file)
        if any(name == bad or name.startswith(f"{bad}.") for bad in forbidden)
    ]


@pytest.mark.parametrize(("part", "forbidden", "reason"), RULES, ids=[f"{row[0]}-{row[2][:30]}" for row in RULES])
def test_imports(part: str, forbidden: set[str], reason: str) -> None:
    """Each layer knows only what is below it."""
    assert breaches(part, forbidden) == [], reason


def test_sdks_are_known_to_providers_alone() -> None:
    """An SDK in any other place would end up in the daemon or in `status`."""
    found = [line for part in ("core", "daemon", "cli", "service", "sandbox") for line in breaches(part, SDKS)]
    assert found == []


def test_apscheduler_is_known_to_the_timer_alone() -> None:
    """Its defaults lose jobs; one file mends them."""
    users = {file.name for file in FILES if any(name.split(".")[0] == "apscheduler" for name in imports(file))}
    assert users == {"timer.py"}


def test_the_core_reads_no_clock() -> None:
    """Times are arguments: `now`, `today`, `environ` and `open` are not even named."""
    for file in (SRC / "uvtokend" / "core").glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Attribute):
                assert node.attr not in {"utcnow", "today", "environ", "getenv", "urandom"}, file.name
                assert not (node.attr == "now" and ast.unparse(node.value) == "datetime"), file.name
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                assert node.func.id not in {"open", "print", "input"}, file.name

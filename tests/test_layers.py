"""Who may import what, and why: errors <- core <- {daemon, providers, cli, service}."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

SRC = Path(__file__).parent.parent / "src"
FILES = sorted((SRC / "uvtokend").rglob("*.py"))
SDKS = {"boto3", "botocore", "google", "azure", "msal", "requests", "urllib3", "keyring"}
#: All of the standard library that the core may know; what is not here can touch the world.
HARMLESS = {
    "__future__",
    "base64",
    "collections",
    "dataclasses",
    "datetime",
    "difflib",
    "hashlib",
    "ipaddress",
    "itertools",
    "json",
    "math",
    "os.path",  # its arithmetic on texts, see test_the_core_reads_no_clock_and_no_disk
    "re",
    "tomllib",
    "typing",
    "urllib.parse",
    "uvtokend.core",
    "uvtokend.errors",
}
CLOCKS = {"time", "random"}

RULES = [
    ("daemon", {"uvtokend.providers"}, "the daemon spawns providers; importing one would load an SDK into it"),
    ("daemon", {"uvtokend.cli", "uvtokend.sandbox", "psutil"}, "the daemon stays small"),
    ("providers", {"uvtokend.daemon", "uvtokend.cli"}, "a worker knows nothing of who spawned it"),
    ("providers", CLOCKS, "no fetch waits or rolls dice: when to try again is the core's to say"),
    ("providers", {"uvtokend.sandbox"}, "the real service is asked, never an emulator"),
    ("cli", {"uvtokend.providers"}, "a verb that fetches does it in a child process, as the daemon does"),
    ("cli", {"random"}, "the dice are the daemon's"),
    ("service", {f"uvtokend.{part}" for part in ("daemon", "providers", "cli", "sandbox")}, "it knows units only"),
    ("service", CLOCKS, "it waits for nothing"),
    ("sandbox", {f"uvtokend.{part}" for part in ("core", "daemon", "providers")}, "it would share their mistakes"),
    ("sandbox", {"random"}, "what an emulator makes up comes from secrets, as a service's does"),
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


def test_the_core_knows_only_what_is_harmless() -> None:
    """The core decides; clock, dice, files, sockets, SDKs and the other layers are somebody else's."""
    for file in FILES:
        if file.is_relative_to(SRC / "uvtokend" / "core"):
            for name in imports(file):
                known = any(name == good or name.startswith(f"{good}.") for good in HARMLESS)
                assert known or name == "uvtokend", f"{file.name} imports {name}"


def test_the_errors_are_the_lowest() -> None:
    """Every layer raises them, so at run time they import nothing of ours; only their types name the nouns."""
    tree = ast.parse((SRC / "uvtokend" / "errors.py").read_text())
    loaded = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    assert [ast.unparse(node) for node in loaded] == ["from __future__ import annotations"]


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


def test_only_a_chain_of_tokens_is_kept_by_a_fetch() -> None:
    """A fetch leaves nothing on disk, since the next one must not depend on it; a token that works once has to be."""
    folder = SRC / "uvtokend" / "providers"
    users = {file.name for file in folder.glob("*.py") if {"fcntl", "uvtokend.paths"} & {*imports(file)}}
    assert users == {"jfrog_chain.py"}


def test_the_core_reads_no_clock_and_no_disk() -> None:
    """Times and texts are arguments: `now`, `today`, `environ`, `open` and `exists` are not even named."""
    effects = {"utcnow", "today", "environ", "getenv", "urandom", "expanduser", "expandvars", "abspath", "realpath"}
    effects |= {"exists", "isfile", "isdir", "islink", "getmtime", "getsize", "samefile"}
    for file in (SRC / "uvtokend" / "core").glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Attribute):
                assert node.attr not in effects, f"{file.name}: {node.attr}"
                assert not (node.attr == "now" and ast.unparse(node.value) == "datetime"), file.name
                assert not (ast.unparse(node.value) == "os" and node.attr != "path"), f"{file.name}: os.{node.attr}"
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                assert node.func.id not in {"open", "print", "input"}, file.name

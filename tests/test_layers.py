"""Which layer may import what, and why: errors <- core <- {daemon, providers, cli, service}."""

from __future__ import annotations

import ast
import textwrap
from collections.abc import Collection, Iterator
from functools import cache
from pathlib import Path

import pytest

import uvtokend.plugin
from support import example_plugin
from uvtokend.core.clouds import CLOUDS

SRC = Path(__file__).parent.parent / "src"
FILES = sorted((SRC / "uvtokend").rglob("*.py"))
SDKS = {"boto3", "botocore", "google", "azure", "msal", "requests", "urllib3", "keyring"}
#: All that core/ may import from outside. Anything else could have effects.
HARMLESS = {
    "__future__",
    "base64",
    "collections",
    "dataclasses",
    "_datetime",  # the same classes
    "datetime",
    "difflib",
    "fnmatch",
    "functools",
    "hashlib",
    "importlib",  # loads a catalog of core/clouds when it is needed
    "pkgutil",  # lists the catalogs: the modules of core/clouds
    "ipaddress",
    "itertools",
    "json",
    "math",
    "os.path",  # string functions only, see test_the_core_reads_no_disk
    "re",
    "shlex",  # quoting, for the commands in fixes
    "sys",  # the platform's name, see test_the_core_reads_no_disk
    "tomlkit",  # parses and prints strings only; used by edit.py, which neither the daemon nor `status` imports
    "tomllib",
    "typing",
    "urllib.parse",
    "uvtokend.core",
    "uvtokend.errors",
}
#: Which files read a clock, use random numbers or wait, and why. Every other file takes times as arguments. A name
#: that ends in / is a directory.
CLOCKS = {
    "providers/": {"datetime.now"},  # issuers report a life relative to now. No fetch waits: core decides when to retry
    "cli/demo.py": {"time.monotonic", "time.sleep", "time.time"},  # it runs for the requested duration
    "cli/disk.py": {"datetime.now"},  # the life that is left now
    "cli/client.py": {"time.monotonic", "time.sleep"},  # the daemon may not answer, or not listen yet
    "cli/console.py": {"time.monotonic"},  # how long the user has been waiting
    "cli/elsewhere.py": {"time.monotonic"},  # other daemons may hang while the user waits
    "cli/start.py": {"time.monotonic", "time.sleep"},  # waits for another process to start, which sends no event
    "cli/stop.py": {"time.monotonic", "time.sleep"},  # waits for another process to end, which sends no event
    "cli/remove.py": {"time.monotonic", "time.sleep"},  # waits for the daemon's delivery, which sends no event
    "cli/log.py": {"time.sleep"},  # waits for a file to grow
    # As cli/disk.py; the age of the prompt's file; waits for a daemon to return.
    "cli/status.py": {"datetime.now", "time.monotonic", "time.sleep", "time.time"},
    "daemon/alone.py": {"datetime.now"},  # rejects a token that has already expired
    "doctor/": {"datetime.now"},  # what has expired; how far this clock differs from an index's
    "daemon/outlook.py": {"datetime.now"},  # people read wall-clock times
    # Lets the loop serve accepted clients; which client has been idle longest.
    "daemon/control.py": {"asyncio.sleep", "get_running_loop.time"},
    "clock.py": {"datetime.now", "time.CLOCK_MONOTONIC", "time.clock_gettime"},  # the clock
    "daemon/events.py": {"datetime.now"},  # the time of an event
    # Waits for another program to finish its write, and for the kernel's clock to tick between two writes.
    "disk/files.py": {"time.CLOCK_REALTIME", "time.clock_gettime_ns", "time.monotonic", "time.sleep"},
    "disk/locks.py": {"time.monotonic", "time.sleep"},  # waits for another uvtokend to finish its edit
    "daemon/hook.py": {"random.random"},  # as daemon/loop.py
    "daemon/loop.py": {"random.random"},  # random numbers, passed to core
    "daemon/main.py": {"asyncio.sleep"},  # sleep(0): lets other tasks run
    "disk/netrc_sink.py": {"time.sleep"},  # as disk/files.py
    "disk/netrc_write.py": {"time.sleep"},  # as disk/files.py
    "disk/uv_store_sink.py": {"time.monotonic", "time.sleep"},  # waits for uv to release its lock
    "daemon/timer.py": {"datetime.now"},  # APScheduler takes dates
    "service/launchd.py": {"time.sleep"},  # waits for an agent to end; launchd sends no event
    "testing/": {"time.time"},  # compares a token's expiry with now
    "sandbox/": {"time.time"},  # an issuer has its own clock
}

RULES = [
    ("daemon", {"uvtokend.providers"}, "the daemon runs providers in workers; importing one would load its SDK"),
    ("daemon", {"uvtokend.cli", "uvtokend.sandbox", "psutil"}, "the daemon stays small"),
    ("providers", {"uvtokend.daemon", "uvtokend.cli"}, "a worker must not depend on its parent"),
    ("providers", {"uvtokend.sandbox"}, "a provider calls the real service, never an emulator"),
    ("cli", {"uvtokend.providers"}, "a verb fetches in a child process, as the daemon does"),
    ("service", {f"uvtokend.{part}" for part in ("daemon", "providers", "cli", "sandbox")}, "it handles units only"),
    ("doctor", {f"uvtokend.{part}" for part in ("daemon", "providers", "cli", "sandbox")}, "it fetches nothing"),
    ("sandbox", {f"uvtokend.{part}" for part in ("core", "daemon", "providers")}, "it would share their mistakes"),
]  # fmt: skip


@cache
def nodes(file: Path) -> tuple[ast.AST, ...]:
    return tuple(ast.walk(ast.parse(file.read_text())))


@cache
def imports(file: Path) -> tuple[str, ...]:
    names: list[str] = []
    for node in nodes(file):
        if isinstance(node, ast.Import):
            names += (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            names += (node.module, *(f"{node.module}.{name.name}" for name in node.names))
    return tuple(names)


def breaches(part: str, forbidden: set[str]) -> list[str]:
    return [
        f"{file.relative_to(SRC)} imports {name}"
        for file in FILES
        if file.is_relative_to(SRC / "uvtokend" / part)
        for name in imports(file)
        if any(name == bad or name.startswith(f"{bad}.") for bad in forbidden)
    ]


def test_the_core_imports_only_harmless_modules() -> None:
    """core/ imports only modules without effects: no clock, no random numbers,
    no files, no sockets, no SDK, no other layer.
    """
    for file in FILES:
        if file.is_relative_to(SRC / "uvtokend" / "core"):
            for name in imports(file):
                known = any(name == good or name.startswith(f"{good}.") for good in HARMLESS)
                assert known or name == "uvtokend", f"{file.name} imports {name}"


def test_the_errors_are_the_lowest_layer() -> None:
    """errors.py imports nothing of uvtokend at run time, because every layer raises its errors."""
    tree = ast.parse((SRC / "uvtokend" / "errors.py").read_text())
    loaded = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    assert [ast.unparse(node) for node in loaded] == ["from __future__ import annotations"]


@pytest.mark.parametrize(("part", "forbidden", "reason"), RULES, ids=[f"{row[0]}-{row[2][:30]}" for row in RULES])
def test_imports(part: str, forbidden: set[str], reason: str) -> None:
    """Each layer imports only the layers below it."""
    assert breaches(part, forbidden) == [], reason


def test_only_providers_import_an_sdk() -> None:
    """Only providers import an SDK; anywhere else it would be loaded into the daemon or `status`."""
    wrong = [line for part in ("core", "daemon", "cli", "service", "sandbox") for line in breaches(part, SDKS)]
    assert wrong == []


def test_only_two_files_import_keyring() -> None:
    """Only our keyring backend and the provider that reads secrets from a keyring import the keyring library."""
    users = {file.name for file in FILES if any(name.split(".")[0] == "keyring" for name in imports(file))}
    assert users == {"keyring_backend.py", "secrets.py"}


def test_only_the_timer_imports_apscheduler() -> None:
    """Only one file imports APScheduler, and it changes the defaults that lose jobs."""
    users = {file.name for file in FILES if any(name.split(".")[0] == "apscheduler" for name in imports(file))}
    assert users == {"timer.py"}


def test_a_fetch_stores_only_a_chain_of_tokens() -> None:
    """Two provider files write to disk: durable.py keeps single-use tokens, and bundle.py a bundle of SSL_CERT_DIR.

    No other fetch may depend on files of an earlier one. The bundle is not a secret, and is rebuilt if it is missing;
    it exists because most programs read only a single file.
    """
    providers = SRC / "uvtokend" / "providers"
    users = {file.name for file in providers.rglob("*.py") if {"fcntl", "uvtokend.paths"} & {*imports(file)}}
    assert users == {"bundle.py", "durable.py"}


#: What our own providers may import from uvtokend: the facade, as plug-ins do, and what providers share. In addition,
#: each imports its own package and its own catalog file.
FACADE = ("uvtokend.plugin", "uvtokend.providers.kit")


def modules_of_ours(code: str) -> set[str]:
    """Return the modules of uvtokend that a source text imports, at any depth."""
    modules = set()
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            modules |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            modules |= {f"{node.module}.{name.name}" for name in node.names}
    return {name for name in modules if name.split(".")[0] == "uvtokend"}


def beyond(modules: set[str], allowed: Collection[str]) -> list[str]:
    return sorted(name for name in modules if not any(f"{name}.".startswith(f"{good}.") for good in allowed))


def test_providers_import_only_the_facade() -> None:
    """Our own providers import only what a plug-in's author may import, and their catalog,
    so refactoring breaks no plug-in.
    """
    root = SRC / "uvtokend" / "providers"
    for file in root.rglob("*.py"):
        part = file.relative_to(root).parts[0].removesuffix(".py")
        if part not in {"kit", "worker", "reuse", "loading", "plugins", "__init__"}:  # what calls a provider
            package = f"uvtokend.providers.{part}"
            names = [name for name, cloud in CLOUDS.items() if not beyond({cloud.module}, [package])]
            own = [package, *(f"uvtokend.core.clouds.{name.replace('-', '_')}" for name in names)]
            assert beyond(modules_of_ours(file.read_text()), (*FACADE, *own)) == [], file


def test_example_plug_ins_import_only_the_facade() -> None:
    """The example plug-ins, in the tests and in the facade's own docstring, import only the facade."""
    assert uvtokend.plugin.__doc__ is not None
    shown = textwrap.dedent(uvtokend.plugin.__doc__.partition("::\n\n")[2].partition("\n\nIt runs")[0])
    for code in (example_plugin.CODE, shown):
        assert beyond(modules_of_ours(code), ("uvtokend.plugin",)) == []


def test_the_facade_exports_what_it_declares() -> None:
    """The public names of the facade are exactly those in its `__all__`."""
    public = {name for name in vars(uvtokend.plugin) if not name.startswith("_")} - {"annotations"}
    assert public == set(uvtokend.plugin.__all__)


#: In addition to all of the modules `time` and `random`.
WAYS = {f"{kind}.{way}" for kind in ("datetime", "date") for way in ("now", "today", "utcnow")}
WAYS |= {"asyncio.sleep", "loop.time", "get_running_loop.time"}


def clocks(file: Path) -> Iterator[str]:
    """Yield the clocks, random numbers and waits that a file uses."""
    modules = {"time", "random"} & set(imports(file))
    for node in nodes(file):
        if isinstance(node, ast.ImportFrom) and node.module in modules:
            yield from (f"{node.module}.{name.name}" for name in node.names)
        elif isinstance(node, ast.Attribute):
            owner = ast.unparse(node.value)
            name = f"{owner.removesuffix('()').split('.')[-1]}.{node.attr}"
            if owner in modules or name in WAYS:
                yield name


def test_which_files_read_a_clock() -> None:
    """Only the files listed above read a clock, use random numbers or wait; all others take the time as an argument."""
    used: dict[str, set[str]] = {}
    for file in FILES:
        name = str(file.relative_to(SRC / "uvtokend"))
        directory = f"{name.partition('/')[0]}/"
        used.setdefault(directory if directory in CLOCKS else name, set()).update(clocks(file))
    assert {name: uses for name, uses in used.items() if uses} == CLOCKS


def test_the_core_reads_no_disk() -> None:
    """core/ takes texts as arguments: its source uses neither `environ`, `open`, `exists` nor anything like them."""
    effects = {"environ", "getenv", "urandom", "expanduser", "expandvars", "abspath", "realpath"}
    effects |= {"exists", "isfile", "isdir", "islink", "getmtime", "getsize", "samefile"}
    for file in (SRC / "uvtokend" / "core").rglob("*.py"):
        for node in nodes(file):
            if isinstance(node, ast.Attribute):
                assert node.attr not in effects, f"{file.name}: {node.attr}"
                assert not (ast.unparse(node.value) == "os" and node.attr != "path"), f"{file.name}: os.{node.attr}"
                assert not (ast.unparse(node.value) == "sys" and node.attr != "platform"), (
                    f"{file.name}: sys.{node.attr}"
                )
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                assert node.func.id not in {"open", "print", "input"}, file.name

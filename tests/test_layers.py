"""Who may import what, and why: errors <- core <- {daemon, providers, cli, service}."""

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
#: All that the core may know of the standard library, and of others; what is not here can touch the world.
HARMLESS = {
    "__future__",
    "base64",
    "collections",
    "dataclasses",
    "datetime",
    "difflib",
    "fnmatch",
    "functools",
    "hashlib",
    "importlib",  # the catalogs of core/clouds, each when it is asked for
    "pkgutil",  # their names: the modules of core/clouds
    "ipaddress",
    "itertools",
    "json",
    "math",
    "os.path",  # its arithmetic on texts, see test_the_core_reads_no_disk
    "re",
    "shlex",  # quoting, for the commands in fixes
    "sys",  # the platform's name, see test_the_core_reads_no_disk
    "tomlkit",  # texts and values only, as tomllib; in edit.py, which neither the daemon nor `status` imports
    "tomllib",
    "typing",
    "urllib.parse",
    "uvtokend.core",
    "uvtokend.errors",
}
#: Who reads a clock, rolls dice or waits, and why. A decision takes its times as arguments: whoever is not here asks
#: somebody above for them. A name that ends in / is a directory.
CLOCKS = {
    "providers/": {"datetime.now"},  # an issuer tells a life from now on. No fetch waits: when to try again is core's
    "cli/demo.py": {"time.monotonic", "time.sleep", "time.time"},  # it continues for as long as it was told
    "cli/disk.py": {"datetime.now"},  # what is left of a life, for a person who asks now
    "cli/client.py": {"time.monotonic", "time.sleep"},  # a daemon that does not answer, or does not listen yet
    "cli/console.py": {"time.monotonic"},  # for how long a person has been waiting
    "cli/elsewhere.py": {"time.monotonic"},  # other daemons may hang, and a person waits
    "cli/start.py": {"time.monotonic", "time.sleep"},  # another process begins, and tells nobody
    "cli/stop.py": {"time.monotonic", "time.sleep"},  # another process ends, and tells nobody
    "cli/remove.py": {"time.monotonic", "time.sleep"},  # the daemon delivers, and tells its log alone
    "cli/log.py": {"time.sleep"},  # a file grows, and tells nobody
    # As cli/disk.py; whether the file of the prompt is still true; a daemon that comes back.
    "cli/status.py": {"datetime.now", "time.monotonic", "time.sleep", "time.time"},
    "daemon/alone.py": {"datetime.now"},  # a token that has expired on arrival is refused
    "doctor/": {"datetime.now"},  # what has expired, and how far this clock is from an index's
    "daemon/outlook.py": {"datetime.now"},  # what a person reads is in wall-clock times
    # A turn of the loop for those that were accepted; which client has been silent for longest.
    "daemon/control.py": {"asyncio.sleep", "get_running_loop.time"},
    "clock.py": {"datetime.now", "time.CLOCK_MONOTONIC", "time.clock_gettime"},  # the clock
    "daemon/events.py": {"datetime.now"},  # when something was told
    # Another program ends its write, and the kernel's clock ticks between two writes.
    "disk/files.py": {"time.CLOCK_REALTIME", "time.clock_gettime_ns", "time.monotonic", "time.sleep"},
    "disk/locks.py": {"time.monotonic", "time.sleep"},  # another uvtokend ends its edit, and tells nobody
    "daemon/hook.py": {"random.random"},  # as daemon/loop.py
    "daemon/loop.py": {"random.random"},  # the dice, rolled for core
    "daemon/main.py": {"asyncio.sleep"},  # 0: a turn for the others
    "disk/netrc_sink.py": {"time.sleep"},  # as disk/files.py
    "disk/netrc_write.py": {"time.sleep"},  # as disk/files.py
    "disk/uv_store_sink.py": {"time.monotonic", "time.sleep"},  # uv lets go of its lock, and tells nobody
    "daemon/timer.py": {"datetime.now"},  # APScheduler wants to be told a date
    "service/launchd.py": {"time.sleep"},  # an agent ends, and launchd tells nobody
    "testing/": {"time.time"},  # what a provider said of a life is compared with now
    "sandbox/": {"time.time"},  # an issuer has a clock of its own
}

RULES = [
    ("daemon", {"uvtokend.providers"}, "the daemon spawns providers; importing one would load an SDK into it"),
    ("daemon", {"uvtokend.cli", "uvtokend.sandbox", "psutil"}, "the daemon stays small"),
    ("providers", {"uvtokend.daemon", "uvtokend.cli"}, "a worker knows nothing of who spawned it"),
    ("providers", {"uvtokend.sandbox"}, "the real service is asked, never an emulator"),
    ("cli", {"uvtokend.providers"}, "a verb that fetches does it in a child process, as the daemon does"),
    ("service", {f"uvtokend.{part}" for part in ("daemon", "providers", "cli", "sandbox")}, "it knows units only"),
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


def test_keyring_is_known_to_its_backend_alone() -> None:
    """Beside a provider that reads a secret there, only the backend for others imports the keyring library."""
    users = {file.name for file in FILES if any(name.split(".")[0] == "keyring" for name in imports(file))}
    assert users == {"keyring_backend.py", "secrets.py"}


def test_apscheduler_is_known_to_the_timer_alone() -> None:
    """Only one file imports APScheduler, and changes its defaults, which lose jobs."""
    users = {file.name for file in FILES if any(name.split(".")[0] == "apscheduler" for name in imports(file))}
    assert users == {"timer.py"}


def test_only_a_chain_of_tokens_is_kept_by_a_fetch() -> None:
    """A fetch leaves nothing on disk, since the next one must not depend on it; a token that works once has to be.

    The bundle of SSL_CERT_DIR is no secret, and is made again if it is gone: most programs read one file only.
    """
    folder = SRC / "uvtokend" / "providers"
    users = {file.name for file in folder.rglob("*.py") if {"fcntl", "uvtokend.paths"} & {*imports(file)}}
    assert users == {"bundle.py", "durable.py"}


#: What a provider of ours may import of uvtokend, as a plug-in does: the facade and what providers share. Beside it,
#: each has its own package and its own catalog file.
FACADE = ("uvtokend.plugin", "uvtokend.providers.kit")


def modules_of_ours(code: str) -> set[str]:
    """Return the modules of uvtokend that a text imports, at any depth."""
    found = set()
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{name.name}" for name in node.names}
    return {name for name in found if name.split(".")[0] == "uvtokend"}


def beyond(modules: set[str], allowed: Collection[str]) -> list[str]:
    return sorted(name for name in modules if not any(f"{name}.".startswith(f"{good}.") for good in allowed))


def test_providers_import_the_facade_alone() -> None:
    """Internal moves break no plug-in, and ours are the proof: they import what any author may, and their catalog."""
    root = SRC / "uvtokend" / "providers"
    for file in root.rglob("*.py"):
        part = file.relative_to(root).parts[0].removesuffix(".py")
        if part not in {"kit", "worker", "loading", "plugins", "__init__"}:  # what calls a provider
            package = f"uvtokend.providers.{part}"
            names = [name for name, cloud in CLOUDS.items() if not beyond({cloud.module}, [package])]
            own = [package, *(f"uvtokend.core.clouds.{name.replace('-', '_')}" for name in names)]
            assert beyond(modules_of_ours(file.read_text()), (*FACADE, *own)) == [], file


def test_plug_ins_import_the_facade_alone() -> None:
    """The examples and the text of the facade itself show what its promise covers."""
    assert uvtokend.plugin.__doc__ is not None
    shown = textwrap.dedent(uvtokend.plugin.__doc__.partition("::\n\n")[2].partition("\n\nIt runs")[0])
    for code in (example_plugin.CODE, shown):
        assert beyond(modules_of_ours(code), ("uvtokend.plugin",)) == []


def test_the_facade_is_what_it_says() -> None:
    """Every promised name is there, and there is no other public one."""
    public = {name for name in vars(uvtokend.plugin) if not name.startswith("_")} - {"annotations"}
    assert public == set(uvtokend.plugin.__all__)


#: Beside the modules `time` and `random`.
WAYS = {f"{kind}.{way}" for kind in ("datetime", "date") for way in ("now", "today", "utcnow")}
WAYS |= {"asyncio.sleep", "loop.time", "get_running_loop.time"}


def clocks(file: Path) -> Iterator[str]:
    """Yield what a file uses of clocks, dice and waiting."""
    modules = {"time", "random"} & set(imports(file))
    for node in nodes(file):
        if isinstance(node, ast.ImportFrom) and node.module in modules:
            yield from (f"{node.module}.{name.name}" for name in node.names)
        elif isinstance(node, ast.Attribute):
            owner = ast.unparse(node.value)
            name = f"{owner.removesuffix('()').split('.')[-1]}.{node.attr}"
            if owner in modules or name in WAYS:
                yield name


def test_who_reads_a_clock() -> None:
    """Time is an argument: only the files named above read a clock, roll dice or wait, and each only as it must."""
    found: dict[str, set[str]] = {}
    for file in FILES:
        name = str(file.relative_to(SRC / "uvtokend"))
        folder = f"{name.partition('/')[0]}/"
        found.setdefault(folder if folder in CLOCKS else name, set()).update(clocks(file))
    assert {name: uses for name, uses in found.items() if uses} == CLOCKS


def test_the_core_reads_no_disk() -> None:
    """Texts are arguments, as times are: `environ`, `open` and `exists` are not even named."""
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

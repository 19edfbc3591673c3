"""Find out from a command line of uv where uv reads its configuration. Pure.

uv's options correspond to its variables, so a command line becomes an environment. ``uv run`` and ``uv tool run`` end
with the arguments of another command, and only the full list of uv's options would tell where those begin. So the
result is one environment for each place where they may begin; the real one is among them.

Seen with uv 0.13.8: ``--config-file`` and ``--project`` are relative to ``--directory``; ``UV_WORKING_DIRECTORY`` is
another name of ``UV_WORKING_DIR``; a script's inline metadata (PEP 723) and the project around the script count.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from urllib.parse import unquote

from uvtokend.core.model import Env

#: Options that choose what uv reads, and the variables that they correspond to.
_PLACES = {"--directory": "UV_WORKING_DIR", "--project": "UV_PROJECT", "--config-file": "UV_CONFIG_FILE"}
#: Options that name indexes, as ``NAME=URL``.
_INDEXES = ("--index", "--default-index")
#: The options of ``uv run`` that take a value (``uv help run``, uv 0.13.8).
_VALUED = """
    --allow-insecure-host --cache-dir --color --config-file --config-setting --config-settings-package --default-index
    --directory --env-file --exclude-newer --exclude-newer-package --extra --extra-index-url --find-links
    --fork-strategy --group --index --index-strategy --index-url --keyring-provider --link-mode --no-binary-package
    --no-build-isolation-package --no-build-package --no-editable-package --no-extra --no-group --no-sources-package
    --only-group --package --preview-features --prerelease --prerelease-package --project --python --python-platform
    --python-preference --refresh-package --reinstall-package --resolution --upgrade-group --upgrade-package --with
    --with-editable --with-requirements -C -P -f -i -p -w
"""
#: The options of ``uv run`` for a script whose name does not end in ``.py``.
_SCRIPT = frozenset({"-s", "--script", "--gui-script"})
#: uv's own markers (uv-scripts, ``lib.rs``); everything that uv reads as a block matches them.
_BLOCK = re.compile(r"^# /// script[^\S\n]*\r?\n((?:#.*(?:\n|\Z))*)", re.MULTILINE)
_END = re.compile(r"^# ///[^\S\n]*\r?$", re.MULTILINE)
#: A requirement's marker or comment; the extras at its end; the prefix that makes a path a URL.
_REST, _EXTRAS, _FILE = re.compile(r"\s[;#]"), re.compile(r"\[[^\[\]]*\]$"), re.compile(r"file:(//(localhost(?=/))?)?")


def environments(command: Sequence[str], environ: Env) -> list[dict[str, str]]:
    """Return the environments in which uv may look for its configuration.

    Args:
        command: A command line. If it does not run uv, only its environment counts.
        environ: The environment of the command.
    """
    results = [_unaliased(environ)]
    for name, value in _options(command):
        if name in _PLACES:
            results.append({**results[-1], _PLACES[name]: value})
        elif name == "--no-config":
            results.append({**results[-1], "UV_NO_CONFIG": "1"})
    return results if _runs(command) else results[-1:]


def indexes(command: Sequence[str]) -> Iterator[tuple[str, str, str]]:
    """Yield name, URL and option of every index with a name on a command line of uv."""
    for option, value in _options(command):
        if option in _INDEXES:
            for word in value.split():
                name, equals, url = word.partition("=")
                if equals:
                    yield name, url, option


def scripts(command: Sequence[str]) -> list[str]:
    """Return the arguments of a command line of uv that may be scripts with inline metadata, each once.

    These are the values of ``--script``, the command of ``uv run`` with that option, and every name that ends like a
    Python script's; uv reads nothing else as a script.
    """
    command = _own(command)
    run = script(command)
    paths = [run] if run is not None and not _SCRIPT.isdisjoint(command) else []
    for before, word in pairwise(command):
        value = word.partition("=")[2] if word.startswith("-") else word
        if before == "--script" or word.startswith("--script=") or value.lower().endswith((".py", ".pyw")):
            paths.append(value)
    return list(dict.fromkeys(paths))


def script(command: Sequence[str]) -> str | None:
    """Return the script or command that ``uv run`` would run; None if it runs nothing."""
    command = _own(command)
    if not _runs(command):
        return None
    valued, before = _VALUED.split(), ""
    for word in list(command)[list(command).index("run") + 1 :] if "run" in command else command[1:]:
        if (word == "-" or not word.startswith("-")) and before not in valued:
            return word
        before = word
    return None


def paths(text: str) -> list[str]:
    """Return the texts in an argument of uv, or a requirement, that may be paths; most of them are not.

    Args:
        text: Such as ``./a[extra]``, ``a @ file:///b``, ``--with-editable=./a`` or ``-r requirements.txt``.
    """
    text = _REST.split(text.strip(), maxsplit=1)[0]
    glued = [text[2:]] if re.match(r"-[a-z]", text) else []
    pieces = [text, *glued, *(text.partition(mark)[2] for mark in ("=", "@", " "))]
    bare = (_EXTRAS.sub("", piece.strip().strip("\"'")) for piece in pieces)
    unquoted = (unquote(_FILE.sub("", piece)) if _FILE.match(piece) else piece for piece in bare)
    return list(dict.fromkeys(path for path in unquoted if path and "\0" not in path))


def arguments(command: Sequence[str]) -> list[str]:
    """Return the arguments of uv on a command line; none if it does not run uv."""
    return list(_own(command)[1:])


def metadata(text: str) -> list[str]:
    """Return the TOML of each block of inline metadata in a script (PEP 723, "inline script metadata").

    uv reads the first block. An ambiguous text gives more blocks, not fewer.
    """
    contents = []
    for block in _BLOCK.findall(text):
        ends = list(_END.finditer(block))
        inner = block[: ends[-1].start()] if ends else block
        contents.append("\n".join(line[2:] if line.startswith("# ") else line[1:] for line in inner.splitlines()))
    return contents


def _own(command: Sequence[str]) -> Sequence[str]:
    """Return a command line from uv's name on, as in ``env A=b uv lock`` or ``python -m uv lock``."""
    start = next((at for at, word in enumerate(command) if _name(word) in {"uv", "uvx"}), len(command))
    return command[start:]


def _name(word: str) -> str:
    return word.rpartition("/")[2]


def _runs(command: Sequence[str]) -> bool:
    own = _own(command)
    return bool(own) and (_name(own[0]) == "uvx" or not {"run", "uvx"}.isdisjoint(own[1:]))


def _options(command: Sequence[str]) -> Iterator[tuple[str, str]]:
    rest = iter(_own(command)[1:])
    for word in rest:
        name, equals, value = word.partition("=")
        if name in _PLACES or name in _INDEXES:
            yield name, value if equals else next(rest, "")
        elif word == "--no-config":
            yield word, ""


def _unaliased(environ: Mapping[str, str]) -> dict[str, str]:
    other = environ.get("UV_WORKING_DIRECTORY", "")
    return {**environ, **({"UV_WORKING_DIR": other} if other and not environ.get("UV_WORKING_DIR") else {})}

"""Find the indexes that count for a command line of uv: of the projects, scripts and requirements that it names."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from uvtokend.core.config import discovery
from uvtokend.core.model import Json
from uvtokend.core.uv import command_line
from uvtokend.disk.uv_files import Say, in_time, read_text
from uvtokend.disk.uv_projects import MOST_PROJECTS, ProjectFiles, beyond_projects, here, working_directory

#: A project's own files, which uv's arguments may name instead of its directory.
_PROJECT_FILES = frozenset({"pyproject.toml", "setup.py", "setup.cfg"})
#: The names of requirements files, which must be readable.
_REQUIREMENTS = frozenset({".txt", ".in"})


def named(environ: Mapping[str, str], say: Say, command: Sequence[str] = ()) -> list[tuple[str, str, str]]:
    """Return the name, URL and source of every named index that uv knows here, exactly as written.

    Args:
        environ: uv's variables.
        say: Called with a sentence about each file that cannot be read.
        command: The command line that will run. If it runs uv, its options and its script count, too.
    """
    reader = ProjectFiles(say)
    indexes = [*discovery.names_in_environment(environ), *command_line.indexes(command)]
    for each in command_line.environments(command, environ):
        place = Path(os.path.abspath(here(each)))
        scripts = list(_scripts(each, command, say))
        named = _named(each, [*command_line.arguments(command), *_required(scripts)], say)
        places = dict.fromkeys([place, *(path.parent for path, _ in scripts), *named])
        files = [file for place in places for file in reader.project(place, each)]
        tables = {file: reader.settings(file) for file in [*reader.beyond(files), *beyond_projects(each)]}
        inline = [(path, discovery.tool_uv(block)) for path, block in scripts]
        for source, table in [*tables.items(), *inline]:
            indexes += [(name, url, str(source)) for name, url in discovery.names_in_document(table or {})]
    return list(dict.fromkeys(indexes))


def _scripts(environ: Mapping[str, str], command: Sequence[str], say: Say) -> Iterator[tuple[Path, dict[str, Json]]]:
    """Yield the scripts on a command line of uv, and their inline metadata."""
    directory = working_directory(environ)
    run = command_line.script(command)
    if run is not None and (run == "-" or "://" in run or _is_pipe(Path(directory, run))):
        say(f"{run} is a script that is only read when it runs.")
    for path in (Path(directory, word) for word in command_line.scripts(command)):
        if path.is_file():
            yield from ((path, block) for block in _metadata(path, say))
            if run is not None:
                yield path, {}  # uv run uses the project around the script


def _required(scripts: Sequence[tuple[Path, Mapping[str, Json]]]) -> Iterator[str]:
    """Yield the projects that inline metadata requires by path."""
    for path, block in scripts:
        yield from (str(path.parent / source) for source in discovery.path_sources(discovery.tool_uv(block) or {}))
        yield from discovery.file_requirements(block)


def _named(environ: Mapping[str, str], words: Sequence[str], say: Say) -> list[Path]:
    """Return the directories of projects that uv's arguments name, including those in requirements files.

    uv reads the sources and the indexes of each of them (uv-distribution, ``lowering.rs``), as for ``uv pip compile
    sub/pyproject.toml`` or ``uv add ./sub``.
    """
    directory = Path(working_directory(environ))
    waiting = [(word, directory) for word in words]
    seen: dict[Path, bool] = {}
    while waiting and len(seen) <= MOST_PROJECTS:
        word, base = waiting.pop()
        for text in command_line.paths(word.replace("${PROJECT_ROOT}", str(directory))):
            path = base / text
            if path in seen or not os.path.exists(path):
                continue
            seen[path] = path.is_dir()
            seen |= {path.parent: True} if path.name in _PROJECT_FILES else {}
            lines = [] if seen[path] else _requirements(path, say)
            waiting += [(line, where) for line in lines for where in (directory, path.parent)]
    if waiting:
        say(f"The command line names more than {MOST_PROJECTS} files.")
    return [Path(os.path.abspath(path)) for path, is_directory in seen.items() if is_directory]


def _requirements(path: Path, say: Say) -> list[str]:
    """Return the lines of a requirements file that may name a project by path; none for another kind of file."""
    try:
        lines = read_text(path).decode().replace("\\\n", " ").splitlines()
        return [line for line in lines if line.lstrip().startswith(("-", ".")) or "/" in line or "@" in line]
    except UnicodeDecodeError:
        return []
    except OSError as error:
        if path.suffix in _REQUIREMENTS:
            say(f"Cannot read {path}: {error.strerror or error}.")
        return []


def _is_pipe(path: Path) -> bool:
    return path.exists() and not (path.is_file() or path.is_dir())


def _metadata(path: Path, say: Say) -> list[dict[str, Json]]:
    """Return the inline metadata of a file."""
    try:
        with in_time():
            return [tomllib.loads(text) for text in command_line.metadata(read_text(path).decode(errors="replace"))]
    except (OSError, ValueError, RecursionError):
        say(f"The inline metadata of {path} cannot be read.")
    return []

"""Read the files that uv reads: its configuration, its netrc and its credential store.

A project may be hostile, so reading is bounded in size and time, and opens regular files only.

Which configuration uv reads (uv crates/uv-settings/src/lib.rs, crates/uv-workspace/src/workspace.rs; seen with uv
0.13.8): of a project, the nearest ``uv.toml`` or ``pyproject.toml`` with a ``tool.uv`` from the workspace's root up;
the user's; the first of the system's. The indexes in a workspace member's own ``pyproject.toml`` count for its sources.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import stat
import threading
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from uvtokend.core.config import discovery
from uvtokend.core.config.discovery import Candidate
from uvtokend.core.model import Json
from uvtokend.core.uv import command_line, settings
from uvtokend.core.uv.order import TextFile
from uvtokend.core.uv.settings import TRUE, UvConfiguration, UvFile
from uvtokend.errors import UsageError

#: The longest file that is read, in bytes: people write such files by hand.
LIMIT = 1 << 20
#: The longest ``uv.lock`` that is read, in bytes; a tool writes it.
LOCK_LIMIT = 1 << 25
#: The most projects of a workspace that are read.
MOST_PROJECTS = 1000
#: A project's own files, which uv's arguments may name instead of its directory.
_PROJECT_FILES = frozenset({"pyproject.toml", "setup.py", "setup.cfg"})
#: The names of requirements files, which must be readable.
_REQUIREMENTS = frozenset({".txt", ".in"})
#: Seconds that reading one file may take.
PATIENCE = 2.0

Say = Callable[[str], None]


def candidates(places: Sequence[str], environ: Mapping[str, str], say: Say) -> list[Candidate]:
    """Return the indexes that uv knows: from the projects', the user's and the system's files, and the environment.

    Args:
        places: Project directories or files; by default the directory in which uv would work.
        environ: uv's variables.
        say: Called with a sentence about each file that cannot be read.

    Raises:
        UsageError: One of the places does not exist.
    """
    reader = _Files(say)
    in_files = [candidate for file in _files(reader, places, environ) for candidate in reader.candidates(file)]
    return [*in_files, *discovery.from_environment(environ)]


def named(environ: Mapping[str, str], say: Say, command: Sequence[str] = ()) -> list[tuple[str, str, str]]:
    """Return the name, URL and source of every named index that uv knows here, exactly as written.

    Args:
        environ: uv's variables.
        say: Called with a sentence about each file that cannot be read.
        command: The command line that will run. If it runs uv, its options and its script count, too.
    """
    reader = _Files(say)
    indexes = [*discovery.names_in_environment(environ), *command_line.indexes(command)]
    for each in command_line.environments(command, environ):
        here = Path(os.path.abspath(_here(each)))
        scripts = list(_scripts(each, command, say))
        named = _named(each, [*command_line.arguments(command), *_required(scripts)], say)
        places = dict.fromkeys([here, *(path.parent for path, _ in scripts), *named])
        files = [file for place in places for file in reader.project(place, each)]
        tables = {file: reader.settings(file) for file in [*reader.beyond(files), *_beyond_projects(each)]}
        inline = [(path, discovery.tool_uv(block)) for path, block in scripts]
        for source, table in [*tables.items(), *inline]:
            indexes += [(name, url, str(source)) for name, url in discovery.names_in_document(table or {})]
    return list(dict.fromkeys(indexes))


def _scripts(environ: Mapping[str, str], command: Sequence[str], say: Say) -> Iterator[tuple[Path, dict[str, Json]]]:
    """Yield the scripts on a command line of uv, and their inline metadata."""
    directory = _working_directory(environ)
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
    directory = Path(_working_directory(environ))
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
        lines = _text(path).decode().replace("\\\n", " ").splitlines()
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
        with _within(PATIENCE):
            return [tomllib.loads(text) for text in command_line.metadata(_text(path).decode(errors="replace"))]
    except (OSError, ValueError, RecursionError):
        say(f"The inline metadata of {path} cannot be read.")
    return []


def _files(reader: _Files, places: Sequence[str], environ: Mapping[str, str]) -> Iterator[Path]:
    for place in places or [_here(environ)]:
        path = _existing(place)
        yield from reader.project(path, environ) if os.path.isdir(path) else [path]
    yield from _beyond_projects(environ)


@dataclass(frozen=True, slots=True)
class Project:
    """The files that uv reads for one project.

    Args:
        directory: The project's directory.
        root: The directory of its workspace's root, where ``uv.lock`` is; None outside of a project.
        pyprojects: The ``pyproject.toml`` of the project and of its root: path -> content.
        uv_files: uv's own configuration files, the strongest first.
        problems: A sentence for each file that cannot be read.
    """

    directory: Path
    root: Path | None
    pyprojects: Mapping[Path, Mapping[str, Json]]
    uv_files: tuple[UvFile, ...]
    problems: tuple[str, ...]

    def configuration(self, environ: Mapping[str, str]) -> UvConfiguration:
        """Return uv's configuration for the project."""
        return settings.read(self.uv_files, environ)


def project(place: str | None, environ: Mapping[str, str]) -> Project:
    """Return the files that uv reads for a project.

    Args:
        place: The project's directory, or a file in it; None for the directory in which uv would work.
        environ: uv's variables.

    Raises:
        UsageError: The place does not exist.
    """
    path = _existing(place or _here(environ))
    directory = path if os.path.isdir(path) else path.parent
    problems: list[str] = []
    reader = _Files(problems.append)
    files = list(reader.project(directory, environ))
    root = reader.workspace_root(directory)
    nearest = [file for file in files if file.name == "uv.toml"] or files[-1:]
    strongest = [*nearest, *_beyond_projects(environ), *files]
    uv_files = [_uv_file(reader, file, file in nearest or file not in files) for file in dict.fromkeys(strongest)]
    pyprojects = {file: document for file in files if (document := reader.pyproject(file)) is not None}
    return Project(directory, root, pyprojects, tuple(each for each in uv_files if each), tuple(problems))


def netrc(environ: Mapping[str, str]) -> str | None:
    """Return the path of the netrc that uv reads: ``$NETRC`` or ``~/.netrc``, whichever exists first; or None.

    Source: uv crates/uv-netrc/src/lib.rs, `get_file`.
    """
    return next((path for path in netrc_candidates(environ) if os.path.exists(path)), None)


def netrc_candidates(environ: Mapping[str, str]) -> Iterator[str]:
    """Yield the paths of uv's netrc. uv expands ``~`` in ``$NETRC`` but no variables, and ignores an empty value."""
    home = environ.get("HOME", "")
    named = environ.get("NETRC", "")
    if named:
        tilde = bool(home) and (named == "~" or named.startswith("~/"))
        yield os.path.abspath(home + named[1:] if tilde else named)
    if home:
        yield os.path.join(home, ".netrc")


def text_file(path: str | None) -> TextFile | None:
    """Return a file that uv reads; None if it is missing, is not a regular file, or cannot be read."""
    if path is None:
        return None
    try:
        return TextFile(path, _text(Path(path)))
    except OSError:
        return None


def store(environ: Mapping[str, str]) -> TextFile | None:
    """Return uv's own credential store, or None (uv crates/uv-auth/src/store.rs, `directory_path`)."""
    directory = environ.get("UV_CREDENTIALS_DIR") or os.path.join(
        _absolute(environ, "XDG_DATA_HOME") or _home(environ, ".local/share"), "uv", "credentials"
    )
    return text_file(os.path.join(os.path.abspath(directory), "credentials.toml"))


def toml_file(path: Path, limit: int = LOCK_LIMIT) -> Mapping[str, Json] | None:
    """Return the content of any other TOML file of a project, or None if it is missing or cannot be read."""
    return _read(path, lambda _: None, limit)


def _here(environ: Mapping[str, str]) -> str:
    return os.path.join(_working_directory(environ), environ.get("UV_PROJECT", ""))


def _working_directory(environ: Mapping[str, str]) -> str:
    """Return uv's working directory. uv changes to it, so the system resolves links and ``..`` in its path."""
    return os.path.realpath(environ.get("UV_WORKING_DIR", ""))


def _existing(place: str) -> Path:
    path = Path(os.path.abspath(os.path.expanduser(place)))
    if not os.path.lexists(path):
        message = f"{place} does not exist."
        raise UsageError(message, "name a project's directory, its pyproject.toml or its uv.toml")
    return path


def _beyond_projects(environ: Mapping[str, str]) -> Iterator[Path]:
    if environ.get("UV_CONFIG_FILE"):
        yield Path(_working_directory(environ), environ["UV_CONFIG_FILE"])
    elif not _no_config(environ):
        yield Path(_absolute(environ, "XDG_CONFIG_HOME") or _home(environ, ".config"), "uv", "uv.toml")
        directories = (environ.get("XDG_CONFIG_DIRS") or "/etc/xdg").split(":")
        system = [
            *(Path(directory, "uv", "uv.toml") for directory in directories if directory),
            Path("/etc/uv/uv.toml"),
        ]
        yield from [file for file in system if os.path.isfile(file)][:1]


def _no_config(environ: Mapping[str, str]) -> bool:
    return environ.get("UV_NO_CONFIG", "").lower() in TRUE


def _home(environ: Mapping[str, str], below: str) -> str:
    return os.path.join(environ.get("HOME") or os.path.expanduser("~"), below)


def _absolute(environ: Mapping[str, str], variable: str) -> str | None:
    path = environ.get(variable, "")
    return path if os.path.isabs(path) else None


def _uv_file(reader: _Files, file: Path, strong: bool) -> UvFile | None:
    table = reader.settings(file)
    if table is None:
        return None
    try:
        return UvFile(str(file), _text(file), table, indexes_only=not strong)
    except OSError:
        return None


class _Files:
    """Reads each file once, and reports each problem once."""

    def __init__(self, say: Say) -> None:
        self._say = say
        self._documents: dict[Path, dict[str, Json] | None] = {}

    def candidates(self, file: Path) -> Iterator[Candidate]:
        """Yield the indexes of a file."""
        table = self.settings(file)
        candidates = list(discovery.from_document(table, str(file))) if table is not None else []
        if len(candidates) == discovery.MOST:
            self._say(f"{file} names very many indexes; uvtokend looks at the first {discovery.MOST} only.")
        yield from candidates

    def project(self, directory: Path, environ: Mapping[str, str]) -> Iterator[Path]:
        """Yield the files that count for a project, each once; the file with uv's settings is the last."""
        member = self._member(directory)
        root = self._root(member) if member else None
        files = [each / "pyproject.toml" for each in (member, root) if each]
        if not (environ.get("UV_CONFIG_FILE") or _no_config(environ)):
            files += self._nearest(root or directory)
        yield from dict.fromkeys(files)

    def beyond(self, files: Sequence[Path]) -> list[Path]:
        """Return the files of projects, and of the members and path sources that uv resolves together with them.

        uv reads the indexes of each project for its own sources (uv-distribution, ``lowering.rs``).
        """
        known = dict.fromkeys(files)
        waiting = list(known)
        while waiting and len(known) <= MOST_PROJECTS:
            file = waiting.pop()
            projects = [*self._near(file.parent, self.settings(file) or {}), *self._required(file)]
            near = [path / "pyproject.toml" for path in projects]
            new = [path for path in dict.fromkeys(near) if path not in known and self.pyproject(path) is not None]
            known |= dict.fromkeys(new)
            waiting += new
        if waiting:
            self._say(f"There are more than {MOST_PROJECTS} projects in this workspace.")
        return list(known)

    def _near(self, directory: Path, table: Mapping[str, Json]) -> Iterator[Path]:
        for pattern in discovery.workspace_members(table):
            try:
                with _within(PATIENCE):
                    members = list(islice(directory.glob(pattern), MOST_PROJECTS + 1))
            except (OSError, ValueError, NotImplementedError) as error:
                self._say(f"The workspace members {pattern!r} of {directory} cannot be listed: {error}.")
                continue
            yield from members
        for path in discovery.path_sources(table):
            yield Path(os.path.normpath(directory / path))

    def _required(self, file: Path) -> Iterator[Path]:
        """Yield the possible directories of the projects that a project requires by ``file:`` URLs."""
        for text in discovery.file_requirements(self.pyproject(file) or {}):
            for path in command_line.paths(text.replace("${PROJECT_ROOT}", str(file.parent))):
                yield Path(os.path.normpath(file.parent / path))

    def workspace_root(self, directory: Path) -> Path | None:
        """Return the directory of a project's ``uv.lock``, or None outside of a project."""
        member = self._member(directory)
        return None if member is None else self._root(member) or member

    def settings(self, file: Path) -> dict[str, Json] | None:
        """Return uv's settings in a file."""
        document = self.pyproject(file)
        return discovery.tool_uv(document) if document is not None and file.name == "pyproject.toml" else document

    def pyproject(self, file: Path) -> dict[str, Json] | None:
        """Return the whole content of a file."""
        if file not in self._documents:
            self._documents[file] = _read(file, self._say, LIMIT)
        return self._documents[file]

    def _member(self, directory: Path) -> Path | None:
        above = [directory, *directory.parents]
        return next((each for each in above if self.pyproject(each / "pyproject.toml") is not None), None)

    def _nearest(self, directory: Path) -> list[Path]:
        for each in (directory, *directory.parents):
            for file in (each / "uv.toml", each / "pyproject.toml"):
                if self.settings(file) is not None:
                    return [file]
        return []

    def _root(self, member: Path) -> Path | None:
        """Return the root of a project's workspace, or None if the project is not in a workspace."""
        if self._workspace(member) is not None:
            return member
        for each in member.parents:
            document = self.pyproject(each / "pyproject.toml") or {}
            workspace = self._workspace(each)
            if workspace is not None:
                return each if discovery.is_member(workspace, member.relative_to(each).as_posix()) else None
            if "project" in document:
                return None
        return None

    def _workspace(self, directory: Path) -> Json:
        return (discovery.tool_uv(self.pyproject(directory / "pyproject.toml") or {}) or {}).get("workspace")


def _read(file: Path, say: Say, limit: int) -> dict[str, Json] | None:
    """Return the content of a file, or None if it is missing or cannot be read."""
    try:
        with _within(PATIENCE):
            document: dict[str, Json] = tomllib.loads(_text(file, limit).decode())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        say(f"Cannot read {file}, so it is left out: {error.strerror or error}.")
    except (ValueError, RecursionError) as error:
        line = re.search(r"at line \d+", str(error))  # the rest of the message may quote the file
        say(f"{file} is not valid TOML{f' {line[0]}' if line else ''}, so it is left out.")
    else:
        return document
    return None


@contextlib.contextmanager
def _within(seconds: float) -> Iterator[None]:
    """Raise TimeoutError after some seconds: tomllib takes hours for a key of some hundred thousand parts.

    Only the main thread can be interrupted; a check of ``doctor`` has a time limit of its own.
    """

    def late(*_: object) -> None:
        raise TimeoutError("it takes too long to read")

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _text(file: Path, limit: int = LIMIT) -> bytes:
    """Return the text of a regular file of bounded size. A pipe or a device is not opened."""
    if not stat.S_ISREG(os.stat(file).st_mode):
        raise OSError("it is not a regular file")
    with open(file, "rb", opener=_opener) as opened:
        if not stat.S_ISREG(os.fstat(opened.fileno()).st_mode):
            raise OSError("it is not a regular file")
        text = opened.read(limit + 1)
    if len(text) > limit:
        raise OSError(f"it is larger than {limit >> 20} MiB")
    return text


def _opener(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC)

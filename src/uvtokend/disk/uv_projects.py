"""Find the configuration that uv reads for a project, and the indexes in it.

Which configuration uv reads (uv crates/uv-settings/src/lib.rs, crates/uv-workspace/src/workspace.rs; seen with uv
0.13.8): of a project, the nearest ``uv.toml`` or ``pyproject.toml`` with a ``tool.uv`` from the workspace's root up;
the user's; the first of the system's. The indexes in a workspace member's own ``pyproject.toml`` count for its sources.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from uvtokend.core.config import discovery
from uvtokend.core.config.discovery import Candidate
from uvtokend.core.model import Json
from uvtokend.core.uv import command_line, settings
from uvtokend.core.uv.settings import TRUE, UvConfiguration, UvFile
from uvtokend.disk.uv_files import LIMIT, Say, absolute, in_home, in_time, read_text, read_toml
from uvtokend.errors import UsageError

#: The most projects of a workspace that are read.
MOST_PROJECTS = 1000


def candidates(places: Sequence[str], environ: Mapping[str, str], say: Say) -> list[Candidate]:
    """Return the indexes that uv knows: from the projects', the user's and the system's files, and the environment.

    Args:
        places: Project directories or files; by default the directory in which uv would work.
        environ: uv's variables.
        say: Called with a sentence about each file that cannot be read.

    Raises:
        UsageError: One of the places does not exist.
    """
    reader = ProjectFiles(say)
    in_files = [candidate for file in _files(reader, places, environ) for candidate in reader.candidates(file)]
    return [*in_files, *discovery.from_environment(environ)]


def _files(reader: ProjectFiles, places: Sequence[str], environ: Mapping[str, str]) -> Iterator[Path]:
    for place in places or [here(environ)]:
        path = _existing(place)
        yield from reader.project(path, environ) if os.path.isdir(path) else [path]
    yield from beyond_projects(environ)


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
    path = _existing(place or here(environ))
    directory = path if os.path.isdir(path) else path.parent
    problems: list[str] = []
    reader = ProjectFiles(problems.append)
    files = list(reader.project(directory, environ))
    root = reader.workspace_root(directory)
    nearest = [file for file in files if file.name == "uv.toml"] or files[-1:]
    strongest = [*nearest, *beyond_projects(environ), *files]
    uv_files = [_uv_file(reader, file, file in nearest or file not in files) for file in dict.fromkeys(strongest)]
    pyprojects = {file: document for file in files if (document := reader.pyproject(file)) is not None}
    return Project(directory, root, pyprojects, tuple(each for each in uv_files if each), tuple(problems))


def here(environ: Mapping[str, str]) -> str:
    """Return the directory of the project in which uv would work."""
    return os.path.join(working_directory(environ), environ.get("UV_PROJECT", ""))


def working_directory(environ: Mapping[str, str]) -> str:
    """Return uv's working directory. uv changes to it, so the system resolves links and ``..`` in its path."""
    return os.path.realpath(environ.get("UV_WORKING_DIR", ""))


def _existing(place: str) -> Path:
    path = Path(os.path.abspath(os.path.expanduser(place)))
    if not os.path.lexists(path):
        message = f"{place} does not exist."
        raise UsageError(message, "name a project's directory, its pyproject.toml or its uv.toml")
    return path


def beyond_projects(environ: Mapping[str, str]) -> Iterator[Path]:
    """Yield the configuration files that are in no project: the user's and the system's, or the one that is named."""
    if environ.get("UV_CONFIG_FILE"):
        yield Path(working_directory(environ), environ["UV_CONFIG_FILE"])
    elif not _no_config(environ):
        yield Path(absolute(environ, "XDG_CONFIG_HOME") or in_home(environ, ".config"), "uv", "uv.toml")
        directories = (environ.get("XDG_CONFIG_DIRS") or "/etc/xdg").split(":")
        system = [
            *(Path(directory, "uv", "uv.toml") for directory in directories if directory),
            Path("/etc/uv/uv.toml"),
        ]
        yield from [file for file in system if os.path.isfile(file)][:1]


def _no_config(environ: Mapping[str, str]) -> bool:
    return environ.get("UV_NO_CONFIG", "").lower() in TRUE


def _uv_file(reader: ProjectFiles, file: Path, strong: bool) -> UvFile | None:
    table = reader.settings(file)
    if table is None:
        return None
    try:
        return UvFile(str(file), read_text(file), table, indexes_only=not strong)
    except OSError:
        return None


class ProjectFiles:
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
                with in_time():
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
            self._documents[file] = read_toml(file, self._say, LIMIT)
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

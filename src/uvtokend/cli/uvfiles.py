"""The files in which uv finds its indexes, and what stands in them. A project may be anybody's: reading must not hang.

Which files uv reads (uv crates/uv-settings/src/lib.rs, crates/uv-workspace/src/workspace.rs; seen with uv 0.13.8): of a
project, the nearest ``uv.toml`` or ``pyproject.toml`` with a ``tool.uv`` from the workspace's root upwards; the user's;
the first of the system's. The indexes of a workspace member's own ``pyproject.toml`` count for its sources.
"""

from __future__ import annotations

import contextlib
import os
import signal
import stat
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from uvtokend.cli import console
from uvtokend.core.config import discovery
from uvtokend.core.config.discovery import Candidate
from uvtokend.core.model import Json
from uvtokend.errors import UsageError

#: The longest file that is read, in bytes: such files are written by hand.
LIMIT = 1 << 20
#: Seconds that reading one file may take.
PATIENCE = 2.0


def candidates(places: Sequence[str], environ: Mapping[str, str]) -> list[Candidate]:
    """Return what uv would read: the projects', the user's and the system's files, and the environment.

    Args:
        places: Project folders or files; if there is none, where uv would work.
        environ: uv's variables.

    Raises:
        UsageError: There is no such place.
    """
    here = os.path.join(environ.get("UV_WORKING_DIR", ""), environ.get("UV_PROJECT", "")) or "."
    reader = _Reader()
    found: list[Candidate] = []
    for place in places or [here]:
        path = Path(os.path.abspath(os.path.expanduser(place)))
        if not os.path.lexists(path):
            message = f"There is no {place}."
            raise UsageError(message, "uvtokend init PATH, with a project's folder, pyproject.toml or uv.toml")
        for file in reader.project(path, environ) if os.path.isdir(path) else [path]:
            found += reader.candidates(file)
    for file in _beyond_projects(environ):
        found += reader.candidates(file)
    return [*found, *discovery.from_environment(environ)]


def _beyond_projects(environ: Mapping[str, str]) -> Iterator[Path]:
    if environ.get("UV_CONFIG_FILE"):
        yield Path(os.path.abspath(environ["UV_CONFIG_FILE"]))
    elif not _no_config(environ):
        yield Path(_absolute(environ, "XDG_CONFIG_HOME") or os.path.expanduser("~/.config"), "uv", "uv.toml")
        folders = (environ.get("XDG_CONFIG_DIRS") or "/etc/xdg").split(":")
        system = [*(Path(folder, "uv", "uv.toml") for folder in folders if folder), Path("/etc/uv/uv.toml")]
        yield from [file for file in system if os.path.isfile(file)][:1]


def _no_config(environ: Mapping[str, str]) -> bool:
    return environ.get("UV_NO_CONFIG", "").lower() in {"1", "t", "true", "y", "yes", "on"}


def _absolute(environ: Mapping[str, str], variable: str) -> str | None:
    path = environ.get(variable, "")
    return path if os.path.isabs(path) else None


class _Reader:
    """Reads each file once, and says once what is wrong with it."""

    def __init__(self) -> None:
        self._documents: dict[Path, dict[str, Json] | None] = {}

    def candidates(self, file: Path) -> Iterator[Candidate]:
        """Yield the indexes of a file."""
        settings = self._settings(file)
        found = list(discovery.from_document(settings, str(file))) if settings is not None else []
        if len(found) == discovery.MOST:
            console.say(f"{file} names very many indexes; only the first {discovery.MOST} are looked at.")
        yield from found

    def project(self, folder: Path, environ: Mapping[str, str]) -> Iterator[Path]:
        """Yield the files that count for a project, each once."""
        above = [folder, *folder.parents]
        member = next((each for each in above if self._document(each / "pyproject.toml") is not None), None)
        root = self._root(member) if member else None
        files = [each / "pyproject.toml" for each in (member, root) if each]
        if not (environ.get("UV_CONFIG_FILE") or _no_config(environ)):
            files += self._nearest(root or folder)
        yield from dict.fromkeys(files)

    def _nearest(self, folder: Path) -> list[Path]:
        for each in (folder, *folder.parents):
            for file in (each / "uv.toml", each / "pyproject.toml"):
                if self._settings(file) is not None:
                    return [file]
        return []

    def _root(self, member: Path) -> Path | None:
        """Return the root of the workspace that a project belongs to, or None if it stands alone."""
        if self._workspace(member) is not None:
            return member
        for each in member.parents:
            document = self._document(each / "pyproject.toml") or {}
            workspace = self._workspace(each)
            if workspace is not None:
                return each if discovery.is_member(workspace, member.relative_to(each).as_posix()) else None
            if "project" in document:
                return None
        return None

    def _workspace(self, folder: Path) -> Json:
        return (discovery.tool_uv(self._document(folder / "pyproject.toml") or {}) or {}).get("workspace")

    def _settings(self, file: Path) -> dict[str, Json] | None:
        document = self._document(file)
        return discovery.tool_uv(document) if document is not None and file.name == "pyproject.toml" else document

    def _document(self, file: Path) -> dict[str, Json] | None:
        if file not in self._documents:
            self._documents[file] = _read(file)
        return self._documents[file]


def _read(file: Path) -> dict[str, Json] | None:
    """Return what a file says, or None if it is missing or cannot be read."""
    try:
        with _within(PATIENCE):
            document: dict[str, Json] = tomllib.loads(_text(file).decode())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        console.say(f"{file} is left out: {error.strerror or error}.")
    except (ValueError, RecursionError):
        console.say(f"{file} is left out: it is not TOML.")
    else:
        return document
    return None


@contextlib.contextmanager
def _within(seconds: float) -> Iterator[None]:
    """Raise TimeoutError after a time: tomllib takes hours for a key of some hundred thousand parts."""

    def late(*_: object) -> None:
        raise TimeoutError("it takes too long to read")

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _text(file: Path) -> bytes:
    """Return the text of a regular file of bearable size; a pipe or a device is not even opened."""
    if not stat.S_ISREG(os.stat(file).st_mode):
        raise OSError("it is no regular file")
    with open(file, "rb", opener=_opener) as opened:
        if not stat.S_ISREG(os.fstat(opened.fileno()).st_mode):
            raise OSError("it is no regular file")
        text = opened.read(LIMIT + 1)
    if len(text) > LIMIT:
        raise OSError("it is larger than 1 MiB")
    return text


def _opener(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC)

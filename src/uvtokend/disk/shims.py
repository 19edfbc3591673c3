"""Create, list and remove the ``keyring`` commands that we put on PATH. Foreign files are never changed.

A file is ours if its head has the mark of `uvtokend.shim`. A ledger in the state directory lists their paths, so that
`uvtokend purge` and `uvtokend keyring uninstall` find all of them.
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import sys

import uvtokend
from uvtokend import paths, shim
from uvtokend.disk import files
from uvtokend.errors import UvtokendError

#: Neither variables, the current directory, nor `.pth` files, which `site` would run, can change what the command does.
_OPTIONS = "-IS"
#: The longest first line that every Linux accepts, in bytes: execve(2), "Interpreter scripts". `#!` and options count.
_FIRST_LINE = 127


def install(directory: str) -> str:
    """Create the command in a directory, which is created if it is missing, and return its path.

    Raises:
        UvtokendError: A file that is not ours is in the way, or nothing can be written there.
    """
    path = os.path.join(directory, "keyring")
    temporary = os.path.join(directory, f".keyring.uvtokend-{os.getpid()}")
    try:
        os.makedirs(directory, exist_ok=True)
        _remember([*_ledger(), path])
        with open(temporary, "x", encoding="utf-8") as file:
            os.fchmod(file.fileno(), 0o755)
            file.write(_text(path))
        try:
            if shim.is_ours(path):
                os.replace(temporary, path)
            else:
                os.link(temporary, path)  # unlike a rename, a link never replaces a file
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)
    except FileExistsError:
        message = f"{path} exists and was not made by uvtokend, so it is left alone."
        raise UvtokendError(message, "uvtokend keyring install DIR, with another directory that is on PATH") from None
    except OSError as error:
        message = f"{path} cannot be written: {error.strerror}."
        raise UvtokendError(message, "uvtokend keyring install DIR, with a directory that you may write") from None
    return path


def uninstall() -> list[str]:
    """Remove every command that we created, and the ledger. Return the paths of the removed commands.

    Raises:
        UvtokendError: One of them cannot be removed.
    """
    removed = []
    for path in dict.fromkeys([*_ledger(), os.path.join(default_directory(), "keyring")]):
        if not shim.is_ours(path):
            continue
        try:
            os.unlink(path)
        except OSError as error:
            message = f"{path} cannot be removed: {error.strerror}."
            raise UvtokendError(message, f"rm {paths.quoted(path)}") from None
        removed.append(path)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(_ledger_file())
    return removed


def default_directory() -> str:
    """Return the default directory of the command, in which uv and pipx put theirs, too.

    Raises:
        UsageError: There is no home directory.
    """
    return os.path.join(paths.home_directory(), ".local", "bin")


def _text(path: str) -> str:
    python, where = sys.executable, os.path.dirname(os.path.dirname(os.path.abspath(uvtokend.__file__)))
    first = f"#!{python} {_OPTIONS}"
    if len(os.fsencode(first)) > _FIRST_LINE or any(each.isspace() for each in python):
        # A shell runs the second line and never reads the rest; for Python that line is a string.
        first = f"#!/bin/sh\n'''exec' {shlex.quote(python)} {_OPTIONS} \"$0\" \"$@\"\n' '''"
    gone = f"uvtokend: {path} asks uvtokend, which is no longer installed. fix: rm {shlex.quote(path)}"
    # The command leaves nothing to flush or to close, and Python's own end would take a sixth of its time: os._exit().
    return (
        f"{first}\n{shim.MARK} was made by 'uvtokend keyring install'; 'uvtokend keyring uninstall' removes it.\n"
        f"import os\nimport sys\n\nsys.path.append({where!r})\ntry:\n    from uvtokend.shim import main\n"
        f"except ImportError:\n    sys.exit({gone!r})\nos._exit(main())\n"
    )


def _ledger_file() -> str:
    return os.path.join(paths.state_directory(), "shims.json")


def _ledger() -> list[str]:
    try:
        with open(_ledger_file(), "rb") as file:
            known = json.load(file)
    except (OSError, ValueError, RecursionError):
        return []
    return [path for path in known if isinstance(path, str)] if isinstance(known, list) else []


def _remember(known: list[str]) -> None:
    paths.private_directory(paths.state_directory())
    files.replace(_ledger_file(), json.dumps(list(dict.fromkeys(known))).encode(), durable=False)

"""Read the files that uv reads: its netrc, its credential store, and any TOML file of a project.

A project may be hostile, so reading is bounded in size and time, and opens regular files only.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import stat
import threading
import tomllib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from uvtokend.core.model import Json
from uvtokend.core.uv.order import TextFile

#: The longest file that is read, in bytes: people write such files by hand.
LIMIT = 1 << 20
#: The longest ``uv.lock`` that is read, in bytes; a tool writes it.
LOCK_LIMIT = 1 << 25
#: Seconds that reading one file may take.
PATIENCE = 2.0

#: Called with a sentence about a file that cannot be read.
Say = Callable[[str], None]


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
        return TextFile(path, read_text(Path(path)))
    except OSError:
        return None


def store(environ: Mapping[str, str]) -> TextFile | None:
    """Return uv's own credential store, or None (uv crates/uv-auth/src/store.rs, `directory_path`)."""
    directory = environ.get("UV_CREDENTIALS_DIR") or os.path.join(
        absolute(environ, "XDG_DATA_HOME") or in_home(environ, ".local/share"), "uv", "credentials"
    )
    return text_file(os.path.join(os.path.abspath(directory), "credentials.toml"))


def toml_file(path: Path, limit: int = LOCK_LIMIT) -> Mapping[str, Json] | None:
    """Return the content of any other TOML file of a project, or None if it is missing or cannot be read."""
    return read_toml(path, lambda _: None, limit)


def in_home(environ: Mapping[str, str], below: str) -> str:
    """Return the path of something below uv\'s home directory."""
    return os.path.join(environ.get("HOME") or os.path.expanduser("~"), below)


def absolute(environ: Mapping[str, str], variable: str) -> str | None:
    """Return a directory that a variable names; None unless it is absolute, since uv ignores others."""
    path = environ.get(variable, "")
    return path if os.path.isabs(path) else None


def read_toml(file: Path, say: Say, limit: int) -> dict[str, Json] | None:
    """Return the content of a file, or None if it is missing or cannot be read.

    Args:
        file: A TOML file.
        say: Called with a sentence if the file is there but cannot be read.
        limit: The longest file that is read, in bytes.
    """
    try:
        with in_time():
            document: dict[str, Json] = tomllib.loads(read_text(file, limit).decode())
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
def in_time() -> Iterator[None]:
    """Raise TimeoutError after `PATIENCE` seconds: tomllib takes hours for a key of some hundred thousand parts.

    Only the main thread can be interrupted; a check of ``doctor`` has a time limit of its own.
    """

    def late(*_: object) -> None:
        raise TimeoutError("it takes too long to read")

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, PATIENCE)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def read_text(file: Path, limit: int = LIMIT) -> bytes:
    """Return the text of a regular file of bounded size. A pipe or a device is not opened.

    Raises:
        OSError: It is missing, is not a regular file, is too large, or cannot be read.
    """
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

"""Load the configuration from disk: find its files, check their owners, and parse them."""

from __future__ import annotations

import grp
import os
import pwd
import shlex
import stat
from collections.abc import Callable
from dataclasses import replace
from typing import Protocol, TypeVar

from uvtokend import paths
from uvtokend.core.config.settings import parse
from uvtokend.core.config.toml_document import LIMIT, Source
from uvtokend.core.model import Problem, Settings
from uvtokend.disk import system_ca
from uvtokend.disk.answering import answered
from uvtokend.errors import ConfigError

_T = TypeVar("_T")


class _Wait(Protocol):
    def __call__(self, function: Callable[[], _T], path: str, /) -> _T: ...


def load(explicit: str | None = None, instead: bytes | None = None, bounded: bool = True) -> Settings:
    """Load the site's file, overridden by the user's.

    Args:
        explicit: The file that ``--config`` names; then, and with ``UVTOKEND_CONFIG``, the file must exist.
        instead: The future text of the user's file, which is then not read.
        bounded: Whether to give up if a file system does not answer.

    Raises:
        ConfigError: The files are invalid; the error contains every problem.
        UsageError: The home directory is unknown.
        UvtokendError: A file system does not answer.
    """
    wait: _Wait = answered if bounded else lambda function, _: function()
    home = paths.home_directory()
    user = paths.config_file(explicit)
    named = bool(explicit or os.environ.get("UVTOKEND_CONFIG"))
    problems: list[Problem] = []
    site = paths.site_config_file()
    files = [wait(lambda: _read(site, False, problems), site)] if site != user else []
    if instead is None:
        files.append(wait(lambda: _read(user, named, problems), user))
    else:
        files.append(Source(user, instead, os.path.dirname(user)))
    if problems:
        raise ConfigError(problems)
    sources = [source for source in files if source is not None]

    def unreadable(path: str) -> str | None:
        return wait(lambda: _unreadable(path), path)

    return replace(parse(sources, home, _environment(), system_ca.bundle, unreadable), file=user)


def defaults() -> Settings:
    """Return the settings that apply without any configuration file.

    Raises:
        UsageError: The home directory is unknown.
    """
    return parse([], paths.home_directory(), _environment())


def read(path: str) -> bytes | None:
    """Return the content of a configuration file, or None if it is missing.

    Raises:
        ConfigError: The file cannot be read, or cannot be trusted.
    """
    problems: list[Problem] = []
    source = answered(lambda: _read(path, False, problems), path)
    if problems:
        raise ConfigError(problems)
    return source.text if source is not None else None


def _environment() -> dict[str, str]:
    """Return the environment with ``NETRC`` as uv understands it: relative to the directory that uv is started in."""
    environ = dict(os.environ)
    if environ.get("NETRC"):
        environ["NETRC"] = os.path.abspath(os.path.expanduser(environ["NETRC"]))
    return environ


def _read(path: str, needed: bool, problems: list[Problem]) -> Source | None:
    """Return the content of a file, or None if it is missing or has a problem. A required file must exist."""
    try:
        with open(path, "rb", opener=_opener) as file:
            wrong = _untrusted(path, os.fstat(file.fileno()))
            text = b"" if wrong else file.read(LIMIT + 1)
    except FileNotFoundError:
        if os.path.islink(path):
            wrong = Problem(path, "the file", "It is a link to nothing.", f"ls -l {shlex.quote(path)}")
        elif needed:
            wrong = Problem(path, "the file", "It does not exist.", "name an existing file, or leave the option out")
        else:
            return None
    except OSError as error:
        wrong = Problem(path, "the file", f"It cannot be read: {error.strerror}.", f"ls -l {shlex.quote(path)}")
    if wrong is not None:
        problems.append(wrong)
        return None
    return Source(path, text, os.path.dirname(path))


def _unreadable(path: str) -> str | None:
    """Return why a file cannot be read, or None."""
    try:
        with open(path, "rb", opener=_opener) as file:
            file.read(1)
    except OSError as error:
        return error.strerror or "the system refused"
    return None


def _opener(path: str, flags: int) -> int:
    """Open a file, without waiting for the other end of a pipe."""
    return os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC)


def _untrusted(path: str, info: os.stat_result) -> Problem | None:
    """Return why a file cannot be trusted, or None. It names programs that we run, so nobody else may write it."""
    if not stat.S_ISREG(info.st_mode):
        return Problem(path, "the file", "It is not a regular file.", "name a regular file")
    if info.st_uid not in {os.getuid(), 0, paths.NOBODY}:
        if os.geteuid() == 0:
            paths.check_home(path)  # with sudo, the owner is not the problem
        message = f"It belongs to uid {info.st_uid}, neither to you nor to root."
        return Problem(path, "the file", message, f"sudo chown {os.getuid()} {shlex.quote(path)}")
    if info.st_mode & stat.S_IWOTH or (info.st_mode & stat.S_IWGRP and not _private_group(info.st_gid)):
        return Problem(path, "the file", "Other users can write to it.", f"chmod go-w {shlex.quote(path)}")
    return None


def _private_group(gid: int) -> bool:
    """Return whether a group is the user's own: Debian and Fedora create one for each user."""
    try:
        user, group = pwd.getpwuid(os.getuid()), grp.getgrgid(gid)
    except KeyError:
        return False
    return user.pw_gid == gid and group.gr_name == user.pw_name and set(group.gr_mem) <= {user.pw_name}

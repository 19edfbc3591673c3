"""The configuration on disk: which files there are, whom they belong to, and what they say."""

from __future__ import annotations

import grp
import os
import pwd
import stat
from dataclasses import replace

from uvtokend import paths
from uvtokend.core.model import Problem, Settings
from uvtokend.core.settings import LIMIT, Source, parse
from uvtokend.errors import ConfigError

#: Root as it looks from a user namespace, such as systemd's PrivateUsers makes (kernel.overflowuid).
_NOBODY = 65534
#: Where the platforms keep their CA bundle: Debian, Fedora, SUSE, Alpine and macOS.
_SYSTEM_CA = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
)


def load(explicit: str | None = None) -> Settings:
    """Read the site's file and the user's over it.

    Args:
        explicit: What ``--config`` names; then, and with ``UVTOKEND_CONFIG``, the file must be there.

    Raises:
        ConfigError: With every problem in them.
    """
    user = paths.config_file(explicit)
    named = explicit is not None or bool(os.environ.get("UVTOKEND_CONFIG"))
    problems: list[Problem] = []
    found = [_read(path, problems) for path in dict.fromkeys((paths.site_config_file(), user))]
    sources = [source for source in found if source is not None]
    if named and not os.path.lexists(user):
        problems.append(Problem(user, "the file", "It does not exist.", "name a file that does, or leave it out"))
    if problems:
        raise ConfigError(problems)
    system_ca = next((path for path in _SYSTEM_CA if os.path.exists(path)), None)
    settings = parse(sources, os.path.expanduser("~"), os.environ, system_ca)
    return replace(settings, file=user)


def _read(path: str, problems: list[Problem]) -> Source | None:
    try:
        with open(path, "rb") as file:
            wrong = _untrusted(path, os.fstat(file.fileno()))
            text = file.read(LIMIT + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        problems.append(Problem(path, "the file", f"It cannot be read: {error.strerror}.", f"ls -l {path}"))
        return None
    if wrong is not None:
        problems.append(wrong)
        return None
    return Source(path, text, os.path.dirname(path))


def _untrusted(path: str, info: os.stat_result) -> Problem | None:
    """Say why a file cannot be believed: it names the programs that we run."""
    if info.st_uid not in {os.getuid(), 0, _NOBODY}:
        message = f"It belongs to uid {info.st_uid}, neither to you nor to root."
        return Problem(path, "the file", message, f"chown {os.getuid()} {path}")
    if info.st_mode & stat.S_IWOTH or (info.st_mode & stat.S_IWGRP and not _private_group(info.st_gid)):
        return Problem(path, "the file", "Others may write it.", f"chmod go-w {path}")
    return None


def _private_group(gid: int) -> bool:
    """Tell whether a group is the user's own, as Debian and Fedora make one for each user."""
    try:
        user, group = pwd.getpwuid(os.getuid()), grp.getgrgid(gid)
    except KeyError:
        return False
    return user.pw_gid == gid and group.gr_name == user.pw_name and set(group.gr_mem) <= {user.pw_name}

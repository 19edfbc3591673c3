"""Record the variables of this shell that a service needs, since a service manager starts it with almost none.

`aws`, `gcloud`, `az`, `jf` and a `credential_process` find their programs, files, proxies and certificates through the
environment. The variables that the daemon would miss are recorded in a file that only its user can read. A secret is
never recorded: neither a variable whose name suggests a secret, nor a proxy URL with a user name.
"""

from __future__ import annotations

import fnmatch
import os
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from uvtokend.core import clouds

#: The variables that every SDK and helper program may read, whatever the cloud.
COMMON = (
    "PATH",
    "NETRC",
    "XDG_CONFIG_HOME",
    "XDG_CONFIG_DIRS",
    "XDG_STATE_HOME",
    "XDG_DATA_HOME",
    "XDG_CACHE_HOME",
    "UV_CREDENTIALS_DIR",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "ALL_PROXY",
    "NO_PROXY",
    "http_proxy",
    "https_proxy",
    "all_proxy",
    "no_proxy",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "SSL_CLIENT_CERT",
    "REQUESTS_CA_BUNDLE",
    "CURL_CA_BUNDLE",
    "NODE_EXTRA_CA_CERTS",
    "SSH_AUTH_SOCK",
    "GNUPGHOME",
    "PASSWORD_STORE_DIR",
)

#: The variables for the paths of the socket, the state and the configuration: `uvtokend.paths`.
PLACES = ("XDG_CONFIG_HOME", "XDG_STATE_HOME", "XDG_RUNTIME_DIR")

#: Names that a shell and systemd accept; a line break in a name would begin another variable.
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@dataclass(frozen=True, slots=True)
class Recorded:
    """The part of a shell's environment that a service gets.

    Args:
        variables: Name and value, sorted by name.
        refused: Names that are wanted but left out, because they may contain a secret.
    """

    variables: tuple[tuple[str, str], ...]
    refused: tuple[str, ...] = ()


def record(environ: Mapping[str, str], patterns: Sequence[str]) -> Recorded:
    """Choose the variables to record.

    Args:
        environ: The shell's environment.
        patterns: Names of variables, or globs such as ``CLOUDSDK_*``.
    """
    wanted = sorted(name for name in environ if environ[name] and _NAME.fullmatch(name) and _matches(name, patterns))
    refused = tuple(name for name in wanted if _may_be_secret(name, environ[name]))
    kept = tuple((name, environ[name]) for name in wanted if name not in refused)
    return Recorded(kept, refused)


def _matches(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def _may_be_secret(name: str, value: str) -> bool:
    if not value.isprintable():
        return True  # unit files, environment files and property lists cannot contain a line break
    if name.upper().endswith("_PROXY"):
        return "@" in value
    return clouds.may_hold_secret(name)


def environment_file(variables: Iterable[tuple[str, str]]) -> str:
    """Return the text of an environment file: systemd.exec(5), ``EnvironmentFile=``."""
    lines = (f'{name}="{_escaped(value)}"' for name, value in variables)
    return "".join(f"{line}\n" for line in ("# Written by uvtokend service install.", *lines))


def _escaped(value: str) -> str:
    return "".join(f"\\{character}" if character in '"\\$`' else character for character in value)


def file_of(config_file: str) -> str:
    """Return the environment file, which is beside the configuration."""
    return os.path.join(os.path.dirname(config_file), "service.env")


def patterns() -> tuple[str, ...]:
    """Return the names of all variables to record: those that every program reads, and those of each cloud's catalog.

    systemd sets the runtime directory itself, launchd does not.
    """
    places = PLACES if sys.platform == "darwin" else ()
    return (*COMMON, *places, *sorted({name for cloud in clouds.CLOUDS.values() for name in cloud.service_variables}))

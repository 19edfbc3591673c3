"""Read the sign-in that JFrog's own command line tool, ``jf``, keeps. uvtokend never changes it.

Source: jfrog-cli-core ``utils/config/config.go`` (version 6: ``~/.jfrog/jfrog-cli.conf.v6``, moved by
``JFROG_CLI_HOME_DIR``; a list of servers, whose secrets are encrypted if ``enc`` is set). ``jf`` itself renews the
access token that it got from a web sign-in when it is next used.
"""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from uvtokend.plugin import Secret, login_required, rejected
from uvtokend.providers.kit.http import host_of

#: The most bytes of the file; each server has two tokens of some kB.
LIMIT = 1 << 20


@dataclass(frozen=True, slots=True)
class JfServer:
    """A server that ``jf`` is signed in to.

    Args:
        name: Its name there.
        user: The user name; may be empty.
        secret: The access token, or the user's password.
        is_token: Whether `secret` is an access token.
        renews: Whether ``jf`` can renew it by itself.
    """

    name: str
    user: str
    secret: Secret
    is_token: bool
    renews: bool

    def fix(self) -> str:
        """Return the command that gets a new token."""
        verb = ["jf", "rt", "ping", "--server-id", self.name] if self.renews else ["jf", "login"]
        return shlex.join(verb)


def server_of(platform: str) -> JfServer:
    """Return the server of ``jf`` for a platform, chosen by host and port.

    Args:
        platform: The platform's base URL.

    Raises:
        FetchFailed: ``jf`` is not signed in there, or its file cannot be read.
    """
    file = os.path.join(os.environ.get("JFROG_CLI_HOME_DIR") or os.path.expanduser("~/.jfrog"), "jfrog-cli.conf.v6")
    document = _document(file)
    servers = document.get("servers")
    listed = [server for server in servers if isinstance(server, dict)] if isinstance(servers, list) else []
    matching = [server for server in listed if urlsplit(platform).netloc.lower() in _hosts(server)]
    chosen = [server for server in matching if server.get("isDefault") is True] or matching
    if not chosen:
        raise login_required("not-logged-in", f"jf is not signed in to {host_of(platform)}.", "jf login")
    if len(chosen) > 1:
        names = ", ".join(sorted(_text(server, "serverId") for server in chosen))
        message = f"jf knows {host_of(platform)} under several names ({names}), and none of them is the default."
        raise rejected("ambiguous-login", message, "jf config use SERVER-ID")
    if document.get("enc") is True:
        message = f"The secrets in {file} are encrypted, and only jf can read them."
        raise rejected("encrypted-login", message, 'use access-token = { … } instead of source = "jf"')
    return _server(chosen[0], host_of(platform))


def _server(server: Mapping[str, Any], host: str) -> JfServer:
    token, password = _text(server, "accessToken"), _text(server, "password")
    if not token and not password:
        raise login_required("not-logged-in", f"jf has neither an access token nor a password for {host}.", "jf login")
    return JfServer(
        name=_text(server, "serverId"),
        user=_text(server, "user"),
        secret=Secret(token or password),
        is_token=bool(token),
        renews=bool(token and _text(server, "refreshToken")),
    )


def _document(file: str) -> dict[str, Any]:
    try:
        with open(file, "rb", opener=lambda path, flags: os.open(path, flags | os.O_NONBLOCK)) as opened:
            document = json.loads(opened.read(LIMIT))
    except FileNotFoundError:
        raise login_required("not-logged-in", f"jf is not signed in: {file} does not exist.", "jf login") from None
    except OSError as error:
        why = error.strerror or "unknown error"
        raise rejected("missing-file", f"{file} cannot be read: {why}.", shlex.join(["ls", "-l", file])) from None
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict):
        raise rejected("bad-file", f"{file} is not a configuration of jf.", "jf config show")
    return document


def _hosts(server: Mapping[str, Any]) -> set[str]:
    """Return the hosts, with their ports, of the platform and of its Artifactory."""
    hosts = set()
    for name in ("url", "artifactoryUrl"):
        try:
            hosts.add(urlsplit(_text(server, name)).netloc.lower())
        except ValueError:
            continue
    return hosts - {""}


def _text(server: Mapping[str, Any], name: str) -> str:
    value = server.get(name)
    return value if isinstance(value, str) and value.isprintable() else ""

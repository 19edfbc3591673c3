"""The URL of an index: parsed once, then passed on as a value.

Python's and uv's URL parsers (WHATWG) disagree about a few texts. A host is compared with a cloud's only if both
parsers read the same host.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass, field
from typing import Self
from urllib.parse import unquote, urlsplit

#: Words of a path that do not tell one index from another.
_DULL = {"simple", "pypi", "_packaging", "packages", "-", "d", "repository", "api", "artifactory", ""}
#: What examples have in the place of what only their reader knows.
_BLANK = re.compile(r"…|\.\.\.|<[^<>]*>|\{[^{}]*\}")
_BLANKS = {
    *("ACCOUNT", "ACCOUNT_ID", "DOMAIN", "FEED", "HOST", "ID", "LOCATION", "NAME", "ORG", "ORGANIZATION", "OWNER"),
    *("PROJECT", "REGION", "REPO", "REPOSITORY", "YOUR"),
}


@dataclass(frozen=True, slots=True)
class IndexUrl:
    """The URL of an index.

    Args:
        text: The URL without user information, as it was written.
        scheme: In lower case.
        host: As a netrc names it: in lower case, IPv6 in brackets.
        netloc: Host and port as written, in lower case, without user information.
        path: As written.
        username: The user name in the URL, decoded; it may be a token. None if there is none.
        password: Whether the URL contains a password.
        plain: Python and uv read the same host.
    """

    text: str
    scheme: str
    host: str
    netloc: str
    path: str
    username: str | None = field(default=None, repr=False)
    password: bool = False
    plain: bool = True

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the parts of a URL.

        Raises:
            ValueError: It is not a URL.
        """
        parts = urlsplit(text)
        user, at, netloc = parts.netloc.rpartition("@")
        host = (parts.hostname or "").lower()
        _ = parts.port  # raises for a port that cannot be one
        return cls(
            text=parts._replace(netloc=netloc).geturl() if at else text,
            scheme=parts.scheme,
            host=f"[{host}]" if ":" in host else host,
            netloc=netloc.lower(),
            path=parts.path,
            username=unquote(user.partition(":")[0]) if at else None,
            password=":" in user,
            plain=parts.netloc.isascii() and "\\" not in parts.netloc,
        )

    @property
    def known_host(self) -> str:
        """The host, or an empty text where uv would read another one."""
        return self.host if self.plain else ""

    @property
    def root(self) -> str:
        """The URL below which uv authenticates; see `root_path`."""
        return f"{self.scheme}://{self.netloc}{root_path(self.path)}"

    @property
    def placeholder(self) -> str | None:
        """What stands here for something that the reader of an example has to fill in; None if nothing does.

        Words in capitals count in the host, where nobody writes them, and in the path only if there are several: a feed
        may be called FEED.
        """
        if (blank := _BLANK.search(self.text)) is not None:
            return blank[0]
        parts = urlsplit(self.text)
        in_host = [word for word in re.split(r"[^A-Z_]+", parts.netloc) if word in _BLANKS]
        in_path = [word for word in parts.path.split("/") if word in _BLANKS]
        return next(iter(in_host), in_path[0] if len(in_path) > 1 else None)

    @property
    def name(self) -> str:
        """A readable name for an index without one: the last distinctive word of the path, or the host."""
        words = [word for word in self.path.split("/") if word not in _DULL]
        name = re.sub(r"[^A-Za-z0-9._-]+", "-", words[-1] if words else self.host)
        return name.strip("-.") or "index"


def root_path(path: str) -> str:
    """Return the path of an index without its final ``/simple/`` or ``/+simple/``; its pages and files are below it.

    Source: uv-distribution-types, `IndexUrl::root`.
    """
    bare = path.rstrip("/")
    last = bare.rpartition("/")[2]
    return bare[: -len(last) - 1] if last.lower() in {"simple", "+simple"} else bare


def is_loopback(host: str) -> bool:
    """Return whether a host is this machine itself."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"

"""Decide which index a URL belongs to. Pure and strict: a token is never returned for another host.

1. Scheme, host (whole, in lower case) and effective port of the URL and of the index are equal.
2. The path of the URL begins with the whole path segments of the index URL, which first loses its final ``/simple``.
3. The longest such path wins.
4. A URL that servers and clients may read in different ways matches nothing: dot segments and encoded slashes (encoded
   or not, WHATWG URL standard, "path state"), backslashes, spaces and control characters, a host that is not ASCII.
5. A bare ``host`` or ``host:port`` means https. uv asks for it after the URL itself (uv crates/uv-auth/src/keyring.rs,
   `fetch`), and so does pip. It names no path, so it matches only if all indexes on that host share one request, and so
   one credential. ``http://host:port`` without a path means the same, for loopback hosts only.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import SplitResult, unquote, urlsplit

from uvtokend.core.model import Index
from uvtokend.core.urls import is_loopback, root_path

#: The longest URL that is accepted, in characters; RFC 9110, section 4.1, recommends at least 8000.
LIMIT = 8192
_PORTS = {"https": 443, "http": 80}
#: A segment of one or two dots, each written as it is or as %2e.
_DOTS = re.compile(r"(?:\.|%2e){1,2}", re.IGNORECASE)
_HIDDEN_SLASH = re.compile(r"%2f|%5c", re.IGNORECASE)
_HOST = re.compile(r"[a-z0-9._-]+|\[[0-9a-f:.]+\]")


@dataclass(frozen=True, slots=True)
class AskedUrl:
    """A URL for which a program asks for a credential.

    Args:
        origin: Scheme, host in lower case and effective port.
        path: The path's segments; None for a bare host.
        user: The user name in the URL, or None.
        only_host: Whether it is a URL that may mean a bare host.
    """

    origin: tuple[str, str, int]
    path: tuple[str, ...] | None
    user: str | None = None
    only_host: bool = False


def asked_url(text: str) -> AskedUrl | None:
    """Parse a URL, ``host`` or ``host:port`` that a program asks for; return None if it can mean no index.

    Args:
        text: The text as the program wrote it; it may be hostile.
    """
    if len(text) > LIMIT or not text.isascii() or not text.isprintable() or " " in text or "\\" in text:
        return None
    named = "://" in text
    if not named and not _is_authority(text):
        return None
    parts = _split(text if named else f"https://{text}")
    if parts is None:
        return None
    origin = _origin(parts)
    if origin is None or _is_ambiguous(parts.path):
        return None
    user = unquote(parts.username) if parts.username else None
    if not named:
        return AskedUrl(origin, None, user)
    only_host = parts.scheme == "http" and parts.path in {"", "/"} and is_loopback(origin[1])
    return AskedUrl(origin, _segments(parts.path), user, only_host)


def matching(asked: AskedUrl, indexes: Sequence[Index]) -> tuple[Index, ...]:
    """Return the indexes that a URL may mean, the one with the longest path first.

    Args:
        asked: The URL, parsed by `asked_url`.
        indexes: All configured and enabled indexes.
    """
    there = [(index, parts) for index in indexes if (parts := urlsplit(index.url)) and _origin(parts) == asked.origin]
    if (asked.path is None or asked.only_host) and len({index.request for index, _ in there}) == 1:
        return (there[0][0],)
    if asked.path is None:
        return ()
    rooted = [(root(parts.path), index) for index, parts in there if not _is_ambiguous(parts.path)]
    fitting = [(path, index) for path, index in rooted if asked.path[: len(path)] == path]
    return tuple(index for _, index in sorted(fitting, key=lambda pair: -len(pair[0])))


def root(path: str) -> tuple[str, ...]:
    """Return the segments of an index's path without its final ``/simple``; its pages and files are below that path."""
    return _segments(root_path(path))


def _is_authority(text: str) -> bool:
    return bool(text) and not any(mark in text for mark in "/?#@")


def _split(text: str) -> SplitResult | None:
    try:
        parts = urlsplit(text)
        _ = parts.port  # raises ValueError for one that is not a number below 65536
    except ValueError:
        return None
    return parts


def _origin(parts: SplitResult) -> tuple[str, str, int] | None:
    host = (parts.hostname or "").lower()
    host = f"[{host}]" if ":" in host else host
    default = _PORTS.get(parts.scheme)
    if default is None or not _HOST.fullmatch(host):
        return None
    return parts.scheme, host, default if parts.port is None else parts.port


def _is_ambiguous(path: str) -> bool:
    return bool(_HIDDEN_SLASH.search(path)) or any(_DOTS.fullmatch(segment) for segment in path.split("/"))


def _segments(path: str) -> tuple[str, ...]:
    below = path.removeprefix("/").rstrip("/")
    return tuple(below.split("/")) if below else ()

"""Read uv's configuration: parsed TOML and variables in, the indexes and settings that uv uses out.

Order (uv crates/uv-settings/src/combine.rs and crates/uv-distribution-types/src/index_url.rs): variables come first,
then the project's file, the user's, the system's. Lists of indexes are joined in that order, other settings are taken
from the first place that has one. User names and passwords are removed from the URLs at once.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import SplitResult, unquote, urlsplit, urlunsplit

from uvtokend.core.model import Env, Json, Secret
from uvtokend.core.urls import root_path

Policy = Literal["auto", "always", "never"]
_POLICIES: dict[Json, Policy] = {"always": "always", "never": "never"}
_PORTS = {"https": 443, "http": 80}

#: The settings that are looked up by name: key in a file -> variable.
SETTINGS: dict[str, str] = {
    "keyring-provider": "UV_KEYRING_PROVIDER",
    "index-strategy": "UV_INDEX_STRATEGY",
    "no-index": "UV_NO_INDEX",
    "offline": "UV_OFFLINE",
    "native-tls": "UV_NATIVE_TLS",
    "system-certs": "UV_SYSTEM_CERTS",
    "publish-url": "UV_PUBLISH_URL",
    "check-url": "UV_PUBLISH_CHECK_URL",
    "http-proxy": "",
    "https-proxy": "",
    "required-version": "",
}


@dataclass(frozen=True, slots=True)
class Location:
    """The place of a setting: a line of a file (0 if the line is unknown), or an environment variable."""

    name: str
    line: int = 0

    def __str__(self) -> str:
        return f"{self.name}:{self.line}" if self.line else self.name


@dataclass(frozen=True, slots=True)
class UvFile:
    """One of uv's configuration files.

    Args:
        file: Its path.
        text: Its bytes, for line numbers.
        table: The whole of a ``uv.toml``, or the ``tool.uv`` of a ``pyproject.toml``.
        indexes_only: Whether only its indexes and pins count, because uv reads its settings from another file.
    """

    file: str
    text: bytes
    table: Mapping[str, Json]
    indexes_only: bool = False


@dataclass(frozen=True, slots=True)
class UvIndex:
    """An index as uv's configuration names it.

    Args:
        name: Its name, or None.
        url: Its URL, without user name and password.
        user: The user name in its URL; empty if there is none.
        password: The password in its URL, or None.
        explicit: Whether it serves only packages that ``tool.uv.sources`` pins to it.
        default: Whether it replaces the public index.
        publish_url: The URL to which ``uv publish --index NAME`` uploads; empty if it is not set.
    """

    name: str | None
    url: str
    place: Location
    user: str = ""
    password: Secret | None = None
    authenticate: Policy = "auto"
    explicit: bool = False
    default: bool = False
    publish_url: str = ""

    @property
    def label(self) -> str:
        """Its name, or else its URL."""
        return self.name or self.url


#: What uv takes for "yes" in a variable (clap, `BoolishValueParser`).
TRUE = frozenset({"1", "t", "true", "y", "yes", "on"})


@dataclass(frozen=True, slots=True)
class Setting:
    """One value of uv's configuration."""

    value: Json
    place: Location


@dataclass(frozen=True, slots=True)
class UvConfiguration:
    """All of uv's configuration that matters here.

    Args:
        indexes: The indexes, in uv's order of precedence.
        settings: The set values of `SETTINGS`.
        pins: Package name -> the names of the indexes that ``tool.uv.sources`` pins it to.
    """

    indexes: tuple[UvIndex, ...] = ()
    settings: Mapping[str, Setting] = field(default_factory=dict)
    pins: Mapping[str, frozenset[str]] = field(default_factory=dict)

    def covering(self, url: str) -> UvIndex | None:
        """Return the index whose root contains a URL, so that its ``authenticate`` applies; the deepest of several."""
        above = [index for index in self.indexes if is_below(url, root(index.url))]
        return max(above, key=lambda index: len(root(index.url)), default=None)


def read(files: Sequence[UvFile], environ: Env) -> UvConfiguration:
    """Return uv's configuration.

    Args:
        files: The files that uv reads, the strongest first.
        environ: uv's variables.
    """
    indexes = (*_from_environment(environ), *(index for each in files for index in _from_file(each)))
    pins: dict[str, frozenset[str]] = {}
    for each in files:
        for package, names in _pins(each.table):
            pins[package] = pins.get(package, frozenset()) | names
    return UvConfiguration(tuple(dict.fromkeys(indexes)), dict(_settings(files, environ)), pins)


def variable(name: str) -> str:
    """Return the common part of the variables of a named index (uv-distribution-types, `IndexName::to_env_var`)."""
    return "UV_INDEX_" + re.sub(r"[^A-Z0-9]", "_", "".join(char.upper() if char.isascii() else "_" for char in name))


def split_url(text: str) -> tuple[str, str, Secret | None] | None:
    """Return a URL without its user information, the user name, and the password; None if it is not an HTTP URL."""
    try:
        parts = urlsplit(text)
        valid = parts.scheme in _PORTS and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return None
    if not valid:
        return None
    # WHATWG, "URL serializing": an empty password counts as no password.
    password = Secret(unquote(parts.password)) if parts.password else None
    bare = urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
    return bare, unquote(parts.username or ""), password


def root(url: str) -> str:
    """Return the URL below which an index authenticates; see `uvtokend.core.urls.root_path`."""
    parts = urlsplit(url)
    path = root_path(parts.path)
    return urlunsplit(parts._replace(path=parts.path if path == parts.path.rstrip("/") else path))


def realm(url: str) -> tuple[str, str, int | None]:
    """Return scheme, host and effective port of a URL: what uv calls its realm (uv-auth, ``realm.rs``)."""
    parts = urlsplit(url)
    return parts.scheme, (parts.hostname or "").lower(), effective_port(parts)


def effective_port(parts: SplitResult) -> int | None:
    """Return the port of a URL, or its scheme's."""
    return parts.port or _PORTS.get(parts.scheme)


def is_below(url: str, prefix: str) -> bool:
    """Return whether a URL is equal to or below another one, by whole path segments (uv-auth, `is_path_prefix`)."""
    if realm(url) != realm(prefix):
        return False
    path, start = urlsplit(url).path or "/", urlsplit(prefix).path or "/"
    return path == start or (path.startswith(start) and (start.endswith("/") or path[len(start)] == "/"))


def same_index(one: str, other: str) -> bool:
    """Return whether two index URLs are equal, except for a slash at the end and the case of the host."""
    return realm(one) == realm(other) and urlsplit(one).path.rstrip("/") == urlsplit(other).path.rstrip("/")


def line_of(text: bytes, needle: str) -> int:
    """Return the number of the first line of a file that contains a text, or 0."""
    at = text.find(needle.encode())
    return text.count(b"\n", 0, at) + 1 if at >= 0 else 0


def _from_environment(environ: Env) -> Iterator[UvIndex]:
    for name in ("UV_INDEX", "UV_EXTRA_INDEX_URL", "UV_DEFAULT_INDEX", "UV_INDEX_URL"):
        for word in environ.get(name, "").split():
            label, equals, url = word.partition("=")
            named = bool(equals) and re.fullmatch(r"[A-Za-z0-9._-]+", label) is not None
            default = name in {"UV_DEFAULT_INDEX", "UV_INDEX_URL"}
            table: dict[str, Json] = {"name": label if named else None, "url": url if named else word}
            yield from _index({**table, "default": default}, Location(name))


def _from_file(uv_file: UvFile) -> Iterator[UvIndex]:
    pip = uv_file.table.get("pip")
    for table in (uv_file.table, pip if isinstance(pip, dict) else {}):
        listed = table.get("index")
        tables: list[Json] = [*listed] if isinstance(listed, list) else []
        extra = table.get("extra-index-url")
        tables += [{"url": url} for url in (extra if isinstance(extra, list) else [])]
        tables += [{"url": table.get("index-url"), "default": True}]
        for each in tables:
            url = each.get("url") if isinstance(each, dict) else None
            if isinstance(each, dict) and isinstance(url, str):
                yield from _index(each, Location(uv_file.file, line_of(uv_file.text, url)))


def _index(table: Mapping[str, Json], place: Location) -> Iterator[UvIndex]:
    url, name, publish = table.get("url"), table.get("name"), table.get("publish-url")
    split = split_url(url) if isinstance(url, str) else None
    if split is not None:
        yield UvIndex(
            name=name if isinstance(name, str) else None,
            url=split[0],
            place=place,
            user=split[1],
            password=split[2],
            authenticate=_POLICIES.get(_text(table.get("authenticate")), "auto"),
            explicit=table.get("explicit") is True,
            default=table.get("default") is True,
            publish_url=publish if isinstance(publish, str) else "",
        )


def _text(value: Json) -> str:
    return value if isinstance(value, str) else ""


def _settings(files: Sequence[UvFile], environ: Env) -> Iterator[tuple[str, Setting]]:
    for key, name in SETTINGS.items():
        if environ.get(name):
            yield key, Setting(environ[name], Location(name))
            continue
        for each in (each for each in files if not each.indexes_only):
            pip = each.table.get("pip")
            value = each.table.get(key, pip.get(key) if isinstance(pip, dict) else None)
            if value is not None:
                yield key, Setting(value, Location(each.file, line_of(each.text, key)))
                break


def _pins(table: Mapping[str, Json]) -> Iterator[tuple[str, frozenset[str]]]:
    sources = table.get("sources")
    for package, source in (sources if isinstance(sources, dict) else {}).items():
        items = source if isinstance(source, list) else [source]
        names = frozenset(str(item["index"]) for item in items if isinstance(item, dict) and "index" in item)
        if names:
            yield normal_name(package), names


def normal_name(package: str) -> str:
    """Return a package's name in its normal form (packaging.python.org, "Name normalization")."""
    return re.sub(r"[-_.]+", "-", package).lower()

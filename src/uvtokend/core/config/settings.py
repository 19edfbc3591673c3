"""Parse TOML into Settings, or report every problem at once.

The user's file overrides the site's file: key by key in ``[daemon]``, and in the table of an index that both name. No
message repeats a value that may be a secret.
"""

from __future__ import annotations

import os.path
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeAlias, cast

from uvtokend.core import clouds
from uvtokend.core.clouds import CLOUDS
from uvtokend.core.config import toml_document, values
from uvtokend.core.config.host_conflicts import conflicts
from uvtokend.core.config.toml_document import Source, printable
from uvtokend.core.config.values import Base, InvalidValueError, Option, is_index_name, is_variable, nearest
from uvtokend.core.model import Env, Frozen, Index, Json, Problem, Request, Settings, Sink
from uvtokend.core.urls import IndexUrl, is_loopback
from uvtokend.errors import ConfigError, UvtokendError

_DAEMON = {
    "netrc": Option(values.PATH),
    "fetch-timeout": Option(values.DURATION, low=1, high=600),
    "max-workers": Option(values.INTEGER, low=1, high=32),
    "ca-bundle": Option(values.PATH),
    "log-level": Option(values.CHOICE, ("info", "debug", "warning", "error")),
    "notify": Option(values.BOOLEAN),
    "quiet-hours": Option(values.HOURS),
    "metrics-file": Option(values.PATH),
    "on-delivered": Option(values.COMMAND),
}
_INDEX = ("url", "name", "provider", "sink", "enabled", "env", "options")
_ENABLED = Option(values.BOOLEAN)
_A_SECRET = Option(values.SECRET)
_SINK = Option(values.CHOICE, ("netrc", "uv-store", "memory"))
#: Hosts that uv's URL parser (WHATWG) and Python's parse equally: no IDN, percent sign, backslash or zone.
_HOST = re.compile(r"[a-z0-9._-]+|\[[0-9a-f:.]+\]")
#: uv crates/uv-auth/src/service.rs, `check_scheme`.
_STORE_LOOPBACK = {"127.0.0.1", "localhost"}
_SECRET_VARIABLE = re.compile(r"SECRET|TOKEN|PASSWORD|KEY", re.IGNORECASE)
#: Options whose token must be kept on disk, and so cannot be in memory only.
_KEPT_ON_DISK = ("refresh-token", "rotate")


@dataclass(frozen=True, slots=True)
class _Value:
    """A value and its position.

    Args:
        value: The value in the TOML document.
        source: The file.
        where: The place in the file, as in a problem.
    """

    value: Json
    source: Source
    where: str


_Table: TypeAlias = dict[str, _Value]


def _no_bundle() -> str:
    raise UvtokendError("This system has no CA bundle in a known place.")


def parse(
    sources: Sequence[Source],
    home: str,
    environ: Env,
    system_ca: Callable[[], str] = _no_bundle,
    unreadable: Callable[[str], str | None] = lambda path: None,  # noqa: ARG005
) -> Settings:
    """Return the settings that the files describe.

    Args:
        sources: The site's file first, then the user's; those that exist.
        home: The absolute path that replaces ``~``.
        environ: The environment, for ``NETRC``, which is absolute or begins with ``~``.
        system_ca: A function that returns the platform's own CA bundle, for ``ca-bundle = "system"``, or raises an
            UvtokendError that says why there is none.
        unreadable: A function that returns why a file cannot be read, or None.

    Raises:
        ConfigError: The files are invalid; the error contains every problem.
    """
    parser = _Parser(home, system_ca, unreadable)
    daemon: _Table = {}
    tables: dict[str, _Table] = {}
    for source in sources:
        document = parser.document(source)
        daemon.update(parser.table(document.get("daemon"), source, "daemon", _DAEMON))
        parser.merge(tables, document.get("index"), source)
    off = {name: table for name, table in tables.items() if not parser.is_on(table)}
    enabled = tuple(index for name, table in tables.items() if name not in off and (index := parser.index(name, table)))
    for conflict in conflicts(enabled):
        parser.bad(tables[conflict.index]["url"], conflict.message, conflict.hint)
    disabled = tuple(parser.lenient().disabled(name, table) for name, table in off.items())
    file = sources[-1].file if sources else ""
    settings = parser.settings(file, daemon, enabled, environ)
    if parser.problems:
        raise ConfigError(parser.problems)
    return replace(settings, disabled=disabled)


@dataclass(slots=True)
class _Parser:
    home: str
    system_ca: Callable[[], str]
    unreadable: Callable[[str], str | None]
    places: _Table = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def lenient(self) -> _Parser:
        """Return a parser of the same files that reports no problems."""
        return replace(self, problems=[])

    def wrong(self, source: Source, where: str, message: str, hint: str) -> None:
        self.problems.append(Problem(source.file, where, message, hint))

    def bad(self, value: _Value, message: str, hint: str) -> None:
        self.wrong(value.source, value.where, message, hint)

    def check(self, given: _Value | None, option: Option) -> Frozen:
        """Return a checked value; None if it is missing or invalid, which is reported."""
        if given is None:
            return None
        try:
            return option.check(given.value, Base(self.home, given.source.directory))
        except InvalidValueError as error:
            self.bad(given, error.message, error.hint)
            return None

    # ------------------------------------------------------------------------------------------------ the files

    def document(self, source: Source) -> dict[str, Json]:
        """Return the tables of a file; none if it is invalid, which is reported."""
        document = toml_document.read(source)
        if isinstance(document, Problem):
            self.problems.append(document)
            return {}
        self.unknown(document, ("daemon", "index"), source, "")
        return document

    def table(self, raw: Json, source: Source, where: str, known: Collection[str]) -> _Table:
        if raw is None:
            return {}
        if not isinstance(raw, dict):
            self.wrong(source, where, "It is not a table.", f"write [{where}] and its keys below it")
            return {}
        self.unknown(raw, known, source, f"{where}.")
        return {key: _Value(value, source, f"{where}.{key}") for key, value in raw.items() if key in known}

    def unknown(self, raw: Mapping[str, Json], known: Collection[str], source: Source, prefix: str) -> None:
        for key in (key for key in raw if key not in known):
            self.wrong(source, f"{prefix}{printable(key)}", "Unknown key.", _did_you_mean(key, known))

    def merge(self, tables: dict[str, _Table], raw: Json, source: Source) -> None:
        """Override the indexes of the earlier files with those of one file, by name."""
        if raw is None:
            return
        if not isinstance(raw, list):
            self.wrong(source, "index", "It is not a list of tables.", "write [[index]] and its keys below it")
            return
        here: dict[str, int] = {}
        for number, item in enumerate(raw, 1):
            if not isinstance(item, dict):
                where = _nameless(number)
                self.wrong(source, where, "It is not a table.", "write [[index]] and its keys below it")
                continue
            name = self.name(item, source, number)
            where = f"index {name!r}" if name else _nameless(number)
            if name in here:
                hint = f'give one of them another name, for example name = "{name}-2"'
                self.wrong(source, where, f"[[index]] {here[name]} and {number} have the same name.", hint)
            key = name if name and name not in here else f"{_nameless(number)} of {source.file}"
            here[key] = number
            self.places[key] = _Value(None, source, where)
            table = {word: _Value(value, source, f"{where}: {printable(word)}") for word, value in item.items()}
            tables[key] = {**tables.get(key, {}), **table}

    def name(self, table: Mapping[str, Json], source: Source, number: int) -> str | None:
        """Return an index's name, or None if it is invalid; the rest of the index is checked anyway."""
        name = table.get("name")
        if name is not None:
            if isinstance(name, str) and is_index_name(name):
                return name
            hint = "use letters, digits, '-', '_' and '.', and no '-' at the start"
            self.wrong(source, f"{_nameless(number)}: name", "This cannot be the name of an index.", hint)
            return None
        url = _url(table.get("url"))
        return url.name if url is not None and url.username is None else None

    # --------------------------------------------------------------------------------------------- the indexes

    def is_on(self, table: _Table) -> bool:
        return self.check(table.get("enabled"), _ENABLED) is not False

    def index(self, name: str, table: _Table) -> Index | None:
        """Return one index, or None if it is invalid."""
        before = len(self.problems)
        url = self.url(name, table)
        provider = self.provider(table, url)
        sink = cast("Sink", self.check(table.get("sink"), _SINK) or "netrc")
        env = self.env(table)
        options = {} if provider is None else self.options(name, table, provider, url)
        self.fits_sink(table, sink, url, options)
        if url is None or provider is None or len(self.problems) > before:
            return None
        request = replace(clouds.request(provider, url, options, env), memory=sink == "memory")
        service = clouds.store_service(provider, url) if sink == "uv-store" else ""
        return Index(name, url.text, url.host, provider, request, sink, service, _files(table))

    def disabled(self, name: str, table: _Table) -> Index:
        """Return a disabled index. If it is incomplete, it has only the values that can be shown, and its secrets."""
        whole = self.index(name, table)
        if whole is not None:
            return whole
        url = self.url(name, table)
        provider = self.provider(table, url) or ""
        secrets = {key: self.check(given, _A_SECRET) for key, given in table.items() if key not in _INDEX}
        request = Request(provider, options=tuple(sorted((key, value) for key, value in secrets.items() if value)))
        text, host = (url.text, url.host) if url is not None else ("", "")
        return Index(name, text, host, provider, request, files=_files(table))

    def url(self, name: str, table: _Table) -> IndexUrl | None:
        """Return the URL for further checks; None if it is missing or cannot be parsed."""
        given = table.get("url")
        if given is None:
            place = self.places[name]
            if "name" not in table or is_index_name(name):  # an invalid name may have been meant for the site's index
                self.bad(place, "It has no url.", f'add url = "https://…/simple/" to {place.where}')
            return None
        url = _url(given.value)
        if url is None:
            self.bad(given, "This is not a URL.", "write the index URL as uv knows it, https://…")
            return None
        if url.username is not None:
            hint = "remove everything up to the @; if a password or token was there, revoke it"
            self.bad(given, "The URL contains a user name or a password.", hint)
        elif not url.plain or not _HOST.fullmatch(url.host):
            hint = "use letters, digits, '-' and '.' only, as in xn--…"
            self.bad(given, "The host is not written as it is sent over the network.", hint)
        if url.scheme == "http" and not is_loopback(url.host):
            self.bad(given, "With http:// the token would be sent unencrypted.", "write https://")
        return url

    def provider(self, table: _Table, url: IndexUrl | None) -> str | None:
        given = table.get("provider")
        if given is None:
            recognized = clouds.recognize(url) if url is not None else None
            if url is not None and recognized is None:
                hint = f'add provider = "…", one of {", ".join(CLOUDS)}'
                self.bad(table["url"], "No provider is known for this URL.", hint)
            return recognized[0] if recognized else None
        if isinstance(given.value, str) and (given.value in CLOUDS or "options" in table):
            return given.value
        close = nearest(given.value, CLOUDS)
        hint = f'did you mean "{close}"?' if close else f"one of {', '.join(CLOUDS)}, or a plug-in with options"
        self.bad(given, "Unknown provider.", hint)
        return None

    def fits_sink(self, table: _Table, sink: Sink, url: IndexUrl | None, options: Mapping[str, Frozen]) -> None:
        if sink == "uv-store" and url is not None and url.scheme == "http" and url.host not in _STORE_LOOPBACK:
            message = "uv's store accepts http:// only for 127.0.0.1 and localhost."
            self.bad(table["sink"], message, 'write sink = "netrc"')
        for key in (key for key in _KEPT_ON_DISK if sink == "memory" and options.get(key)):
            message = f'sink = "memory" keeps no token on disk, and {key} has to.'
            self.bad(table["sink"], message, f'write sink = "netrc", or remove {key}')

    def env(self, table: _Table) -> dict[str, str]:
        given = table.get("env")
        if given is None:
            return {}
        if not isinstance(given.value, dict) or not all(isinstance(text, str) for text in given.value.values()):
            self.bad(given, "Expected a table of texts.", 'write env = { NAME = "value" }')
            return {}
        for name in given.value:
            where = f"{given.where}.{printable(name)}"
            if not is_variable(name):
                self.bad(given, "This cannot be the name of an environment variable.", "use letters, digits and _")
            elif "\0" in str(given.value[name]):
                self.wrong(given.source, where, "An environment variable cannot contain NUL.", "remove it")
            elif _SECRET_VARIABLE.search(name) and not name.endswith("_FILE"):
                hint = "remove it; set it for the daemon, or let the provider's own files name it"
                self.wrong(given.source, where, "Secrets cannot be written here directly.", hint)
        base = Base(self.home, given.source.directory)
        return {name: base.expand(str(text)) for name, text in given.value.items()}

    def options(self, name: str, table: _Table, provider: str, url: IndexUrl | None) -> dict[str, Frozen]:
        cloud = CLOUDS.get(provider)
        if cloud is None:
            return self.plugin_options(table)
        chosen: dict[str, Frozen] = {**clouds.options_in_url(provider, url)} if url is not None else {}
        if "options" in table:
            message = f"{provider} is a built-in provider, which has no options table. A plug-in cannot replace it."
            self.bad(table["options"], message, "write its keys beside url; a plug-in needs another name")
        for key, given in table.items():
            if key in _INDEX:
                continue
            option = cloud.options.get(key)
            if option is None:
                self.unknown_option(given, key, provider, cloud.options)
                continue
            value = self.check(given, option)
            if value is not None and (value != option.default or option.unless in table):
                chosen[key] = value
        for key, option in cloud.options.items():
            if option.required and key not in chosen and key not in table and not (option.from_url and url is None):
                why = ", which is not in this URL" if option.from_url else ""
                self.bad(self.places[name], f"The provider {provider} needs {key}{why}.", f"add {key} = …")
        if cloud.is_undecided(table):
            ways = ", or ".join(" and ".join(map(cloud.spelled, way.needs)) for way in cloud.sign_ins)
            message = f"The provider {provider} needs exactly one way to sign in."
            self.bad(self.places[name], message, f"write {ways}")
        elif (conflict := cloud.conflict(chosen)) is not None:
            self.bad(table.get(conflict.key, self.places[name]), conflict.message, conflict.hint)
        return chosen

    def unknown_option(self, given: _Value, key: str, provider: str, known: Collection[str]) -> None:
        self.bad(given, f"Unknown key for {provider}.", _did_you_mean(key, known, _INDEX))

    def plugin_options(self, table: _Table) -> dict[str, Frozen]:
        for key, given in table.items():
            if key not in _INDEX:
                self.unknown_option(given, key, "a plug-in", ())
        given = table["options"]
        if not isinstance(given.value, dict):
            self.bad(given, "It is not a table.", "write options = { … }")
            return {}
        base = Base(self.home, given.source.directory)
        return {key: _frozen(value, base) for key, value in given.value.items()}

    # ---------------------------------------------------------------------------------------------- the daemon

    def settings(self, file: str, daemon: _Table, indexes: tuple[Index, ...], environ: Env) -> Settings:
        chosen = {key: self.check(daemon.get(key), option) for key, option in _DAEMON.items() if key != "ca-bundle"}
        base = Base(self.home, self.home)
        netrc = str(chosen["netrc"] or base.expand(environ.get("NETRC", "") or "~/.netrc"))
        return Settings(
            file=file,
            indexes=indexes,
            netrc=os.path.normpath(os.path.join(self.home, netrc)),
            fetch_timeout=float(cast("int", chosen["fetch-timeout"] or 60)),
            max_workers=cast("int", chosen["max-workers"] or 4),
            ca_bundle=self.ca_bundle(daemon.get("ca-bundle")),
            log_level=cast("str", chosen["log-level"] or "info"),
            notify=bool(chosen["notify"]),
            quiet_hours=cast("str | None", chosen["quiet-hours"]),
            metrics_file=cast("str | None", chosen["metrics-file"]),
            on_delivered=cast("tuple[str, ...]", chosen["on-delivered"] or ()),
        )

    def ca_bundle(self, given: _Value | None) -> str | None:
        if given is not None and given.value == "system":
            try:
                return self.system_ca()
            except UvtokendError as error:
                self.bad(given, error.message, error.hint or "write the path of the file")
                return None
        path = cast("str | None", self.check(given, _DAEMON["ca-bundle"]))
        why = self.unreadable(path) if path is not None else None
        if given is not None and why is not None:
            self.bad(given, f"{path} cannot be read: {why}.", 'write the path of an existing file, or "system"')
        return path


def _frozen(value: Json, base: Base) -> Frozen:
    if isinstance(value, dict):
        return tuple((key, _frozen(item, base)) for key, item in sorted(value.items()))
    if isinstance(value, list):
        return tuple(_frozen(item, base) for item in value)
    if isinstance(value, str):
        return base.expand(value)
    return value if isinstance(value, bool | int | float | None) else str(value)


def _did_you_mean(key: str, known: Collection[str], more: Collection[str] = ()) -> str:
    close = nearest(key, (*known, *more))
    return f"did you mean {close}?" if close else f"known keys: {', '.join(sorted(known or more))}"


def _nameless(number: int) -> str:
    return f"[[index]] {number}"


def _files(table: _Table) -> tuple[str, ...]:
    return tuple(dict.fromkeys(value.source.file for value in table.values()))


def _url(text: object) -> IndexUrl | None:
    """Return the URL of an index; None for a text that is not one."""
    if not isinstance(text, str) or not text.isprintable() or " " in text:
        return None
    try:
        url = IndexUrl.parse(text)
    except ValueError:
        return None
    return url if url.scheme in {"https", "http"} and url.host else None

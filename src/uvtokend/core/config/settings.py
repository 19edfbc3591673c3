"""TOML -> Settings, or every problem at once.

The files lie one over the other: the site's first, then the user's. The later one wins key by key in ``[daemon]`` and,
where both name the same index, in its table. No message ever repeats a value that may be a secret.
"""

from __future__ import annotations

import ipaddress
import math
import os.path
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from difflib import get_close_matches
from typing import TypeAlias
from urllib.parse import SplitResult, urlsplit

from uvtokend.core import indexes
from uvtokend.core.indexes import PROVIDERS, Option, hostname
from uvtokend.core.model import Env, Frozen, Index, Json, Problem, Settings, Sink
from uvtokend.core.state import zulu
from uvtokend.errors import ConfigError

#: A configuration is written by hand.
LIMIT = 1 << 20

_DAEMON = (
    "netrc",
    "fetch-timeout",
    "max-workers",
    "ca-bundle",
    "log-level",
    "notify",
    "quiet-hours",
    "metrics-file",
)
_INDEX = ("url", "name", "provider", "sink", "enabled", "env", "options")
_LEVELS = ("debug", "info", "warning", "error")
_LATER = "is not part of this version and has no effect"
_SECRETS = ("env", "file", "command", "keyring")
_ADVICE = 'write { env = "VAR" }, { file = "~/x" }, { command = ["prog"] } or { keyring = { … } } instead'
#: Nested deeper than any configuration is: a plug-in's options are walked by recursion.
_DEPTH = 32
#: Index names as uv allows them (uv crates/uv-distribution-types/src/index_name.rs), but none that reads as an option.
_NAME = re.compile(r"[A-Za-z0-9._][A-Za-z0-9._-]*")
#: What uv's URL parser (WHATWG) and Python's read alike: no IDN, no percent signs, no backslash, no zone.
_HOST = re.compile(r"[a-z0-9._-]+|\[[0-9a-f:.]+\]")
_ACCOUNT = re.compile(r"[0-9]{12}")
#: uv crates/uv-auth/src/service.rs, `check_scheme`.
_STORE_LOOPBACK = {"127.0.0.1", "localhost"}
_SECRET_VARIABLE = re.compile(r"SECRET|TOKEN|PASSWORD|KEY", re.IGNORECASE)
_DURATION = re.compile(r"(?:(\d{1,6})d)?(?:(\d{1,6})h)?(?:(\d{1,6})m)?(?:(\d{1,6})s)?")
_QUIET = re.compile(r"([01]\d|2[0-3]):[0-5]\d-([01]\d|2[0-3]):[0-5]\d")


@dataclass(frozen=True, slots=True)
class Source:
    """One configuration file.

    Args:
        file: As a person would name it.
        text: Its bytes.
        folder: Where its relative paths begin, absolute.
    """

    file: str
    text: bytes
    folder: str


@dataclass(frozen=True, slots=True)
class _Value:
    """A value with the place where it stands."""

    value: Json
    source: Source
    where: str


_Table: TypeAlias = dict[str, _Value]


def parse(sources: Sequence[Source], home: str, environ: Env, system_ca: str | None = None) -> Settings:
    """Return the settings that the files describe.

    Args:
        sources: The site's file first, then the user's; those that exist.
        home: What ``~`` stands for, absolute.
        environ: For ``NETRC``, absolute or with a ``~``.
        system_ca: The platform's own CA bundle, for ``ca-bundle = "system"``.

    Raises:
        ConfigError: With every problem in them.
    """
    reader = _Reader(home, system_ca)
    daemon: _Table = {}
    tables: dict[str, _Table] = {}
    for source in sources:
        document = reader.document(source)
        daemon.update(reader.table(document.get("daemon"), source, "daemon", _DAEMON))
        reader.merge(tables, document.get("index"), source)
    whole = [index for name, table in tables.items() if (index := reader.index(name, table)) is not None]
    found = [index for index in whole if _is_on(tables[index.name])]
    reader.one_credential_a_host(found, tables)
    file = sources[-1].file if sources else ""
    settings = reader.settings(file, daemon, tuple(found), environ)
    if reader.problems:
        raise ConfigError(reader.problems)
    return replace(settings, disabled=tuple(index for index in whole if index not in found))


def seconds(text: object) -> int | None:
    """Return the seconds of ``90``, ``"20m"`` or ``"1h30m"``; None if it is no duration."""
    if isinstance(text, int) and not isinstance(text, bool):
        return text if text >= 0 else None
    found = _DURATION.fullmatch(text) if isinstance(text, str) and text else None
    if found is None:
        return None
    return sum(int(part or 0) * unit for part, unit in zip(found.groups(), (86400, 3600, 60, 1), strict=True))


def is_loopback(host: str) -> bool:
    """Tell whether a host is this machine itself."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


@dataclass(slots=True)
class _Reader:
    home: str
    system_ca: str | None
    places: _Table = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)

    def wrong(self, source: Source, where: str, message: str, hint: str) -> None:
        self.problems.append(Problem(source.file, where, message, hint))

    def bad(self, value: _Value, message: str, hint: str) -> None:
        self.wrong(value.source, value.where, message, hint)

    # ------------------------------------------------------------------------------------------------ the files

    def document(self, source: Source) -> dict[str, Json]:
        import tomllib  # noqa: PLC0415 - the daemon reads its configuration once and then carries this along

        if len(source.text) > LIMIT:
            self.wrong(source, "the file", "It is larger than 1 MiB.", "name the right file")
            return {}
        try:
            document: dict[str, Json] = tomllib.loads(source.text.decode())
        except UnicodeDecodeError:
            self.wrong(source, "the file", "It is not UTF-8 text.", "save it as UTF-8")
            return {}
        except (ValueError, RecursionError) as error:  # ValueError itself for a number of thousands of digits
            place = re.search(r"at line (\d+)", str(error))
            where = f"line {place[1]}" if place else "the end"
            self.wrong(source, where, "It is not TOML.", "see https://toml.io for what a line may look like")
            return {}
        if (odd := _odd(document)) is not None:
            self.wrong(source, "the file", odd, "take it out")
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
            close = get_close_matches(key, known, 1, 0.5)
            hint = f"did you mean {close[0]}?" if close else f"known here: {', '.join(sorted(known))}"
            self.wrong(source, f"{prefix}{_printable(key)}", "There is no such key.", hint)

    def merge(self, tables: dict[str, _Table], raw: Json, source: Source) -> None:
        """Lay the indexes of a file over those of the files beneath it, by name."""
        if raw is None:
            return
        if not isinstance(raw, list):
            self.wrong(source, "index", "It is not a list of tables.", "write [[index]] and its keys below it")
            return
        here: dict[str, str] = {}
        for number, item in enumerate(raw):
            where = f"index[{number}]"
            if not isinstance(item, dict):
                self.wrong(source, where, "It is not a table.", "write [[index]] and its keys below it")
                continue
            table = {key: _Value(value, source, f"{where}.{key}") for key, value in item.items()}
            name = self.name(table, source, where)
            if name in here:
                hint = f'give one of them another name, say name = "{name}-2"'
                self.wrong(source, where, f"It is called {name!r}, and so is {here[name]}.", hint)
                name = _place(source, where)
            here[name] = where
            self.places[name] = _Value(None, source, where)
            tables[name] = {**tables.get(name, {}), **table}

    def name(self, table: _Table, source: Source, where: str) -> str:
        """Return an index's name, or for one without a good name its place, so that the rest of it is checked too."""
        name, url = table.get("name"), table.get("url")
        if name is not None:
            if isinstance(name.value, str) and _NAME.fullmatch(name.value):
                return name.value
            self.bad(name, "It is no name.", "letters, digits, '-', '_' and '.', and no '-' at the start")
            return _place(source, where)
        text = url.value if url is not None else None
        good = isinstance(text, str) and (parts := _split(text)) is not None and "@" not in parts.netloc
        return indexes.default_name(text) if good and isinstance(text, str) else _place(source, where)

    # --------------------------------------------------------------------------------------------- the indexes

    def index(self, name: str, table: _Table) -> Index | None:
        """Return one index, switched off or not, or None if it is wrong."""
        before = len(self.problems)
        self.boolean(table, "enabled", True)
        url = self.url(name, table)
        provider = self.provider(table, url)
        sink = self.sink(table, url)
        env = self.env(table)
        options = {} if provider is None else self.options(name, table, provider, url)
        if url is None or provider is None or len(self.problems) > before:
            return None
        request = indexes.request(provider, url, options, env)
        service = indexes.store_service(provider, url) if sink == "uv-store" else ""
        files = tuple(dict.fromkeys(value.source.file for value in table.values()))
        return Index(name, url, hostname(urlsplit(url)), provider, request, sink, service, files)

    def url(self, name: str, table: _Table) -> str | None:
        """Return the URL, for whatever else can be checked with it; None if there is none that can be read."""
        found = table.get("url")
        if found is None:
            if "name" not in table:
                self.bad(self.places[name], "It has no url.", 'add url = "https://…/simple/"')
            elif _NAME.fullmatch(name):  # a wrong name may have been meant for an index of the site's file
                self.bad(self.places[name], f"The index {name!r} has no url.", 'add url = "…"')
            return None
        text = found.value
        parts = _split(text) if isinstance(text, str) else None
        if parts is None or not isinstance(text, str) or not text.isprintable() or " " in text:
            self.bad(found, "It is not a URL.", "write the index URL as uv knows it, https://…")
            return None
        if "@" in parts.netloc:
            hint = "take everything up to the @ out of it, and change the credential if it was one"
            self.bad(found, "A user or a password stands in the URL.", hint)
        elif not parts.netloc.isascii() or not _HOST.fullmatch(hostname(parts)):
            hint = "letters, digits, '-' and '.' only, as in xn--…"
            self.bad(found, "Its host is not written as it goes over the wire.", hint)
        if parts.scheme == "http" and not is_loopback(hostname(parts)):
            self.bad(found, "A token would go over the wire in clear.", "write https://")
        return text

    def provider(self, table: _Table, url: str | None) -> str | None:
        found = table.get("provider")
        if found is None:
            recognised = indexes.recognise(url) if url is not None else None
            if url is not None and recognised is None:
                hint = f'add provider = "…", one of {", ".join(PROVIDERS)}'
                self.bad(table["url"], "No provider is known for this URL.", hint)
            return recognised[0] if recognised else None
        if isinstance(found.value, str) and (found.value in PROVIDERS or "options" in table):
            return found.value
        close = get_close_matches(found.value, PROVIDERS, 1, 0.5) if isinstance(found.value, str) else []
        hint = f"did you mean {close[0]}?" if close else f"one of {', '.join(PROVIDERS)}, or a plug-in with options"
        self.bad(found, "There is no such provider.", hint)
        return None

    def sink(self, table: _Table, url: str | None) -> Sink:
        found = table.get("sink")
        if found is None or found.value == "netrc":
            return "netrc"
        if found.value != "uv-store":
            self.bad(found, "There is no such sink.", 'write sink = "netrc" or sink = "uv-store"')
        elif url is not None and urlsplit(url).scheme == "http" and urlsplit(url).hostname not in _STORE_LOOPBACK:
            self.bad(found, "uv's store takes http:// for 127.0.0.1 and localhost only.", 'write sink = "netrc"')
        return "uv-store"

    def env(self, table: _Table) -> dict[str, str]:
        found = table.get("env")
        if found is None:
            return {}
        if not isinstance(found.value, dict) or not all(isinstance(text, str) for text in found.value.values()):
            self.bad(found, "It is not a table of texts.", 'write env = { NAME = "value" }')
            return {}
        for name in found.value:
            if not _is_variable(name):
                self.bad(found, "A name of a variable is empty or odd.", "letters, digits and _")
            elif "\0" in str(found.value[name]):
                self.wrong(found.source, f"{found.where}.{name}", "No variable can hold a NUL.", "take it out")
            elif _SECRET_VARIABLE.search(name) and not name.endswith("_FILE"):
                hint = "take it out; set it for the daemon, or let the provider's own files name it"
                self.wrong(found.source, f"{found.where}.{name}", "A secret would stand in this file.", hint)
        return {name: self.expand(str(text)) for name, text in found.value.items()}

    def options(self, name: str, table: _Table, provider: str, url: str | None) -> dict[str, Frozen]:
        known = PROVIDERS.get(provider)
        if known is None:
            return self.plugin_options(table)
        told: dict[str, Frozen] = {**indexes.told_by_url(provider, url)} if url is not None else {}
        if "options" in table:
            message = f"{provider} is uvtokend's own provider, which takes no options table, and no plug-in's place."
            self.bad(table["options"], message, "write its keys beside url; a plug-in has to have another name")
        for key, found in table.items():
            if key in _INDEX:
                continue
            option = known.options.get(key)
            if option is None:
                self.unknown_option(found, key, provider, known.options)
                continue
            value = self.option(found, option)
            if value is not None and (value != option.default or option.unless in table):
                told[key] = value
        for key, option in known.options.items():
            if option.required and key not in told and key not in table and not (option.told and url is None):
                why = ", which this URL does not tell" if option.told else ""
                self.bad(self.places[name], f"The provider {provider} needs {key}{why}.", f"add {key} = …")
        if known.undecided(table):
            ways = ", or ".join(" and ".join(way.needs) for way in known.ways)
            message = f"The provider {provider} needs exactly one way to log in."
            self.bad(self.places[name], message, f"write {ways}")
        return told

    def unknown_option(self, found: _Value, key: str, provider: str, known: Collection[str]) -> None:
        close = get_close_matches(key, [*known, *_INDEX], 1, 0.5)
        hint = f"did you mean {close[0]}?" if close else f"known here: {', '.join(sorted(known))}"
        where = found.where.rpartition(".")[0] + f".{_printable(key)}"
        self.wrong(found.source, where, f"There is no such key for {provider}.", hint)

    def plugin_options(self, table: _Table) -> dict[str, Frozen]:
        for key, found in table.items():
            if key not in _INDEX:
                self.unknown_option(found, key, "a plug-in", _INDEX)
        found = table["options"]
        if not isinstance(found.value, dict):
            self.bad(found, "It is not a table.", "write options = { … }")
            return {}
        return {key: self.freeze(value) for key, value in found.value.items()}

    def freeze(self, value: Json) -> Frozen:
        if isinstance(value, dict):
            return tuple((key, self.freeze(item)) for key, item in sorted(value.items()))
        if isinstance(value, list):
            return tuple(self.freeze(item) for item in value)
        if isinstance(value, str):
            return self.expand(value)
        return value if isinstance(value, bool | int | float | None) else str(value)

    def option(self, found: _Value, option: Option) -> Frozen:
        """Return a checked and frozen option, or None after naming what is wrong with it."""
        match option.kind:
            case "text":
                return self.text(found)
            case "login":
                return self.login(found)
            case "login-or-secret":
                return self.secret(found) if isinstance(found.value, dict) else self.login(found)
            case "account":
                return self.account(found)
            case "path":
                path = self.text(found)
                return None if path is None else self.path(path, found)
            case "choice":
                if found.value in option.choices:
                    return str(found.value)
                self.bad(found, "There is no such value.", f"one of {', '.join(option.choices)}")
                return None
            case "duration":
                return self.option_duration(found, option)
            case "time":
                return self.time(found)
            case "command":
                return self.command(found, found.value)
        return self.secret(found)

    def text(self, found: _Value) -> str | None:
        if isinstance(found.value, str) and found.value and found.value.isprintable():
            return found.value
        self.bad(found, "It is not a text of one line.", 'write it in quotes: "…"')
        return None

    def login(self, found: _Value) -> str | None:
        text = self.text(found)
        if text is None or ":" not in text:
            return text
        self.bad(found, "A user name with a colon cannot be told from its password.", "write the name alone")
        return None

    def account(self, found: _Value) -> str | None:
        """Return an AWS account id; as a number it may have lost its leading zeros."""
        number = isinstance(found.value, int) and not isinstance(found.value, bool)
        text = f"{found.value:012d}" if number else found.value
        if isinstance(text, str) and _ACCOUNT.fullmatch(text):
            return text
        self.bad(found, "It is no AWS account id.", 'write its 12 digits in quotes: "123456789012"')
        return None

    def option_duration(self, found: _Value, option: Option) -> int | None:
        value = seconds(found.value)
        if value is not None and (option.low <= value <= option.high or (option.zero and value == 0)):
            return value
        least = "0 or " if option.zero else ""
        self.bad(found, "It is no duration in range.", f'{least}{option.low} to {option.high} s, say "1h"')
        return None

    def time(self, found: _Value) -> str | None:
        value = found.value
        try:
            time = value if isinstance(value, datetime) else datetime.fromisoformat(str(value))
            if time.tzinfo is not None:
                return zulu(time)
        except (ValueError, OverflowError):  # no time at all, or one before year 1 or after 9999 in UTC
            pass
        self.bad(found, "It is no time with its zone.", "write it as 2026-12-31T00:00:00Z")
        return None

    def command(self, found: _Value, value: Json) -> Frozen:
        if isinstance(value, list) and value and all(isinstance(word, str) and "\0" not in word for word in value):
            program, *rest = (str(word) for word in value)
            if "/" in program or program.startswith("~"):
                program = self.path(program, found) or ""
            if program:
                return (program, *(self.expand(word) for word in rest))
        self.bad(found, "It is not a list of texts.", 'write command = ["prog", "arg"]')
        return None

    def secret(self, found: _Value) -> Frozen:
        value = found.value
        if not isinstance(value, dict):
            self.bad(found, "A secret stands in this file, or something that is no reference to one.", _ADVICE)
            return None
        if len(value) != 1 or next(iter(value)) not in _SECRETS:
            self.bad(found, "It is no reference to a secret.", _ADVICE)
            return None
        ((how, what),) = value.items()
        match how, what:
            case "command", _:
                frozen = self.command(found, what)
                return None if frozen is None else (("command", frozen),)
            case "file", str() if what and what.isprintable():
                path = self.path(what, found)
                return None if path is None else (("file", path),)
            case "env", str() if _is_variable(what):
                return (("env", what),)
            case "keyring", {"service": str(service), "username": str(username)} if len(what) == 2:  # type: ignore[arg-type]
                return (("keyring", (("service", service), ("username", username))),)
        self.bad(found, "It is no reference to a secret.", _ADVICE)
        return None

    def one_credential_a_host(self, found: Sequence[Index], tables: Mapping[str, _Table]) -> None:
        """A netrc knows hosts only, uv's store URL prefixes; and uv asks the store only where no netrc has the host."""
        hosts: dict[str, Index] = {}
        places: dict[str, Index] = {}
        for index in found:
            url = tables[index.name]["url"]
            other = hosts.setdefault(index.host, index)
            same = places.setdefault(index.target, index)
            if other.sink != index.sink:
                message = f"{index.host} has the sink {other.sink!r} for {other.name!r}, which would shadow the other."
                self.bad(url, message, 'write sink = "uv-store" for all indexes on that host, or for none')
            elif same.request == index.request:
                continue
            elif index.sink == "netrc":
                message = f"{index.host} needs another credential for {same.name!r}, and a netrc knows hosts only."
                hint = 'write sink = "uv-store" for all indexes on that host, or give them the same credential'
                self.bad(url, message, hint)
            else:
                message = f"{index.target} needs another credential for {same.name!r}, and uv cannot tell them apart."
                self.bad(url, message, "give them the same credential")

    # ---------------------------------------------------------------------------------------------- the daemon

    def settings(self, file: str, daemon: _Table, found: tuple[Index, ...], environ: Env) -> Settings:
        netrc = self.optional_path(daemon, "netrc") or self.expand(environ.get("NETRC", "") or "~/.netrc")
        netrc = os.path.normpath(os.path.join(self.home, netrc))
        self.later(daemon)
        level = daemon.get("log-level")
        if level is not None and level.value not in _LEVELS:
            self.bad(level, "There is no such level.", f"one of {', '.join(_LEVELS)}")
        return Settings(
            file=file,
            indexes=found,
            netrc=netrc,
            fetch_timeout=float(self.daemon_duration(daemon, "fetch-timeout", 60, 1, 600)),
            max_workers=self.integer(daemon, "max-workers", 4, 1, 32),
            ca_bundle=self.ca_bundle(daemon),
            log_level=str(level.value) if level is not None else "info",
            notices=tuple(self.notices),
        )

    def later(self, daemon: _Table) -> None:
        """Check what a later version will honour, and say so where it would matter."""
        if self.boolean(daemon, "notify", False):
            self.notices.append(f"daemon.notify {_LATER}.")
        quiet = daemon.get("quiet-hours")
        if quiet is not None and (not isinstance(quiet.value, str) or not _QUIET.fullmatch(quiet.value)):
            self.bad(quiet, "It is no span of hours.", 'write it as "22:00-07:00"')
        elif quiet is not None:
            self.notices.append(f"daemon.quiet-hours {_LATER}.")
        if self.optional_path(daemon, "metrics-file") is not None:
            self.notices.append(f"daemon.metrics-file {_LATER}.")

    def ca_bundle(self, daemon: _Table) -> str | None:
        found = daemon.get("ca-bundle")
        if found is None or found.value != "system":
            return self.optional_path(daemon, "ca-bundle")
        if self.system_ca is None:
            self.bad(found, "This system has no CA bundle in a known place.", "name the file")
        return self.system_ca

    def boolean(self, table: _Table, key: str, default: bool) -> bool:
        found = table.get(key)
        if found is None or isinstance(found.value, bool):
            return default if found is None else bool(found.value)
        self.bad(found, "It is neither true nor false.", f"write {key} = true or {key} = false")
        return default

    def integer(self, table: _Table, key: str, default: int, low: int, high: int) -> int:
        found = table.get(key)
        if found is None:
            return default
        if isinstance(found.value, int) and not isinstance(found.value, bool) and low <= found.value <= high:
            return found.value
        self.bad(found, "It is no number in range.", f"{low} to {high}")
        return default

    def daemon_duration(self, table: _Table, key: str, default: int, low: int, high: int) -> int:
        found = table.get(key)
        value = default if found is None else self.option_duration(found, Option("duration", low=low, high=high))
        return default if value is None else value

    def optional_path(self, table: _Table, key: str) -> str | None:
        found = table.get(key)
        text = None if found is None else self.text(found)
        return None if found is None or text is None else self.path(text, found)

    def path(self, text: str, found: _Value) -> str | None:
        """Return an absolute path, or None for ``~somebody``: whose home that is would have to be looked up."""
        path = self.expand(text)
        if path.startswith("~"):
            self.bad(found, "The home of another user is not looked up.", "write the whole path")
            return None
        return os.path.normpath(os.path.join(found.source.folder, path))

    def expand(self, text: str) -> str:
        """Put the home folder in the place of ``~``; in containers it is often ``/``."""
        if text != "~" and not text.startswith("~/"):
            return text
        return self.home.rstrip("/") + text[1:] or "/"


def _odd(document: Json) -> str | None:
    """Say what tomllib reads although TOML has no such number, or JSON none, or no person would write it."""
    todo: list[tuple[Json, int]] = [(document, 0)]
    while todo:
        value, depth = todo.pop()
        if depth > _DEPTH:
            return "A value is nested too deep."
        if isinstance(value, dict | list):
            todo += [(item, depth + 1) for item in (value.values() if isinstance(value, dict) else value)]
        elif isinstance(value, float) and not math.isfinite(value):
            return "A number in it is not finite."
        elif isinstance(value, int) and not -(1 << 63) <= value < 1 << 63:
            return "A number in it has more than 64 bits."
    return None


def _place(source: Source, where: str) -> str:
    """Return what stands for the name of an index that has no good one; no name has a space in it."""
    return f"{where} of {source.file}"


def _is_on(table: _Table) -> bool:
    return "enabled" not in table or table["enabled"].value is not False


def _is_variable(name: str) -> bool:
    """Tell whether the environment can hold a variable of this name."""
    return name != "" and name.isprintable() and "=" not in name


def _split(text: str) -> SplitResult | None:
    try:
        parts = urlsplit(text)
        good = parts.scheme in {"https", "http"} and parts.hostname and (parts.port or 1)
    except ValueError:
        return None
    return parts if good else None


def _printable(key: str) -> str:
    return "".join(char if char.isprintable() else "?" for char in key[:60])

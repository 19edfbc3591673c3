"""The kinds of values in ``config.toml``. Each kind of option is defined here, and nowhere else.

A check returns the frozen value for requests and settings, with absolute paths. A value may be a secret, so a message
repeats it only if it is close to a known one.
"""

from __future__ import annotations

import os.path
import re
from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import datetime

from uvtokend.core.model import Frozen, Json
from uvtokend.core.rfc3339 import zulu

_SECRETS = 'write { env = "VAR" }, { file = "~/x" }, { command = ["prog"] } or { keyring = { … } } instead'
_REFERENCES = ("env", "file", "command", "keyring")
_ACCOUNT = re.compile(r"[0-9]{12}")
_DURATION = re.compile(r"(?:(\d{1,6})d)?(?:(\d{1,6})h)?(?:(\d{1,6})m)?(?:(\d{1,6})s)?")
_UNITS = ((86400, "d"), (3600, "h"), (60, "m"), (1, "s"))
_HOURS = re.compile(r"([01]\d|2[0-3]):[0-5]\d-([01]\d|2[0-3]):[0-5]\d")


class InvalidValueError(Exception):
    """A value cannot be used.

    Args:
        message: What is wrong with the value, in a sentence.
        hint: What to write instead.
    """

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


@dataclass(frozen=True, slots=True)
class Base:
    """The directories to which paths are relative.

    Args:
        home: The absolute path that replaces ``~``.
        directory: The absolute path of the directory of the configuration file.
    """

    home: str
    directory: str

    def expand(self, text: str) -> str:
        """Return a text with ``~`` replaced by the home directory, which is often ``/`` in a container."""
        if text != "~" and not text.startswith("~/"):
            return text
        return self.home.rstrip("/") + text[1:] or "/"

    def path(self, text: str) -> str:
        """Return an absolute path.

        Raises:
            InvalidValueError: The path begins with ``~user``, the home directory of another user.
        """
        path = self.expand(text)
        if path.startswith("~"):
            raise InvalidValueError("The home directory of another user is not looked up.", "write the whole path")
        return os.path.normpath(os.path.join(self.directory, path))


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of value.

    Args:
        name: The name of the kind.
        check: A function that returns the frozen value, or raises InvalidValueError.
        example: A value for a template, which the user has to replace.
        is_text: Whether the value is text even if it looks like a number or a boolean.
        may_be_secret: Whether the value may be a reference to a secret.
    """

    name: str
    check: Callable[[Json, Option, Base], Frozen]
    example: Json = None
    is_text: bool = False
    may_be_secret: bool = False


@dataclass(frozen=True, slots=True)
class Option:
    """One key and what its value may be.

    Args:
        kind: The kind of its value.
        choices: The values of a choice; the first is the default.
        required: Whether the file or the URL must contain it.
        from_url: Whether the index URL may contain it.
        default: The default value. A request never contains it, so that writing the default explicitly does not make a
            different request.
        unless: Another option that changes the default if it is set.
        low: The least number, or the least duration in seconds.
        high: The greatest number, or the greatest duration in seconds.
        zero: Whether 0 is allowed although it is less than `low`.
    """

    kind: Kind
    choices: tuple[str, ...] = ()
    required: bool = False
    from_url: bool = False
    default: str | None = None
    unless: str = ""
    low: int = 0
    high: int = 0
    zero: bool = False

    @property
    def example(self) -> Json:
        """A value for a template, which the user may have to replace."""
        return self.choices[0] if self.choices else self.kind.example

    def check(self, value: Json, base: Base) -> Frozen:
        """Return the frozen value.

        Raises:
            InvalidValueError: The value is invalid.
        """
        return self.kind.check(value, self, base)


# ---------------------------------------------------------------------------------------------------------- checks


def _text(value: Json, _: Option, __: Base) -> str:
    if isinstance(value, str) and value and value.isprintable():
        return value
    raise InvalidValueError("Expected a text of one line.", 'write it in quotes: "…"')


def _login(value: Json, option: Option, base: Base) -> str:
    text = _text(value, option, base)
    if ":" in text:
        raise InvalidValueError("A user name cannot contain a colon.", "write the name alone")
    return text


def _account(value: Json, _: Option, __: Base) -> str:
    """Check an AWS account ID; one written as a number may have lost its leading zeros."""
    is_number = isinstance(value, int) and not isinstance(value, bool)
    text = f"{value:012d}" if is_number else value
    if isinstance(text, str) and _ACCOUNT.fullmatch(text):
        return text
    raise InvalidValueError("Expected an AWS account ID.", 'write its 12 digits in quotes: "123456789012"')


def _choice(value: Json, option: Option, _: Base) -> str:
    if value in option.choices:
        return str(value)
    close = nearest(value, option.choices)
    message = f"Unknown value {value!r}." if close else "Unknown value."
    raise InvalidValueError(message, f'did you mean "{close}"?' if close else f"one of {', '.join(option.choices)}")


def _duration(value: Json, option: Option, _: Base) -> int:
    duration = seconds(value)
    if duration is not None and (option.low <= duration <= option.high or (option.zero and duration == 0)):
        return duration
    zero = "0 or " if option.zero else ""
    bounds = f'{zero}a duration from "{_spelled(option.low)}" to "{_spelled(option.high)}"'
    raise InvalidValueError("Expected a duration within its range.", f"write {bounds}")


def _integer(value: Json, option: Option, _: Base) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and option.low <= value <= option.high:
        return value
    raise InvalidValueError("Expected a number within its range.", f"write {option.low} to {option.high}")


def _boolean(value: Json, _: Option, __: Base) -> bool:
    if isinstance(value, bool):
        return value
    raise InvalidValueError("Expected true or false.", "write true or false, without quotes")


def _hours(value: Json, _: Option, __: Base) -> str:
    if isinstance(value, str) and _HOURS.fullmatch(value):
        return value
    raise InvalidValueError("Expected two times of day.", 'write them as "22:00-07:00"')


def _time(value: Json, _: Option, __: Base) -> str | None:
    try:
        time = value if isinstance(value, datetime) else datetime.fromisoformat(str(value))
        if time.tzinfo is not None:
            return zulu(time)
    except (ValueError, OverflowError):  # not a time, or one before year 1 or after 9999 in UTC
        pass
    raise InvalidValueError("Expected a time with its time zone.", "write it as 2026-12-31T00:00:00Z")


def _path(value: Json, option: Option, base: Base) -> str:
    return base.path(_text(value, option, base))


def _command(value: Json, _: Option, base: Base) -> tuple[str, ...]:
    if isinstance(value, list) and value and all(isinstance(word, str) and "\0" not in word for word in value):
        program, *rest = (str(word) for word in value)
        if "/" in program or program.startswith("~"):
            program = base.path(program)
        if program:
            return (program, *(base.expand(word) for word in rest))
    raise InvalidValueError("Expected a program and its arguments.", 'write a list of texts: ["prog", "arg"]')


def _secret(value: Json, option: Option, base: Base) -> Frozen:
    if not isinstance(value, dict):
        raise InvalidValueError("Secrets cannot be written here directly.", _SECRETS)
    if len(value) == 1 and next(iter(value)) in _REFERENCES:
        ((how, what),) = value.items()
        match how, what:
            case "command", _:
                return (("command", _command(what, option, base)),)
            case "file", str() if what and what.isprintable():
                return (("file", base.path(what)),)
            case "env", str() if is_variable(what):
                return (("env", what),)
            case "keyring", {"service": str(service), "username": str(username)} if len(what) == 2:  # type: ignore[arg-type]
                return (("keyring", (("service", service), ("username", username))),)
    raise InvalidValueError("Expected a reference to a secret.", _SECRETS)


def _login_or_secret(value: Json, option: Option, base: Base) -> Frozen:
    return _secret(value, option, base) if isinstance(value, dict) else _login(value, option, base)


TEXT = Kind("text", _text, "NAME", is_text=True)
LOGIN = Kind("login", _login, "YOU", is_text=True)
LOGIN_OR_SECRET = Kind("login or secret", _login_or_secret, "YOU", may_be_secret=True)
ACCOUNT = Kind("AWS account ID", _account, is_text=True)
SECRET = Kind("secret", _secret, {"file": "~/FILE"}, may_be_secret=True)
CHOICE = Kind("choice", _choice, is_text=True)
DURATION = Kind("duration", _duration)
INTEGER = Kind("number", _integer)
BOOLEAN = Kind("truth value", _boolean)
HOURS = Kind("hours of the day", _hours, is_text=True)
TIME = Kind("time", _time)
PATH = Kind("path", _path, is_text=True)
COMMAND = Kind("command", _command, ["PROGRAM"])


# ------------------------------------------------------------------------------------------------------- small parts


def seconds(text: object) -> int | None:
    """Return the seconds of ``90``, ``"20m"`` or ``"1h30m"``; None if it is not a duration."""
    if isinstance(text, int) and not isinstance(text, bool):
        return text if text >= 0 else None
    match = _DURATION.fullmatch(text) if isinstance(text, str) and text else None
    if match is None:
        return None
    return sum(int(part or 0) * size for part, (size, _) in zip(match.groups(), _UNITS, strict=True))


def _spelled(duration: int) -> str:
    """Return seconds in the largest unit that divides them."""
    size, unit = next((size, unit) for size, unit in _UNITS if duration % size == 0)
    return f"{duration // size}{unit}"


def nearest(value: object, known: Collection[str]) -> str | None:
    """Return the known word that is closest to a value, or None."""
    if not isinstance(value, str):
        return None
    from difflib import get_close_matches  # noqa: PLC0415 - only for a mistake; daemon and workers would hold it

    close = get_close_matches(value, known, 1, 0.5)
    return close[0] if close else None


def is_variable(name: str) -> bool:
    """Return whether an environment variable can have this name."""
    return name != "" and name.isprintable() and "=" not in name


def is_index_name(name: str) -> bool:
    """Return whether an index can have this name: uv allows it, and it does not read as an option.

    Source: uv crates/uv-distribution-types/src/index_name.rs.
    """
    return re.fullmatch(r"[A-Za-z0-9._][A-Za-z0-9._-]*", name) is not None

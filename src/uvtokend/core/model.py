"""The nouns. All are frozen; all times are aware UTC datetimes; all durations are seconds."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, TypeAlias

Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"
#: Options as a sorted tuple of pairs, so that a request can be compared and used as a key.
Frozen: TypeAlias = "bool | int | float | str | tuple[Frozen, ...] | None"

FailureKind = Literal["transient", "login-required", "rejected"]
ErrorKind = Literal["transient", "login-required", "rejected", "delivery"]
Health = Literal["fresh", "stale", "expired", "none"]
State = Literal["waiting", "fetching", "retrying", "blocked"]
Sink = Literal["netrc", "uv-store", "memory"]


class Secret(str):
    """A token or password. It shows itself as ``****``; only `reveal` gives the text away."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "****"

    def __str__(self) -> str:
        return "****"

    def __format__(self, spec: str) -> str:
        return "****"

    def reveal(self) -> str:
        """Return the text itself, for a sink that is about to deliver it."""
        return str.__str__(self)


def sha256(text: str) -> str:
    """Return the SHA-256 of a text in hex."""
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()


def digest(login: str, sha256_of_token: str) -> str:
    """Return what uvtokend remembers about an entry, instead of its login and token.

    The login is part of it because a login may be a secret as well, such as the name code of a Nexus user token.

    Args:
        login: The user name.
        sha256_of_token: In hex.
    """
    return sha256(f"{login}\0{sha256_of_token}")


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong in a file, and how to mend it.

    Args:
        file: The file as a person would name it.
        where: A key (``index[0].url``) or ``line 12``.
        message: What is wrong, in a sentence.
        fix: What to do about it.
        fatal: False for a warning: the file still does what it is for.
    """

    file: str
    where: str
    message: str
    hint: str
    fatal: bool = True

    def __str__(self) -> str:
        return f"{self.file}: {self.where}: {self.message} ({self.hint})"


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a fetch failed.

    Args:
        kind: ``transient`` (try again), ``login-required`` (a person must log in), ``rejected`` (asking again as it is
            will not help).
        reason: One word for machines, kebab-case.
        message: A sentence for people, without secrets.
        hint: The exact command that mends it, where a person can.
        retry_after: Seconds that the issuer asked us to wait.
    """

    kind: FailureKind
    reason: str
    message: str
    hint: str | None = None
    retry_after: float | None = None


@dataclass(frozen=True, slots=True)
class SignInEnd:
    """The known end of the sign-in that tokens are fetched with.

    Args:
        name: The sign-in, for a sentence: "the AWS SSO session of …".
        at: When it ends, UTC.
        command: The sign-in command.
    """

    name: str
    at: datetime
    command: str


@dataclass(frozen=True, slots=True)
class Credential:
    """A login and its token, as the issuer gave them.

    Args:
        login: The netrc login; may be empty.
        password: The token.
        issued_at: When its life began, UTC.
        expires_at: Its end of life, UTC; None where the issuer names none.
        refresh_after: When the issuer itself wants to be asked again, UTC; wins over our own policy.
        identity: Who the token is for, as far as the provider can tell.
        renew: What a person must do before the end, where no fetch can renew the token: it is only read again.
        skew: Seconds by which this machine's wall clock is ahead of the issuer's ``Date``; None where it is not known.
        sign_in_end: When the sign-in behind it ends; None if nobody knows. The token itself may live longer.
    """

    login: str
    password: Secret
    issued_at: datetime
    expires_at: datetime | None = None
    refresh_after: datetime | None = None
    identity: str | None = None
    renew: str | None = None
    skew: float | None = None
    sign_in_end: SignInEnd | None = None


@dataclass(frozen=True, slots=True)
class Notice:
    """What a person should know of an index although its token is good.

    Args:
        reason: One word for machines, kebab-case.
        message: A sentence for people, without secrets.
        hint: What mends it.
    """

    reason: str
    message: str
    hint: str | None = None


@dataclass(frozen=True, slots=True)
class Request:
    """What one fetch needs to know. Indexes with equal requests share one lease, and so one token.

    Args:
        provider: The provider's name.
        service: The tenant's URL prefix where the token belongs to one, else empty.
        options: The provider's options, sorted by key; secret references stand here as references.
        env: Extra environment of the worker, sorted by name.
        memory: The token is kept in memory only, so no index with another sink shares it.
    """

    provider: str
    service: str = ""
    options: tuple[tuple[str, Frozen], ...] = ()
    env: tuple[tuple[str, str], ...] = ()
    memory: bool = False

    def option(self, key: str) -> Frozen:
        """Return one option, or None."""
        return dict(self.options).get(key)


@dataclass(frozen=True, slots=True)
class Index:
    """A private index, as the configuration describes it.

    Args:
        service: The URL prefix that its token is for in uv's store; empty where the sink is a netrc.
        files: Those that describe it, as a person would name them: the site's, the user's, or both.
    """

    name: str
    url: str
    host: str
    provider: str
    request: Request
    sink: Sink = "netrc"
    service: str = ""
    files: tuple[str, ...] = ()

    @property
    def login_is_secret(self) -> bool:
        """Its user name is kept like a password, as the name code of a user token may be."""
        return isinstance(self.request.option("username"), tuple)

    @property
    def target(self) -> str:
        """Where its credential stands in its sink."""
        return self.service or self.host


@dataclass(frozen=True, slots=True)
class Settings:
    """The whole configuration, checked and with its defaults filled in.

    Args:
        netrc: An absolute path, not resolved.
        disabled: Indexes that are switched off, perhaps incomplete. Nothing is done for them, but their secrets are
            still theirs alone.
        notify: Whether to show a desktop notification when a sign-in is needed.
        quiet_hours: ``22:00-07:00``, local time: no notification then.
        metrics_file: Where to write metrics; None for nowhere.
        on_delivered: The program to run after each change of a sink, and its arguments; empty for none.
    """

    file: str
    indexes: tuple[Index, ...] = ()
    netrc: str = ""
    fetch_timeout: float = 60.0
    max_workers: int = 4
    ca_bundle: str | None = None
    log_level: str = "info"
    notices: tuple[str, ...] = ()
    disabled: tuple[Index, ...] = ()
    notify: bool = False
    quiet_hours: str | None = None
    metrics_file: str | None = None
    on_delivered: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Entry:
    """What a sink shall hold for one place: a host in a netrc, a URL prefix in uv's store.

    Args:
        host: The host, in lower case.
        login: The user name.
        password: The token.
        service: The URL prefix, for uv's store only.
    """

    host: str
    login: str
    password: Secret
    service: str = ""

    @property
    def target(self) -> str:
        """Its key inside its sink."""
        return self.service or self.host

    @property
    def digest(self) -> str:
        """What uvtokend remembers about it; see `digest`."""
        return digest(self.login, sha256(self.password.reveal()))


@dataclass(frozen=True, slots=True)
class Record:
    """What the state file remembers about a delivered token: neither the token nor its login.

    Args:
        request_key: Digest of the request, so that a changed configuration fetches a new token.
        targets: Where it was delivered: hosts of the netrc, or URL prefixes in uv's store.
        digest: Of the entry; see `digest`. An entry that does not match is fetched anew.
        issued_at: Start of the token's life, UTC.
        expires_at: End of its life, UTC; None where the issuer names none.
        refresh_at: When it is due, UTC.
        refresh_after: When the issuer wants to be asked again, UTC.
        identity: Who the token is for, as far as the provider can tell.
    """

    request_key: str
    targets: tuple[str, ...]
    digest: str
    issued_at: datetime
    expires_at: datetime | None
    refresh_at: datetime
    refresh_after: datetime | None = None
    identity: str | None = None


@dataclass(frozen=True, slots=True)
class LastError:
    """The last thing that went wrong with an index, as the status shows it."""

    kind: ErrorKind
    reason: str
    message: str
    hint: str | None
    at: datetime


Env: TypeAlias = Mapping[str, str]

__all__ = [
    "Credential",
    "Entry",
    "Env",
    "ErrorKind",
    "Failure",
    "FailureKind",
    "Frozen",
    "Health",
    "Index",
    "Json",
    "LastError",
    "Notice",
    "Problem",
    "Record",
    "Request",
    "Secret",
    "Settings",
    "SignInEnd",
    "Sink",
    "State",
    "digest",
    "sha256",
]

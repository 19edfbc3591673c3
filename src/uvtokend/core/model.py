"""The data types. All are frozen; all times are aware UTC datetimes; all durations are seconds."""

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
    """A token or password. It is displayed as ``****``; only `reveal` returns the text."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "****"

    def __str__(self) -> str:
        return "****"

    def __format__(self, spec: str) -> str:
        return "****"

    def reveal(self) -> str:
        """Return the secret itself, for a sink that is about to deliver it."""
        return str.__str__(self)


def sha256(text: str) -> str:
    """Return the SHA-256 of a text in hex."""
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()


def digest(login: str, sha256_of_token: str) -> str:
    """Return the digest that uvtokend remembers instead of an entry's login and token.

    It covers the login because that may be a secret too, such as the name code of a Nexus user token.

    Args:
        login: The user name.
        sha256_of_token: The SHA-256 of the token, in hex.
    """
    return sha256(f"{login}\0{sha256_of_token}")


@dataclass(frozen=True, slots=True)
class Problem:
    """A problem in a file, and how to fix it.

    Args:
        file: The name of the file in messages.
        where: A key (``index 'acme': url``) or ``line 12``.
        message: What is wrong, in a sentence.
        fix: What to do about it.
        fatal: False for a warning: the file still works.
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
        kind: ``transient`` (try again), ``login-required`` (the user must sign in), ``rejected`` (the same request will
            fail again).
        reason: One kebab-case word for machines.
        message: A sentence for people, without secrets.
        hint: The exact command that fixes the problem, if there is one.
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
        name: The sign-in as part of a sentence: "the AWS SSO session of …".
        at: The end of the sign-in, UTC.
        command: The sign-in command.
    """

    name: str
    at: datetime
    command: str


@dataclass(frozen=True, slots=True)
class Credential:
    """A login and its token, as the issuer gave them.

    Args:
        login: The user name; may be empty.
        password: The token.
        issued_at: The time at which the token became valid, UTC.
        expires_at: The time at which the token expires, UTC; None if the issuer does not say.
        refresh_after: The time at which the issuer wants the next request, UTC. It overrides our own policy.
        identity: Who the token is for, as far as the provider can tell.
        renew: What the user must do before the token expires, if a fetch cannot renew it but only read it again.
        skew: Seconds by which this machine's clock is ahead of the issuer's ``Date``; None if unknown.
        sign_in_end: The end of the sign-in; None if unknown. The token itself may be valid longer.
        notice: What else the user should know although the token is valid; None if there is nothing.
        wall_end: The end on a wall clock that is right, whatever is done to this machine's; None without a known end.
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
    notice: Notice | None = None
    wall_end: datetime | None = None


@dataclass(frozen=True, slots=True)
class Notice:
    """Something that the user should know about an index although its token is valid.

    Args:
        reason: One kebab-case word for machines.
        message: A sentence for people, without secrets.
        hint: The fix.
    """

    reason: str
    message: str
    hint: str | None = None


@dataclass(frozen=True, slots=True)
class Request:
    """The input of one fetch. Indexes with equal requests share one lease, and so one token.

    Args:
        provider: The provider's name.
        service: The tenant's URL prefix if the token is for one tenant, otherwise empty.
        options: The provider's options, sorted by key. Secrets are not resolved: they are references here.
        env: Extra environment variables of the worker, sorted by name.
        memory: Whether the token is kept in memory only, and so not shared with an index that has another sink.
    """

    provider: str
    service: str = ""
    options: tuple[tuple[str, Frozen], ...] = ()
    env: tuple[tuple[str, str], ...] = ()
    memory: bool = False

    def option(self, key: str) -> Frozen:
        """Return the value of an option, or None."""
        return next((value for name, value in self.options if name == key), None)


@dataclass(frozen=True, slots=True)
class Index:
    """A private index, as the configuration describes it.

    Args:
        service: The URL prefix of its token in uv's store; empty for any other sink.
        files: The configuration files that describe it: the site's, the user's, or both.
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
        """Whether the user name is a secret too, such as the name code of a user token."""
        return isinstance(self.request.option("username"), tuple)

    @property
    def target(self) -> str:
        """The key of its credential inside its sink."""
        return self.service or self.host


@dataclass(frozen=True, slots=True)
class Settings:
    """The whole configuration, checked, with defaults filled in.

    Args:
        netrc: The absolute path of the netrc, with symlinks not resolved.
        disabled: Indexes that are switched off and may be incomplete. uvtokend does nothing for them, but still treats
            their secrets as secrets.
        notify: Whether to show a desktop notification when a sign-in is needed.
        quiet_hours: The local time without notifications, such as ``22:00-07:00``; None for none.
        metrics_file: The file to write metrics to; None for none.
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
    """The credential for one target of a sink: a host in a netrc, or a URL prefix in uv's store.

    Args:
        host: The host, in lower case.
        login: The user name.
        password: The token.
        service: The URL prefix; only for uv's store.
    """

    host: str
    login: str
    password: Secret
    service: str = ""

    @property
    def target(self) -> str:
        """The target: its key inside its sink."""
        return self.service or self.host

    @property
    def digest(self) -> str:
        """The digest that uvtokend remembers; see `digest`."""
        return digest(self.login, sha256(self.password.reveal()))


@dataclass(frozen=True, slots=True)
class Record:
    """A delivered token in the state file, which contains neither the token nor its login.

    Args:
        request_key: The digest of the request, so that a changed configuration fetches a new token.
        targets: The targets of the delivery: hosts of the netrc, or URL prefixes in uv's store.
        digest: The digest of the entry; see `digest`. An entry that does not match is fetched again.
        issued_at: The time at which the token became valid, UTC.
        expires_at: The time at which the token expires, UTC; None if the issuer does not say.
        refresh_at: The time of the next fetch, UTC.
        refresh_after: The time at which the issuer wants the next request, UTC.
        identity: Who the token is for, as far as the provider can tell.
        wall_end: As in `Credential`.
    """

    request_key: str
    targets: tuple[str, ...]
    digest: str
    issued_at: datetime
    expires_at: datetime | None
    refresh_at: datetime
    refresh_after: datetime | None = None
    identity: str | None = None
    wall_end: datetime | None = None


@dataclass(frozen=True, slots=True)
class LastError:
    """The last failure of an index, as the status shows it."""

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

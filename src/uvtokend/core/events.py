"""Events, which the agent handles, and actions, which it returns. All are frozen and compare by value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TypeAlias

from uvtokend.core.model import Credential, Entry, Failure, Notice, Problem, Request, Settings, Sink

#: Anything that wants to act at a planned time: a lease, named by its request, or a delivery, named by its sink.
Job: TypeAlias = Request | Sink

# ---------------------------------------------------------------------------------------------------------- events


@dataclass(frozen=True, slots=True)
class Configured:
    """New settings are loaded.

    Args:
        settings: The new settings.
        recovered: Credentials that a previous daemon delivered and that are still valid, with their refresh times.
        notices: The notices about each request that follow from the daemon's own environment.
        sinks: The sinks that hold something of ours, or will.
    """

    settings: Settings
    recovered: Mapping[Request, tuple[Credential, datetime]] = field(default_factory=dict)
    notices: Mapping[Request, tuple[Notice, ...]] = field(default_factory=dict)
    sinks: tuple[Sink, ...] = ("netrc",)


@dataclass(frozen=True, slots=True)
class Due:
    """The planned time of a lease or a delivery has come."""

    job: Job


@dataclass(frozen=True, slots=True)
class Tick:
    """Time has passed: the guard tick, which checks everything and never does harm."""


@dataclass(frozen=True, slots=True)
class Woke:
    """The machine slept, or the process was stopped.

    Args:
        stepped: The wall clock was set as well, or the machine was paused from outside, so that its own clocks stood
            still. No token is dropped for that alone, but all are fetched again.
    """

    stepped: bool = False


@dataclass(frozen=True, slots=True)
class ClockTrusted:
    """A time service keeps the wall clock, so a token that has expired according to it has expired.

    Args:
        shift: The difference between the wall clock and the daemon's own.
    """

    shift: timedelta


@dataclass(frozen=True, slots=True)
class NetworkReturned:
    """The kernel has a new address or a new default route."""


@dataclass(frozen=True, slots=True)
class FetchEnded:
    """A worker has ended.

    Args:
        request: The request that it fetched.
        outcome: The credential, or the failure.
        roll: A dice roll in [0, 1), for jitter.
    """

    request: Request
    outcome: Credential | Failure
    roll: float


@dataclass(frozen=True, slots=True)
class DeliveryEnded:
    """A delivery to a sink has ended.

    Args:
        wanted: The entries that the sink should hold.
        roll: A dice roll in [0, 1), for the back-off.
        failure: Set if nothing was written.
        foreign: Targets that foreign entries occupy; in a netrc also the hosts of uv's store that they shadow.
        problems: What uv could not read in the file, or would read instead of our entries.
        note: What else a person should know about the file.
        rival: Another program changed the entries that we wrote.
        sink: The sink.
        changed: Whether the sink's text has changed.
    """

    wanted: tuple[Entry, ...]
    roll: float
    failure: Failure | None = None
    foreign: frozenset[str] = frozenset()
    problems: tuple[Problem, ...] = ()
    note: str | None = None
    rival: bool = False
    sink: Sink = "netrc"
    changed: bool = False


@dataclass(frozen=True, slots=True)
class RefreshAsked:
    """A person or a script asks for new tokens.

    Args:
        names: The indexes.
        waiter: The number of the client that waits until the tokens are delivered or have failed; None if no client
            waits.
    """

    names: tuple[str, ...]
    waiter: int | None = None


@dataclass(frozen=True, slots=True)
class WaitAsked:
    """A client waits for the fetches and deliveries under way; nothing new is started for it.

    Args:
        names: The indexes whose fetches the client waits for; it always waits for deliveries.
        waiter: Who waits.
    """

    names: tuple[str, ...]
    waiter: int


@dataclass(frozen=True, slots=True)
class WaiterLeft:
    """A client no longer waits."""

    waiter: int


@dataclass(frozen=True, slots=True)
class LoginChanged:
    """Sign-in files changed: a person may have signed in.

    Args:
        requests: The requests whose files changed.
    """

    requests: tuple[Request, ...]


@dataclass(frozen=True, slots=True)
class SinkDrifted:
    """Another program changed a sink."""

    sink: Sink = "netrc"


Event: TypeAlias = (
    Configured
    | Due
    | Tick
    | Woke
    | ClockTrusted
    | NetworkReturned
    | FetchEnded
    | DeliveryEnded
    | RefreshAsked
    | WaitAsked
    | WaiterLeft
    | LoginChanged
    | SinkDrifted
)

# --------------------------------------------------------------------------------------------------------- actions


@dataclass(frozen=True, slots=True)
class StartFetch:
    """Start a worker for this request as soon as a slot is free.

    Args:
        request: The request.
        limit: Seconds that the worker may take at most; None for as long as the configuration allows.
        hung: Whether the last try hung, so that other requests go first.
    """

    request: Request
    limit: float | None = None
    hung: bool = False


@dataclass(frozen=True, slots=True)
class RestartFetch:
    """Restart the worker of this request: the connection that it uses may be broken.

    Args:
        request: The request.
        limit: As for `StartFetch`.
    """

    request: Request
    limit: float | None = None


@dataclass(frozen=True, slots=True)
class CancelFetch:
    """Kill the worker of a request that nobody needs any more."""

    request: Request


@dataclass(frozen=True, slots=True)
class Deliver:
    """Make a sink hold exactly these entries of ours.

    Args:
        wanted: The entries.
        sink: The sink.
        left: The entries that we wrote last; None if unknown.
        yielding: Write nothing if another program changed the entries that we wrote, because it did so a moment ago,
            too.
        urgent: The delivery cannot wait: an entry is missing, has expired or has less than the promised life.
    """

    wanted: tuple[Entry, ...]
    sink: Sink = "netrc"
    left: tuple[Entry, ...] | None = None
    yielding: bool = False
    urgent: bool = True


@dataclass(frozen=True, slots=True)
class Plan:
    """A lease or a delivery wants to act at this time.

    Args:
        job: The lease or delivery.
        label: Its name for people.
        at: The time, aware UTC; None for never. It replaces the earlier plan.
    """

    job: Job
    label: str
    at: datetime | None


@dataclass(frozen=True, slots=True)
class Settled:
    """Everything that a client waits for is delivered or has failed."""

    waiter: int


@dataclass(frozen=True, slots=True)
class Report:
    """Write to the event log.

    Args:
        level: ``debug``, ``info``, ``warning`` or ``error``.
        event: One word for machines, kebab-case.
        names: The indexes concerned.
        message: A sentence for people, without secrets.
        hint: The command or edit that repairs it, if there is one.
    """

    level: str
    event: str
    names: tuple[str, ...]
    message: str
    hint: str | None = None


Action: TypeAlias = StartFetch | RestartFetch | CancelFetch | Deliver | Plan | Settled | Report

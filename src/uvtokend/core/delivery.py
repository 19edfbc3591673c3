"""One delivery: what we know and do about the entries in one sink. The twin of a lease.

The rules, in prose:

* A sink *stands* when it holds what we want it to hold. Whatever else may have changed it (drift, a new configuration,
  a wake-up) makes that unknown, and the next step delivers again. At most one delivery per sink is in flight.
* A delivery that succeeds forgets all failures. One that fails is retried with a back-off, and never causes a fetch.
* If what failed to be written is no longer wanted, the failure is forgotten.
* A rival that changed our block is undone once. If it changes the block again within `FIGHT`, the next delivery yields:
  it writes nothing, the failure is *contested*, and a slow probe looks whether the rival is gone. A refresh that a
  person asks for, or a wake-up, ends the yielding.
* Targets that foreign entries occupy are left alone and reported.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from uvtokend.core import policy
from uvtokend.core.events import Deliver, DeliveryEnded
from uvtokend.core.model import Entry, Failure, Problem, Sink

#: If a rival changes our block again within this time, it is a fight, and we yield.
FIGHT = timedelta(seconds=60)
#: The reason of a delivery that yielded.
CONTESTED = "contested"


@dataclass(frozen=True, slots=True)
class Delivery:
    """What we know about a sink.

    Args:
        standing: What we wanted it to hold, as far as we know that it does; None if it may have changed.
        left: The entries that we wrote there last; None before the first delivery.
        in_flight: A delivery is under way.
        failures: Failures in a row.
        failure: Why the last delivery failed, and `failed_at` when.
        retry_at: When to try again.
        foreign: Targets that foreign entries occupy.
        problems: What uv could not read in the file, or would read instead of our entries.
        note: What else a person should know about the file.
        seen_at: When foreign targets and problems were seen.
        rival_at: When another program last changed what we had left.
    """

    standing: tuple[Entry, ...] | None = None
    left: tuple[Entry, ...] | None = None
    in_flight: bool = False
    failures: int = 0
    failure: Failure | None = None
    failed_at: datetime | None = None
    retry_at: datetime | None = None
    foreign: frozenset[str] = frozenset()
    problems: tuple[Problem, ...] = ()
    note: str | None = None
    seen_at: datetime | None = None
    rival_at: datetime | None = None

    @property
    def voided(self) -> bool:
        """Return whether uv cannot use anything in the sink."""
        return any(problem.fatal for problem in self.problems)

    @property
    def contested(self) -> bool:
        """Return whether the last delivery yielded to a rival."""
        return self.failure is not None and self.failure.reason == CONTESTED

    @property
    def ok(self) -> bool:
        """Return whether the sink holds what it should."""
        return self.failure is None and not self.voided

    @property
    def problem(self) -> str | None:
        """Return what a person should know about the sink."""
        if self.failure is not None:
            return self.failure.message
        sentences = [str(problem) for problem in self.problems]
        return "; ".join([*sentences, self.note] if self.note is not None else sentences) or None


def drifted(delivery: Delivery) -> Delivery:
    """Take note that the sink may have changed: deliver again at once."""
    return replace(delivery, standing=None, retry_at=None)


def urged(delivery: Delivery) -> Delivery:
    """Wait no longer for the next try, and yield to no earlier rival."""
    return replace(delivery, retry_at=None, rival_at=None)


def step(delivery: Delivery, sink: Sink, wanted: tuple[Entry, ...], now: datetime) -> tuple[Delivery, Deliver | None]:
    """Return the next state, and the delivery to begin, if any.

    Args:
        delivery: The state before.
        sink: The sink.
        wanted: What it should hold now.
        now: Aware UTC.
    """
    if delivery.in_flight:
        return delivery, None
    if delivery.standing == wanted:
        return replace(delivery, failures=0, failure=None, retry_at=None), None
    if delivery.retry_at is not None and now < delivery.retry_at:
        return delivery, None
    fought = delivery.rival_at is not None and now - delivery.rival_at < FIGHT
    return replace(delivery, in_flight=True, retry_at=None), Deliver(wanted, sink, delivery.left, fought)


def succeeded(delivery: Delivery, event: DeliveryEnded, now: datetime) -> Delivery:
    """Take the end of a delivery that wrote the sink, or found it as it should be."""
    return Delivery(
        standing=event.wanted,
        left=tuple(entry for entry in event.wanted if entry.target not in event.foreign),
        foreign=event.foreign,
        problems=event.problems,
        note=event.note,
        seen_at=now,
        rival_at=now if event.rival else delivery.rival_at,
    )


def failed(delivery: Delivery, failure: Failure, now: datetime, roll: float) -> Delivery:
    """Take a failure: back off, or look again slowly whether a rival is gone.

    Args:
        delivery: The state before.
        failure: Why nothing was written.
        now: Aware UTC.
        roll: A dice roll in [0, 1).
    """
    contested = failure.reason == CONTESTED
    if contested and delivery.rival_at is None:  # it yielded, but a person has asked for a refresh meanwhile
        return replace(delivery, in_flight=False)
    failures = delivery.failures + 1
    wait = policy.probe(roll) if contested else policy.backoff(failures, failure, False, roll)
    return replace(
        delivery,
        in_flight=False,
        failures=failures,
        failure=failure,
        failed_at=now,
        retry_at=now + timedelta(seconds=wait),
    )

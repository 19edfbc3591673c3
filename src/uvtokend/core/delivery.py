"""One delivery: what we know and do about the entries in one sink. The twin of a lease.

The rules, in prose:

* A delivery is *pending* while the sink may hold something else than we want: after a token was fetched or expired,
  after drift, a new configuration or a wake-up. At most one delivery per sink is in flight.
* While a fetch is under way, deliveries of one sink begin at least `REST` apart, and so far apart that they take a
  tenth of the time, but never more than `LONGEST_REST`: many tokens that are fetched together are written together,
  however large the file is. If no fetch is under way, there is nothing to wait for, so the delivery begins *early*,
  without the rest: the last of several tokens is written at once. No two early deliveries follow each other, and none
  follows drift, so that neither a chain of short fetches nor a rival causes a burst of writes.
* A delivery that succeeds forgets all failures. One that fails is retried with a back-off, and never causes a fetch.
* If the entries that failed to be written are no longer wanted, the failure is forgotten.
* A rival that changed our block is undone once. If it changes the block again within `FIGHT`, the next delivery yields:
  it writes nothing, the failure is *contested*, and a slow probe checks whether the rival has stopped. A refresh that a
  person asks for, or a wake-up, ends the yielding.
* A netrc that another program holds open for writing is tried again at every guard tick, without a back-off.
* A delivery that has not ended after `HUNG` counts as failed for the clients that wait, and the content of the sink is
  unknown. It stays in flight, because only the disk can end it.
* Targets that foreign entries occupy are left alone and reported.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from uvtokend.core import policy
from uvtokend.core.events import Deliver, DeliveryEnded
from uvtokend.core.lease import Life
from uvtokend.core.model import Entry, Failure, Problem, Sink

#: If a rival changes our block again within this time, it is a fight, and we yield.
FIGHT = timedelta(seconds=60)
#: Deliveries of one sink begin at least this far apart, except for an early one.
REST = timedelta(seconds=0.5)
#: The longest time that a token waits because deliveries take long.
LONGEST_REST = timedelta(seconds=5)
#: A delivery in flight that has not ended after this time is reported as hung.
HUNG = timedelta(seconds=20)
#: How often a netrc that another program holds open is tried again: at each guard tick.
HELD = timedelta(seconds=25)
#: The reasons of deliveries that yielded to a rival, met a netrc held open by another program, or hung.
CONTESTED = "contested"
HELD_OPEN = "held"
DELIVERY_HUNG = "delivery-hung"


@dataclass(frozen=True, slots=True)
class Delivery:
    """What we know about one sink, and what to do about it.

    Args:
        pending: The sink may hold entries other than those we want.
        standing: What we wanted it to hold, by target, as far as we know that it does; None if nothing is known.
        lives: The lives of the tokens in `standing`, by target.
        short_at: When the first of them has less than its promised life left; None if that never happens.
        offered: The entries being written, with their lives, while a delivery is in flight.
        left: The entries that we wrote last; None before the first delivery.
        in_flight: A delivery is under way.
        began_at: When the last delivery began.
        took: How long the last delivery that ended took.
        early: The last delivery began before the rest had ended.
        begun: How many deliveries have begun, and `ended` how many of them have ended.
        failures: The number of failures in a row.
        failure: Why the last delivery failed, and `failed_at` when.
        retry_at: When to try again.
        foreign: Targets that foreign entries occupy.
        problems: What uv could not read in the file, or would read instead of our entries.
        note: What else a person should know about the file.
        seen_at: When foreign targets and problems were seen.
        rival_at: When another program last changed the entries that we wrote.
    """

    pending: bool = True
    standing: Mapping[str, Entry] | None = None
    lives: Mapping[str, Life] = field(default_factory=dict)
    short_at: datetime | None = None
    offered: Mapping[str, Life] = field(default_factory=dict)
    left: tuple[Entry, ...] | None = None
    in_flight: bool = False
    began_at: datetime | None = None
    took: timedelta = timedelta()
    early: bool = False
    begun: int = 0
    ended: int = 0
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
        """Whether uv can use nothing in the sink."""
        return any(problem.fatal for problem in self.problems)

    @property
    def contested(self) -> bool:
        """Whether the last delivery yielded to a rival."""
        return self.failure is not None and self.failure.reason == CONTESTED

    @property
    def held(self) -> bool:
        """Whether the last delivery met a netrc that another program holds open."""
        return self.failure is not None and self.failure.reason == HELD_OPEN

    @property
    def hung(self) -> bool:
        """Whether the delivery in flight has taken longer than `HUNG`."""
        return self.in_flight and self.failure is not None and self.failure.reason == DELIVERY_HUNG

    @property
    def ok(self) -> bool:
        """Whether the sink holds the wanted entries."""
        return self.failure is None and not self.voided

    @property
    def problem(self) -> str | None:
        """What a person should know about the sink."""
        if self.failure is not None:
            return self.failure.message
        sentences = [str(problem) for problem in self.problems]
        return "; ".join([*sentences, self.note] if self.note is not None else sentences) or None

    @property
    def settles_at(self) -> int | None:
        """How many deliveries must end until the wanted entries are written or have failed; None if that is done."""
        if self.hung or (self.pending and not self.in_flight and self.retry_at is not None):
            return None
        return self.begun + self.pending if self.pending or self.in_flight else None

    @property
    def rested_at(self) -> datetime | None:
        """When the rest after the last delivery ends; None before the first delivery."""
        return None if self.began_at is None else self.began_at + max(REST, min(10 * self.took, LONGEST_REST))

    def next_at(self, now: datetime, fetching: bool) -> datetime | None:
        """Return when the delivery wants to act next: to begin, to be tried again, or to be reported as hung.

        Args:
            now: Aware UTC.
            fetching: Whether a fetch is under way.
        """
        if self.in_flight:
            return None if self.hung or self.began_at is None else self.began_at + HUNG
        if not self.pending:
            return None
        may_be_early = not (fetching or self.early or self.standing is None)
        ready_at = now if self.rested_at is None or may_be_early else self.rested_at
        return ready_at if self.retry_at is None else max(self.retry_at, ready_at)

    def valid(self, target: str, now: datetime) -> bool:
        """Return whether the sink has an entry of ours for a target that has not expired, as far as we know."""
        if target not in self.lives:
            return False
        end = self.lives[target][1]
        return end is None or now < end


def touched(delivery: Delivery) -> Delivery:
    """Note that the wanted entries have changed."""
    return delivery if delivery.pending else replace(delivery, pending=True)


def drifted(delivery: Delivery) -> Delivery:
    """Note that the sink may have changed. Its content is unknown, so deliver again at once."""
    return replace(delivery, pending=True, standing=None, retry_at=None)


def urged(delivery: Delivery) -> Delivery:
    """Retry at once, and forget earlier rivals."""
    return replace(delivery, retry_at=None, rival_at=None)


def begins(delivery: Delivery, now: datetime, fetching: bool) -> bool:
    """Return whether a delivery should begin now, if the sink differs from the wanted entries.

    Args:
        delivery: The delivery.
        now: Aware UTC.
        fetching: Whether a fetch is under way.
    """
    return not delivery.in_flight and _due(delivery.next_at(now, fetching), now)


def hangs(delivery: Delivery, now: datetime) -> bool:
    """Return whether the delivery in flight should be reported as hung now."""
    return delivery.in_flight and _due(delivery.next_at(now, fetching=False), now)


def begin(
    delivery: Delivery, sink: Sink, wanted: Mapping[str, Entry], lives: Mapping[str, Life], now: datetime
) -> tuple[Delivery, Deliver | None]:
    """Return the next state and the delivery to begin; None if the sink holds the wanted entries.

    Args:
        delivery: The state before; `begins` said yes.
        sink: The sink.
        wanted: The entries that the sink should hold now, by target.
        lives: The lives of the wanted tokens, by target.
        now: Aware UTC.
    """
    if delivery.standing == wanted:
        return replace(delivery, pending=False, failures=0, failure=None, retry_at=None), None
    fought = delivery.rival_at is not None and now - delivery.rival_at < FIGHT
    lacking = delivery.lives.keys() != lives.keys() - delivery.foreign
    short = delivery.short_at is not None and now >= delivery.short_at
    urgent = delivery.standing is None or lacking or short
    after = replace(
        delivery,
        pending=False,
        offered=lives,
        in_flight=True,
        began_at=now,
        early=delivery.rested_at is not None and now < delivery.rested_at,
        begun=delivery.begun + 1,
        retry_at=None,
    )
    return after, Deliver(tuple(map(wanted.__getitem__, sorted(wanted))), sink, delivery.left, fought, urgent)


def hung(delivery: Delivery, sink: Sink, now: datetime) -> Delivery:
    """Note that the delivery in flight does not end."""
    what = "the netrc" if sink == "netrc" else "uv's credential store"
    seconds = int(HUNG.total_seconds())
    message = (
        f"Writing {what} has not ended for {seconds} s: its file system, or that of uvtokend's state directory, does "
        "not answer. Until it does, it is unknown what uv finds there, and a token that has expired may still be there."
    )
    hint = "make its file system answer again (dmesg says more), then: uvtokend restart"
    failure = Failure("transient", DELIVERY_HUNG, message, hint)
    return replace(delivery, standing=None, failure=failure, failed_at=now)


def succeeded(delivery: Delivery, event: DeliveryEnded, now: datetime) -> Delivery:
    """Note the end of a delivery that wrote the sink, or found the wanted entries in it."""
    lives = delivery.offered
    if event.foreign:
        lives = {target: life for target, life in lives.items() if target not in event.foreign}
    return replace(
        delivery,
        standing={entry.target: entry for entry in event.wanted},
        lives=lives,
        short_at=min((until for until, _ in lives.values() if until is not None), default=None),
        left=tuple(entry for entry in event.wanted if entry.target not in event.foreign),
        in_flight=False,
        took=_took(delivery, now),
        ended=delivery.begun,
        failures=0,
        failure=None,
        failed_at=None,
        foreign=event.foreign,
        problems=event.problems,
        note=event.note,
        seen_at=now,
        rival_at=now if event.rival else delivery.rival_at,
    )


def failed(delivery: Delivery, failure: Failure, now: datetime, roll: float) -> Delivery:
    """Note a failure: back off, or probe slowly whether a rival has stopped.

    Args:
        delivery: The state before.
        failure: Why nothing was written.
        now: Aware UTC.
        roll: A dice roll in [0, 1).
    """
    delivery = replace(delivery, pending=True, in_flight=False, ended=delivery.begun)
    if failure.reason == CONTESTED and delivery.rival_at is None:
        return delivery  # the delivery yielded, but a person has asked for a refresh meanwhile
    failures = delivery.failures + 1
    if failure.reason == HELD_OPEN:
        retry_at = now + HELD
    elif failure.reason == CONTESTED:
        retry_at = now + timedelta(seconds=policy.probe(roll))
    else:
        retry_at = now + timedelta(seconds=policy.backoff(failures, failure, True, roll))
    return replace(delivery, failures=failures, failure=failure, failed_at=now, retry_at=retry_at)


def _took(delivery: Delivery, now: datetime) -> timedelta:
    return timedelta() if delivery.began_at is None else now - delivery.began_at


def _due(at: datetime | None, now: datetime) -> bool:
    return at is not None and now >= at

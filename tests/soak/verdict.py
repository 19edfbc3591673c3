"""The verdict: which installs should have worked. Pure: it uses only times.

An install *should work*, so that its failure was avoidable, unless the history excuses it:

* Without trouble it should always work. The daemon promises a token with half of its life left; an install that
  takes longer than that is excused by the machine (`SLOW`).
* Trouble begins with a fault and ends with a proof that the daemon has recovered (a token that was issued after the
  fault's end is in the netrc), or when the promised time for recovery has passed, whichever is first. During trouble
  an install is excused only if no token was usable for it. A token is usable for an install if it is valid until the
  end of the install, and

  - in trouble with the *fetch* (the cloud is down or returns garbage, or a wall clock was set): if it was issued early
    enough to be delivered before the install. Nothing removes a token that is already there;
  - in trouble with the *delivery* (the disk is full or read-only, the daemon is suspended or killed): if it was issued
    early enough to be delivered before the fault;
  - in trouble that makes all tokens expire at once (*expiry*: the machine was paused): as with the fetch. An install
    that has begun before may be hit, too;
  - after a rival restored an older text (*entry*): if it is the token in that text.

* While a rival writes in place, a reader may see half a file (*reading*): an install during that time is excused.

The tokens are those that the emulator has issued, not those in the netrc: a daemon that fetches and does not
deliver, or that removes a valid token, gets no excuse.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

#: Seconds after a fault within which a valid token is in the netrc again: 30 s after the network returns, and a guard
#: tick of 30 s after a suspend or a clock step; in both cases the fetch then takes a moment.
PROMISE = 30.0 + 5.0
#: Seconds from the cloud's response to the entry: boto3 still fetches the identity, and the machine may be busy.
DELIVERY = 3.0
#: Seconds that a token must outlive an install, because times are measured slightly late.
MARGIN = 0.2
#: The excuse of an install that took longer than any promise.
SLOW = "slow machine"

Hinders = Literal["fetch", "delivery", "expiry", "entry", "reading"]


@dataclass(frozen=True, slots=True)
class Token:
    """A token that the emulator issued; times are seconds since the epoch, here and below."""

    issued: float
    end: float


@dataclass(frozen=True, slots=True)
class Install:
    """One run of uv. `said` is its error message; None if it worked."""

    began: float
    ended: float
    said: str | None = None


@dataclass(frozen=True, slots=True)
class Trouble:
    """One fault, or one edit of a rival that did harm.

    Args:
        kind: Its name.
        hinders: What the daemon, or uv, could not do in the meantime.
        begin, end: When it lasted; the end is infinite as long as it lasts.
        since: A token issued after this time and seen after `end` proves that the daemon has recovered.
        left: For *entry*: the token in the rival's text.
    """

    kind: str
    hinders: Hinders
    begin: float
    end: float = math.inf
    since: float = math.inf
    left: Token | None = None


@dataclass(frozen=True, slots=True)
class Sighting:
    """The token in the netrc from this moment on, as seen by frequent reads; None: no token of ours."""

    at: float
    token: Token | None


def over(trouble: Trouble, sightings: Iterable[Sighting]) -> float | None:
    """Return when the daemon had proved its recovery from trouble, or None."""
    proofs = (
        seen.at for seen in sightings if seen.at >= trouble.end and seen.token and seen.token.issued > trouble.since
    )
    return next(proofs, None)


def until(trouble: Trouble, sightings: Iterable[Sighting]) -> float:
    """Return when trouble stops being an excuse."""
    if trouble.hinders == "reading":
        return trouble.end
    proof = over(trouble, sightings)
    promised = trouble.end + PROMISE
    return promised if proof is None else min(proof, promised)


def excuse(
    install: Install, tokens: Iterable[Token], troubles: Sequence[Trouble], sightings: Sequence[Sighting], life: float
) -> str | None:
    """Return why an install may fail, or None if it should have worked.

    Args:
        install: The install.
        tokens: All tokens that the cloud issued to the daemon.
        troubles: All troubles.
        sightings: What was in the netrc.
        life: Seconds that a token is valid.
    """
    near = [trouble for trouble in troubles if trouble.begin <= install.ended]
    for trouble in near:
        if trouble.hinders == "reading" and trouble.end >= install.began:
            return trouble.kind
    near = [trouble for trouble in near if trouble.hinders == "expiry" or trouble.begin <= install.began]
    around = [trouble for trouble in near if trouble.hinders != "reading" and install.began < until(trouble, sightings)]
    if around:
        served = any(_serves(token, install, around) for token in tokens)
        return None if served else around[-1].kind
    return SLOW if install.ended - install.began > life / 2 - PROMISED_LESS else None


#: Seconds of the promised half of a life that a fetch and a delivery may take.
PROMISED_LESS = 2.0


def _serves(token: Token, install: Install, around: Iterable[Trouble]) -> bool:
    if token.end <= install.ended + MARGIN:
        return False
    ready = token.issued + DELIVERY
    return all(
        token == trouble.left
        if trouble.hinders == "entry"
        else ready <= (trouble.begin if trouble.hinders == "delivery" else install.began)
        for trouble in around
    )


def recovery(trouble: Trouble, sightings: Sequence[Sighting], stop: float) -> float:
    """Return the seconds from a fault's end to the last moment, before `stop`, without a valid token in the netrc."""
    dead = [(begin, end) for begin, end in _dead(sightings, stop) if end > trouble.end and begin < stop]
    return max((min(end, stop) - trouble.end for _, end in dead), default=0.0)


def rot(sightings: Sequence[Sighting], troubles: Sequence[Trouble], stop: float) -> float:
    """Return the longest time in seconds that an expired token was in the netrc while nothing hindered its removal."""
    hindered = [trouble for trouble in troubles if trouble.hinders in {"delivery", "entry"}]
    spans = [(trouble.begin, until(trouble, sightings)) for trouble in hindered]
    longest = 0.0
    for seen, gone in zip(sightings, [*(next_.at for next_ in sightings[1:]), stop], strict=True):
        if seen.token is None or gone <= seen.token.end:
            continue
        begin = max(seen.at, seen.token.end)
        if not any(start < gone and end > begin for start, end in spans):
            longest = max(longest, gone - begin)
    return longest


def _dead(sightings: Sequence[Sighting], stop: float) -> Iterable[tuple[float, float]]:
    """Yield the spans without a valid token in the netrc."""
    begin: float | None = sightings[0].at if sightings else None
    for seen, gone in zip(sightings, [*(next_.at for next_ in sightings[1:]), stop], strict=True):
        if seen.token is not None and seen.token.end > seen.at:
            if begin is not None and seen.at > begin:
                yield begin, seen.at
            begin = seen.token.end if seen.token.end < gone else None
        elif begin is None:
            begin = seen.at
    if begin is not None:
        yield begin, stop

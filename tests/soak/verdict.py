"""The oracle: which installs were owed to work, whatever became of them. Pure: it knows times and nothing else.

An install is *owed* to work, so that its failure was avoidable, unless the history excuses it:

* Outside of all trouble it is owed, always. What the daemon promises is a token with half of its life left; an install
  that takes so long that even this would not do is the machine's fault (`SLOW`).
* Trouble begins with a fault and ends with a proof that the daemon is over it (a token that was issued after the
  fault's end is in the netrc), or when the promised time to recover has passed, whichever is first. Within it an
  install is excused only if no token could serve it. A token serves an install if it outlives it, and

  - in trouble with the *fetch* (a cloud that is away or talks nonsense, a wall clock that was set): it was issued long
    enough before the install to be delivered by then. Nothing takes away what stands already;
  - in trouble with the *delivery* (a disk that is full or read-only, a daemon that is stopped or dead): it was issued
    long enough before the fault to be delivered by then;
  - after a rival wrote an older text back (*entry*): it is the very token that was in that text.

* While a rival writes in place, a reader may see half a file (*reading*): what overlaps that is excused.

The tokens are those of the emulator's record, not those of the netrc: a daemon that fetches and does not deliver, or
that drops what is good, finds no excuse here.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

#: Seconds after the end of a fault within which a valid token stands again: DESIGN's 30 s after the network's return,
#: and one guard tick of 30 s after a suspend or a clock step; both only begin the fetch, which takes a moment.
PROMISE = 30.0 + 5.0
#: Seconds from the cloud's answer to the entry: boto3 still asks who we are, and the machine may be busy.
DELIVERY = 3.0
#: Seconds that a token must outlive an install, since times here are not taken at the very instant.
MARGIN = 0.2
#: The excuse of an install that took so long that no promise reaches it.
SLOW = "slow machine"

Hinders = Literal["fetch", "delivery", "entry", "reading"]


@dataclass(frozen=True, slots=True)
class Token:
    """One token of the emulator's record; times in seconds since the epoch, here and below."""

    issued: float
    end: float


@dataclass(frozen=True, slots=True)
class Install:
    """One run of uv. `said` is its complaint; None if it worked."""

    began: float
    ended: float
    said: str | None = None


@dataclass(frozen=True, slots=True)
class Trouble:
    """One fault, or one edit of a rival that did harm.

    Args:
        kind: Its name.
        hinders: What it keeps the daemon, or uv, from.
        begin, end: When it was there; no end as long as it is.
        since: A token issued after this, standing after `end`, proves that the daemon is over it.
        left: For *entry*: the token that the rival's text held.
    """

    kind: str
    hinders: Hinders
    begin: float
    end: float = math.inf
    since: float = math.inf
    left: Token | None = None


@dataclass(frozen=True, slots=True)
class Sighting:
    """What was in the netrc from a moment on, as somebody saw who looks often; None: no token of ours."""

    at: float
    token: Token | None


def over(trouble: Trouble, sightings: Iterable[Sighting]) -> float | None:
    """Return when the daemon had proved to be over a trouble, or None."""
    proofs = (
        seen.at for seen in sightings if seen.at >= trouble.end and seen.token and seen.token.issued > trouble.since
    )
    return next(proofs, None)


def until(trouble: Trouble, sightings: Iterable[Sighting]) -> float:
    """Return when a trouble stops to be an excuse."""
    if trouble.hinders == "reading":
        return trouble.end
    proof = over(trouble, sightings)
    promised = trouble.end + PROMISE
    return promised if proof is None else min(proof, promised)


def excuse(
    install: Install, tokens: Iterable[Token], troubles: Sequence[Trouble], sightings: Sequence[Sighting], life: float
) -> str | None:
    """Return why an install may fail, or None: it was owed to work.

    Args:
        install: When it was.
        tokens: All that the cloud ever issued to the daemon.
        troubles: All there were.
        sightings: What was in the netrc.
        life: Seconds that a token lives.
    """
    near = [trouble for trouble in troubles if trouble.begin <= install.ended]
    for trouble in near:
        if trouble.hinders == "reading" and trouble.end >= install.began:
            return trouble.kind
    near = [trouble for trouble in near if trouble.hinders != "reading" and trouble.begin <= install.began]
    around = [trouble for trouble in near if install.began < until(trouble, sightings)]
    if around:
        served = any(_serves(token, install, around) for token in tokens)
        return None if served else around[-1].kind
    return SLOW if install.ended - install.began > life / 2 - PROMISED_LESS else None


#: What a fetch and a delivery may take of the promised half of a life, in seconds.
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
    """Return the seconds from a fault's end to the last moment, before `stop`, at which no valid token stood."""
    dead = [(begin, end) for begin, end in _dead(sightings, stop) if end > trouble.end and begin < stop]
    return max((min(end, stop) - trouble.end for _, end in dead), default=0.0)


def rot(sightings: Sequence[Sighting], troubles: Sequence[Trouble], stop: float) -> float:
    """Return the longest time in seconds that a dead token stood, while nothing hindered its removal."""
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
    """Return the spans in which no valid token stood."""
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

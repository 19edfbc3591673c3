"""What all emulated token services share: issued tokens, faults on demand, and their own clock."""

from __future__ import annotations

import time
from dataclasses import dataclass
from email.utils import formatdate
from typing import Generic, TypeVar

from uvtokend.sandbox.web import Answer, Call, Site


@dataclass(frozen=True, slots=True)
class Token:
    """An issued token.

    Args:
        holder: Whom it was issued to.
        ends: When it expires, in seconds since 1970.
        kind: Its kind, if a service has several.
    """

    holder: str
    ends: float
    kind: str = ""


Endpoint = TypeVar("Endpoint", bound=str)


class Issuer(Generic[Endpoint]):
    """A token service with named endpoints.

    Attributes:
        faults: Endpoint -> the function that answers instead; remove it to repair the endpoint.
        clock_ahead: Seconds by which the service's clock is ahead of ours.
    """

    def __init__(self) -> None:
        self.faults: dict[Endpoint, Site] = {}
        self.clock_ahead = 0.0
        self._tokens: dict[str, Token] = {}

    def valid(self, token: str) -> bool:
        """Return whether a token was issued here and has not expired."""
        return token in self._tokens and self._tokens[token].ends > time.time()

    def holder(self, token: str) -> str:
        """Return whom a token was issued to."""
        return self._tokens[token].holder

    def issued(self) -> list[str]:
        """Return every token that was ever issued."""
        return list(self._tokens)

    def now(self) -> float:
        """Return the time on the service's clock, in seconds since 1970."""
        return time.time() + self.clock_ahead

    def guarded(self, endpoint: Endpoint, site: Site) -> Site:
        """Return a site with the endpoint's faults and the service's Date header."""

        def answer(call: Call) -> Answer:
            answered = self.faults.get(endpoint, site)(call)
            return Answer(
                answered.status, answered.body, {"Date": formatdate(self.now(), usegmt=True), **answered.headers}
            )

        return answer

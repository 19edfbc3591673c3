"""What every emulated token service has: the tokens that it gave out, faults on demand, and a clock of its own."""

from __future__ import annotations

import time
from dataclasses import dataclass
from email.utils import formatdate
from typing import Generic, TypeVar

from uvtokend.sandbox.web import Answer, Call, Site


@dataclass(frozen=True, slots=True)
class Token:
    """A token that was issued.

    Args:
        holder: Whom it was issued to.
        ends: When it expires, in seconds since 1970.
        kind: What it is, if a service has several kinds.
    """

    holder: str
    ends: float
    kind: str = ""


Endpoint = TypeVar("Endpoint", bound=str)


class Issuer(Generic[Endpoint]):
    """A token service, whose endpoints have names.

    Attributes:
        faults: For an endpoint, what answers instead; remove it to fix the fault.
        clock_ahead: Seconds by which the service's clock is ahead of ours.
    """

    def __init__(self) -> None:
        self.faults: dict[Endpoint, Site] = {}
        self.clock_ahead = 0.0
        self._tokens: dict[str, Token] = {}

    def valid(self, token: str) -> bool:
        """Tell whether a token was given out here and lives."""
        return token in self._tokens and self._tokens[token].ends > time.time()

    def holder(self, token: str) -> str:
        """Return whom a token was given to."""
        return self._tokens[token].holder

    def issued(self) -> list[str]:
        """Return every token that was ever given out."""
        return list(self._tokens)

    def now(self) -> float:
        """Return what the service's clock says, in seconds since 1970."""
        return time.time() + self.clock_ahead

    def guarded(self, endpoint: Endpoint, site: Site) -> Site:
        """Return a site that has the endpoint's faults, and tells the service's time as every server does."""

        def answer(call: Call) -> Answer:
            said = self.faults.get(endpoint, site)(call)
            return Answer(said.status, said.body, {"Date": formatdate(self.now(), usegmt=True), **said.headers})

        return answer

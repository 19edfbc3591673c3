"""Calls to a JFrog platform's Access API: bounded in time and size, never redirected, and sure of what was sent."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping

import requests

from uvtokend.core.model import Secret
from uvtokend.errors import FetchFailed
from uvtokend.providers.kit import deadline
from uvtokend.providers.kit.failures import transient
from uvtokend.providers.kit.http import Exchange, bounded, host_of, no_netrc, remembered, unsent

#: Seconds that a call may take in all, where the deadline leaves them.
TIMEOUT = 20.0
#: Seconds that must be left to begin a call: one that is cut short costs more than one that is put off.
LEAST = 4.0
#: Bytes of an answer.
LIMIT = 64 * 1024


class NotSent(FetchFailed):
    """The call failed before any of its body was on the way, so that nobody can have acted on it."""


class _GivenUp(OSError):
    """Nobody waits for this call any more."""


class _Body(io.BytesIO):
    """A request's body that knows whether it was begun to be sent, which the headers' being sent is not.

    Attributes:
        begun: It was.
        given_up: It must not be any more.
    """

    begun = False
    given_up = False

    def read(self, size: int | None = -1, /) -> bytes:
        self.begun = True
        if self.given_up:
            raise _GivenUp
        return super().read(size)


def post(url: str, content: Mapping[str, object], proof: Secret | None = None) -> Exchange:
    """Send JSON and return what came back, whatever its status.

    The call ends well before the deadline of the fetch does.

    Args:
        url: Where to.
        content: What to send.
        proof: The access token that says who asks.

    Raises:
        NotSent: Nothing was sent.
        FetchFailed: It was, or may have been, and there is no answer.
    """
    left = deadline.left()
    if left < LEAST:
        message = f"{host_of(url)} was not asked: of the fetch's time only {left:.0f} s were left."
        raise NotSent(transient("deadline", message, 'set fetch-timeout = "60s" in [daemon]').failure)
    seconds = min(TIMEOUT, left / 2)
    body = _Body(json.dumps(content).encode())
    headers = {"Content-Type": "application/json", "Accept": "application/json", "User-Agent": "uvtokend"}
    if proof is not None:
        headers["Authorization"] = f"Bearer {proof.reveal()}"
    late = transient("timeout", f"{host_of(url)} did not answer within {seconds:g} s.")
    try:
        return bounded(seconds, lambda: _post(url, body, headers, seconds), late)
    except FetchFailed as error:
        body.given_up = True
        if body.begun:
            raise
        raise NotSent(error.failure) from None


def _post(url: str, body: _Body, headers: Mapping[str, str], seconds: float) -> Exchange:
    with requests.Session() as session:
        session.auth = no_netrc
        try:
            answer = session.post(url, data=body, headers=headers, timeout=seconds, allow_redirects=False, stream=True)
            data = answer.raw.read(LIMIT + 1, decode_content=True)
        except requests.RequestException as error:
            raise unsent(url, error) from None
        except (OSError, ValueError) as error:
            raise unsent(url, error if isinstance(error, OSError) and not body.begun else None) from None
        except Exception as error:  # noqa: BLE001 - urllib3's own errors come through while the answer is read
            message = f"The answer of {host_of(url)} broke off ({type(error).__name__})."
            raise transient("unreachable", message) from None
    return remembered(url, answer.status_code, answer.headers, data if len(data) <= LIMIT else b"")

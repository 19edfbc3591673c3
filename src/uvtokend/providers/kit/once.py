"""HTTP calls that must not be repeated blindly: limited in time and size, never redirected, aware of what was sent.

A call that uses a one-time secret has three outcomes: a response, the certainty that nothing was sent (`NotSent`), or a
failure after which it is unknown whether the server has acted.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping

import requests

from uvtokend.errors import FetchFailed
from uvtokend.providers.kit import adapter, deadline
from uvtokend.providers.kit.failures import transient
from uvtokend.providers.kit.http import Exchange, bounded, host_of, no_netrc, remembered, unsent

#: Seconds that a call may take in total, if the deadline allows it. This also limits the use of a one-time secret, so
#: that a worker that receives SIGTERM has saved the response within 20 s.
TIMEOUT = 17.0
#: Seconds that must be left to start a call: an interrupted call is worse than a postponed one.
LEAST = 4.0
#: The most bytes of a response.
LIMIT = 64 * 1024


class NotSent(FetchFailed):
    """The call failed before any of its body was sent, so the server cannot have acted on it."""


class _GivenUp(OSError):
    """The caller no longer waits for this call."""


class _RequestBody(io.BytesIO):
    """A request's body that knows whether sending it has begun; sending the headers does not count.

    Attributes:
        begun: Whether sending has begun.
        given_up: Whether the caller has given up, so that sending must not begin.
    """

    begun = False
    given_up = False

    def read(self, size: int | None = -1, /) -> bytes:
        self.begun = True
        if self.given_up:
            raise _GivenUp
        return super().read(size)


def post(url: str, content: Mapping[str, object], headers: Mapping[str, str], most: float | None = None) -> Exchange:
    """Send JSON and return the exchange, whatever its status.

    The call ends well before the deadline of the fetch.

    Args:
        url: The URL to send to.
        content: The JSON object to send.
        headers: Additional headers, such as one that authenticates the caller.
        most: Seconds that the call may take; `TIMEOUT` by default.

    Raises:
        NotSent: Nothing was sent.
        FetchFailed: The body was sent, or may have been sent, and there is no response.
    """
    left = deadline.left()
    if left < LEAST:
        raise too_late(url, left)
    seconds = min(TIMEOUT if most is None else most, left / 2)
    body = _RequestBody(json.dumps(content).encode())
    known = {"Content-Type": "application/json", "Accept": "application/json", "User-Agent": "uvtokend", **headers}
    late = transient("timeout", f"{host_of(url)} did not answer within {seconds:g} s.")
    try:
        return bounded(seconds, lambda: _post(url, body, known, seconds), late)
    except FetchFailed as error:
        body.given_up = True
        if body.begun:
            raise
        raise NotSent(error.failure) from None


def too_late(url: str, left: float) -> NotSent:
    """Return the failure of a call that was not made because only `left` seconds remain."""
    message = f"{host_of(url)} was not asked, because the fetch had only {max(0, left):.0f} s left."
    return NotSent(transient("deadline", message, 'set fetch-timeout = "60s" in [daemon]').failure)


def _post(url: str, body: _RequestBody, headers: Mapping[str, str], seconds: float) -> Exchange:
    with requests.Session() as session:
        session.auth = no_netrc
        adapter.mount(session)
        try:
            answer = session.post(url, data=body, headers=headers, timeout=seconds, allow_redirects=False, stream=True)
            data = answer.raw.read(LIMIT + 1, decode_content=True)
        except requests.RequestException as error:
            raise unsent(url, error) from None
        except (OSError, ValueError) as error:
            raise unsent(url, error if isinstance(error, OSError) and not body.begun else None) from None
        except Exception as error:  # noqa: BLE001 - urllib3's own errors escape while the response is read
            message = f"The response of {host_of(url)} was incomplete ({type(error).__name__})."
            raise transient("unreachable", message) from None
    return remembered(url, answer.status_code, answer.headers, data if len(data) <= LIMIT else b"")

"""Limit the size of responses. A response with a token is short; a longer one would only waste memory."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import requests

from uvtokend.providers.kit import adapter

#: The most bytes of a response, after decompression.
LIMIT = 1 << 20


class TooMuchError(requests.RequestException):
    """A response is longer than `LIMIT`."""


def mount(session: requests.Session) -> None:
    """Make a session raise `TooMuchError` for a response longer than `LIMIT`, and present our client certificate.

    Raises:
        FetchFailed: The client certificate cannot be used.
    """
    adapter.mount(session, _Adapter())


class _Adapter(adapter.Adapter):
    def build_response(self, req: requests.PreparedRequest, resp: Any) -> requests.Response:
        answer = super().build_response(req, resp)
        answer.raw = _LimitedBody(answer.raw)
        return answer


class _LimitedBody:
    """The body of a response, as requests reads it: through ``stream``."""

    def __init__(self, raw: Any) -> None:
        self._raw = raw

    def __getattr__(self, name: str) -> Any:
        return getattr(self._raw, name)

    def stream(self, amt: int, decode_content: bool | None = None) -> Iterator[bytes]:
        size = 0
        for piece in self._raw.stream(amt, decode_content=decode_content):
            size += len(piece)
            if size > LIMIT:
                self._raw.close()
                raise TooMuchError
            yield piece

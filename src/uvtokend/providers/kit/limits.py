"""How much of an answer is read: what tells of a token is short, and whoever sends more wants our memory."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import requests
from requests.adapters import HTTPAdapter

#: Bytes, as they are after decompression.
LIMIT = 1 << 20


class TooMuchError(requests.RequestException):
    """An answer is longer than `LIMIT`."""


def mount(session: requests.Session) -> None:
    """Let a session read no more than `LIMIT` of any answer; a longer one raises `TooMuchError`."""
    for scheme in ("https://", "http://"):
        session.mount(scheme, _Adapter())


class _Adapter(HTTPAdapter):
    def build_response(self, req: requests.PreparedRequest, resp: Any) -> requests.Response:
        answer = super().build_response(req, resp)
        answer.raw = _Body(answer.raw)
        return answer


class _Body:
    """The body of an answer, as requests reads it: through ``stream``."""

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

"""A fast package index whose responses are all prepared before the first request.

It serves what a modern index serves: a page for each package (PEP 503), the metadata beside each wheel (PEP 658),
and the wheel. Every side gets the same pages, even if its own registry redirects downloads or has no metadata, so
that a difference between two sides comes from their credentials.
"""

from __future__ import annotations

import base64
import hashlib
import io
import zipfile
from collections.abc import Callable, Iterable
from functools import lru_cache

from bench.front import field, response
from uvtokend.sandbox.index import wheel

_REFUSED = response(401, headers={"WWW-Authenticate": 'Basic realm="bench"'})
_NOT_FOUND = response(404)
_VERSION = "1.0"


class Pages:
    """The index of one host, as a responder (`bench.front.Responder`).

    Args:
        root: The path of the repository; pages are below ``<root>/simple/``.
        names: The names of the packages.
        valid: Returns whether a login and a token are accepted; None accepts every request.
    """

    def __init__(self, root: str, names: Iterable[str], valid: Callable[[str, str], bool] | None = None) -> None:
        self._valid = valid
        self._responses: dict[bytes, bytes] = {}
        for name in names:
            self._add(f"{root}/simple/{name}/", name)

    def _add(self, page: str, name: str) -> None:
        file, data = f"{name}-{_VERSION}-py3-none-any.whl", wheel(name, _VERSION)
        metadata = zipfile.ZipFile(io.BytesIO(data)).read(f"{name}-{_VERSION}.dist-info/METADATA")
        known = f'data-core-metadata="sha256={hashlib.sha256(metadata).hexdigest()}"'
        link = f'<a href="{file}#sha256={hashlib.sha256(data).hexdigest()}" {known}>{file}</a>'
        text = f"<!DOCTYPE html><html><body>{link}</body></html>"
        binary = {"Content-Type": "application/octet-stream"}
        self._responses |= {
            page.encode(): response(200, text.encode(), {"Content-Type": "text/html; charset=UTF-8"}),
            f"{page}{file}".encode(): response(200, data, binary),
            f"{page}{file}.metadata".encode(): response(200, metadata, binary),
        }

    def __call__(self, head: bytes, _body: bytes) -> bytes:
        """Answer one request."""
        if self._valid is not None and not self._valid(*_credential(field(head, b"authorization"))):
            return _REFUSED
        return self._responses.get(head.split(b" ", 2)[1], _NOT_FOUND)


@lru_cache
def _credential(authorization: bytes) -> tuple[str, str]:
    login, _, token = base64.b64decode(authorization.removeprefix(b"Basic ")).decode().partition(":")
    return login, token

"""A chain of refresh tokens on disk: each works once, and the response to it brings the next.

The configuration's refresh token is the seed. From then on the chain is kept in a file of ours, whose name depends on
platform and seed, so that another seed starts another chain. The newest refresh token must never exist in this process
alone. So one refresh takes these steps, each durable before the next begins:

1. Take the chain's lock. A process that had to wait checks whether another one has refreshed meanwhile, and uses that.
2. Reserve room for the response on the disk.
3. Write a mark that a refresh is in flight.
4. Ask the server.
5. Replace the old link, and the mark, by the response.
6. Only now use the new access token.

A kill before the server has the request, or after step 5, costs nothing: the next fetch continues from what is on disk.
In between, the response is lost, and the protocol has no way to ask for it again; the mark then explains why the next
refresh is refused. SIGTERM is delayed from step 3 to step 5, so that stopping the daemon never loses a chain.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime

from uvtokend.plugin import Secret, parse_zulu, zulu
from uvtokend.providers.kit import durable

#: Bytes of the largest link: a response has two tokens, and none is larger than 64 KiB.
ROOM = 72 * 1024


@dataclass(frozen=True, slots=True)
class Link:
    """The current state of a chain.

    Args:
        refresh: The refresh token for the next refresh; None if the last response brought none.
        access: The last access token; None at the seed.
        issued_at: When the access token arrived, UTC.
        expires_at: Its end of life, UTC, on our clock.
        number: How many refreshes there have been.
        asked_at: When a refresh began whose response is not on disk, UTC.
    """

    refresh: Secret | None
    access: Secret | None = None
    issued_at: datetime | None = None
    expires_at: datetime | None = None
    number: int = 0
    asked_at: datetime | None = None


class Chain:
    """A chain whose lock is held.

    Attributes:
        link: Its newest link.
        advanced: Another process has refreshed since this fetch began.
    """

    def __init__(self, file: str, seed: Secret) -> None:
        self._file = file
        self._seed = seed
        self.link = self._load()
        self.advanced = False

    def ask(self, now: datetime) -> None:
        """Prepare a refresh: reserve room for the response and write the mark. An earlier mark is kept.

        Args:
            now: When the refresh begins, aware UTC.

        Raises:
            FetchFailed: Writing failed; nothing has changed.
        """
        try:
            durable.reserve(f"{self._file}.room", ROOM)
            self._save(replace(self.link, asked_at=self.link.asked_at or now), f"{self._file}.new")
        except OSError as error:
            raise durable.failed(self._file, error) from None

    def take_back(self) -> None:
        """Remove the mark of `ask`: the server cannot have acted, or said that it has not."""
        with contextlib.suppress(OSError):  # a superfluous mark does no harm
            self._save(self.link, f"{self._file}.new")
            os.unlink(f"{self._file}.room")

    def grow(self, link: Link) -> None:
        """Replace the old link by a new one; when this returns, the new link survives any crash.

        Raises:
            OSError: The new link is not on disk.
        """
        self._save(link, f"{self._file}.room")
        self.link = link

    def _save(self, link: Link, into: str) -> None:
        durable.replace(self._file, self._encode(link), into)

    def _encode(self, link: Link) -> bytes:
        document = {
            "seed_sha256": durable.digest(self._seed),
            "number": link.number,
            "refresh_token": None if link.refresh is None else link.refresh.reveal(),
            "access_token": None if link.access is None else link.access.reveal(),
            "issued_at": zulu(link.issued_at),
            "expires_at": zulu(link.expires_at),
            "asked_at": zulu(link.asked_at),
        }
        return json.dumps(document, indent=1).encode() + b"\n"

    def _load(self) -> Link:
        """Return the newest link. If the file is missing or damaged, only the seed is left to continue from."""
        data = durable.read(self._file)
        if data is None:
            return Link(self._seed)
        try:
            document = json.loads(data)
            return Link(
                refresh=_secret(document["refresh_token"]),
                access=_secret(document["access_token"]),
                issued_at=parse_zulu(document["issued_at"]),
                expires_at=parse_zulu(document["expires_at"]),
                number=int(document["number"]),
                asked_at=parse_zulu(document["asked_at"]),
            )
        except (ValueError, KeyError, TypeError, RecursionError):
            return Link(self._seed)


@contextlib.contextmanager
def held(platform: str, seed: Secret) -> Iterator[Chain]:
    """Lock the chain that begins with a seed against all other processes.

    Args:
        platform: Base URL of the platform that the seed is for.
        seed: The refresh token that the configuration refers to.

    Raises:
        FetchFailed: The state directory cannot be used.
    """
    file = durable.file_for(platform, seed.reveal())
    before = Chain(file, seed).link.number
    with durable.locked(file):
        chain = Chain(file, seed)
        chain.advanced = chain.link.number != before
        yield chain


def _secret(text: object) -> Secret | None:
    if text is not None and not isinstance(text, str):
        raise ValueError(type(text))
    return None if text is None else Secret(text)

"""Rotate a personal access token in the file that the configuration names.

A rotation revokes the old token and returns a new one. Rotating with a revoked token revokes the whole family
("Automatic reuse detection"), so a lost response must never lead to a second try. One rotation takes these steps, each
durable before the next begins:

1. Take the lock of this file.
2. Reserve room for the new token beside the file.
3. Write a mark in the state directory: the digest of the old token, and when its rotation began.
4. Ask GitLab.
5. Replace the content of the file by the new token. If that fails, the mark takes the new token instead, and the next
   fetch moves it to the file.
6. Remove the mark. Only now use the new token.

If the mark is there and the file still contains the old token, the response was lost: the old token is never sent
again, and a person has to create a new one. A different token in the file means that a person has already done so.
SIGTERM is delayed from step 2 to step 6.

The lock is between processes of one machine. Two machines with the same token would rotate it away from each other.
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from uvtokend.plugin import (
    FetchFailed,
    Frozen,
    Secret,
    checked,
    login_required,
    parse_zulu,
    read_secret,
    rejected,
    transient,
    zulu,
)
from uvtokend.providers.gitlab import responses
from uvtokend.providers.gitlab.responses import About
from uvtokend.providers.kit import deadline, durable, once
from uvtokend.providers.kit.http import Exchange, host_of

#: Bytes: more than any token that can be delivered.
ROOM = 16 * 1024 + 2
#: A token is rotated in the last third of its life, at most so long before its end.
LONGEST_MARGIN = timedelta(days=14)
#: Days: a token that ends tomorrow, rotated today to a token of one day, would end tomorrow again.
SHORTEST = 2
_SCOPES = "read_api and self_rotate"


def due(known: About) -> datetime | None:
    """Return when a token should be rotated, UTC; None if it has no end."""
    return None if known.ends is None else known.ends - min(timedelta(days=known.days) / 3, LONGEST_MARGIN)


def is_due(known: About, now: datetime) -> bool:
    """Return whether a token should be rotated now. An expired token can no longer be rotated."""
    when = due(known)
    return when is not None and known.ends is not None and when <= now < known.ends


class NotRotated(FetchFailed):
    """Nothing was done, so the old token is still valid."""


@dataclass(frozen=True, slots=True)
class Mark:
    """A rotation whose response is not in the token's file.

    Args:
        digest: SHA-256 of the old token, in hex.
        asked_at: When the rotation began, UTC.
        successor: The new token, if it arrived.
    """

    digest: str
    asked_at: datetime | None
    successor: Secret | None = None


class TokenFile:
    """A file with a token, whose lock is held.

    Args:
        server: The base URL of GitLab.
        reference: The secret reference that names the file.
        path: The file, with symlinks resolved.
        mark: The file of ours that holds the mark.
    """

    def __init__(self, server: str, reference: Frozen, path: str, mark: str) -> None:
        self._server = server
        self._reference = reference
        self._path = path
        self._mark = mark

    def token(self) -> Secret:
        """Return the token that may be used.

        Raises:
            FetchFailed: The file cannot be read, or its token must not be used again.
        """
        token, mark = read_secret(self._reference), self._load()
        if mark is None:
            return token
        if mark.digest != durable.digest(token):  # a person has put another token there
            self._clear()
            return token
        if mark.successor is None:
            raise self._lost(mark.asked_at)
        self._store(token, mark.successor, mark.asked_at)
        return mark.successor

    def rotate(self, token: Secret, known: About) -> tuple[Secret, Exchange]:
        """Rotate a token and return the new one, which is in the file, with GitLab's response.

        The new token is valid for as many days as the old one was, and at least for `SHORTEST`.

        Args:
            token: What the file contains.
            known: GitLab's information about the token.

        Raises:
            NotRotated: The old token may still be used.
            FetchFailed: The old token may not be used: GitLab refuses it, or may have replaced it.
        """
        if known.scopes and not known.scopes & responses.ROTATING:
            message = f"The token cannot rotate itself: its scopes are {', '.join(sorted(known.scopes))}."
            raise _not_done(rejected("missing-scope", message, self._new_token()))
        now = datetime.now(UTC)
        with deadline.undisturbed():
            self._prepare(token, now)
            try:
                answer = self._ask(token, known)
            except once.NotSent as error:
                self._clear()
                raise _not_done(error) from None
            except FetchFailed:
                raise self._lost(now) from None
            if (refusal := self._refusal(answer)) is not None:
                self._clear()
                raise refusal if answer.status == 401 else _not_done(refusal)
            successor = _token_of(answer)
            if successor is None:
                raise self._lost(now)
            self._store(token, successor, now)
        return successor, answer

    # ---------------------------------------------------------------------------------------------------- GitLab

    def _ask(self, token: Secret, known: About) -> Exchange:
        until = known.today + timedelta(days=max(known.days, SHORTEST))
        url = f"{self._server}/api/v4/personal_access_tokens/self/rotate"
        return once.post(url, {"expires_at": until.isoformat()}, {"PRIVATE-TOKEN": token.reveal()})

    def _refusal(self, answer: Exchange) -> FetchFailed | None:
        """Return the failure of a response that says that nothing was done; None for any other response."""
        host, status = host_of(answer.url), answer.status
        if not 300 <= status < 500 or status == 408:  # after a gateway's timeout, it is unknown
            return None
        if (failure := responses.unusable(answer)) is not None:
            return failure
        if status == 403:
            message = f"{host} does not allow this token to rotate itself (HTTP 403)."
            return rejected("missing-scope", message, self._new_token())
        if status in {404, 405}:
            message = f"{host} cannot rotate this token (HTTP {status}); self-rotation needs GitLab 16.10."
            return rejected("no-rotation", message, "remove rotate")
        if status == 401:
            return responses.refused(answer, self._server, self._reference)
        message = f"{host} did not rotate the token (HTTP {status}); it may limit how long a token is valid."
        return rejected("rotation-refused", message, self._new_token())

    # ------------------------------------------------------------------------------------------------- the files

    def _prepare(self, token: Secret, now: datetime) -> None:
        try:
            if os.access(os.path.dirname(self._path), os.W_OK):
                durable.reserve(self._beside, ROOM)
            elif not os.access(self._path, os.W_OK):
                raise PermissionError(0, "Permission denied")
            self._save(Mark(durable.digest(token), now))
        except OSError as error:
            self._tidy()
            message = f"The token's file {self._path} cannot be replaced: {error.strerror or 'unknown error'}. "
            hint = shlex.join(["ls", "-ld", os.path.dirname(self._path), self._path])
            raise _not_done(rejected("token-file", f"{message}No request was sent.", hint)) from None

    def _store(self, old: Secret, new: Secret, asked_at: datetime | None) -> None:
        """Put the new token in the file, and then remove the mark.

        Raises:
            FetchFailed: The file has been replaced meanwhile, or cannot be written; then the mark has the new token.
        """
        try:
            if durable.digest(read_secret(self._reference)) != durable.digest(old):
                self._clear()
                message = f"{self._path} was replaced while its token was being rotated. Its new content will be used."
                raise transient("token-replaced", message)
            self._write(new)
        except OSError as error:
            self._save_or_lose(Mark(durable.digest(old), asked_at, new))
            message = f"The new token could not be written to {self._path}: {error.strerror or 'unknown error'}. "
            hint = shlex.join(["df", os.path.dirname(self._path)])
            raise transient("token-file", f"{message}It is kept in the state directory.", hint) from None
        self._clear()

    def _write(self, token: Secret) -> None:
        """Replace the file, or write it in place if that cannot be done, say because it is a mount point.

        A file with another owner or with several names would lose them if it were replaced.
        """
        with open(self._path, "rb") as file:
            end = b"\n" if file.read().endswith(b"\n") else b""
            status = os.fstat(file.fileno())
        data = token.reveal().encode() + end
        try:
            if status.st_uid != os.geteuid() or status.st_nlink != 1:
                raise OSError
            durable.replace(self._path, data, self._beside, stat.S_IMODE(status.st_mode))
        except OSError:
            with open(self._path, "r+b") as file:
                file.write(data)
                file.truncate()
                file.flush()
                os.fsync(file.fileno())

    @property
    def _beside(self) -> str:
        directory, name = os.path.split(self._path)
        return os.path.join(directory, f".{name}.uvtokend")

    def _save(self, mark: Mark) -> None:
        document = {
            "token_sha256": mark.digest,
            "file": self._path,
            "asked_at": zulu(mark.asked_at),
            "successor": None if mark.successor is None else mark.successor.reveal(),
        }
        durable.replace(self._mark, json.dumps(document, indent=1).encode() + b"\n", f"{self._mark}.new")

    def _save_or_lose(self, mark: Mark) -> None:
        try:
            self._save(mark)
        except OSError:
            raise self._lost(mark.asked_at) from None

    def _load(self) -> Mark | None:
        data = durable.read(self._mark)
        try:
            document = json.loads(data) if data is not None else None
            if document is None:
                return None
            successor = document["successor"]
            return Mark(
                str(document["token_sha256"]),
                parse_zulu(document["asked_at"]),
                None if successor is None else checked(successor, self._mark),
            )
        except (ValueError, KeyError, TypeError, RecursionError):
            return None

    def _clear(self) -> None:
        self._tidy()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._mark)

    def _tidy(self) -> None:
        with contextlib.suppress(OSError):
            os.unlink(self._beside)

    # ----------------------------------------------------------------------------------------------- what to say

    def _lost(self, asked_at: datetime | None) -> FetchFailed:
        self._tidy()
        when = f" at {asked_at:%Y-%m-%d %H:%M} UTC" if asked_at else ""
        message = (
            f"The rotation{when} was interrupted before its response was stored. {host_of(self._server)} may have "
            "replaced the token, so the old one is not used again: that would revoke its successor, too."
        )
        return login_required("rotation-lost", message, self._new_token())

    def _new_token(self) -> str:
        return responses.new_token(self._server, self._reference, _SCOPES)


@contextlib.contextmanager
def held(server: str, reference: Frozen) -> Iterator[TokenFile]:
    """Lock the file that a token is kept in against all other processes of uvtokend on this machine.

    Args:
        server: The base URL of GitLab.
        reference: The secret reference that names the file.

    Raises:
        FetchFailed: It does not name a file, or the state directory cannot be used.
    """
    match reference:
        case (("file", str(name)),):
            path = os.path.realpath(name)
        case _:
            raise rejected("bad-options", "rotate = true only works with a token in a file.")
    mark = durable.file_for("gitlab", server, path)
    with durable.locked(mark):
        yield TokenFile(server, reference, path, mark)


def _not_done(error: FetchFailed) -> NotRotated:
    return NotRotated(error.failure)


def _token_of(answer: Exchange) -> Secret | None:
    token = answer.body.get("token")
    if answer.status not in {200, 201} or not isinstance(token, str):
        return None
    try:
        return checked(token, "The response of GitLab")
    except FetchFailed:
        return None

"""Write the status document as JSON, and keep the rows that only time changes.

1. A row is kept only while its token is valid and delivered, and there is no error and no notice.
2. It is used as long as the index and the lease are the same objects, the deliveries are equal, and the token's health
   and notices stay as they are. All are frozen, so whatever changes becomes another object.
3. The seconds of life left are written again each time.
4. A row of uv's store is not kept, because its notices depend on other indexes.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from uvtokend.core import notices
from uvtokend.core.delivery import Delivery
from uvtokend.core.lease import Lease
from uvtokend.core.model import Index, Request, Sink
from uvtokend.core.status import IndexStatus, StatusDocument, life_left
from uvtokend.core.views import IndexView

#: A shift that moved by less is the same: two readings of two clocks are never quite equal.
_SAME = timedelta(milliseconds=100)
#: What comes before the seconds of life left. Inside a text of JSON, these quotation marks would be escaped.
_LEFT = '"life_left_s": '


@dataclass(frozen=True, slots=True)
class _Row:
    """A row that is kept.

    Args:
        index: The index.
        lease: Its lease.
        until: When the row changes by itself, other than in its life left; None for never.
        end: When the token expires; None if it never does.
        head: The text up to the life left; the whole text if there is no end.
        tail: The text after it.
    """

    index: Index
    lease: Lease
    until: datetime | None
    end: datetime | None
    head: str
    tail: str = ""

    def text(self, now: datetime) -> str:
        """Return the row as JSON."""
        return self.head if self.end is None else f"{self.head}{life_left(self.end, now)}{self.tail}"


class Rows:
    """The rows that are kept. Call `outdated`, make these rows, call `take` with them, and then `text`."""

    def __init__(self) -> None:
        self._rows: dict[str, _Row] = {}
        self._once: dict[str, str] = {}  # the rows of the next text that must not be kept
        self._deliveries: tuple[Delivery, ...] = ()
        self._shift = timedelta()

    def outdated(
        self,
        indexes: Iterable[Index],
        leases: Mapping[Request, Lease],
        deliveries: Mapping[Sink, Delivery],
        now: datetime,
        shift: timedelta,
    ) -> list[Index]:
        """Return the indexes whose rows have to be made again.

        Args:
            indexes: The indexes to show.
            leases: All leases.
            deliveries: All deliveries.
            now: Aware UTC, on the daemon's clock.
            shift: The difference to add to the daemon's clock to get the wall clock.
        """
        if tuple(deliveries.values()) != self._deliveries or abs(shift - self._shift) >= _SAME:
            self._rows.clear()
            self._deliveries, self._shift = tuple(deliveries.values()), shift
        outdated = []
        for index in indexes:
            row = self._rows.get(index.name)
            kept = row is not None and row.index is index and row.lease is leases[index.request]
            if row is None or not kept or (row.until is not None and now >= row.until):
                outdated.append(index)
        return outdated

    def take(self, rows: Iterable[IndexStatus], views: Iterable[IndexView], now: datetime) -> None:
        """Take the rows of outdated indexes for the next text.

        Args:
            rows: The rows.
            views: The views that they were made from, in the same order.
            now: As in `outdated`.
        """
        for row, view in zip(rows, views, strict=True):
            name, text = view.index.name, json.dumps(row)
            kept = _kept(view, text, now)
            if kept is None:
                self._rows.pop(name, None)
                self._once[name] = text
            else:
                self._rows[name] = kept

    def text(self, document: StatusDocument, indexes: Iterable[Index], now: datetime) -> str:
        """Return a document as JSON, complete with the rows that were taken and those that are kept.

        Args:
            document: The document, only with rows of other indexes.
            indexes: All indexes to show, in order; the other ones follow them.
            now: As in `outdated`.
        """
        once, self._once = self._once, {}
        shown = [once[index.name] if index.name in once else self._rows[index.name].text(now) for index in indexes]
        shown += map(json.dumps, document["indexes"])
        rest = json.dumps({key: value for key, value in document.items() if key != "indexes"})
        return f'{rest[:-1]}, "indexes": [{", ".join(shown)}]}}'

    def forget(self) -> None:
        """Keep no row any longer."""
        self._rows.clear()


def _kept(view: IndexView, text: str, now: datetime) -> _Row | None:
    """Return the row to keep, or None if it must not be kept."""
    lease, credential = view.lease, view.lease.credential
    if credential is None or not view.delivered or view.last_error is not None or view.notices:
        return None
    if view.index.sink == "uv-store":
        return None
    end = credential.expires_at
    moments = (lease.refresh_at, end, *notices.moments(credential))
    until = min((moment for moment in moments if moment is not None and moment > now), default=None)
    if end is None:
        return _Row(view.index, lease, until, None, text)
    head, _, rest = text.partition(_LEFT)
    return _Row(view.index, lease, until, end, head + _LEFT, rest[rest.index(",") :])

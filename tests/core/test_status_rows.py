"""The rows of the status that are kept are those that would be made again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from uvtokend.core import notices, status, views
from uvtokend.core.delivery import Delivery
from uvtokend.core.lease import Lease
from uvtokend.core.model import (
    Credential,
    Entry,
    Failure,
    Index,
    Notice,
    Request,
    Secret,
    Settings,
    SignInEnd,
    Sink,
)
from uvtokend.core.status_rows import Rows
from uvtokend.core.views import Snapshot

NOW = datetime(2026, 1, 31, 8, tzinfo=UTC)
HOUR = timedelta(hours=1)
FRAME = status.Frame("1.0.0", "/config.toml", "/netrc", "/socket")
OFF = Index("off", "", "", "", Request(""))
#: A name that looks like the key whose value is written again.
ODD = '"life_left_s": 7, "x'
TOKEN = Credential("me", Secret("t"), NOW, NOW + HOUR)
FAILURE = Failure("transient", "unreachable", "No answer.")


def index(name: str, sink: Sink = "netrc") -> Index:
    """Return an index with a lease of its own."""
    service = f"https://{name}.example" if sink == "uv-store" else ""
    return Index(name, f"https://{name}.example/", f"{name}.example", "static", Request("static", name), sink, service)


class World:
    """Some indexes whose tokens are delivered, and the rows of their status."""

    def __init__(self, *indexes: Index, credential: Credential = TOKEN) -> None:
        self.settings = Settings("config.toml", indexes, disabled=(OFF,))
        half = NOW + HOUR / 2
        self.leases = {each.request: Lease(each.request, "waiting", credential, half, half) for each in indexes}
        entry = Entry("", credential.login, credential.password)
        standing = {each.target: replace(entry, host=each.host, service=each.service) for each in indexes}
        self.deliveries: Mapping[Sink, Delivery] = {
            "netrc": Delivery(False, standing, seen_at=NOW),
            "uv-store": Delivery(False, standing, seen_at=NOW),
        }
        self.rows = Rows()

    def made(self, seconds: float = 0.0, shift: timedelta = timedelta()) -> list[str]:
        """Return the indexes whose rows are made for a status, after checking that the status is a whole new one."""
        now, indexes = NOW + timedelta(seconds=seconds), self.settings.indexes
        outdated = self.rows.outdated(indexes, self.leases, self.deliveries, now, shift)
        snapshot = self._snapshot(outdated, now)
        self.rows.take(status.rows(snapshot, now, shift), snapshot.indexes, now)
        document = status.of_daemon(FRAME, self._snapshot((), now), self.settings.disabled, now, shift)
        text = self.rows.text(document, indexes, now)
        whole = status.of_daemon(FRAME, self._snapshot(indexes, now), self.settings.disabled, now, shift)
        assert text == json.dumps(whole)
        return [each.name for each in outdated]

    def _snapshot(self, indexes: list[Index] | tuple[Index, ...], now: datetime) -> Snapshot:
        return views.snapshot(indexes, self.leases, self.deliveries, {}, now)


def test_a_row_is_made_once() -> None:
    """The row of a valid, delivered token is made once; the following documents have the current life left."""
    world = World(index("a"), index(ODD), index("b", "memory"))
    assert world.made() == ["a", ODD, "b"]
    assert world.made(0.5) == []
    assert world.made(1799) == []


def test_a_row_is_made_anew_if_its_lease_changes() -> None:
    """A new token or a fetch in flight affects the row of its own index only."""
    a, b = index("a"), index("b")
    world = World(a, b)
    world.made()
    world.leases[b.request] = replace(world.leases[b.request], failures=1)
    assert world.made() == ["b"]
    assert world.made() == []


def test_rows_are_made_anew_if_anything_else_changes() -> None:
    """All rows are made again if a delivery or the wall clock changes, and one row if its index has been reconfigured.
    Forgotten rows are made again."""
    a, b = index("a"), index("b")
    world = World(a, b)
    world.made()
    world.deliveries = {**world.deliveries, "netrc": replace(world.deliveries["netrc"], problems=(), note="mounted")}
    assert world.made() == ["a", "b"]
    assert world.made(shift=HOUR) == ["a", "b"]
    flicker = HOUR + timedelta(microseconds=20)
    assert world.rows.outdated((a, b), world.leases, world.deliveries, NOW, flicker) == []
    world.settings = replace(world.settings, indexes=(replace(a, url="https://a.example/other/"), b))
    assert world.made(shift=HOUR) == ["a"]
    world.rows.forget()
    assert world.made(shift=HOUR) == ["a", "b"]


@pytest.mark.parametrize(
    ("credential", "moment"),
    [
        (TOKEN, HOUR / 2),
        (replace(TOKEN, expires_at=NOW + HOUR / 4), HOUR / 4),
        (replace(TOKEN, sign_in_end=SignInEnd("the sign-in", NOW + HOUR * 1.25, "aws sso login")), HOUR / 4),
        (replace(TOKEN, renew="ask", expires_at=NOW + notices.ENDS_SOON + HOUR / 4), HOUR / 4),
        (replace(TOKEN, expires_at=None), HOUR / 2),
    ],
)
def test_time_changes_a_row(credential: Credential, moment: timedelta) -> None:
    """A row is made again when its token becomes stale or expires, and when a notice about it begins."""
    world = World(index("a"), credential=credential)
    world.made()
    seconds = moment.total_seconds()
    assert world.made(seconds - 1) == []
    assert world.made(seconds) == ["a"]


def test_a_stale_token_without_an_end_stays_as_it_is() -> None:
    """Once it is stale, the row of a token without a known end no longer changes with time."""
    world = World(index("a"), credential=replace(TOKEN, expires_at=None))
    assert world.made(1800) == ["a"]
    assert world.made(1e9) == []


@pytest.mark.parametrize(
    "credential",
    [replace(TOKEN, notice=Notice("n", "Look.")), replace(TOKEN, expires_at=NOW), replace(TOKEN, password=Secret("u"))],
)
def test_only_what_is_fine_is_kept(credential: Credential) -> None:
    """A row with a notice, without a valid token, or with one that is not delivered is made again each time."""
    a = index("a")
    world = World(a)
    world.made()
    world.leases[a.request] = replace(world.leases[a.request], credential=credential)
    assert [world.made(), world.made()] == [["a"], ["a"]]


def test_an_error_is_not_kept() -> None:
    """A row with an error or without a token is made again each time."""
    a, b = index("a"), index("b")
    world = World(a, b)
    world.leases[a.request] = replace(world.leases[a.request], last_failure=FAILURE, failed_at=NOW)
    world.leases[b.request] = Lease(b.request)
    assert [world.made(), world.made()] == [["a", "b"], ["a", "b"]]


def test_a_row_of_the_store_is_not_kept() -> None:
    """An index in uv's store may get a notice about another index at any time, so its row is made again each time."""
    world = World(index("a", "uv-store"))
    assert [world.made(), world.made()] == [["a"], ["a"]]

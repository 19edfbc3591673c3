"""The state of an index at one moment, derived from its lease and its sink."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from uvtokend.core import views
from uvtokend.core.delivery import Delivery
from uvtokend.core.lease import Lease
from uvtokend.core.model import Credential, Failure, Index, LastError, Problem, Request, Secret, Sink, State

NOW = datetime(2026, 1, 31, 8, tzinfo=UTC)
REQUEST = Request("azure-artifacts", "https://h.example/a")
NETRC = Index("a", "https://h.example/a/simple/", "h.example", "azure-artifacts", REQUEST)
STORE = replace(NETRC, sink="uv-store", service="https://h.example/a")
MEMORY = replace(NETRC, sink="memory")
TOKEN = Credential("me", Secret("t"), NOW, NOW + timedelta(hours=1))
FAILURE = Failure("transient", "disk-full", "The disk is full.", "df -h")


def of(index: Index, lease: Lease, delivery: Delivery) -> views.IndexView:
    """Return the view of one index whose sinks are all in the same state."""
    deliveries: dict[Sink, Delivery] = {"netrc": delivery, "uv-store": delivery}
    return views.snapshot([index], {REQUEST: lease}, deliveries, {}, NOW).indexes[0]


@pytest.mark.parametrize(
    ("index", "foreign", "message", "hint"),
    [
        (NETRC, "h.example", "already holds an entry for h.example that is not ours; it is left alone.", "adopt a"),
        (
            STORE,
            "h.example",
            "holds an entry for h.example, which uv uses before any record of its own store.",
            "adopt a",
        ),
        (MEMORY, "h.example", "holds an entry for h.example, which uv uses before it asks keyring.", "adopt a"),
        (STORE, "default", "holds a default entry, which uv uses before any record of its own store.", "machine HOST"),
        (MEMORY, "default", "holds a default entry, which uv uses before it asks keyring.", "machine HOST"),
        (NETRC, "default", "", ""),
        (NETRC, "other.example", "", ""),
    ],
)
def test_a_foreign_entry_blocks_an_index_of_each_sink(index: Index, foreign: str, message: str, hint: str) -> None:
    """A foreign entry that uv would use blocks the index, and the message says why. An entry that does not matter is
    not reported."""
    lease = Lease(REQUEST, "waiting", TOKEN, NOW, NOW)
    wanted = views.entry(index, lease, NOW)
    assert wanted is not None
    standing = Delivery(False, {index.target: wanted}, foreign=frozenset({foreign}), seen_at=NOW)
    view = of(index, lease, standing)
    assert (view.state, view.delivered) == (("blocked", False) if message else ("waiting", True))
    error = view.last_error
    assert (error.message.removeprefix("The netrc ") if error else "") == message
    assert ((error.hint or "") if error else "").endswith(hint)
    assert error is None or (error.kind, error.reason, error.at) == ("delivery", "foreign-entry", NOW)


@pytest.mark.parametrize(
    ("state", "failing", "shown", "retry"),
    [
        ("waiting", False, "waiting", None),
        ("waiting", True, "retrying", 9),
        ("fetching", False, "fetching", None),
        ("fetching", True, "fetching", None),
        ("retrying", False, "retrying", 5),
        ("retrying", True, "retrying", 5),
        ("blocked", True, "blocked", 5),
    ],
)
def test_the_retry_of_a_fetch_comes_before_that_of_a_delivery(
    state: State, failing: bool, shown: State, retry: int | None
) -> None:
    """The state of the lease's fetch is shown first. If the lease is only waiting, a failed delivery is shown as
    retrying."""
    lease = Lease(REQUEST, state, TOKEN, NOW, NOW + timedelta(seconds=5))
    failed = Delivery(failure=FAILURE, failed_at=NOW, retry_at=NOW + timedelta(seconds=9))
    view = of(NETRC, lease, failed if failing else Delivery())
    assert view.state == shown
    assert view.retry_at == (None if retry is None else NOW + timedelta(seconds=retry))
    error = LastError("delivery", "disk-full", "The disk is full.", "df -h", NOW)
    assert view.last_error == (error if failing else None)


def test_a_past_failure_is_not_an_error() -> None:
    """The time of a failure is remembered for longer than the failure, and shows no error by itself."""
    assert of(NETRC, Lease(REQUEST, failed_at=NOW), Delivery(failed_at=NOW)).last_error is None


def test_the_first_fatal_problem_in_the_netrc_is_the_error() -> None:
    """The error names the file and line of the first fatal problem. A problem that is not fatal causes no error."""
    small, great, other = (Problem("n", f"line {number}", "odd", "fix it", fatal=number > 1) for number in (1, 2, 3))
    view = of(NETRC, Lease(REQUEST, "waiting", TOKEN), Delivery(problems=(small, great, other), seen_at=NOW))
    assert view.last_error == LastError("delivery", "netrc-unreadable", "n, line 2: odd.", "fix it", NOW)
    assert of(NETRC, Lease(REQUEST), Delivery(problems=(small,), seen_at=NOW)).last_error is None


@pytest.mark.parametrize(
    ("mine", "theirs", "secret", "shown"),
    [
        ("me", "me", False, "both have me"),
        ("me", "me", True, "both have ****"),
        ("", "you", False, "a URL cannot carry an empty one"),
        ("me", "", False, "a URL cannot carry an empty one"),
        ("me", "you", False, ""),
    ],
)
def test_two_tokens_that_uv_cannot_tell_apart(mine: str, theirs: str, secret: bool, shown: str) -> None:
    """Two indexes on one host in uv's store with the same or an empty user name get a notice, because uv could use
    either token for both."""
    other = Request("azure-artifacts", "https://h.example/b")
    options = (("username", (("env", "CODE"),)),) if secret else ()
    index = replace(STORE, request=replace(REQUEST, options=options))
    neighbor = replace(STORE, name="b", request=other, service="https://h.example/b")
    leases = {
        request: Lease(request, "waiting", replace(TOKEN, login=login))
        for request, login in ((index.request, mine), (other, theirs))
    }
    deliveries: dict[Sink, Delivery] = {"netrc": Delivery(), "uv-store": Delivery()}
    view = views.snapshot([index, neighbor], leases, deliveries, {}, NOW).indexes[0]
    assert [notice.reason for notice in view.notices] == (["same-username"] if shown else [])
    assert all(shown in notice.message for notice in view.notices)

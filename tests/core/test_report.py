"""The report: what a person reads of the status document and of the event log."""

from __future__ import annotations

import copy
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uvtokend.core import report

NOW = datetime(2026, 1, 31, 8, 0, tzinfo=UTC)
ERROR = {
    "kind": "login-required",
    "reason": "sso-expired",
    "message": "The SSO session of profile dev has ended.",
    "hint": "aws sso login --profile dev",
    "at": "2026-01-31T07:59:00Z",
}


def index(name: str = "private-registry", **changes: Any) -> dict[str, Any]:
    """Return an index whose token is fresh and delivered, but for the changes."""
    return {
        "name": name,
        "health": "fresh",
        "state": "waiting",
        "life_left_s": 30211,
        "refresh_at": "2026-01-31T12:05:00Z",
        "delivered": True,
        "failures": 0,
        "last_error": None,
        **changes,
    }


def document(*indexes: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """Return a status document of a running daemon that is well, but for the changes."""
    return {
        "pid": 4711,
        "netrc": "/home/me/.netrc",
        "delivery": {"ok": True, "problem": None},
        "indexes": list(indexes),
        **changes,
    }


def test_a_well_daemon_is_one_line_an_index() -> None:
    """Where nothing is broken the table says so alone: health, life left, next refresh."""
    assert report.status(document(index(), index("b", life_left_s=None)), NOW).splitlines() == [
        "INDEX             HEALTH  LIFE LEFT     NEXT REFRESH",
        "private-registry  fresh   8h 23m        in 4h 5m",
        "b                 fresh   no known end  in 4h 5m",
        "pid 4711, netrc /home/me/.netrc",
    ]


def test_what_is_broken_comes_first_with_cause_and_mend() -> None:
    """The first line names the cause and the second the exact command that mends it."""
    broken = index(health="none", state="blocked", delivered=False, life_left_s=None, refresh_at=None, last_error=ERROR)
    lines = report.status(document(index("good"), broken), NOW).splitlines()
    assert lines[0] == "private-registry: The SSO session of profile dev has ended."
    assert lines[1] == "  fix: aws sso login --profile dev"
    assert lines[-2].split() == ["private-registry", "none", "-", "blocked"]


def test_indexes_with_one_trouble_are_told_together() -> None:
    """Ten indexes behind one login are one trouble, not ten."""
    lines = report.troubles(document(index("a", last_error=ERROR), index("b", last_error=ERROR)), 80, False)
    assert lines == ["a, b: The SSO session of profile dev has ended.", "  fix: aws sso login --profile dev"]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"state": "fetching", "health": "none", "delivered": False}, ["x: The token is being fetched right now."]),
        ({"delivered": False}, ["x: The token is there, but not delivered yet."]),
        (
            {"state": "retrying", "health": "expired", "delivered": False},
            ["x: There is no valid token yet.", "  fix: uvtokend refresh x"],
        ),
        ({"last_error": {**ERROR, "hint": None}}, ["x: The SSO session of profile dev has ended."]),
        ({"health": "stale"}, []),
    ],
)
def test_an_index_without_a_delivered_token_is_explained(changes: dict[str, Any], expected: list[str]) -> None:
    """Whoever has no valid delivered token reads why, also where no error has been seen yet."""
    assert report.troubles(document(index("x", **changes)), 80, False) == expected


def test_a_netrc_that_is_broken_is_told_once() -> None:
    """A problem of the delivery is a trouble of all; where an index tells it with its mend, it is not told twice."""
    problem = {"ok": False, "problem": "The disk is full."}
    assert report.troubles(document(index("a"), delivery=problem), 80, False) == ["The disk is full."]
    error = {**ERROR, "message": "The disk is full.", "hint": "df -h /home"}
    told = report.troubles(document(index("a", last_error=error), delivery=problem), 80, False)
    assert told == ["a: The disk is full.", "  fix: df -h /home"]


def test_without_a_daemon_the_first_line_says_so() -> None:
    """What is known from disk is shown, but nobody may believe that it is being refreshed."""
    lines = report.status(document(index(), pid=None), NOW).splitlines()
    assert lines[:2] == ["uvtokend is not running: nothing is refreshed.", "  fix: uvtokend start"]
    assert lines[-1].split() == ["private-registry", "fresh", "8h", "23m", "-"]
    dead = index(health="expired", delivered=False)
    assert report.troubles(document(dead, pid=None), 80, False) == lines[:2]


@pytest.mark.parametrize("pid", [None, 4711])
def test_without_an_index_it_says_how_to_go_on(pid: int | None) -> None:
    """An empty configuration is no error; the next step is named."""
    assert report.status(document(pid=pid), NOW).splitlines()[0] == report.INIT


@pytest.mark.parametrize(
    ("changes", "cell"),
    [
        ({"state": "fetching"}, "now"),
        ({"refresh_at": "2026-01-31T07:00:00Z"}, "now"),
        ({"state": "retrying", "failures": 3}, "retrying, 3 failed"),
        ({"state": "retrying"}, "retrying"),
        ({"state": "blocked"}, "blocked"),
        ({"refresh_at": None}, "waiting"),
        ({"refresh_at": "2026-01-31T08:00:30.500Z"}, "in 30s"),
    ],
)
def test_the_next_refresh(changes: dict[str, Any], cell: str) -> None:
    """The last column says when something will be tried again, or that nothing will help until a person acts."""
    assert report.status(document(index("x", **changes)), NOW).splitlines()[-2].endswith(f"  {cell}")


def test_a_token_that_is_not_delivered_is_not_called_fresh_alone() -> None:
    """A fresh token that no uv can read is worth nothing, and the table must not look well."""
    assert "fresh, not delivered" in report.status(document(index("x", delivered=False)), NOW)


@pytest.mark.parametrize("width", [20, 40, 60, 80, 200])
def test_it_fits_the_terminal(width: int) -> None:
    """Sentences are wrapped and names shortened to the width; commands never are."""
    long_error = {**ERROR, "message": "A long sentence of many words. " * 5, "hint": "aws sso login " + "x" * 200}
    text = report.status(document(index("n" * 100, last_error=long_error), netrc="/n"), NOW, width)
    lines = text.splitlines()
    assert f"  fix: {long_error['hint']}" in lines
    sentence = [line for line in lines if "sentence" in line]
    assert all(len(line) <= width + 2 for line in sentence)
    row = next(line for line in lines if "8h 23m" in line)
    assert len(row) <= max(width, 12 + len("  fresh   8h 23m     in 4h 5m     "))


def test_colour_only_if_asked_and_it_changes_no_text() -> None:
    """Colour is decoration: without the escapes the text is the same, and unasked there is none."""
    doc = document(index("a"), index("b", health="stale"), index("c", health="none", last_error=ERROR))
    plain, painted = report.status(doc, NOW), report.status(doc, NOW, colour=True)
    assert "\x1b" not in plain
    for shade in (report.GREEN, report.YELLOW, report.RED, report.BOLD, report.DIM):
        assert f"\x1b[{shade}m" in painted
        painted = painted.replace(f"\x1b[{shade}m", "")
    assert painted.replace("\x1b[0m", "") == plain


@given(st.text(), st.text(), st.booleans())
def test_no_outside_text_reaches_a_terminal_raw(name: str, message: str, running: bool) -> None:
    """Whatever a cloud or a configuration puts into a text, no control character of it comes out."""
    error = {**ERROR, "message": message, "hint": message}
    doc = document(index(name, last_error=error), pid=1 if running else None, netrc=name)
    assert report.status(doc, NOW).replace("\n", "").isprintable()
    record = {"at": name, "level": message, "names": [name], "message": message, "hint": message}
    assert report.event(record).isprintable()


@given(st.text(alphabet="ab \n", max_size=100), st.integers(1, 30))
def test_wrapping_loses_nothing(text: str, width: int) -> None:
    """Wrapping changes white space alone."""
    assert " ".join(report.wrapped(text, width)).split() == text.split()


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-5, "0s"), (0.9, "0s"), (59, "59s"), (60, "1m 0s"), (3599, "59m 59s"), (3600, "1h 0m"), (90061, "1d 1h")],
)
def test_durations(seconds: float, text: str) -> None:
    """A length of time is told in its two greatest units, rounded down: nobody is promised more life than there is."""
    assert report.duration(seconds) == text


def test_events() -> None:
    """An event is one line with its time, level, names, sentence and mend; a broken record is named, not raised."""
    record = {"at": "2026-01-31T08:00:00Z", "level": "error", "event": "x", "names": ["a", "b"], "message": "No."}
    full = {**record, "hint": "do it"}
    assert report.event(full) == "2026-01-31T08:00:00Z  error    a, b: No.  fix: do it"
    assert report.event({**record, "names": [], "hint": None}) == "2026-01-31T08:00:00Z  error    No."
    assert "\x1b[31m" in report.event(full, colour=True)
    assert report.event({"at": 1}) == report.event({**full, "names": 3}) == "(a line that is no event)"


def test_healthy_and_refreshed() -> None:
    """Healthy: a valid token is delivered. Refreshed: and the last attempt brought it."""
    assert report.healthy(index())
    assert report.healthy(index(health="stale", last_error=ERROR))
    assert not report.healthy(index(delivered=False))
    assert not report.healthy(index(health="expired"))
    assert report.refreshed(index())
    assert not report.refreshed(index(last_error=ERROR))


def test_the_document_is_left_alone() -> None:
    """Reading a document changes nothing in it."""
    doc = document(index("a", last_error=ERROR))
    before = copy.deepcopy(doc)
    report.status(doc, NOW)
    assert doc == before


def test_notices_stand_above_the_table_with_their_mends() -> None:
    """What is true of several indexes is said once."""
    notice = {"reason": "ends-soon", "message": "This secret ends in 3 days.", "hint": "put a new one there"}
    text = report.status(document(index("a", notices=[notice]), index("b", notices=[notice]), index("c")), NOW)
    assert text.splitlines()[:3] == ["a, b: This secret ends in 3 days.", "  fix: put a new one there", ""]

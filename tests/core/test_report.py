"""The texts that people read: the status and the event log."""

from __future__ import annotations

import copy
import re
import sys
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uvtokend.core import index_table, report
from uvtokend.core.document import INVALID, STOPPED, healthy, ready, refreshed, under_way
from uvtokend.core.event_line import event_line
from uvtokend.core.prompt import short_line
from uvtokend.core.text import BOLD, DIM, GREEN, RED, YELLOW

NOW = datetime(2026, 1, 31, 8, 0, tzinfo=UTC)
HOST = "acme-123456789012.d.codeartifact.eu-central-1.amazonaws.com"
ARN = "arn:aws:sts::123456789012:assumed-role/dev/me"
ERROR = {
    "kind": "login-required",
    "reason": "sso-expired",
    "message": "The SSO session of profile 'dev' has expired.",
    "hint": "aws sso login --profile dev",
    "at": "2026-01-31T07:59:00Z",
}


def index(name: str = "private-registry", **changes: Any) -> dict[str, Any]:
    """Return an index with a fresh delivered token, with these changes."""
    return {
        "name": name,
        "url": f"https://{HOST}/pypi/production/simple/",
        "host": HOST,
        "provider": "aws-codeartifact",
        "sink": "netrc",
        "enabled": True,
        "username": "aws",
        "identity": ARN,
        "health": "fresh",
        "state": "waiting",
        "expires_at": "2026-01-31T16:23:31Z",
        "life_left_s": 30211,
        "refresh_at": "2026-01-31T12:05:00Z",
        "retry_at": None,
        "delivered": True,
        "failures": 0,
        "last_error": None,
        **changes,
    }


def off(name: str) -> dict[str, Any]:
    """Return an incomplete, disabled index."""
    nothing = dict.fromkeys(("host", "provider", "username", "identity", "expires_at", "refresh_at", "state"))
    return index(name, enabled=False, health="none", delivered=False, **nothing)


def blocked(name: str, **changes: Any) -> dict[str, Any]:
    """Return a blocked index that needs a sign-in and has no token, with these changes."""
    without = {"health": "none", "delivered": False, "expires_at": None, "refresh_at": None, "identity": None}
    return index(name, **{**without, "state": "blocked", "last_error": ERROR, "failures": 1, **changes})


def document(*indexes: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """Return the status document of a healthy daemon, with these changes."""
    return {
        "version": "1.0.0",
        "pid": 4711,
        "started_at": "2026-01-31T07:00:00Z",
        "config": "/c",
        "config_stale": None,
        "netrc": "/home/me/.netrc",
        "delivery": {"ok": True, "problem": None},
        "indexes": list(indexes),
        **changes,
    }


def stopped(*indexes: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """Return the status document without a running daemon."""
    idle = [{**index, "state": None} for index in indexes]
    delivery = {"ok": False, "problem": STOPPED}
    return document(*idle, **{"pid": None, "started_at": None, "delivery": delivery, **changes})


FETCHING = blocked("a", state="fetching", last_error=None)
LIVE = index("b", state="blocked", last_error=ERROR)


def lines(shown: dict[str, Any], width: int = 200, **options: Any) -> list[str]:
    """Return the lines of the status in UTC."""
    return report.status(shown, NOW, width, zone=UTC, **options).splitlines()


def test_the_status_of_a_healthy_daemon() -> None:
    """A wide terminal shows a headline and one line per index, with every fact in a column."""
    unlimited = index("b", expires_at=None, identity=None, host="b.example", sink="uv-store")
    text = lines(document(index(), unlimited), 250)
    assert text[0] == "All 2 indexes are ready."
    assert text[1] == ""
    assert text[2].split("  ")[0] == "INDEX"
    assert [cell.strip() for cell in text[2].split("  ") if cell] == [
        "INDEX",
        "HOST",
        "PROVIDER",
        "FOR",
        "TOKEN",
        "STATE",
        "STORED IN",
    ]
    assert [cell.strip() for cell in text[3].split("  ") if cell] == [
        "private-registry",
        HOST,
        "aws-codeartifact",
        ARN,
        "expires 16:23, in 8 h",
        "refresh in 4 h",
        "netrc, plain text",
    ]
    assert [cell.strip() for cell in text[4].split("  ") if cell][-3:] == [
        "no known end",
        "refresh in 4 h",
        "uv's store, plain text",
    ]
    assert text[5] == "uvtokend 1.0.0, pid 4711, running since 07:00, netrc /home/me/.netrc"


def test_a_terminal_of_eighty_columns() -> None:
    """Facts that do not fit into a column follow below the line of their index."""
    assert lines(document(index()), 80) == [
        "The index is ready.",
        "",
        "INDEX             TOKEN                  STATE           STORED IN",
        "private-registry  expires 16:23, in 8 h  refresh in 4 h  netrc, plain text",
        f"  {HOST}",
        f"  for {ARN}",
        "uvtokend 1.0.0, pid 4711, running since 07:00, netrc /home/me/.netrc",
    ]


@pytest.mark.parametrize(
    ("indexes", "headline"),
    [
        ([index()], "The index is ready."),
        ([index("a"), index("b"), off("c")], "All 2 indexes are ready; 1 is disabled."),
        ([off("c")], "No index is enabled; 1 is disabled."),
        (
            [index("a"), index("b"), index("c"), blocked("d"), blocked("e", state="retrying")],
            "3 of 5 indexes are ready; 1 needs a sign-in, 1 is retrying.",
        ),
        ([index("a"), blocked("b"), blocked("c")], "1 of 3 indexes is ready; 2 need a sign-in."),
        ([blocked("b")], "The index is not ready; it needs a sign-in."),
        (
            [blocked("a", state="fetching", last_error=None)] * 2,
            "0 of 2 indexes are ready; 2 are fetching their tokens.",
        ),
        ([blocked("a", last_error={**ERROR, "kind": "rejected"})], "The index is not ready; it is blocked."),
        ([index("a", delivered=False)], "The index is not ready; it is not delivered."),
        ([blocked("a", state="waiting", last_error=None)], "The index is not ready; it has no valid token."),
        (
            [index("a"), index("b", state="blocked", last_error=ERROR)],
            "All 2 indexes are ready, but 1 needs a sign-in.",
        ),
        ([index("a", state="retrying", last_error=ERROR)], "The index is ready, but it is retrying."),
    ],
)
def test_the_headline(indexes: list[dict[str, Any]], headline: str) -> None:
    """The headline says how many indexes are ready and what the others need, with singular and plural right."""
    assert lines(document(*indexes))[0] == headline


def test_problems_follow_the_headline_with_their_fix() -> None:
    """The cause of each problem follows the headline, with the exact fix command below it."""
    text = lines(document(index("good"), blocked("a"), blocked("b")))
    assert text[1:3] == [
        "a, b: The SSO session of profile 'dev' has expired.",
        "  fix: aws sso login --profile dev",
    ]


def test_a_blocked_index_with_a_valid_token() -> None:
    """If the token is still valid, the problem says until when uv works."""
    text = lines(document(index("a", state="blocked", last_error=ERROR)))
    assert text[1] == "a: The SSO session of profile 'dev' has expired. uv works until 16:23."


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"state": "fetching", "health": "none", "delivered": False}, []),
        ({"delivered": False}, ["x: The token is not delivered yet."]),
        (
            {"state": "retrying", "health": "expired", "delivered": False},
            ["x: There is no valid token yet.", "  fix: uvtokend refresh x"],
        ),
        (
            {"last_error": {**ERROR, "hint": None}, "expires_at": None},
            ["x: The SSO session of profile 'dev' has expired."],
        ),
        ({"health": "stale"}, []),
        ({"enabled": False, "delivered": False}, []),
    ],
)
def test_an_index_without_a_delivered_token_is_explained(changes: dict[str, Any], expected: list[str]) -> None:
    """An index without a valid delivered token is explained even if no error has been recorded yet."""
    text = lines(document(index("x", **changes)))
    assert text[1 : text.index("")] == expected


def test_a_delivery_problem_is_shown_once() -> None:
    """A delivery problem is shown once, at the index that has a fix for it if there is one."""
    problem = {"ok": False, "problem": "The disk is full."}
    assert lines(document(index("a"), delivery=problem))[1] == "The disk is full."
    error = {**ERROR, "message": "The disk is full.", "hint": "df -h /home"}
    text = lines(document(index("a", last_error=error, state="retrying"), delivery=problem))
    assert text[1:4] == ["a: The disk is full.", "  fix: df -h /home", ""]


def test_a_changed_configuration_is_reported() -> None:
    """If config.toml changed since the daemon loaded it, the status says so and names `uvtokend reload`."""
    text = lines(document(index(), config_stale="config.toml changed 3 min ago."))
    assert text[1:3] == ["config.toml changed 3 min ago.", "  fix: uvtokend reload"]


def test_an_invalid_configuration_is_corrected_first() -> None:
    """The daemon refuses to load an invalid configuration, so the fix first names the file to correct."""
    text = lines(document(index(), config_stale=f"{INVALID}: line 3."))
    assert text[2] == "  fix: correct /c, then run: uvtokend reload"


def test_the_status_without_a_daemon() -> None:
    """The first line says that no tokens are being refreshed; the next says how long those on disk are valid."""
    soon = index("b", expires_at="2026-01-31T08:40:00Z")
    expired = index("c", health="expired", delivered=False, expires_at="2026-01-31T05:00:00Z")
    text = lines(
        stopped(index("a"), soon, expired),
        absence=report.Absence(more=["systemd unit x: failed (exit-code)", "  Boom."]),
    )
    assert text[:6] == [
        "uvtokend is not running, so no tokens are being refreshed.",
        "  fix: uvtokend start",
        "2 of 3 tokens on disk are still valid; uv works until 08:40, for 40 min.",
        "systemd unit x: failed (exit-code)",
        "Boom.",
        "",
    ]
    assert text[-1].split("  ")[-2:] == ["expired 05:00, 3 h ago", "-"] or "expired 05:00, 3 h ago" in text[-1]
    assert lines(stopped(expired))[2] == "No valid token is on disk."
    assert lines(stopped(index()))[2] == "The token on disk is still valid; uv works until 16:23, for 8 h."
    assert lines(stopped(index(expires_at=None)))[2] == "The token on disk is still valid."


def test_a_daemon_with_another_socket_is_the_headline() -> None:
    """If another daemon serves this netrc, the fix leads to that daemon instead of starting a second one."""
    why = report.Absence("A daemon (pid 5) keeps it fresh.", "unset UVTOKEND_SOCKET")
    problem = {"ok": False, "problem": why.sentence}
    assert lines(stopped(index(), delivery=problem), absence=why)[:3] == [
        "A daemon (pid 5) keeps it fresh.",
        "  fix: unset UVTOKEND_SOCKET",
        "The token on disk is still valid; uv works until 16:23, for 8 h.",
    ]
    text = lines(stopped(index(), delivery=problem), absence=report.Absence(why.sentence, None))
    assert text[:2] == [why.sentence, "The token on disk is still valid; uv works until 16:23, for 8 h."]
    assert "fix" not in "".join(text)
    home = report.Absence(elsewhere=("This shell has HOME=/b.", "export HOME=/a"))
    assert lines(stopped(), absence=home) == [report.INIT, "This shell has HOME=/b.", "  fix: export HOME=/a"]


def test_problems_of_this_shell_come_first() -> None:
    """The daemon does not know a problem of this shell, and no other fix helps before it is solved."""
    shell = [("uv in this shell reads /b/.netrc.", "export HOME=/a")]
    text = lines(document(blocked("a")), shell=shell)
    assert text[1:3] == ["uv in this shell reads /b/.netrc.", "  fix: export HOME=/a"]


def test_a_broken_configuration_without_a_daemon_is_a_problem() -> None:
    """Without a daemon and with an invalid configuration, the status shows only these two facts and the fix."""
    text = lines(stopped(config_stale="config.toml is invalid: line 3: Invalid TOML."))
    assert text == [
        "uvtokend is not running, so no tokens are being refreshed.",
        "config.toml is invalid: line 3: Invalid TOML.",
        "  fix: correct /c, then run: uvtokend start",
    ]


@pytest.mark.parametrize("status_document", [stopped(), document()])
def test_without_an_index_the_next_step_is_shown(status_document: dict[str, Any]) -> None:
    """Without an index the status names the next step instead of an error."""
    assert lines(status_document)[0] == report.INIT


@pytest.mark.parametrize(
    ("changes", "cell"),
    [
        ({"state": "fetching"}, "fetching…"),
        ({"refresh_at": "2026-01-31T07:00:00Z"}, "refresh due"),
        ({"state": "retrying", "failures": 3, "retry_at": "2026-01-31T08:00:12Z"}, "retrying in 12 s (3 failed)"),
        ({"state": "retrying"}, "retrying"),
        ({"state": "blocked"}, "blocked"),
        ({"state": "blocked", "last_error": ERROR}, "needs sign-in"),
        ({"state": "blocked", "last_error": {**ERROR, "kind": "rejected"}}, "rejected"),
        ({"refresh_at": None}, "waiting"),
        ({"refresh_at": "2026-01-31T08:00:30.500Z"}, "refresh in 30 s"),
        ({"enabled": False}, "disabled"),
    ],
)
def test_the_state_column(changes: dict[str, Any], cell: str) -> None:
    """The state column says when the next attempt is, or that a person must act."""
    assert f"  {cell}  " in lines(document(index("x", **changes)), 250)[-2]


@pytest.mark.parametrize(
    ("changes", "cell"),
    [
        ({"delivered": False}, "expires 16:23, in 8 h (not delivered)"),
        ({"expires_at": "2026-02-03T09:30:00Z"}, "expires Feb 3 09:30, in 3 d"),
        ({"health": "expired", "expires_at": "2026-01-31T07:59:30Z"}, "expired 07:59, 30 s ago"),
        ({"health": "none", "expires_at": None}, "no token"),
        ({"enabled": False}, "-"),
        ({"health": "none"}, "no token"),
        ({"health": "expired", "expires_at": None}, "no token"),
        ({"expires_at": None}, "no known end"),
    ],
)
def test_the_token_column(changes: dict[str, Any], cell: str) -> None:
    """The token column shows the expiry on the local clock, and marks a token that is not delivered."""
    assert f"  {cell}  " in lines(document(index("x", **changes)), 250)[-2]


def test_times_are_local() -> None:
    """Times are in the local time zone, and a day other than today is named."""
    zone = timezone(timedelta(hours=9))
    assert "expires Feb 1 01:23, in 8 h" in report.status(document(index()), NOW, zone=zone)
    record: dict[str, Any] = {"at": "2026-01-31T08:00:00Z", "level": "info", "names": [], "message": "Yes."}
    assert event_line({**record, "hint": None}, zone=zone) == "2026-01-31 17:00:00  info     Yes."


@pytest.mark.parametrize("width", [20, 40, 60, 80, 100, 120, 200])
def test_the_status_fits_the_terminal(width: int) -> None:
    """Sentences are wrapped, columns move below their line, commands stay whole, and no fact is lost."""
    long_error = {**ERROR, "message": "A long sentence of many words. " * 5, "hint": "aws sso login " + "x" * 200}
    text = lines(document(index("a-name", last_error=long_error), index("b"), netrc="/n"), width)
    assert f"  fix: {long_error['hint']}" in text
    longest = max(len(HOST) + 3, width)
    assert all(len(line) <= longest for line in text if "fix: " not in line)
    whole = " ".join(" ".join(text).split())
    for fact in ("a-name", HOST, ARN, "expires 16:23, in 8 h", "refresh in 4 h", "netrc, plain text"):
        assert fact in whole


def test_color_is_optional() -> None:
    """Color appears only on request, and without its escapes the text is the same."""
    busy = blocked("d", state="fetching", last_error=None)
    doc = document(index("a"), index("b", health="stale"), blocked("c"), busy, off("e"))
    plain, painted = report.status(doc, NOW, zone=UTC), report.status(doc, NOW, color=True, zone=UTC)
    assert "\x1b" not in plain
    row = next(line for line in painted.splitlines() if "fetching…" in line)
    assert f"\x1b[{YELLOW}mno token" in row
    assert f"\x1b[{RED}m" not in row
    for shade in (GREEN, YELLOW, RED, BOLD, DIM):
        assert f"\x1b[{shade}m" in painted
        painted = painted.replace(f"\x1b[{shade}m", "")
    assert painted.replace("\x1b[0m", "") == plain


@given(st.text(), st.text(), st.booleans())
def test_control_characters_are_removed(name: str, message: str, running: bool) -> None:
    """Text from a cloud or a configuration cannot print control characters to the terminal."""
    error = {**ERROR, "message": message, "hint": message}
    wild = index(name, last_error=error, identity=message, host=name)
    doc = document(wild, pid=1 if running else None, netrc=name, config_stale=message)
    assert report.status(doc, NOW, absence=report.Absence(more=[message])).replace("\n", "").isprintable()
    record = {"at": "2026-01-31T08:00:00Z", "level": message, "names": [name], "message": message, "hint": message}
    assert event_line(record).isprintable()


def test_healthy_refreshed_and_ready() -> None:
    """Healthy: a valid token is delivered. Refreshed: the last fetch succeeded too. Ready: all enabled indexes are
    healthy."""
    assert healthy(index())
    assert healthy(index(health="stale", last_error=ERROR))
    assert not healthy(index(delivered=False))
    assert not healthy(index(health="expired"))
    assert refreshed(index())
    assert not refreshed(index(last_error=ERROR))
    assert ready(document(index(), off("b")))
    assert not ready(document(index(), blocked("b")))


@pytest.mark.parametrize(
    ("shown", "line"),
    [
        (document(index("a"), index("b"), off("c")), "2 ready"),
        (document(index("a"), blocked("b"), blocked("c", state="retrying")), "1/3 ready, sign-in needed"),
        (document(index("a"), index("b", state="blocked", last_error=ERROR)), "2 ready, sign-in needed"),
        (document(index("a"), blocked("b", state="fetching", last_error=None)), "1/2 ready, fetching"),
        (document(index("a"), index("b", delivered=False)), "1/2 ready, not delivered"),
        (document(index("a"), blocked("b", state="waiting", last_error=None)), "1/2 ready, no token"),
        (document(index("a"), blocked("b", state="retrying", last_error=None)), "1/2 ready, retrying"),
        (document(index("a"), blocked("b", last_error={**ERROR, "kind": "rejected"})), "1/2 ready, blocked"),
        (document(), "no index"),
        (stopped(index("a")), "not running"),
    ],
)
def test_the_prompt(shown: dict[str, Any], line: str) -> None:
    """The prompt shows how many indexes are ready and the worst problem of the others."""
    assert short_line(shown) == line


def test_the_report_of_once() -> None:
    """`once` has no daemon, so its report mentions neither a refresh nor a process."""
    text = report.once(document(index()), NOW, 200, zone=UTC)
    assert text.startswith("The index is ready.\n")
    assert "refresh" not in text
    assert "4711" not in text
    assert report.once(document(), NOW) == f"{report.INIT}\n{report.BY_HAND}\n  {report.EXAMPLE}\n"


def test_the_report_does_not_change_the_document() -> None:
    """Rendering the report does not modify the document."""
    doc = document(blocked("a"))
    before = copy.deepcopy(doc)
    report.status(doc, NOW)
    assert doc == before


def test_a_document_of_an_older_daemon_is_shown() -> None:
    """After an upgrade, the document of the old daemon, which misses newer keys, can still be shown."""
    newer = ("url", "host", "provider", "sink", "enabled", "username", "identity", "expires_at", "retry_at")
    old = {key: value for key, value in index("a").items() if key not in newer}
    text = report.status(document(old), NOW)
    assert text.startswith("The index is ready.")


def test_notices_precede_the_table() -> None:
    """A notice that several indexes share is shown once, with its fix."""
    notice = {"reason": "ends-soon", "message": "This secret expires in 3 days.", "hint": "put a new one there"}
    text = lines(document(index("a", notices=[notice]), index("b", notices=[notice]), index("c")))
    assert text[1:4] == ["a, b: This secret expires in 3 days.", "  fix: put a new one there", ""]
    skew = {"reason": "clock-skew", "message": "The clock is wrong.", "hint": None}
    text = lines(document(index("a", notices=[notice, skew]), index("b", notices=[skew])))
    assert text[1:5] == [f"a: {notice['message']}", f"  fix: {notice['hint']}", "a, b: The clock is wrong.", ""]


def test_the_end_of_each_sign_in_is_shown() -> None:
    """The status shows when each sign-in ends, once for all its indexes, unless it has ended or the end is unknown."""
    sso = {"name": "the AWS SSO session of 'dev'", "ends_at": "2026-01-31T17:40:00Z", "command": "aws sso login"}
    over = {**sso, "ends_at": "2026-01-31T07:40:00Z"}
    unknown = {**sso, "ends_at": None}
    text = lines(
        document(
            index("a", sign_in=sso),
            index("b", sign_in=sso),
            index("c", sign_in=over),
            index("d", sign_in=unknown),
            index("e", sign_in={**sso, "ends_at": "2026-01-31T09:40:00Z"}),
        )
    )
    assert text[-3:-1] == [
        "The AWS SSO session of 'dev' ends 09:40, in 1 h 40 min (e)",
        "The AWS SSO session of 'dev' ends 17:40, in 9 h (a, b)",
    ]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"state": "fetching"}, True),
        ({"state": "waiting"}, True),
        ({"state": "waiting", "last_error": {"reason": "x"}}, False),
        ({"state": "retrying"}, False),
        ({"state": "fetching", "enabled": False}, False),
        ({"state": "fetching", "delivered": True, "health": "fresh"}, False),
    ],
)
def test_which_indexes_start_waits_for(changes: dict[str, Any], expected: bool) -> None:
    """`start` waits for an index that is being fetched or is about to be, but not if its fetch failed or its token
    is delivered."""
    index = {"enabled": True, "delivered": False, "health": "none", "last_error": None, **changes}
    assert under_way(index) is expected


@pytest.mark.parametrize(
    ("indexes", "shade"),
    [
        ([FETCHING, blocked("b", state="retrying", last_error=None)], YELLOW),
        ([FETCHING, blocked("b")], RED),
        ([index("a"), LIVE], YELLOW),
        ([index("a")], GREEN),
    ],
)
def test_the_color_of_the_headline(indexes: list[dict[str, Any]], shade: str) -> None:
    """The headline is red if an index needs a person, and yellow while a fetch is in flight or a ready index has a
    problem."""
    painted = report.status(document(*indexes), NOW, color=True, zone=UTC)
    assert painted.startswith(f"\x1b[{shade}m")


@pytest.mark.parametrize(
    ("changes", "cells"),
    [
        ({"state": "fetching"}, {"STATE": YELLOW, "TOKEN": GREEN}),
        ({"state": "retrying"}, {"STATE": YELLOW, "TOKEN": GREEN}),
        ({"state": "blocked"}, {"STATE": RED, "TOKEN": GREEN}),
        ({"health": "stale"}, {"TOKEN": YELLOW}),
        ({"delivered": False}, {"TOKEN": RED}),
        ({"health": "none", "state": "fetching"}, {"STATE": YELLOW, "TOKEN": YELLOW}),
        ({"enabled": False}, dict.fromkeys(("INDEX", "TOKEN", "STATE"), DIM)),
    ],
)
def test_the_colors_of_a_row(changes: dict[str, Any], cells: dict[str, str]) -> None:
    """Red means that uv fails, yellow that something is in progress, dim that the index is disabled."""
    assert index_table._shades(index("a", **changes)) == cells


def test_the_footer_omits_unknown_facts() -> None:
    """If the daemon's start time or a token's identity is unknown, it is omitted or shown as "-"."""
    assert lines(document(index()))[-1] == "uvtokend 1.0.0, pid 4711, running since 07:00, netrc /home/me/.netrc"
    assert lines(document(index(), started_at=None))[-1] == "uvtokend 1.0.0, pid 4711, netrc /home/me/.netrc"
    row = lines(document(index("a", identity=None, username=None)), 250)[-2]
    assert re.split("  +", row)[3] == "-"
    unknown = lines(document(index("a", sink="elsewhere")), 250)[-2]
    assert unknown.endswith("-")


def test_details_share_a_line_if_they_fit() -> None:
    """Details below a row are indented by two spaces and share a line if it is wide enough, to the character."""
    doc = document(index("a", host="h" * 30, identity="i" * 30))
    joined = f"  {'h' * 30}, for {'i' * 30}"
    assert joined in lines(doc, len(joined))
    assert joined not in lines(doc, len(joined) - 1)


def test_no_problem_hides_another() -> None:
    """A stale configuration, a failed delivery and the errors of two indexes are all shown."""
    other = {**ERROR, "message": "The other reason."}
    doc = document(
        blocked("a"),
        blocked("b", last_error=other),
        config_stale="config.toml changed 3 min ago.",
        delivery={"ok": False, "problem": "The disk is full."},
    )
    text = "\n".join(lines(doc))
    for sentence in ("config.toml changed", "The disk is full.", ERROR["message"], other["message"]):
        assert str(sentence) in text


def test_unknown_details_take_no_line() -> None:
    """In a narrow terminal, unknown facts get no line below the row."""
    for width in (20, 40, 60):
        text = lines(document(index("a", identity=None, username=None, delivered=False)), width)
        assert not any(line in {"  for -", "  in -", "  -"} for line in text)


def test_the_default_width_is_80_columns() -> None:
    """Without a given width, a sentence of 81 characters is wrapped, and one of 80 is not."""
    for show in (report.status, report.once):
        for length in (80, 81):
            message = f"{'x' * (length - 6)} xx"
            text = show(document(index("a", last_error={**ERROR, "message": message})), NOW, zone=UTC)
            assert (f"a: {message}" in text.splitlines()) == (length == 80)


#: The same index on ever narrower terminals: (least width, greatest width) -> headline and rows.
SHAPES = {
    (101, 250): [
        "INDEX  HOST       PROVIDER          FOR      TOKEN                  STATE           STORED IN",
        "a      h.example  aws-codeartifact  me@corp  expires 16:23, in 8 h  refresh in 4 h  netrc, plain text",
    ],
    (83, 100): [
        "INDEX  HOST       FOR      TOKEN                  STATE           STORED IN",
        "a      h.example  me@corp  expires 16:23, in 8 h  refresh in 4 h  netrc, plain text",
    ],
    (64, 81): [
        "INDEX  HOST       FOR      TOKEN                  STATE",
        "a      h.example  me@corp  expires 16:23, in 8 h  refresh in 4 h",
        "  in netrc, plain text",
    ],
    (55, 63): [
        "INDEX  HOST       TOKEN                  STATE",
        "a      h.example  expires 16:23, in 8 h  refresh in 4 h",
        "  for me@corp, in netrc, plain text",
    ],
    (46, 52): [
        "INDEX  TOKEN                  STATE",
        "a      expires 16:23, in 8 h  refresh in 4 h",
        "  h.example, for me@corp, in netrc, plain text",
    ],
    (44, 45): [
        "INDEX  TOKEN                  STATE",
        "a      expires 16:23, in 8 h  refresh in 4 h",
        "  h.example",
        "  for me@corp",
        "  in netrc, plain text",
    ],
    (25, 43): [
        "INDEX",
        "a",
        "  h.example",
        "  for me@corp",
        "  expires 16:23, in 8 h",
        "  refresh in 4 h",
        "  in netrc, plain text",
    ],
}


@pytest.mark.parametrize("widths", SHAPES)
def test_the_table_uses_the_width_to_the_last_character(widths: tuple[int, int]) -> None:
    """A column is shown as soon as it fits. Values of other columns are shown below the row, joined on one line if
    they fit."""
    shown = document(index("a", host="h.example", identity="me@corp"), netrc="/n")
    for width in widths:
        text = lines(shown, width)
        assert text[2 : 2 + len(SHAPES[widths])] == SHAPES[widths]
        assert " ".join(text[2 + len(SHAPES[widths]) :]).startswith("uvtokend 1.0.0")


def test_an_unknown_value_is_a_dash() -> None:
    """In a wide terminal, an unknown value is shown as a dash. The user name replaces an unknown identity."""
    unknown = index("a", host=None, provider=None, identity=None, sink="", username="me")
    bare = {key: value for key, value in unknown.items() if key not in {"sink", "username", "host", "provider"}}
    rows = [re.split("  +", line) for line in lines(document(unknown, bare, index("b", delivered=False)), 250)[-4:-1]]
    assert [row[1:4] for row in rows] == [["-", "-", "me"], ["-", "-", "-"], [HOST, "aws-codeartifact", ARN]]
    assert [row[-1] for row in rows] == ["-", "-", "-"]


def test_once_is_a_table_without_states() -> None:
    """``once`` shows a blank line, the column names and the indexes without their states. A disabled index shows
    "disabled" instead of a token."""
    text = report.once(document(index("a", host="h", identity="i"), off("b")), NOW, 70, zone=UTC)
    assert text.splitlines() == [
        "The index is ready; 1 is disabled.",
        "",
        "INDEX  HOST  FOR  TOKEN                  STORED IN",
        "a      h     i    expires 16:23, in 8 h  netrc, plain text",
        "b      -     -    disabled               -",
    ]
    assert "disabled  " in lines(document(off("b")), 250)[-2]
    assert re.split("  +", lines(document(off("b")), 250)[-2])[4:6] == ["-", "disabled"]


def test_a_delivery_problem_is_reported_once() -> None:
    """If an index already reports the problem of the delivery, the summary does not repeat it."""
    disk_full = {**ERROR, "message": "The disk is full.", "hint": "df -h"}
    shown = document(
        blocked("a", last_error=disk_full),
        blocked("b"),
        index("c"),
        delivery={"ok": False, "problem": "The disk is full."},
    )
    assert [line for line in lines(shown) if "The disk is full." in line] == ["a: The disk is full."]


def test_sign_ins_are_listed_in_the_order_in_which_they_end() -> None:
    """Sign-ins are listed in the order in which they end, whatever their names. One that ends now is no longer
    listed."""
    ends = {"zoo": "2026-01-31T08:00:01Z", "ant": "2026-01-31T08:00:02Z", "bee": "2026-01-31T08:00:00Z"}
    sign_ins = [index(name, sign_in={"name": name, "ends_at": end, "command": "x"}) for name, end in ends.items()]
    text = lines(document(*sign_ins))
    assert [line for line in text if " ends " in line] == [
        "Zoo ends 08:00, in 1 s (zoo)",
        "Ant ends 08:00, in 2 s (ant)",
    ]


def test_each_sink_is_named_in_the_table() -> None:
    """The table names the sink of each index, and says whether the token is stored as plain text or only in memory."""
    rows = [lines(document(index("a", sink=sink)), 250)[-2] for sink in ("netrc", "uv-store", "memory")]
    assert [re.split("  +", row)[-1] for row in rows] == ["netrc, plain text", "uv's store, plain text", "memory only"]


def test_an_index_costs_few_calls() -> None:
    """A status may have a thousand lines, so each one costs only a few calls of Python functions."""

    def calls(size: int) -> int:
        counted = 0

        def count(_: object, event: str, __: object) -> None:
            nonlocal counted
            counted += event == "call"

        shown = document(*(index(f"i{number}") for number in range(size)))
        before = sys.getprofile()
        sys.setprofile(count)
        try:
            report.status(shown, NOW, 100, False)
        finally:
            sys.setprofile(before)
        return counted

    assert (calls(110) - calls(10)) / 100 <= 34

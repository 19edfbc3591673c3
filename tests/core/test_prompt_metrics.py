"""The files for other programs: the prompt file and the metrics file."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, cast

import pytest

from uvtokend.core import metrics, prompt
from uvtokend.core.status import StatusDocument

NOW = datetime(2026, 1, 31, 8, 0, tzinfo=UTC)


def index(name: str, **changes: Any) -> dict[str, Any]:
    """Return a ready index with these changes."""
    return {
        "name": name,
        "host": f"{name}.example",
        "provider": "static",
        "enabled": True,
        "health": "fresh",
        "state": "waiting",
        "expires_at": "2026-01-31T09:00:00Z",
        "delivered": True,
        "failures": 0,
        "last_error": None,
        **changes,
    }


def document(*indexes: dict[str, Any]) -> StatusDocument:
    """Return the status document of a running daemon."""
    content = {
        "version": "1.0.0",
        "pid": 1,
        "started_at": "2026-01-31T07:00:00Z",
        "config_stale": None,
        "delivery": {"ok": True, "problem": None},
        "indexes": list(indexes),
    }
    return cast("StatusDocument", content)


OFF = index("off", enabled=False, delivered=False, state=None, health="none", expires_at=None, host=None, provider=None)


@pytest.mark.parametrize(
    ("indexes", "file"),
    [
        ([index("a"), index("b", expires_at="2026-01-31T08:30:00Z"), OFF], (b"2 ready", 1769848200, b"0")),
        ([index("a"), index("b", health="none", delivered=False, state="fetching", expires_at=None)],
         (b"1/2 ready, fetching", 1769850000, b"1")),
        ([index("a", expires_at=None)], (b"1 ready", 1769904000, b"0")),
        ([OFF], (b"no index", 1769904000, b"0")),
    ],
)  # fmt: skip
def test_the_prompt_holds_until_the_first_token_expires(
    indexes: list[dict[str, Any]], file: tuple[bytes, int, bytes]
) -> None:
    """The file has the text, the time until which it is valid if the daemon stops, and the exit status. Decoding
    returns the same."""
    text, until, status = file
    encoded = prompt.encode(document(*indexes), NOW.timestamp())
    assert encoded == b"%s\n%d\n%s\n" % (text, until, status)
    assert prompt.decode(encoded) == (text.decode(), until, int(status))


@pytest.mark.parametrize("text", [b"", b"a\nb\nc\n", b"a\n1\n", b"\xff\n1\n0\n", b"a\n1\n0\n4\n"])
def test_an_invalid_prompt_file_is_ignored(text: bytes) -> None:
    """A file that is incomplete or not ours is treated as missing."""
    assert prompt.decode(text) is None


def test_the_metrics() -> None:
    """Each enabled index has its readiness, failures, expiry and state, with its name escaped. Disabled indexes are
    left out."""
    special = 'q"uo\\te\n'
    text = metrics.exposition(
        document(index("a"), index(special, expires_at=None, state="blocked", failures=3), OFF), NOW
    )
    lines = text.splitlines()
    assert text.endswith("\n")
    assert 'uvtokend_info{version="1.0.0"} 1' in lines
    assert "uvtokend_start_time_seconds 1769842800" in lines
    assert "uvtokend_updated_timestamp_seconds 1769846400" in lines
    assert "uvtokend_delivery_ok 1" in lines
    assert "uvtokend_config_stale 0" in lines
    assert 'uvtokend_index_ready{index="a",provider="static",host="a.example"} 1' in lines
    assert 'uvtokend_index_expiry_timestamp_seconds{index="a"} 1769850000' in lines
    assert 'uvtokend_index_failures{index="q\\"uo\\\\te\\n"} 3' in lines
    assert 'uvtokend_index_state{index="a",state="waiting"} 1' in lines
    assert 'uvtokend_index_state{index="a",state="blocked"} 0' in lines
    assert sum("expiry" in line and not line.startswith("#") for line in lines) == 1
    assert not any("off" in line for line in lines)
    names = {line.split("{")[0].split(" ")[0] for line in lines if not line.startswith("#")}
    assert names == {line.split(" ")[2] for line in lines if line.startswith("# TYPE")}
    assert metrics.exposition(document(), NOW.replace(microsecond=500000)).count("1769846400.500") == 1
    assert "index" not in metrics.exposition(document(), NOW)


@pytest.mark.parametrize("state", ["waiting", "fetching", "retrying", "blocked"])
def test_each_state_has_its_metric(state: str) -> None:
    """The metric of the index's state is 1; those of the other three states are 0."""
    lines = metrics.exposition(document(index("a", state=state)), NOW).splitlines()
    states = {line.split('state="')[1].split('"')[0]: line[-1] for line in lines if 'state="' in line}
    assert states == {**dict.fromkeys(("waiting", "fetching", "retrying", "blocked"), "0"), state: "1"}


def test_an_undelivered_or_disabled_index_does_not_limit_the_prompt() -> None:
    """The text for the prompt is valid until the first delivered token of an enabled index expires."""
    late = "2026-01-31T09:00:00Z"
    others = (index("b", delivered=False), index("c", enabled=False), index("d", enabled=False, delivered=False))
    soon = [{**other, "expires_at": "2026-01-31T08:10:00Z"} for other in others]
    _, until, _ = prompt.encode(document(index("a", expires_at=late), *soon), NOW.timestamp()).splitlines()
    assert int(until) == datetime.fromisoformat(late).timestamp()


def test_an_unknown_host_is_an_empty_label() -> None:
    """The metrics contain an unknown host or provider as an empty label, since Prometheus needs a value."""
    text = metrics.exposition(document(index("a", host=None, provider=None)), NOW)
    assert 'uvtokend_index_ready{index="a",provider="",host=""} 1' in text.splitlines()

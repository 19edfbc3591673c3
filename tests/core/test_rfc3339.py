"""Times as text (RFC 3339)."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from uvtokend.core.rfc3339 import parse_zulu, zulu

NOW = datetime(2026, 1, 31, 8, tzinfo=UTC)


def test_times_are_written_with_z() -> None:
    """Times are written in UTC, with milliseconds only if there are any."""
    assert zulu(NOW) == "2026-01-31T08:00:00Z"
    assert zulu(NOW.replace(microsecond=5000)) == "2026-01-31T08:00:00.005Z"
    assert zulu(None) is None


def test_times_are_read_with_their_zone() -> None:
    """Any zone is converted to UTC; a time without a zone is refused."""
    assert (parse_zulu("2026-01-31T09:00:00+01:00"), parse_zulu(None)) == (NOW, None)
    with pytest.raises(ValueError, match="2026-01-31T09:00:00"):
        parse_zulu("2026-01-31T09:00:00")

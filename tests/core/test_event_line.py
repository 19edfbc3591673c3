"""The lines of `uvtokend log`."""

from __future__ import annotations

from datetime import UTC

from uvtokend.core.event_line import event_line


def test_events() -> None:
    """An event is one line with its time, level, names, sentence and fix. A damaged record is shown as such."""
    record = {"at": "2026-01-31T08:00:00Z", "level": "error", "event": "x", "names": ["a", "b"], "message": "No."}
    full = {**record, "hint": "do it"}
    assert event_line(full, zone=UTC) == "2026-01-31 08:00:00  error    a, b: No.  fix: do it"
    assert event_line({**record, "names": [], "hint": None}, zone=UTC) == "2026-01-31 08:00:00  error    No."
    assert "\x1b[31m" in event_line(full, color=True)
    for broken in ({"at": 1}, {**full, "names": 3}, {**full, "at": "today"}):
        assert event_line(broken) == "(not an event)"

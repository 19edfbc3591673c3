"""A few of the soak's kills of a process that delivers, and proof that they detect a careless delivery."""

from __future__ import annotations

from pathlib import Path

import pytest

from soak import kills, victim

#: A careless delivery, which writes the file in two halves.
CARELESS = f"""
import sys, time
sys.path.insert(0, {str(Path(__file__).parent)!r})
from soak import victim
from uvtokend.disk.netrc_sink import NetrcChange, NetrcSink

def change(self, edit):
    with open(self.path, "rb") as file:
        new = edit(file.read())
    with open(self.path, "wb", buffering=0) as file:
        file.write(new[: len(new) // 2])
        time.sleep(0.001)
        file.write(new[len(new) // 2 :])
    return NetrcChange(True, True)

NetrcSink.change = change
victim.main(sys.argv[1:])
"""


def test_a_kill_loses_nothing() -> None:
    """Wherever a delivery is killed, the file has the old or the new text, and the next delivery tidies up."""
    outcome = kills.run(1, 0.01, print)
    assert outcome.broken == ()
    assert outcome.figures["kills"] == 10


def test_a_careless_delivery_is_caught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The soak detects a delivery that writes the file in place: a reader or the kill sees half a file."""
    script = tmp_path / "careless.py"
    script.write_text(CARELESS)
    monkeypatch.setattr(victim, "__file__", str(script))
    assert kills.run(1, 0.006, print).broken != ()

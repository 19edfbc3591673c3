"""A two-hundredth of the soak's fuzzing, and proof that its oracles see what they are there to see."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from soak import fuzz, fuzz_netrc
from soak.fuzz_lines import Lines
from soak.fuzz_netrc import Netrcs
from uvtokend.core import wire
from uvtokend.core.model import Credential, Failure
from uvtokend.core.netrc import block


def test_nothing_breaks() -> None:
    """Foreign bytes stay, Python and uv read what was written, and no line raises, is repeated or wedges the server."""
    outcome = fuzz.run(1, 0.005, print)
    assert outcome.broken == ()
    assert outcome.figures["netrc files"] == outcome.figures["worker lines"] == 500


def test_an_edit_that_loses_a_blank_line_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """The foreign bytes are compared to the last one."""

    def tidy(*arguments: object) -> block.Edit:
        found = block.edit(*arguments)  # type: ignore[arg-type]
        return replace(found, text=found.text.replace(b"\n\n\n", b"\n\n"))

    monkeypatch.setattr(fuzz_netrc, "edit", tidy)
    assert any("the foreign bytes are back" in law for law in broken_netrcs())


def test_an_edit_that_quotes_nothing_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """Python reads such entries otherwise."""
    monkeypatch.setattr(block, "_value", str)
    assert any("read" in law for law in broken_netrcs())


def test_a_wire_that_lets_infinity_in_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """Answers are read as JSON is defined, not as Python reads it."""
    monkeypatch.setattr(wire, "_finite", float)
    assert any("is no JSON" in law for law in broken_lines())


def test_a_wire_that_repeats_a_secret_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """What could not be read is no text for a message."""
    honest = wire.decode_answer

    def talkative(line: bytes) -> Credential | Failure:
        found = honest(line)
        return replace(found, message=repr(line)) if isinstance(found, Failure) and found.reason == "garbage" else found

    monkeypatch.setattr(wire, "decode_answer", talkative)
    assert any("a secret shows itself nowhere" in law for law in broken_lines())


def broken_netrcs() -> list[str]:
    netrcs = Netrcs(random.Random(1))
    for _ in range(150):
        netrcs.judge_one()
    netrcs.close()
    return netrcs.broken


def broken_lines() -> list[str]:
    lines = Lines(random.Random(1))
    for _ in range(600):
        lines.judge_control()
        lines.judge_worker()
    return lines.broken

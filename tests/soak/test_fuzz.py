"""A two-hundredth of the soak's fuzzing, and proof that its checks detect defects."""

from __future__ import annotations

import json
import random
from dataclasses import replace

import pytest

from soak import fuzz, fuzz_netrc
from soak.fuzz_lines import Lines
from soak.fuzz_netrc import Netrcs
from uvtokend.core import wire
from uvtokend.core.model import Credential, Failure
from uvtokend.core.netrc import block


def test_a_short_fuzzing_run_finds_nothing() -> None:
    """In a short fuzzing run foreign bytes stay, Python and uv read our entries, and no line breaks the server."""
    outcome = fuzz.run(1, 0.005, print)
    assert outcome.broken == ()
    assert outcome.figures["netrc files"] == outcome.figures["worker lines"] == 500


def test_an_edit_that_loses_a_blank_line_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """The fuzzing detects an edit that removes a blank line of the foreign text."""

    def tidy(*arguments: object) -> block.Edit:
        edited = block.edit(*arguments)  # type: ignore[arg-type]
        return replace(edited, text=edited.text.replace(b"\n\n\n", b"\n\n"))

    monkeypatch.setattr(fuzz_netrc, "edit", tidy)
    assert any("the foreign bytes are back" in law for law in broken_netrcs())


def test_an_edit_that_quotes_nothing_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """The fuzzing detects an edit that does not quote values, because Python reads other values then."""
    monkeypatch.setattr(block, "_value", str)
    assert any("read" in law for law in broken_netrcs())


def test_a_wire_that_lets_infinity_in_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """The fuzzing detects a response with infinity, because it parses JSON strictly."""
    monkeypatch.setattr(wire, "_DECODER", json.JSONDecoder())
    assert any("is not JSON" in law for law in broken_lines())


def test_a_wire_that_repeats_a_secret_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """The fuzzing detects a message that repeats a line which could not be decoded."""
    honest = wire.decode_answer

    def talkative(line: bytes) -> Credential | Failure:
        decoded = honest(line)
        return (
            replace(decoded, message=repr(line))
            if isinstance(decoded, Failure) and decoded.reason == "garbage"
            else decoded
        )

    monkeypatch.setattr(wire, "decode_answer", talkative)
    assert any("a secret is in no repr" in law for law in broken_lines())


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

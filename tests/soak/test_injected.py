"""A few of the soak's injected faults, and proof that they detect a careless write."""

from __future__ import annotations

import os

import pytest

from soak import injected, injection
from soak.injection import Fault
from uvtokend.core import state
from uvtokend.disk import files, journal


def test_no_fault_loses_anything() -> None:
    """Whichever system call fails or is the last one, no foreign text is lost and no token is left behind."""
    outcome = injected.run(1, 0.002, print)
    assert outcome.broken == ()
    assert int(outcome.figures["runs"]) > 40


def test_a_careless_write_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """The soak detects a write that truncates the netrc first without a copy beside it:
    a kill before the write loses text.
    """

    def careless(path: str, _old: bytes, new: bytes) -> files.Fingerprint:
        with open(path, "wb", buffering=0) as file:
            files.write_all(file.fileno(), new)
        return ()

    def right_before_each_write(calls: list[str]) -> list[Fault]:
        return [Fault(at, "kill before") for at, name in enumerate(calls) if name == "pwrite"]

    monkeypatch.setattr(injected, "PLACES", ("hard-linked",))
    monkeypatch.setattr(injected, "WORKS", ("deliver",))
    monkeypatch.setattr(injection, "faults", right_before_each_write)
    assert injected.run(1, 1, print).broken == ()
    monkeypatch.setattr(files, "overwrite", careless)
    monkeypatch.setattr(journal.Journal, "leftover", lambda _: None)
    assert "kill before" in injected.run(1, 1, print).broken[0]


def test_a_note_that_is_lost_in_a_power_cut_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """The soak detects a delivery without a durable note of its new host: after a power cut, a token is left behind."""

    def after_each_exchange(calls: list[str]) -> list[Fault]:
        return [Fault(at, "power") for at, name in enumerate(calls) if name == "swap"]

    monkeypatch.setattr(injected, "PLACES", ("plain",))
    monkeypatch.setattr(injected, "WORKS", ("deliver",))
    monkeypatch.setattr(injection, "faults", after_each_exchange)
    assert injected.run(1, 1, print).broken == ()
    monkeypatch.setattr(state, "names_more", lambda *_: False)
    assert "after the purge" in injected.run(1, 1, print).broken[0]


def test_a_fault_strikes_where_it_should() -> None:
    """A fault hits one call, or that call and every later one of the same name."""
    with injection.injected(Fault(1, 5), exchanges=True) as made:
        os.chmod(".", os.stat(".").st_mode)
        with pytest.raises(OSError, match="rror"):
            os.chmod(".", 0)
        os.chmod(".", os.stat(".").st_mode)
    assert made == ["chmod"] * 3
    with injection.injected(Fault(0, 5, for_good=True), exchanges=True):
        for _ in range(2):
            with pytest.raises(OSError, match="rror"):
                os.chmod(".", 0)

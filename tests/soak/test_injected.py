"""A few of the soak's injected faults, and proof that a careless write does not survive them."""

from __future__ import annotations

import os

import pytest

from soak import injected, injection
from soak.injection import Fault
from uvtokend.disk import files, journal


def test_no_fault_loses_anything() -> None:
    """Whichever system call fails or is the last one, nothing foreign is lost and no token is left behind."""
    outcome = injected.run(1, 0.004, print)
    assert outcome.broken == ()
    assert int(outcome.figures["runs"]) > 40


def test_a_careless_write_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """A write that truncates the netrc first, with nothing beside it that is read after a crash, loses text."""

    def careless(path: str, _old: bytes, new: bytes) -> files.Fingerprint:
        with open(path, "wb", buffering=0) as file:
            files.write_all(file.fileno(), new)
        return ()

    monkeypatch.setattr(files, "overwrite", careless)
    monkeypatch.setattr(journal.Journal, "leftover", lambda _: None)
    monkeypatch.setattr(injected, "PLACES", ("hard-linked",))
    monkeypatch.setattr(injected, "WORKS", ("deliver",))
    assert injected.run(2, 0.12, print).broken != ()


def test_a_fault_strikes_where_it_should() -> None:
    """Once, or at every later call of that name."""
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

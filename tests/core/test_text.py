"""Texts for people: how values are worded, and which characters a terminal may receive."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uvtokend.core.text import BOLD, DIM, GREEN, RED, YELLOW, clean, duration, wrapped


@given(st.text(alphabet="ab \n", max_size=100), st.integers(1, 30))
def test_wrapping_loses_nothing(text: str, width: int) -> None:
    """Wrapping changes only white space."""
    assert " ".join(wrapped(text, width)).split() == text.split()


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-5, "0 s"),
        (0.9, "0 s"),
        (59, "59 s"),
        (60, "1 min"),
        (3599, "59 min"),
        (3600, "1 h"),
        (7140, "1 h 59 min"),
        (7200, "2 h"),
        (90061, "25 h"),
        (200000, "2 d"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    """Durations are worded as people say them and rounded down."""
    assert duration(seconds) == text


def test_colors_are_those_of_every_terminal() -> None:
    """The colors are the ECMA-48 codes for green, yellow, red, bold and faint."""
    assert (GREEN, YELLOW, RED, BOLD, DIM) == ("32", "33", "31", "1", "2")
    assert clean("a\x1bb\u202ec") == "a\\x1bb\\u202ec"

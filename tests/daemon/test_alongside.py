"""Two functions at the same time."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from uvtokend.daemon.alongside import Alongside


@pytest.fixture
def together() -> Iterator[Alongside]:
    alongside = Alongside()
    yield alongside
    alongside.close()


def test_both_run_at_the_same_time(together: Alongside) -> None:
    """Each of the two functions can wait for the other, again and again, and both have ended at the end."""
    for _ in range(3):
        both = threading.Barrier(2, timeout=60)
        ended: list[str] = []

        def one(both: threading.Barrier = both, ended: list[str] = ended) -> None:
            both.wait()
            ended.append("one")

        def other(both: threading.Barrier = both, ended: list[str] = ended) -> None:
            both.wait()
            ended.append("other")

        together(one, other)
        assert sorted(ended) == ["one", "other"]


def test_an_error_of_either_is_raised_when_both_have_ended(together: Alongside) -> None:
    """Whichever function fails, the other one ends before the error is raised; the next calls are not affected."""
    ended: list[str] = []

    def works() -> None:
        ended.append("works")

    def fails() -> None:
        raise OSError(28, "full")

    for one, other in ((works, fails), (fails, works)):
        with pytest.raises(OSError, match="full"):
            together(one, other)
    together(works, works)
    assert ended == ["works"] * 4


def test_the_error_of_the_first_one_counts(together: Alongside) -> None:
    """If both fail, the error of the function that the caller ran itself is raised."""

    def mine() -> None:
        raise OSError(28, "mine")

    def theirs() -> None:
        raise OSError(28, "theirs")

    with pytest.raises(OSError, match="mine"):
        together(mine, theirs)

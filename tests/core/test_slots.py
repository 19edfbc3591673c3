"""Which fetches get a worker."""

from __future__ import annotations

from uvtokend.core.slots import SLICE, Slots


def line(limit: int, *keys: str) -> Slots[str]:
    slots: Slots[str] = Slots(limit)
    for key in keys:
        slots.ask(key, hung=False, spends=False)
    return slots


def test_slots_are_given_in_order() -> None:
    """With two slots and three fetches, the third starts when one of the others ends."""
    slots = line(2, "a", "b", "c")
    assert list(slots.starts(0)) == ["a", "b"]
    assert list(slots.starts(1)) == []
    slots.leave("a")
    assert list(slots.starts(2)) == ["c"]
    assert "a" not in slots
    assert "c" in slots


def test_hung_fetches_start_last_and_leave_one_slot() -> None:
    """Fetches whose last attempt hung start after the others and never take all slots."""
    slots: Slots[str] = Slots(3)
    for key in ("h1", "h2", "h3"):
        slots.ask(key, hung=True, spends=False)
    slots.ask("a", hung=False, spends=False)
    assert list(slots.starts(0)) == ["a", "h1", "h2"]
    slots.leave("a")
    assert list(slots.starts(1)) == []
    slots.ask("b", hung=False, spends=False)
    assert list(slots.starts(2)) == ["b"]
    slots.leave("h1")
    assert list(slots.starts(3)) == ["h3"]


def test_a_single_slot_serves_hung_fetches() -> None:
    """With a single slot, a fetch whose last attempt hung may take it; otherwise it would never be tried again."""
    slots: Slots[str] = Slots(1)
    slots.ask("h", hung=True, spends=False)
    assert list(slots.starts(0)) == ["h"]


def test_a_long_fetch_gives_way_once() -> None:
    """After its time slice, the oldest fetch is stopped if others wait. It starts again after them and then may
    finish."""
    slots = line(2, "a", "b", "c")
    assert list(slots.starts(0)) == ["a", "b"]
    assert slots.look_at() == SLICE
    assert slots.gives_way(SLICE - 0.1) is None
    assert slots.gives_way(SLICE) == "a"
    assert list(slots.starts(SLICE)) == ["c"]
    slots.leave("c")
    assert list(slots.starts(SLICE + 1)) == ["a"]
    slots.leave("b")
    slots.ask("d", hung=False, spends=False)
    slots.ask("e", hung=False, spends=False)
    assert list(slots.starts(SLICE + 1)) == ["d"]
    assert slots.gives_way(100) == "d"
    assert list(slots.starts(100)) == ["e"]
    assert slots.gives_way(300) is None


def test_no_fetch_gives_way_without_need() -> None:
    """A fetch continues while a slot is free or no first attempt waits."""
    slots = line(2, "a")
    assert list(slots.starts(0)) == ["a"]
    assert (slots.look_at(), slots.gives_way(100)) == (None, None)


def test_a_fetch_that_spends_a_one_time_secret_never_gives_way() -> None:
    """Stopping a fetch that uses a one-time secret would lose the secret, so it never gives way."""
    slots: Slots[str] = Slots(1)
    slots.ask("chain", hung=False, spends=True)
    slots.ask("a", hung=False, spends=False)
    assert list(slots.starts(0)) == ["chain"]
    assert (slots.look_at(), slots.gives_way(1000)) == (None, None)


def test_when_the_slots_are_checked_again() -> None:
    """A time for the next check exists only while all slots are taken and a first attempt waits."""
    full, waiting = line(1, "a"), line(1, "a", "b")
    assert [*full.starts(0), *waiting.starts(0)] == ["a", "a"]
    assert (full.look_at(), full.gives_way(100)) == (None, None)
    assert waiting.look_at() == SLICE
    free = line(2, "a", "b")
    assert (free.look_at(), free.gives_way(100)) == (None, None)


def test_with_two_slots_one_is_reserved() -> None:
    """With two slots, one fetch whose last attempt hung may run. A second one must leave the last slot to others."""
    slots: Slots[str] = Slots(2)
    for key in ("h1", "h2"):
        slots.ask(key, hung=True, spends=False)
    assert list(slots.starts(0)) == ["h1"]


def test_the_slots_are_checked_again_when_the_oldest_fetch_must_give_way() -> None:
    """The slots are checked again after the slice of the fetch that began first."""
    slots = line(2, "a")
    assert list(slots.starts(0)) == ["a"]
    for key in ("b", "c"):
        slots.ask(key, hung=False, spends=False)
    assert list(slots.starts(3)) == ["b"]
    assert slots.look_at() == SLICE


def test_a_slice_is_five_seconds() -> None:
    """A slice lasts 5 s. The fetches of healthy issuers take less, so none of them must give way."""
    assert SLICE == 5.0

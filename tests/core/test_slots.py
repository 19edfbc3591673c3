"""Who gets a worker."""

from __future__ import annotations

from uvtokend.core.slots import SLICE, Slots


def line(limit: int, *keys: str) -> Slots[str]:
    slots: Slots[str] = Slots(limit)
    for key in keys:
        slots.ask(key, hung=False, spends=False)
    return slots


def test_the_limit_holds_and_the_first_comes_first() -> None:
    """Two slots, three fetches: the third begins when one has ended."""
    slots = line(2, "a", "b", "c")
    assert list(slots.starts(0)) == ["a", "b"]
    assert list(slots.starts(1)) == []
    slots.leave("a")
    assert list(slots.starts(2)) == ["c"]
    assert "a" not in slots
    assert "c" in slots


def test_what_hung_goes_last_and_leaves_a_slot_to_the_others() -> None:
    """Requests whose last try hung wait for the others, and take all slots but one."""
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


def test_a_single_slot_serves_what_hung_too() -> None:
    """With one slot none can be kept, or what hung once would never be tried again."""
    slots: Slots[str] = Slots(1)
    slots.ask("h", hung=True, spends=False)
    assert list(slots.starts(0)) == ["h"]


def test_a_long_fetch_gives_way_once() -> None:
    """After its slice the oldest one makes room, goes to the second line, and is left alone when its turn comes."""
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


def test_nobody_gives_way_without_need() -> None:
    """While a slot is free, or nobody waits for a first try, a fetch runs on."""
    slots = line(2, "a")
    assert list(slots.starts(0)) == ["a"]
    assert (slots.look_at(), slots.gives_way(100)) == (None, None)


def test_a_fetch_that_spends_a_one_time_secret_never_gives_way() -> None:
    """Killing it would lose the chain."""
    slots: Slots[str] = Slots(1)
    slots.ask("chain", hung=False, spends=True)
    slots.ask("a", hung=False, spends=False)
    assert list(slots.starts(0)) == ["chain"]
    assert (slots.look_at(), slots.gives_way(1000)) == (None, None)


def test_who_looks_again_and_when() -> None:
    """Only while all slots are taken and somebody waits for a first try is there a time to look."""
    full, waiting = line(1, "a"), line(1, "a", "b")
    assert [*full.starts(0), *waiting.starts(0)] == ["a", "a"]
    assert (full.look_at(), full.gives_way(100)) == (None, None)
    assert waiting.look_at() == SLICE
    free = line(2, "a", "b")
    assert (free.look_at(), free.gives_way(100)) == (None, None)

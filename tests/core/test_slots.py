"""Which fetches get a worker, and which share one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uvtokend.core.slots import SLICE, START, Slots

#: Enough CPUs for every test that is not about them.
MANY = 64


def line(limit: int, *keys: str) -> Slots[str]:
    slots: Slots[str] = Slots(limit, MANY)
    for key in keys:
        slots.ask(key, 0)
    return slots


def kinds(limit: int, keys: str, cpus: int = MANY) -> Slots[str]:
    """Return slots that are asked for fetches like ``a1 b1 a2``, whose first letter is their kind, or ``-``."""
    slots: Slots[str] = Slots(limit, cpus)
    for key in keys.split():
        slots.ask(key, 0, kind=None if key[0] == "-" else key[0])
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


def test_a_canceled_fetch_never_starts() -> None:
    """A fetch that leaves its queue does not start, and the next one takes its place."""
    slots = line(1, "a", "b", "c")
    slots.ask("h", 0, hung=True)
    assert list(slots.starts(0)) == ["a"]
    for key in ("a", "b", "h", "nothing of the kind"):
        slots.leave(key)
        assert key not in slots
    assert list(slots.starts(1)) == ["c"]
    slots.leave("c")
    assert list(slots.starts(2)) == []


def test_hung_fetches_start_last_and_leave_one_slot() -> None:
    """Fetches whose last attempt hung start after the others and never take all slots."""
    slots: Slots[str] = Slots(3, MANY)
    for key in ("h1", "h2", "h3"):
        slots.ask(key, 0, hung=True)
    slots.ask("a", 0)
    assert list(slots.starts(0)) == ["a", "h1", "h2"]
    slots.leave("a")
    assert list(slots.starts(1)) == []
    slots.ask("b", 2)
    assert list(slots.starts(2)) == ["b"]
    slots.leave("h1")
    assert list(slots.starts(3)) == ["h3"]


def test_a_single_slot_serves_hung_fetches() -> None:
    """With a single slot, a fetch whose last attempt hung may take it; otherwise it would never be tried again."""
    slots: Slots[str] = Slots(1, MANY)
    slots.ask("h", 0, hung=True)
    assert list(slots.starts(0)) == ["h"]


def test_a_long_fetch_gives_way_once() -> None:
    """After its time slice, the oldest fetch is stopped if others wait. It starts again after them and then may
    finish."""
    slots = line(2, "a", "b", "c")
    assert list(slots.starts(0)) == ["a", "b"]
    assert slots.look_at(1) == SLICE
    assert slots.gives_way(SLICE - 0.1) is None
    assert slots.gives_way(SLICE) == "a"
    assert list(slots.starts(SLICE)) == ["c"]
    slots.leave("c")
    assert list(slots.starts(SLICE + 1)) == ["a"]
    slots.leave("b")
    slots.ask("d", SLICE + 1)
    slots.ask("e", SLICE + 1)
    assert list(slots.starts(SLICE + 1)) == ["d"]
    assert slots.gives_way(100) == "d"
    assert list(slots.starts(100)) == ["e"]
    assert slots.gives_way(300) is None


def test_no_fetch_gives_way_without_need() -> None:
    """A fetch continues while a slot is free or no first attempt waits."""
    slots = line(2, "a")
    assert list(slots.starts(0)) == ["a"]
    assert (slots.look_at(1), slots.gives_way(100)) == (None, None)


def test_a_fetch_that_spends_a_one_time_secret_never_gives_way() -> None:
    """Stopping a fetch that uses a one-time secret would lose the secret, so it never gives way."""
    slots: Slots[str] = Slots(1, MANY)
    slots.ask("chain", 0, spends=True)
    slots.ask("a", 0)
    assert list(slots.starts(0)) == ["chain"]
    assert (slots.look_at(1), slots.gives_way(1000)) == (None, None)


def test_when_the_slots_are_checked_again() -> None:
    """A time for the next check exists only while all slots are taken and a first attempt waits."""
    full, waiting = line(1, "a"), line(1, "a", "b")
    assert [*full.starts(0), *waiting.starts(0)] == ["a", "a"]
    assert (full.look_at(1), full.gives_way(100)) == (None, None)
    assert waiting.look_at(1) == SLICE
    free = line(2, "a", "b")
    assert (free.look_at(1), free.gives_way(100)) == (None, None)


def test_with_two_slots_one_is_reserved() -> None:
    """With two slots, one fetch whose last attempt hung may run. A second one must leave the last slot to others."""
    slots: Slots[str] = Slots(2, MANY)
    for key in ("h1", "h2"):
        slots.ask(key, 0, hung=True)
    assert list(slots.starts(0)) == ["h1"]


def test_the_slots_are_checked_again_when_the_oldest_fetch_must_give_way() -> None:
    """The slots are checked again after the slice of the fetch that began first."""
    slots = line(2, "a")
    assert list(slots.starts(0)) == ["a"]
    for key in ("b", "c"):
        slots.ask(key, 1)
    assert list(slots.starts(3)) == ["b"]
    assert slots.look_at(1) == SLICE


def test_a_slice_is_five_seconds() -> None:
    """A slice lasts 5 s. The fetches of healthy issuers take less, so none of them must give way."""
    assert SLICE == 5.0


# ------------------------------------------------------------------------------------------------- shared workers


@pytest.mark.parametrize(
    ("waiting", "ended", "heir"),
    [
        ("a1 a2", "a1", "a2"),
        ("a1 b1 a2 a3", "a1", "a2"),  # before an older fetch of another kind
        ("a1 b1", "a1", None),
        ("-1 -2", "-1", None),  # without a kind nothing is shared
        ("a1", "a1", None),
    ],
)
def test_a_worker_is_shared_by_its_kind_only(waiting: str, ended: str, heir: str | None) -> None:
    """A worker that has answered gets the oldest waiting fetch of its kind. With any other, it ends."""
    slots = kinds(1, waiting)
    assert list(slots.starts(0)) == [ended]
    assert slots.passes_on(ended, 1) == heir
    assert ended not in slots
    assert list(slots.starts(1)) == ([] if heir else waiting.split()[1:2])


def test_a_shared_worker_keeps_its_slot() -> None:
    """The fetch that takes over a worker counts as running: it may have to give way, and others wait for its slot."""
    slots = kinds(1, "a1 a2 b1")
    assert list(slots.starts(0)) == ["a1"]
    assert slots.passes_on("a1", 1) == "a2"
    assert list(slots.starts(1)) == []
    assert slots.look_at(1) == 1 + SLICE
    assert slots.gives_way(1 + SLICE) == "a2"
    assert list(slots.starts(1 + SLICE)) == ["b1"]


def test_a_kind_that_nobody_serves_gets_a_slot() -> None:
    """A fetch of another kind waits for at most one slice, while the others of the busy kind still wait."""
    slots = kinds(1, "a1 a2 a3 b1")
    assert list(slots.starts(0)) == ["a1"]
    assert slots.passes_on("a1", SLICE - 0.1) == "a2"
    assert slots.passes_on("a2", SLICE) is None
    assert list(slots.starts(SLICE)) == ["a3"]  # the oldest of all, in a new worker
    assert slots.passes_on("a3", SLICE) is None
    assert list(slots.starts(SLICE)) == ["b1"]


def test_a_kind_that_is_served_does_not_hurry() -> None:
    """While a worker of its kind runs, a fetch waits for that worker, however long, and the others keep theirs."""
    slots = kinds(2, "a1 b1 a2 b2")
    assert list(slots.starts(0)) == ["a1", "b1"]
    assert slots.passes_on("a1", 10 * SLICE) == "a2"


def test_a_lower_limit_ends_shared_workers() -> None:
    """If the limit was lowered meanwhile, a worker that has answered ends, although another fetch waits for it."""
    slots = kinds(2, "a1 a2 a3 a4")
    assert list(slots.starts(0)) == ["a1", "a2"]
    slots.limit = 1
    assert slots.passes_on("a1", 1) is None
    assert slots.passes_on("a2", 1) == "a3"


def test_a_hung_fetch_shares_a_worker_after_all_others() -> None:
    """A worker takes a fetch whose last try hung only if no other waits, and if one slot stays for the others."""
    slots = kinds(2, "a1 a2 b1")
    for key in ("a3", "a4"):
        slots.ask(key, 0, kind="a", hung=True)
    assert list(slots.starts(0)) == ["a1", "a2"]
    assert slots.passes_on("a1", 1) is None
    assert list(slots.starts(1)) == ["b1"]
    assert slots.passes_on("a2", 1) == "a3"
    slots.ask("a5", 1, kind="b", hung=True)
    assert slots.passes_on("b1", 1) is None
    assert list(slots.starts(1)) == []
    assert slots.passes_on("a3", 1) == "a4"


def test_a_fetch_waits_for_a_new_worker_of_its_kind() -> None:
    """While all CPUs are busy, a second fetch of a kind gets no worker of its own until the first one has answered, or
    should have. Another kind does not wait."""
    slots = kinds(4, "a1 b1 a2 c1 b2", cpus=2)
    assert list(slots.starts(0)) == ["a1", "b1", "c1"]
    assert slots.look_at(0) == START
    assert slots.passes_on("a1", 0.2) == "a2"
    slots.ask("a3", 0.3, kind="a")
    assert list(slots.starts(0.3)) == ["a3"]  # the worker of its kind is not new anymore
    slots.leave("a3")
    assert list(slots.starts(START - 0.1)) == []
    assert list(slots.starts(START)) == ["b2"]


def test_a_slow_issuer_is_not_waited_for() -> None:
    """Once a fetch of a kind has run for long, all others of its kind start at once, as far as there are slots."""
    slots = kinds(4, "a1 a2 a3 a4 a5", cpus=1)
    assert list(slots.starts(0)) == ["a1"]
    assert list(slots.starts(START)) == ["a2", "a3", "a4"]
    assert slots.passes_on("a2", START + 0.1) == "a5"
    slots.ask("a6", START + 0.2, kind="a")
    slots.leave("a3")
    assert list(slots.starts(START + 0.2)) == ["a6"]


def test_the_slots_are_checked_again_when_the_oldest_start_takes_too_long() -> None:
    """Fetches that wait for two new workers start after the first of the two should have answered, and no check is
    planned for what nobody waits for."""
    slots = kinds(4, "a1 b1", cpus=2)
    assert list(slots.starts(0)) == ["a1", "b1"]
    slots.ask("c1", 1, kind="c")
    assert list(slots.starts(1)) == ["c1"]
    assert slots.look_at(1) is None
    slots.ask("c2", 1, kind="c")
    assert list(slots.starts(1)) == []
    assert slots.look_at(1) == 1 + START
    slots.ask("a2", 1, kind="a")
    assert slots.look_at(1) == START


def test_a_start_takes_a_second_and_a_half() -> None:
    """On a busy machine, three SDKs are imported within 1.5 s. A slow issuer delays the next lease by no more."""
    assert START == 1.5


def test_nobody_waits_for_a_new_worker_if_a_cpu_is_idle() -> None:
    """On a machine with more CPUs than fetches, each fetch starts at once."""
    assert list(kinds(4, "a1 a2 a3", cpus=3).starts(0)) == ["a1", "a2", "a3"]
    assert list(kinds(4, "a1 a2 a3", cpus=2).starts(0)) == ["a1", "a2"]


def test_a_plug_in_waits_for_no_other_worker() -> None:
    """A fetch that shares no worker gains nothing by waiting for one."""
    slots = kinds(4, "-1 -2 -3", cpus=1)
    assert list(slots.starts(0)) == ["-1", "-2", "-3"]
    assert slots.look_at(0) is None


def test_a_hung_fetch_runs_while_others_wait_for_a_new_worker() -> None:
    """A free slot that the first queue leaves unused serves the second."""
    slots = kinds(4, "a1 a2", cpus=1)
    slots.ask("b1", 0, kind="b", hung=True)
    assert list(slots.starts(0)) == ["a1", "b1"]


_STEPS = st.lists(
    st.tuples(
        st.sampled_from(["ask", "hung", "spend", "answer", "fail", "cancel", "wait", "look", "limit"]),
        st.integers(0, 11),
        st.sampled_from([0.0, 0.1, START, 1.0, SLICE, 60.0]),
    ),
    max_size=60,
)


@given(_STEPS, st.integers(1, 4), st.integers(1, 4))
def test_laws_of_any_history(steps: list[tuple[str, int, float]], limit: int, cpus: int) -> None:
    """In any history at most `limit` fetches run, once the limit is no longer lowered; a worker passes only to its own
    kind; nothing that may run waits without a time at which the slots are checked again; and if all that runs ends, all
    that waits has its turn."""
    slots: Slots[int] = Slots(limit, cpus)
    now, running, waiting = 0.0, set[int](), set[int]()

    def kind(key: int) -> int | None:
        return key % 3 or None

    def fill() -> None:
        while (late := slots.gives_way(now)) is not None:
            running.remove(late)
            waiting.add(late)
            start()
        start()
        assert len(running) <= max(limit, before)
        assert all((key in slots) == (key in running | waiting) for key in range(12))
        at = slots.look_at(now)
        assert at is None or at > now
        if waiting and len(running) < limit and at is None:
            assert limit > 1  # one slot is reserved
            assert len(running) >= limit - 1

    def start() -> None:
        for key in slots.starts(now):
            running.add(key)
            waiting.remove(key)

    for what, key, seconds in steps:
        before = len(running)
        match what:
            case "ask" | "hung" | "spend" if key not in slots:
                slots.ask(key, now, kind=kind(key), hung=what == "hung", spends=what == "spend")
                waiting.add(key)
            case "answer" if key in running:
                running.remove(key)
                if (heir := slots.passes_on(key, now)) is not None:
                    assert kind(heir) == kind(key) is not None
                    running.add(heir)
                    waiting.remove(heir)
            case "fail" | "cancel" if key in (running if what == "fail" else running | waiting):
                slots.leave(key)
                running.discard(key)
                waiting.discard(key)
            case "wait":
                now += seconds
            case "limit":
                limit = slots.limit = 1 + key % 4
        fill()
    while running or waiting:
        now += SLICE
        for key in tuple(running):
            slots.leave(key)
            running.remove(key)
        before = 0
        fill()
        assert running or not waiting

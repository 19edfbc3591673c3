"""The rules of ``on-delivered``, tested on random histories."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uvtokend.core import hook
from uvtokend.core.hook import Hook

ROLLS = st.floats(0, 1, exclude_max=True)


def test_changes_during_a_run_are_joined() -> None:
    """However many changes happen during a run, exactly one more run follows, at once."""
    state, run = hook.changed(Hook())
    assert run
    for _ in range(3):
        state, run = hook.changed(state)
        assert not run
    state, wait = hook.ended(state, success=True, roll=0.5)
    assert (state.state, wait) == ("running", 0.0)
    state, wait = hook.ended(state, success=True, roll=0.5)
    assert (state, wait) == (Hook(), None)


@given(failures=st.integers(0, 40), roll=ROLLS)
def test_failures_back_off(failures: int, roll: float) -> None:
    """The wait after a failure doubles up to 5 minutes, is at least 1 s, and is not shortened by further changes."""
    state, wait = hook.ended(Hook("running", failures=failures), success=False, roll=roll)
    assert wait is not None
    assert 1.0 <= wait <= min(300.0, 5.0 * 2.0**failures)
    assert hook.changed(state) == (state, False)
    assert hook.due(state).failures == failures + 1


@pytest.mark.parametrize("again", [False, True])
def test_a_success_forgets_failures(again: bool) -> None:
    """After a success, the next failure starts with the shortest back-off again."""
    state, _ = hook.ended(Hook("running", again, failures=7), success=True, roll=0.5)
    assert state.failures == 0


@given(st.lists(st.one_of(st.just("change"), st.booleans())))
def test_no_change_is_lost_and_no_two_runs_overlap(history: list[str | bool]) -> None:
    """Every change is followed by a run that begins later, or one is planned. Runs never overlap."""
    state, running, covered = Hook(), False, True
    for event in history:
        if event == "change":
            state, run = hook.changed(state)
            assert not (run and running)
            running, covered = running or run, run
        elif running:
            state, wait = hook.ended(state, bool(event), 0.5)
            running = False
            if wait is not None:
                state, running, covered = hook.due(state), True, True
            assert covered or wait is not None
    assert covered or running or state.state != "idle"


def test_the_shortest_wait_is_one_second() -> None:
    """With the lowest jitter and no earlier failure, the wait is still 1 s."""
    assert hook.ended(Hook("running"), False, 0.0)[1] == 1.0


@pytest.mark.parametrize(("failures", "most"), [(0, 5.0), (1, 10.0), (5, 160.0), (6, 300.0), (5000, 300.0)])
def test_the_longest_wait_doubles_up_to_five_minutes(failures: int, most: float) -> None:
    """With the highest jitter, the hook waits for the whole back-off: 5 s after the first failure, and never more
    than five minutes."""
    assert hook.ended(Hook("running", failures=failures), False, 1.0)[1] == most


def test_a_new_hook_is_idle() -> None:
    """A new hook does not run, is not planned, and has not failed."""
    assert Hook() == Hook("idle", False, 0)

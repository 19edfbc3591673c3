"""When to run the user's program after a change of a sink (``[daemon] on-delivered``).

The rules:

1. One run at a time. Changes that happen during a run are joined into one more run.
2. A run that failed is repeated after a back-off: 5 s, doubling, at most 5 minutes, with full jitter. Changes that
   happen meanwhile are joined into that repetition.
3. A success forgets all failures.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

BASE, MOST = 5.0, 300.0


@dataclass(frozen=True, slots=True)
class Hook:
    """The state of the hook.

    Args:
        state: Whether a run is under way or a repetition is planned.
        again: A change happened during the run.
        failures: Failed runs in a row.
    """

    state: Literal["idle", "running", "waiting"] = "idle"
    again: bool = False
    failures: int = 0


def changed(hook: Hook) -> tuple[Hook, bool]:
    """Note a change of a sink, and return whether to run now."""
    if hook.state == "running":
        return replace(hook, again=True), False
    if hook.state == "waiting":
        return hook, False
    return replace(hook, state="running"), True


def due(hook: Hook) -> Hook:
    """Begin the planned repetition."""
    return replace(hook, state="running")


def ended(hook: Hook, success: bool, roll: float) -> tuple[Hook, float | None]:
    """Note the end of a run. Return the seconds until the next run, or None.

    Args:
        hook: The state before.
        success: Whether the program exited with 0 in time.
        roll: A dice roll in [0, 1).
    """
    if not success:
        ceiling = min(MOST, BASE * 2.0 ** min(hook.failures, 16))
        return Hook("waiting", failures=hook.failures + 1), 1.0 + (ceiling - 1.0) * roll
    return (Hook("running"), 0.0) if hook.again else (Hook(), None)

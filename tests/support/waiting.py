"""Waiting for what another process does and tells nobody."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

#: Seconds that a step may take on a busy machine before the test calls it hung.
PATIENCE = 60.0


def until(condition: Callable[[], Any]) -> Any:
    """Return what a condition gives as soon as it is true."""
    deadline = time.monotonic() + PATIENCE
    while not (found := condition()):
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.02)
    return found

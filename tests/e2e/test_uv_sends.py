"""What the real uv sends in each arrangement of the table; this checks `uvtokend.core.uv.order`."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from support.arrangements import ARRANGEMENTS
from support.uv_judge import Arrangement, Stage
from uvtokend.sandbox.machine import find_uv


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """Make one index for all arrangements."""
    stage = Stage(tmp_path_factory.mktemp("uv"))
    yield stage
    stage.close()


@pytest.mark.parametrize("arrangement", ARRANGEMENTS, ids=[each.name for each in ARRANGEMENTS])
def test_uv_sends_what_the_table_says(stage: Stage, arrangement: Arrangement) -> None:
    """The real uv sends exactly the requests that the table lists;
    our own prediction is tested against the same table.
    """
    project, environment = stage.set(arrangement)
    assert stage.sent(find_uv(), project, environment) == arrangement.sends, stage.said


def test_the_table_is_large_enough() -> None:
    """The table has at least 40 arrangements, each with its own name."""
    assert len(ARRANGEMENTS) >= 40
    assert len({each.name for each in ARRANGEMENTS}) == len(ARRANGEMENTS)

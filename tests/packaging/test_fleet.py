"""The simulation of a fleet: jitter spreads the requests, and the help topic shows the script's table and chart."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

PACKAGING = Path(__file__).parent.parent.parent / "packaging"
TOPIC = PACKAGING.parent / "src" / "uvtokend" / "help" / "fleet.md"


@pytest.fixture(scope="module")
def fleet() -> Iterator[Any]:
    """Import the script as a module."""
    sys.path.insert(0, str(PACKAGING))
    yield import_module("fleet")
    sys.path.remove(str(PACKAGING))


def test_jitter_spreads_a_fleet(fleet: Any) -> None:
    """If machines start together, all get a token, sooner with jitter, and later refreshes stay below the quota."""
    issuer = fleet.Issuer("small", 3600, 4, "")
    with_jitter, without = (fleet.waking(issuer, 100, 1, jitter, 1.0) for jitter in (True, False))
    later = range(900, issuer.horizon)
    assert 0 < with_jitter.served_at < without.served_at
    assert with_jitter.peak(later) <= issuer.quota
    assert with_jitter.total(later) >= 100
    assert without.peak(range(60)) > with_jitter.peak(range(2, 60))


def test_every_machine_recovers_from_an_outage(fleet: Any) -> None:
    """After an outage every machine gets a token, and the peak of requests is a fraction of the fleet."""
    issuer = fleet.Issuer("any", 3600, 1000, "")
    course = fleet.outage(issuer, 300, 1, True)
    assert course.total(fleet.OUTAGE) > 300
    assert course.peak(range(fleet.OUTAGE.stop, issuer.horizon)) < 100
    assert course.total(range(fleet.OUTAGE.stop, fleet.OUTAGE.stop + 60)) >= 150


def test_the_topic_contains_the_table_of_the_script(fleet: Any) -> None:
    """The help topic has the script's table heading, and a row with quota and source for each issuer."""
    table = fleet.table(20, 1).splitlines()
    topic = TOPIC.read_text()
    assert table[0] in topic
    for issuer in fleet.ISSUERS:
        assert f"| {issuer.name} | {issuer.quota} |" in topic
        assert issuer.source in topic.replace("\n", " ")


def test_the_chart_is_complete(fleet: Any) -> None:
    """The chart is valid XML with both lines of each diagram, both for a small fleet and in the shipped file."""
    for text in (fleet.draw(20, 1), fleet.PICTURE.read_text()):
        lines = ElementTree.fromstring(text).findall(".//{http://www.w3.org/2000/svg}polyline")
        assert len(lines) == 6

"""The benchmark's own arithmetic: what it says of figures that are given to it."""

from __future__ import annotations

import xml.etree.ElementTree as ET

from bench import plot, run
from bench.table import Aim, Line, alone, compared, missing, shown
from bench.turns import ratio, spread, turns


def test_a_ratio_is_formed_within_each_turn() -> None:
    """A turn that was slow for both sides says the same as a fast one."""
    assert ratio([1.0, 10.0, 3.0], [0.5, 5.0, 1.5]) == spread([2.0, 2.0, 2.0])
    assert spread([7.0]) == spread([7.0, 7.0])
    assert (spread([1.0, 2.0, 3.0]).low, spread([1.0, 2.0, 3.0]).high) == (1.5, 2.5)


def test_sides_take_turns_in_changing_order() -> None:
    """Each side is run once before, and then once in each turn; none is always the first."""
    seen: list[str] = []
    ticks = iter(range(1000))
    figures = turns({name: lambda name=name: seen.append(name) for name in "abc"}, 3, lambda: next(ticks))  # type: ignore[misc]
    assert "".join(seen) == "abc" + "abc" + "bca" + "cab"
    assert figures == {name: [1, 1, 1] for name in "abc"}


def test_an_aim_is_met_or_not() -> None:
    """At most, at least, of the ratio or of the figure; without an aim or without a figure nothing is claimed."""
    figures = {"ours": [1.0, 1.0], "peer": [4.0, 6.0]}
    assert compared("row", figures, "ours", "peer", Aim(0.5)).met is True
    assert compared("row", figures, "ours", "peer", Aim(5.0, at_least=True)).met is True
    assert compared("row", figures, "ours", "peer", Aim(5.1, at_least=True)).met is False
    assert compared("row", figures, "ours", "peer", Aim(0.0, at_least=True)).met is None
    assert compared("row", figures, "ours", "peer").met is None
    assert alone("row", "ours", [29.0], "MiB", 28.0).met is False
    assert alone("row", "ours", [29.0], "MiB").met is None
    assert Line("row", "ours", None, "s", aim=Aim(1.0, of="value")).met is None


def test_a_peer_that_cannot_be_had_has_a_reason_and_no_figure() -> None:
    """It stands in the table by its name, and in no picture."""
    lines = missing("keyring get", {"keyring + keyrings.codeartifact": "no network"})
    assert "not available: no network" in shown(lines)
    assert lines[0].as_json()["value"] is None
    assert "codeartifact" not in plot.draw(lines)


def test_the_picture_is_made_of_the_same_figures() -> None:
    """Each side of a panel is one bar, as long as its figure; what others wrote is text, not markup."""
    figures = {"shim": [0.02], "<peer>": [0.4]}
    root = ET.fromstring(plot.draw([compared("keyring get", figures, "shim", "<peer>")]))
    texts = ["".join(element.itertext()) for element in root.iter("{http://www.w3.org/2000/svg}text")]
    assert {"keyring get", "shim", "<peer>", "20 ms", "400 ms"} <= set(texts)
    _, shim, peer = (float(bar.attrib["width"]) for bar in root.iter("{http://www.w3.org/2000/svg}rect"))
    assert round(peer / shim) == 20


def test_every_row_is_documented() -> None:
    """The rows that can be chosen are those that the reference names."""
    from pathlib import Path

    page = Path(run.__file__).parents[2] / "src" / "uvtokend" / "help" / "measured.md"
    text = page.read_text()
    assert [name for name in run.ROWS if f"| `{name}` |" not in text] == []

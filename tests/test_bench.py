"""Tests of the benchmark itself: its arithmetic, its chart, and the fast servers that it measures with."""

from __future__ import annotations

import socket
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench import plot, run
from bench.front import Front, responder
from bench.pages import Pages
from bench.table import Aim, Line, alone, compared, missing, shown
from bench.turns import ratio, spread, turns
from uvtokend.sandbox.machine import Machine
from uvtokend.sandbox.web import Answer, Call


def test_a_ratio_is_formed_within_each_turn() -> None:
    """Ratios are formed within each turn, so a turn that was slow for both sides gives the same ratio as a fast one."""
    assert ratio([1.0, 10.0, 3.0], [0.5, 5.0, 1.5]) == spread([2.0, 2.0, 2.0])
    assert spread([7.0]) == spread([7.0, 7.0])
    assert (spread([1.0, 2.0, 3.0]).low, spread([1.0, 2.0, 3.0]).high) == (1.5, 2.5)


def test_sides_take_turns_in_changing_order() -> None:
    """Each side runs once as a warm-up and then once per turn, and a different side starts each turn."""
    seen: list[str] = []
    ticks = iter(range(1000))
    figures = turns({name: lambda name=name: seen.append(name) for name in "abc"}, 3, lambda: next(ticks))  # type: ignore[misc]
    assert "".join(seen) == "abc" + "abc" + "bca" + "cab"
    assert figures == {name: [1, 1, 1] for name in "abc"}


def test_an_aim_is_met_or_not() -> None:
    """An aim is an upper or a lower bound, of the ratio or of the value; without an aim or a figure, `met` is None."""
    figures = {"ours": [1.0, 1.0], "peer": [4.0, 6.0]}
    assert compared("row", figures, "ours", "peer", Aim(0.5)).met is True
    assert compared("row", figures, "ours", "peer", Aim(5.0, at_least=True)).met is True
    assert compared("row", figures, "ours", "peer", Aim(5.1, at_least=True)).met is False
    assert compared("row", figures, "ours", "peer").met is None
    assert alone("row", "ours", [29.0], "MiB", 28.0).met is False
    assert alone("row", "ours", [29.0], "MiB").met is None
    assert Line("row", "ours", None, "s", aim=Aim(1.0, of="value")).met is None


def test_a_missing_peer_has_a_reason_and_no_figure() -> None:
    """A peer that cannot be installed is in the table with its name and the reason, and is left out of the chart."""
    lines = missing("keyring get", {"keyring + keyrings.codeartifact": "no network"})
    assert "not available: no network" in shown(lines)
    assert lines[0].as_json()["value"] is None
    assert "codeartifact" not in plot.draw(lines)


def test_the_chart_shows_the_measured_figures() -> None:
    """Each side of a panel is a bar as long as its figure, and names of peers are escaped as text."""
    figures = {"shim": [0.02], "<peer>": [0.4]}
    root = ET.fromstring(plot.draw([compared("keyring get", figures, "shim", "<peer>")]))
    texts = ["".join(element.itertext()) for element in root.iter("{http://www.w3.org/2000/svg}text")]
    assert {"keyring get", "shim", "<peer>", "20 ms", "400 ms"} <= set(texts)
    _, shim, peer = (float(bar.attrib["width"]) for bar in root.iter("{http://www.w3.org/2000/svg}rect"))
    assert round(peer / shim) == 20


def test_every_row_is_documented() -> None:
    """The help topic `measured` names every row that the benchmark can run."""
    page = Path(run.__file__).parents[2] / "src" / "uvtokend" / "help" / "measured.md"
    text = page.read_text()
    assert [name for name in run.ROWS if f"| `{name}` |" not in text] == []


@pytest.fixture
def front() -> Iterator[Front]:
    """Start a front that serves no host yet."""
    with Front() as front:
        yield front


def _through(front: Front) -> dict[str, str]:
    return {"HTTPS_PROXY": front.url, "SSL_CERT_FILE": front.ca_file, "UV_KEYRING_PROVIDER": "disabled"}


def test_uv_installs_from_the_fast_index(front: Front, tmp_path: Path) -> None:
    """uv accepts the pages, the metadata and the wheels of the fast index, which answers 401 to a wrong token."""
    asked: list[bytes] = []
    pages = Pages("/pypi", ("one", "two"), lambda login, token: (login, token) == ("me", "t"))

    def answer(head: bytes, body: bytes) -> bytes:
        asked.append(head.split(b" ", 2)[1])
        return pages(head, body)

    front.hosts["index.example"] = answer
    machine = Machine(tmp_path)
    index = ("--index-url", "https://me:{}@index.example/pypi/simple/")
    done = machine.install(tmp_path / "in", index[0], index[1].format("t"), "one", "two", env=_through(front))
    assert done.returncode == 0, done.stderr
    assert {file.name for file in (tmp_path / "in").glob("*.py")} == {"one.py", "two.py"}
    wheel = b"/pypi/simple/one/one-1.0-py3-none-any.whl"
    assert sorted(path for path in asked if b"/one/" in path) == [b"/pypi/simple/one/", wheel, wheel + b".metadata"]
    refused = machine.install(tmp_path / "no", index[0], index[1].format("x"), "one", env=_through(front))
    assert "401" in refused.stderr


def test_the_front_goes_down_and_comes_up_at_the_same_port(front: Front) -> None:
    """While the front is down, nothing listens on its port; after `up()` the same URL works again."""
    address = ("127.0.0.1", int(front.url.rpartition(":")[2]))
    front.down()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(address)
    front.up()
    with socket.create_connection(address) as connection:
        connection.sendall(b"CONNECT else.example:443 HTTP/1.1\r\n\r\n")
        assert connection.recv(100).startswith(b"HTTP/1.1 502 ")


def test_the_front_answers_for_an_emulator(front: Front, tmp_path: Path) -> None:
    """The front passes each call for a known host to its site, and answers 502 for an unknown host."""
    calls: list[Call] = []

    def site(call: Call) -> Answer:
        calls.append(call)
        return Answer.json({"said": call.form()["word"]}, 201)

    front.hosts["api.example"] = responder(site)
    script = (
        "import requests; s = requests.Session(); "
        "print([s.post('https://api.example/x?q=1', data={'word': w}).json()['said'] for w in ('a', 'b' * 70000)] "
        "== ['a', 'b' * 70000])\n"
        "try: s.get('https://else.example/')\n"
        "except requests.exceptions.ProxyError: print('refused')"
    )
    machine = Machine(tmp_path)
    variables = {"HTTPS_PROXY": front.url, "REQUESTS_CA_BUNDLE": front.ca_file}
    done = machine.run(("python", "-P", "-c", script), env=variables)
    assert done.stdout.split() == ["True", "refused"], done.stderr
    assert [(call.method, call.path, call.query) for call in calls] == [("POST", "/x", {"q": "1"})] * 2

"""The benchmark's own parts: its arithmetic, its picture, and the fast servers that it measures with."""

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
    assert compared("row", figures, "ours", "peer").met is None
    assert alone("row", "ours", [29.0], "MiB", 28.0).met is False
    assert alone("row", "ours", [29.0], "MiB").met is None
    assert Line("row", "ours", None, "s", aim=Aim(1.0, of="value")).met is None


def test_a_peer_that_cannot_be_had_has_a_reason_and_no_figure() -> None:
    """It is in the table by its name, and in no picture."""
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
    page = Path(run.__file__).parents[2] / "src" / "uvtokend" / "help" / "measured.md"
    text = page.read_text()
    assert [name for name in run.ROWS if f"| `{name}` |" not in text] == []


@pytest.fixture
def front() -> Iterator[Front]:
    """Open a front that represents no host yet."""
    with Front() as front:
        yield front


def _through(front: Front) -> dict[str, str]:
    return {"HTTPS_PROXY": front.url, "SSL_CERT_FILE": front.ca_file, "UV_KEYRING_PROVIDER": "disabled"}


def test_uv_installs_from_the_fast_index(front: Front, tmp_path: Path) -> None:
    """Pages, metadata and wheels are what uv expects, and nobody gets them without a token."""
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
    """While it is down nobody listens there; afterwards the same URL works."""
    address = ("127.0.0.1", int(front.url.rpartition(":")[2]))
    front.down()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(address)
    front.up()
    with socket.create_connection(address) as connection:
        connection.sendall(b"CONNECT else.example:443 HTTP/1.1\r\n\r\n")
        assert connection.recv(100).startswith(b"HTTP/1.1 502 ")


def test_the_front_answers_for_an_emulator(front: Front, tmp_path: Path) -> None:
    """A site gets each call as from its own server; a host without a site is refused."""
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

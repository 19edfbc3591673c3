"""Tests of the benchmark itself: its arithmetic, its chart, and the fast servers that it measures with."""

from __future__ import annotations

import random
import socket
import ssl
import tempfile
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from bench import plot, run
from bench import stage as stage_module
from bench.front import Front, Responder, field, responder
from bench.installs import Side, _Installer
from bench.pages import Pages
from bench.stage import QUICK, Stage
from bench.table import Aim, Line, alone, compared, missing, shown
from bench.turns import ratio, spread, turns
from uvtokend.sandbox.machine import Machine
from uvtokend.sandbox.web import Answer, Call


def test_a_ratio_is_formed_within_each_turn() -> None:
    """Ratios are formed within each turn, so a turn that was slow for both sides gives the same ratio as a fast one."""
    assert ratio([1.0, 10.0, 3.0], [0.5, 5.0, 1.5]) == spread([2.0, 2.0, 2.0])
    assert spread([7.0]) == spread([7.0, 7.0])
    assert (spread([1.0, 2.0, 3.0]).low, spread([1.0, 2.0, 3.0]).high) == (1.5, 2.5)


def test_sides_take_turns_in_a_random_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each side runs once as a warm-up if it is cold; then a turn has all runs of all sides, in a new random order.
    The runs of a side are spread over the turn."""
    seen: list[str] = []
    monkeypatch.setattr("bench.turns.random", random.Random(3))
    turns({name: partial(seen.append, name) for name in "abc"}, 50, {"a": 3, "b": 3})
    assert "".join(seen[:3]) == "abc"
    orders = ["".join(seen[start : start + 7]) for start in range(3, len(seen), 7)]
    assert {"".join(sorted(order)) for order in orders} == {"aaabbbc"}
    assert {order.replace("c", "")[part : part + 2] for order in orders for part in (0, 2, 4)} == {"ab", "ba"}
    assert {order.index("c") for order in orders} == set(range(7))
    turns({name: partial(seen.append, name) for name in "xy"}, 1, warm=True)
    assert sorted(seen[-2:]) == ["x", "y"]
    assert seen[-3] in "abc"


def test_the_figure_of_a_turn_is_the_median_of_its_runs() -> None:
    """A side that runs several times per turn has one figure per turn, and what is called afterwards takes no time."""
    now, lasts, afterwards = [0.0], iter([0.0, 5.0, 1.0, 3.0, 4.0, 2.0, 9.0]), []

    def run_() -> None:
        now[0] += next(lasts)

    def renew() -> None:
        now[0] += 1000.0
        afterwards.append(now[0])

    assert turns({"a": run_}, 2, {"a": 3}, {"a": renew}, clock=lambda: now[0]) == {"a": [3.0, 4.0]}
    assert len(afterwards) == 7


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


def _recorded(pages: Pages, asked: list[bytes]) -> Responder:
    def answer(head: bytes, body: bytes) -> bytes:
        asked.append(head.split(b" ", 2)[1])
        return pages(head, body)

    return answer


def test_uv_installs_from_the_fast_index(front: Front, tmp_path: Path) -> None:
    """uv accepts the pages, the metadata and the wheels of the fast index, which answers 401 to a wrong token."""
    asked: list[bytes] = []
    pages = Pages("/pypi", ("one", "two"), lambda login, token: (login, token) == ("me", "t"))
    front.hosts["index.example"] = _recorded(pages, asked)
    machine = Machine(tmp_path)
    index = ("--index-url", "https://me:{}@index.example/pypi/simple/")
    done = machine.install(tmp_path / "in", index[0], index[1].format("t"), "one", "two", env=_through(front))
    assert done.returncode == 0, done.stderr
    assert {file.name for file in (tmp_path / "in").glob("*.py")} == {"one.py", "two.py"}
    wheel = b"/pypi/simple/one/one-1.0-py3-none-any.whl"
    assert sorted(path for path in asked if b"/one/" in path) == [b"/pypi/simple/one/", wheel, wheel + b".metadata"]
    refused = machine.install(tmp_path / "no", index[0], index[1].format("x"), "one", env=_through(front))
    assert "401" in refused.stderr


def test_every_installation_starts_with_the_same_cache(front: Front, tmp_path: Path) -> None:
    """A renewed cache knows the Python interpreter and no page or wheel, so each installation asks for all of them."""
    asked: list[bytes] = []
    front.hosts["index.example"] = _recorded(Pages("/pypi", ("wheel0",)), asked)
    environment = {**Machine(tmp_path).environment, **_through(front)}
    side = Side("https://index.example/pypi/simple/", environment, private=False)
    with Stage(QUICK, tmp_path, print) as stage:
        installer = _Installer(stage, side, ("wheel0",))
        installer.install()
        installer.renew()
        installer.install()
    assert len(set(asked)) == 3
    assert sorted(asked[:3]) == sorted(asked[3:])


def test_files_in_memory_need_a_place_with_enough_space(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The directory for many small files is in memory where that is possible, else on the disk; it is removed."""
    monkeypatch.setattr(stage_module, "_MEMORY", str(tmp_path))
    with Stage(QUICK, tmp_path, print) as stage:
        inside = stage.memory()
        assert inside.parent == tmp_path
        monkeypatch.setattr(stage_module, "_ENOUGH", 1 << 60)
        assert stage.memory().parent == Path(tempfile.gettempdir())
        monkeypatch.setattr(stage_module, "_MEMORY", str(tmp_path / "missing"))
        assert stage.memory().parent == Path(tempfile.gettempdir())
    assert not inside.exists()


def _secured(front: Front, host: str, context: ssl.SSLContext) -> ssl.SSLSocket:
    connection = socket.create_connection(("127.0.0.1", int(front.url.rpartition(":")[2])), timeout=20.0)
    connection.sendall(f"CONNECT {host}:443 HTTP/1.1\r\n\r\n".encode())
    assert connection.recv(100) == b"HTTP/1.1 200 Connection Established\r\n\r\n"
    try:
        return context.wrap_socket(connection, server_hostname=host)
    except ssl.SSLError:
        connection.close()
        raise


def test_a_header_field_is_found_by_its_whole_name_in_any_case() -> None:
    """Names of header fields are compared without case and as a whole; spaces around the value do not count."""
    head = b"GET / HTTP/1.1\r\nX-Content-Length: 1\r\nContent-Length-X: 2\r\nCONTENT-length: \t3 \r\nA:b:c"
    assert [field(head, name) for name in (b"content-length", b"a", b"b")] == [b"3", b"b:c", b""]


def test_the_front_answers_in_order_and_in_full(front: Front) -> None:
    """Requests that arrive together are answered one after the other, however long the response and slow the client."""
    long = b"x" * (8 << 20)
    front.hosts["api.example"] = lambda head, body: head.split(b" ")[1] + body + long
    with _secured(front, "api.example", ssl.create_default_context(cafile=front.ca_file)) as client:
        client.sendall(b"GET /a HTTP/1.1\r\n\r\nPOST /b HTTP/1.1\r\nContent-Length: 3\r\n\r\nc")
        client.sendall(b"de")
        expected = b"/a" + long + b"/bcde" + long
        with client.makefile("rb") as file:
            assert file.read(len(expected)) == expected


def test_the_front_survives_a_client_that_does_not_trust_it(front: Front) -> None:
    """A client that ends the handshake closes its own connection and no other."""
    front.hosts["api.example"] = lambda _head, _body: b"yes"
    with pytest.raises(ssl.SSLCertVerificationError):
        _secured(front, "api.example", ssl.create_default_context())
    with _secured(front, "api.example", ssl.create_default_context(cafile=front.ca_file)) as client:
        client.sendall(b"GET / HTTP/1.1\r\n\r\n")
        assert client.recv(100) == b"yes"
        front.down()
        assert client.recv(100) == b""
    front.up()


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

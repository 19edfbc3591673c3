"""A short run of the soak, and proof that its verdicts are right."""

from __future__ import annotations

import math
import socket
import tempfile
from pathlib import Path
from urllib.request import urlopen

import pytest

from soak import daemon
from soak.faults import FAULTS
from soak.schedule import Fault, schedule
from soak.verdict import (
    DELIVERY,
    PROMISE,
    SLOW,
    Hinders,
    Install,
    Sighting,
    Token,
    Trouble,
    excuse,
    over,
    recovery,
    rot,
    until,
)
from support.waiting import PATIENCE
from uvtokend.sandbox.web import Answer, Server

LIFE = 20.0


@pytest.fixture
def unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let each installer pause for longer than in a real soak: most of what a small one costs is uv."""
    monkeypatch.setattr(daemon, "PAUSE", 1.0)


FIRST, SECOND = Token(100, 120), Token(109, 129)
SEEN = (Sighting(100, None), Sighting(101, FIRST), Sighting(110, SECOND))


def trouble(hinders: Hinders, begin: float, end: float = math.inf) -> Trouble:
    return Trouble("x", hinders, begin, end, end)


@pytest.mark.parametrize(
    ("began", "troubles", "expected"),
    [
        (115, [], None),
        (500, [], None),
        (115, [trouble("fetch", 112)], None),
        (127, [trouble("fetch", 112)], None),
        (130, [trouble("fetch", 112)], "x"),
        (130, [trouble("fetch", 112, 125)], "x"),
        (125 + PROMISE, [trouble("fetch", 112, 125)], None),
        (125, [trouble("delivery", 112)], None),
        (125, [trouble("delivery", 109.5)], "x"),
        (115, [trouble("delivery", 109.5)], None),
        (113, [trouble("delivery", 110), trouble("reading", 113.1, 113.2)], "x"),
        (115, [trouble("reading", 113, 114)], None),
    ],
    ids=[
        "in peace",
        "in peace, whatever was fetched",
        "the cloud fails, and a token is valid",
        "the cloud fails, and the last token is valid",
        "the cloud fails for longer than a life",
        "the cloud is back, and time to recover remains",
        "the time to recover is over",
        "a delivery fails, and the delivered token is valid",
        "a delivery fails, and the last token may not have been delivered",
        "a delivery fails, and the token before the last is valid",
        "half a file",
        "half a file, earlier",
    ],
)
def test_which_failures_are_excused(began: float, troubles: list[Trouble], expected: str | None) -> None:
    """A failed install is excused only during trouble, and only if no token was valid for it."""
    install = Install(began, began + 1, "no")
    assert excuse(install, [FIRST, SECOND], troubles, SEEN, LIFE) == expected


def test_an_install_during_which_all_tokens_expire_is_excused() -> None:
    """If all tokens expire at once, an install that has already begun is excused. No other trouble with the fetch
    reaches back, and neither does one that leaves a token valid."""
    install, expired = Install(112, 113, "no"), [Token(100, 112.5), Token(109, 112.5)]
    assert excuse(install, expired, [trouble("expiry", 112.5)], SEEN, LIFE) == "x"
    assert excuse(install, expired, [trouble("fetch", 112.5)], SEEN, LIFE) is None
    assert excuse(install, [FIRST, SECOND], [trouble("expiry", 112.5)], SEEN, LIFE) is None


def test_a_slow_machine_is_excused() -> None:
    """An install that takes longer than the promised life is excused as `SLOW`."""
    assert excuse(Install(115, 115 + LIFE, "no"), [SECOND], [], SEEN, LIFE) == SLOW


def test_an_old_entry_that_a_rival_restored() -> None:
    """After a rival restored an old entry, only that entry's token counts until another one is seen."""
    back = Trouble("back", "entry", 111, 111.1, since=FIRST.issued, left=FIRST)
    seen = (*SEEN, Sighting(111.1, FIRST))
    tokens = [FIRST, SECOND]
    assert excuse(Install(115, 116, "no"), tokens, [back], seen, LIFE) is None
    assert excuse(Install(122, 123, "no"), tokens, [back], seen, LIFE) == "back"
    repaired = (*seen, Sighting(121, SECOND))
    assert excuse(Install(122, 123, "no"), tokens, [back], repaired, LIFE) is None


def test_trouble_ends_with_a_proof() -> None:
    """Trouble ends once a token issued after the fault is seen in the netrc; an older one does not end it."""
    fault = trouble("delivery", 102, 108)
    assert over(fault, SEEN) == 110 == until(fault, SEEN)
    late = trouble("delivery", 102, 109.5)
    assert over(late, SEEN) is None
    assert until(late, SEEN) == 109.5 + PROMISE
    assert until(trouble("fetch", 102), SEEN) == math.inf


def test_recoveries_and_expired_tokens_are_measured() -> None:
    """Recovery lasts until a valid token is in the netrc again. How long an expired token stays there is measured."""
    seen = (*SEEN, Sighting(135, None), Sighting(140, Token(139, 159)))
    assert recovery(trouble("fetch", 112, 132), seen, 150) == 8
    assert recovery(trouble("fetch", 112, 113), seen, 125) == 0
    assert recovery(trouble("fetch", 112, 132), SEEN, 150) == 18
    assert rot(seen, [trouble("fetch", 112, 132)], 150) == 6
    assert rot(seen, [trouble("delivery", 112, 132)], 150) == 0
    assert rot(SEEN, [], 150) == 21


def test_a_seed_draws_the_same_faults_again() -> None:
    """The same seed gives the same faults, and each round has every kind once."""
    first, again = schedule(7, list(FAULTS), LIFE), schedule(7, list(FAULTS), LIFE)
    drawn = [next(first) for _ in range(2 * len(FAULTS))]
    assert drawn == [next(again) for _ in drawn]
    assert {fault.kind for fault in drawn[: len(FAULTS)]} == set(FAULTS)
    assert DELIVERY < LIFE / 4


def test_a_cloud_that_is_down_refuses_and_comes_back() -> None:
    """A server that is down refuses connections, and after `up()` it answers at the same address."""
    with Server(lambda _: Answer()) as server:
        for _ in range(2):
            server.down()
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(("127.0.0.1", server.port))
            server.up()
            with urlopen(server.url, timeout=PATIENCE) as answer:
                assert answer.status == 200


def test_a_short_soak(unhurried: None) -> None:
    """While the cloud is down, the daemon is killed and rivals edit, no token becomes stale and no text is lost."""
    faults = [Fault("cloud down", 5.5, 0.5, 0), Fault("daemon killed", 1, 0.5, 0), Fault("rivals", 2, 0.5, 0)]
    result = daemon.soak(149, 0, faults, print, life=10)
    assert result.broken == ()
    assert int(result.figures["installs owed to work"]) > 5
    assert int(result.figures["rivals' edits"]) > 5


def test_a_short_soak_of_the_netrc(unhurried: None) -> None:
    """Foreign entries are adopted during deliveries, and the disk hangs for a while, without any loss."""
    faults = [Fault("adopted", 2, 0.5, 0), Fault("disk hung", 2, 0.5, 0)]
    result = daemon.soak(150, 0, faults, print, life=10)
    assert result.broken == ()


def test_a_broken_daemon_is_caught(unhurried: None, open_directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The soak blames a daemon that never refreshes for failed installs, and keeps the log of the run."""
    monkeypatch.setattr(tempfile, "tempdir", str(open_directory))
    never = "import datetime\nfrom uvtokend.core import policy\npolicy.refresh_at = "
    never += "lambda credential, *_: credential.expires_at + datetime.timedelta(days=1)\n"
    result = daemon.soak(3, 14, [], print, life=6, broken=never)
    assert any("an avoidable failure" in sentence for sentence in result.broken)
    assert [file.name for file in open_directory.glob("*/soak.jsonl")] == ["soak.jsonl"]

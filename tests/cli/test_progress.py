"""A wait of more than a second shows on a terminal what it waits for and how long; the line disappears afterwards.

Each test ends the wait as soon as it has seen the progress line, so no test depends on the machine's speed.
"""

from __future__ import annotations

import os
import re
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial

import pytest

from support.daemons import ask
from support.desk import TOKEN, Desk, desk
from uvtokend.sandbox.codeartifact import CodeArtifact
from uvtokend.sandbox.web import Answer, Call, Server

__all__ = ["desk"]

ANSWER = f'{{"username": "me", "password": "{TOKEN}", "expires_in": 3600}}'
#: A systemctl whose `restart` waits for a line from a pipe, and then starts the daemon.
SYSTEMCTL = """\
#!/bin/sh
case "$*" in *restart*) read -r word <{pipe}; {python} -P -m uvtokend run --quiet >/dev/null 2>&1 & ;; esac
"""


@pytest.fixture
def held(desk: Desk) -> Callable[[], None]:
    """Block the fetch of an index's token until the returned function is called."""
    desk.configure(("a", "a.example"))
    (desk.home / "answer-a").unlink()
    os.mkfifo(desk.home / "answer-a")
    return lambda: answer(desk, ANSWER)


def answer(desk: Desk, text: str) -> None:
    """Write to the process that reads the pipe, now or soon."""
    with (desk.home / "answer-a").open("w") as pipe:
        pipe.write(text)


def shown(desk: Desk, what: str, act: Callable[[], object], *words: str) -> int:
    """Run a command on a terminal and act once its progress shows;
    check that the line is cleared; return the status.
    """
    sign = f"\r{what} ("
    with desk.terminal(*words) as terminal:
        terminal.expect(re.escape(sign))
        act()
        status = terminal.end()
        assert "\r\x1b[K" in terminal.text[terminal.text.rindex(sign) :]
        return status


@pytest.mark.parametrize("words", ["once", "login", "ensure -- true", "exec a -- true"])
def test_a_fetch_without_a_daemon(desk: Desk, held: Callable[[], None], words: str) -> None:
    """Every command that fetches tokens itself shows that it is waiting for them."""
    assert shown(desk, "Fetching new tokens", held, *words.split()) == 0


def test_a_wait_for_the_daemon(desk: Desk, held: Callable[[], None]) -> None:
    """`start`, `refresh` and `ensure` show that they wait for tokens; `purge` shows that it waits for the daemon."""
    assert shown(desk, "Waiting for the first tokens: 0 of 1", held, "start", "--wait", "60") == 0
    assert shown(desk, "Fetching new tokens", held, "refresh") == 0
    assert shown(desk, "Fetching new tokens", held, "ensure", "--min", "1h") == 1
    pid = ask(desk.socket, "version")["pid"]
    os.kill(pid, signal.SIGSTOP)
    assert shown(desk, "Waiting for the daemon", lambda: os.kill(pid, signal.SIGCONT), "purge", "--yes") == 0


def test_init_tries_each_index(desk: Desk) -> None:
    """`init` shows that it is fetching; the cloud answers only once the progress is visible."""
    answers = threading.Event()

    def late(_: Call) -> None:
        answers.wait(60)

    with CodeArtifact(fault=late) as cloud:
        desk.extra |= {**cloud.environment(), "AWS_ACCESS_KEY_ID": "AKIAEXAMPLE", "AWS_SECRET_ACCESS_KEY": "example"}
        url = "https://acme-123456789012.d.codeartifact.eu-central-1.amazonaws.com/pypi/prod/simple/"
        (desk.home / "uv.toml").write_text(f'[[index]]\nname = "acme"\nurl = "{url}"\n')
        words = ("init", "--yes", str(desk.home / "uv.toml"))
        assert shown(desk, "Trying to fetch the tokens", answers.set, *words) == 0


@pytest.fixture
def silent() -> Iterator[tuple[str, threading.Event]]:
    """Return the URL of an index, and the event that makes it answer."""
    answers = threading.Event()

    def site(_: Call) -> Answer:
        answers.wait(60)
        return Answer(200, b"<html></html>", {"Content-Type": "text/html"})

    with Server(site) as server:
        yield f"{server.url}/simple/", answers
        answers.set()


def test_doctor_shows_that_it_asks_the_indexes(desk: Desk, silent: tuple[str, threading.Event]) -> None:
    """`doctor` shows that it asks the indexes; the index answers only once the progress is visible."""
    url, answers = silent
    desk.configure(("a", "a.example"))
    desk.config.write_text(desk.config.read_text().replace("https://a.example/simple/", url))
    desk.run("once")
    shown(desk, "Asking the indexes", answers.set, "doctor")


@pytest.mark.linux("the service manager of this test is systemd's")
def test_a_wait_for_the_service_manager(desk: Desk) -> None:
    """`service install` shows that it waits for systemctl, which waits for the daemon."""
    desk.configure(("a", "a.example"))
    words = ("service", "install")
    programs = desk.home / "bin"
    programs.mkdir()
    os.mkfifo(desk.home / "word")
    (programs / "systemctl").write_text(SYSTEMCTL.format(pipe=desk.home / "word", python=sys.executable))
    (programs / "systemctl").chmod(0o755)
    desk.extra["PATH"] = f"{programs}{os.pathsep}{os.environ['PATH']}"
    assert shown(desk, "Starting the service", partial((desk.home / "word").write_text, "go\n"), *words) == 0

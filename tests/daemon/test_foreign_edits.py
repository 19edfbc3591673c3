"""What the log reports about edits by other programs, at any moment of a delivery."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from uvtokend.core.events import Deliver, DeliveryEnded, Report
from uvtokend.core.model import Entry, Problem, Secret
from uvtokend.core.state import State
from uvtokend.daemon.deliveries import Deliveries, Order
from uvtokend.disk.netrc_sink import NetrcSink
from uvtokend.disk.state_file import Store

FOREIGN = "machine b.example login you password theirs\n"


class Busy(Store):
    """A state file whose `at_note` is called once, after the netrc was read and before it is written."""

    at_note: Callable[[], object] | None = None

    def note(self, news: State) -> None:
        """Write the note, after calling `at_note`."""
        at_note, self.at_note = self.at_note, None
        if at_note is not None:
            at_note()
        super().note(news)


class Stage:
    """Deliveries to one netrc, and what they report to the log.

    Args:
        directory: An empty directory.
    """

    def __init__(self, directory: Path) -> None:
        self.netrc = directory / ".netrc"
        self.store = Busy(str(directory))
        self.reports: list[Report] = []
        self.problems: tuple[Problem, ...] = ()
        self._ended = asyncio.Event()
        self.deliveries = Deliveries(NetrcSink(str(self.netrc)), self.store, self._done, self.reports.append)

    def _done(self, event: DeliveryEnded) -> None:
        assert event.failure is None
        self.problems = event.problems
        self._ended.set()

    async def deliver(self, token: str) -> None:
        """Deliver one entry and wait for the end."""
        self._ended.clear()
        wanted = (Entry("a.example", "me", Secret(token)),)
        self.deliveries.begin(Order(Deliver(wanted), tuple, (), 0.5, "config.toml"), ahead=True)
        await self._ended.wait()
        assert token in self.netrc.read_text()

    def edit(self) -> None:
        """Change the netrc as another program does."""
        self.netrc.write_text(self.netrc.read_text() + FOREIGN)

    @property
    def logged_edits(self) -> int:
        """The number of edits in the log."""
        return [each.message for each in self.reports].count(f"Another program changed {self.netrc}.")


def live(directory: Path, monkeypatch: pytest.MonkeyPatch, story: Callable[[Stage], Awaitable[None]]) -> None:
    """Run a story with deliveries."""
    monkeypatch.setenv("HOME", str(directory))
    monkeypatch.setenv("XDG_STATE_HOME", str(directory / "state"))

    async def main() -> None:
        stage = Stage(directory)
        try:
            await asyncio.wait_for(story(stage), 60)
        finally:
            await stage.deliveries.close()

    asyncio.run(main())


def test_an_edit_during_a_delivery_is_logged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An edit between our reading and our writing is kept and logged once."""

    async def story(stage: Stage) -> None:
        await stage.deliver("first")
        assert stage.logged_edits == 0
        stage.store.at_note = stage.edit
        await stage.deliver("second")
        assert FOREIGN in stage.netrc.read_text()
        assert stage.logged_edits == 1
        await stage.deliver("third")
        assert stage.logged_edits == 1

    live(tmp_path, monkeypatch, story)


def test_an_edit_detected_by_a_delivery_is_logged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If a delivery detects an edit before a look for drift does, the delivery logs it."""

    async def story(stage: Stage) -> None:
        await stage.deliver("first")
        stage.edit()
        await stage.deliver("second")
        assert stage.logged_edits == 1

    live(tmp_path, monkeypatch, story)


def test_an_edit_is_logged_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If a look for drift has logged an edit, neither the next delivery nor the next look logs it again. Another
    edit is logged."""

    async def story(stage: Stage) -> None:
        await stage.deliver("first")
        stage.edit()
        assert await stage.deliveries.drifted(["netrc"]) == ("netrc",)
        assert await stage.deliveries.drifted(["netrc"]) == ("netrc",)
        assert stage.logged_edits == 1
        await stage.deliver("second")
        assert stage.logged_edits == 1
        stage.edit()
        assert await stage.deliveries.drifted(["netrc"]) == ("netrc",)
        assert stage.logged_edits == 2

    live(tmp_path, monkeypatch, story)


def test_a_netrc_that_became_a_link_is_not_a_former_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the former path is now a link to the current file, there is nothing to clean and no problem."""

    async def story(stage: Stage) -> None:
        await stage.deliver("first")
        stage.netrc.rename(tmp_path / "elsewhere")
        stage.netrc.symlink_to(tmp_path / "elsewhere")
        await stage.deliver("second")
        assert stage.problems == ()
        assert (tmp_path / "elsewhere").read_text().count("machine") == 1

    live(tmp_path, monkeypatch, story)

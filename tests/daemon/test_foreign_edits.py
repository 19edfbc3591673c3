"""What the log says of another program's edits, whenever they land."""

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
    """A state file, whose `at_note` is called once, after the netrc was read and before it is written."""

    at_note: Callable[[], object] | None = None

    def note(self, news: State) -> None:
        """Note what is new."""
        at_note, self.at_note = self.at_note, None
        if at_note is not None:
            at_note()
        super().note(news)


class Stage:
    """Deliveries into one netrc, and what they tell the log.

    Args:
        directory: An empty directory.
    """

    def __init__(self, folder: Path) -> None:
        self.netrc = folder / ".netrc"
        self.store = Busy(str(folder))
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
        self.deliveries.begin(Order(Deliver(wanted), (), (), 0.5, "config.toml"))
        await self._ended.wait()
        assert token in self.netrc.read_text()

    def edit(self) -> None:
        """Change the netrc as another program does."""
        self.netrc.write_text(self.netrc.read_text() + FOREIGN)

    @property
    def told(self) -> int:
        """How many edits the log has."""
        return [each.message for each in self.reports].count(f"Another program changed {self.netrc}.")


def live(folder: Path, monkeypatch: pytest.MonkeyPatch, story: Callable[[Stage], Awaitable[None]]) -> None:
    """Run deliveries through a story."""
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.setenv("XDG_STATE_HOME", str(folder / "state"))

    async def main() -> None:
        stage = Stage(folder)
        try:
            await asyncio.wait_for(story(stage), 60)
        finally:
            await stage.deliveries.close()

    asyncio.run(main())


def test_an_edit_that_lands_during_a_delivery_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After our reading and before our writing: the edit is kept, and the log has one line of it."""

    async def story(stage: Stage) -> None:
        await stage.deliver("first")
        assert stage.told == 0
        stage.store.at_note = stage.edit
        await stage.deliver("second")
        assert FOREIGN in stage.netrc.read_text()
        assert stage.told == 1
        await stage.deliver("third")
        assert stage.told == 1

    live(tmp_path, monkeypatch, story)


def test_an_edit_that_a_delivery_finds_first_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody has looked for drift since: the delivery that takes the edit up reports it."""

    async def story(stage: Stage) -> None:
        await stage.deliver("first")
        stage.edit()
        await stage.deliver("second")
        assert stage.told == 1

    live(tmp_path, monkeypatch, story)


def test_an_edit_that_was_told_is_not_told_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The look that finds it reports it, not the delivery that follows, nor the next look; another edit is told."""

    async def story(stage: Stage) -> None:
        await stage.deliver("first")
        stage.edit()
        assert await stage.deliveries.drifted(["netrc"]) == ("netrc",)
        assert await stage.deliveries.drifted(["netrc"]) == ("netrc",)
        assert stage.told == 1
        await stage.deliver("second")
        assert stage.told == 1
        stage.edit()
        assert await stage.deliveries.drifted(["netrc"]) == ("netrc",)
        assert stage.told == 2

    live(tmp_path, monkeypatch, story)


def test_a_netrc_that_became_a_link_is_no_former_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The path that was written before leads to the file in use now: there is nothing to clean, and no problem."""

    async def story(stage: Stage) -> None:
        await stage.deliver("first")
        stage.netrc.rename(tmp_path / "elsewhere")
        stage.netrc.symlink_to(tmp_path / "elsewhere")
        await stage.deliver("second")
        assert stage.problems == ()
        assert (tmp_path / "elsewhere").read_text().count("machine") == 1

    live(tmp_path, monkeypatch, story)

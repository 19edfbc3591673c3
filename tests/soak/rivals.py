"""The rival: other programs that edit the netrc, and a reference model of their edits.

Each edit is made twice: on the file as it was read, with our entries, and on the model, which contains only the
foreign text. When nothing is edited, the foreign text of the file must equal the model byte for byte. Every foreign
line has a number, so that a lost one is detected.
"""

from __future__ import annotations

import contextlib
import os
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from soak.verdict import Token, Trouble
from soak.world import World, lines_of
from uvtokend.disk import exchange

#: The approximate number of foreign lines.
LINES = 40
_BEGIN = b"#uvtokend:begin"

#: An edit of the lines of a text; the last line is empty if the text ends with a line end.
Edit = Callable[[list[bytes]], list[bytes]]
Note = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Difference:
    """What is wrong with a foreign text: lines that are lost, added or in another order."""

    lost: tuple[bytes, ...]
    added: tuple[bytes, ...]

    def __str__(self) -> str:
        if not self.lost and not self.added:
            return "the order has changed"
        return f"lost {[line.decode() for line in self.lost]}, added {[line.decode() for line in self.added]}"


class Rival:
    """A context manager that edits the netrc in a thread now and then.

    Args:
        world: The world with the netrc.
        seed: The seed of the random numbers.
        note: Called with each edit.

    Attributes:
        model: The foreign text as it must be.
        edits: How many edits were made.
        troubles: Edits after which a reader may have seen half a file, or which restored an old entry.
    """

    def __init__(self, world: World, seed: int, note: Note) -> None:
        self.edits = 0
        self.troubles: list[Trouble] = []
        self._world = world
        self._dice = random.Random(seed)
        self._note = note
        self._number = 0
        self.model: list[bytes] = [*(self._line() for _ in range(LINES)), b""]
        self._busy = threading.Lock()
        self._stop = threading.Event()
        self._hurry = False
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Rival:
        self._world.netrc.write_bytes(b"\n".join(self.model))
        self._world.netrc.chmod(0o600)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    @contextlib.contextmanager
    def hurried(self) -> Iterator[None]:
        """Edit many times a second."""
        self._hurry = True
        try:
            yield
        finally:
            self._hurry = False

    @contextlib.contextmanager
    def resting(self) -> Iterator[None]:
        """Edit nothing."""
        with self._busy:
            yield

    def difference(self) -> Difference | None:
        """Return how the file differs from the model, or None; call it only while the rival rests."""
        foreign = [line for line in self._world.read() if not self._world.ours(line)]
        if foreign == self.model:
            return None
        before, after = Counter(self.model), Counter(foreign)
        return Difference(tuple((before - after).elements()), tuple((after - before).elements()))

    def accept(self) -> None:
        """Use the current file as the model, after a difference was reported; call it only while the rival rests."""
        self.model = [line for line in self._world.read() if not self._world.ours(line)]

    # --------------------------------------------------------------------------------------------------- the thread

    def _run(self) -> None:
        while not self._stop.wait(self._dice.uniform(0.002, 0.06) if self._hurry else self._dice.uniform(0.2, 2.0)):
            with self._busy:
                self._edit()

    def _edit(self) -> None:
        dice = self._dice
        if dice.random() < 0.2:
            self._append()
            return
        before = lines_of(self._world.netrc)
        name, edit = self._draw(before)
        think = dice.uniform(0.02, 0.3) if self._hurry and dice.random() < 0.1 else dice.uniform(0, 0.003)
        time.sleep(think)
        after = edit(before)
        how = dice.choice([self._rename, self._truncate, self._truncate_slowly])
        begin = time.time()
        replaced = how(b"\n".join(after))
        self.model = edit(self.model)
        self._set_back(begin, self._world.delivered(replaced.split(b"\n")), self._world.delivered(after))
        self._done(f"{name}, {how.__name__.strip('_')}")

    def _done(self, what: str) -> None:
        self.edits += 1
        self._note(what)

    def _draw(self, before: list[bytes]) -> tuple[str, Edit]:
        dice = self._dice
        foreign = [line for line in self.model if line]
        kinds = ["strip", "swap", "insert", "insert on top", "insert inside", "rewrite", "no last newline"]
        if len(foreign) > LINES:
            kinds += ["drop"] * 6
        kind = dice.choice(kinds)
        one, two = dice.sample(foreign, 2)
        new = self._line()
        mark = before.index(_BEGIN) + 1 if _BEGIN in before else 0
        above = sum(not self._world.ours(line) for line in before[:mark])
        edits: dict[str, Edit] = {
            "strip": lambda lines: [line for line in lines if not line.startswith(b"#")],
            "swap": lambda lines: [{one: two, two: one}.get(line, line) for line in lines],
            "insert": lambda lines: [each for line in lines for each in ((line, new) if line == one else (line,))],
            "insert on top": lambda lines: [new, *lines],
            "insert inside": lambda lines: _inside(lines, new, mark if _BEGIN in lines else above),
            "rewrite": lambda lines: [new if line == one else line for line in lines],
            "no last newline": lambda lines: lines[:-1] if lines[-1] == b"" and lines[-2:-1] != [b""] else lines,
            "drop": lambda lines: [line for line in lines if line != one],
        }
        return kind, edits[kind]

    def _line(self) -> bytes:
        self._number += 1
        number = self._number
        if number % 5 == 0:
            return b"#note-%d" % number
        return b"machine host-%d.example login me-%d password secret-%d" % (number, number, number)

    # ------------------------------------------------------------------------------------------------- ways to write
    # Each returns the text that it really replaced: one read a moment earlier may miss a delivery.

    def _append(self) -> None:
        """Add a line without reading the file; also end the last line if it has no line end."""
        line = self._line()
        closed = self.model[-1] == b""
        with self._world.netrc.open("ab", buffering=0) as file:
            file.write((b"" if closed else b"\n") + line + b"\n")
        self.model = [*(self.model[:-1] if closed else self.model), line, b""]
        self._done("append")

    def _rename(self, text: bytes) -> bytes:
        beside = self._world.disk / ".netrc.rival"
        beside.touch(0o600)
        beside.write_bytes(text)
        try:
            exchange.swap(str(beside), str(self._world.netrc))
        except OSError as error:
            if error.errno not in exchange.UNSUPPORTED:
                raise
            replaced = self._world.netrc.read_bytes()
            os.replace(beside, self._world.netrc)
            return replaced
        replaced = beside.read_bytes()
        beside.unlink()
        return replaced

    def _truncate(self, text: bytes) -> bytes:
        return self._in_place(text, 0)

    def _truncate_slowly(self, text: bytes) -> bytes:
        return self._in_place(text, self._dice.uniform(0.001, 0.05))

    def _in_place(self, text: bytes, pause: float) -> bytes:
        begin = time.time()
        with self._world.writing, self._world.netrc.open("r+b", buffering=0) as file:
            half = self._dice.randrange(len(text) + 1)
            replaced = file.readall()
            file.seek(0)
            file.truncate()
            file.write(text[:half])
            if pause:
                time.sleep(pause)
            file.write(text[half:])
        self.troubles.append(Trouble("rival wrote in place", "reading", begin, time.time()))
        return replaced

    def _set_back(self, begin: float, replaced: Token | None, left: Token | None) -> None:
        """Record it if the daemon delivered a token after we read the text, and our edit removed that token."""
        if replaced is not None and replaced != left:
            since = left.issued if left is not None else 0.0
            self.troubles.append(Trouble("rival put an old entry back", "entry", begin, time.time(), since, left))


def _inside(lines: list[bytes], new: bytes, at: int) -> list[bytes]:
    return [*lines[:at], new, *lines[at:]]

"""The daemon part: the real daemon, boto3 and uv, and one fault after the other.

Two threads install from an index that accepts only valid tokens, a third edits the netrc, a fourth reads it 20 times
a second. After each fault the daemon must recover within `verdict.PROMISE`; then the foreign text is compared with
the rival's own history, and a quiet period follows. `verdict` decides which installs should have worked.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import IO

from soak import verdict
from soak.faults import FAULTS, PromiseBroken
from soak.result import Result
from soak.rivals import Rival
from soak.schedule import Fault, schedule
from soak.verdict import PROMISE, Hinders, Install, Sighting, Trouble
from soak.world import World

#: Seconds that a token is valid.
LIFE = 20.0
MINUTES = 15.0
#: How many threads install, and the seconds that each pauses between installs.
INSTALLERS = 2
PAUSE = 0.3
#: Seconds between two reads of the netrc.
LOOK = 0.05
#: Seconds within which the file must equal the model once nothing edits it.
REST = 3.0
#: How many broken promises of one kind are reported in full.
REPORTED = 5

Say = Callable[[str], None]


def run(seed: int, scale: float, say: Say) -> Result:
    """Run the soak for `scale` times `MINUTES`, with every kind of fault that is possible on this machine."""
    missing = {name: kind.missing() for name, kind in FAULTS.items()}
    for name, why in missing.items():
        if why is not None:
            say(f"left out: {name}: {why}")
    seconds, kinds = scale * MINUTES * 60, [name for name, why in missing.items() if why is None]
    return soak(seed, seconds, _for(seconds, schedule(seed, kinds, LIFE)), say, faketime=True)


def _for(seconds: float, faults: Iterator[Fault]) -> Iterator[Fault]:
    end = time.time() + seconds
    for fault in faults:
        yield fault
        if time.time() > end:
            return


def soak(
    seed: int,
    seconds: float,
    faults: Iterable[Fault],
    say: Say,
    life: float = LIFE,
    broken: str = "",
    faketime: bool = False,
) -> Result:
    """Run all the faults, and at least for a given time.

    Args:
        seed: The seed of the rival's random numbers.
        seconds: The least time to run.
        faults: The faults, one after the other.
        say: Called with what happens.
        life: Seconds that a token is valid.
        broken: Python code that the daemon runs first; a test breaks the daemon with it.
        faketime: Whether some of the faults set the daemon's wall clock.
    """
    directory = Path(tempfile.mkdtemp(prefix="uvtokend-soak-"))
    keep = True
    try:
        with (directory / "soak.jsonl").open("w", buffering=1) as log:
            result = _Soak(World(directory, life, broken, faketime), seed, say, log).run(faults, seconds)
        keep = bool(result.broken)
    except KeyboardInterrupt:
        keep = False
        raise
    finally:
        if keep:
            say(f"the log of this run is in {directory}")
        else:
            shutil.rmtree(directory, ignore_errors=True)
    return result


class _Soak:
    """One run; see `soak`."""

    def __init__(self, world: World, seed: int, say: Say, log: IO[str]) -> None:
        self._world = world
        self._say = say
        self._log = log
        self._rival = Rival(world, seed, lambda what: self._note("edit", what))
        self._stop = threading.Event()
        self._installs: list[Install] = []
        self._sightings: list[Sighting] = []
        self._troubles: list[Trouble] = []
        self._recoveries: list[tuple[str, float]] = []
        self._broken: list[str] = []
        self._lost = 0

    def run(self, faults: Iterable[Fault], seconds: float) -> Result:
        """Run the faults, wait until the time is over, and return the result."""
        began = time.time()
        threads = [threading.Thread(target=self._watch), *(threading.Thread(target=self._install) for _ in "12")]
        with self._world, self._rival:
            try:
                for thread in threads:
                    thread.start()
                self._trouble("start", "delivery", self._world.start)
                self._peace(self._world.life / 4)
                for fault in faults:
                    self._fault(fault)
                self._peace(began + seconds - time.time())
            finally:
                self._stop.set()
                for thread in threads:
                    thread.join()
        return self._result(began, time.time())

    # ------------------------------------------------------------------------------------------------------- faults

    def _fault(self, fault: Fault) -> None:
        kind = FAULTS[fault.kind]
        self._say(f"{fault.kind}, {fault.seconds:.0f} s")
        with self._rival.resting() if kind.calm else contextlib.nullcontext():
            self._trouble(fault.kind, kind.hinders, lambda: kind.do(self._world, self._rival, fault))
        self._peace(fault.quiet)

    def _trouble(self, name: str, hinders: Hinders, do: Callable[[], None]) -> None:
        """Cause a fault, and check that the daemon recovers in time and that no foreign text is lost."""
        self._troubles.append(Trouble(name, hinders, time.time()))
        self._note("fault", name)
        try:
            do()
        except PromiseBroken as error:
            self._break(f"{error}")
        end = time.time()
        trouble = self._troubles[-1] = replace(self._troubles[-1], end=end, since=end)
        self._note("fault is over", name)
        while (proof := verdict.over(trouble, tuple(self._sightings))) is None and time.time() < end + PROMISE:
            time.sleep(LOOK)
        now = time.time()
        self._recoveries.append((name, verdict.recovery(trouble, tuple(self._sightings), now)))
        self._note("recovered" if proof else "not recovered", f"{name}, {now - end:.1f} s")
        if proof is None:
            self._break(f"no new token was delivered within {PROMISE:g} s of the end of: {name}")
        if self._world.laptop.daemon is None or self._world.laptop.daemon.poll() is not None:
            self._break(f"the daemon ended during or after: {name}")

    def _peace(self, seconds: float) -> None:
        """Compare the foreign text with the model, and let everything run."""
        with self._rival.resting():
            end = time.monotonic() + REST
            while (wrong := self._rival.difference()) is not None and time.monotonic() < end:
                time.sleep(LOOK)
            if wrong is not None:
                self._lost += sum(len(line) for line in wrong.lost)
                self._break(f"the foreign text is not what the rivals wrote: {wrong}")
                self._rival.accept()
        time.sleep(max(0.0, seconds))

    # ------------------------------------------------------------------------------------------------------ threads

    def _watch(self) -> None:
        """Record every change of the token in the netrc."""
        last: Sighting | None = None
        while not self._stop.wait(LOOK):
            seen = Sighting(time.time(), self._world.delivered(self._world.read()))
            if last is None or seen.token != last.token:
                last = seen
                self._sightings.append(seen)
                self._note("token", "none" if seen.token is None else f"ends in {seen.token.end - seen.at:.1f} s")

    def _install(self) -> None:
        """Install again and again, without a cache."""
        tmp = self._world.laptop.directory / "tmp"
        while not self._stop.wait(PAUSE):
            with tempfile.TemporaryDirectory(dir=tmp, ignore_cleanup_errors=True) as target:
                began = time.time()
                done = self._world.laptop.install(Path(target), "eta")
            said = done.stderr.strip() if done.returncode else None
            install = Install(began, time.time(), said)
            self._installs.append(install)
            self._note("install", said or "ok", seconds=round(install.ended - began, 2), began=began)

    def _note(self, event: str, what: str, **more: float) -> None:
        self._log.write(json.dumps({"at": round(time.time(), 3), "event": event, "what": what, **more}) + "\n")

    def _break(self, sentence: str) -> None:
        self._broken.append(sentence)
        self._note("BROKEN", sentence)
        self._say(f"BROKEN: {sentence}")

    # ------------------------------------------------------------------------------------------------------- result

    def _result(self, began: float, ended: float) -> Result:
        troubles = sorted([*self._troubles, *self._rival.troubles], key=lambda trouble: trouble.begin)
        tokens, sightings = self._world.tokens(), tuple(self._sightings)
        for token in tokens:
            self._note("issued", "a token", began=token.issued)
        why = {
            install: verdict.excuse(install, tokens, troubles, sightings, self._world.life)
            for install in self._installs
        }
        failed = [install for install in self._installs if install.said is not None]
        avoidable = [install for install in failed if why[install] is None]
        for install in avoidable[:REPORTED]:
            when = install.began - began
            self._break(f"an avoidable failure, {when:.1f} s after the start: {' '.join((install.said or '').split())}")
        dead = verdict.rot(sightings, troubles, ended)
        if dead > PROMISE:
            self._break(f"an expired token was in the netrc for {dead:.0f} s")
        counts = Counter(trouble.kind for trouble in troubles)
        excused = Counter(str(why[install]) for install in failed if why[install] is not None)
        figures: dict[str, int | float | str] = {
            "seconds": ended - began,
            "tokens fetched": len(tokens),
            "rotations in the netrc": max(0, len({seen.token for seen in sightings if seen.token}) - 1),
            "installs": len(self._installs),
            "installs owed to work": sum(reason is None for reason in why.values()),
            "installs that failed": len(failed),
            "... and were avoidable": len(avoidable),
            "... and were excused by": ", ".join(f"{kind} {count}" for kind, count in excused.items()) or "nothing",
            "rivals' edits": self._rival.edits,
            "foreign bytes lost": self._lost,
            "longest stay of a dead token, in s": dead,
            "faults": ", ".join(f"{kind} {count}" for kind, count in counts.items()),
            "worst recovery, in s": ", ".join(f"{kind} {worst:.1f}" for kind, worst in self._worst().items()),
        }
        return Result("daemon", figures, tuple(self._broken))

    def _worst(self) -> dict[str, float]:
        worst: dict[str, float] = {}
        for kind, seconds in self._recoveries:
            worst[kind] = max(worst.get(kind, 0.0), seconds)
        return worst

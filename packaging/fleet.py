"""Compute what a fleet of daemons costs a cloud, and draw it: python packaging/fleet.py [--seed N] [--machines N]

Machines with one lease each are driven through the real decisions (`uvtokend.core.lease` and `uvtokend.core.policy`),
once with dice and once with every die showing the same. The issuer answers what exceeds its quota within a second with
429 and no `Retry-After`, the worst case. The table goes to standard output as Markdown, the picture to
packaging/pictures/fleet.svg. 10,000 machines take about five minutes of one core.
"""

import argparse
import heapq
import random
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from html import escape
from pathlib import Path

from uvtokend.core import lease as leases
from uvtokend.core.lease import Lease
from uvtokend.core.model import Credential, Failure, Request, Secret

PICTURE = Path(__file__).resolve().parent / "pictures" / "fleet.svg"
HOUR = 3600
START = datetime(2026, 1, 5, 8, tzinfo=UTC)  # a Monday
#: People open their laptops within this many seconds.
MORNING = 900
#: The issuer answers nobody from the second hour to the third.
OUTAGE = range(HOUR, 2 * HOUR)
REQUEST = Request("fleet")
BUSY = Failure("transient", "throttled", "Rate exceeded.")
SILENT = Failure("transient", "unavailable", "The service does not answer.")


@dataclass(frozen=True)
class Issuer:
    """A service that hands out tokens.

    Args:
        name: For people.
        life: Seconds that a token is valid.
        quota: Requests within a second, of the whole fleet.
        source: Where the quota stands.
    """

    name: str
    life: int
    quota: int
    source: str

    @property
    def horizon(self) -> int:
        """Seconds that are looked at: two lives, and at least the outage and what follows it."""
        return max(2 * self.life, 4 * HOUR)


ISSUERS = (
    Issuer("AWS CodeArtifact", 12 * HOUR, 40, "CodeArtifact user guide, Quotas: GetAuthorizationToken, per Region"),
    Issuer("AWS STS", 12 * HOUR, 600, "IAM user guide, IAM and STS quotas: per account and Region"),
    Issuer("Google IAM", HOUR, 100, "Google Cloud, IAM quotas: 6,000 reads a minute, the lowest that may apply"),
    Issuer("Microsoft Entra", HOUR, 200, "none is published; taken is that of Entra External ID, service limits"),
)


@dataclass(frozen=True)
class Course:
    """What an issuer saw.

    Args:
        seconds: The requests in each second.
        served_at: The second in which the last machine got its first token; 0 if all had one.
    """

    seconds: Counter[int]
    served_at: int

    def peak(self, within: range) -> int:
        """Return the most requests in a second."""
        return max((self.seconds[second] for second in within), default=0)

    def total(self, within: range) -> int:
        """Return the requests in a time."""
        return sum(self.seconds[second] for second in within)


class Fleet:
    """All machines and their issuer.

    Args:
        issuer: The issuer.
        roll: Rolls a die, in [0, 1).
        down: The seconds in which the issuer answers nobody.
    """

    def __init__(self, issuer: Issuer, roll: Callable[[], float], down: range = range(0)) -> None:
        self.issuer = issuer
        self._roll = roll
        self._down = down
        self._seconds: Counter[int] = Counter()

    def run(self, machines: list[Lease]) -> Course:
        """Let each machine act whenever its lease wants to."""
        served = 0
        first = {number for number, lease in enumerate(machines) if lease.credential is None}
        queue = [(_second(lease.act_at), number) for number, lease in enumerate(machines)]
        heapq.heapify(queue)
        while queue[0][0] < self.issuer.horizon:
            at, number = heapq.heappop(queue)
            now = START + timedelta(seconds=at)
            lease = machines[number] = self._fetch(machines[number], now, int(at))
            if number in first and lease.credential is not None:
                first.discard(number)
                served = int(at)
            heapq.heappush(queue, (_second(lease.act_at), number))
        return Course(self._seconds, served)

    def token(self, issued: datetime) -> Credential:
        """Return a token of this issuer."""
        return Credential("me", Secret("t"), issued, issued + timedelta(seconds=self.issuer.life))

    def _fetch(self, lease: Lease, now: datetime, second: int) -> Lease:
        self._seconds[second] += 1
        asked = leases.ask(lease, now)
        if second in self._down:
            return leases.failed(asked, SILENT, now, self._roll())
        if self._seconds[second] > self.issuer.quota:
            return leases.failed(asked, BUSY, now, self._roll())
        return leases.fetched(asked, self.token(now), now, self._roll())


def _second(at: datetime | None) -> float:
    assert at is not None  # noqa: S101 - for the type checker: no fetch is in flight between two steps
    return (at - START).total_seconds()


@cache
def waking(issuer: Issuer, machines: int, seed: int, jitter: bool, within: float) -> Course:
    """Run a fleet without tokens that starts within so many seconds."""
    dice = random.Random(seed)
    starts = [START + timedelta(seconds=dice.uniform(0, within)) for _ in range(machines)]
    fleet = Fleet(issuer, dice.random if jitter else lambda: 0.5)
    return fleet.run([Lease(REQUEST, act_at=start) for start in starts])


@cache
def outage(issuer: Issuer, machines: int, seed: int, jitter: bool) -> Course:
    """Run a fleet with tokens of every age whose issuer answers nobody for an hour."""
    dice = random.Random(seed)
    fleet = Fleet(issuer, dice.random if jitter else lambda: 0.5, OUTAGE)
    aged: list[Lease] = []
    while len(aged) < machines:
        issued = START - timedelta(seconds=dice.uniform(0, issuer.life))
        lease = leases.fetched(leases.ask(Lease(REQUEST), issued), fleet.token(issued), issued, dice.random())
        if lease.act_at is not None and lease.act_at > START:
            aged.append(lease)
    return fleet.run(aged)


# ---------------------------------------------------------------------------------------------------------- the table


def table(machines: int, seed: int) -> str:
    """Return the table, in Markdown: each cell with jitter, and without."""
    head = (
        "issuer",
        "quota a second",
        "requests an hour",
        "peak a second: laptops opened within 15 min",
        "all started within one second: until all have a token",
        "peak a second in the first refresh after that",
        "peak a second after an outage of 1 h",
    )
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    for issuer in ISSUERS:
        both = [_figures(issuer, machines, seed, jitter) for jitter in (True, False)]
        cells = [f"{with_it} ({without})" for with_it, without in zip(*both, strict=True)]
        steady = both[0][0]
        lines.append(f"| {' | '.join((issuer.name, str(issuer.quota), steady, *cells[1:]))} |")
    return "\n".join(lines) + "\n"


def _figures(issuer: Issuer, machines: int, seed: int, jitter: bool) -> tuple[str, ...]:
    aged = outage(issuer, machines, seed, jitter)
    morning = waking(issuer, machines, seed, jitter, MORNING)
    at_once = waking(issuer, machines, seed, jitter, 1.0)
    later = range(issuer.life * 2 // 5, issuer.horizon)
    return (
        f"{round(aged.total(range(HOUR)), -2):,}",
        str(morning.peak(range(issuer.horizon))),
        f"{at_once.served_at} s",
        str(at_once.peak(later)),
        str(aged.peak(range(OUTAGE.stop, issuer.horizon))),
    )


# -------------------------------------------------------------------------------------------------------- the picture

WIDTH, HEIGHT, MARGIN = 720, 150, 50
COLORS = {"with jitter": "#1f77b4", "without": "#d62728"}


def panel(title: str, lines: dict[str, list[int]], unit: str, span: str) -> str:
    """Return one diagram as the body of an SVG group.

    Args:
        title: What is shown.
        lines: For each kind of fleet, the requests in each part of the time.
        unit: What a part of the time is.
        span: The time at the right end.
    """
    most = max(1, *(max(line) for line in lines.values()))
    said = [f'<text x="{MARGIN}" y="14" font-weight="bold">{escape(title)}</text>']
    bottom = HEIGHT - 20
    said.append(f'<path d="M{MARGIN},24 V{bottom} H{WIDTH - 10}" fill="none" stroke="#888"/>')
    said.append(f'<text x="{MARGIN - 4}" y="32" text-anchor="end">{most:,}</text>')
    said.append(f'<text x="{MARGIN - 4}" y="{bottom}" text-anchor="end">0</text>')
    said.append(f'<text x="{MARGIN}" y="{bottom + 14}">requests in each {unit}</text>')
    said.append(f'<text x="{WIDTH - 10}" y="{bottom + 14}" text-anchor="end">{span}</text>')
    for name in reversed(COLORS):  # the one that matters in front
        line, step = lines[name], (WIDTH - 10 - MARGIN) / max(1, len(lines[name]) - 1)
        points = (
            f"{MARGIN + step * number:.1f},{bottom - (bottom - 28) * count / most:.1f}"
            for number, count in enumerate(line)
        )
        said.append(f'<polyline points="{" ".join(points)}" fill="none" stroke="{COLORS[name]}" stroke-width="1.5"/>')
    return "\n".join(said)


def picture(panels: Iterable[str]) -> str:
    """Return the whole SVG."""
    bodies = list(panels)
    legend = "".join(
        f'<text x="{WIDTH - 190 + 100 * number}" y="14" fill="{color}">{name}</text>'
        for number, (name, color) in enumerate(COLORS.items())
    )
    groups = "\n".join(
        f'<g transform="translate(0,{HEIGHT * number})">\n{body}\n</g>' for number, body in enumerate(bodies)
    )
    size = f'viewBox="0 0 {WIDTH} {HEIGHT * len(bodies)}" font-family="sans-serif" font-size="11"'
    background = '<rect width="100%" height="100%" fill="white"/>'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size}>\n{background}\n{groups}\n{legend}\n</svg>\n'


def parts(course: Course, within: range, size: int) -> list[int]:
    """Return the requests in each part of a time, of so many seconds."""
    return [course.total(range(start, start + size)) for start in range(within.start, within.stop, size)]


def draw(machines: int, seed: int) -> str:
    """Return the picture of the issuer with the smallest quota, and of one-hour tokens after an outage."""
    slow, fast = ISSUERS[0], ISSUERS[-1]
    kinds = {name: name == "with jitter" for name in COLORS}
    at_once = {name: waking(slow, machines, seed, jitter, 1.0) for name, jitter in kinds.items()}
    after = {name: outage(fast, machines, seed, jitter) for name, jitter in kinds.items()}
    first, wave = range(600), range(7 * HOUR, 8 * HOUR + 600)
    hours = range(4 * HOUR)
    title = f"{machines:,} machines"
    return picture(
        (
            panel(
                f"{title} start in one second, {slow.name}, quota {slow.quota} a second",
                {name: parts(course, first, 1) for name, course in at_once.items()},
                "second",
                "10 min later",
            ),
            panel(
                "Their first refresh",
                {name: parts(course, wave, 10) for name, course in at_once.items()},
                "10 s",
                "7 h to 8 h 10 min later",
            ),
            panel(
                f"{title} with one-hour tokens, {fast.name}, no answer in the second hour",
                {name: parts(course, hours, 60) for name, course in after.items()},
                "minute",
                "4 h",
            ),
        )
    )


def main() -> None:
    """Print the table and draw the picture."""
    parser = argparse.ArgumentParser(description="What a fleet of daemons costs a cloud.")
    parser.add_argument("--seed", type=int, default=1, help="what is drawn (default: 1)")
    parser.add_argument("--machines", type=int, default=10_000, help="how many daemons (default: 10000)")
    args = parser.parse_args()
    print(table(args.machines, args.seed), end="")
    for issuer in ISSUERS:
        print(f"{issuer.name}: {issuer.source}")
    PICTURE.write_text(draw(args.machines, args.seed))


if __name__ == "__main__":
    main()

"""Rows: the time from a provider's response until uv can read the entry,
compared with a plain write of the same bytes.
"""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

from bench.fleet import Fleet
from bench.stage import Stage
from bench.table import Aim, Line, compared

HOST = "stamped.example"
#: A provider that records when it returns.
STAMP = """\
import os, secrets, time
from datetime import UTC, datetime, timedelta
from uvtokend.plugin import Credential, Secret

def fetch(request):
    now = datetime.now(UTC)
    credential = Credential("me", Secret(secrets.token_hex(600)), now, now + timedelta(hours=12))
    with open(os.environ["STAMP_FILE"], "w") as file:
        file.write(str(time.monotonic_ns()))
    return credential
"""
TABLE = f'[[index]]\nname = "stamped"\nurl = "https://{HOST}/simple/"\nprovider = "stamp"\noptions = {{}}\n'
#: The number of foreign entries in a netrc of one megabyte.
FOREIGN = 26_000


def measure(stage: Stage) -> list[Line]:
    """Refresh one token among increasing numbers of others."""
    lines = []
    for size in stage.scale.sizes:
        if size != 10:
            name = "1 entry" if size == 1 else f"{size:,} entries"
            lines.append(_among(stage, f"answer until the entry is visible, {name}", size - 1, ""))
    others = "\n".join(f"machine {number:05}.example login u password t" for number in range(FOREIGN)) + "\n"
    name = f"{len(others) / 1e6:.1f} MB with {FOREIGN:,} entries of others"
    lines.append(_among(stage, f"answer until the entry is visible, {name}", 0, others))
    return lines


def _among(stage: Stage, row: str, size: int, others: str) -> Line:
    directory = stage.directory()
    plugin = directory / "plugin"
    (plugin / "stamp-1.dist-info").mkdir(parents=True)
    (plugin / "stamp-1.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: stamp\nVersion: 1\n")
    (plugin / "stamp-1.dist-info" / "entry_points.txt").write_text("[uvtokend.providers]\nstamp = stamp:fetch\n")
    (plugin / "stamp.py").write_text(STAMP)
    fleet = Fleet(directory, size, TABLE)
    stamp = directory / "stamp"
    fleet.environment |= {"PYTHONPATH": str(plugin), "STAMP_FILE": str(stamp)}
    if others:
        fleet.netrc.write_text(others)
        fleet.netrc.chmod(0o600)
    figures: dict[str, list[float]] = {"daemon": [], "write, fsync, rename": []}
    try:
        fleet.start()
        for _ in range(stage.scale.few + 1):
            figures["daemon"].append(_visible(fleet, stamp))
            figures["write, fsync, rename"].append(_written(fleet.netrc))
    finally:
        fleet.stop()
    return compared(row, figures, "daemon", "write, fsync, rename", Aim(2.0))


def _visible(fleet: Fleet, stamp: Path) -> float:
    """Return the seconds from the provider's response until the netrc has been replaced."""
    time.sleep(6 if fleet.size > 100 else 2)  # the daemon delays a delivery that follows another one closely
    before = fleet.netrc.stat().st_ino
    asking = threading.Thread(target=fleet.command, args=("refresh", "stamped"))
    asking.start()
    end = time.monotonic() + 60
    while fleet.netrc.stat().st_ino == before:
        if time.monotonic() > end:
            raise SystemExit("The token was not delivered.")
        time.sleep(0.0002)
    seen = time.monotonic_ns()
    asking.join()
    return (seen - int(stamp.read_text())) / 1e9


def _written(netrc: Path) -> float:
    """Return the seconds of a plain write of the same bytes to a file beside the netrc."""
    data, beside = netrc.read_bytes(), netrc.parent / "beside"
    beside.write_bytes(data)
    began = time.perf_counter()
    file = os.open(f"{beside}.new", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    os.write(file, data)
    os.fsync(file)
    os.close(file)
    os.rename(f"{beside}.new", beside)
    return time.perf_counter() - began

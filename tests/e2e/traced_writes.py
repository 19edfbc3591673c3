"""Show with strace where the daemon and its workers write a token, even for a moment.

Run by hand on Linux, with the number of rotations; strace has to be installed::

    python tests/e2e/traced_writes.py 10

With ``sink = "memory"`` a token is written only to pipes and sockets. With ``sink = "netrc"``, the control, it is
written to a file. The exit status is 0 if both are true.
"""

from __future__ import annotations

import re
import shutil
import sys
import tempfile
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from support.daemons import await_ready
from support.issuing import CANARY, LOGIN, Issuing

#: Every call that can write bytes to a file; -yy prints what a descriptor refers to.
CALLS = "write,writev,pwrite64,pwritev,pwritev2,sendto,sendmsg,sendfile,splice,tee,vmsplice,copy_file_range,mmap"
STRACE = ("strace", "-f", "-qq", "-s", "100000", "-yy", "-e", f"trace={CALLS}")
#: A call, its descriptor, and what the descriptor refers to.
LINE = re.compile(r"(\w+)\(\d+<([^>]*)")


class Traced(Issuing):
    """A machine whose daemon runs under strace."""

    def ourselves(self, *arguments: str) -> list[str]:  # type: ignore[override]  # static in the class above
        command = super().ourselves(*arguments)
        return [*STRACE, "-o", str(self.directory / "trace"), *command] if arguments[0] == "run" else command

    def written(self) -> Counter[str]:
        """Return where tokens were written, and how often."""
        lines = (self.directory / "trace").read_text(errors="replace").splitlines()
        calls = [LINE.search(line) for line in lines if re.search(rf"{CANARY}-\d", line)]
        return Counter(_kind(call[2]) for call in calls if call is not None)


def _kind(descriptor: str) -> str:
    return descriptor if descriptor.startswith("/") else descriptor.partition(":")[0]


def trace(sink: str, rotations: int) -> Counter[str]:
    """Rotate a token and read it with keyring, and return where it was written."""
    with tempfile.TemporaryDirectory(prefix="uvtokend-") as directory:
        machine = Traced(Path(directory))
        try:
            machine.configure(f'sink = "{sink}"')
            machine.uvtokend("keyring", "install", str(machine.home / "bin"))
            machine.start()
            await_ready(machine)
            for _ in range(rotations):
                assert machine.uvtokend("refresh").returncode == 0
                shim = str(machine.home / "bin" / "keyring")
                assert machine.run([shim, "get", machine.index.url, LOGIN]).stdout == f"{machine.tokens[-1]}\n"
            machine.uvtokend("stop")
        finally:
            machine.close()
        return machine.written()


def main() -> int:
    """Trace both sinks and print the results."""
    if shutil.which("strace") is None:
        print("strace is not installed.")
        return 2
    rotations = int(sys.argv[1]) if len(sys.argv) > 1 else 10
    files = {}
    for sink in ("memory", "netrc"):
        written = trace(sink, rotations)
        files[sink] = [name for name in written if name.startswith("/")]
        print(f'sink = "{sink}", {rotations} rotations: {dict(written)}')
    return int(bool(files["memory"]) or not files["netrc"])


if __name__ == "__main__":
    sys.exit(main())

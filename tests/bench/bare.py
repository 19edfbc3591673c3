"""The least that a daemon can do: replace a file by the answer of a child process.

    python tests/bench/bare.py FILE

Each line on the standard input starts a child. Its answer replaces the beginning of the file: one write, one fsync, one
rename. Then the time of the answer is printed, in nanoseconds.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

#: A child that imports what a worker does, and answers with a token as long as a worker's.
CHILD = """\
import secrets, time
import uvtokend.plugin
token = secrets.token_hex(600)
print(time.monotonic_ns(), token, flush=True)
"""


def main() -> None:
    """Replace the file once for each line."""
    path = sys.argv[1]
    text = Path(path).read_bytes()
    for _ in sys.stdin:
        with subprocess.Popen([sys.executable, "-P", "-c", CHILD], stdout=subprocess.PIPE) as child:
            assert child.stdout is not None
            at, token = child.stdout.readline().split()
            file = os.open(f"{path}.new", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            os.write(file, token + text[len(token) :])
            os.fsync(file)
            os.close(file)
            os.rename(f"{path}.new", path)
        print(int(at), flush=True)


if __name__ == "__main__":
    main()

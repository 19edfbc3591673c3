"""Stop the daemons that a killed test run leaves behind.

`uvtokend start` detaches its daemon from every process that the tests know. This file therefore runs as a process
that waits until its standard input ends, which happens however the tests end, and then stops each daemon below a
directory.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
from pathlib import Path

#: The most seconds until a daemon answers.
_PATIENCE = 10.0


def ended_with_us(directory: Path) -> subprocess.Popen[bytes]:
    """Start the process that stops all daemons below a directory once this process ends or closes the pipe."""
    words = [sys.executable, "-I", "-S", __file__, str(directory)]
    return subprocess.Popen(words, stdin=subprocess.PIPE, start_new_session=True)


def main(directory: str) -> None:
    """Wait until the standard input ends, then stop each daemon below a directory."""
    sys.stdin.buffer.read()
    for path in list(Path(directory).rglob("control.sock")):
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as client:
            os.chdir(path.parent)  # the complete path may be too long for a socket
            client.settimeout(_PATIENCE)
            client.connect(path.name)
            client.sendall(b'{"jsonrpc": "2.0", "id": 1, "method": "stop"}\n')
            client.recv(1)


if __name__ == "__main__":
    main(sys.argv[1])

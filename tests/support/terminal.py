"""A command on a terminal, and what a person sees there."""

from __future__ import annotations

import errno
import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from support.waiting import PATIENCE

LINES, COLUMNS = 24, 60


class Terminal:
    """Runs a command on a terminal. A step that takes longer than `PATIENCE` fails; a failure prints what was shown.

    Args:
        command: The command line.
        env: The complete environment.
        cwd: The working directory; None for that of the tests.
        keyboard: Whether the command reads from the terminal, too.
    """

    def __init__(
        self, command: Sequence[str], env: Mapping[str, str], cwd: Path | None = None, keyboard: bool = False
    ) -> None:
        self._ours, theirs = pty.openpty()
        try:
            fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("4H", LINES, COLUMNS, 0, 0))
            stdin = theirs if keyboard else subprocess.DEVNULL
            self.process = subprocess.Popen(command, stdin=stdin, stdout=theirs, stderr=theirs, env=env, cwd=cwd)
        except BaseException:
            os.close(self._ours)
            raise
        finally:
            os.close(theirs)
        self._seen = b""
        self._expected = 0

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, failure: type[BaseException] | None, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        if failure is not None:
            while select.select([self._ours], [], [], 0)[0] and self._read_chunk():
                pass
            print(f"The terminal showed:\n{self.text}")
        os.close(self._ours)

    @property
    def text(self) -> str:
        """Everything that was shown so far."""
        return self._seen.decode(errors="replace")

    def expect(self, pattern: str) -> re.Match[str]:
        """Wait until text that matches is shown after the previous match, and return the match."""
        deadline = time.monotonic() + PATIENCE
        wanted = re.compile(pattern)
        while (match := wanted.search(self.text, self._expected)) is None:
            assert self._read(deadline, repr(pattern)), f"the command ended before it showed {pattern!r}"
        self._expected = match.end()
        return match

    def type(self, text: str) -> None:
        """Type text and the enter key."""
        os.write(self._ours, f"{text}\n".encode())

    def interrupt(self) -> int:
        """Send SIGINT, and return the exit status."""
        self.process.send_signal(signal.SIGINT)
        return self.end()

    def end(self) -> int:
        """Wait until the command has ended, and return its exit status."""
        deadline = time.monotonic() + PATIENCE
        while self._read(deadline, "its end"):
            pass
        return self.process.wait(PATIENCE)

    def _read(self, deadline: float, awaited: str) -> bool:
        """Read what is shown next; return False if nothing can follow, because the last process there has ended."""
        left = max(0.0, deadline - time.monotonic())
        ready = select.select([self._ours], [], [], left)[0]
        assert ready, f"{awaited} is still awaited after {PATIENCE:g} s"
        return self._read_chunk()

    def _read_chunk(self) -> bool:
        try:
            chunk = os.read(self._ours, 65536)
        except OSError as error:
            if error.errno != errno.EIO:  # Linux; on macOS there is an end of file
                raise
            chunk = b""
        self._seen += chunk
        return bool(chunk)

"""``uvtokend run``: run the daemon in the foreground."""

from __future__ import annotations

import argparse
import contextlib
import gc
import json
import os
import stat
import sys
from importlib.util import find_spec

from uvtokend.cli import console
from uvtokend.errors import OK, USAGE, UvtokendError
from uvtokend.service import by_launchd

EXAMPLES = ("uvtokend run", "uvtokend run --quiet")
#: Bytes of the file of standard error that are kept from one start to the next.
_OUTPUT_LIMIT = 64 * 1024
DETAILS = "This is what systemd and launchd start. It ends with 0 after SIGTERM or SIGINT."


def arguments(own: argparse.ArgumentParser) -> None:
    """Add the arguments of this verb."""
    own.add_argument("--quiet", action="store_true", help="don't print events to standard error")
    own.add_argument("--report-to", metavar="FD", type=int, help=argparse.SUPPRESS)  # for `start`


def run(args: argparse.Namespace) -> int:
    """Run the daemon until it is stopped.

    Raises:
        UvtokendError: The daemon could not start.
    """
    _without_openssl()
    gc.disable()  # nothing that is imported is garbage, and looking for it is a tenth of the start …
    from uvtokend.daemon import control, main  # noqa: PLC0415 - they must come after that

    gc.freeze()  # … and of every later collection
    gc.enable()
    if by_launchd(os.environ):
        _shorten_output()
    report = _Report(args.report_to)
    try:
        return main.run(args.config, args.quiet, report.ready)
    except UvtokendError as error:
        code, message, data = control.explained(error)
        report.write({"code": code, "message": message, "data": data, "kind": type(error).__name__})
        if error.exit_status != USAGE or not by_launchd(os.environ):
            raise
        # After any other status, launchd would restart the daemon forever, although only a person can help
        # (launchd.plist(5)).
        console.complain(error)
        return OK


def _shorten_output() -> None:
    """Shorten the file to which launchd appends our standard error, if it has grown: launchd never does."""
    with contextlib.suppress(OSError):
        if stat.S_ISREG(os.fstat(2).st_mode) and os.fstat(2).st_size > _OUTPUT_LIMIT:
            os.ftruncate(2, 0)


def _without_openssl() -> None:
    """Keep OpenSSL out of a process that uses unix sockets only: asyncio and hashlib load it if they can, for 8 MiB.

    Both work without it (Lib/asyncio/base_events.py, Lib/hashlib.py). hashlib then needs Python's own modules of all
    hashes, which some distributions leave out.
    """
    sys.modules.setdefault("ssl", None)  # type: ignore[arg-type]
    sha2 = ("_sha2",) if sys.version_info >= (3, 12) else ("_sha256", "_sha512")
    if all(find_spec(name) is not None for name in ("_md5", "_sha1", "_sha3", "_blake2", *sha2)):
        sys.modules.setdefault("_hashlib", None)  # type: ignore[arg-type]


class _Report:
    """One line of JSON for the parent process: ``{"ready": true}``, or why the daemon could not start.

    Args:
        file: The file descriptor to write it to, or None.
    """

    def __init__(self, file: int | None) -> None:
        self._file = file
        if file is not None:
            os.set_inheritable(file, False)  # no worker may hold it open

    def ready(self) -> None:
        """Say that the daemon answers on its socket."""
        self.write({"ready": True})

    def write(self, line: dict[str, object]) -> None:
        """Write the line, once."""
        if self._file is None:
            return
        file, self._file = self._file, None
        with open(file, "w", encoding="utf-8") as pipe:
            pipe.write(json.dumps(line) + "\n")

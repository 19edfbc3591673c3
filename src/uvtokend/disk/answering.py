"""Use a file whose file system may never answer, such as a network file system whose server is gone.

No signal but SIGKILL interrupts a program that waits for such a file system. So the file is used in a thread, and
nobody waits longer than `PATIENCE` for that thread. The commands do so; the daemon has threads of its own for files.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import TypeVar

from uvtokend.core import fixes
from uvtokend.errors import UvtokendError

#: Seconds that a file system gets to answer.
PATIENCE = 5.0

_T = TypeVar("_T")


def answered(function: Callable[[], _T], *files: str) -> _T:
    """Return what a function returns, or raise what it raises.

    Args:
        function: The function. It may be left running in its thread.
        files: The files that it uses.

    Raises:
        UvtokendError: It has not ended within `PATIENCE` seconds; the error names the files and their file system.
    """
    ended: SimpleQueue[tuple[list[_T], BaseException | None]] = SimpleQueue()

    def run() -> None:
        try:
            ended.put(([function()], None))
        except BaseException as error:  # noqa: BLE001 - raised below
            ended.put(([], error))

    threading.Thread(target=run, name="file system", daemon=True).start()
    try:
        results, error = ended.get(timeout=PATIENCE)
    except Empty:
        raise _hung(files) from None
    if error is not None:
        raise error
    return results[0]


def _hung(files: tuple[str, ...]) -> UvtokendError:
    message = f"The file system of {' or '.join(files)} has not answered for {PATIENCE:g} s."
    mount = mount_point(files[0])
    if mount is None:
        return UvtokendError(message, "mount")
    return UvtokendError(f"{message} It is mounted at {mount}.", fixes.mounted_at(mount))


def mount_point(path: str) -> str | None:
    """Return where the file system of a path is mounted, without asking it; None where there is no list of mounts.

    Args:
        path: An absolute path. Its symbolic links are not followed, because that could take forever.
    """
    mounts = []
    table = "/proc/self/mountinfo"
    with contextlib.suppress(OSError), open(table, encoding="utf-8", errors="surrogateescape") as lines:
        for line in lines:  # proc(5): the fifth word is the mount point, with escaped white space
            mount = line.split(" ", 5)[4]
            for escape, plain in ((r"\040", " "), (r"\011", "\t"), (r"\012", "\n"), (r"\134", "\\")):
                mount = mount.replace(escape, plain)
            mounts.append(mount)
    above = [mount for mount in mounts if os.path.join(path, "").startswith(os.path.join(mount, ""))]
    return max(above, key=len, default=None)

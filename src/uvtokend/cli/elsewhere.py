"""Find other daemons of this user, which listen on another control socket than this shell expects.

A shell with another ``HOME``, ``XDG_RUNTIME_DIR`` or ``UVTOKEND_SOCKET`` than the daemon's expects another socket. The
environment of a daemon is hidden, since it is undumpable, but its socket is not: the kernel lists the paths of all unix
sockets (proc(5), /proc/net/unix), and the lock beside the socket shows that it is one of ours.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import psutil

from uvtokend import paths
from uvtokend.cli import client
from uvtokend.errors import UvtokendError

#: Seconds that another daemon gets to answer.
_PATIENCE = 0.5
#: Seconds after which no other daemon is asked: daemons that hang must not delay the answer.
_ALTOGETHER = 1.5
#: /proc/net/unix: the flag of a socket that listens (__SO_ACCEPTCON), and the type of a stream.
_LISTENS, _STREAM = "00010000", "0001"


@dataclass(frozen=True, slots=True)
class OtherDaemon:
    """A daemon that answers elsewhere.

    Args:
        pid: Its process ID.
        socket: Its control socket.
        config: The configuration that it has loaded.
        netrc: The netrc that it writes.
    """

    pid: int
    socket: str
    config: str
    netrc: str

    @property
    def home(self) -> str | None:
        """The home directory that it serves; None if its files do not tell."""
        directory, name = os.path.split(self.netrc)
        return directory if name == ".netrc" and self.config.startswith(f"{directory}/") else None

    def __str__(self) -> str:
        what = f"reads {self.config} and writes {self.netrc}"
        return f"Another daemon of yours (pid {self.pid}) listens on {self.socket}; it {what}."


def daemons() -> Iterator[OtherDaemon]:
    """Yield the daemons of this user that answer on another socket than this shell's."""
    here = os.path.realpath(paths.socket_file())
    deadline = time.monotonic() + _ALTOGETHER
    for path in sorted({os.path.realpath(path) for path in _sockets()} - {here}):
        if time.monotonic() > deadline:
            return
        daemon = _asked(path) if _is_ours(path) else None
        if daemon is not None:
            yield daemon


def _is_ours(path: str) -> bool:
    """Return whether a lock of this user is beside a socket, as our daemon creates it."""
    try:
        return os.lstat(f"{path}.lock").st_uid == os.geteuid()
    except OSError:
        return False


def _asked(path: str) -> OtherDaemon | None:
    try:
        with client.Connection(_PATIENCE, path) as connection:
            said = connection.call("version")  # `status` would make it read its files
            return OtherDaemon(int(said["pid"]), path, str(said["config"]), str(said["netrc"]))
    except (UvtokendError, KeyError, TypeError, ValueError):
        return None


def _sockets() -> Iterable[str]:
    """Return the paths of unix sockets on which a process listens."""
    try:
        with open("/proc/net/unix", encoding="utf-8", errors="surrogateescape") as table:
            rows = [line.rstrip("\n").split(maxsplit=7) for line in table]
    except OSError:
        return _of_processes()
    return [row[7] for row in rows if len(row) == 8 and row[3:5] == [_LISTENS, _STREAM] and row[7].startswith("/")]


def _of_processes() -> Iterator[str]:
    """Yield the sockets of our own processes, if the kernel has no list (macOS, untested)."""
    for process in psutil.process_iter():
        try:
            if is_daemon(process):
                opened = process.net_connections(kind="unix")
                yield from (str(each.laddr) for each in opened if each.type == socket.SOCK_STREAM and each.laddr)
        except psutil.Error:
            continue  # it ended meanwhile, or must not be inspected


def is_daemon(process: psutil.Process) -> bool:
    """Return whether a process is a daemon of ours, run by this user.

    Raises:
        psutil.Error: The process has ended, or must not be inspected.
    """
    if not process.pid or process.uids().real != os.getuid():
        return False
    words = process.cmdline()
    return "run" in words and any(os.path.basename(word) == paths.APP for word in words)

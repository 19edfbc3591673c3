"""Compose the daemon from its parts, and check the conditions of its start."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial

from uvtokend import __version__, paths, undumpable
from uvtokend.core.events import Report
from uvtokend.core.model import Json, Settings
from uvtokend.daemon import memory
from uvtokend.daemon.config_files import Load
from uvtokend.daemon.control import UnknownNamesError
from uvtokend.daemon.endpoint import Endpoint, SocketLock
from uvtokend.daemon.events import EventLog
from uvtokend.daemon.loop import Daemon
from uvtokend.daemon.notify import notify
from uvtokend.disk import answering, configuration
from uvtokend.disk.locks import Lock
from uvtokend.disk.netrc_sink import NetrcSink
from uvtokend.disk.state_file import Store
from uvtokend.errors import FAILED, OK, UsageError, UvtokendError

#: Seconds after which a thread that computes lets another one go on (sys.setswitchinterval). The loop and the disk
#: thread hand over to each other many times in each delivery.
TURN = 0.0005
#: The events that show whether the previous daemon was stopped.
STARTED, STOPPED = "started", "stopped"


def _nothing() -> None:
    """Do nothing."""


def run(config_file: str | None = None, quiet: bool = False, ready: Callable[[], None] = _nothing) -> int:
    """Run the daemon in the foreground until SIGTERM, SIGINT or ``uvtokend stop``.

    Args:
        config_file: Another configuration file.
        quiet: Print nothing on standard error.
        ready: Called once the daemon answers on its socket.

    Raises:
        UvtokendError: The daemon could not start; the message says why.
    """
    _harden(executes=False)
    memory.keep_small()
    sys.setswitchinterval(TURN)
    settings = configuration.load(config_file)
    socket = paths.socket_file()
    with _owned(settings) as (sink, state_directory):
        socket_lock = SocketLock(socket)
        store = Store(state_directory, len(settings.indexes))
        with contextlib.closing(_log(state_directory, quiet)) as log, _released(socket_lock):
            _tell_start(log)
            load = partial(configuration.load, config_file, bounded=False)  # the daemon reads it in a thread of its own
            asyncio.run(_serve(load, settings, sink, store, log, socket_lock, ready))
    return OK


async def _serve(
    load: Load,
    settings: Settings,
    sink: NetrcSink,
    store: Store,
    log: EventLog,
    socket_lock: SocketLock,
    ready: Callable[[], None],
) -> None:
    daemon = Daemon(load, settings, sink, store, log, socket_lock.socket)
    endpoint = Endpoint(socket_lock, daemon.requests, log.emit)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, daemon.end, number.name)
    reloads: set[asyncio.Task[None]] = set()  # the loop itself keeps only weak references

    def reload() -> None:
        task = loop.create_task(_reload(daemon, log))
        reloads.add(task)
        task.add_done_callback(reloads.discard)

    loop.add_signal_handler(signal.SIGHUP, reload)
    await endpoint.server.open()
    daemon.at_tick = endpoint.look
    daemon.start()
    notify("READY=1")
    ready()
    await daemon.stopped.wait()
    notify("STOPPING=1")
    await asyncio.sleep(0)  # so that the answer to `stop` is sent
    await endpoint.server.close()
    await daemon.close()
    log.emit(Report("info", STOPPED, (), f"The daemon stopped: {daemon.end_reason}."))


def _log(state_directory: str, quiet: bool) -> EventLog:
    return EventLog(os.path.join(state_directory, "events.jsonl"), quiet)


def _tell_start(log: EventLog) -> None:
    """Log that the daemon starts, and whether the previous one was stopped."""
    if answering.answered(lambda: log.last_of({STARTED, STOPPED}), paths.events_file()) == STARTED:
        message = "The previous daemon was not stopped: it crashed or was killed, or the machine went down."
        log.emit(Report("warning", "crashed", (), message))
    log.emit(Report("info", STARTED, (), f"The daemon started: version {__version__}, pid {os.getpid()}."))


async def _reload(daemon: Daemon, log: EventLog) -> None:
    try:
        await daemon.requests.reload()
    except UvtokendError as error:
        log.emit(Report("error", "configuration", (), f"The new configuration is refused: {error.message}", error.hint))


def once(
    settings: Settings, names: Sequence[str], enough: Callable[[dict[str, Json]], bool] | None = None
) -> tuple[dict[str, Json], int]:
    """Fetch what is due, deliver it, and end, without a daemon.

    Args:
        settings: The configuration.
        names: The names of the indexes; none means all. Indexes whose sink is memory are left out.
        enough: Returns whether an index of the status document needs no other fetch; if it returns False, the index is
            fetched again.

    Returns:
        The status document, and the exit status: 1 if some index has no valid delivered token.

    Raises:
        UvtokendError: Another process owns the netrc.
    """
    _harden(executes=True)  # `ensure` executes a command afterwards
    # A token that is only in memory would be lost with this process; but an index's earlier entry in a sink is removed.
    settings = replace(settings, indexes=tuple(index for index in settings.indexes if index.sink != "memory"))
    with _owned(settings) as (sink, state_directory):
        store = Store(state_directory, len(settings.indexes))
        with contextlib.closing(_log(state_directory, quiet=True)) as log:
            document = asyncio.run(_once(settings, sink, store, log, list(names), enough))
    return document, OK if all(index["delivered"] for index in _indexes(document)) else FAILED


def _indexes(document: dict[str, Json]) -> list[dict[str, Json]]:
    indexes = document["indexes"]
    assert isinstance(indexes, list)  # noqa: S101 - for the type checker
    return [index for index in indexes if isinstance(index, dict)]


async def _once(
    settings: Settings,
    sink: NetrcSink,
    store: Store,
    log: EventLog,
    names: list[str],
    enough: Callable[[dict[str, Json]], bool] | None,
) -> dict[str, Json]:
    only = {index.request for index in settings.indexes if index.name in names} if names else None
    daemon = Daemon(lambda: settings, settings, sink, store, log, None, only)
    try:
        daemon.start()
        document = await daemon.requests.settle(names or None)
        short = [str(index["name"]) for index in _indexes(document) if enough is not None and not enough(index)]
        if short:
            await daemon.requests.refresh(short, wait=True)
            document = await daemon.requests.settle(names or None)
        await daemon.finished()
        return document
    except UnknownNamesError as error:
        raise UsageError(f"Unknown index {', '.join(map(repr, error.unknown))}.", "uvtokend status") from None
    finally:
        await daemon.close()


def _harden(executes: bool) -> None:
    undumpable.protect(executes)
    os.umask(0o077)


@contextlib.contextmanager
def _owned(settings: Settings) -> Iterator[tuple[NetrcSink, str]]:
    """Take the ownership of the netrc, and yield its sink and the state directory."""
    directory = paths.state_directory()
    sink = NetrcSink(settings.netrc)

    def own() -> None:
        paths.check_home(settings.netrc, directory)
        paths.private_directory(directory)
        sink.take_ownership()

    answering.answered(own, settings.netrc, directory)
    try:
        yield sink, directory
    finally:
        sink.release()


@contextlib.contextmanager
def _released(lock: Lock | SocketLock) -> Iterator[None]:
    try:
        yield
    finally:
        lock.release()

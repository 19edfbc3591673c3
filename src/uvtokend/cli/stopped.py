"""The status while no daemon answers: the facts on disk, and the likely reason."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from uvtokend import paths
from uvtokend.cli import console, disk, elsewhere, log
from uvtokend.cli.elsewhere import OtherDaemon
from uvtokend.cli.stop import daemon_of_netrc
from uvtokend.core.document import STOPPED
from uvtokend.core.report import Absence
from uvtokend.disk.locks import Owner
from uvtokend.service import manager

#: The most lines of the service manager that are shown.
_LINES = 6
#: The most other daemons that are named.
_OTHERS = 3


def status(names: list[str], config: str | None, complain: bool = True) -> tuple[dict[str, Any], Absence]:
    """Return the status document, and why no daemon answers.

    Args:
        names: Only these indexes; none means all.
        config: Another configuration file.
        complain: Whether to print the problems of the configuration; the document contains the first one.

    Raises:
        UsageError: No index has one of those names.
    """
    document, error = disk.document(names, config)
    if error is not None and complain:
        console.complain(error)
    everywhere = list(elsewhere.daemons())
    others = everywhere[:_OTHERS]
    said = manager.lines()[:_LINES] if manager.installed() is not None else []
    owner = daemon_of_netrc(config)
    if owner is not None:
        absence = _owned(owner, document["netrc"] or "the netrc", everywhere)
    elif document["indexes"]:
        ended = log.unasked_end()
        absence = Absence(more=(*map(str, others), *([ended] if ended is not None else []), *said))
    else:
        absence = Absence(elsewhere=_of_another_home(everywhere) if error is None else None)
    if document["delivery"]["problem"] == STOPPED:
        document["delivery"]["problem"] = absence.sentence
    return {**document}, absence


def _owned(owner: Owner, netrc: str, others: Sequence[OtherDaemon]) -> Absence:
    """Return the reason if a daemon that writes this netrc does not answer here."""
    here = paths.socket_file()
    same_host = owner.is_here
    listening = next((each for each in others if each.pid == owner.pid), None) if same_host else None
    who = f"pid {owner.pid}" if same_host else str(owner)
    where = f"listens on {listening.socket}, not on {here}" if listening is not None else f"does not listen on {here}"
    sentence = f"A daemon ({who}) keeps {netrc} fresh, but it {where}."
    if listening is not None:
        return Absence(sentence, _move_to(listening.socket))
    return Absence(sentence, "uvtokend restart" if same_host else None)


def _move_to(path: str) -> str:
    """Return the command that sets this shell's socket to a path."""
    named = os.environ.pop("UVTOKEND_SOCKET", None)
    try:
        usual = paths.socket_file()
    finally:
        if named is not None:
            os.environ["UVTOKEND_SOCKET"] = named
    same = os.path.realpath(usual) == os.path.realpath(path)
    return "unset UVTOKEND_SOCKET" if named is not None and same else f"export UVTOKEND_SOCKET={paths.quoted(path)}"


def _of_another_home(others: Sequence[OtherDaemon]) -> tuple[str, str] | None:
    """Return a hint to a daemon of another home directory, if nothing is configured here."""
    here = os.path.realpath(os.path.expanduser("~"))
    homes = [each.home for each in others if each.home is not None and os.path.realpath(each.home) != here]
    if not homes:
        return None
    homes.sort(key=lambda home: not _works_in(home))
    sentence = f"This shell has HOME={os.environ.get('HOME', '')}, but your daemon serves {homes[0]}."
    return sentence, f"export HOME={paths.quoted(homes[0])}"


def _works_in(home: str) -> bool:
    """Return whether the person works in a directory below this home: then it is the one that is meant."""
    try:
        return os.getcwd().startswith(f"{os.path.realpath(home)}/")
    except OSError:  # the directory was deleted
        return False

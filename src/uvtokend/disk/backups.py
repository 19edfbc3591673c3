"""Backups of the entries that `adopt` removed from a netrc, in the state directory, so that `purge` can restore them.

A backup is written before its entries are removed, and only `purge` deletes it: a failed edit may still have reached
the disk. `uvtokend.core.netrc.adopt.restore` restores nothing twice.
"""

from __future__ import annotations

import contextlib
import json
import shlex
from dataclasses import dataclass
from pathlib import Path

from uvtokend import paths
from uvtokend.disk import exchange, files
from uvtokend.errors import UvtokendError

_DIRECTORY = "adopted"


@dataclass(frozen=True, slots=True)
class Backup:
    """One backup. It contains passwords.

    Args:
        file: The backup file, 0600.
        netrc: The netrc that the entries are from, resolved.
        text: The `backup` of `uvtokend.core.netrc.adopt.TakeOver`.
    """

    file: Path
    netrc: str
    text: bytes


def directory() -> Path:
    """Return the directory of the backups; it may be missing."""
    return Path(paths.state_directory()) / _DIRECTORY


def supersede(file: Path) -> None:
    """Keep a backup, but never restore it: a newer one of the same edit contains the entries that were removed."""
    file.rename(f"{file}.superseded")


def keep(netrc: str, text: bytes) -> Path:
    """Write a new backup durably, before anything is removed from the netrc, and return its file.

    Args:
        netrc: The netrc of the entries, resolved.
        text: See `Backup`.

    Raises:
        UvtokendError: The backup could not be written.
    """
    paths.private_directory(paths.state_directory())
    paths.private_directory(str(directory()))
    content = json.dumps({"netrc": netrc, "backup": text.decode("ascii")}).encode()
    while True:
        taken = [int(file.stem) for file in directory().glob("*.json") if file.stem.isdigit()]
        path = directory() / f"{max(taken, default=0) + 1:06}.json"  # the name tells the order
        draft = path.with_name(f"{path.name}.new")
        try:
            draft.unlink(missing_ok=True)
            files.create(str(draft), content)
            exchange.appear(str(draft), str(path))  # complete or not at all, even if we are killed
        except FileExistsError:
            continue
        except OSError as error:
            with contextlib.suppress(OSError):
                draft.unlink()  # nothing was taken out yet
            raise paths.unusable(error, str(path), f"The backup {path} could not be written") from error
        files.sync_directory(str(directory()))
        return path


def set_aside(file: Path) -> str:
    """Return the command that moves a damaged backup away and purges without it."""
    return f"mv {shlex.quote(str(file))} {shlex.quote(f'{file}.broken')} && uvtokend purge"


def newest_first() -> list[Backup]:
    """Return all backups in the order in which they must be restored.

    Raises:
        UvtokendError: A backup cannot be read.
    """
    backups = []
    for file in sorted(directory().glob("*.json"), reverse=True):
        try:
            document = json.loads(files.read(str(file)))
            backups.append(Backup(file, str(document["netrc"]), str(document["backup"]).encode("ascii")))
        except (OSError, ValueError, KeyError, TypeError) as error:
            message = f"The backup {file} cannot be read ({type(error).__name__}), so its entries cannot be restored."
            raise UvtokendError(message, set_aside(file)) from error
    return backups

"""What `adopt` has taken out of a netrc, in the state folder, so that `purge` can put it back."""

from __future__ import annotations

import json
import os
import shlex
from dataclasses import dataclass
from pathlib import Path

from uvtokend import paths
from uvtokend.errors import UvtokendError

_FOLDER = "adopted"


@dataclass(frozen=True, slots=True)
class Backup:
    """One kept piece. It holds passwords.

    Args:
        file: Where it is kept, 0600.
        netrc: The netrc that it came from, resolved.
        text: As `uvtokend.core.netrc.adopt.take_over` gave it.
    """

    file: Path
    netrc: str
    text: bytes


def folder() -> Path:
    """Return the folder of the backups; it need not exist."""
    return Path(paths.state_folder()) / _FOLDER


def reserve() -> Path:
    """Return a new file for a backup; its name tells the order."""
    paths.private_folder(paths.state_folder())
    paths.private_folder(str(folder()))
    taken = [int(file.stem) for file in folder().glob("*.json") if file.stem.isdigit()]
    return folder() / f"{max(taken, default=0) + 1:06}.json"


def keep(backup: Backup) -> None:
    """Write a backup to the disk before anything is taken out of the netrc."""
    document = {"netrc": backup.netrc, "backup": backup.text.decode("ascii")}
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    with open(os.open(backup.file, flags, 0o600), "w", encoding="utf-8") as file:
        json.dump(document, file)
        file.flush()
        os.fsync(file.fileno())


def set_aside(file: Path) -> str:
    """Return the command that takes a broken backup out of the way and purges without it."""
    return f"mv {shlex.quote(str(file))} {shlex.quote(f'{file}.broken')} && uvtokend purge"


def newest_first() -> list[Backup]:
    """Return all backups in the order in which they must be put back.

    Raises:
        UvtokendError: One cannot be read.
    """
    found = []
    for file in sorted(folder().glob("*.json"), reverse=True):
        try:
            document = json.loads(file.read_bytes())
            found.append(Backup(file, str(document["netrc"]), str(document["backup"]).encode("ascii")))
        except (OSError, ValueError, KeyError, TypeError) as error:
            message = f"The backup {file} cannot be read ({type(error).__name__}), so what it holds is not put back."
            raise UvtokendError(message, set_aside(file)) from error
    return found

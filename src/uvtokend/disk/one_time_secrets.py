"""Remove the files of one-time secrets for `purge`, except those that must be kept.

A rotation of a GitLab token keeps a mark until its response is in the token's file (`providers.gitlab.rotation`). The
mark prevents a second use of the old token, which would revoke its whole family, or it contains the only copy of the
new token. So it stays until the token's file contains another token.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class KeptMark:
    """A mark that stays.

    Args:
        path: Its path.
        file: The token's file; None if an older version made the mark, which does not name it.
        is_copy: Whether it contains the only copy of the new token.
    """

    path: Path
    file: str | None
    is_copy: bool


@dataclass(frozen=True, slots=True)
class RemovedSecrets:
    """The result of `remove`.

    Args:
        chains: Whether there were refresh tokens that had replaced the user's own.
        kept: The marks that stay.
    """

    chains: bool
    kept: tuple[KeptMark, ...] = ()


def remove(directory: Path) -> RemovedSecrets:
    """Remove the files of one-time secrets. A symlink instead of their directory is left alone.

    Raises:
        OSError: A file cannot be removed.
    """
    if directory.is_symlink() or not directory.is_dir():
        return RemovedSecrets(False)
    marks = {file: mark for file in directory.glob("*.json") if (mark := _mark(file)) is not None}
    kept = {file: mark for file, mark in marks.items() if _still_needed(mark)}
    chains = any(file not in marks for file in directory.glob("*.json"))
    for file in directory.glob("*.json*"):
        if file not in kept:
            file.unlink()
    with contextlib.suppress(OSError):
        directory.rmdir()
    return RemovedSecrets(chains, tuple(_kept(file, mark) for file, mark in sorted(kept.items())))


def _kept(path: Path, mark: dict[str, object]) -> KeptMark:
    file = mark.get("file")
    return KeptMark(path, file if isinstance(file, str) else None, mark.get("successor") is not None)


def _mark(file: Path) -> dict[str, object] | None:
    try:
        content = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) and "token_sha256" in content else None


def _text(content: bytes) -> bytes:
    """Return the secret in a file as `providers.kit.secrets.checked` does."""
    return content.removesuffix(b"\n").removesuffix(b"\r")


def _still_needed(mark: dict[str, object]) -> bool:
    """Return whether the old token may still be in its file, which is assumed if the file cannot be read."""
    name = mark.get("file")
    try:
        token = Path(name).read_bytes() if isinstance(name, str) else None
    except OSError:
        return True
    return token is None or hashlib.sha256(_text(token)).hexdigest() == mark["token_sha256"]

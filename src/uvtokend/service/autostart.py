"""The desktop's own autostart, for a Linux session without a systemd user manager.

Desktop Application Autostart Specification (freedesktop.org): a desktop entry in ``autostart`` beneath the user's
configuration directory is executed at login.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from uvtokend import paths
from uvtokend.disk import files
from uvtokend.errors import UvtokendError

_TEXT = """\
[Desktop Entry]
Type=Application
Name=uvtokend
Comment=Keeps the tokens of private Python indexes fresh
Exec={command} start --wait 0
NoDisplay=true
Terminal=false
"""


def file_of() -> Path:
    """Return this user's autostart entry."""
    from platformdirs import user_config_path  # noqa: PLC0415 - only for a service

    return user_config_path() / "autostart" / "uvtokend.desktop"


def install(words: Sequence[str]) -> Path:
    """Write the entry and return its file.

    Args:
        words: The absolute command of uvtokend.

    Raises:
        UvtokendError: The entry cannot be written.
    """
    file = file_of()
    try:
        paths.make_directory(str(file.parent))
        files.replace(str(file), _TEXT.format(command=" ".join(_quoted(word) for word in words)).encode())
    except OSError as error:
        message = f"Cannot write the autostart entry {file}: {error.strerror}."
        raise UvtokendError(message, f"ls -ld {file.parent}") from error
    return file


def uninstall() -> Path | None:
    """Delete the entry; return its file, or None if there was none."""
    file = file_of()
    if not file.is_file():
        return None
    file.unlink()
    return file


def _quoted(word: str) -> str:
    """Quote one word of ``Exec=``: Desktop Entry Specification, "The Exec key"."""
    escaped = "".join(f"\\{character}" if character in '"`$\\' else character for character in word)
    return '"' + escaped.replace("\\", "\\\\").replace("%", "%%") + '"'

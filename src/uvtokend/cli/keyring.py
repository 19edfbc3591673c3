"""``uvtokend keyring install`` and ``uninstall``: a ``keyring`` command on PATH that asks the daemon."""

from __future__ import annotations

import argparse
import os
import shutil

from uvtokend import paths
from uvtokend.cli import console
from uvtokend.disk import shims
from uvtokend.errors import OK, UsageError

EXAMPLES = (
    "uvtokend keyring install",
    "uvtokend keyring install ~/bin && uv sync --keyring-provider subprocess",
    "uvtokend keyring uninstall",
)
DETAILS = """\
The command answers what uv, pip, pipx and build ask a keyring for, with the tokens that the daemon holds.
Whatever does not belong to an index in config.toml goes to the next keyring on PATH."""


def arguments(own: argparse.ArgumentParser) -> None:
    """Add the arguments of this verb."""
    own.add_argument("action", metavar="ACTION", choices=("install", "uninstall"), help="install or uninstall")
    own.add_argument(
        "directory", metavar="DIR", nargs="?", help="a directory on PATH, for install (default: ~/.local/bin)"
    )


def run(args: argparse.Namespace) -> int:
    """Install or remove the command.

    Raises:
        UsageError: A directory was given for ``uninstall``, which removes all commands of ours.
        UvtokendError: A file that is not ours is in the way, or nothing can be written.
    """
    if args.action == "install":
        directory = os.path.abspath(os.path.expanduser(args.directory or shims.default_directory()))
        console.say(*_advice(shims.install(directory)))
        return OK
    if args.directory is not None:
        message = "The keyring command is removed wherever it was installed: uninstall takes no directory."
        raise UsageError(message, "uvtokend keyring uninstall")
    removed = shims.uninstall()
    console.say(f"Removed {', '.join(removed)}." if removed else "There is no keyring command of uvtokend.")
    return OK


def _advice(path: str) -> tuple[str, str | None]:
    """Return the message after the installation, and the fix if programs will not find the command."""
    first = shutil.which("keyring")
    done = f"Installed {path}."
    if first is not None and os.path.realpath(first) == os.path.realpath(path):
        return f"{done} Use it with: uv sync --keyring-provider subprocess", None
    directory = os.path.dirname(path)
    why = f"{directory} is not on PATH" if first is None else f"{first} comes before it on PATH"
    return f"{done} Programs will not find it yet: {why}.", f"export PATH={paths.quoted(directory)}:$PATH"

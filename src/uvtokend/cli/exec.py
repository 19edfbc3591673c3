"""``uvtokend exec``: run a command with the credentials of some indexes in its environment, and nowhere else."""

from __future__ import annotations

import argparse
import os

from uvtokend.cli import access
from uvtokend.core import child_environment
from uvtokend.disk import uv_commands
from uvtokend.errors import UsageError

EXAMPLES = (
    "uvtokend exec private-registry -- uv sync",
    "uvtokend exec private-registry -- uv publish",
    "uvtokend exec private-registry -- twine upload dist/*",
)
DETAILS = """\
Sets UV_INDEX_<NAME>_USERNAME and UV_INDEX_<NAME>_PASSWORD for each NAME. With one NAME it also sets
UV_PUBLISH_URL, UV_PUBLISH_USERNAME, UV_PUBLISH_PASSWORD, TWINE_REPOSITORY_URL, TWINE_USERNAME and
TWINE_PASSWORD. The exit status is the command's own."""


def arguments(own: argparse.ArgumentParser) -> None:
    """Add the arguments of this verb."""
    own.usage = "uvtokend exec [--config PATH] NAME… -- COMMAND…"
    own.add_argument("names", metavar="NAME", nargs="+", help="an index")
    own.set_defaults(command=[])


def run(args: argparse.Namespace) -> int:
    """Become the command.

    Raises:
        UsageError: There is no command, or a variable would send the token to another host.
        UvtokendError: There is no valid token.
    """
    if not args.command:
        message = "There is no command to run: write it after --."
        raise UsageError(message, f"uvtokend exec {args.names[0]} -- uv sync")
    names = list(dict.fromkeys(args.names))
    child_environment.check_names(names)
    known = _known_to_uv(args.command)

    def check(name: str, url: str, provider: str) -> None:
        child_environment.check_uv(name, url, known)
        if len(names) > 1:
            return  # no variable for publishing is set
        child_environment.check_publishing(name, provider, url, args.command)
        if (upload := child_environment.upload_url(provider, url)) is not None:
            child_environment.check_targets(name, upload, os.environ)

    granted = access.accesses(names, args.config, check)
    access.become(args.command, child_environment.environment(granted, os.environ))


def _known_to_uv(command: list[str]) -> list[tuple[str, str, str]]:
    """Return the indexes that a command of uv would know. A file that cannot be read might give a name to any host."""
    complaints: list[str] = []
    indexes = uv_commands.named(os.environ, complaints.append, command)
    if complaints:
        message = f"uv's configuration here cannot be checked, so the command gets no token: {complaints[0]}"
        raise UsageError(message, "correct that file, or run the command in another directory")
    return indexes

"""``uvtokend help``: show the reference, which is part of the wheel, and the help of each command."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import subprocess
import sys
from importlib import resources
from importlib.resources.abc import Traversable

from uvtokend.cli import console, parser
from uvtokend.cli.verbs import VERBS
from uvtokend.errors import OK

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse

EXAMPLES = ("uvtokend help", "uvtokend help status")
DETAILS = "Without a TOPIC, lists the topics. On a terminal, the text is shown in your pager ($PAGER)."


def arguments(own: argparse.ArgumentParser) -> None:
    """Add the arguments of this verb."""
    own.add_argument("topic", metavar="TOPIC", nargs="?", help="a topic or a command")


def run(args: argparse.Namespace) -> int:
    """Show a topic, the help of a command, or the list of topics.

    Raises:
        UsageError: The topic or command is unknown.
    """
    files = topics()
    if args.topic is None:
        console.out(_contents(files))
    elif args.topic in files:
        _show(files[args.topic].read_text(encoding="utf-8"))
    elif args.topic in VERBS:
        console.out(parser.build(args.topic).format_help())
    else:
        raise parser.unknown(args.topic, [*files, *VERBS], "topic", "uvtokend help")
    return OK


def topics() -> dict[str, Traversable]:
    """Return the installed topics: name -> file."""
    directory = resources.files("uvtokend").joinpath("help")
    files = [file for file in directory.iterdir() if file.name.endswith(".md")]
    return {file.name.removesuffix(".md"): file for file in sorted(files, key=lambda file: file.name)}


def _contents(files: dict[str, Traversable]) -> str:
    width = max(map(len, files), default=0)
    lines = [f"  {name.ljust(width)}  {_title(file)}" for name, file in files.items()]
    return "\n".join(
        [
            "usage: uvtokend help TOPIC",
            "",
            "topics:",
            *lines,
            "",
            f"commands: {', '.join(VERBS)}",
            "",
        ]
    )


def _title(file: Traversable) -> str:
    return file.read_text(encoding="utf-8").partition("\n")[0].lstrip("# ")


def _show(text: str) -> None:
    """Show a text: in a pager on a terminal, if there is one; otherwise unchanged."""
    pager = shlex.split(os.environ.get("PAGER", "")) or ["less", "-FRX"]
    if not sys.stdout.isatty() or shutil.which(pager[0]) is None:
        console.out(text)
        return
    with contextlib.suppress(BrokenPipeError, KeyboardInterrupt):
        subprocess.run(pager, input=text.encode(), check=False)  # noqa: S603 - the user's own choice

"""``uvtokend list``: what is configured, and in which file. It does not ask the daemon."""

from __future__ import annotations

import argparse

from uvtokend.cli import console
from uvtokend.core.model import Index
from uvtokend.core.report import INIT, clean
from uvtokend.disk import configuration
from uvtokend.errors import OK

_HEADER = ("INDEX", "ENABLED", "PROVIDER", "SINK", "URL", "FILE")


EXAMPLES = ("uvtokend list",)


def arguments(own: argparse.ArgumentParser) -> None:
    """Add the arguments of this verb: none."""


def run(args: argparse.Namespace) -> int:
    """Show a table of the indexes, the disabled ones last.

    Raises:
        ConfigError: The configuration is invalid.
    """
    settings = configuration.load(args.config)
    rows = [_row(index, "yes") for index in settings.indexes] + [_row(index, "no") for index in settings.disabled]
    if not rows:
        console.out(f"{INIT}\n")
        return OK
    widths = [max(len(row[column]) for row in [_HEADER, *rows]) for column in range(len(_HEADER))]
    for row in [_HEADER, *rows]:
        console.out("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() + "\n")
    return OK


def _row(index: Index, enabled: str) -> tuple[str, ...]:
    files = " and ".join(index.files)
    return tuple(clean(cell) for cell in (index.name, enabled, index.provider, index.sink, index.url, files))

"""``uvtokend list``: show the configured indexes and their files, without asking the daemon."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence

from uvtokend.cli import console
from uvtokend.core.model import Index
from uvtokend.core.report import INIT
from uvtokend.core.text import clean
from uvtokend.disk import configuration
from uvtokend.errors import OK

_HEADER = ("INDEX", "ENABLED", "PROVIDER", "SINK", "URL", "FILE")
#: The number of fields that are always columns.
_ALWAYS = 4


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
    for line in _lines([_HEADER, *rows], console.width(sys.stdout) if sys.stdout.isatty() else None):
        console.out(f"{line}\n")
    return OK


def _lines(rows: Sequence[tuple[str, ...]], width: int | None) -> Iterator[str]:
    """Yield the table: aligned on a terminal; URL and file are below the line if the terminal is too narrow.

    Args:
        rows: The header and the indexes.
        width: The width of the terminal; None without a terminal, for one line per index without padding.
    """
    if width is None:
        yield from ("  ".join(row) for row in rows)
        return
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEADER))]
    shown = len(_HEADER) if sum(widths) + 2 * (len(widths) - 1) <= width else _ALWAYS
    for row in rows:
        cells = zip(row[:shown], widths, strict=False)
        yield "  ".join(cell.ljust(wide) for cell, wide in cells).rstrip()
        if row is not rows[0]:
            yield from (f"  {cell}" for cell in row[shown:])


def _row(index: Index, enabled: str) -> tuple[str, ...]:
    files = " and ".join(index.files)
    return tuple(clean(cell) for cell in (index.name, enabled, index.provider, index.sink, index.url, files))

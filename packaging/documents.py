"""Write the man pages and the shell completions that packages ship.

    python packaging/documents.py DIRECTORY

`man1/uvtokend.1` and `man5/uvtokend.toml.5` are made from the same Markdown as `uvtokend help` by go-md2man; the
completions for bash, zsh and fish from the table of the commands by shtab.
"""

import argparse
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable
from importlib import import_module
from pathlib import Path

import shtab

from uvtokend.cli.verbs import GROUPS, VERBS

ROOT = Path(__file__).resolve().parent.parent
HELP = ROOT / "src" / "uvtokend" / "help"
SHELLS = {"bash": "uvtokend", "zsh": "_uvtokend", "fish": "uvtokend.fish"}
#: Topics of uvtokend(1); the others are about the configuration.
ABOUT_COMMANDS = (
    "status",
    "doctor",
    "answering",
    "exit-status",
    "service",
    "guarantees",
    "ci",
    "fleet",
    "macos",
    "measured",
)
ABOUT_FILES = ("configuration", "uv-store")


def command_line() -> argparse.ArgumentParser:
    """Return one parser for the whole command line, as completions need it."""
    whole = argparse.ArgumentParser("uvtokend", description="Keep the tokens of private Python indexes fresh")
    whole.add_argument("--version", action="store_true", help="show the version")
    verbs = whole.add_subparsers(dest="verb")
    for verb in VERBS.values():
        own = verbs.add_parser(verb.name, help=verb.summary, description=verb.summary)
        import_module(f"uvtokend.cli.{verb.module}").arguments(own)
        config = own.add_argument("--config", metavar="PATH", help="use another configuration file")
        setattr(config, "complete", shtab.FILE)  # noqa: B010 - shtab reads this attribute, which argparse does not declare
    return whole


def completions() -> dict[str, str]:
    """Return each completion file and its text."""
    return {name: shtab.complete(command_line(), shell) for shell, name in SHELLS.items()}


def manual() -> dict[str, str]:
    """Return each manual page and its Markdown."""
    commands = [f"{heading(group)}\n\n{''.join(entry(verb.name) for verb in verbs)}" for group, verbs in GROUPS.items()]
    first = [
        "% UVTOKEND 1\n\n# NAME\n\nuvtokend - fresh tokens for private Python indexes\n",
        "# SYNOPSIS\n\n**uvtokend** *COMMAND* [*ARGUMENT*...]\n",
        *commands,
        *topics(ABOUT_COMMANDS),
        "# SEE ALSO\n\nuvtokend.toml(5), uv(1)\n",
    ]
    fifth = [
        "% UVTOKEND.TOML 5\n\n# NAME\n\nuvtokend.toml - configuration of uvtokend\n",
        *topics([*ABOUT_FILES, *sorted(file.stem for file in HELP.glob("provider-*.md"))]),
        "# SEE ALSO\n\nuvtokend(1)\n",
    ]
    return {"man1/uvtokend.1": "\n".join(first), "man5/uvtokend.toml.5": "\n".join(fifth)}


def heading(group: str) -> str:
    """Return the heading of a group of commands."""
    return f"# COMMANDS: {group.upper()}"


def entry(name: str) -> str:
    """Return what the manual says of one command."""
    module = import_module(f"uvtokend.cli.{VERBS[name].module}")
    details = getattr(module, "DETAILS", "").strip()
    examples = "".join(f"    {line}\n" for line in module.EXAMPLES)
    summary = VERBS[name].summary
    return f"## uvtokend {name}\n\n{summary[0].upper()}{summary[1:]}.\n\n{details}\n\n{examples}\n"


def topics(names: Iterable[str]) -> list[str]:
    """Return the texts of topics."""
    return [without_tables((HELP / f"{name}.md").read_text()) for name in names]


def without_tables(text: str) -> str:
    """Return Markdown with each row of a table as an item of a list: a terminal is narrower than most tables."""
    return re.sub(r"(?:^\|.*\|\n)+", lambda table: items(table[0].splitlines()), text, flags=re.MULTILINE)


def items(lines: list[str]) -> str:
    """Return the rows of one table as a list; the second line only draws its head."""
    head, _, *rows = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]
    said = []
    for first, *others in rows:
        told = [
            f"{name}: {cell}" if len(others) > 1 else cell for name, cell in zip(head[1:], others, strict=True) if cell
        ]
        said.append(f"* {first}: {'; '.join(told)}\n")
    return "".join(said)


def main(directory: Path) -> None:
    """Write everything below a directory."""
    converter = shutil.which("go-md2man")
    if converter is None:
        sys.exit("go-md2man is missing: apt-get install go-md2man")
    for name, text in manual().items():
        file = directory / "man" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        done = subprocess.run([converter], input=text, capture_output=True, text=True, check=True)
        file.write_text(done.stdout.replace("\\fC", "\\fB"))  # mandoc knows no constant width
    (directory / "completions").mkdir(exist_ok=True)
    for name, text in completions().items():
        (directory / "completions" / name).write_text(text)


if __name__ == "__main__":
    main(Path(sys.argv[1]))

"""Parse the command line: find the verb in the table, parse its arguments, and run it.

The few words before the verb are parsed here. argparse parses the words after the verb, with that verb's arguments
only.
"""

from __future__ import annotations

import argparse
import importlib
import re
import sys
from collections.abc import Iterable
from typing import Any, NoReturn

from uvtokend import __version__
from uvtokend.cli import console
from uvtokend.cli.verbs import GROUPS, VERBS
from uvtokend.errors import OK, USAGE, UsageError, UvtokendError

_CONFIG = "--config"


class Parser(argparse.ArgumentParser):
    """argparse with our own errors: a sentence and the command that helps."""

    def error(self, message: str) -> NoReturn:
        """Raise UsageError with a sentence; its hint is the help of this command."""
        # argparse repeats arguments, and one may be a URL with a password.
        harmless = re.sub(r"//[^/@\s]*@", "//…@", message)
        sentence = self._of_action(message) or f"{harmless[:1].upper()}{harmless[1:]}.{self._nearest(message)}"
        raise UsageError(sentence, f"{self.prog} --help")

    def _of_action(self, message: str) -> str | None:
        """Return the sentence for a missing action, with the possible ones."""
        for action in self._actions:
            if action.choices and not action.option_strings and re.search(rf"\b{action.metavar}\b", message):
                known = [str(each) for each in action.choices]
                wrong = re.search(r"invalid choice: '([^']*)'", message)
                unknown = f"Unknown action {wrong[1]!r}.{_did_you_mean(wrong[1], known)} " if wrong else ""
                return f"{unknown}Say what to do: {' or '.join(filter(None, [', '.join(known[:-1]), known[-1]]))}."
        return None

    def _nearest(self, message: str) -> str:
        """Return a question that names the option meant by an unknown one."""
        prefix = "unrecognized arguments: "
        if not message.startswith(prefix):
            return ""
        words = message.removeprefix(prefix).split()
        return _did_you_mean(words[0], self._option_string_actions) if words else ""


def run(args: list[str]) -> int:
    """Run one command line and return the exit status.

    Raises:
        UsageError: The command or an argument is unknown or missing.
        UvtokendError: The verb failed.
    """
    config: str | None = None
    rest = iter(args)
    for word in rest:
        if word in {"-h", "--help"}:
            console.out(overview())
            return OK
        if word == "--version":
            console.out(f"uvtokend {__version__}\n")
            return OK
        if word.partition("=")[0] == _CONFIG:
            config = word.partition("=")[2] or next(rest, None)
            if not config:
                message = "Argument --config: expected a path."
                raise UsageError(message, "uvtokend --help")
        elif word.startswith("-"):
            message = f"Unknown option {word!r}.{_did_you_mean(word, ('--help', '--version', _CONFIG))}"
            raise UsageError(message, "uvtokend --help")
        else:
            return _run_verb(word, config, list(rest))
    sys.stderr.write(overview())
    return USAGE


def build(name: str) -> Parser:
    """Return the parser of one verb, with its help text and examples.

    Args:
        name: A verb in the table.
    """
    verb, module = VERBS[name], _module(name)
    summary = f"{verb.summary[0].upper()}{verb.summary[1:]}."
    parser = Parser(
        prog=f"uvtokend {name}",
        description="\n\n".join(text for text in (summary, getattr(module, "DETAILS", "").strip()) if text),
        epilog="\n  ".join(["examples:", *module.EXAMPLES]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    module.arguments(parser)
    # Without a default, so that it does not override the one before the verb.
    parser.add_argument(_CONFIG, metavar="PATH", default=argparse.SUPPRESS, help="use another configuration file")
    return parser


def overview() -> str:
    """Return the text of ``uvtokend --help``: every verb with its summary, under its heading."""
    width = max(len(name) for name in VERBS)
    lines = ["usage: uvtokend [--config PATH] COMMAND …", ""]
    lines += ["Keeps the tokens of private Python indexes fresh in the netrc that uv reads.", ""]
    for heading, verbs in GROUPS.items():
        lines += [f"{heading}:", *(f"  {verb.name.ljust(width)}  {verb.summary}" for verb in verbs), ""]
    lines += ["options:", "  --config PATH  use another configuration file (or set UVTOKEND_CONFIG)"]
    lines += ["  --version      show the version", ""]
    lines += ["examples:", "  uvtokend init                 set up the private indexes of this project"]
    lines += ["  uvtokend start && uv sync     start the daemon, then install"]
    lines += ["  uvtokend COMMAND --help       show the arguments and examples of one command", ""]
    lines += ["Exit status: 0 success, 1 failure, 2 usage or configuration, 3 not running."]
    return "\n".join(lines) + "\n"


def unknown(word: str, known: Iterable[str], kind: str = "command", hint: str = "uvtokend --help") -> UsageError:
    """Return the error about an unknown word, with the nearest known one.

    Args:
        word: What the user typed.
        known: The known words.
        kind: The kind of word, for the sentence.
        hint: The command that lists the known words.
    """
    return UsageError(f"Unknown {kind} {word!r}.{_did_you_mean(word, known)}", hint)


def _run_verb(name: str, config: str | None, words: list[str]) -> int:
    if name not in VERBS:
        raise unknown(name, VERBS)
    parser = build(name)
    command: list[str] = []
    if parser.get_default("command") is not None and "--" in words:
        cut = words.index("--")
        words, command = words[:cut], words[cut + 1 :]
    try:
        parsed = parser.parse_args(words, argparse.Namespace(config=config))
    except SystemExit:  # --help
        return OK
    if command:
        parsed.command = command
    status = _module(name).run(parsed)
    if not isinstance(status, int):
        message = f"The command {name!r} returned no exit status."
        raise UvtokendError(message)
    return status


def _module(name: str) -> Any:
    return importlib.import_module(f"uvtokend.cli.{VERBS[name].module}")


def _did_you_mean(word: str, known: Iterable[str]) -> str:
    from difflib import get_close_matches  # noqa: PLC0415 - only for a mistake; the daemon would hold it

    nearest = get_close_matches(word, known, 1)
    return f" Did you mean {nearest[0]!r}?" if nearest else ""


def seconds(text: str) -> float:
    """Return a number of seconds on the command line.

    Raises:
        argparse.ArgumentTypeError: The text is not a number between 0 and a million.
    """
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number < 1e6:  # eleven days are enough
        message = f"{text!r} is not a number of seconds"
        raise argparse.ArgumentTypeError(message)
    return number


def add_names(parser: argparse.ArgumentParser) -> None:
    """Add the argument for the names of indexes."""
    parser.add_argument("names", metavar="NAME", nargs="*", help="an index (default: all)")


def add_wait(parser: argparse.ArgumentParser) -> None:
    """Add the option for the time to wait for the daemon's first tokens."""
    parser.add_argument(
        "--wait", metavar="SECONDS", type=seconds, default=30.0, help="how long to wait for the first tokens (30)"
    )

"""``uvtokend status``: show the state of each token, and the fix for each problem."""

from __future__ import annotations

import os
import select
import sys
import time

from uvtokend import __version__, paths
from uvtokend.cli import client, console
from uvtokend.core import prompt, report
from uvtokend.core.document import enabled, ready
from uvtokend.core.prompt import short_line
from uvtokend.core.text import clean
from uvtokend.errors import FAILED, NOT_RUNNING, OK, NotRunning, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from datetime import UTC, datetime
    from typing import Any
else:
    from _datetime import UTC, datetime  # as in `uvtokend.core.text`

EXAMPLES = (
    "uvtokend status",
    "uvtokend status --watch",
    "uvtokend status --json private-registry",
    "uvtokend status --prompt",
)
DETAILS = """\
Exits with 0 if every enabled index shown has a valid, delivered token, with 1 if one of them has not, and with 3 if the
daemon is not running. `uvtokend help status` explains what is shown."""

#: Seconds after which a live status is drawn again without an event, because its times change.
_REDRAW = 2.0
#: Seconds between two attempts to reach a daemon that has ended or does not answer.
_AGAIN = 0.25
#: Seconds that a daemon gets to start again if the output is not a terminal: `uvtokend restart` takes less.
_COMES_BACK = 5.0
_HOME, _CLEAR_LINE, _CLEAR_BELOW = "\x1b[H", "\x1b[K", "\x1b[J"


def arguments(own: argparse.ArgumentParser) -> None:
    """Add the arguments of this verb."""
    own.add_argument("names", metavar="NAME", nargs="*", help="an index (default: all)")
    own.add_argument("--json", action="store_true", help="print JSON for machines")
    own.add_argument("--watch", action="store_true", help="keep showing until interrupted")
    own.add_argument("--prompt", action="store_true", help="print one short line for a shell prompt")


def run(args: argparse.Namespace) -> int:
    """Show the status.

    Returns:
        0 if each enabled index shown has a valid delivered token, or there are no indexes; 1 if not; 3 if no daemon
        runs.
    """
    if args.prompt and (args.json or args.watch):
        message = "--prompt prints one line for a shell prompt: it goes with neither --json nor --watch."
        raise UsageError(message, "uvtokend status --help")
    if args.prompt:
        return _prompt_of(args.names, args.config) if args.names else _prompt()
    if args.watch:
        return _Watch(args).run()
    document, absence = fetch(args.names, args.config)
    show(document, args.json, absence, config=args.config)
    return _exit_status(document)


def fetch(names: list[str], config: str | None) -> tuple[dict[str, Any], report.Absence | None]:
    """Return the status document and, if no daemon runs, the reason.

    Args:
        names: The names of the indexes; none means all.
        config: Another configuration file, for the status without a daemon.

    Raises:
        UsageError: No index has one of those names.
    """
    try:
        return client.call("status", client.names(names)), None
    except NotRunning:
        return _on_disk(names, config)


def _on_disk(names: list[str], config: str | None, complain: bool = True) -> tuple[dict[str, Any], report.Absence]:
    from uvtokend.cli import stopped  # noqa: PLC0415 - reading the configuration is slow

    return stopped.status(names, config, complain)


def show(
    document: dict[str, Any],
    as_json: bool,
    absence: report.Absence | None = None,
    alone: bool = False,
    config: str | None = None,
) -> None:
    """Print the status document to standard output, for machines or for people.

    Args:
        document: The document.
        as_json: Whether to print JSON, for machines.
        absence: Why no daemon runs.
        alone: Whether no daemon is expected to run, so that only the tokens matter.
        config: Another configuration file of this shell.
    """
    if as_json:
        import json  # noqa: PLC0415 - only for JSON

        console.out(json.dumps(document, indent=1) + "\n")
        if not document["indexes"] and document.get("config_stale") is None:
            console.say(report.INIT)
    else:
        console.out(_text(document, absence, alone, config))
    if document["version"] != __version__:
        skew = f"The running daemon is version {document['version']}, this is {__version__}."
        console.say(skew, "uvtokend restart")


def _text(
    document: dict[str, Any], absence: report.Absence | None = None, alone: bool = False, config: str | None = None
) -> str:
    now = datetime.now(UTC)
    width, color = _terminal()
    if alone:
        return report.once(document, now, width, color)
    return report.status(
        document, now, width, color, None, absence, [*_of_config(document, config), *_of_shell(document)]
    )


def _terminal() -> tuple[int, bool]:
    """Return the width of the terminal, and whether it shows colors."""
    return console.width(sys.stdout), console.colored(sys.stdout)


def _of_config(document: dict[str, Any], config: str | None) -> list[tuple[str, str]]:
    """Return what is wrong where the daemon has read another configuration than the one of this shell.

    The usual place is not looked up where the daemon has read a usual one: that would cost, and `_of_shell` says more
    where the two are of different home directories.
    """
    served = document.get("config")
    named = config or os.environ.get("UVTOKEND_CONFIG")
    usual = served is None or served.endswith(f"/{paths.APP}/config.toml")
    if document["pid"] is None or served is None or (usual and not named):
        return []
    here = paths.config_file(config)
    if _same(here, served) or not os.path.exists(here):
        return []
    message = f"The running daemon has read {served}, but the configuration of this shell is {here}."
    return [(message, "uvtokend restart")]


def _of_shell(document: dict[str, Any]) -> list[tuple[str, str]]:
    """Return the problem of this shell if uv in it reads another netrc than the daemon writes."""
    netrc = document.get("netrc")
    concerned = any(enabled(index) and index.get("sink") == "netrc" for index in document["indexes"])
    read = paths.uv_netrc()
    if netrc is None or document["pid"] is None or not concerned or (read and _same(read, netrc)):
        return []
    if not os.path.exists(netrc):
        return []  # nothing is delivered yet; the index tells why
    what = f"reads {read}" if read else "finds no netrc"
    named = os.environ.get("NETRC")
    why = f"NETRC={named}" if named else f"HOME={os.environ.get('HOME', '')}"
    message = f"uv in this shell {what} ({why}), but the daemon writes {netrc}."
    return [(message, paths.shell_fix(netrc, document["config"]))]


def _same(one: str, other: str) -> bool:
    return os.path.realpath(one) == os.path.realpath(other)


def _prompt() -> int:
    """Print the line that the daemon keeps for shell prompts, without asking the daemon."""
    try:
        with open(paths.prompt_file(), "rb") as file:
            known = prompt.decode(file.read(1024))
    except OSError:
        known = None
    if known is None or known[1] <= time.time():
        console.out("not running\n")
        return NOT_RUNNING
    console.out(f"{clean(known[0])}\n")
    return known[2]


def _prompt_of(names: list[str], config: str | None) -> int:
    """Print the line for these indexes only. No file contains it, so the daemon is asked.

    Raises:
        UsageError: No index has one of those names.
    """
    document, _ = fetch(names, config)
    console.out(f"{clean(short_line(document))}\n")
    return _exit_status(document)


def _exit_status(document: dict[str, Any]) -> int:
    if document["pid"] is None:
        return NOT_RUNNING if document["indexes"] or document["config_stale"] is not None else OK
    return OK if ready(document) else FAILED


# ----------------------------------------------------------------------------------------------------------- watch


class _Watch:
    """Shows the status repeatedly: redrawn on a terminal, otherwise printed again after each event.

    On a terminal, it waits for a daemon that ends or does not answer until it is interrupted; otherwise it waits for as
    long as a restart takes.
    """

    def __init__(self, args: argparse.Namespace) -> None:
        self._args = args
        self._live = sys.stdout.isatty() and not args.json
        self._seen = False
        self._gone_at: float | None = None
        self._redraw_at = 0.0

    def run(self) -> int:
        """Show until interrupted.

        Raises:
            NotRunning: The daemon has ended, and the output is not a terminal.
            NoAnswerError: The daemon does not answer in time, and the output is not a terminal.
        """
        while True:
            try:
                self._follow()
            except (NotRunning, client.HungUpError) as end:
                self._without_daemon(end)
            except client.NoAnswerError as error:
                if not self._live:
                    raise
                self._picture(report.problem_lines(error.message, error.hint, *_terminal()))
            time.sleep(_AGAIN)

    def _follow(self) -> None:
        """Show the status whenever it may have changed. No event is missed, because they are subscribed first.

        Raises:
            NotRunning: No daemon runs.
            HungUpError: The daemon has ended, or has disconnected this client.
            NoAnswerError: The daemon does not answer in time.
        """
        with client.Connection() as events:
            events.call("events")
            while True:
                document = client.call("status", client.names(self._args.names))
                self._seen, self._gone_at, self._redraw_at = True, None, 0.0
                self._draw(document)
                self._await_event(events)

    def _draw(self, document: dict[str, Any], absence: report.Absence | None = None) -> None:
        if self._args.json:
            import json  # noqa: PLC0415 - as in `show`

            console.out(json.dumps(document) + "\n")
            return
        text = _text(document, absence, config=self._args.config)
        if self._live:
            self._picture(text.splitlines())
        else:
            console.out(text)

    @staticmethod
    def _picture(lines: list[str]) -> None:
        """Replace what the terminal shows."""
        height = console.height(sys.stdout)
        if len(lines) >= height:  # the top is the most important part, and would scroll away
            lines = [*lines[: max(1, height - 2)], f"… {len(lines) - max(1, height - 2)} more lines"]
        console.out(_HOME + "".join(f"{line}{_CLEAR_LINE}\n" for line in lines) + _CLEAR_BELOW)

    def _await_event(self, events: client.Connection) -> None:
        """Wait until the status may have changed. Without a terminal, print the events as lines."""
        if not events.pending() and not select.select([events.socket], [], [], _REDRAW if self._live else None)[0]:
            return
        while True:
            record = events.read()
            if not self._live and not self._args.json:
                from uvtokend.core.event_line import event_line  # noqa: PLC0415 - only `--watch` shows events

                console.out(event_line(record.get("params", {})) + "\n")
            if not events.pending() and not select.select([events.socket], [], [], 0)[0]:
                return

    def _without_daemon(self, end: NotRunning | client.HungUpError) -> None:
        """Show that no daemon runs. On a terminal, this is drawn again and again, because it changes: a daemon that has
        disconnected its clients may still own the netrc for a while, and the tokens on disk expire.

        Raises:
            NotRunning: The output is not a terminal, and a restart would have taken less time.
            UsageError: No index has one of the names.
        """
        now = time.monotonic()
        if self._gone_at is None:
            self._gone_at = now
        if self._live:
            if isinstance(end, NotRunning) and now >= self._redraw_at:
                self._draw(*_on_disk(self._args.names, self._args.config, complain=False))
                self._redraw_at = now + _REDRAW
        elif not self._seen:
            _on_disk(self._args.names, self._args.config)  # which may refuse a name
            raise NotRunning("uvtokend is not running.", "uvtokend start") from end
        elif now - self._gone_at > _COMES_BACK:
            raise NotRunning("The daemon was stopped.", "uvtokend start") from end

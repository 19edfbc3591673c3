"""The whole command line, by argparse: every verb with its options and help."""

from __future__ import annotations

import argparse
import re
import sys
from typing import NoReturn

from uvtokend import __version__
from uvtokend.errors import USAGE, UvtokendError


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        # It repeats arguments, and one may be a URL with a password in it.
        harmless = re.sub(r"//[^/@\s]*@", "//…@", message)
        self.exit(USAGE, f"uvtokend: {harmless}\n  fix: {self.prog} --help\n")


def run(args: list[str]) -> int:
    """Parse the arguments, run the verb and return the exit status.

    Raises:
        UvtokendError: As the verb does.
    """
    parser = build()
    try:
        parsed = parser.parse_args(args)
    except SystemExit as end:  # --help, --version, or wrong usage
        return end.code if isinstance(end.code, int) else USAGE
    if "verb" not in parsed:
        parser.print_help(sys.stderr)
        return USAGE
    status = parsed.verb(parsed)
    if not isinstance(status, int):
        message = "The verb has returned no exit status."
        raise UvtokendError(message)
    return status


def build() -> argparse.ArgumentParser:
    """Return the parser. Each verb sets `verb`, a function from the parsed arguments to the exit status."""
    parser = _Parser(
        prog="uvtokend",
        description="Keeps the tokens of private Python indexes fresh in the netrc that uv reads.",
        epilog="Exit status: 0 done, 1 failed, 2 wrong usage or configuration, 3 no daemon is running.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"uvtokend {__version__}")
    parser.add_argument("--config", metavar="PATH", help="another configuration file (or set UVTOKEND_CONFIG)")
    verbs = parser.add_subparsers(title="commands", metavar="COMMAND")
    _lifecycle(verbs)
    _tokens(verbs)
    _files(verbs)
    return parser


def _verb(verbs: argparse._SubParsersAction[_Parser], name: str, text: str) -> _Parser:
    verb = verbs.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.", allow_abbrev=False)
    # Without the verb's own default, so that it does not undo the one before the verb.
    verb.add_argument("--config", metavar="PATH", default=argparse.SUPPRESS, help="another configuration file")
    return verb


def _lifecycle(verbs: argparse._SubParsersAction[_Parser]) -> None:
    start = _verb(verbs, "start", "start the daemon in the background and return when it answers")
    restart = _verb(verbs, "restart", "stop the daemon if it runs, and start it")
    for verb in (start, restart):
        verb.add_argument(
            "--wait", metavar="SECONDS", type=_seconds, default=15.0, help="how long to wait for its answer (15)"
        )
    start.set_defaults(verb=_start)
    restart.set_defaults(verb=_restart)
    run_ = _verb(verbs, "run", "run the daemon in the foreground, as systemd and launchd do")
    run_.add_argument("--quiet", action="store_true", help="do not tell events on standard error")
    run_.set_defaults(verb=_run)
    _verb(verbs, "stop", "stop the daemon and return when it is gone").set_defaults(verb=_stop)
    _verb(verbs, "reload", "let the daemon read its configuration again").set_defaults(verb=_reload)


def _tokens(verbs: argparse._SubParsersAction[_Parser]) -> None:
    status = _verb(verbs, "status", "show each index: what its token is worth, and what mends it")
    status.add_argument("--watch", action="store_true", help="go on showing until interrupted")
    refresh = _verb(verbs, "refresh", "fetch new tokens now and wait until they are delivered")
    for verb in (status, refresh):
        verb.add_argument("--json", action="store_true", help="print JSON for machines")
    once = _verb(verbs, "once", "fetch what is due and deliver it, without a daemon, and exit")
    for verb in (status, refresh, once):
        verb.add_argument("names", metavar="NAME", nargs="*", help="an index (all, if none is named)")
    status.set_defaults(verb=_status)
    refresh.set_defaults(verb=_refresh)
    once.set_defaults(verb=_once)
    log = _verb(verbs, "log", "show the last events with their reasons")
    log.add_argument("--follow", action="store_true", help="go on showing until interrupted")
    log.set_defaults(verb=_log)


def _files(verbs: argparse._SubParsersAction[_Parser]) -> None:
    init = _verb(verbs, "init", "find the private indexes that uv knows, and add what is missing to config.toml")
    init.add_argument("paths", metavar="PATH", nargs="*", help="a project's folder, pyproject.toml or uv.toml (here)")
    init.add_argument("--yes", action="store_true", help="do not ask")
    init.set_defaults(verb=_init)
    add = _verb(verbs, "add", "add an index to config.toml and let the daemon take it up")
    add.add_argument("url", metavar="URL", help="the index, as uv knows it")
    add.add_argument("--name", metavar="NAME", help="as uv knows it (by default derived from the URL)")
    add.add_argument(
        "--set",
        metavar="KEY=VALUE",
        action="append",
        default=[],
        dest="assignments",
        help="a key of the index's table: provider=static, duration=3600, env.NAME=value, "
        "'password={ env = \"VAR\" }'; may be repeated",
    )
    add.set_defaults(verb=_add)
    remove = _verb(verbs, "remove", "take an index out of config.toml, and its token out of the netrc or uv's store")
    remove.add_argument("name", metavar="NAME", help="the index")
    remove.set_defaults(verb=_remove)
    list_ = _verb(verbs, "list", "show what is configured, and in which file")
    list_.set_defaults(verb=_list)
    adopt = _verb(verbs, "adopt", "take over a foreign netrc entry for an index's host; purge puts it back")
    adopt.add_argument("name", metavar="NAME", help="the index")
    adopt.set_defaults(verb=_adopt)
    purge = _verb(verbs, "purge", "stop the daemon and remove everything that it wrote")
    purge.set_defaults(verb=_purge)
    demo = _verb(verbs, "demo", "show the main job on this machine alone, without a cloud account")
    demo.add_argument("--seconds", metavar="N", type=_seconds, default=60.0, help="how long it goes on (60)")
    demo.set_defaults(verb=_demo)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < 1e6:  # eleven days are long enough to wait
        message = f"{text!r} is no number of seconds"
        raise argparse.ArgumentTypeError(message)
    return seconds


# Each verb is imported when it is asked for: none pays for another's imports.


def _start(args: argparse.Namespace) -> int:
    from uvtokend.cli import lifecycle  # noqa: PLC0415

    return lifecycle.start(args.config, args.wait)


def _restart(args: argparse.Namespace) -> int:
    from uvtokend.cli import lifecycle  # noqa: PLC0415

    return lifecycle.restart(args.config, args.wait)


def _stop(_args: argparse.Namespace) -> int:
    from uvtokend.cli import lifecycle  # noqa: PLC0415

    return lifecycle.stop()


def _reload(_args: argparse.Namespace) -> int:
    from uvtokend.cli import lifecycle  # noqa: PLC0415

    return lifecycle.reload()


def _run(args: argparse.Namespace) -> int:
    # asyncio would load OpenSSL if it could: a MiB for a process that speaks over unix sockets only.
    sys.modules.setdefault("ssl", None)  # type: ignore[arg-type]
    from uvtokend.daemon.main import run as run_daemon  # noqa: PLC0415

    return run_daemon(config_file=args.config, quiet=args.quiet)


def _status(args: argparse.Namespace) -> int:
    from uvtokend.cli import status  # noqa: PLC0415

    return status.run(args.names, args.json, args.watch, args.config)


def _refresh(args: argparse.Namespace) -> int:
    from uvtokend.cli import refresh  # noqa: PLC0415

    return refresh.run(args.names, args.json)


def _once(args: argparse.Namespace) -> int:
    from uvtokend.cli import once  # noqa: PLC0415

    return once.run(args.names, args.config)


def _log(args: argparse.Namespace) -> int:
    from uvtokend.cli import log  # noqa: PLC0415

    return log.run(args.follow)


def _init(args: argparse.Namespace) -> int:
    from uvtokend.cli import init  # noqa: PLC0415

    return init.run(args.paths, args.yes, args.config)


def _add(args: argparse.Namespace) -> int:
    from uvtokend.cli import add  # noqa: PLC0415

    return add.run(args.url, args.name, args.assignments, args.config)


def _remove(args: argparse.Namespace) -> int:
    from uvtokend.cli import remove  # noqa: PLC0415

    return remove.run(args.name, args.config)


def _list(args: argparse.Namespace) -> int:
    from uvtokend.cli import list as list_  # noqa: PLC0415

    return list_.run(args.config)


def _adopt(args: argparse.Namespace) -> int:
    from uvtokend.cli import adopt  # noqa: PLC0415

    return adopt.run(args.name, args.config)


def _purge(args: argparse.Namespace) -> int:
    from uvtokend.cli import purge  # noqa: PLC0415

    return purge.run(args.config)


def _demo(args: argparse.Namespace) -> int:
    from uvtokend.cli import demo  # noqa: PLC0415

    return demo.run(args.seconds)

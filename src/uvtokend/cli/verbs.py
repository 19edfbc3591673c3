"""The table of the commands: one verb, one file, one row.

To add a verb, write ``cli/<verb>.py`` with

* ``EXAMPLES``: at least one command line that works, for ``uvtokend <verb> --help``;
* ``arguments(parser)``: add the verb's own arguments (``--config`` is added for every verb);
* ``run(args) -> int``: run the command and return the exit status;
* optionally ``DETAILS``: text for the help after the summary;

and add its row here. A module is imported when its verb is used, so no verb pays for another's imports. A verb that
executes a command sets the default ``command=[]``, which receives everything after ``--`` unparsed.
"""

from __future__ import annotations

from typing import NamedTuple


class Verb(NamedTuple):  # `start` imports this before there is a daemon, and dataclasses takes longer than argparse
    """One row.

    Args:
        name: What the user types.
        module: The file in ``uvtokend.cli``.
        summary: One line for ``uvtokend --help``, without a final period.
    """

    name: str
    module: str
    summary: str


#: The verbs in the order of ``uvtokend --help``, under their headings.
GROUPS: dict[str, tuple[Verb, ...]] = {
    "set up": (
        Verb("init", "init", "find the private indexes that uv knows and add them"),
        Verb("add", "add", "add one index to config.toml"),
        Verb("remove", "remove", "remove an index from config.toml, and its token"),
        Verb("list", "list", "show the configured indexes and their files"),
        Verb("adopt", "adopt", "replace an existing netrc entry for an index's host"),
        Verb("purge", "purge", "remove everything that uvtokend wrote"),
    ),
    "daemon": (
        Verb("start", "start", "start the daemon and wait for its first tokens"),
        Verb("stop", "stop", "stop the daemon"),
        Verb("restart", "restart", "stop the daemon if it runs, and start it"),
        Verb("reload", "reload", "make the daemon read its configuration again"),
        Verb("service", "service", "run the daemon at every login"),
        Verb("run", "run", "run the daemon in the foreground, as systemd and launchd do"),
    ),
    "tokens": (
        Verb("status", "status", "show the state of each token, and how to fix problems"),
        Verb("refresh", "refresh", "fetch new tokens now"),
        Verb("login", "login", "run the sign-in commands that are needed"),
        Verb("once", "once", "fetch what is due without a daemon (CI, containers)"),
    ),
    "use": (
        Verb("exec", "exec", "run a command with credentials in its environment"),
        Verb("ensure", "ensure", "refresh tokens that expire too soon, then run a command"),
        Verb("token", "token", "print one token"),
        Verb("keyring", "keyring", "put a fast keyring command on PATH"),
        Verb("credential-helper", "credential_helper", "answer Bazel, as its credential helper"),
    ),
    "help": (
        Verb("doctor", "doctor", "find out why an install fails, with the fix of each problem"),
        Verb("explain", "explain", "show which credential uv would send to a URL, and why"),
        Verb("log", "log", "show the last events with their reasons"),
        Verb("help", "help", "show the reference, or the help of a command"),
        Verb("demo", "demo", "show uvtokend at work without a cloud account"),
    ),
}
VERBS: dict[str, Verb] = {verb.name: verb for verbs in GROUPS.values() for verb in verbs}

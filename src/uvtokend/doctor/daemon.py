"""The daemon: does one run, is it the only one, and does it see what this shell sees?"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from socket import gethostname
from typing import Any

from uvtokend import __version__, paths
from uvtokend.core import policy
from uvtokend.core.clouds.azure_artifacts import GLOBAL_PAT
from uvtokend.core.model import Index
from uvtokend.core.worker_environment import NETWORK, shown
from uvtokend.doctor import netrc
from uvtokend.doctor.facts import Facts
from uvtokend.doctor.finding import Finding, error, note
from uvtokend.service import manager, systemd

#: Reasons of failed fetches that other network settings may explain.
_OF_NETWORK = policy.NOBODY_ANSWERED | {"tls", "untrusted-certificate", "client-certificate", "captive-portal"}


def not_running(facts: Facts) -> Iterator[Finding]:
    """No daemon refreshes the tokens. A delivered token can be used until it expires."""
    if facts.status is not None or facts.owner is not None or not facts.indexes:
        return
    lost = [index.name for index in facts.indexes if not facts.has_token(index)]
    dead = [index.name for index in facts.indexes if index.target in facts.expired]
    if dead:
        message = f"uvtokend is not running, and the {_plural(len(dead), 'token')} of {', '.join(dead)} expired."
        yield error("not-running", message, None, "uvtokend start")
    elif lost:
        message = f"uvtokend is not running, and {_names(lost)} no token."
        yield error("not-running", message, None, "uvtokend start")
    else:
        message = "uvtokend is not running: the tokens on disk work until they expire, and nothing refreshes them."
        yield note("not-running", message, None, "uvtokend start")


def _plural(number: int, word: str) -> str:
    return word if number == 1 else f"{word}s"


def _names(names: list[str]) -> str:
    return f"{names[0]} has" if len(names) == 1 else f"{', '.join(names)} have"


def troubled(facts: Facts) -> Iterator[Finding]:
    """The daemon reports an error for an index: an expired sign-in, a denied permission, a wrong profile."""
    if facts.status is None:
        return
    grouped: dict[tuple[str, str | None], list[str]] = {}
    for index in facts.indexes:
        said = facts.said(index)
        trouble = said.get("last_error")
        if trouble is not None and trouble["hint"] == f"uvtokend adopt {index.name}":
            continue  # the netrc's own check reports it, with file and line
        if not said and facts.status.get("config") != facts.config:
            continue  # `two_daemons` reports it
        if not said:
            told = f"The daemon does not know {index.name} yet.", "uvtokend reload"
        elif trouble is not None:
            told = str(trouble["message"]), trouble["hint"]
        elif said["health"] in {"expired", "none"}:
            told = "No valid token is delivered.", f"uvtokend refresh {index.name}"
        else:
            continue
        grouped.setdefault(told, []).append(index.name)
    for (message, hint), names in grouped.items():
        alive = all(
            facts.said(index).get("health") in {"fresh", "stale"} for index in facts.indexes if index.name in names
        )
        report = note if alive else error
        yield report("index-trouble", f"{', '.join(names)}: {message}", names[0], hint)


def delivery(facts: Facts) -> Iterator[Finding]:
    """The daemon reports a problem with the file that it writes."""
    told = facts.status["delivery"] if facts.status is not None else {}
    if told.get("problem") not in {None, facts.unreadable}:
        report, problem = note if told["ok"] else error, str(told["problem"])
        where = None if paths.uv_credentials_file() in problem else facts.netrc_path
        yield report("delivery", problem, where, told.get("hint"))


def notices(facts: Facts) -> Iterator[Finding]:
    """The daemon has a notice, such as temporary credentials in its own environment."""
    told: dict[tuple[str, str, str | None], None] = {}
    for index in facts.indexes:
        for each in facts.said(index).get("notices", ()):
            if each["reason"] != GLOBAL_PAT:  # configuration.global_pats reports it, even without a daemon
                told[each["reason"], each["message"], each["hint"]] = None
    for reason, message, hint in told:
        yield note(reason, message, None, hint)


def unreachable(facts: Facts) -> Iterator[Finding]:
    """A daemon delivers to this netrc, but it listens on another socket than this shell expects."""
    if facts.owner is not None and facts.indexes:
        socket = facts.environ.get("UVTOKEND_SOCKET")
        where = f"UVTOKEND_SOCKET={socket}" if socket else paths.socket_file()
        message = f"A uvtokend that does not answer here ({facts.owner}) keeps the tokens in {facts.netrc_path} fresh."
        ours = facts.owner.endswith(f" on {gethostname()}")  # a daemon in another container cannot be stopped from here
        restart = "uvtokend restart" if ours else None
        elsewhere = socket is not None and not os.path.exists(socket)
        report = note if all(map(facts.has_token, facts.indexes)) else error
        yield report("other-daemon", message, where, "unset UVTOKEND_SOCKET" if elsewhere else restart)


def version(facts: Facts) -> Iterator[Finding]:
    """The running daemon is another version than this command."""
    if facts.status is not None and facts.status["version"] != __version__:
        message = f"The running daemon is version {facts.status['version']}, this is {__version__}."
        yield note("version", message, None, "uvtokend restart")


def two_daemons(facts: Facts) -> Iterator[Finding]:
    """The daemon that answers here delivers to another netrc than this shell's configuration names."""
    if facts.status is not None and facts.settings is not None:
        if facts.named_netrc not in {None, facts.netrc_path} and facts.status.get("config") == facts.config:
            message = f"The running daemon writes {facts.netrc_path}, but config.toml names {facts.named_netrc}."
            yield error("other-netrc", message, facts.named_netrc, "uvtokend restart")
        elif facts.status.get("config") != facts.config and not any(netrc.another_home(facts)):
            message = f"The running daemon has read {facts.status.get('config')}, this command {facts.config}."
            yield error("other-configuration", message, facts.config, "uvtokend restart")


def environment(facts: Facts) -> Iterator[Finding]:
    """Variables for proxies and certificates differ between this shell and the daemon."""
    theirs = environment_of(facts.status) if facts.status is not None else None
    if theirs is None:
        return
    ours = shown(facts.environ)
    names = [name for name in NETWORK if ours.get(name, "") != theirs.get(name, "")]
    if names:
        told = "; ".join(f"{name}: here {_said(ours, name)}, there {_said(theirs, name)}" for name in names)
        message = f"The daemon was started with other network settings than this shell has ({told})."
        cut_off = any(not facts.has_token(index) and _reason(facts, index) in _OF_NETWORK for index in facts.indexes)
        report = error if cut_off else note
        yield report("environment-differs", message, names[0], restart())


def restart() -> str:
    """Return the command after which the daemon has this shell's environment; a service has what was recorded."""
    return "uvtokend service install && uvtokend restart" if manager.installed() is not None else "uvtokend restart"


def _reason(facts: Facts, index: Index) -> str | None:
    failure = facts.said(index).get("last_error")
    return None if failure is None else str(failure["reason"])


def _said(environ: Mapping[str, str], name: str) -> str:
    value = environ.get(name)
    return "not set" if not value else "set, with a password" if "@" in value else repr(value)


def environment_of(status: Mapping[str, Any]) -> Mapping[str, str] | None:
    """Return the PATH and network settings that the daemon reports; None if it does not.

    No other process can read them: the daemon is undumpable, which hides ``/proc/PID/environ`` (proc(5)).
    """
    return status.get("environment")


def service(facts: Facts) -> Iterator[Finding]:
    """Nothing starts the daemon at the next login, or it ends at logout."""
    if not facts.indexes:
        return
    if sys.platform != "darwin" and not systemd.available():
        return
    if manager.installed() is None:
        message = "No service starts uvtokend at the next login."
        yield note("no-service", message, None, "uvtokend service install")
    elif sys.platform != "darwin" and systemd.lingering() is False:
        message = "The service ends when you log out, and with it the refreshing of tokens."
        yield note("no-lingering", message, None, "loginctl enable-linger")


CHECKS = (not_running, two_daemons, environment, troubled, delivery, notices, unreachable, version, service)

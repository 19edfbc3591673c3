"""The netrc: does uv read this file, and our entries in it?"""

from __future__ import annotations

import os
import shlex
import stat
from collections.abc import Iterator

from uvtokend import paths
from uvtokend.core.model import Index
from uvtokend.core.netrc.grammar import scan
from uvtokend.core.netrc.lint import problems
from uvtokend.disk import files
from uvtokend.doctor.facts import Facts
from uvtokend.doctor.finding import Finding, error, note


def _ours(facts: Facts) -> list[Index]:
    return [index for index in facts.indexes if index.sink == "netrc"]


def another_home(facts: Facts) -> Iterator[Finding]:
    """The daemon that answers uses the configuration of another home directory than this shell's."""
    if facts.status is None or facts.status.get("config") in {None, facts.config}:
        return
    fix = paths.shell_fix(facts.netrc_path, facts.served)
    if fix.startswith("export HOME="):
        message = (
            f"This shell has HOME={facts.environ.get('HOME', '')}, but the daemon that answers here has read "
            f"{facts.served} and writes {facts.netrc_path}, which uv does not read here."
        )
        yield error("other-home", message, f"HOME={facts.environ.get('HOME', '')}", fix)


def another_file(facts: Facts) -> Iterator[Finding]:
    """With ``NETRC`` or ``HOME`` of this shell, uv reads another file than the one that uvtokend writes."""
    named = facts.environ.get("NETRC", "")
    read = facts.uv_netrc.path if facts.uv_netrc is not None else None
    if not _ours(facts) or (read is not None and os.path.realpath(read) == facts.netrc_path):
        return
    if read is None and facts.netrc is None:
        return  # there is no token yet; another check reports why
    why = f"NETRC={named}" if named else f"HOME={facts.environ.get('HOME', '')}"
    what = f"reads {read}" if read is not None else "finds no netrc"
    message = f"uv in this shell {what} ({why}), but uvtokend writes {facts.netrc_path}."
    yield error("netrc-differs", message, why, paths.shell_fix(facts.netrc_path, facts.served))


def missing_file(facts: Facts) -> Iterator[Finding]:
    """``NETRC`` names a missing file: uv silently reads ``~/.netrc``, other programs read nothing."""
    named = facts.environ.get("NETRC", "")
    if named and facts.uv_netrc is not None and not os.path.exists(os.path.expanduser(named)):
        message = f"NETRC names {named}, which does not exist; uv silently reads {facts.uv_netrc.path} instead."
        yield note("netrc-missing", message, f"NETRC={named}", "unset NETRC")


def syntax(facts: Facts) -> Iterator[Finding]:
    """uv ignores the whole file because of one word, or does not reach our entries, and says so only with -v."""
    if not _ours(facts) or facts.netrc is None:
        return
    hosts = {index.host for index in _ours(facts)}
    for problem in problems(facts.netrc, hosts & facts.ours.keys(), facts.netrc_path):
        report = error if problem.fatal else note
        place = f"{facts.netrc_path}: {problem.where}"
        yield report("netrc-syntax", f"{place}: {problem.message}.", place, problem.hint)


def unreadable(facts: Facts) -> Iterator[Finding]:
    """The netrc exists but cannot be read."""
    if facts.unreadable is not None and _ours(facts):
        fix = facts.unreadable_fix or f"ls -l {shlex.quote(facts.netrc_path)}"
        yield error("netrc-unreadable", facts.unreadable, facts.netrc_path, fix)


def foreign_entry(facts: Facts) -> Iterator[Finding]:
    """A foreign entry has our host: uvtokend does not change it."""
    if facts.netrc is None:
        return
    scanned = scan(facts.netrc)
    for index in facts.indexes:
        entry = next((each for each in scanned.entries if each.name == index.host.encode()), None)
        if entry is None or index.host in facts.ours:
            continue
        line = facts.netrc.count(b"\n", 0, entry.start) + 1
        shadows = "comes before uv's own credential store" if index.sink == "uv-store" else "is not uvtokend's"
        message = f"The entry for {index.host} {shadows}, so uvtokend leaves it alone and uv sends it."
        yield error("foreign-entry", message, f"{facts.netrc_path}:{line}", f"uvtokend adopt {index.name}")


def mode(facts: Facts) -> Iterator[Finding]:
    """Other users may read the netrc: Python's own netrc module, and so pip, refuses such a file."""
    if facts.netrc is None or not _ours(facts):
        return
    bits = stat.S_IMODE(os.stat(facts.netrc_path).st_mode)
    if bits & 0o077:
        message = (
            f"Other users may read {facts.netrc_path} (mode {bits:04o}), which holds tokens. uv reads it all the same; "
            "programs in Python, pip among them, may refuse it."
        )
        yield note("netrc-mode", message, facts.netrc_path, f"chmod 600 {shlex.quote(facts.netrc_path)}")


def single_mount(facts: Facts) -> Iterator[Finding]:
    """The netrc is a single-file mount, which cannot be replaced in one step."""
    if facts.netrc is not None and _ours(facts) and files.is_mounted(facts.netrc_path):
        message = (
            f"{facts.netrc_path} is mounted as a single file. uvtokend must write it in place, so a uv that starts "
            "at that moment may read half of it."
        )
        yield note(
            "single-file-mount",
            message,
            facts.netrc_path,
            "mount a directory instead, and let NETRC name the file in it",
        )


CHECKS = (another_home, another_file, missing_file, syntax, unreadable, foreign_entry, mode, single_mount)

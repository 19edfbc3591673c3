"""Write the status document as text for people.

First comes a headline, then each problem with its cause and the exact command that fixes it, then a line for each
index (`uvtokend.core.index_table`). A command is never shortened or wrapped, so that people can copy it.

`uvtokend status` starts near Python's own floor, so this module imports next to nothing. Documents may come from a
daemon of another version, so keys that are newer than 1.0 are read with a default.
"""

from __future__ import annotations

from uvtokend.core.document import INVALID, STOPPED, VALID, enabled, healthy, phase
from uvtokend.core.index_table import table
from uvtokend.core.text import BOLD, DIM, GREEN, RED, YELLOW, Moment, clean, duration, paint, wrapped

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import datetime, tzinfo
    from typing import Any

#: What to do if nothing is configured yet.
INIT = "No index is configured yet. Set one up with: uvtokend init"
#: What to do if `init` recognizes no provider, so that running it again cannot help.
BY_HAND = "If it recognizes no provider for your index, name one, for example:"
EXAMPLE = (
    "uvtokend add https://packages.example.com/simple/ --name corp --set provider=static --set username=me "
    "--set 'password={ file = \"~/token\" }'"
)
#: The words for an index that is not ready, and for several.
_PHASES = {
    "sign-in": ("needs a sign-in", "need a sign-in"),
    "blocked": ("is blocked", "are blocked"),
    "retrying": ("is retrying", "are retrying"),
    "fetching": ("is fetching its token", "are fetching their tokens"),
    "undelivered": ("is not delivered", "are not delivered"),
    "tokenless": ("has no valid token", "have no valid token"),
}


class Absence:
    """The reason why no daemon answers here.

    Args:
        sentence: The headline.
        fix: The command that changes it; None if no command does.
        more: More sentences, such as the service manager's.
        elsewhere: Another daemon, which the user may have meant: a sentence and the command that reaches it.
    """

    def __init__(
        self,
        sentence: str = STOPPED,
        fix: str | None = "uvtokend start",
        more: Iterable[str] = (),
        elsewhere: tuple[str, str] | None = None,
    ) -> None:
        self.sentence = sentence
        self.fix = fix
        self.more = tuple(more)
        self.elsewhere = elsewhere


def status(
    document: Mapping[str, Any],
    now: datetime,
    width: int = 80,
    color: bool = False,
    zone: tzinfo | None = None,
    absence: Absence | None = None,
    shell: Iterable[tuple[str, str]] = (),
) -> str:
    """Return the status document as text for people.

    Args:
        document: As ``status --json`` prints it.
        now: Aware UTC.
        width: The width of the terminal, in characters.
        color: Whether the terminal shows colors.
        zone: The time zone of the person; None means that of the system.
        absence: Why no daemon answers; None if one does.
        shell: Problems of this shell, which the daemon cannot know, each with its fix.
    """
    moment = Moment(now, zone)
    absence = absence or Absence()
    lines = headline(document, moment, width, color, absence)
    for sentence in absence.more:
        lines += wrapped(clean(sentence), width)
    for sentence, fix in (*([absence.elsewhere] if absence.elsewhere else ()), *shell):
        lines += problem_lines(sentence, fix, width, color)
    lines += problems(document, moment, width, color, absence) + notices(document, width, color)
    if document["indexes"]:
        lines += ["", *table(document, moment, width, color)]
    lines += [paint(line, DIM, color) for line in _sign_ins(document, moment, width)]
    if document["pid"] is not None:
        since = f", running since {moment.at(document['started_at'])}" if document.get("started_at") else ""
        footer = f"uvtokend {document['version']}, pid {document['pid']}{since}, netrc {document['netrc']}"
        lines += [paint(line, DIM, color) for line in wrapped(clean(footer), width)]
    return "\n".join(lines) + "\n"


def once(
    document: Mapping[str, Any], now: datetime, width: int = 80, color: bool = False, zone: tzinfo | None = None
) -> str:
    """Return the text that ``uvtokend once`` prints: the tokens, without a daemon. See `status`."""
    moment = Moment(now, zone)
    absence = Absence()
    lines = headline(document, moment, width, color, absence) + problems(document, moment, width, color, absence)
    lines += notices(document, width, color)
    if document["indexes"]:
        lines += ["", *table(document, moment, width, color, without={"STATE"})]
    return "\n".join(lines) + "\n"


# -------------------------------------------------------------------------------------------------------- headline


def headline(document: Mapping[str, Any], moment: Moment, width: int, color: bool, absence: Absence) -> list[str]:
    """Return the first lines: whether uv works right now."""
    indexes = [index for index in document["indexes"] if enabled(index)]
    if document["pid"] is None and (document["indexes"] or document.get("config_stale")):
        # While the configuration is invalid, no command can start a daemon: its own fix follows.
        fix = None if document.get("config_stale") else absence.fix
        lines = [paint(line, RED, color) for line in wrapped(clean(absence.sentence), width)]
        lines += [_fix(fix, color)] if fix is not None else []
        return lines + ([_on_disk(indexes, moment)] if indexes else [])
    if not document["indexes"]:
        return [INIT] if absence.elsewhere else [INIT, BY_HAND, f"  {EXAMPLE}"]
    good = [index for index in indexes if healthy(index)]
    rest = [index for index in indexes if not healthy(index)]
    off = len(document["indexes"]) - len(indexes)
    disabled = f"; {_count(off, 'is disabled', 'are disabled')}" if off else ""
    if not indexes:
        return [f"No index is enabled{disabled}."]
    if not rest:
        worried = [index for index in good if index["state"] in {"blocked", "retrying"}]
        but = f", but {_phases(worried, len(good))}" if worried else ""
        text = "The index is ready" if len(good) == 1 else f"All {len(good)} indexes are ready"
        return [paint(f"{text}{but}{disabled}.", YELLOW if worried else GREEN, color)]
    number = f"{len(good)} of {len(indexes)} indexes {'is' if len(good) == 1 else 'are'} ready"
    text = "The index is not ready" if len(indexes) == 1 else number
    shade = RED if any(phase(index) not in {"fetching", "retrying"} for index in rest) else YELLOW
    return [paint(f"{text}; {_phases(rest, len(indexes))}{disabled}.", shade, color)]


def _on_disk(indexes: Sequence[Mapping[str, Any]], moment: Moment) -> str:
    """Return which tokens uv can still use without a daemon, and until when."""
    good = [index for index in indexes if healthy(index)]
    if not good:
        return "No valid token is on disk."
    ends = sorted(index["expires_at"] for index in good if index["expires_at"] is not None)
    until = f"; uv works until {moment.at(ends[0])}, for {duration(moment.seconds_until(ends[0]))}" if ends else ""
    if len(indexes) == 1:
        return f"The token on disk is still valid{until}."
    text = f"{len(good)} of {len(indexes)} tokens on disk {'is' if len(good) == 1 else 'are'} still valid"
    return f"{text}{until}."


def _phases(indexes: Iterable[Mapping[str, Any]], total: int) -> str:
    """Return the states of several indexes: ``1 needs a sign-in, 2 are retrying``. Of one index, without the 1."""
    counts: dict[str, int] = {}
    for index in indexes:
        counts[phase(index)] = counts.get(phase(index), 0) + 1
    if total == 1:
        return f"it {_PHASES[next(iter(counts))][0]}"
    return ", ".join(_count(counts[each], *words) for each, words in _PHASES.items() if each in counts)


def _count(number: int, one: str, several: str) -> str:
    return f"{number} {one if number == 1 else several}"


# -------------------------------------------------------------------------------------------------------- problems


def problems(document: Mapping[str, Any], moment: Moment, width: int, color: bool, absence: Absence) -> list[str]:
    """Return the problems, each with its fix, as lines; no lines if there are none."""
    lines: list[str] = []
    stale = document.get("config_stale")
    if stale is not None:
        lines += problem_lines(stale, _stale_fix(stale, document["config"], document["pid"]), width, color)
    problem = document["delivery"]["problem"]
    if problem not in {None, STOPPED, absence.sentence} and not _told_by_index(document, problem):
        lines += problem_lines(problem, None, width, color)
    for (message, hint), names in _grouped(document, moment).items():
        lines += problem_lines(f"{', '.join(names)}: {message}", hint, width, color)
    return lines


def _stale_fix(stale: str, config: str, pid: int | None) -> str | None:
    """Return the fix for a configuration that is not loaded. The daemon would refuse to reload an invalid one."""
    command = "uvtokend start" if pid is None else "uvtokend reload"
    return f"correct {config}, then run: {command}" if stale.startswith(INVALID) else command


def notices(document: Mapping[str, Any], width: int, color: bool) -> list[str]:
    """Return the notices about valid tokens, each with its fix, as lines."""
    grouped: dict[tuple[str, str | None], list[str]] = {}
    for index in document["indexes"]:
        for notice in index.get("notices", ()):
            grouped.setdefault((notice["message"], notice["hint"]), []).append(index["name"])
    lines: list[str] = []
    for (message, hint), names in grouped.items():
        lines += problem_lines(f"{', '.join(names)}: {message}", hint, width, color)
    return lines


def _told_by_index(document: Mapping[str, Any], problem: str) -> bool:
    errors = [index["last_error"] for index in document["indexes"]]
    return any(error is not None and error["message"] == problem for error in errors)


def _grouped(document: Mapping[str, Any], moment: Moment) -> dict[tuple[str, str | None], list[str]]:
    """Return (message, fix) -> the names of the indexes: ten indexes with one sign-in have one problem."""
    grouped: dict[tuple[str, str | None], list[str]] = {}
    for index in document["indexes"]:
        problem = _of_index(index, document["pid"] is not None, moment) if enabled(index) else None
        if problem is not None:
            grouped.setdefault(problem, []).append(index["name"])
    return grouped


def _of_index(index: Mapping[str, Any], running: bool, moment: Moment) -> tuple[str, str | None] | None:
    error = index["last_error"]
    if error is not None:
        works = healthy(index) and index["state"] == "blocked" and index["expires_at"] is not None
        until = f" uv works until {moment.at(index['expires_at'])}." if works else ""
        return f"{error['message']}{until}", error["hint"]
    if healthy(index) or not running or index["state"] == "fetching":
        return None
    if index["health"] in VALID:
        return "The token is not delivered yet.", None
    return "There is no valid token yet.", f"uvtokend refresh {clean(index['name'])}"


def problem_lines(sentence: str, hint: str | None, width: int, color: bool) -> list[str]:
    """Return a problem and the command that fixes it, as lines.

    Args:
        sentence: What happened, and why.
        hint: The command; None if no command helps.
        width: The width of the terminal, in characters.
        color: Whether the terminal shows colors.
    """
    return wrapped(clean(sentence), width) + ([_fix(hint, color)] if hint is not None else [])


def _fix(hint: str, color: bool) -> str:
    return f"  fix: {paint(clean(hint), BOLD, color)}"


def _sign_ins(document: Mapping[str, Any], moment: Moment, width: int) -> list[str]:
    """Return the known ends of the sign-ins, as lines."""
    names: dict[tuple[str, str], list[str]] = {}
    for index in document["indexes"]:
        sign_in = index.get("sign_in")
        if sign_in is not None and sign_in["ends_at"] is not None and moment.seconds_until(sign_in["ends_at"]) > 0:
            names.setdefault((sign_in["name"], sign_in["ends_at"]), []).append(index["name"])
    lines: list[str] = []
    for (name, end), told in sorted(names.items(), key=lambda item: item[0][1]):
        left = duration(moment.seconds_until(end))
        sentence = f"{name[:1].upper()}{name[1:]} ends {moment.at(end)}, in {left} ({', '.join(told)})"
        lines += wrapped(clean(sentence), width)
    return lines

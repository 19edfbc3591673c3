"""Write the status document and the event log as text for people.

First comes a headline, then each problem with its cause and the exact command that fixes it, then a line for each
index. Text from outside (an index's name, a cloud's response) is shown with its control characters escaped, since a
terminal would obey them. A command is never shortened or wrapped, so that people can copy it.

`uvtokend status` starts near Python's own floor, so this module imports next to nothing. Documents may come from a
daemon of another version, so keys that are newer than 1.0 are read with a default.
"""

from __future__ import annotations

from datetime import datetime

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
    from datetime import tzinfo
    from typing import Any

GREEN, YELLOW, RED, BOLD, DIM = "32", "33", "31", "1", "2"
_LEVELS = {"warning": YELLOW, "error": RED}
#: What to do if nothing is configured yet.
INIT = "No index is configured yet. Set one up with: uvtokend init"
#: What to do if `init` recognizes no provider, so that running it again cannot help.
BY_HAND = "If it recognizes no provider for your index, name one, for example:"
EXAMPLE = (
    "uvtokend add https://packages.example.com/simple/ --name corp --set provider=static --set username=me "
    "--set 'password={ file = \"~/token\" }'"
)
#: The delivery problem in the document while no daemon runs.
STOPPED = "uvtokend is not running, so no tokens are being refreshed."
#: The beginning of the document's sentence about an invalid configuration.
INVALID = "config.toml is invalid"
_VALID = ("fresh", "stale")
#: The words for an index that is not ready, and for several.
_PHASES = {
    "sign-in": ("needs a sign-in", "need a sign-in"),
    "blocked": ("is blocked", "are blocked"),
    "retrying": ("is retrying", "are retrying"),
    "fetching": ("is fetching its token", "are fetching their tokens"),
    "undelivered": ("is not delivered", "are not delivered"),
    "tokenless": ("has no valid token", "have no valid token"),
}
_SINKS = {"netrc": "netrc, plain text", "uv-store": "uv's store, plain text", "memory": "memory only"}


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


def enabled(index: Mapping[str, Any]) -> bool:
    """Return whether one index of the document is enabled."""
    return bool(index.get("enabled", True))


def healthy(index: Mapping[str, Any]) -> bool:
    """Return whether one index of the document has a valid delivered token."""
    return bool(index["delivered"]) and index["health"] in _VALID


def refreshed(index: Mapping[str, Any]) -> bool:
    """Return whether the last refresh of one index of the document was delivered."""
    return healthy(index) and index["last_error"] is None


def under_way(index: Mapping[str, Any]) -> bool:
    """Return whether one index of the document has no valid delivered token yet, but may have one in a moment."""
    waits = index["state"] == "fetching" or (index["state"] == "waiting" and index["last_error"] is None)
    return enabled(index) and not healthy(index) and waits


def ready(document: Mapping[str, Any]) -> bool:
    """Return whether every enabled index of the document has a valid delivered token."""
    return all(healthy(index) for index in document["indexes"] if enabled(index))


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
    clock = _Clock(now, zone)
    absence = absence or Absence()
    lines = headline(document, clock, width, color, absence)
    for sentence in absence.more:
        lines += wrapped(clean(sentence), width)
    for sentence, fix in (*([absence.elsewhere] if absence.elsewhere else ()), *shell):
        lines += _problem(sentence, fix, width, color)
    lines += problems(document, clock, width, color, absence) + notices(document, width, color)
    if document["indexes"]:
        lines += ["", *_table(document, clock, width, color)]
    lines += [_paint(line, DIM, color) for line in _sign_ins(document, clock, width)]
    if document["pid"] is not None:
        since = f", running since {clock.at(document['started_at'])}" if document.get("started_at") else ""
        footer = f"uvtokend {document['version']}, pid {document['pid']}{since}, netrc {document['netrc']}"
        lines += [_paint(line, DIM, color) for line in wrapped(clean(footer), width)]
    return "\n".join(lines) + "\n"


def once(
    document: Mapping[str, Any], now: datetime, width: int = 80, color: bool = False, zone: tzinfo | None = None
) -> str:
    """Return the text that ``uvtokend once`` prints: the tokens, without a daemon. See `status`."""
    clock = _Clock(now, zone)
    absence = Absence()
    lines = headline(document, clock, width, color, absence) + problems(document, clock, width, color, absence)
    lines += notices(document, width, color)
    if document["indexes"]:
        lines += ["", *_table(document, clock, width, color, without={"STATE"})]
    return "\n".join(lines) + "\n"


class _Clock:
    """Format times for people, at one moment in one time zone.

    Args:
        now: The moment, aware.
        zone: The time zone; None means that of the system.
    """

    def __init__(self, now: datetime, zone: tzinfo | None) -> None:
        self.now = now
        self.zone = zone

    def seconds_until(self, time: str) -> float:
        """Return the seconds until a time of the document; negative if it has passed."""
        return (datetime.fromisoformat(time) - self.now).total_seconds()

    def at(self, time: str) -> str:
        """Return ``23:29``, with the day if that is not today."""
        local, today = datetime.fromisoformat(time).astimezone(self.zone), self.now.astimezone(self.zone)
        day = "" if local.date() == today.date() else f"{local:%b} {local.day} "
        return f"{day}{local:%H:%M}"


# -------------------------------------------------------------------------------------------------------- headline


def headline(document: Mapping[str, Any], clock: _Clock, width: int, color: bool, absence: Absence) -> list[str]:
    """Return the first lines: whether uv works right now."""
    indexes = [index for index in document["indexes"] if enabled(index)]
    if document["pid"] is None and (document["indexes"] or document.get("config_stale")):
        # While the configuration is invalid, no command can start a daemon: its own fix follows.
        fix = None if document.get("config_stale") else absence.fix
        lines = [_paint(line, RED, color) for line in wrapped(clean(absence.sentence), width)]
        lines += [_fix(fix, color)] if fix is not None else []
        return lines + ([_on_disk(indexes, clock)] if indexes else [])
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
        return [_paint(f"{text}{but}{disabled}.", YELLOW if worried else GREEN, color)]
    number = f"{len(good)} of {len(indexes)} indexes {'is' if len(good) == 1 else 'are'} ready"
    text = "The index is not ready" if len(indexes) == 1 else number
    shade = RED if any(_phase(index) not in {"fetching", "retrying"} for index in rest) else YELLOW
    return [_paint(f"{text}; {_phases(rest, len(indexes))}{disabled}.", shade, color)]


def _on_disk(indexes: Sequence[Mapping[str, Any]], clock: _Clock) -> str:
    """Return which tokens uv can still use without a daemon, and until when."""
    good = [index for index in indexes if healthy(index)]
    if not good:
        return "No valid token is on disk."
    ends = sorted(index["expires_at"] for index in good if index["expires_at"] is not None)
    until = f"; uv works until {clock.at(ends[0])}, for {duration(clock.seconds_until(ends[0]))}" if ends else ""
    if len(indexes) == 1:
        return f"The token on disk is still valid{until}."
    text = f"{len(good)} of {len(indexes)} tokens on disk {'is' if len(good) == 1 else 'are'} still valid"
    return f"{text}{until}."


def _phases(indexes: Iterable[Mapping[str, Any]], total: int) -> str:
    """Return the states of several indexes: ``1 needs a sign-in, 2 are retrying``. Of one index, without the 1."""
    counts: dict[str, int] = {}
    for index in indexes:
        counts[_phase(index)] = counts.get(_phase(index), 0) + 1
    if total == 1:
        return f"it {_PHASES[next(iter(counts))][0]}"
    return ", ".join(_count(counts[phase], *words) for phase, words in _PHASES.items() if phase in counts)


def _phase(index: Mapping[str, Any]) -> str:
    """Return the phase in `_PHASES` of an index that is not ready, or is ready but has a problem."""
    if index["state"] == "blocked":
        return "sign-in" if _kind(index) == "login-required" else "blocked"
    if index["state"] in {"retrying", "fetching"}:
        return str(index["state"])
    return "undelivered" if index["health"] in _VALID else "tokenless"


def _kind(index: Mapping[str, Any]) -> str | None:
    error = index["last_error"]
    return None if error is None else str(error["kind"])


def _count(number: int, one: str, several: str) -> str:
    return f"{number} {one if number == 1 else several}"


# -------------------------------------------------------------------------------------------------------- problems


def problems(document: Mapping[str, Any], clock: _Clock, width: int, color: bool, absence: Absence) -> list[str]:
    """Return the problems, each with its fix, as lines; no lines if there are none."""
    lines: list[str] = []
    stale = document.get("config_stale")
    if stale is not None:
        lines += _problem(stale, _stale_fix(stale, document["config"], document["pid"]), width, color)
    problem = document["delivery"]["problem"]
    if problem not in {None, STOPPED, absence.sentence} and not _told_by_index(document, problem):
        lines += _problem(problem, None, width, color)
    for (message, hint), names in _grouped(document, clock).items():
        lines += _problem(f"{', '.join(names)}: {message}", hint, width, color)
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
        lines += _problem(f"{', '.join(names)}: {message}", hint, width, color)
    return lines


def _told_by_index(document: Mapping[str, Any], problem: str) -> bool:
    errors = [index["last_error"] for index in document["indexes"]]
    return any(error is not None and error["message"] == problem for error in errors)


def _grouped(document: Mapping[str, Any], clock: _Clock) -> dict[tuple[str, str | None], list[str]]:
    """Return (message, fix) -> the names of the indexes: ten indexes with one sign-in have one problem."""
    grouped: dict[tuple[str, str | None], list[str]] = {}
    for index in document["indexes"]:
        problem = _of_index(index, document["pid"] is not None, clock) if enabled(index) else None
        if problem is not None:
            grouped.setdefault(problem, []).append(index["name"])
    return grouped


def _of_index(index: Mapping[str, Any], running: bool, clock: _Clock) -> tuple[str, str | None] | None:
    error = index["last_error"]
    if error is not None:
        works = healthy(index) and index["state"] == "blocked" and index["expires_at"] is not None
        until = f" uv works until {clock.at(index['expires_at'])}." if works else ""
        return f"{error['message']}{until}", error["hint"]
    if healthy(index) or not running or index["state"] == "fetching":
        return None
    if index["health"] in _VALID:
        return "The token is not delivered yet.", None
    return "There is no valid token yet.", f"uvtokend refresh {clean(index['name'])}"


def _problem(sentence: str, hint: str | None, width: int, color: bool) -> list[str]:
    return wrapped(clean(sentence), width) + ([_fix(hint, color)] if hint is not None else [])


def _fix(hint: str, color: bool) -> str:
    return f"  fix: {_paint(clean(hint), BOLD, color)}"


def _sign_ins(document: Mapping[str, Any], clock: _Clock, width: int) -> list[str]:
    """Return the known ends of the sign-ins, as lines."""
    names: dict[tuple[str, str], list[str]] = {}
    for index in document["indexes"]:
        sign_in = index.get("sign_in")
        if sign_in is not None and sign_in["ends_at"] is not None and clock.seconds_until(sign_in["ends_at"]) > 0:
            names.setdefault((sign_in["name"], sign_in["ends_at"]), []).append(index["name"])
    lines: list[str] = []
    for (name, end), told in sorted(names.items(), key=lambda item: item[0][1]):
        left = duration(clock.seconds_until(end))
        sentence = f"{name[:1].upper()}{name[1:]} ends {clock.at(end)}, in {left} ({', '.join(told)})"
        lines += wrapped(clean(sentence), width)
    return lines


# ----------------------------------------------------------------------------------------------------------- table

_SHADES = {"fresh": GREEN, "stale": YELLOW, "expired": RED, "none": RED}
_STATES = {"fetching": YELLOW, "retrying": YELLOW, "blocked": RED}


def _table(
    document: Mapping[str, Any], clock: _Clock, width: int, color: bool, without: Collection[str] = ()
) -> list[str]:
    """Return the indexes as a table that grows with the terminal.

    Index, token and state are always columns. Host, identity and sink become columns, in this order, if the terminal is
    wide enough; otherwise they are below the line, so that nothing is lost. The provider is shown if there is room for
    it.
    """
    running = document["pid"] is not None
    cells: dict[str, Callable[[Mapping[str, Any]], str]] = {
        "INDEX": lambda index: str(index["name"]),
        "HOST": lambda index: index.get("host") or "-",
        "PROVIDER": lambda index: index.get("provider") or "-",
        "FOR": lambda index: index.get("identity") or index.get("username") or "-",
        "TOKEN": lambda index: "disabled" if "STATE" in without and not enabled(index) else _token(index, clock),
        "STATE": lambda index: _state(index, running, clock),
        "STORED IN": lambda index: _SINKS.get(index.get("sink", ""), "-") if index["delivered"] else "-",
    }
    cells = {header: cell for header, cell in cells.items() if header not in without}
    indexes = document["indexes"]
    rows = [{header: clean(cell(index)) for header, cell in cells.items()} for index in indexes]
    widths = {header: max(len(header), *(len(row[header]) for row in rows)) for header in cells}
    shown = {"INDEX", "TOKEN", "STATE"} & cells.keys()
    for header in ("HOST", "FOR", "STORED IN", "PROVIDER"):
        if _total(widths, shown | {header}) <= width:
            shown.add(header)
    headers = [header for header in cells if header in shown]
    below = [header for header in ("HOST", "FOR", "STORED IN") if header not in shown]
    if _total(widths, shown) > width:  # a very narrow terminal: one line for each fact
        headers, below = ["INDEX"], [header for header in cells if header not in {"INDEX", "PROVIDER"}]
    lines = [_paint(_line(dict(zip(headers, headers, strict=True)), headers, widths), BOLD, color)]
    for row, index in zip(rows, indexes, strict=True):
        shades = _shades(index) if color else {}
        lines.append(_line(row, headers, widths, shades))
        details = [f"{_PREFIX.get(header, '')}{row[header]}" for header in below if row[header] != "-"]
        joined = ", ".join(details)
        lines += [f"  {line}" for line in ([joined] if joined and len(joined) + 2 <= width else details)]
    return lines


_PREFIX = {"FOR": "for ", "STORED IN": "in "}


def _total(widths: Mapping[str, int], headers: Iterable[str]) -> int:
    return sum(widths[header] + 2 for header in headers) - 2


def _line(
    row: Mapping[str, str], headers: Sequence[str], widths: Mapping[str, int], shades: Mapping[str, str] | None = None
) -> str:
    cells = []
    for header in headers:
        padded = row[header] if header == headers[-1] else row[header].ljust(widths[header])
        shade = (shades or {}).get(header)
        cells.append(_paint(padded, shade, True) if shade else padded)
    return "  ".join(cells).rstrip()


def _shades(index: Mapping[str, Any]) -> dict[str, str]:
    """Return the color of the cells that have one: red if uv fails, yellow if a fetch is under way."""
    if not enabled(index):
        return {"INDEX": DIM, "TOKEN": DIM, "STATE": DIM}
    busy = index["health"] == "none" and index["state"] == "fetching"
    token = _SHADES[index["health"]] if healthy(index) or index["health"] not in _VALID else RED
    shades = {"TOKEN": YELLOW if busy else token}
    if index["state"] in _STATES:
        shades["STATE"] = _STATES[index["state"]]
    return shades


def _token(index: Mapping[str, Any], clock: _Clock) -> str:
    """Return the state of a token, and until when it is valid."""
    if not enabled(index):
        return "-"
    end = index.get("expires_at")
    if index["health"] not in _VALID:
        if index["health"] == "none" or end is None:
            return "no token"
        return f"expired {clock.at(end)}, {duration(-clock.seconds_until(end))} ago"
    worth = "no known end" if end is None else f"expires {clock.at(end)}, in {duration(clock.seconds_until(end))}"
    return worth if index["delivered"] else f"{worth} (not delivered)"


def _state(index: Mapping[str, Any], running: bool, clock: _Clock) -> str:
    """Return what the daemon does for an index, and when."""
    if not enabled(index):
        return "disabled"
    if not running:
        return "-"
    match index["state"]:
        case "fetching":
            return "fetching…"
        case "retrying":
            failed = f" ({index['failures']} failed)" if index["failures"] else ""
            return f"retrying{_in(index.get('retry_at'), clock)}{failed}"
        case "blocked":
            return {"login-required": "needs sign-in", "rejected": "rejected"}.get(_kind(index) or "", "blocked")
    due = index["refresh_at"]
    return "waiting" if due is None else f"refresh{_in(due, clock) or ' due'}"


def _in(time: str | None, clock: _Clock) -> str:
    seconds = 0.0 if time is None else clock.seconds_until(time)
    return f" in {duration(seconds)}" if seconds > 0 else ""


# ---------------------------------------------------------------------------------------------------------- prompt


def prompt(document: Mapping[str, Any]) -> str:
    """Return the status in one short line, for a shell prompt."""
    indexes = [index for index in document["indexes"] if enabled(index)]
    if not indexes:
        return "no index"
    if document["pid"] is None:
        return "not running"
    good = sum(healthy(index) for index in indexes)
    phases = [_phase(index) for index in indexes if index["state"] == "blocked" or not healthy(index)]
    worst = next((words for phase, words in _PROMPT.items() if phase in phases), None)
    count = f"{good} ready" if good == len(indexes) else f"{good}/{len(indexes)} ready"
    return count if worst is None else f"{count}, {worst}"


_PROMPT = {
    "sign-in": "sign-in needed",
    "blocked": "blocked",
    "undelivered": "not delivered",
    "tokenless": "no token",
    "retrying": "retrying",
    "fetching": "fetching",
}


# ---------------------------------------------------------------------------------------------------------- events


def event(record: Mapping[str, Any], color: bool = False, zone: tzinfo | None = None) -> str:
    """Return one event of the log as a line in local time; a record that is not an event says so.

    Args:
        record: The record in the log.
        color: Whether the terminal shows colors.
        zone: The time zone of the person; None means that of the system.
    """
    try:
        names = f"{', '.join(str(name) for name in record['names'])}: " if record["names"] else ""
        hint = f"  fix: {record['hint']}" if record["hint"] else ""
        level = str(record["level"])
        text = clean(f"{names}{record['message']}{hint}")
        at = datetime.fromisoformat(str(record["at"])).astimezone(zone)
        return f"{at:%Y-%m-%d %H:%M:%S}  {_paint(clean(level).ljust(7), _LEVELS.get(level, DIM), color)}  {text}"
    except (KeyError, TypeError, ValueError, OverflowError):
        return "(not an event)"


# ------------------------------------------------------------------------------------------------------------ text


def clean(text: str) -> str:
    """Return a text with its control and other invisible characters escaped, so that a terminal does not obey them."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def duration(seconds: float) -> str:
    """Return a duration as people say it, rounded down: ``3 d``, ``7 h``, ``1 h 20 min``, ``12 s``."""
    whole = max(0, int(seconds))
    minutes, hours, days = whole // 60, whole // 3600, whole // 86400
    if days >= 2:
        return f"{days} d"
    if hours >= 2:
        return f"{hours} h"
    if hours:
        return f"1 h {minutes % 60} min" if minutes % 60 else "1 h"
    return f"{minutes} min" if minutes else f"{whole} s"


def wrapped(text: str, width: int) -> list[str]:
    """Return a text as lines of at most a width, broken at spaces if there are any; all but the first are indented."""
    lines = [""]
    for word in text.split(" "):
        if lines[-1].strip() and len(lines[-1]) + 1 + len(word) > width:
            lines.append(f"  {word}")
        else:
            lines[-1] += f" {word}" if lines[-1] else word
    return lines


def _paint(text: str, shade: str, color: bool) -> str:
    return f"\x1b[{shade}m{text}\x1b[0m" if color else text

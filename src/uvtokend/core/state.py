"""The state file: what a restart needs to keep tokens that are still good. It never holds a token.

It is JSON of our own making, but it is read as if anybody had written it: what does not fit is forgotten, and a
forgotten record costs one fetch, no more.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from uvtokend.core.model import Credential, Entry, Json, Record, Request, Sink

VERSION = 1
#: How many tokens of a host are remembered: with tokens of one hour, those of the last eight.
KEPT = 16


@dataclass(frozen=True, slots=True)
class Boot:
    """The machine's last boot, by which two readings of a wall clock that was set in between can be compared.

    Args:
        id: Another one after each boot; empty where the system tells none.
        at: When it was, aware UTC, as the wall clock has it now.
    """

    id: str
    at: datetime


@dataclass(frozen=True, slots=True)
class State:
    """What the state file says.

    Args:
        netrc: The netrc that the records speak of, resolved.
        records: One for each token that stands, and then those of the last few that stood before: a program that read
            the netrc a while ago may write them back.
        created: We made that netrc, so `purge` may take an empty one away.
        boot: On which wall clock the records' times are; None where that is not known.
    """

    netrc: str = ""
    records: tuple[Record, ...] = ()
    created: bool = False
    boot: Boot | None = None

    def ours(self) -> dict[str, set[tuple[str, str]]]:
        """Return host -> login and SHA-256 of the tokens: how an entry of the netrc is known to be ours."""
        known: dict[str, set[tuple[str, str]]] = {}
        for record in self.records:
            for host in record.targets if sink_of(record) == "netrc" else ():
                known.setdefault(host, set()).add((record.login, record.sha256))
        return known


def without(state: State, targets: Collection[str]) -> State:
    """Return what is known when the entries for some places are gone."""
    shrunk = [
        replace(known, targets=tuple(target for target in known.targets if target not in targets))
        for known in state.records
    ]
    return replace(state, records=tuple(known for known in shrunk if known.targets))


def request_key(request: Request) -> str:
    """Return a digest of a request: another profile or role is another token."""
    text = json.dumps([request.provider, request.service, request.options, request.env])
    return hashlib.sha256(text.encode()).hexdigest()


def record(request: Request, credential: Credential, refresh_at: datetime, targets: tuple[str, ...]) -> Record:
    """Return what to remember of a token that was delivered to these places."""
    return Record(
        request_key=request_key(request),
        targets=targets,
        login=credential.login,
        sha256=hashlib.sha256(credential.password.reveal().encode()).hexdigest(),
        issued_at=credential.issued_at,
        expires_at=credential.expires_at,
        refresh_at=refresh_at,
        refresh_after=credential.refresh_after,
        identity=credential.identity,
    )


def sink_of(known: Record) -> Sink:
    """Return the sink that a record's token was delivered to: a service of uv's store is a URL."""
    return "uv-store" if any("://" in target for target in known.targets) else "netrc"


def remember(new: Iterable[Record], former: Iterable[Record]) -> tuple[Record, ...]:
    """Return the new records and the last few of the former ones, latest first, each token once."""
    kept: dict[tuple[tuple[str, ...], str, str], Record] = {}
    for known in (*new, *former):
        same_places = sum(targets == known.targets for targets, _, _ in kept)
        if same_places < KEPT:
            kept.setdefault((known.targets, known.login, known.sha256), known)
    return tuple(kept.values())


def before_delivery(known: State, netrc: str, missing: bool, new: Iterable[Record], boot: Boot) -> State:
    """Return what to remember while a delivery is under way: the old tokens and the new ones.

    Args:
        known: The state before.
        netrc: The netrc, resolved.
        missing: There is no such file yet, so we create it.
        new: What the delivery writes.
        boot: The boot, by the wall clock as it is now.
    """
    return State(netrc, remember(new, known.records), known.created or missing, boot)


def after_delivery(
    before: State, during: State, new: Iterable[Record], foreign: Collection[str], sink: Sink, targets: Collection[str]
) -> State:
    """Return what to remember after a delivery: the tokens that it wrote and the last few before them.

    Args:
        before: The state before the delivery.
        during: The state while it was under way.
        new: What it was to write.
        foreign: Targets where it wrote nothing, because of a foreign entry.
        sink: The sink.
        targets: The targets of the configured indexes: what this sink held for others is gone now.
    """
    written = [known for known in new if not set(foreign).issuperset(known.targets)]
    held = {target for known in before.records if sink_of(known) == sink for target in known.targets}
    return replace(during, records=remember(written, without(before, held - set(targets)).records))


def shifted(known: Record, shift: timedelta) -> Record:
    """Return a record with its times moved, say from the daemon's clock to the wall clock."""
    return replace(
        known,
        issued_at=known.issued_at + shift,
        expires_at=None if known.expires_at is None else known.expires_at + shift,
        refresh_at=known.refresh_at + shift,
        refresh_after=None if known.refresh_after is None else known.refresh_after + shift,
    )


def on_clock(state: State, boot: Boot) -> State:
    """Return a state with its times on the wall clock of now: a clock that was set meanwhile has killed no token.

    Args:
        state: As it was written.
        boot: As the wall clock has it now. After another boot nothing can be said.
    """
    before = state.boot
    shift = boot.at - before.at if before is not None and boot.id and before.id == boot.id else timedelta()
    if abs(shift) < timedelta(seconds=1):
        return state
    return replace(state, records=tuple(shifted(known, shift) for known in state.records), boot=boot)


def recover(state: State, entries: Mapping[str, Entry], requests: tuple[Request, ...], now: datetime) -> Recovered:
    """Match the records with the entries that really stand in the netrc.

    Args:
        state: What the state file says.
        entries: Our entries as they stand, by place.
        requests: What the configuration asks for.
        now: Aware UTC.

    Returns:
        For each request whose token still stands and lives: the credential and when it is due.
    """
    wanted = {request_key(request): request for request in requests}
    found: Recovered = {}
    for known in state.records:
        request = wanted.get(known.request_key)
        token = next(
            (entries[target].password for target in known.targets if _matches(known, entries.get(target))), None
        )
        if request is None or token is None or (known.expires_at is not None and known.expires_at <= now):
            continue
        credential = Credential(
            known.login, token, known.issued_at, known.expires_at, known.refresh_after, known.identity
        )
        # A record from the future (a clock that was wrong) must not put the refresh off.
        due = now if known.issued_at > now else known.refresh_at
        found[request] = (credential, due)
    return found


Recovered = dict[Request, tuple[Credential, datetime]]


def _matches(known: Record, entry: Entry | None) -> bool:
    if entry is None or entry.login != known.login:
        return False
    return hashlib.sha256(entry.password.reveal().encode()).hexdigest() == known.sha256


def encode(state: State) -> bytes:
    """Return the text of the state file."""
    records: list[Json] = [
        {
            "request": known.request_key,
            "places": list(known.targets),
            "login": known.login,
            "sha256": known.sha256,
            "issued_at": zulu(known.issued_at),
            "expires_at": zulu(known.expires_at),
            "refresh_at": zulu(known.refresh_at),
            "refresh_after": zulu(known.refresh_after),
            "identity": known.identity,
        }
        for known in state.records
    ]
    boot = None if state.boot is None else {"id": state.boot.id, "at": zulu(state.boot.at)}
    document = {"version": VERSION, "netrc": state.netrc, "created": state.created, "boot": boot, "tokens": records}
    return json.dumps(document, indent=1).encode() + b"\n"


def decode(text: bytes) -> State:
    """Return what a state file says; whatever does not fit counts as not there."""
    try:
        document = json.loads(text)
        if document["version"] != VERSION:
            return State()
        records = tuple(_record(raw) for raw in document["tokens"])
        return State(str(document["netrc"]), records, bool(document["created"]), _boot(document["boot"]))
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
        return State()


def _boot(raw: dict[str, str] | None) -> Boot | None:
    at = parse_zulu(raw["at"]) if raw is not None else None
    return None if raw is None or at is None else Boot(str(raw["id"]), at)


def _record(raw: dict[str, str | None]) -> Record:
    issued, refresh = parse_zulu(raw["issued_at"]), parse_zulu(raw["refresh_at"])
    if issued is None or refresh is None:
        raise ValueError(raw)
    return Record(
        request_key=str(raw["request"]),
        targets=tuple(str(target) for target in raw["places"] or ()),
        login=str(raw["login"]),
        sha256=str(raw["sha256"]),
        issued_at=issued,
        expires_at=parse_zulu(raw["expires_at"]),
        refresh_at=refresh,
        refresh_after=parse_zulu(raw["refresh_after"]),
        identity=None if raw["identity"] is None else str(raw["identity"]),
    )


def zulu(time: datetime | None) -> str | None:
    """Return a time as RFC 3339 in UTC with ``Z``, to the millisecond at most."""
    if time is None:
        return None
    whole = time.astimezone(UTC)
    return whole.isoformat(timespec="milliseconds" if whole.microsecond else "seconds").replace("+00:00", "Z")


def parse_zulu(text: object) -> datetime | None:
    """Return the aware UTC time that an RFC 3339 text names, or None for None.

    Raises:
        ValueError: It is no time, or it has no zone.
    """
    if text is None:
        return None
    time = datetime.fromisoformat(str(text))
    if time.tzinfo is None:
        raise ValueError(text)
    return time.astimezone(UTC)

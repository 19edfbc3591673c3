"""The state file: what a restart needs to keep valid tokens, and every file that may still contain our entries.

1. It holds no token and no login, only digests (`uvtokend.core.model.digest`): a login may be a secret, too.
2. A record describes a token as it was delivered. It is used again only while exactly that entry is in its sink.
3. A digest counts as delivered from the moment its delivery begins, provided that the text read had no foreign entry
   for the host. An entry that merely equals what we are about to deliver is foreign.
4. A netrc or store is remembered until no entry of ours is left in it, even if the configuration no longer names it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from uvtokend.core.model import Credential, Entry, Record, Request, Sink, digest, sha256

#: How many tokens of a host are remembered: with tokens of one hour, those of the last eight hours.
KEPT = 16
#: A recovered token is refreshed within this time, whatever its record says.
LONGEST = timedelta(days=1)

Recovered = dict[Request, tuple[Credential, datetime]]


@dataclass(frozen=True, slots=True)
class Boot:
    """The machine's last boot: the reference that shows how far the wall clock was set between two readings.

    Args:
        id: Changes with each boot; empty where the system does not provide one.
        at: The time of the boot, aware UTC, according to the wall clock now.
    """

    id: str
    at: datetime


@dataclass(frozen=True, slots=True)
class Netrc:
    """What is known about one netrc that we wrote.

    Args:
        config: The configuration file that named it; another configuration may use another netrc at the same time.
        created: We created the file, so it is deleted once it is empty.
        delivered: host -> digests of the entries that were delivered, latest first, at most `KEPT`. A program that read
            the file earlier may write an older one back.
    """

    config: str = ""
    created: bool = False
    delivered: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class State:
    """The content of the state file.

    Args:
        records: One for each token that is delivered now.
        netrcs: Resolved path -> what is known about every netrc that may hold something of ours.
        stores: The paths of uv's credential stores that may hold a record of ours.
        boot: The boot that the times of the records refer to; None where it is unknown.
    """

    records: tuple[Record, ...] = ()
    netrcs: Mapping[str, Netrc] = field(default_factory=dict)
    stores: tuple[str, ...] = ()
    boot: Boot | None = None

    def netrc(self, path: str) -> Netrc:
        """Return what is known about a netrc, given by its resolved path."""
        return self.netrcs.get(path) or Netrc()

    def ours(self, path: str, hosts: Iterable[str] = ()) -> Mapping[str, tuple[str, ...]]:
        """Return host -> digests: an entry outside our block is ours if and only if its digest is among them.

        Args:
            path: The netrc, resolved.
            hosts: More hosts of ours; only inside our block does the host alone make an entry ours.
        """
        return {**dict.fromkeys(hosts, ()), **self.netrc(path).delivered}


def record(
    request: Request,
    credential: Credential,
    refresh_at: datetime,
    targets: tuple[str, ...],
    former: Record | None = None,
) -> Record:
    """Return what to remember about a token that is delivered to these targets.

    Args:
        request: The request of the token.
        credential: The token.
        refresh_at: When it will be refreshed, aware UTC.
        targets: The targets.
        former: An earlier record of the same request, if there is one: then the request need not be hashed again.
    """
    return Record(
        request_key=request_key(request) if former is None else former.request_key,
        targets=targets,
        digest=digest(credential.login, sha256(credential.password.reveal())),
        issued_at=credential.issued_at,
        expires_at=credential.expires_at,
        refresh_at=refresh_at,
        refresh_after=credential.refresh_after,
        identity=credential.identity,
        wall_end=credential.wall_end,
    )


def request_key(request: Request) -> str:
    """Return a digest of a request: another profile or role means another token."""
    text = json.dumps([request.provider, request.service, request.options, request.env])
    return sha256(text)


# --------------------------------------------------------------------------------------------------------- changes


def began(
    state: State, path: str, entries: Iterable[Entry], records: Iterable[Record], config: str, created: bool
) -> State:
    """Return what is new while entries are being written to a netrc: from now on they count as delivered.

    It is a state that contains nothing else; see `joined`.

    Args:
        state: The state before.
        path: The netrc, resolved.
        entries: What is being written. The text that was read has no foreign entry for any of these hosts.
        records: Their records. The former records stay until the new entries are known to be in place.
        config: The configuration file that names the netrc.
        created: The netrc does not exist yet.
    """
    known, same = state.netrc(path), set(map(id, state.records))
    news = tuple(each for each in records if id(each) not in same)
    digests = {each.digest: each.digest for each in news}  # equal texts are one object
    delivered = {
        entry.host: (digests.get(digest, digest),)
        for entry in entries
        if (digest := entry.digest) != next(iter(known.delivered.get(entry.host, ())), None)
    }
    return State(news, {path: Netrc(config, created, delivered)}, boot=state.boot)


def joined(state: State, news: State) -> State:
    """Return a state with what is new in it: of a host that both know, the newer digest comes first."""
    netrcs = dict(state.netrcs)
    for path, new in news.netrcs.items():
        known = state.netrc(path)
        delivered = dict(known.delivered)
        for host, digests in new.delivered.items():
            delivered[host] = tuple(dict.fromkeys((*digests, *delivered.get(host, ()))))[:KEPT]
        netrcs[path] = Netrc(new.config, known.created or new.created, delivered)
    return replace(state, records=_joined(news.records, state.records), netrcs=netrcs)


def _joined(new: tuple[Record, ...], records: tuple[Record, ...]) -> tuple[Record, ...]:
    """Return some records with new ones before them, each once. The digest tells nearly all of them apart."""
    if not new:
        return records
    digests = {record.digest for record in new}
    return (*new, *(record for record in records if record.digest not in digests or record not in new))


def names_more(state: State, news: State) -> bool:
    """Return whether some news name a netrc, or a host in a netrc, that a state does not name.

    Args:
        state: The state.
        news: What is new; see `began`.
    """
    return any(
        path not in state.netrcs or not new.delivered.keys() <= state.netrcs[path].delivered.keys()
        for path, new in news.netrcs.items()
    )


def with_others(new: State, base: State, others: State) -> State:
    """Return a state with the files that other processes have written since we read the state file.

    A daemon for another netrc may use the same state file. Its records are left out, which costs it a fetch.

    Args:
        new: Our state.
        base: The content of the state file when we last read or wrote it.
        others: Its content now.
    """
    theirs = {
        path: known
        for path, known in others.netrcs.items()
        if known != base.netrcs.get(path) and new.netrcs.get(path) == base.netrcs.get(path)
    }
    stores = (*new.stores, *(path for path in others.stores if path not in base.stores))
    return replace(new, netrcs={**new.netrcs, **theirs}, stores=tuple(dict.fromkeys(stores)))


def began_store(state: State, path: str, records: Iterable[Record]) -> State:
    """Return the state while records are being written to a credential store of uv's; see `began`."""
    stores = tuple(dict.fromkeys((*state.stores, path)))
    return replace(state, records=_joined(tuple(records), state.records), stores=stores)


def with_records(state: State, records: Iterable[Record], sink: Sink) -> State:
    """Return a state after a delivery.

    Args:
        state: The state before.
        records: What is in the sink now.
        sink: The sink; former records of it are forgotten.
    """
    return replace(
        state, records=(*records, *_kept(state.records, lambda target: ("://" in target) != (sink == "uv-store")))
    )


def without(state: State, targets: Collection[str]) -> State:
    """Return a state in which nothing is known about some targets, because our entries for them are gone."""
    if not targets:
        return state
    netrcs = {
        path: replace(
            known, delivered={host: digests for host, digests in known.delivered.items() if host not in targets}
        )
        for path, known in state.netrcs.items()
    }
    return replace(state, records=_kept(state.records, lambda target: target not in targets), netrcs=netrcs)


def cleaned(state: State, path: str) -> State:
    """Return a state that has forgotten a netrc or store, because nothing of ours is left in it."""
    netrcs = {name: known for name, known in state.netrcs.items() if name != path}
    return replace(state, netrcs=netrcs, stores=tuple(name for name in state.stores if name != path))


def former(state: State, path: str, config: str) -> tuple[str, ...]:
    """Return the netrcs that a configuration used before the one that it names now.

    Args:
        state: The state.
        path: The netrc in use, resolved.
        config: The configuration file.
    """
    return tuple(name for name, known in state.netrcs.items() if name != path and known.config in (config, ""))


def _kept(records: Iterable[Record], keeps: Callable[[str], bool]) -> tuple[Record, ...]:
    """Return the records with the targets that are kept; a record without a target is forgotten."""
    left = ((known, tuple(filter(keeps, known.targets))) for known in records)
    return tuple(
        known if targets == known.targets else replace(known, targets=targets) for known, targets in left if targets
    )


# ---------------------------------------------------------------------------------------------------------- clocks


def shifted(known: Record, shift: timedelta) -> Record:
    """Return a record with its times moved, for example from the daemon's clock to the wall clock.

    `Record.wall_end` is on the wall clock already, and stays.
    """
    return replace(
        known,
        issued_at=known.issued_at + shift,
        expires_at=None if known.expires_at is None else known.expires_at + shift,
        refresh_at=known.refresh_at + shift,
        refresh_after=None if known.refresh_after is None else known.refresh_after + shift,
    )


def on_clock(state: State, boot: Boot) -> State:
    """Return a state with its times on the wall clock as it is now.

    If the wall clock moved while the machine stayed up, either somebody set it, and the tokens are as good as before,
    or the machine was paused or restored from a snapshot, and they may have expired. Nobody can tell which, so the
    entries stay, every token is due at once, and `Record.wall_end` stays.

    Args:
        state: As it was written.
        boot: As the wall clock has it now. After another boot nothing can be said.
    """
    before = state.boot
    shift = boot.at - before.at if before is not None and boot.id and before.id == boot.id else timedelta()
    if abs(shift) < timedelta(seconds=1):
        return state
    try:
        moved = tuple(shifted(known, shift) for known in state.records)
    except OverflowError:
        moved = ()
    return replace(state, records=tuple(replace(known, refresh_at=known.issued_at) for known in moved), boot=boot)


# -------------------------------------------------------------------------------------------------------- recovery


def recover(
    records: Iterable[Record], entries: Mapping[str, Entry], requests: tuple[Request, ...], now: datetime
) -> Recovered:
    """Match the records with the entries that are really in the sinks.

    Args:
        records: From the state file.
        entries: Our entries in all sinks, by target.
        requests: What the configuration asks for.
        now: Aware UTC.

    Returns:
        For each request whose token is in place and valid: the credential, and when it is due.
    """
    wanted = {request_key(request): request for request in requests}
    recovered: Recovered = {}
    for known in records:
        request = wanted.get(known.request_key)
        entry = standing(known, entries)
        if request is None or entry is None or (known.expires_at is not None and known.expires_at <= now):
            continue
        credential = Credential(
            entry.login,
            entry.password,
            known.issued_at,
            known.expires_at,
            known.refresh_after,
            known.identity,
            wall_end=known.wall_end,
        )
        # A record from the future (the clock was wrong) must not put the refresh off.
        due = now if known.issued_at > now else min(known.refresh_at, now + LONGEST)
        recovered[request] = (credential, due)
    return recovered


def standing(known: Record, entries: Mapping[str, Entry]) -> Entry | None:
    """Return the entry that a record describes, or None if it is in none of its targets.

    Args:
        known: The record.
        entries: Our entries, by target.
    """
    candidates = (entries[target] for target in known.targets if target in entries)
    return next((entry for entry in candidates if entry.digest == known.digest), None)

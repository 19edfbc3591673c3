"""The state file as JSON. It is read as if any program could have written it.

A damaged part is forgotten, which costs one fetch at most.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from datetime import datetime
from itertools import islice
from typing import Any, TypeVar

from uvtokend.core.model import Json, Record, digest
from uvtokend.core.rfc3339 import instant, zulu
from uvtokend.core.state import KEPT, Boot, Netrc, State

VERSION = 2
#: How many tokens are encoded at once.
PIECE = 50
#: The valid years of a recorded time; outside of them, arithmetic would overflow.
_YEARS = range(1971, 9000)
_DAMAGED = (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError)
_T = TypeVar("_T")


def encode(state: State) -> bytes:
    """Return the text of the state file.

    It is made in pieces. Python's encoder lets no other thread run before it has ended, which would take 2 ms for a
    thousand tokens, or several times that on a busy machine, and the daemon's loop answers clients meanwhile.
    """
    boot: Json = None if state.boot is None else {"id": state.boot.id, "at": zulu(state.boot.at)}
    netrcs = ", ".join(f"{json.dumps(path)}: {_netrc_text(known)}" for path, known in state.netrcs.items())
    tokens = ", ".join(json.dumps(piece)[1:-1] for piece in _pieces(map(_token, state.records)))
    members = (
        f'"version": {VERSION}',
        f'"boot": {json.dumps(boot)}',
        f'"netrcs": {{{netrcs}}}',
        f'"stores": {json.dumps(list(state.stores))}',
        f'"tokens": [{tokens}]',
    )
    return f"{{{', '.join(members)}}}\n".encode()


def _netrc_text(known: Netrc) -> str:
    entries = ((host, list(digests)) for host, digests in known.delivered.items())
    delivered = ", ".join(json.dumps(dict(piece))[1:-1] for piece in _pieces(entries))
    start = json.dumps({"config": known.config, "created": known.created})
    return f'{start[:-1]}, "delivered": {{{delivered}}}}}'


def _token(known: Record) -> Json:
    return {
        "request": known.request_key,
        "targets": list(known.targets),
        "digest": known.digest,
        "issued_at": zulu(known.issued_at),
        "expires_at": zulu(known.expires_at),
        "refresh_at": zulu(known.refresh_at),
        "refresh_after": zulu(known.refresh_after),
        "identity": known.identity,
        "wall_end": zulu(known.wall_end),
    }


def _pieces(values: Iterable[_T]) -> Iterator[list[_T]]:
    rest = iter(values)
    while piece := list(islice(rest, PIECE)):
        yield piece


def decode(text: bytes) -> State:
    """Return the content of a state file of this version or of version 1, without its damaged parts."""
    try:
        document = json.loads(text)
        version = document["version"]
        if version not in (1, VERSION):
            return State()
        return _state(document) if version == VERSION else _version_1(document)
    except _DAMAGED:
        return State()


def _state(document: dict[str, Any]) -> State:
    netrcs = dict(_readable(document["netrcs"].items(), _netrc))
    stores = tuple(_readable(document["stores"], _path))
    return State(tuple(_readable(document["tokens"], _record)), netrcs, stores, _boot(document))


def _version_1(document: dict[str, Any]) -> State:
    """Read the first version: one netrc, login and SHA-256 of each token side by side, ``places`` for the targets."""
    tokens = document["tokens"]
    for raw in tokens:
        raw["targets"], raw["digest"] = raw["places"], digest(raw["login"], raw["sha256"])
    records = _readable(tokens, _record)
    state = State(tuple(records), boot=_boot(document))
    if not document["netrc"]:
        return state
    delivered: dict[str, tuple[str, ...]] = {}
    for known in records:
        for host in (target for target in known.targets if "://" not in target):
            delivered[host] = (*delivered.get(host, ()), known.digest)[:KEPT]
    return replace(state, netrcs={_path(document["netrc"]): Netrc("", bool(document["created"]), delivered)})


def _readable(raws: Iterable[Any], parse: Callable[[Any], _T]) -> list[_T]:
    """Return what can be read, and leave out the rest."""
    parsed = []
    for raw in raws:
        try:
            parsed.append(parse(raw))
        except _DAMAGED:
            continue
    return parsed


def _boot(document: dict[str, Any]) -> Boot | None:
    boots = _readable([document.get("boot")], lambda raw: Boot(_text(raw["id"]), _time(raw["at"])))
    return boots[0] if boots else None


def _netrc(item: tuple[str, dict[str, Any]]) -> tuple[str, Netrc]:
    path, raw = item
    delivered = {
        _target(host): tuple(_text(one) for one in digests[:KEPT]) for host, digests in raw["delivered"].items()
    }
    return _path(path), Netrc(_text(raw["config"]), bool(raw["created"]), delivered)


def _record(raw: dict[str, Any]) -> Record:
    return Record(
        request_key=_text(raw["request"]),
        targets=tuple(_target(target) for target in raw["targets"]),
        digest=_text(raw["digest"]),
        issued_at=_time(raw["issued_at"]),
        expires_at=_time_or_none(raw["expires_at"]),
        refresh_at=_time(raw["refresh_at"]),
        refresh_after=_time_or_none(raw["refresh_after"]),
        identity=None if raw["identity"] is None else _text(raw["identity"]),
        wall_end=_time_or_none(raw.get("wall_end", raw["expires_at"])),
    )


def _text(raw: object) -> str:
    if not isinstance(raw, str):
        raise TypeError
    return raw


def _target(raw: object) -> str:
    """Return a target, which could be written to a file: a lone surrogate has no UTF-8 form."""
    target = _text(raw)
    target.encode()
    return target


def _path(raw: object) -> str:
    """Return a path that can be given to the system: absolute, without NUL, and encodable."""
    path = _text(raw)
    path.encode(errors="surrogateescape")
    if not path.startswith("/") or "\0" in path:
        raise ValueError
    return path


def _time(raw: object) -> datetime:
    time = instant(_text(raw))
    if time.year not in _YEARS:
        raise ValueError
    return time


def _time_or_none(raw: object) -> datetime | None:
    return None if raw is None else _time(raw)

"""Decide what changes in uv's own credential store, a file that belongs to uv and the user: text in, changes out.

1. For a URL, uv uses the record with the same scheme, host and port whose path is the longest prefix of the URL's path.
   If two records are equally long, it uses neither (uv crates/uv-auth/src/store.rs). So the store can hold different
   credentials for two tenants on one host, which a netrc cannot.
2. uv rewrites the whole file, so markers in it would be lost. A ledger beside the file says which records are ours: for
   each service, digests of the user names and passwords that we delivered.
3. Every other record is foreign and stays.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from uvtokend.core.model import Entry, Json, Secret, digest, sha256

Key = tuple[str, str]
#: service -> the digests (`uvtokend.core.model.digest`) of the records that we may have written for it.
Ledger = Mapping[str, frozenset[str]]

_PORTS = {"https": 443, "http": 80}
_KEYS = {"service", "username", "scheme", "password", "token"}


@dataclass(frozen=True, slots=True)
class StoredRecord:
    """One record of the store.

    Args:
        service: The URL prefix of the record, as `normal` writes it.
        username: The user name; empty for a bearer token.
        secret: The password or token.
    """

    service: str
    username: str
    secret: Secret

    @property
    def key(self) -> Key:
        """What identifies the record for uv."""
        return self.service, self.username

    @property
    def digest(self) -> str:
        """The digest of the record in the ledger."""
        return digest(self.username, sha256(self.secret.reveal()))


@dataclass(frozen=True, slots=True)
class Changes:
    """The changes to make to the store.

    Args:
        put: The records to write.
        drop: Our records to remove.
        rivals: Service of ours -> the foreign record that uv would use instead, or because of which it would use none.
    """

    put: tuple[Entry, ...]
    drop: tuple[Key, ...]
    rivals: Mapping[str, StoredRecord]


def normal(service: str) -> str:
    """Return a service as uv writes it: host in lower case, no default port, at least ``/`` as the path."""
    parts = urlsplit(service if "://" in service else f"https://{service}")
    host = parts.hostname or ""
    host = f"[{host}]" if ":" in host else host
    port = "" if parts.port in (None, _PORTS.get(parts.scheme)) else f":{parts.port}"
    return f"{parts.scheme}://{host}{port}{parts.path or '/'}"


def covers(service: str, url: str) -> bool:
    """Return whether uv would consider a record of this service for this URL."""
    ours, theirs = urlsplit(service), urlsplit(normal(url))
    prefix, path = ours.path, theirs.path
    if (ours.scheme, ours.netloc) != (theirs.scheme, theirs.netloc) or not path.startswith(prefix):
        return False
    return prefix == path or prefix.endswith("/") or path[len(prefix)] == "/"


def parse(text: bytes) -> tuple[StoredRecord, ...]:
    """Return the records of a store.

    Raises:
        ValueError: The text is invalid. uv cannot read it either, and ignores the whole file.
    """
    records = tomllib.loads(text.decode()).get("credential", [])
    if not isinstance(records, list):
        raise ValueError
    return tuple(_stored(raw) for raw in records)


def _stored(raw: Json) -> StoredRecord:
    match raw:
        case {"service": str(service), "scheme": "bearer", "token": str(token)}:
            return StoredRecord(normal(service), "", Secret(token))
        case {"service": str(service), "username": str(username), **rest} if rest.get("scheme", "basic") == "basic":
            return StoredRecord(normal(service), username, Secret(str(rest.get("password") or "")))
    raise ValueError


def changes(
    stored: Iterable[StoredRecord], wanted: Sequence[Entry], ledger: Ledger, urls: Mapping[str, Iterable[str]]
) -> Changes:
    """Return the changes after which the store has the wanted records and no other records of ours.

    Args:
        stored: The records in the store.
        wanted: The records that it should have, each with its `service`.
        ledger: The records that we may have written.
        urls: service -> the URLs of its indexes.
    """
    mine = [record for record in stored if record.digest in ledger.get(record.service, ())]
    foreign = [record for record in stored if record not in mine]
    rivals = {}
    for entry in wanted:
        rival = _rival(entry.service, foreign, urls.get(entry.service, ()))
        if rival is not None:
            rivals[entry.service] = rival
    free = [entry for entry in wanted if entry.service not in rivals]
    standing = {(record.key, record.secret.reveal()) for record in mine}
    put = tuple(entry for entry in free if (_key(entry), entry.password.reveal()) not in standing)
    keys = {_key(entry) for entry in free}
    return Changes(put, tuple(dict.fromkeys(record.key for record in mine if record.key not in keys)), rivals)


def _rival(service: str, foreign: Iterable[StoredRecord], urls: Iterable[str]) -> StoredRecord | None:
    for record in foreign:
        if record.service == service:
            return record
        longer = len(urlsplit(record.service).path) >= len(urlsplit(service).path)
        if longer and any(covers(record.service, url) for url in urls):
            return record
    return None


def kept_by_uv(text: bytes) -> bool:
    """Return whether a rewrite by uv keeps everything in a store: uv drops comments and unknown keys.

    Args:
        text: A store that `parse` could read.
    """
    document = tomllib.loads(text.decode())
    records = document.pop("credential", [])
    values = "".join(str(value) for record in records for value in record.values())
    known = not document and all(record.keys() <= _KEYS for record in records)
    return known and text.count(b"#") == values.count("#")


def edited(text: bytes, put: Iterable[Entry], drop: Iterable[Key]) -> bytes:
    """Return a store without some records and with others; everything else is kept byte for byte.

    A record is only removed if it is written as uv and uvtokend write it, so that no comment is lost with it.

    Args:
        text: The current content of the store.
        put: The records to write.
        drop: The records to remove.

    Raises:
        ValueError: The text is written in a way that cannot be edited safely.
    """
    put = tuple(put)
    gone = {*drop, *(_key(entry) for entry in put)}
    lines = [line for line in re.findall(r"[^\n]*\n|[^\n]+", text.decode()) if line.rstrip() != "credential = []"]
    kept: list[str] = []
    while lines:
        size = _record_size(lines)
        if size and _is_one_of(lines[:size], gone):
            del lines[:size]
            if lines and not lines[0].strip():
                del lines[0]
        else:
            kept.append(lines.pop(0))
    after = "".join(kept)
    for entry in put:
        after += ("" if not after or after.endswith("\n") else "\n") + ("\n" if after else "") + _table(entry)
    new = after.encode()
    if _rest(new) != _rest(text, gone) + Counter(_values(entry) for entry in put):
        raise ValueError
    return new


def _record_size(lines: Sequence[str]) -> int:
    """Return the number of lines of the record that begins here, or 0 if none begins here."""
    if lines[0].strip() != "[[credential]]":
        return 0
    size = 1
    while size < len(lines) and lines[size].partition("=")[0].strip() in _KEYS:
        size += 1
    return size


def _is_one_of(lines: Sequence[str], keys: Iterable[Key]) -> bool:
    text = "".join(lines).encode()
    try:
        return parse(text)[0].key in keys and kept_by_uv(text)
    except ValueError:
        return False


def _table(entry: Entry) -> str:
    service, username, password = (_quoted(text) for text in (entry.service, entry.login, entry.password.reveal()))
    return f'[[credential]]\nservice = {service}\nusername = {username}\nscheme = "basic"\npassword = {password}\n'


def _quoted(text: str) -> str:
    """Return a printable text as a basic string of TOML."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _rest(text: bytes, gone: Iterable[Key] = ()) -> Counter[tuple[Key, str]]:
    return Counter((record.key, record.secret.reveal()) for record in parse(text) if record.key not in gone)


def _values(entry: Entry) -> tuple[Key, str]:
    return _key(entry), entry.password.reveal()


def _key(entry: Entry) -> Key:
    return entry.service, entry.login


# ---------------------------------------------------------------------------------------------------------- ledger


def ledger_of(entries: Iterable[Entry], before: Ledger | None = None) -> Ledger:
    """Return a ledger with some records added.

    Args:
        entries: Records that were written or are about to be written.
        before: The previous ledger; by default an empty one.
    """
    ledger = dict(before or {})
    for entry in entries:
        ledger[entry.service] = ledger.get(entry.service, frozenset()) | {entry.digest}
    return ledger


def encode_ledger(ledger: Ledger) -> bytes:
    """Return the text of a ledger. It contains neither secrets nor user names."""
    records: list[Json] = [
        {"service": service, "digests": list[Json](sorted(digests))} for service, digests in sorted(ledger.items())
    ]
    return json.dumps({"version": 2, "records": records}, indent=1).encode() + b"\n"


def decode_ledger(text: bytes) -> Ledger:
    """Return the content of a ledger of version 1 or 2; a damaged ledger is empty."""
    ledger: dict[str, frozenset[str]] = {}
    try:
        document = json.loads(text)
        for raw in document["records"]:
            digests = _version_1(raw) if document["version"] == 1 else raw["digests"]
            ledger[str(raw["service"])] = ledger.get(str(raw["service"]), frozenset()) | {str(one) for one in digests}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}
    return ledger


def _version_1(raw: dict[str, Any]) -> list[str]:
    """Return the digests of a version 1 record, which contains the user name in clear text."""
    return [digest(str(raw["username"]), str(one)) for one in raw["sha256"]]

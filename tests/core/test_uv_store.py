"""Our records in uv's credential store: which records are ours, which conflict, and that nothing else changes."""

from __future__ import annotations

import hashlib
import json
import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uvtokend.core import uv_store
from uvtokend.core.model import Entry, Secret
from uvtokend.core.uv_store import Changes, StoredRecord

ACME, BETA = "https://pkgs.dev.azure.com/acme", "https://pkgs.dev.azure.com/beta"
URL = f"{ACME}/_packaging/platform/pypi/simple/"
TEXT = st.text(st.characters(codec="utf-8", categories=("L", "N", "P", "S")), min_size=1, max_size=12)
SERVICES = st.sampled_from([ACME, BETA, f"{ACME}/_packaging/x", "https://other.example/", "http://127.0.0.1:8080/a"])


def entry(service: str = ACME, token: str = "t", login: str = "VssSessionToken") -> Entry:
    return Entry("pkgs.dev.azure.com", login, Secret(token), service)


def stored(service: str = ACME, token: str = "t", username: str = "VssSessionToken") -> StoredRecord:
    return StoredRecord(service, username, Secret(token))


ENTRIES = st.lists(
    st.builds(entry, SERVICES, TEXT, TEXT), max_size=4, unique_by=lambda entry: (entry.service, entry.login)
)


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("https://X.example", "https://x.example/"),
        ("https://x.example:443/a/", "https://x.example/a/"),
        ("http://localhost:80/a", "http://localhost/a"),
        ("http://127.0.0.1:8080", "http://127.0.0.1:8080/"),
        ("x.example/a", "https://x.example/a"),
        ("https://[::1]:8443/a", "https://[::1]:8443/a"),
    ],
)
def test_a_service_is_written_as_uv_writes_it(written: str, read: str) -> None:
    """The host is in lower case, the default port is omitted, the path has at least a slash, and the default scheme
    is https."""
    assert uv_store.normal(written) == read
    assert uv_store.normal(read) == read


@pytest.mark.parametrize(
    ("service", "url", "yes"),
    [
        (ACME, URL, True),
        (ACME, ACME, True),
        (f"{ACME}/", URL, True),
        (ACME, f"{ACME}corp/x", False),
        (ACME, f"{BETA}/x", False),
        (ACME, URL.replace("https", "http"), False),
        (ACME, URL.replace(".com", ".com:8443"), False),
        ("https://pkgs.dev.azure.com/", URL, True),
    ],
)
def test_a_record_covers_the_urls_below_it(service: str, url: str, yes: bool) -> None:
    """A record covers URLs with the same scheme, host and port whose path begins with its whole segments."""
    assert uv_store.covers(service, url) is yes


def test_only_necessary_changes_are_made() -> None:
    """A record that is already right is not written again, one of ours that is no longer wanted is dropped, and
    foreign ones stay."""
    ledger = uv_store.ledger_of([entry(), entry(BETA), entry(login="old")])
    there = [stored(), stored(BETA), stored(username="old"), stored("https://foreign.example/x", "f")]
    changes = uv_store.changes(there, [entry(), entry("https://new.example/")], ledger, {})
    assert changes == Changes((entry("https://new.example/"),), ((BETA, "VssSessionToken"), (ACME, "old")), {})


def test_a_new_token_replaces_the_old_one_without_a_gap() -> None:
    """A new token replaces the old one in the same record without dropping the record first."""
    assert uv_store.changes([stored()], [entry(token="t2")], uv_store.ledger_of([entry()]), {}) == Changes(
        (entry(token="t2"),), (), {}
    )


@pytest.mark.parametrize(
    ("rival", "hinders"),
    [
        (stored(token="somebody's"), True),
        (stored(username="me"), True),
        (stored(f"{ACME}/", username="me"), True),
        (stored(f"{ACME}/_packaging/platform", username="me"), True),
        (stored(f"{ACME}/_packaging/other", username="me"), False),
        (stored("https://pkgs.dev.azure.com/", username="me"), False),
        (stored(BETA, username="me"), False),
    ],
)
def test_a_conflicting_foreign_record(rival: StoredRecord, hinders: bool) -> None:
    """If a foreign record covers the same URL at least as specifically, uv would not use ours. The foreign record is
    reported, and ours is dropped."""
    changes = uv_store.changes([rival, stored()], [entry(token="t2")], uv_store.ledger_of([entry()]), {ACME: [URL]})
    assert changes.rivals == ({ACME: rival} if hinders else {})
    assert changes.put == (() if hinders else (entry(token="t2"),))
    assert changes.drop == (((ACME, "VssSessionToken"),) if hinders else ())


@pytest.mark.parametrize(
    "text",
    [
        "credential = 1",
        "[[credential]]\nservice = 1",
        "[[credential]]\nservice = 'https://x.example'\npassword = 'p'",
        "[[credential]]\nservice = 'https://x.example'\nscheme = 'bearer'",
        "[[credential]]\nservice = 'https://x.example'\nusername = 'u'\nscheme = 'digest'",
        "credential = [1]",
        "[",
        "\udcff",
    ],
)
def test_a_store_that_uv_cannot_read(text: str) -> None:
    """One invalid record makes uv ignore the whole file, so the file counts as invalid."""
    with pytest.raises(ValueError):  # noqa: PT011 - the message does not matter
        uv_store.parse(text.encode(errors="surrogateescape"))


def test_records_of_every_kind_are_read() -> None:
    """The default scheme is basic, and a bearer token has no user name."""
    text = b"""
[[credential]]
service = "https://A.example"
username = "u"
[[credential]]
service = "https://b.example/x"
scheme = "bearer"
token = "t"
"""
    assert uv_store.parse(text) == (stored("https://a.example/", "", "u"), stored("https://b.example/x", "t", ""))


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("", True),
        ("[[credential]]\nservice = 'https://x.example'\nusername = 'u'\npassword = 'a#b'\n", True),
        ("# mine\n[[credential]]\nservice = 'https://x.example'\nusername = 'u'\n", False),
        ("[[credential]]\nservice = 'https://x.example'\nusername = 'u'\nnote = 'mine'\n", False),
        ("[mine]\na = 1\n", False),
    ],
)
def test_content_that_uv_would_drop_is_detected(text: str, kept: bool) -> None:
    """uv rewrites the file from the keys it knows, so comments and other keys would be lost."""
    assert uv_store.kept_by_uv(text.encode()) is kept


def test_an_edit_keeps_foreign_text_byte_for_byte() -> None:
    """Comments, blank lines and unusual spellings of foreign records stay; only our records are added, replaced or
    removed."""
    foreign = b"# mine\n[[credential]] # the first\nservice='https://f.example' # f\nusername = 'f'\npassword = '#'\n"
    with_ours = uv_store.edited(foreign, [entry(), entry(BETA)], [])
    assert with_ours.startswith(foreign)
    assert uv_store.edited(with_ours, [], [(ACME, "VssSessionToken"), (BETA, "VssSessionToken")]) == foreign + b"\n"
    newer = uv_store.edited(with_ours, [entry(token='new"\\')], [(BETA, "VssSessionToken")])
    assert newer.startswith(foreign)
    assert {record.secret.reveal() for record in uv_store.parse(newer)} == {"#", 'new"\\'}


def test_a_record_is_removed_with_one_blank_line() -> None:
    """Removing a record also removes the blank line below it, but no foreign line that follows directly."""
    record = uv_store.edited(b"", [entry()], [])
    drop = [(ACME, "VssSessionToken")]
    assert uv_store.edited(record, [], drop) == b""
    assert uv_store.edited(record + b"# mine\n", [], drop) == b"# mine\n"
    assert uv_store.edited(record + b"\n# mine\n", [], drop) == b"# mine\n"
    assert uv_store.edited(record + b"\n\n# mine\n", [], drop) == b"\n# mine\n"


def test_an_empty_list_of_uv_is_replaced() -> None:
    """After its last record uv writes ``credential = []``, which excludes tables, so the edit replaces it."""
    assert len(uv_store.parse(uv_store.edited(b"credential = []\n", [entry()], []))) == 1


def test_a_record_of_ours_with_a_foreign_comment_is_not_edited() -> None:
    """If our record contains a foreign comment, removing the record would lose it, so the edit is refused."""
    text = uv_store.edited(b"", [entry()], []).replace(b"username", b"# mine\nusername")
    with pytest.raises(ValueError):  # noqa: PT011 - the message does not matter
        uv_store.edited(text, [], [(ACME, "VssSessionToken")])
    odd = b"[[credential]]\nservice = '''\n"
    with pytest.raises(ValueError):  # noqa: PT011 - the message does not matter
        uv_store.edited(odd, [entry()], [])


@given(ENTRIES, ENTRIES)
def test_an_edit_writes_exactly_the_wanted_records(before: list[Entry], put: list[Entry]) -> None:
    """After an edit, Python's TOML parser reads exactly the new records and the previous ones that were not
    replaced."""
    text = uv_store.edited(uv_store.edited(b"", before, []), put, [])
    wanted = {(one.service, one.login): one.password.reveal() for one in [*before, *put]}
    records = tomllib.loads(text.decode()).get("credential", [])
    assert {(raw["service"], raw["username"]): raw["password"] for raw in records} == wanted
    assert len(records) == len(wanted)
    assert uv_store.edited(text, [], wanted) == b""


@given(ENTRIES, ENTRIES, ENTRIES)
def test_applying_the_changes_leaves_nothing_to_do(theirs: list[Entry], ours: list[Entry], wanted: list[Entry]) -> None:
    """Applying the changes keeps foreign records, and a second run has nothing to change."""
    there = {(one.service, one.login): one for one in [*theirs, *ours]}
    text = uv_store.edited(b"", there.values(), [])
    ledger = uv_store.ledger_of(ours)
    wanted = list({one.service: one for one in wanted}.values())
    changes = uv_store.changes(uv_store.parse(text), wanted, ledger, {})
    after = uv_store.parse(uv_store.edited(text, changes.put, changes.drop))
    again = uv_store.changes(after, wanted, uv_store.ledger_of(changes.put, ledger), {})
    assert (again.put, again.drop) == ((), ())
    foreign = [record for record in uv_store.parse(text) if there[record.key] not in ours]
    assert set(foreign) <= set(after)


@given(ENTRIES)
def test_the_ledger_survives_its_file_without_secrets(entries: list[Entry]) -> None:
    """The ledger is read back unchanged, and its file contains no token."""
    secret = Entry("h", "u", Secret("a-canary-of-ours"), ACME)
    text = uv_store.encode_ledger(uv_store.ledger_of([*entries, secret]))
    assert uv_store.decode_ledger(text) == uv_store.ledger_of([*entries, secret])
    assert b"canary" not in text


@pytest.mark.parametrize(
    "text", [b"", b"[]", b"{}", b'{"records": [1]}', b'{"records": [{"service": 1}]}', b"[" * 9999]
)
def test_an_invalid_ledger_is_empty(text: bytes) -> None:
    """Any program may have written the ledger, so invalid content is treated as an empty ledger."""
    assert uv_store.decode_ledger(text) == {}


def test_a_ledger_names_its_version() -> None:
    """The ledger contains the version of its format, so that a later version of uvtokend can read it."""
    assert json.loads(uv_store.encode_ledger({"s": frozenset({"b", "a"})})) == {
        "version": 2,
        "records": [{"service": "s", "digests": ["a", "b"]}],
    }


@pytest.mark.parametrize(("text", "glue"), [("", ""), ("# mine", "\n\n"), ("# mine\n", "\n"), ("# mine\n\n", "\n")])
def test_a_new_record_stands_below_a_blank_line(text: str, glue: str) -> None:
    """uvtokend puts a blank line above a new record, unless the file ends with one or is empty."""
    record = f'[[credential]]\nservice = "{ACME}"\nusername = "u"\nscheme = "basic"\npassword = "p"\n'
    new = uv_store.edited(text.encode(), [Entry("h", "u", Secret("p"), ACME)], [])
    assert new.decode() == text + glue + record
    assert uv_store.edited(new, [], [(ACME, "u")]).decode() == (text + glue if text else "")


def test_a_ledger_of_version_1_is_still_read() -> None:
    """The plain user names of version 1 are converted to digests. An unknown version is treated as empty."""
    sha256 = hashlib.sha256(b"t0").hexdigest()
    record = {"service": "https://a.example/", "username": "me", "sha256": [sha256]}
    text = json.dumps({"version": 1, "records": [record, {**record, "username": "you"}]}).encode()
    entries = [Entry("a.example", login, Secret("t0"), "https://a.example/") for login in ("me", "you")]
    assert uv_store.decode_ledger(text) == uv_store.ledger_of(entries)
    assert uv_store.decode_ledger(text.replace(b'"version": 1', b'"version": 9')) == {}


def test_a_record_with_every_key_that_uv_knows_is_kept_by_uv() -> None:
    """uv keeps a record with all keys it knows, and would drop any other key."""
    keys = ("service", "username", "scheme", "password", "token")
    record = "[[credential]]\n" + "".join(f'{key} = "x"\n' for key in keys)
    assert uv_store.kept_by_uv(record.encode())
    assert not uv_store.kept_by_uv(f'{record}more = "x"\n'.encode())

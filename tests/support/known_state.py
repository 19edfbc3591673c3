"""A state with one delivered token, for the tests of the state file and of its JSON."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from uvtokend.core import state
from uvtokend.core.model import Credential, Entry, Request, Secret
from uvtokend.core.state import Boot, Netrc, State

NOW = datetime(2026, 1, 31, 8, tzinfo=UTC)
HOUR = timedelta(hours=1)
REQUEST = Request("static", options=(("username", "me"),))
TOKEN = Credential("me", Secret("hunter2"), NOW, NOW + HOUR, NOW + HOUR / 3, "me@example.com", wall_end=NOW + HOUR)
RECORD = state.record(REQUEST, TOKEN, NOW + HOUR / 2, ("a.example", "b.example"))
ENTRY = Entry("b.example", "me", Secret("hunter2"))
NETRC = Netrc("/etc/config.toml", created=True, delivered={"a.example": (ENTRY.digest,), "b.example": (ENTRY.digest,)})
STATE = State((RECORD,), {"/home/me/.netrc": NETRC}, ("/home/me/credentials.toml",), Boot("b", NOW))

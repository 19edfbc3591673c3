"""A loopback GitLab: the token endpoints of its API, and whether its package registry accepts a login and a token.

Sources, in GitLab's own repository: ``lib/api/personal_access_tokens/self_information.rb``, ``self_rotation.rb``
(the endpoints and their scopes), ``lib/api/api_guard.rb`` (refusals), ``lib/gitlab/auth/auth_finders.rb`` (only a
rotation request revokes the family of a revoked token), ``app/services/personal_access_tokens/rotate_service.rb``,
and the documentation "Personal access tokens API" and "PyPI packages in the package registry". No response of a real
server was recorded. Responses without evidence say so.
"""

from __future__ import annotations

import json
import secrets
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from email.utils import formatdate

from uvtokend.sandbox.web import Answer, Call, Server

#: The stages of a rotation: ``arrived`` (the server has the request) and ``burnt`` (the old token is revoked).
Stage = str
Fault = Callable[[Call], Answer | None]

SELF = "/api/v4/personal_access_tokens/self"
ROTATE = f"{SELF}/rotate"
#: The scopes that a token needs to install packages and to rotate itself.
SCOPES = ("read_api", "self_rotate")


@dataclass(frozen=True, slots=True)
class Token:
    """A personal, group or project access token.

    Args:
        id: Its number.
        name: The name that its owner gave it.
        scopes: Its scopes.
        created: When it was created.
        expires: The day on whose first moment, UTC, it expires; None if never.
        previous: The number of the token that it replaces; None for the first of a family.
        revoked: Whether it was revoked.
    """

    id: int
    name: str
    scopes: tuple[str, ...]
    created: datetime
    expires: date | None
    previous: int | None = None
    revoked: bool = False


class GitLab:
    """The emulator; a context manager.

    Args:
        fault: Called first for every request; if it returns a response, that is sent.

    Attributes:
        url: The base URL.
        deploy: Deploy tokens: token -> its user name and scopes.
        jobs: The tokens of running CI jobs.
        longest: Days that a token may be valid; 365 by default ("Access token expiration").
        rotated: The number of rotations.
        clock_ahead: Seconds by which the server's clock is ahead of ours.
        stage: Called during a rotation, with ``arrived`` and with ``burnt``.
    """

    def __init__(self, fault: Fault | None = None) -> None:
        self.fault = fault
        self.deploy: dict[str, tuple[str, tuple[str, ...]]] = {}
        self.jobs: set[str] = set()
        self.longest = 365
        self.rotated = 0
        self.clock_ahead = 0.0
        self.stage: Callable[[Stage], None] = lambda _: None
        self._tokens: dict[str, Token] = {}
        self._lock = threading.Lock()
        self.server = Server(self._answer)
        self.url = self.server.url

    def personal(self, scopes: Iterable[str] = SCOPES, days: float | None = 90, age: float = 0) -> str:
        """Create a token, as a user does in the user settings.

        Args:
            scopes: Its scopes.
            days: How many days it is valid in total; None for no limit.
            age: How many days ago it was created.
        """
        created = self._now() - timedelta(days=age)
        expires = None if days is None else (created + timedelta(days=days)).date()
        return self._create(Token(len(self._tokens) + 1, "laptop", tuple(scopes), created, expires))

    def valid(self, login: str, token: str) -> bool:
        """Return whether the package registry lets a login and a token install packages.

        The login of a personal access token is ignored, but a job's is not (``auth_finders.rb``);
        that of a deploy token must be its own (documentation).
        """
        return self._allows(login, token, {"api", "read_api"}, {"read_package_registry", "write_package_registry"})

    def publishes(self, login: str, token: str) -> bool:
        """Return whether the package registry lets a login and a token publish packages (documentation)."""
        return self._allows(login, token, {"api"}, {"write_package_registry"})

    def active(self, token: str) -> bool:
        """Return whether a personal access token is neither expired nor revoked."""
        known = self._tokens.get(token)
        return known is not None and not known.revoked and not self._expired(known)

    def expires(self, token: str) -> date | None:
        """Return when a personal access token expires."""
        return self._tokens[token].expires

    def today(self) -> date:
        """Return the date on the server's clock, UTC."""
        return self._now().date()

    def issued(self) -> list[str]:
        """Return every token that is or was valid, to check whether one leaked."""
        return [*self._tokens, *self.deploy, *self.jobs]

    def revoke(self, token: str) -> None:
        """Revoke a personal access token, as a user does in the user settings."""
        self._tokens[token] = replace(self._tokens[token], revoked=True)

    def close(self) -> None:
        """Stop."""
        self.server.close()

    def __enter__(self) -> GitLab:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _create(self, token: Token) -> str:
        text = f"glpat-{secrets.token_urlsafe(15)}"
        self._tokens[text] = token
        return text

    def _allows(self, login: str, token: str, personal: set[str], deploy: set[str]) -> bool:
        if login == "gitlab-ci-token":
            return token in self.jobs
        if token in self.deploy:
            name, scopes = self.deploy[token]
            return login == name and bool(deploy & {*scopes})
        return login != "" and self.active(token) and bool(personal & {*self._tokens[token].scopes})

    def _answer(self, call: Call) -> Answer:
        fault = self.fault  # another thread may remove it at any moment
        answer = fault(call) if fault is not None else None
        if answer is None and (call.method, call.path) in {("GET", SELF), ("POST", ROTATE)}:
            answer = self._about(call) if call.path == SELF else self._rotate(call)
        answer = answer or Answer.json({"error": "404 Not Found"}, 404)
        date_header = {"Date": formatdate(self._now().timestamp(), usegmt=True)}
        return Answer(answer.status, answer.body, {**date_header, **answer.headers})

    def _about(self, call: Call) -> Answer:
        text = call.headers.get("PRIVATE-TOKEN") or ""
        with self._lock:
            return self._refusal(text) or Answer.json(self._shown(self._tokens[text]))

    def _rotate(self, call: Call) -> Answer:
        text = call.headers.get("PRIVATE-TOKEN") or ""
        asked = json.loads(call.body)
        self.stage("arrived")
        with self._lock:
            old = self._tokens.get(text)
            if old is not None and old.revoked:
                self._revoke_family(old)  # "Automatic reuse detection"
            refusal = self._refusal(text)
            if refusal is not None or old is None:
                return refusal or Answer(500)
            if not {"api", "self_rotate"} & {*old.scopes}:
                return insufficient_scope("api self_rotate")
            today = self.today()
            until = date.fromisoformat(asked["expires_at"]) if "expires_at" in asked else today + timedelta(days=7)
            if not today < until <= today + timedelta(days=self.longest):
                # Status: documentation; text: no evidence.
                return Answer.json({"message": f"400 Bad request - Expiration date must be before {until}"}, 400)
            self.revoke(text)
            self.rotated += 1
            new = replace(old, id=len(self._tokens) + 1, created=self._now(), expires=until, previous=old.id)
            token = self._create(new)
        self.stage("burnt")
        return Answer.json({**self._shown(new), "token": token})  # 200: documentation; Grape's default for POST is 201

    def _refusal(self, text: str) -> Answer | None:
        token = self._tokens.get(text)
        if token is None:
            return Answer.json({"message": "401 Unauthorized"}, 401)
        if token.revoked:
            return invalid_token("Token was revoked. You have to re-authorize from the user.")
        if self._expired(token):
            return invalid_token("Token is expired. You can either do re-authorization or token refresh.")
        return None

    def _revoke_family(self, token: Token) -> None:
        family, grown = {token.id}, True
        while grown:
            more = {other.id for other in self._tokens.values() if other.previous in family}
            grown = not more <= family
            family |= more
        for text, other in list(self._tokens.items()):
            if other.id in family:
                self.revoke(text)

    def _shown(self, token: Token) -> dict[str, object]:
        # Members: the example on "Personal access tokens API".
        return {
            "id": token.id,
            "name": token.name,
            "revoked": token.revoked,
            "created_at": f"{token.created:%Y-%m-%dT%H:%M:%S.000Z}",
            "description": None,
            "scopes": list(token.scopes),
            "user_id": 1337,
            "last_used_at": None,
            "active": not token.revoked,
            "expires_at": None if token.expires is None else token.expires.isoformat(),
        }

    def _expired(self, token: Token) -> bool:
        return token.expires is not None and token.expires <= self.today()

    def _now(self) -> datetime:
        return datetime.fromtimestamp(time.time() + self.clock_ahead, UTC)


def invalid_token(description: str) -> Answer:
    """Return the refusal of a known token (``api_guard.rb``)."""
    return Answer.json({"error": "invalid_token", "error_description": description}, 401)


def insufficient_scope(scopes: str) -> Answer:
    """Return the refusal of a token with insufficient scopes (``api_guard.rb``)."""
    text = "The request requires higher privileges than provided by the access token."
    return Answer.json({"error": "insufficient_scope", "error_description": text, "scope": scopes}, 403)

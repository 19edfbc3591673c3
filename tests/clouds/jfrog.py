"""A loopback JFrog platform: the part of its Access API that refreshes and exchanges tokens.

Each response names where it was seen or documented; responses without evidence say so.
"""

from __future__ import annotations

import base64
import json
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from email.utils import formatdate

from uvtokend.sandbox.web import Answer, Call, Server

#: The stages of a refresh: ``arrived`` (the server has the request) and ``burnt`` (the old refresh token is used up).
Stage = str
Fault = Callable[[Call], Answer | None]

TOKENS = "/access/api/v1/tokens"
OIDC = "/access/api/v1/oidc/token"
_GRANT = "urn:ietf:params:oauth:grant-type:token-exchange"
_SUBJECT = "urn:ietf:params:oauth:token-type:id_token"


@dataclass(slots=True)
class _Access:
    user: str
    ends: float | None


class JFrog:
    """The emulator; a context manager.

    Args:
        life: Seconds that an access token is valid; None: without end.
        fault: Called first for every request; if it returns a response, that is sent.

    Attributes:
        url: The platform's base URL.
        passwords: User -> password.
        subjects: OIDC token -> the user of its identity mapping; all belong to the integration ``ci``.
        projects: OIDC token -> the project that the exchange must name, if its mapping belongs to a project.
        refreshed: How many refresh tokens were used up.
        wants_proof: Whether a refresh needs a valid access token of the same user ("Refresh Token", JFrog's REST API).
        grace: Seconds for which an expired one still works (same page, ``refresh-expiry``).
        replaces: Whether a refresh revokes the old access token (README of vault-plugin-secrets-artifactory; when
            exactly is unknown, so the hardest case is the default).
        tells_life: Whether responses have ``expires_in`` (optional on the same page).
        reference: Whether access tokens are reference tokens, which contain no claims.
        successor: Whether a refresh returns a new refresh token.
        clock_ahead: Seconds by which the platform's clock is ahead of ours.
        stage: Called during a refresh, with ``arrived`` and with ``burnt``.
    """

    def __init__(self, life: float | None = 3600.0, fault: Fault | None = None) -> None:
        self.life = life
        self.fault = fault
        self.passwords: dict[str, str] = {}
        self.subjects: dict[str, str] = {}
        self.projects: dict[str, str] = {}
        self.refreshed = 0
        self.wants_proof = True
        self.grace = 0.0
        self.replaces = True
        self.tells_life = True
        self.reference = False
        self.successor = True
        self.clock_ahead = 0.0
        self.stage: Callable[[Stage], None] = lambda _: None
        self._access: dict[str, _Access] = {}
        self._refresh: dict[str, tuple[str, str]] = {}  # valid refresh token -> (user, its access token)
        self._lock = threading.Lock()
        self.server = Server(self._answer)
        self.url = self.server.url

    def pair(self, user: str = "person") -> tuple[str, str]:
        """Create an access token and its refresh token, as ``jf access-token-create --refreshable`` does."""
        with self._lock:
            access, refresh = self._issue(user), secrets.token_hex(18)
            self._refresh[refresh] = (user, access)
            return access, refresh

    def valid(self, login: str, token: str) -> bool:
        """Return whether Artifactory accepts a login and a token or password now; a token's login may be empty."""
        known = self._access.get(token)
        if known is not None:
            return login in {"", known.user} and (known.ends is None or known.ends > self._now())
        return login != "" and self.passwords.get(login) == token

    def alive(self, refresh: str) -> bool:
        """Return whether a refresh token can be used."""
        return refresh in self._refresh

    def revoke(self, token: str) -> None:
        """Revoke an access token or a refresh token."""
        self._access.pop(token, None)
        self._refresh.pop(token, None)

    def issued(self) -> list[str]:
        """Return every token that is or was valid, to check whether one leaked."""
        return [*self._access, *self._refresh]

    def close(self) -> None:
        """Stop."""
        self.server.close()

    def __enter__(self) -> JFrog:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _answer(self, call: Call) -> Answer:
        fault = self.fault  # another thread may remove it at any moment
        broken = fault(call) if fault is not None else None
        if broken is None and call.method == "POST" and call.path == TOKENS:
            broken = self._refreshed(call)
        if broken is None and call.method == "POST" and call.path == OIDC:
            broken = self._exchanged(call)
        answer = broken or access_error(404, "NOT_FOUND", "Not found")  # no evidence for other paths
        return Answer(answer.status, answer.body, {"Date": formatdate(self._now(), usegmt=True), **answer.headers})

    def _refreshed(self, call: Call) -> Answer:
        """Answer a refresh, sent as JSON or as a form ("Refresh Token" of JFrog's REST API;
        jfrog-client-go sends JSON).
        """
        is_json = (call.headers.get("Content-Type") or "").startswith("application/json")
        asked = json.loads(call.body) if is_json else call.form()
        self.stage("arrived")
        if asked.get("grant_type") != "refresh_token":
            return access_error(400, "BAD_REQUEST", "Unsupported grant type")  # no evidence
        with self._lock:
            refused = self._unproven(call, str(asked.get("refresh_token")))
            if refused is not None:
                return refused
            user, old = self._refresh.pop(str(asked["refresh_token"]))
            self.refreshed += 1
            if self.replaces:
                self._access.pop(old, None)
            access, refresh = self._issue(user), secrets.token_hex(18)
            if self.successor:
                self._refresh[refresh] = (user, access)
        self.stage("burnt")
        # Members: "Create Token" of JFrog's REST API; both tokens are new, as in jfrog-client-go's test of a refresh.
        more = {"refresh_token": refresh} if self.successor else {}
        return self._token(access, "applied-permissions/user", **more)

    def _unproven(self, call: Call, refresh: str) -> Answer | None:
        scheme, _, proof = (call.headers.get("Authorization") or "").partition(" ")
        known = self._access.get(proof) if scheme == "Bearer" else None
        if known is None and (scheme or self.wants_proof):
            # Artifactory's text (puppet-archive issue 489) in the form of Access; no evidence for Access itself.
            return access_error(401, "UNAUTHORIZED", "Authentication is required")
        if known is not None and known.ends is not None and known.ends + self.grace <= self._now():
            return access_error(401, "UNAUTHORIZED", "Invalid token, expired")  # vault-plugin-secrets-artifactory
        owner = self._refresh.get(refresh)
        if owner is None:
            # jfrog-cli issue 2490
            return access_error(404, "NOT_FOUND", "Token matching the provided refresh token was not found.")
        if known is not None and known.user != owner[0]:  # "the authenticated user must match" (same page)
            return access_error(403, "FORBIDDEN", "Forbidden")
        return None

    def _exchanged(self, call: Call) -> Answer:
        """Exchange an OIDC token (jfrog-client-go ``access/services/oidctoken.go``; no evidence for refusals)."""
        asked = json.loads(call.body)
        if (asked.get("grant_type"), asked.get("subject_token_type")) != (_GRANT, _SUBJECT):
            return access_error(400, "BAD_REQUEST", "Unsupported grant type")
        if asked.get("provider_name") != "ci":
            return access_error(404, "NOT_FOUND", "Provider not found")
        user = self.subjects.get(str(asked.get("subject_token")))
        if user is None or asked.get("project_key") != self.projects.get(
            str(asked["subject_token"]), asked.get("project_key")
        ):
            return access_error(401, "UNAUTHORIZED", "No identity mapping")
        with self._lock:
            access = self._issue(user)
        kind = "urn:ietf:params:oauth:token-type:access_token"
        return self._token(access, "applied-permissions/user", issued_token_type=kind, username=user)

    def _token(self, access: str, scope: str, **more: str) -> Answer:
        life = {"expires_in": int(self.life)} if self.tells_life and self.life is not None else {}
        body = {"token_id": secrets.token_hex(16), "access_token": access, **life, "scope": scope}
        return Answer.json({**body, "token_type": "Bearer", **more})

    def _issue(self, user: str) -> str:
        ends = None if self.life is None else self._now() + self.life
        token = reference() if self.reference else jwt(user, self._now(), ends)
        self._access[token] = _Access(user, ends)
        return token

    def _now(self) -> float:
        return time.time() + self.clock_ahead


def access_error(status: int, code: str, message: str) -> Answer:
    """Return an error of the Access API, in the form of jfrog-cli issue 2490."""
    return Answer.json({"errors": [{"code": code, "message": message}]}, status)


def artifactory_error(status: int, message: str) -> Answer:
    """Return an error of Artifactory, in the form of puppet-archive issue 489 and logs of npm, wget and curl."""
    return Answer.json({"errors": [{"status": status, "message": message}]}, status)


def jwt(user: str, issued: float, ends: float | None) -> str:
    """Return an access token; header, ``sub`` and times as in the tests of vault-plugin-secrets-artifactory."""
    head = {"ver": "2", "typ": "JWT", "alg": "RS256", "kid": secrets.token_urlsafe(32)}
    claims = {
        "sub": f"jfac@{secrets.token_hex(13)}/users/{user}",
        "scp": "applied-permissions/user",
        "iat": int(issued),
    }
    end = {} if ends is None else {"exp": int(ends)}
    parts = [json.dumps(head).encode(), json.dumps({**claims, **end}).encode(), secrets.token_bytes(256)]
    return ".".join(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts)


def reference() -> str:
    """Return a reference token: 64 characters that start with the base64 of ``reftkn`` (public logs)."""
    return base64.b64encode(b"reftkn:01:" + secrets.token_hex(19).encode()).decode()

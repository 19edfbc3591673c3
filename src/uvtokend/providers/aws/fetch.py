"""aws-codeartifact: an authorization token of CodeArtifact for the login ``aws``, through botocore's own chain.

Profiles, SSO sessions, assumed roles, web identity, container and instance credentials and ``credential_process`` are
all botocore's business. Ours are time limits, prompts that must not hang, and saying what a person can do.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NoReturn

import boto3
from botocore import exceptions as raised
from botocore.config import Config
from botocore.session import Session
from botocore.utils import JSONFileCache

from uvtokend.core.clouds.aws import AWS
from uvtokend.plugin import Credential, FetchFailed, Request, Secret, parse_http_date, quiet, skew, transient
from uvtokend.providers.aws import failures
from uvtokend.providers.aws.sign_in import Login, find_login

#: Two attempts of 5 + 15 s fit into a minute, also where a role is assumed before.
_CONFIG = Config(connect_timeout=5, read_timeout=15, retries={"mode": "standard", "total_max_attempts": 2})
#: Who we are is nice to know, no more.
_BRIEF = Config(connect_timeout=3, read_timeout=3, retries={"mode": "standard", "total_max_attempts": 1})
_ROLE_SESSION = "uvtokend"
_KEYS = ("AccessKeyId", "SecretAccessKey", "SessionToken", "Expiration")


@quiet
def fetch(request: Request) -> Credential:
    """Get an authorization token (CodeArtifact API, GetAuthorizationToken).

    Args:
        request: Its options: ``domain``, ``domain-owner`` and ``region``; ``profile``, ``role-arn`` and ``duration``
            (seconds) where given.

    Raises:
        FetchFailed: With a failure that says what mends it.
    """
    one = _Fetch(request)
    try:
        return one.run()
    except FetchFailed:
        raise
    except Exception as error:  # noqa: BLE001 - botocore's, and the builtins that it lets out
        raise FetchFailed(failures.classify(error, one.login, one.renewal)) from None


class _Fetch:
    """One fetch, and what is learnt on the way.

    Attributes:
        login: How the profile is logged in to.
        renewal: What SSO answered when it was asked to renew the session, as botocore parsed it.
    """

    def __init__(self, request: Request) -> None:
        self._options = {key: str(value) for key, value in request.options if value is not None}
        self._env = dict(request.env)
        self.login = Login(self._options.get("profile"))
        self.renewal: dict[str, Any] | None = None
        self._role: str | None = None

    def run(self) -> Credential:
        session = self._session()
        self._log_in(session)
        if role := self._options.get("role-arn"):
            session = self._assume(session, role)
        client = session.client("codeartifact")
        wanted: dict[str, Any] = {"domain": self._options["domain"], "domainOwner": self._options["domain-owner"]}
        if "duration" in self._options:
            wanted["durationSeconds"] = int(self._options["duration"])
        found = _read(_ask(client.get_authorization_token, **wanted))
        return replace(found, identity=self._role or _identity(session))

    def _session(self) -> boto3.Session:
        core, profile = Session(), self._options.get("profile")
        core.set_default_client_config(_CONFIG)
        core.register("after-call.sts", self._see_role)
        core.register("after-call.sso-oidc", self._see_renewal)
        if profile is not None:
            core.set_config_variable("profile", profile)
        keys = profile is None and "AWS_ACCESS_KEY_ID" in os.environ  # botocore looks for them only then
        self.login = find_login(core.profile, keys, core.full_config, self._env)
        session = boto3.Session(botocore_session=core, region_name=self._options["region"])
        _no_prompts(core)
        return session

    def _log_in(self, session: boto3.Session) -> None:
        """Let botocore's chain find the keys, so that a helper's odd answer is not taken for one of CodeArtifact's."""
        try:
            found = session.get_credentials()
            if found is None:
                raise raised.NoCredentialsError
            found.get_frozen_credentials()
        except (KeyError, TypeError, AttributeError):
            raise FetchFailed(failures.garbled(self.login, self.renewal)) from None

    def _assume(self, session: boto3.Session, role: str) -> boto3.Session:
        """Take on a role on top of whoever the chain says that we are (STS API, AssumeRole)."""
        keys = _ask(session.client("sts").assume_role, RoleArn=role, RoleSessionName=_ROLE_SESSION)["Credentials"]
        core = Session()
        core.set_default_client_config(_CONFIG)
        core.set_credentials(keys["AccessKeyId"], keys["SecretAccessKey"], keys["SessionToken"])
        return boto3.Session(botocore_session=core, region_name=self._options["region"])

    def _see_role(self, **event: Any) -> None:
        """Remember the role that STS gave us: it need not be asked who we are."""
        self._role = event["parsed"].get("AssumedRoleUser", {}).get("Arn") or self._role

    def _see_renewal(self, **event: Any) -> None:
        """Remember how SSO answered to a renewal: botocore says that the session has expired, whatever the reason."""
        self.renewal = event["parsed"]


def _ask(call: Callable[..., Any], **wanted: Any) -> dict[str, Any]:
    """Call an API. botocore's parsers raise builtins where the answer does not have the form of the API's model."""
    try:
        return dict(call(**wanted))
    except raised.BotoCoreError:  # some are a ValueError too
        raise
    except (KeyError, TypeError, ValueError, AttributeError):
        raise FetchFailed(failures.PORTAL) from None


def _no_prompts(core: Session) -> None:
    """Let a role that needs MFA use the session that the aws command cached, and fail where it would ask a person.

    These are botocore's own attributes; where they are gone, its prompt ends at once, since there is no terminal.
    """
    with contextlib.suppress(Exception):
        provider = core.get_component("credential_provider").get_provider("assume-role")
        provider.cache = _AwsCliCache(str(Path("~/.aws/cli/cache").expanduser()))
        provider._prompter = _refuse


class _AwsCliCache(JSONFileCache):
    """The role sessions that the aws command keeps. Only read: we put no keys on disk. Broken ones do not exist."""

    def __contains__(self, key: str) -> bool:
        with contextlib.suppress(KeyError, TypeError):
            keys = self[key]["Credentials"]
            return all(isinstance(keys[name], str) for name in _KEYS)
        return False

    def __setitem__(self, key: str, value: object) -> None:
        """Keep nothing."""


def _refuse(_: str = "") -> NoReturn:
    raise EOFError


def _read(answer: dict[str, Any]) -> Credential:
    """Return the credential of an answer, with its times on this machine's clock.

    AWS allows some minutes of difference between the clocks; the answer's own ``Date`` takes them out.
    """
    token, end, now = answer.get("authorizationToken"), answer.get("expiration"), datetime.now(UTC)
    if not isinstance(token, str) or not token.strip() or not isinstance(end, datetime):
        raise FetchFailed(failures.PORTAL)
    theirs = parse_http_date(answer["ResponseMetadata"]["HTTPHeaders"].get("date"))
    ahead = skew(theirs, now)
    ours = timedelta(seconds=ahead or 0.0)
    ends = end.astimezone(UTC) + ours
    if ends <= now:
        raise transient("expired-on-arrival", "CodeArtifact gave a token that has already expired.")
    issued = _issued(token)
    return Credential(AWS.login, Secret(token), min(issued + ours, now) if issued else now, ends, skew=ahead)


def _issued(token: str) -> datetime | None:
    """Return when a token was issued: the first segment of the JWE is plain JSON with ``isu`` and ``exp``."""
    try:
        segment = token.partition(".")[0]
        header = json.loads(base64.urlsafe_b64decode(segment + "=" * (-len(segment) % 4)))
        return datetime.fromtimestamp(header["isu"], UTC)
    except (ValueError, KeyError, TypeError, OverflowError, OSError):
        return None


def _identity(session: boto3.Session) -> str | None:
    """Return the ARN of the caller (STS API, GetCallerIdentity), if it is quickly told."""
    with contextlib.suppress(Exception):
        return str(session.client("sts", config=_BRIEF).get_caller_identity()["Arn"])
    return None

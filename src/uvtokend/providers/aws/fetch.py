"""aws-codeartifact: fetch an authorization token of CodeArtifact for the login ``aws``, with botocore's own chain.

botocore handles profiles, SSO sessions, assumed roles, web identity, container and instance credentials and
``credential_process``. This module adds time limits, prevents prompts, and tells a person what to do.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import os
import threading
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

from uvtokend.core.clouds.aws_codeartifact import CLOUD
from uvtokend.plugin import Credential, FetchFailed, Request, Secret, SignInEnd, parse_http_date, quiet, skew, transient
from uvtokend.providers.aws import failures
from uvtokend.providers.aws.sign_in import ProfileSignIn, find_sign_in, sso_end
from uvtokend.providers.kit import trust

#: Two attempts of 5 + 15 s fit into a minute, even if a role is assumed first.
_CONFIG = Config(connect_timeout=5, read_timeout=15, retries={"mode": "standard", "total_max_attempts": 2})
#: Seconds that a token waits for the name of its identity, which is only displayed.
_PATIENCE = 2.0
_BRIEF = Config(connect_timeout=3, read_timeout=3, retries={"mode": "standard", "total_max_attempts": 1})
_ROLE_SESSION = "uvtokend"
_KEYS = ("AccessKeyId", "SecretAccessKey", "SessionToken", "Expiration")


@quiet
def fetch(request: Request) -> Credential:
    """Get an authorization token (CodeArtifact API, GetAuthorizationToken).

    Args:
        request: Its options: ``domain``, ``domain-owner`` and ``region``; ``profile``, ``role-arn`` and ``duration``
            (seconds) are optional.

    Raises:
        FetchFailed: With the fix.
    """
    one = _AwsFetch(request)
    try:
        return one.run()
    except FetchFailed:
        raise
    except Exception as error:  # noqa: BLE001 - botocore's, and the builtins that escape from it
        raise FetchFailed(failures.classify(error, one.sign_in, one.renewal)) from None


class _AwsFetch:
    """One fetch, with the facts for a failure message.

    Attributes:
        sign_in: How a person signs in to the profile.
        renewal: The response of SSO to the renewal of the session, as botocore parsed it.
    """

    def __init__(self, request: Request) -> None:
        self._options = {key: str(value) for key, value in request.options if value is not None}
        self._env = dict(request.env)
        self.sign_in = ProfileSignIn(self._options.get("profile"))
        self.renewal: dict[str, Any] | None = None
        self._role: str | None = None
        self._config = _CONFIG

    def run(self) -> Credential:
        if (certificate := trust.client_certificate()) is not None:
            proxies: Any = {"proxy_client_cert": certificate, "proxy_ca_bundle": trust.ca_bundle(failures.CA_VARIABLES)}
            self._config = _CONFIG.merge(Config(client_cert=certificate, proxies_config=proxies))
        session = self._session()
        self._use_keys(session)
        if role := self._options.get("role-arn"):
            session = self._assume(session, role)
        client = session.client("codeartifact")
        wanted: dict[str, Any] = {"domain": self._options["domain"], "domainOwner": self._options["domain-owner"]}
        if "duration" in self._options:
            wanted["durationSeconds"] = int(self._options["duration"])
        caller = _Caller(session) if self._role is None else None
        credential = _read(_ask(client.get_authorization_token, **wanted))
        identity = self._role or (caller.arn() if caller else None)
        return replace(credential, identity=identity, sign_in_end=self._sign_in_end())

    def _sign_in_end(self) -> SignInEnd | None:
        """Return the end of the sign-in if its files tell: of temporary keys, or of an SSO session that cannot be
        renewed.

        botocore names the cache of an SSO session after the SHA-1 of its name or start URL (``tokens.py``).
        """
        sign_in = self.sign_in
        end, name = sign_in.ends, "the temporary keys"
        if sign_in.kind == "sso":
            digest = hashlib.sha1(sign_in.session.encode(), usedforsecurity=False).hexdigest()
            file = Path(f"~/.aws/sso/cache/{digest}.json").expanduser()
            end, name = sso_end(file.read_bytes() if file.is_file() else b""), "the AWS SSO session"
        return SignInEnd(f"{name} of {sign_in.name}", end, sign_in.command) if end is not None else None

    def _session(self) -> boto3.Session:
        profile = self._options.get("profile")
        core = Session(profile=profile)
        core.set_default_client_config(self._config)
        core.register("after-call.sts", self._see_role)
        core.register("after-call.sso-oidc", self._see_renewal)
        keys = profile is None and "AWS_ACCESS_KEY_ID" in os.environ  # botocore looks for the keys only then
        self.sign_in = find_sign_in(core.profile, keys, core.full_config, self._env)
        session = self._of(core)
        _no_prompts(core)
        return session

    def _of(self, core: Session) -> boto3.Session:
        """Return the session of boto3. An unknown profile is noticed here, where botocore looks up its own data."""
        _name_services(core)
        return boto3.Session(botocore_session=core, region_name=self._options["region"])

    def _use_keys(self, session: boto3.Session) -> None:
        """Let botocore's chain find the keys first: a helper's invalid answer must not look like CodeArtifact's."""
        try:
            credentials = session.get_credentials()
            if credentials is None:
                raise raised.NoCredentialsError
            credentials.get_frozen_credentials()
        except (KeyError, TypeError, AttributeError):
            raise FetchFailed(failures.garbled(self.sign_in, self.renewal)) from None

    def _assume(self, session: boto3.Session, role: str) -> boto3.Session:
        """Assume a role with the identity that the chain found (STS API, AssumeRole)."""
        keys = _ask(session.client("sts").assume_role, RoleArn=role, RoleSessionName=_ROLE_SESSION)["Credentials"]
        core = Session(profile=self._options.get("profile"))  # AWS_PROFILE may name one that does not exist
        core.set_default_client_config(self._config)
        core.set_credentials(keys["AccessKeyId"], keys["SecretAccessKey"], keys["SessionToken"])
        return self._of(core)

    def _see_role(self, **event: Any) -> None:
        """Remember the role from STS, so that it need not be asked for the identity."""
        self._role = event["parsed"].get("AssumedRoleUser", {}).get("Arn") or self._role

    def _see_renewal(self, **event: Any) -> None:
        """Remember the response of SSO to a renewal: botocore reports an expired session, whatever the reason."""
        self.renewal = event["parsed"]


def _name_services(core: Session) -> None:
    """Let a session know every service by the name of its directory.

    To list the services, botocore looks at the disk 1,300 times for each client (``loaders.py``), although it only
    wants to know whether the service exists.

    Args:
        core: The session, whose profile is set: botocore reads the profile's settings to find its data.
    """
    loader = core.get_component("data_loader")
    directories = [path for path in loader.search_paths if os.path.isdir(path)]
    names = {name for path in directories for name in os.listdir(path)}
    loader.list_available_services = lambda _: names


def _ask(call: Callable[..., Any], **wanted: Any) -> dict[str, Any]:
    """Call an API. botocore's parsers raise builtin exceptions if the response does not match the API's model."""
    try:
        return dict(call(**wanted))
    except raised.BotoCoreError:  # some are a ValueError too
        raise
    except (KeyError, TypeError, ValueError, AttributeError):
        raise FetchFailed(failures.PORTAL) from None


def _no_prompts(core: Session) -> None:
    """Let a role that needs MFA use the session that the aws command cached, and fail instead of asking a person.

    These are botocore's own attributes. If a version does not have them, its prompt ends at once, without a terminal.
    """
    with contextlib.suppress(Exception):
        provider = core.get_component("credential_provider").get_provider("assume-role")
        provider.cache = _AwsCliCache(str(Path("~/.aws/cli/cache").expanduser()))
        provider._prompter = _refuse


class _AwsCliCache(JSONFileCache):
    """The role sessions that the aws command keeps. They are only read, and invalid ones are ignored."""

    def __contains__(self, key: str) -> bool:
        with contextlib.suppress(KeyError, TypeError):
            keys = self[key]["Credentials"]
            return all(isinstance(keys[name], str) for name in _KEYS)
        return False

    def __setitem__(self, key: str, value: object) -> None:
        """Store nothing."""


def _refuse(_: str = "") -> NoReturn:
    raise EOFError


def _read(answer: dict[str, Any]) -> Credential:
    """Return the credential in a response, with its times on this machine's clock.

    AWS allows some minutes of difference between the clocks; the ``Date`` of the response corrects them.
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
    return Credential(CLOUD.login, Secret(token), min(issued + ours, now) if issued else now, ends, skew=ahead)


def _issued(token: str) -> datetime | None:
    """Return when a token was issued: the first segment of the JWE is plain JSON with ``isu`` and ``exp``."""
    try:
        segment = token.partition(".")[0]
        header = json.loads(base64.urlsafe_b64decode(segment + "=" * (-len(segment) % 4)))
        return datetime.fromtimestamp(header["isu"], UTC)
    except (ValueError, KeyError, TypeError, OverflowError, OSError):
        return None


class _Caller:
    """Asks STS for the caller's identity (GetCallerIdentity) while the token is fetched. The token never waits long for
    it.

    Args:
        session: Whose keys are asked about.
    """

    def __init__(self, session: boto3.Session) -> None:
        self._arn: str | None = None
        self._client = session.client("sts", config=_BRIEF)
        self._thread = threading.Thread(target=self._ask, daemon=True)
        self._thread.start()

    def arn(self) -> str | None:
        """Return the ARN, if it has arrived or arrives in a moment."""
        self._thread.join(_PATIENCE)
        return self._arn

    def _ask(self) -> None:
        with contextlib.suppress(Exception):
            self._arn = str(self._client.get_caller_identity()["Arn"])

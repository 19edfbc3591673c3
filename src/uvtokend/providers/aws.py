"""aws-codeartifact: an authorization token of CodeArtifact for the login ``aws``, through botocore's own chain.

Profiles, SSO sessions, assumed roles, web identity, container and instance credentials and ``credential_process`` are
all botocore's business. Ours are time limits, prompts that must not hang, and saying what a person can do.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import socket
import warnings
from datetime import UTC, datetime
from typing import Any, NoReturn

import boto3
from botocore.config import Config
from botocore.utils import JSONFileCache

from uvtokend.core.model import Credential, Request, Secret
from uvtokend.errors import FetchFailed
from uvtokend.providers import aws_failures
from uvtokend.providers.aws_failures import Login

LOGIN = "aws"
#: Two attempts of 5 + 15 s fit into a minute, also where a role is assumed before.
_CONFIG = Config(connect_timeout=5, read_timeout=15, retries={"mode": "standard", "total_max_attempts": 2})
#: Who we are is nice to know, no more.
_BRIEF = Config(connect_timeout=3, read_timeout=3, retries={"mode": "standard", "total_max_attempts": 1})
_ROLE_SESSION = "uvtokend"
_PROXIES = ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")


def fetch(request: Request) -> Credential:
    """Get an authorization token (CodeArtifact API, GetAuthorizationToken).

    Args:
        request: Its options: ``domain``, ``domain-owner`` and ``region``; ``profile``, ``role-arn`` and ``duration``
            (seconds) where given.

    Raises:
        FetchFailed: With a failure that says what mends it.
    """
    options = {key: str(value) for key, value in request.options if value is not None}
    login = Login(options.get("profile"))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # boto3 has advice on Python versions
            return _fetch(options, login)
    except FetchFailed:
        raise
    except Exception as error:  # noqa: BLE001 - nothing escapes unclassified
        failure = aws_failures.classify(error, login)
        if failure.reason == "sso-expired" and not _sso_reachable(login):
            failure = aws_failures.UNREACHABLE
        raise FetchFailed(failure) from None


def _fetch(options: dict[str, str], login: Login) -> Credential:
    session = boto3.Session(profile_name=options.get("profile"), region_name=options["region"])
    session._session.set_default_client_config(_CONFIG)
    login.learn(session._session.get_scoped_config())
    _no_prompts(session)
    if role := options.get("role-arn"):
        session = _assume(session, role)
    client = session.client("codeartifact", config=_CONFIG)
    duration = {"durationSeconds": int(options["duration"])} if "duration" in options else {}
    now = datetime.now(UTC)
    answer = client.get_authorization_token(domain=options["domain"], domainOwner=options["domain-owner"], **duration)
    token, end = answer["authorizationToken"], answer["expiration"].astimezone(UTC)
    issued = _issued(token) or now
    return Credential(LOGIN, Secret(token), min(issued, now), end, None, _identity(session))


def _assume(session: Any, role: str) -> Any:
    """Take on a role on top of whoever the chain says that we are (STS API, AssumeRole)."""
    answer = session.client("sts", config=_CONFIG).assume_role(RoleArn=role, RoleSessionName=_ROLE_SESSION)
    keys = answer["Credentials"]
    assumed = boto3.Session(
        keys["AccessKeyId"], keys["SecretAccessKey"], keys["SessionToken"], region_name=session.region_name
    )
    assumed._session.set_default_client_config(_CONFIG)
    return assumed


def _no_prompts(session: Any) -> None:
    """Let a role that needs MFA use the session that the aws command cached, and fail where it would ask a person.

    These are botocore's own attributes; where they are gone, its prompt ends at once, since there is no terminal.
    """
    with contextlib.suppress(Exception):
        provider = session._session.get_component("credential_provider").get_provider("assume-role")
        provider.cache = JSONFileCache(os.path.expanduser("~/.aws/cli/cache"))
        provider._prompter = _refuse


def _refuse(_: str = "") -> NoReturn:
    raise EOFError


def _issued(token: str) -> datetime | None:
    """Return when a token was issued: the first segment of the JWE is plain JSON with ``isu`` and ``exp``."""
    try:
        segment = token.partition(".")[0]
        header = json.loads(base64.urlsafe_b64decode(segment + "=" * (-len(segment) % 4)))
        return datetime.fromtimestamp(header["isu"], UTC)
    except (ValueError, KeyError, TypeError, OverflowError, OSError):
        return None


def _identity(session: Any) -> str | None:
    """Return the ARN of the caller (STS API, GetCallerIdentity), if it is quickly told."""
    with contextlib.suppress(Exception):
        return str(session.client("sts", config=_BRIEF).get_caller_identity()["Arn"])
    return None


def _sso_reachable(login: Login) -> bool:
    """Tell an SSO session that ended from a network that is away: botocore reports both as the same."""
    if login.sso_region is None or any(os.environ.get(name) for name in _PROXIES):
        return True
    if "AWS_ENDPOINT_URL_SSO_OIDC" in os.environ:
        return True
    try:
        socket.create_connection((f"oidc.{login.sso_region}.amazonaws.com", 443), 3).close()
    except OSError:
        return False
    return True

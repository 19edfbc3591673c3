"""Find out how a person signs in to an AWS profile, and the command that fixes a sign-in that failed or will end.

Programs that keep temporary keys in ``~/.aws/credentials`` are recognized by the settings that they write beside the
keys: saml2aws ``x_principal_arn`` (its ``pkg/awsconfig/awsconfig.go``), gimme-aws-creds ``aws_security_token``
(``main.py``), aws-azure-login ``aws_expiration`` (``src/awsConfig.ts``). The first two write the end as
``x_security_token_expires``.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from difflib import get_close_matches
from typing import Any

#: The variables that move the AWS configuration files; a fix repeats them, or it would change the wrong files.
_FILES = ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE")
_KEYS = "AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY AWS_SESSION_TOKEN"
#: The settings with the end of temporary keys.
_ENDS = ("x_security_token_expires", "aws_expiration")
_ANY_PROGRAM = "sign in again with the program that wrote the temporary keys"


@dataclass(frozen=True, slots=True)
class ProfileSignIn:
    """How a person signs in to the profile in use.

    Args:
        profile: The profile that the index uses; None for the default one.
        source: The profile at the end of its chain of ``source_profile``, where a person signs in.
        command: The sign-in command.
        kind: ``sso``, ``login`` (of ``aws login``), ``process``, ``keys`` or ``temporary`` (keys in the files), or
            ``environment`` (keys there, which override the profile).
        ends: When temporary keys in the files expire; None if unknown.
        prefix: Assignments before a command, so that it reads the index's own configuration files.
        session: The name or start URL of the SSO session, after which its cache is named.
    """

    profile: str | None = None
    source: str | None = None
    command: str = "aws configure"
    kind: str = "keys"
    ends: datetime | None = None
    prefix: str = ""
    session: str = ""

    @property
    def name(self) -> str:
        """The profile, for a sentence."""
        return f"the AWS profile {self.profile!r}" if self.profile else "the default AWS profile"

    @property
    def whoami(self) -> str:
        """The command that shows the error at a terminal; it also asks for MFA codes."""
        return f"{self.prefix}aws sts get-caller-identity{_option(self.profile)}"


def find_sign_in(profile: str | None, keys: bool, config: Mapping[str, Any], env: Mapping[str, str]) -> ProfileSignIn:
    """Find out from the configuration files how a person signs in to a profile.

    Args:
        profile: The profile's name; None for the default one.
        keys: Whether keys in the environment override the profile.
        config: The content of the files, parsed by botocore (AWS CLI user guide, "Configuration and credential file
            settings").
        env: The index's own extra environment.
    """
    profiles = config.get("profiles", {})
    chain, name = _chain(profile or "default", profiles)
    prefix = "".join(f"{name}={shlex.quote(env[name])} " for name in _FILES if name in env)
    source = None if name == "default" else name
    if profile is not None and profile not in profiles:
        return ProfileSignIn(profile, source, _instead_of(profile, profiles, prefix), prefix=prefix)
    if keys:
        return ProfileSignIn(profile, source, f"unset {_KEYS} && uvtokend restart", "environment", prefix=prefix)
    kind, command = _way(chain, name, source)
    whole = command if command.startswith(_ANY_PROGRAM) else f"{prefix}{command}"
    session = str(chain[-1].get("sso_session") or chain[-1].get("sso_start_url") or "")
    sign_in = ProfileSignIn(
        profile, source, whole, kind, _end(chain[-1]) if kind == "temporary" else None, prefix, session
    )
    return replace(sign_in, command=sign_in.whoami) if kind == "process" else sign_in


def _instead_of(profile: str, profiles: Iterable[str], prefix: str) -> str:
    """Return the fix for a missing profile: the profile that was probably meant, or the command that creates it."""
    if close := get_close_matches(profile, profiles, 1):
        return f"write profile = {json.dumps(close[0])} instead of {json.dumps(profile)}, then: uvtokend reload"
    return f"{prefix}aws configure sso{_option(profile)}"


def sso_end(cache: bytes) -> datetime | None:
    """Return when an SSO session ends; None if it is renewed without a person, or its cache does not tell.

    Args:
        cache: The file of ``~/.aws/sso/cache`` (botocore ``tokens.py``, `SSOTokenProvider`).
    """
    try:
        token = json.loads(cache)
        return None if token.get("refreshToken") else _time(token["expiresAt"])
    except (ValueError, KeyError, AttributeError, RecursionError):
        return None


def _way(chain: list[Mapping[str, Any]], name: str, source: str | None) -> tuple[str, str]:
    last, option = chain[-1], _option(source)
    if any("credential_process" in one for one in chain):
        return "process", ""
    if "sso_session" in last or "sso_start_url" in last:
        return "sso", f"aws sso login{option}"
    if "login_session" in last:
        return "login", f"aws login{option}"
    if "aws_session_token" in last or "aws_security_token" in last:
        return "temporary", next(_writers(last, name), "")
    # A person without any profile most likely needs SSO; AWS advises against long-lived keys.
    return "keys", f"aws configure{option}" if last else f"aws configure sso{option}"


def _writers(profile: Mapping[str, Any], name: str) -> Iterator[str]:
    """Yield the sign-in commands of the programs that may have written temporary keys, the most likely first."""
    quoted = shlex.quote(name)
    if "aws_expiration" in profile or "azure_tenant_id" in profile:
        yield f"aws-azure-login --profile {quoted}"
    if "x_principal_arn" in profile:
        yield f"saml2aws login --profile {quoted}"
    if "aws_security_token" in profile:
        yield "gimme-aws-creds"
    yield f"{_ANY_PROGRAM} of the profile {quoted}"


def _end(profile: Mapping[str, Any]) -> datetime | None:
    """Return when the temporary keys of a profile expire, according to the program that wrote them."""
    return next((end for key in _ENDS if (end := _time(profile.get(key))) is not None), None)


def _time(text: object) -> datetime | None:
    try:
        time = datetime.fromisoformat(str(text).replace("UTC", "Z"))
        return time.astimezone(UTC) if time.tzinfo is not None else None
    except (ValueError, OverflowError):
        return None


def _chain(name: str, profiles: Mapping[str, Any]) -> tuple[list[Mapping[str, Any]], str]:
    """Return the chain of ``source_profile``, which may be a circle."""
    chain: list[Mapping[str, Any]] = [profiles.get(name, {})]
    seen = {name}
    while (after := chain[-1].get("source_profile")) in profiles and after not in seen:
        name = str(after)
        seen.add(name)
        chain.append(profiles[name])
    return chain, name


def _option(profile: str | None) -> str:
    return f" --profile {shlex.quote(profile)}" if profile else ""

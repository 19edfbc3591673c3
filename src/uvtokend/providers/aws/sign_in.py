"""How a person logs in to an AWS profile, and so which command mends a login that fails."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

#: The variables that move the AWS configuration files; a hint repeats them, or it would mend other files.
_FILES = ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE")
_KEYS = "AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY AWS_SESSION_TOKEN"


@dataclass(frozen=True, slots=True)
class Login:
    """How a person logs in to the profile in use.

    Args:
        profile: The profile that the index uses; None for the default one.
        source: The profile at the end of its chain of ``source_profile``, where one logs in.
        verb: What the aws command calls this login: ``configure``, ``sso login`` or ``login``.
        process: Whether a ``credential_process`` stands in the chain.
        keys: Whether keys in the environment come before the profile.
        prefix: Assignments before a command, so that it reads the index's own configuration files.
    """

    profile: str | None = None
    source: str | None = None
    verb: str = "configure"
    process: bool = False
    keys: bool = False
    prefix: str = ""

    @property
    def command(self) -> str:
        """The command that logs in."""
        if self.keys:
            return f"unset {_KEYS} && uvtokend restart"
        if self.process:
            return self.whoami
        return f"{self.prefix}aws {self.verb}{_named(self.source)}"

    @property
    def whoami(self) -> str:
        """The command that shows, at a terminal, what goes wrong; it asks for MFA codes too."""
        return f"{self.prefix}aws sts get-caller-identity{_named(self.profile)}"


def find_login(profile: str | None, keys: bool, config: Mapping[str, Any], env: Mapping[str, str]) -> Login:
    """Read from the configuration files how a profile is logged in to.

    Args:
        profile: Its name; None for the default one.
        keys: Whether keys in the environment come before it.
        config: What botocore read from the files (AWS CLI user guide, "Configuration and credential file settings").
        env: The index's own extra environment.
    """
    chain, source = _chain(profile or "default", config.get("profiles", {}))
    verb = "configure"
    if "sso_session" in chain[-1] or "sso_start_url" in chain[-1]:
        verb = "sso login"
    elif "login_session" in chain[-1]:
        verb = "login"
    return Login(
        profile=profile,
        source=None if source == "default" else source,
        verb=verb,
        process=any("credential_process" in one for one in chain),
        keys=keys,
        prefix="".join(f"{name}={shlex.quote(env[name])} " for name in _FILES if name in env),
    )


def _chain(name: str, profiles: Mapping[str, Any]) -> tuple[list[Mapping[str, Any]], str]:
    """Follow ``source_profile`` to its end, or once around a circle."""
    chain: list[Mapping[str, Any]] = [profiles.get(name, {})]
    seen = {name}
    while (after := chain[-1].get("source_profile")) in profiles and after not in seen:
        name = str(after)
        seen.add(name)
        chain.append(profiles[name])
    return chain, name


def _named(profile: str | None) -> str:
    return f" --profile {shlex.quote(profile)}" if profile else ""

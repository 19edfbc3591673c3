"""config.toml: is it valid, in force, and does what it names exist?"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator
from datetime import UTC, datetime
from urllib.parse import urlsplit

from uvtokend.core.model import Index
from uvtokend.core.uv.settings import same_index
from uvtokend.doctor.facts import Facts
from uvtokend.doctor.finding import Finding, error, note

#: Microsoft, "Retirement of global personal access tokens in Azure DevOps".
_GLOBAL_PATS_END = datetime(2026, 12, 1, tzinfo=UTC)


def invalid(facts: Facts) -> Iterator[Finding]:
    """config.toml has a mistake: a running daemon keeps the old configuration, a new one does not start."""
    for problem in facts.problems:
        yield error("configuration", f"{problem.message}", f"{problem.file}: {problem.where}", problem.hint)


def stale(facts: Facts) -> Iterator[Finding]:
    """config.toml was changed after the daemon read it."""
    if facts.status is not None and facts.settings is not None:
        told = facts.status.get("config_stale")
        if told:
            yield error("configuration-stale", str(told), facts.config, "uvtokend reload")


def empty(facts: Facts) -> Iterator[Finding]:
    """No index is configured."""
    if facts.settings is not None and not facts.settings.indexes:
        yield note("no-index", "No index is configured, so uvtokend delivers no token.", facts.config, "uvtokend init")


def disabled(facts: Facts) -> Iterator[Finding]:
    """uv uses an index that is switched off in config.toml."""
    for index in facts.settings.disabled if facts.settings is not None else ():
        used = next((each for each in facts.uv.indexes if same_index(each.url, index.url)), None)
        if used is not None:
            message = f"uv uses {index.name} ({used.place}), but config.toml switches it off, so it has no token."
            yield error(
                "index-disabled", message, facts.config, f"write enabled = true for {index.name} in {facts.config}"
            )


def trust_variables(facts: Facts) -> Iterator[Finding]:
    """Variables for certificates that name nothing: uv ignores them, other programs stop."""
    for name in ("SSL_CERT_FILE", "SSL_CERT_DIR", "SSL_CLIENT_CERT", "REQUESTS_CA_BUNDLE"):
        value = facts.environ.get(name, "")
        missing = [path for path in value.split(os.pathsep) if path and not _readable(path)]
        if value and missing:
            message = f"{name} names {missing[0]}, which {_state(missing[0])}."
            yield note("certificate-variable", message, f"{name}={value}", f"unset {name}")


def global_pats(facts: Facts) -> Iterator[Finding]:
    """One personal access token for several organizations: Azure DevOps ends those on 2026-12-01."""
    organizations: dict[object, set[str]] = defaultdict(set)
    for index in facts.indexes:
        if index.provider == "azure-artifacts" and index.request.option("pat") is not None:
            organizations[index.request.option("pat")].add(_organization(index))
    for names in organizations.values():
        if len(names) > 1:
            ended = facts.now >= _GLOBAL_PATS_END
            message = (
                f"One personal access token serves several Azure DevOps organizations ({', '.join(sorted(names))}). "
                f"Azure DevOps {'no longer accepts' if ended else 'stops accepting'} such global tokens "
                f"{'since' if ended else 'on'} 2026-12-01."
            )
            report = error if ended else note
            yield report(
                "global-pat",
                message,
                "pat",
                "create one token for each organization, or leave pat out to sign in",
            )


def _organization(index: Index) -> str:
    parts = urlsplit(index.url)
    host = parts.hostname or ""
    return parts.path.strip("/").partition("/")[0] if host == "pkgs.dev.azure.com" else host.partition(".")[0]


def _readable(path: str) -> bool:
    return os.path.exists(path) and os.access(path, os.R_OK)


def _state(path: str) -> str:
    return "cannot be read" if os.path.exists(path) else "does not exist"


CHECKS = (invalid, stale, empty, disabled, trust_variables, global_pats)

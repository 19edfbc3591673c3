"""config.toml: is it valid and loaded, and do the files that it names exist?"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from uvtokend.core import clouds
from uvtokend.core.clouds.azure_artifacts import GLOBAL_PAT, GLOBAL_PATS_END
from uvtokend.core.config import templates
from uvtokend.core.urls import IndexUrl
from uvtokend.core.uv.settings import same_index
from uvtokend.doctor.facts import Facts
from uvtokend.doctor.finding import Finding, error, note


def invalid(facts: Facts) -> Iterator[Finding]:
    """config.toml has a mistake: a running daemon keeps the old configuration, a new one does not start."""
    for problem in facts.problems:
        yield error("configuration", f"{problem.message}", f"{problem.file}: {problem.where}", problem.hint)


def stale(facts: Facts) -> Iterator[Finding]:
    """config.toml was changed after the daemon read it."""
    if facts.status is not None and facts.settings is not None:
        told = facts.status.get("config_stale")
        if told:
            served = all(facts.said(index) and facts.has_token(index) for index in facts.indexes)
            report = note if served else error
            yield report("configuration-stale", str(told), facts.config, "uvtokend reload")


def empty(facts: Facts) -> Iterator[Finding]:
    """No index is configured."""
    if facts.settings is None or facts.settings.indexes:
        return
    message, fix = "No index is configured, so uvtokend delivers no token.", "uvtokend init"
    unknown = [index for index in facts.uv.indexes if clouds.recognize(IndexUrl.parse(index.url)) is None]
    if unknown and unknown == list(facts.uv.indexes):
        first = unknown[0]
        message += f" No provider is known for {first.url} ({first.place}), so name one if it is a private index."
        fix = templates.by_hand(IndexUrl.parse(first.url), first.name)
    yield note("no-index", message, facts.config, fix)


def disabled(facts: Facts) -> Iterator[Finding]:
    """uv uses an index that is disabled in config.toml."""
    for index in facts.settings.disabled if facts.settings is not None else ():
        used = next((each for each in facts.uv.indexes if same_index(each.url, index.url)), None)
        if used is not None:
            message = f"uv uses {index.name} ({used.place}), but config.toml switches it off, so it has no token."
            yield error(
                "index-disabled", message, facts.config, f"write enabled = true for {index.name} in {facts.config}"
            )


def trust_variables(facts: Facts) -> Iterator[Finding]:
    """Variables for certificates that name a missing file: uv ignores them, other programs fail."""
    for name in ("SSL_CERT_FILE", "SSL_CERT_DIR", "SSL_CLIENT_CERT", "REQUESTS_CA_BUNDLE"):
        value = facts.environ.get(name, "")
        missing = [path for path in value.split(os.pathsep) if path and not _readable(path)]
        if value and missing:
            message = f"{name} names {missing[0]}, which {_state(missing[0])}."
            yield note("certificate-variable", message, f"{name}={value}", f"unset {name}")
        elif value and name == "SSL_CERT_DIR" and not any(map(_has_files, value.split(os.pathsep))):
            message = f"SSL_CERT_DIR names {value}, which contains no certificate."
            yield note("certificate-variable", message, f"{name}={value}", f"unset {name}")


def global_pats(facts: Facts) -> Iterator[Finding]:
    """One personal access token serves several organizations: Azure DevOps will refuse it from a known day on."""
    notices = clouds.notices({}, [index.request for index in facts.indexes])
    report = error if facts.now >= GLOBAL_PATS_END else note
    for notice in dict.fromkeys(each for told in notices.values() for each in told if each.reason == GLOBAL_PAT):
        yield report(notice.reason, notice.message, "pat", notice.hint)


def _has_files(directory: str) -> bool:
    with contextlib.suppress(OSError):
        return any(os.path.isfile(os.path.join(directory, name)) for name in os.listdir(directory))
    return False


def _readable(path: str) -> bool:
    return os.path.exists(path) and os.access(path, os.R_OK)


def _state(path: str) -> str:
    return "cannot be read" if os.path.exists(path) else "does not exist"


CHECKS = (invalid, stale, empty, disabled, trust_variables, global_pats)

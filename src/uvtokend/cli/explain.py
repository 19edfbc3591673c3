"""``uvtokend explain URL``: show which credential uv would send there, its source, and what it shadows."""

from __future__ import annotations

import argparse

from uvtokend.cli import console
from uvtokend.cli.doctor import daemon_status
from uvtokend.core.model import Index
from uvtokend.core.text import clean
from uvtokend.core.uv.order import Decision, UvCredential
from uvtokend.core.uv.settings import is_below, root, split_url
from uvtokend.doctor import uv
from uvtokend.doctor.facts import Facts, gather
from uvtokend.errors import FAILED, OK, UsageError

EXAMPLES = ("uvtokend explain https://pkgs.example.com/acme/simple/",)
DETAILS = (
    "Follows uv's own order: the URL, UV_INDEX_<NAME>_USERNAME and _PASSWORD, the netrc, uv's credential store, the "
    "keyring command. Nothing is sent and no keyring is asked. Exits 0 if uv would send uvtokend's token, 1 otherwise."
)
_SOURCES = {
    "url": "the URL",
    "environment": "a variable",
    "netrc": "the netrc",
    "store": "uv's credential store",
    "keyring": "the keyring command",
}


def arguments(own: argparse.ArgumentParser) -> None:
    """Add the arguments of this verb."""
    own.add_argument("url", metavar="URL", help="an index, or any page or file below it")


def run(args: argparse.Namespace) -> int:
    """Show uv's decision.

    Returns:
        0 if uv would send our token, 1 otherwise.

    Raises:
        UsageError: The argument is not an HTTP URL.
    """
    split = split_url(args.url)
    if split is None:
        message = "explain needs an http:// or https:// URL."
        raise UsageError(message, "uvtokend explain https://pkgs.example.com/acme/simple/")
    facts = gather(None, args.config, daemon_status())
    decision = facts.decision(args.url)
    sent = decision.sent
    good = sent is not None and not decision.stops and facts.is_ours(sent)
    lines = [*_answer(facts, split[0], decision), *_shadowed(decision)]
    index = _index(facts, split[0])
    if not good and index is not None:
        lines += _fix(facts, index, decision)
    console.out("\n".join(map(clean, lines)) + "\n")
    return OK if good else FAILED


def _answer(facts: Facts, url: str, decision: Decision) -> list[str]:
    index, sent = decision.index, decision.sent
    lines = [f"URL: {url}"]
    if index is not None:
        policy = f', authenticate = "{index.authenticate}"'
        lines.append(f"Index: {index.label} ({index.place}){policy}")
    else:
        lines.append("Index: none that uv's configuration names in this directory")
    if decision.stops:
        lines.append('uv sends nothing: authenticate = "always", and no complete credential was found.')
    elif sent is None:
        lines.append("uv sends no credential.")
    else:
        whose = "uvtokend's token" if facts.is_ours(sent) else "a credential that is not uvtokend's"
        first = "after a first request without one" if decision.anonymous_first else "with its first request"
        lines += [f"uv sends {whose}, {first}:", f"  {_masked(sent)}"]
    return lines


def _shadowed(decision: Decision) -> list[str]:
    if not decision.shadowed:
        return []
    told = [f"  {_masked(each.credential)}: {each.why}" for each in decision.shadowed]
    return ["uv does not send:", *told]


def _masked(credential: UvCredential) -> str:
    if credential.source == "keyring":
        return f"what the keyring command answers ({credential.place})"
    secret = (
        "no password"
        if credential.secret is None
        else "password ****"
        if credential.secret.reveal()
        else "an empty password"
    )
    login = "no login" if not credential.login else f"login {credential.login}"
    kind = "bearer token ****" if credential.bearer else f"{login}, {secret}"
    return f"{kind}, from {_SOURCES[credential.source]} ({credential.place})"


def _index(facts: Facts, url: str) -> Index | None:
    """Return our index that a URL belongs to."""
    return next((index for index in facts.indexes if is_below(url, root(index.url))), None)


def _fix(facts: Facts, index: Index, decision: Decision) -> list[str]:
    if decision.sent is not None and not facts.is_ours(decision.sent):
        finding = uv.explained(facts, index, decision, decision.sent)
        return [finding.message, f"  fix: {finding.fix}"]
    fix = "uvtokend start" if facts.status is None else f"uvtokend refresh {index.name}"
    return [f"{index.name} has no token.", f"  fix: {fix}"]

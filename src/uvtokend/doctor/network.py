"""Ask each index once, at its URL in config.toml, with the token that uvtokend delivered.

No redirect is followed, and no other credential is ever sent. Only the response's status, its ``Date`` and, for the
lock file, its list of packages are used.
"""

from __future__ import annotations

import base64
import json
import re
import ssl
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.message import Message
from email.utils import parsedate_to_datetime
from functools import partial
from http.client import HTTPException, HTTPResponse
from urllib.parse import unquote, urlsplit

from uvtokend.core import fixes
from uvtokend.core.model import Entry, Index
from uvtokend.core.uv.settings import is_below, normal_name, root
from uvtokend.doctor import permissions
from uvtokend.doctor.facts import Facts
from uvtokend.doctor.finding import Finding, error, note
from uvtokend.doctor.project import locked

#: Seconds that an index gets to answer.
PATIENCE = 2.0
#: The longest list of packages that is read, in bytes.
_LIMIT = 4 << 20
#: The difference of the clocks, in seconds, from which signatures fail: AWS allows 5 minutes, the others no more.
_SKEW = 300
_ACCEPT = "application/vnd.pypi.simple.v1+json, text/html;q=0.5"


@dataclass(frozen=True, slots=True)
class IndexResponse:
    """The response of an index.

    Args:
        ahead: Seconds by which this machine's clock is ahead of the index's ``Date``; None if there is no ``Date``.
        names: The packages that it lists, in normal form; empty if it does not list them.
    """

    status: int
    ahead: float | None
    names: frozenset[str] = frozenset()


class _Stay(urllib.request.HTTPRedirectHandler):
    """Follows no redirect, because the token is only for this URL."""

    def redirect_request(self, *_: object) -> None:
        """Return None, so that the redirect itself is the response."""


def checks(facts: Facts) -> tuple[Callable[[Facts], Iterator[Finding]], ...]:
    """Return one check for each index, so that a slow one does not delay the others."""
    return tuple(partial(index_answers, index=index) for index in facts.indexes)


def index_answers(facts: Facts, index: Index) -> Iterator[Finding]:
    """Ask one index."""
    entry = facts.ours.get(index.target)
    if entry is None:
        return  # another check reports that there is no token
    try:
        answer = _ask(index.url, entry, None)
        if answer.status == 401:  # after its start, Artifactory answers 401 to some valid tokens
            answer = _ask(index.url, entry, None)
    except OSError as problem:
        yield _unreachable(facts, index, entry, problem)
        return
    except (HTTPException, ValueError) as problem:
        yield error(
            "index-answer",
            f"What answers for {index.name} is not an HTTP server: {type(problem).__name__}.",
            index.host,
            None,
        )
        return
    yield from _of_clock(index, answer)
    yield from _of_status(facts, index, answer.status)
    yield from _of_lock(facts, index, answer.names)


def _ask(url: str, entry: Entry, ca: str | None) -> IndexResponse:
    """Ask an index once.

    Raises:
        OSError: The index cannot be reached, or its certificate is not trusted.
        HTTPException: The response is not HTTP.
    """
    context = ssl.create_default_context(cafile=ca)
    opener = urllib.request.build_opener(_Stay, urllib.request.HTTPSHandler(context=context))
    pair = base64.b64encode(f"{entry.login}:{entry.password.reveal()}".encode()).decode()
    request = urllib.request.Request(url, headers={"Accept": _ACCEPT, "User-Agent": "uvtokend"})  # noqa: S310 - the configuration allows http(s) only
    request.add_unredirected_header("Authorization", f"Basic {pair}")
    try:
        with opener.open(request, timeout=PATIENCE) as response:
            return _answer(response.status, response.headers, _names(response))
    except urllib.error.HTTPError as refused:
        with refused:
            return _answer(refused.code, refused.headers, frozenset())


def _answer(status: int, headers: Message, names: frozenset[str]) -> IndexResponse:
    try:
        there = parsedate_to_datetime(headers.get("Date", ""))
        ahead = (datetime.now(UTC) - there).total_seconds() if there.tzinfo is not None else None
    except ValueError:
        ahead = None
    return IndexResponse(status, ahead, names)


def _names(response: HTTPResponse) -> frozenset[str]:
    """Return the packages of a simple index (PEP 503, PEP 691)."""
    text = response.read(_LIMIT).decode(errors="replace")
    if "json" in response.headers.get("Content-Type", ""):
        try:
            return frozenset(normal_name(str(each["name"])) for each in json.loads(text)["projects"])
        except (ValueError, KeyError, TypeError):
            return frozenset()
    paths = (urlsplit(unquote(href)).path.rstrip("/") for href in re.findall(r"""<a\s[^>]*?href=["']([^"']+)""", text))
    return frozenset(normal_name(path.rpartition("/")[2]) for path in paths if path)


def _of_status(facts: Facts, index: Index, status: int) -> Iterator[Finding]:
    if status in {401, 403, 404}:
        meaning = permissions.meaning(index, status)
        message = f"{index.name} answers {status} to the token that uvtokend delivered: {meaning}."
        identity = facts.said(index).get("identity")
        fix = permissions.request(index, identity if isinstance(identity, str) else None)
        if status == 401:
            fix = permissions.renewal(index) or f"uvtokend refresh {index.name}"
        elif status == 404 and not urlsplit(index.url).path.rstrip("/").endswith("simple"):
            message += " The URL does not end with /simple/, as that of most indexes does."
            longer = f"{index.url.rstrip('/')}/simple/"
            fix = f"write {longer} in {facts.config} and where uv has the URL, then: uvtokend reload"
        yield error(f"index-{status}", message, index.url, fix)
    elif status == 407:
        yield error(
            "proxy", f"The proxy asks for a sign-in before it lets anybody reach {index.host}.", index.host, None
        )
    elif status >= 400:
        yield note("index-trouble", f"{index.name} answers {status}: this is the index's own trouble.", index.url, None)
    elif status == 203 or (300 <= status < 400 and index.provider == "azure-artifacts"):
        message = f"{index.name} shows a sign-in page instead of packages, so it does not accept the token."
        yield error("index-401", message, index.url, f"uvtokend refresh {index.name}")


def _of_clock(index: Index, answer: IndexResponse) -> Iterator[Finding]:
    """Yield a finding if the clock is wrong, which causes a refusal now or at the next sign-in."""
    if answer.ahead is not None and abs(answer.ahead) >= _SKEW:
        minutes, way = int(abs(answer.ahead) // 60), "ahead of" if answer.ahead > 0 else "behind"
        message = f"This machine's clock is {minutes} min {way} that of {index.host}, so clouds refuse to sign you in."
        report = error if answer.status in {401, 403} else note
        yield report("clock", message, index.host, fixes.set_clock())


def _of_lock(facts: Facts, index: Index, names: frozenset[str]) -> Iterator[Finding]:
    """Yield a finding for packages of this index that were locked from another one, by a run without a token."""
    known = facts.known_to_uv(index)
    if known is None or known.explicit:
        return
    private = [root(each.url) for each in facts.indexes]
    taken = [
        (name, registry)
        for name, registry in locked(facts)
        if name in names and registry and not any(is_below(registry, prefix) for prefix in private)
    ]
    if taken:
        listed = ", ".join(name for name, _ in taken[:5]) + (" and more" if len(taken) > 5 else "")
        hosts = ", ".join(sorted({urlsplit(registry).netloc for _, registry in taken}))
        message = (
            f"uv.lock has {listed} from {hosts}, although {index.name} serves {'it' if len(taken) == 1 else 'them'}."
        )
        upgrade = " ".join(f"--upgrade-package {name}" for name, _ in taken)
        yield error("locked-from-public", message, index.url, f"uv lock {upgrade}")


# --------------------------------------------------------------------------------------------------- no answer at all


def _unreachable(facts: Facts, index: Index, entry: Entry, problem: OSError) -> Finding:
    reason = problem.reason if isinstance(problem, urllib.error.URLError) else problem
    variable = proxy_variable(facts.environ, index)
    if isinstance(reason, ssl.SSLCertVerificationError):
        return _untrusted(facts, index, entry)
    if variable is not None:
        value = re.sub(r"//[^@/]*@", "//…@", facts.environ[variable])
        message = f"{index.host} cannot be reached through the proxy that {variable} names: {_words(reason)}."
        return error("proxy", message, f"{variable}={value}", f"unset {variable}")
    message = f"{index.host} cannot be reached: {_words(reason)}."
    return error("unreachable", message, index.host, f"curl -sS -o /dev/null {index.url}")


def _untrusted(facts: Facts, index: Index, entry: Entry) -> Finding:
    """Return the fix that makes uv trust an index. The CA bundle in config.toml is only for uvtokend's own workers."""
    message = f"The TLS certificate of {index.host} is not trusted here."
    bundle = facts.settings.ca_bundle if facts.settings is not None else None
    named = facts.environ.get("SSL_CERT_FILE")
    if bundle is not None and bundle != named:
        try:
            _ask(index.url, entry, bundle)
        except (OSError, HTTPException, ValueError):
            return error("untrusted", message, bundle, "ask the administrator for the CA bundle of your network")
        told = f"{message} The CA bundle of config.toml would do, but uv does not read it."
        return error("untrusted", told, bundle, f"export SSL_CERT_FILE={bundle}")
    fix = f"write your network's CA bundle as ca-bundle in {facts.config}, and export SSL_CERT_FILE with the same path"
    return error("untrusted", message, named or index.host, fix)


def proxy_variable(environ: Mapping[str, str], index: Index) -> str | None:
    """Return the variable with the proxy for a request to an index."""
    scheme, host = urlsplit(index.url).scheme, urlsplit(index.url).netloc
    if urllib.request.proxy_bypass(host):
        return None
    names = (f"{scheme}_proxy", f"{scheme.upper()}_PROXY", "all_proxy", "ALL_PROXY")
    return next((name for name in names if environ.get(name)), None)


def _words(reason: object) -> str:
    """Return a network error in words."""
    if isinstance(reason, TimeoutError):
        return f"no answer within {PATIENCE:g} s"
    if isinstance(reason, OSError) and reason.strerror:
        return reason.strerror[:1].lower() + reason.strerror[1:]
    return str(reason)[:100]

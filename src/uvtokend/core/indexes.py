"""URL -> provider, and the one table of what each provider can be told.

Hosts are matched whole, never by their ends: ``…amazonaws.com.evil.example`` belongs to nobody.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal
from urllib.parse import SplitResult, urlsplit

from uvtokend.core.model import Frozen, Request
from uvtokend.core.uv_store import normal

Kind = Literal["text", "login", "login-or-secret", "account", "secret", "duration", "choice", "path", "command", "time"]


@dataclass(frozen=True, slots=True)
class Option:
    """One option of a provider.

    Args:
        kind: What its value is.
        choices: The values of a ``choice``; the first is the default.
        required: It must be known, from the file or from the URL.
        told: The URL may tell it.
        default: What it is where it is not written. It never stands in a request, so that writing it down does not make
            two requests of one.
        unless: Another option that changes the default where it is written.
        low: The least seconds of a ``duration``; 0 is always allowed where `zero` is set.
        high: The most.
    """

    kind: Kind = "text"
    choices: tuple[str, ...] = ()
    required: bool = False
    told: bool = False
    default: str | None = None
    unless: str = ""
    low: int = 0
    high: int = 0
    zero: bool = False


@dataclass(frozen=True, slots=True)
class Way:
    """One of several ways to log in.

    Args:
        needs: The options that it is made of.
        takes: Those that may stand beside them.
    """

    needs: tuple[str, ...]
    takes: tuple[str, ...] = ()

    def fits(self, written: set[str]) -> bool:
        """Tell whether options are those of this way and of no other."""
        return {*self.needs} <= written <= {*self.needs, *self.takes}


@dataclass(frozen=True, slots=True)
class Provider:
    """One kind of issuer.

    Args:
        options: By name.
        recognise: What an index URL says of the options, or None for a URL of somebody else.
        service: What of an index URL belongs into the request: the tenant, where tokens differ by tenant.
        prefix: The URL prefix below which an index has its pages and files.
        ways: The ways to log in, of which the options have to make exactly one; none where they need not.
    """

    options: Mapping[str, Option]
    recognise: Callable[[SplitResult], dict[str, str] | None]
    service: Callable[[SplitResult], str] = lambda url: ""  # noqa: ARG005
    prefix: Callable[[SplitResult], str] = lambda url: f"{url.scheme}://{url.netloc}{_root(url.path)}"
    ways: tuple[Way, ...] = ()

    def undecided(self, written: Iterable[str]) -> bool:
        """Tell whether options make no way to log in, or a mixture of two."""
        known = {name for way in self.ways for name in (*way.needs, *way.takes)}
        return bool(self.ways) and not any(way.fits(known & {*written}) for way in self.ways)


_REGION = r"(?P<region>[a-z]{2}(?:-[a-z]+)+-[0-9]{1,2})"
_DOMAIN = r"(?P<domain>[a-z][a-z0-9-]{0,48}[a-z0-9])-(?P<owner>[0-9]{12})"
#: AWS CodeArtifact user guide, "Repository endpoints"; partitions as in botocore's partitions.json.
_CODEARTIFACT = re.compile(
    rf"{_DOMAIN}\.d\.codeartifact\.{_REGION}\.amazonaws\.com(?:\.cn)?|"
    rf"{_DOMAIN.replace('P<', 'P<d_')}\.codeartifact\.{_REGION.replace('P<', 'P<d_')}\.on\.aws"
)
#: Interface endpoints carry domain and owner in the path (user guide, "Use CodeArtifact from a VPC").
_CODEARTIFACT_VPC = re.compile(rf"vpce-[a-z0-9-]+\.d\.codeartifact\.{_REGION}\.vpce\.amazonaws\.com(?:\.cn)?")
_CODEARTIFACT_VPC_PATH = re.compile(rf"/pypi/d/{_DOMAIN}/.+")
_ARTIFACT_REGISTRY = re.compile(r"[a-z0-9-]+-python\.pkg\.dev")
_AZURE = "pkgs.dev.azure.com"
_AZURE_LEGACY = re.compile(r"[a-z0-9][a-z0-9-]*\.pkgs\.visualstudio\.com")
#: A subscription's own host (JFrog documentation, "JFrog Cloud").
_JFROG = re.compile(r"(?:[a-z0-9](?:[a-z0-9-]*[a-z0-9])?\.)+jfrog\.io")
#: Where Artifactory's PyPI repositories stand below the platform (JFrog documentation, "PyPI Repositories").
_ARTIFACTORY = "/artifactory/api/pypi/"


def _codeartifact(url: SplitResult) -> dict[str, str] | None:
    host = _host(url)
    found = _CODEARTIFACT.fullmatch(host)
    parts = found.groupdict() if found else {}
    if vpc := _CODEARTIFACT_VPC.fullmatch(host):
        path = _CODEARTIFACT_VPC_PATH.fullmatch(url.path)
        parts = {**vpc.groupdict(), **path.groupdict()} if path else {}
    known = {name.removeprefix("d_"): text for name, text in parts.items() if text}
    if not known:
        return None
    return {"domain": known["domain"], "domain-owner": known["owner"], "region": known["region"]}


def _artifact_registry(url: SplitResult) -> dict[str, str] | None:
    return {} if _ARTIFACT_REGISTRY.fullmatch(_host(url)) else None


def _azure(url: SplitResult) -> dict[str, str] | None:
    if _host(url) == _AZURE:
        return {} if url.path.strip("/") else None
    return {} if _AZURE_LEGACY.fullmatch(_host(url)) else None


def _azure_service(url: SplitResult) -> str:
    """Return the organisation's prefix: file URLs lie outside the index's own root."""
    organisation = url.path.strip("/").partition("/")[0]
    return f"https://{_host(url)}/{organisation}" if _host(url) == _AZURE else f"https://{_host(url)}"


def _azure_prefix(url: SplitResult) -> str:
    """Return the organisation's prefix; on a server of one's own all before the feed, its collection."""
    if _AZURE_LEGACY.fullmatch(_host(url)) or _host(url) == _AZURE:
        return _azure_service(url)
    return f"{url.scheme}://{url.netloc}{url.path.partition('/_packaging/')[0]}"


def _jfrog(url: SplitResult) -> dict[str, str] | None:
    return {} if _JFROG.fullmatch(_host(url)) and re.match(rf"{_ARTIFACTORY}[^/]", url.path) else None


def _jfrog_service(url: SplitResult) -> str:
    """Return the platform's base URL, below which its token service stands; empty where the URL does not show it."""
    prefix, found, _ = url.path.partition(_ARTIFACTORY)
    return f"{url.scheme}://{url.netloc.lower()}{prefix}" if found else ""


def _root(path: str) -> str:
    """Return an index's path without its last ``/simple/``, as uv does (uv-distribution-types, `IndexUrl::root`)."""
    return path.rstrip("/").removesuffix("/simple")


def _nobody(_: SplitResult) -> dict[str, str] | None:
    return None


#: GetAuthorizationToken, durationSeconds: 0 (as long as the caller's own credentials) or 15 minutes to 12 hours.
_AWS_DURATION = Option("duration", low=900, high=43200, zero=True)

PROVIDERS: dict[str, Provider] = {
    "aws-codeartifact": Provider(
        {
            "profile": Option(),
            "role-arn": Option(),
            "domain": Option(required=True, told=True),
            "domain-owner": Option("account", required=True, told=True),
            "region": Option(required=True, told=True),
            "duration": _AWS_DURATION,
        },
        _codeartifact,
    ),
    "google-artifact-registry": Provider(
        {
            "source": Option("choice", ("adc", "gcloud"), default="adc"),
            "credentials-file": Option("path"),
            "impersonate-service-account": Option(),
            "lifetime": Option("duration", low=60, high=43200),
        },
        _artifact_registry,
    ),
    "azure-artifacts": Provider(
        {
            "credential": Option(
                "choice",
                (
                    "default",
                    "cli",
                    "developer-cli",
                    "environment",
                    "managed-identity",
                    "workload-identity",
                    "pat",
                ),
                default="default",
                unless="pat",
            ),
            "tenant-id": Option(),
            "client-id": Option(),
            "token": Option("choice", ("session", "entra")),
            "access": Option("choice", ("write", "read"), default="write"),
            "pat": Option("secret"),
            "username": Option("login"),
            "expires": Option("time"),
        },
        _azure,
        _azure_service,
        _azure_prefix,
    ),
    "jfrog-artifactory": Provider(
        {
            "username": Option("login"),
            "password": Option("secret"),
            "access-token": Option("secret"),
            "refresh-token": Option("secret"),
            "oidc-provider": Option(),
            "oidc-token": Option("secret"),
        },
        _jfrog,
        _jfrog_service,
        ways=(
            Way(("username", "password")),
            Way(("access-token",), ("username",)),
            Way(("refresh-token",), ("username", "access-token")),
            Way(("oidc-provider", "oidc-token"), ("username",)),
        ),
    ),
    "nexus": Provider(
        {
            "username": Option("login-or-secret", required=True),
            "password": Option("secret", required=True),
        },
        _nobody,
    ),
    "static": Provider(
        {
            "username": Option("login", required=True),
            "password": Option("secret", required=True),
            "expires": Option("time"),
        },
        _nobody,
    ),
    "command": Provider({"command": Option("command", required=True)}, _nobody),
}


def recognise(url: str) -> tuple[str, dict[str, str]] | None:
    """Return the provider that an index URL belongs to, and the options that it tells; None for a URL of nobody's."""
    parts = urlsplit(url)
    for name, provider in PROVIDERS.items():
        told = provider.recognise(parts)
        if told is not None:
            return name, told
    return None


def told_by_url(provider: str, url: str) -> dict[str, str]:
    """Return the options that a URL tells a named provider; none if it is not one of its own."""
    return (PROVIDERS[provider].recognise(urlsplit(url)) or {}) if provider in PROVIDERS else {}


def request(provider: str, url: str, options: Mapping[str, Frozen], env: Mapping[str, str]) -> Request:
    """Return what is to be fetched for an index. Equal requests share one lease.

    Args:
        provider: Its name; one that is not in the table is a plug-in, which gets the whole URL as its service.
        url: The index URL.
        options: Checked and frozen.
        env: Extra environment of the worker.
    """
    known = PROVIDERS.get(provider)
    service = url if known is None else known.service(urlsplit(url))
    return Request(provider, service, tuple(sorted(options.items())), tuple(sorted(env.items())))


def hostname(parts: SplitResult) -> str:
    """Return the host of a URL as a netrc names it: in lower case, IPv6 in brackets."""
    host = (parts.hostname or "").lower()
    return f"[{host}]" if ":" in host else host


def store_service(provider: str, url: str) -> str:
    """Return the URL prefix that a record of uv's store has for an index: for Azure that of the whole organisation.

    Args:
        provider: Its name; plug-ins' indexes keep below their own root.
        url: The index URL.
    """
    known = PROVIDERS.get(provider, PROVIDERS["static"])
    return normal(known.prefix(urlsplit(url)))


def default_name(url: str) -> str:
    """Return a readable name for an index that has none: the last words of its path, or its host.

    Index names of uv are letters, digits, ``-``, ``_`` and ``.``.
    """
    parts = urlsplit(url)
    dull = {"simple", "pypi", "_packaging", "d", "repository", "api", "artifactory", ""}
    words = [word for word in parts.path.split("/") if word not in dull]
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", words[-1] if words else _host(parts))
    return name.strip("-.") or "index"


def _host(url: SplitResult) -> str:
    """Return the host, or nothing where uv's URL parser (WHATWG) would read another one, or spell it otherwise."""
    plain = url.netloc.isascii() and "\\" not in url.netloc
    return (url.hostname or "").lower() if plain else ""

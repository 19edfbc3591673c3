"""Azure Artifacts.

Sources: Azure Artifacts' documentation of Python feeds; artifacts-credprovider and artifacts-keyring-nofuss (hosts,
user name); azure-identity ``_constants.py``, which reads no token from the environment.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from uvtokend.core.clouds.catalog import Cloud, CloudProgram, Conflict, Watched
from uvtokend.core.config.values import CHOICE, LOGIN, SECRET, TEXT, TIME, Option
from uvtokend.core.model import Frozen, Notice, Request
from uvtokend.core.urls import IndexUrl

_HOST = "pkgs.dev.azure.com"
_LEGACY_HOST = re.compile(r"(?P<name>[a-z0-9][a-z0-9-]*)\.pkgs\.visualstudio\.com")
_NAME = re.compile(r"[0-9A-Za-z](?:[0-9A-Za-z%._-]*[0-9A-Za-z])?")
_FEEDS = "/_packaging/"
#: The notice of a personal access token for several organizations, and the moment from which Azure DevOps refuses it
#: (Microsoft, "Retirement of global personal access tokens in Azure DevOps").
GLOBAL_PAT = "global-pat"
GLOBAL_PATS_END = datetime(2026, 12, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Organization:
    """An organization of Azure DevOps.

    Args:
        name: Its name in its URLs.
        service: The prefix of its package URLs.
        security: The prefix of its token service, the only service that gets our Entra token.
        portal: The page on which people sign in.
    """

    name: str
    service: str
    security: str
    portal: str


def organization(service: str) -> Organization | None:
    """Return the organization with this package URL prefix; None if it is not an organization's.

    Args:
        service: ``https://pkgs.dev.azure.com/<organization>`` or ``https://<organization>.pkgs.visualstudio.com``.
    """
    url = IndexUrl.parse(service)
    path = url.path.strip("/")
    if url.scheme == "https" and url.netloc == _HOST and _NAME.fullmatch(path):
        return Organization(path, service, f"https://vssps.dev.azure.com/{path}", f"https://dev.azure.com/{path}")
    if url.scheme == "https" and (legacy := _LEGACY_HOST.fullmatch(url.netloc)) and not path:
        name = legacy["name"]
        security = f"https://{name}.vssps.visualstudio.com"
        return Organization(name, service, security, f"https://{name}.visualstudio.com")
    return None


def _recognize(url: IndexUrl) -> dict[str, str] | None:
    if url.known_host == _HOST:
        return {} if url.path.strip("/") else None
    return {} if _LEGACY_HOST.fullmatch(url.known_host) else None


def _service(url: IndexUrl) -> str:
    """Return the organization's prefix, because file URLs are outside the index's own root."""
    name = url.path.strip("/").partition("/")[0]
    return f"https://{_HOST}/{name}" if url.known_host == _HOST else f"https://{url.known_host}"


def _prefix(url: IndexUrl) -> str:
    """Return the organization's prefix; on a self-hosted server the collection, which is everything before the feed."""
    if url.known_host == _HOST or _LEGACY_HOST.fullmatch(url.known_host):
        return _service(url)
    return f"{url.scheme}://{url.netloc}{url.path.partition(_FEEDS)[0]}"


def _covers(url: IndexUrl) -> bool:
    return _FEEDS not in url.path


def _upload(url: IndexUrl) -> str:
    return f"{url.root.removesuffix('/upload')}/upload/"


def _runs(request: Request) -> tuple[str, ...]:
    match request.option("credential"):
        case "cli":
            return ("az",)
        case "developer-cli":
            return ("azd",)
    return ()


def _conflict(options: Mapping[str, Frozen]) -> Conflict | None:
    if options.get("access") == "read" and ("pat" in options or options.get("token") == "entra"):
        message = 'access = "read" limits session tokens only; the scope of any other token was set by its issuer.'
        return Conflict("access", message, 'remove access = "read"')
    return None


def _together(requests: Collection[Request]) -> dict[Request, Notice]:
    """Return a notice for each request whose personal access token serves another organization, too."""
    names: dict[Frozen, set[str]] = {}
    for request in requests:
        names.setdefault(request.option("pat"), set()).add(_name(request.service))
    hint = "create one token for each organization, or remove pat and sign in with az login"
    notices = {}
    for request in requests:
        pat = request.option("pat")
        if pat is not None and len(names[pat]) > 1:
            message = (
                f"One personal access token serves {len(names[pat])} Azure DevOps organizations "
                f"({', '.join(sorted(names[pat]))}). Azure DevOps accepts no such global token from 2026-12-01 on."
            )
            notices[request] = Notice(GLOBAL_PAT, message, hint)
    return notices


def _name(service: str) -> str:
    """Return the name of an organization, which has two forms of URLs; a self-hosted server is its own name."""
    known = organization(service)
    return service if known is None else known.name


CLOUD = Cloud(
    provider="azure-artifacts",
    title="Azure Artifacts",
    module="uvtokend.providers.azure.fetch",
    options={
        "credential": Option(
            CHOICE,
            ("default", "cli", "developer-cli", "environment", "managed-identity", "workload-identity", "pat"),
            default="default",
            unless="pat",
        ),
        "tenant-id": Option(TEXT),
        "client-id": Option(TEXT),
        "token": Option(CHOICE, ("session", "entra")),
        "access": Option(CHOICE, ("write", "read"), default="write"),
        "pat": Option(SECRET),
        "username": Option(LOGIN),
        "expires": Option(TIME),
    },
    recognize=_recognize,
    service=_service,
    prefix=_prefix,
    upload=_upload,
    covers=_covers,
    login="VssSessionToken",
    takes_any_login=True,
    conflict=_conflict,
    together=_together,
    watched=(Watched("~/.azure", "AZURE_CONFIG_DIR"),),
    program=CloudProgram("az", "az login", "https://learn.microsoft.com/cli/azure/install-azure-cli"),
    runs=_runs,
    service_variables=("AZURE_*", "AZD_CONFIG_DIR", "IDENTITY_ENDPOINT", "MSI_ENDPOINT", "IMDS_ENDPOINT"),
)

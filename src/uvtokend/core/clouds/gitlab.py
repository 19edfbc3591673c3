"""GitLab's package registry, on gitlab.com and on self-hosted servers.

Sources: GitLab's documentation ("PyPI packages in the package registry", "PyPI API") and source (the links of a
project's pages contain its numeric id, even if the page was requested by the project's path).
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from uvtokend.core.clouds.catalog import Cloud, Conflict
from uvtokend.core.config.values import BOOLEAN, CHOICE, LOGIN, SECRET, Option
from uvtokend.core.model import Frozen, Request
from uvtokend.core.urls import IndexUrl

_API = "/api/v4/"
_INDEX = re.compile(r"/api/v4/(?:projects/(?P<project>[^/]+)|groups/[^/]+/-)/packages/pypi(?:/simple)?/?")
JOB_LOGIN = "gitlab-ci-token"


def _recognize(url: IndexUrl) -> dict[str, str] | None:
    return {} if url.known_host == "gitlab.com" and _INDEX.fullmatch(url.path) else None


def _server(url: IndexUrl) -> str:
    """Return the base URL of the GitLab server, below which its API is; empty if the URL does not contain it."""
    prefix, separator, _ = url.path.partition(_API)
    return f"{url.scheme}://{url.netloc}{prefix}" if separator else ""


def _prefix(url: IndexUrl) -> str:
    """Return the index's own root if its files are below it, else the root of the whole API."""
    server = _server(url)
    match = _INDEX.fullmatch(url.path.removeprefix(url.path.partition(_API)[0]))
    if not server or (match and (match["project"] or "").isdigit()):
        return url.root
    return f"{server}{_API}".rstrip("/")


def _upload(url: IndexUrl) -> str:
    return url.root


def _spends(request: Request) -> bool:
    """Return whether a fetch may rotate the token, which revokes the old one."""
    return request.option("rotate") is True


def _conflict(options: Mapping[str, Frozen]) -> Conflict | None:
    kind = options.get("kind", "personal")
    match options.get("token"):
        case (("file", str()),):
            is_file = True
        case _:
            is_file = False
    if options.get("rotate") is True and not (kind == "personal" and is_file):
        message = 'rotate = true only works with kind = "personal" and a token in a file, which is replaced.'
        return Conflict("rotate", message, "write token = { file = … }, or remove rotate")
    if kind == "deploy" and "username" not in options:
        message = "A deploy token only works together with its own user name."
        return Conflict("kind", message, "add username = …, which GitLab shows when the token is created")
    if kind == "job" and options.get("username", JOB_LOGIN) != JOB_LOGIN:
        return Conflict("username", f"The user name of a job token is always {JOB_LOGIN}.", "remove username")
    if kind == "personal" and options.get("username") == JOB_LOGIN:
        message = f"For the user name {JOB_LOGIN}, GitLab expects a job token."
        return Conflict("username", message, 'remove username, or write kind = "job"')
    return None


CLOUD = Cloud(
    provider="gitlab",
    title="GitLab",
    module="uvtokend.providers.gitlab.fetch",
    options={
        "token": Option(SECRET, required=True),
        "kind": Option(CHOICE, ("personal", "deploy", "job"), default="personal"),
        "username": Option(LOGIN),
        "rotate": Option(BOOLEAN),
    },
    recognize=_recognize,
    service=_server,
    prefix=_prefix,
    upload=_upload,
    path="/api/v4/",
    conflict=_conflict,
    spends=_spends,
)

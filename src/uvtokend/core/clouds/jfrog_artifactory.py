"""JFrog Artifactory, in JFrog's cloud and on self-hosted servers.

Sources: JFrog's documentation ("JFrog Cloud", "PyPI Repositories").
"""

from __future__ import annotations

import re

from uvtokend.core.clouds.catalog import Cloud, CloudProgram, SignInOptions, StoredSignIn, Watched
from uvtokend.core.config.values import CHOICE, LOGIN, SECRET, TEXT, Option
from uvtokend.core.model import Request
from uvtokend.core.urls import IndexUrl

#: A subscription's own host.
_HOST = re.compile(r"(?:[a-z0-9](?:[a-z0-9-]*[a-z0-9])?\.)+jfrog\.io")
#: The path of Artifactory's PyPI repositories below the platform.
_REPOSITORIES = "/artifactory/api/pypi/"


#: What `jf login` writes.
_SIGN_IN = Watched("~/.jfrog/jfrog-cli.conf.v6", "JFROG_CLI_HOME_DIR", "/jfrog-cli.conf.v6")


def _recognize(url: IndexUrl) -> dict[str, str] | None:
    return {} if _HOST.fullmatch(url.known_host) and re.match(rf"{_REPOSITORIES}[^/]", url.path) else None


def _platform(url: IndexUrl) -> str:
    """Return the platform's base URL, which its token service is below; empty if the URL does not show it."""
    prefix, separator, _ = url.path.partition(_REPOSITORIES)
    return f"{url.scheme}://{url.netloc}{prefix}" if separator else ""


def _spends(request: Request) -> bool:
    """Return whether a fetch exchanges a refresh token, which works only once."""
    return request.option("refresh-token") is not None


CLOUD = Cloud(
    provider="jfrog-artifactory",
    title="JFrog Artifactory",
    module="uvtokend.providers.jfrog.fetch",
    options={
        "username": Option(LOGIN),
        "password": Option(SECRET),
        "access-token": Option(SECRET),
        "refresh-token": Option(SECRET),
        "oidc-provider": Option(TEXT),
        "oidc-token": Option(SECRET),
        "project-key": Option(TEXT),
        "identity-mapping": Option(TEXT),
        "source": Option(CHOICE, ("jf",)),
    },
    recognize=_recognize,
    service=_platform,
    path=_REPOSITORIES,
    sign_ins=(
        SignInOptions(("username", "password")),
        SignInOptions(("access-token",), ("username",)),
        SignInOptions(("refresh-token",), ("username", "access-token")),
        SignInOptions(("oidc-provider", "oidc-token"), ("username", "project-key", "identity-mapping")),
        SignInOptions(("source",), ("username",)),
    ),
    watched=(_SIGN_IN,),
    spends=_spends,
    program=CloudProgram("jf", "jf login", "https://jfrog.com/getcli/"),
    stored=StoredSignIn({"source": "jf"}, _SIGN_IN),
    service_variables=("JFROG_CLI_HOME_DIR",),
)

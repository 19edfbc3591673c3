"""The known clouds: one catalog file each, and the functions that ask all of them.

Hosts are matched as a whole, never by their ends: ``…amazonaws.com.evil.example`` belongs to no cloud.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping
from importlib import import_module
from pkgutil import iter_modules

from uvtokend.core.clouds.catalog import Cloud
from uvtokend.core.clouds.static import CLOUD as STATIC
from uvtokend.core.config.values import PATH
from uvtokend.core.model import Env, Frozen, Notice, Request
from uvtokend.core.urls import IndexUrl


class _Clouds(Mapping[str, Cloud]):
    """The catalogs by provider name: the modules beside this one, each named after its provider.

    Each is imported when it is first asked for, since a worker needs only one of them.
    """

    def __init__(self) -> None:
        self._modules = {
            module.name.replace("_", "-"): f"{__name__}.{module.name}"
            for module in iter_modules(__path__)
            if module.name != "catalog"
        }
        self._loaded: dict[str, Cloud] = {}

    def __getitem__(self, provider: str) -> Cloud:
        if provider not in self._loaded:
            self._loaded[provider] = import_module(self._modules[provider]).CLOUD
        return self._loaded[provider]

    def __iter__(self) -> Iterator[str]:
        return iter(self._modules)

    def __len__(self) -> int:
        return len(self._modules)

    def __contains__(self, provider: object) -> bool:
        return provider in self._modules


#: Provider name -> its catalog. A missing name belongs to a plug-in.
CLOUDS: Mapping[str, Cloud] = _Clouds()
_SECRET_VARIABLE = re.compile(r"SECRET|TOKEN|PASSWORD|PASSPHRASE|KEY|CREDENTIAL", re.IGNORECASE)
_NAMES_A_FILE = re.compile(r"_(?:FILE|PATH|DIR|DIRECTORY|URI|URL|HOST|CREDENTIALS)$", re.IGNORECASE)


def recognize(url: IndexUrl) -> tuple[str, dict[str, str]] | None:
    """Return the provider that an index URL belongs to, and the options in the URL; None if no cloud knows it."""
    for name, cloud in CLOUDS.items():
        options = cloud.recognize(url)
        if options is not None:
            return name, options
    return None


def options_in_url(provider: str, url: IndexUrl) -> dict[str, str]:
    """Return the options that a URL contains for a provider; none if the URL is not one of that provider's."""
    return (CLOUDS[provider].recognize(url) or {}) if provider in CLOUDS else {}


def request(provider: str, url: IndexUrl, options: Mapping[str, Frozen], env: Mapping[str, str]) -> Request:
    """Return the request of an index. Equal requests share one lease.

    Args:
        provider: The provider's name; a plug-in gets the whole URL as its service.
        url: The index URL.
        options: The options, checked and frozen.
        env: Extra environment variables of the worker.
    """
    cloud = CLOUDS.get(provider)
    service = url.text if cloud is None else cloud.service(url)
    return Request(provider, service, tuple(sorted(options.items())), tuple(sorted(env.items())))


def store_service(provider: str, url: IndexUrl) -> str:
    """Return the URL prefix that a record of uv's store has for an index: for Azure that of the whole organization.

    Args:
        provider: The provider's name; a plug-in's record covers only the root of its index.
        url: The index URL.
    """
    from uvtokend.core.uv_store import normal  # noqa: PLC0415 - most daemons and no worker need the store

    return normal(CLOUDS.get(provider, STATIC).prefix(url))


def upload_url(provider: str, url: IndexUrl) -> str:
    """Return the URL that packages are published to."""
    return CLOUDS.get(provider, STATIC).upload(url)


def spends_one_time_secret(request: Request) -> bool:
    """Return whether a fetch spends a one-time secret: if its worker is killed, the sign-in may be lost."""
    cloud = CLOUDS.get(request.provider)
    return cloud is not None and cloud.spends(request)


def sign_in_paths(request: Request, environ: Env) -> Iterator[str]:
    """Yield the files and directories that change when a person signs in; ``~`` is not expanded.

    Args:
        request: The request; its options may name files.
        environ: The worker's environment, which may name other places.
    """
    cloud = CLOUDS.get(request.provider, STATIC)
    for place in cloud.watched:
        if path := place.path(environ):
            yield path
    for key, value in request.options:
        match value:
            case str(path) if key in cloud.options and cloud.options[key].kind == PATH:
                yield path
            case (("file", str(path)),):  # a reference to a secret, as the settings freeze it
                yield path


def stored_sign_ins(environ: Env, exists: Callable[[str], bool]) -> frozenset[str]:
    """Return the providers whose program keeps a sign-in on this machine that a fetch uses only if an option says so.

    Args:
        environ: The environment of a person's shell.
        exists: Returns whether a path exists; ``~`` is not expanded.
    """
    kept = {name: cloud.stored for name, cloud in CLOUDS.items() if cloud.stored is not None}
    return frozenset(name for name, stored in kept.items() if exists(stored.file.path(environ)))


def temporary_credentials(environ: Env, request: Request) -> Notice | None:
    """Return a notice if a request's worker would use temporary credentials from the daemon's environment.

    A shell with the keys of an assumed role, or with an access token, passes them on to a daemon that it starts. The
    environment of a process never changes afterwards. So once they have expired, every fetch fails, however often a
    person signs in.

    Args:
        environ: The daemon's environment.
        request: The request; its own ``env`` overrides the daemon's variables.
    """
    cloud = CLOUDS.get(request.provider, STATIC)
    own = dict(request.env)
    names = cloud.temporary({name: text for name, text in environ.items() if name not in own}, request)
    if not names:
        return None
    listed = ", ".join(names)
    message = (
        f"uvtokend was started from an environment with temporary credentials ({listed}). They are used instead of "
        "your sign-in, and nobody renews them when they expire."
    )
    return Notice("temporary-environment", message, f"unset {' '.join(names)} && uvtokend restart")


def notices(environ: Env, requests: Collection[Request]) -> dict[Request, tuple[Notice, ...]]:
    """Return the notices about requests that follow from the environment and the configuration.

    Args:
        environ: The daemon's environment.
        requests: All requests of the configuration.
    """
    together: dict[Request, Notice] = {}
    for cloud in CLOUDS.values():
        together |= cloud.together([request for request in requests if request.provider == cloud.provider])
    said = {request: (temporary_credentials(environ, request), together.get(request)) for request in requests}
    present = {request: tuple(notice for notice in pair if notice is not None) for request, pair in said.items()}
    return {request: told for request, told in present.items() if told}


def may_hold_secret(variable: str) -> bool:
    """Return whether an environment variable may contain a secret, judged by its name."""
    return bool(_SECRET_VARIABLE.search(variable)) and not _NAMES_A_FILE.search(variable)

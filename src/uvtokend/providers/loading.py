"""Load the provider that a request names: one of our own, or another package's."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable
from importlib import import_module

from uvtokend.core.clouds import CLOUDS
from uvtokend.core.model import Request
from uvtokend.providers.kit.failures import rejected

OWN_PACKAGE = "uvtokend"


def load(name: str) -> Callable[[Request], object]:
    """Return the function of a provider: one of our own, or a plug-in's (`uvtokend.providers.plugins`).

    Args:
        name: The provider's name in the configuration.

    Raises:
        FetchFailed: No package provides it, more than one does, or it cannot be imported.
    """
    cloud = CLOUDS.get(name)
    if cloud is not None:  # not looked up by its entry point, which takes longer and which a plug-in could replace
        return _function(name, OWN_PACKAGE, lambda: import_module(cloud.module).fetch)
    from uvtokend.providers import plugins  # noqa: PLC0415 - importlib.metadata costs more than our smallest providers

    point = plugins.one(name)
    return _function(name, plugins.package(point), point.load)


def _function(name: str, package: str, load_it: Callable[[], object]) -> Callable[[Request], object]:
    """Return the provider function of a package.

    Args:
        name: The provider's name.
        package: The package's name.
        load_it: Imports the provider.

    Raises:
        FetchFailed: The provider cannot be imported, or is not a function.
    """
    try:
        provider = load_it()
    except (Exception, SystemExit) as error:  # noqa: BLE001 - third-party code; its text may contain a secret
        missing = f": {error.name} is missing" if isinstance(error, ModuleNotFoundError) else ""
        why = f"cannot be imported ({type(error).__name__}{missing})"
    else:
        if callable(provider):
            return provider
        why = "is not a function"
    message = f"The provider {name!r} of the package {package} {why}."
    raise rejected("broken-provider", message, pip("install", "--reinstall", package)) from None


def pip(*words: str) -> str:
    """Return the command that changes the Python environment of this process."""
    verb, *more = words
    return shlex.join(["uv", "pip", verb, "--python", sys.executable, *more])

"""The files that a login changes, watched cheaply while a lease waits for one.

A look is a few stat calls. What our own fetches write there (an SSO cache, a token database) is no login: the caller
takes a new picture after each failed fetch and compares from there.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping

Picture = tuple[tuple[str, int, int], ...]

#: Per provider: (variable that names the place, where it is by default).
_PLACES: dict[str, tuple[tuple[str, str], ...]] = {
    "aws-codeartifact": (
        ("AWS_CONFIG_FILE", "~/.aws/config"),
        ("AWS_SHARED_CREDENTIALS_FILE", "~/.aws/credentials"),
        ("", "~/.aws/sso/cache"),
        ("", "~/.aws/cli/cache"),
    ),
    "google-artifact-registry": (
        ("GOOGLE_APPLICATION_CREDENTIALS", ""),
        ("CLOUDSDK_CONFIG", "~/.config/gcloud"),
    ),
    "azure-artifacts": (("AZURE_CONFIG_DIR", "~/.azure"),),
}


def picture(provider: str, environ: Mapping[str, str]) -> Picture:
    """Return what the login files of a provider look like now.

    Args:
        provider: The provider's name.
        environ: The worker's environment, which may name other places.
    """
    places = (environ.get(variable) or default for variable, default in _PLACES.get(provider, ()))
    return tuple(sorted(_look(os.path.expanduser(place) for place in places if place)))


def _look(paths: Iterable[str]) -> Iterable[tuple[str, int, int]]:
    for path in paths:
        try:
            if os.path.isdir(path):
                with os.scandir(path) as folder:
                    for file in folder:
                        if file.is_file():
                            stat = file.stat()
                            yield file.path, stat.st_mtime_ns, stat.st_size
            else:
                stat = os.stat(path)
                yield path, stat.st_mtime_ns, stat.st_size
        except OSError:
            continue

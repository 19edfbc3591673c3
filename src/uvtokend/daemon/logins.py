"""The files that a login changes, watched cheaply while a lease waits for one.

A look is a few stat calls. What our own fetches write there (an SSO cache, a token database) is no login: the caller
looks again after each failed fetch and compares from there, place by place, since other leases may share a place.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping

from uvtokend.core.model import Request

#: The files in a place: path, time of the last change in nanoseconds, and size.
Look = tuple[tuple[str, int, int], ...]

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


def pictures(request: Request, environ: Mapping[str, str]) -> dict[str, Look]:
    """Return what the places look like now from which a request's login comes.

    Args:
        request: Its provider has places of its own; its options may name files that hold secrets.
        environ: The worker's environment, which may name other places.
    """
    named = (environ.get(variable) or default for variable, default in _PLACES.get(request.provider, ()))
    places = [*(os.path.expanduser(place) for place in named if place), *_secret_files(request)]
    return {place: tuple(sorted(_look(place))) for place in places}


def _secret_files(request: Request) -> Iterator[str]:
    """Return the files of ``{ file = "~/x" }``, which is frozen as ``(("file", "/home/me/x"),)``."""
    for _, value in request.options:
        match value:
            case (("file", str(path)),):
                yield path


def _look(path: str) -> Iterable[tuple[str, int, int]]:
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
        return

"""The files that a login changes, watched cheaply while a lease waits for one.

A look is a few stat calls. What our own fetches write there (an SSO cache, a token database) is no login, but a person
may log in while one runs: so what has changed meanwhile is worth one more fetch, and no third.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping

from uvtokend.core.model import Request

Picture = tuple[tuple[str, int, int], ...]

#: Per provider: (variable that names the place, where it is by default).
_PLACES: dict[str, tuple[tuple[str, str], ...]] = {
    "aws-codeartifact": (
        ("AWS_CONFIG_FILE", "~/.aws/config"),
        ("AWS_SHARED_CREDENTIALS_FILE", "~/.aws/credentials"),
        ("", "~/.aws/sso/cache"),
        ("", "~/.aws/cli/cache"),
        ("AWS_LOGIN_CACHE_DIRECTORY", "~/.aws/login/cache"),  # of `aws login` (botocore utils.py)
    ),
    "google-artifact-registry": (
        ("GOOGLE_APPLICATION_CREDENTIALS", ""),
        ("CLOUDSDK_CONFIG", "~/.config/gcloud"),
    ),
    "azure-artifacts": (("AZURE_CONFIG_DIR", "~/.azure"),),
}


class Watch:
    """Remembers, for each request, what the files looked like when its last fetch began.

    Args:
        environment: What a request's worker gets as its environment.
    """

    def __init__(self, environment: Callable[[Request], Mapping[str, str]]) -> None:
        self._environment = environment
        self._seen: dict[Request, Picture] = {}
        self._twice: set[Request] = set()

    def begins(self, request: Request) -> None:
        """A fetch begins."""
        self._seen[request] = self._picture(request)

    def succeeds(self, request: Request) -> None:
        """It got a token."""
        self._twice.discard(request)

    def fails(self, request: Request) -> bool:
        """It needs a login; return whether one may have come while it ran."""
        moved = self.changed(request)
        self._seen[request] = self._picture(request)
        if moved and request not in self._twice:
            self._twice.add(request)
            return True
        self._twice.discard(request)
        return False

    def changed(self, request: Request) -> bool:
        """Return whether a login may have come since."""
        return self._picture(request) != self._seen.get(request)

    def _picture(self, request: Request) -> Picture:
        return picture(request, self._environment(request))


def picture(request: Request, environ: Mapping[str, str]) -> Picture:
    """Return what the files that a request's login is in look like now.

    Args:
        request: What is fetched; it may name files of its own.
        environ: Its worker's environment, which may name other places.
    """
    places = [environ.get(variable) or default for variable, default in _PLACES.get(request.provider, ())]
    home = environ.get("HOME") or os.path.expanduser("~")
    named = [home + place[1:] if place.startswith("~/") else place for place in (*places, *_named(request))]
    return tuple(sorted(_look(place for place in named if place)))


def _named(request: Request) -> Iterator[str]:
    for key, value in request.options:
        match value:
            case str(path) if key == "credentials-file":
                yield path
            case (("file", str(path)),):  # a secret reference, as the settings freeze it
                yield path


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

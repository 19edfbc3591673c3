"""The files that a sign-in changes, watched cheaply while a lease waits for one.

A look is a few stat calls. What our own fetches write there (an SSO cache, a token database) is not a sign-in, but a
person may sign in while a fetch runs. So a change during a fetch is worth one more fetch, and no third.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping

from uvtokend.core import clouds
from uvtokend.core.model import Request

Picture = tuple[tuple[str, int, int], ...]


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
        """Remember the files as they are when a fetch begins."""
        self._seen[request] = self._picture(request)

    def succeeds(self, request: Request) -> None:
        """Forget an earlier failure: the fetch got a token."""
        self._twice.discard(request)

    def fails(self, request: Request) -> bool:
        """Return whether a person may have signed in while a fetch ran that needs a sign-in."""
        moved = self.changed(request)
        self._seen[request] = self._picture(request)
        if moved and request not in self._twice:
            self._twice.add(request)
            return True
        self._twice.discard(request)
        return False

    def changed(self, request: Request) -> bool:
        """Return whether a person may have signed in since the last fetch began."""
        return self._picture(request) != self._seen.get(request)

    def _picture(self, request: Request) -> Picture:
        return picture(request, self._environment(request))


def picture(request: Request, environ: Mapping[str, str]) -> Picture:
    """Return what the files of a request's sign-in look like now.

    Args:
        request: What is fetched; its options may name files.
        environ: Its worker's environment, which may name other places.
    """
    home = environ.get("HOME") or os.path.expanduser("~")
    places = clouds.sign_in_paths(request, environ)
    return tuple(sorted(_look(home + place[1:] if place.startswith("~/") else place for place in places)))


def _look(paths: Iterable[str]) -> Iterable[tuple[str, int, int]]:
    for path in paths:
        try:
            if os.path.isdir(path):
                with os.scandir(path) as directory:
                    for file in directory:
                        if file.is_file():
                            stat = file.stat()
                            yield file.path, stat.st_mtime_ns, stat.st_size
            else:
                stat = os.stat(path)
                yield path, stat.st_mtime_ns, stat.st_size
        except OSError:
            continue

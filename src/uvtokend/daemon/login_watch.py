"""Watch the files that a sign-in changes, while a lease waits for a sign-in.

Each check takes a few stat calls. Our own fetches also write such files (an SSO cache, a token database), but a person
may sign in while a fetch runs. So a change during a fetch causes one more fetch, but never a third.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping

from uvtokend.core import clouds
from uvtokend.core.model import Request

Picture = tuple[tuple[str, int, int], ...]


class Watch:
    """Remembers, for each request, the state of the files when its last fetch began.

    Args:
        environment: Returns the environment of a request's worker.
    """

    def __init__(self, environment: Callable[[Request], Mapping[str, str]]) -> None:
        self._environment = environment
        self._seen: dict[Request, Picture] = {}
        self._twice: set[Request] = set()

    def begins(self, request: Request) -> None:
        """Remember the state of the files when a fetch begins."""
        self._seen[request] = self._picture(request)

    def succeeds(self, request: Request) -> None:
        """Forget an earlier failure, because a fetch succeeded."""
        self._twice.discard(request)

    def fails(self, request: Request) -> bool:
        """Return whether a person may have signed in while a fetch ran that failed for want of a sign-in."""
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
    """Return the current state of the files of a request's sign-in.

    Args:
        request: The request; its options may name files.
        environ: The worker's environment, which may name other places.
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

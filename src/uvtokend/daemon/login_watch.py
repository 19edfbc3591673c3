"""Watch the files that a sign-in changes, while a lease waits for a sign-in.

Each check takes a few stat calls, in the thread of `uvtokend.daemon.file_watch`: the home directory may be on a file
system that does not answer. Our own fetches also write such files (an SSO cache, a token database), but a person
may sign in while a fetch runs. So a change during a fetch causes one more fetch, but never a third.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable, Collection, Iterable, Mapping
from functools import partial

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
        self._seen: dict[Request, int] = {}  # hashes: of a thousand pictures, each would take 250 bytes
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

    def _picture(self, request: Request) -> int:
        return hash(picture(request, self._environment(request)))


class SignIns:
    """Has a `Watch` look at the files in another thread.

    Args:
        watch: The watch; only the other thread uses it from now on.
        run: Runs a function in the other thread, one after another.
        told: Called in the loop with the requests for which a person may have signed in.
    """

    def __init__(
        self, watch: Watch, run: Callable[[Callable[[], None]], None], told: Callable[[tuple[Request, ...]], None]
    ) -> None:
        self._watch = watch
        self._run = run
        self._told = told
        self._loop = asyncio.get_running_loop()

    def begins(self, request: Request) -> None:
        """Remember the state of the files when a fetch begins."""
        self._run(partial(self._watch.begins, request))

    def succeeds(self, request: Request) -> None:
        """Forget an earlier failure, because a fetch succeeded."""
        self._run(partial(self._watch.succeeds, request))

    def fails(self, request: Request) -> None:
        """Look whether a person signed in while a fetch ran that failed for want of a sign-in."""
        self._run(partial(self._look_after_failure, request))

    def look(self, blocked: Collection[Request], failed: Collection[Request]) -> None:
        """Look whether a person has signed in since the last fetches began.

        Args:
            blocked: The requests that wait for a person.
            failed: The requests to fetch if one of those may have its sign-in.
        """
        self._run(partial(self._look, tuple(blocked), tuple(failed)))

    def _look_after_failure(self, request: Request) -> None:
        if self._watch.fails(request):
            self._tell((request,))

    def _look(self, blocked: Collection[Request], failed: Collection[Request]) -> None:
        if any(self._watch.changed(request) for request in blocked):
            self._tell(tuple(request for request in failed if self._watch.changed(request)))

    def _tell(self, requests: tuple[Request, ...]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(self._told, requests)


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

"""How azure-identity and we reach the network: with our time limits, and with every answer remembered.

azure-core would wait 300 s for a connection and again for an answer, and azure-identity reports a refused connection, a
network's login page and a wrong secret by one class (``ClientAuthenticationError``). So what fails on the way is
classified here.
"""

from __future__ import annotations

from typing import Any

import requests

from uvtokend.errors import FetchFailed
from uvtokend.providers.kit import limits
from uvtokend.providers.kit.failures import transient
from uvtokend.providers.kit.http import Exchange, host_of, no_netrc, remembered, unsent, unwell

#: Seconds to wait for a connection, and then for an answer.
TIMEOUT = (6.0, 12.0)
#: The same for this machine's own identity endpoint; a network that has none lets packets for it vanish.
MACHINE_TIMEOUT = (2.0, 6.0)


class Line(requests.Session):
    """The session of one fetch.

    Attributes:
        last: The last exchange since `forget`.
        trouble: What the last call failed of, where that was the way there or the other side's own fault.
        refusal: The last answer since `forget` that names an OAuth error (RFC 6749 5.2): msal makes further calls after
            one, to look for aliases of its host.
    """

    def __init__(self) -> None:
        super().__init__()
        self.auth = no_netrc
        limits.mount(self)
        self.last: Exchange | None = None
        self.trouble: FetchFailed | None = None
        self.refusal: Exchange | None = None

    def forget(self) -> None:
        """Forget what was: what comes next is judged alone."""
        self.last = self.trouble = self.refusal = None

    def send(self, request: requests.PreparedRequest, **kwargs: Any) -> requests.Response:
        """Make one call; whoever calls, it follows no redirect, since a token may be on board."""
        url = request.url or ""
        ours = is_machine(url)
        kwargs |= {"timeout": MACHINE_TIMEOUT if ours else TIMEOUT, "allow_redirects": False, "stream": False}
        if ours:
            kwargs["proxies"] = {}  # it answers for this very machine
        self.last = self.trouble = None
        try:
            answer = super().send(request, **kwargs)
        except OSError as error:  # every error of requests is one
            self.trouble = unsent(url, error)
            raise
        self.last = remembered(url, answer.status_code, answer.headers, answer.content)
        self.trouble = unwell(self.last)
        if self.trouble is None and "error" in self.last.body:
            self.refusal = self.last
        return answer

    def ask(self, method: str, url: str, **more: Any) -> Exchange:
        """Make one call and return what came back.

        Raises:
            FetchFailed: Nobody answered, or what answered is not who was asked, or has a fault of its own.
        """
        try:
            self.request(method, url, **more)
        except (OSError, ValueError) as error:
            raise self.trouble or unsent(url, error) from None
        if self.trouble is not None or self.last is None:
            raise self.trouble or transient("no-answer", f"{host_of(url)} gave no answer.")
        return self.last


def is_machine(url: str) -> bool:
    """Tell whether a call is for this machine's own identity endpoint; all else goes over TLS."""
    return url.startswith("http://")

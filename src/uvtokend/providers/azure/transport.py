"""The HTTP transport for azure-identity and uvtokend: with our time limits, recording every response.

azure-core would wait 300 s for a connection and again for a response, and azure-identity reports a refused connection,
a network's login page and a wrong secret with the same class (``ClientAuthenticationError``). So failures on the wire
are classified here.
"""

from __future__ import annotations

from typing import Any

import requests

from uvtokend.plugin import FetchFailed, transient
from uvtokend.providers.kit import limits
from uvtokend.providers.kit.http import Exchange, host_of, no_netrc, remembered, unsent, unwell

#: Seconds to wait for a connection, and then for a response.
TIMEOUT = (6.0, 12.0)
#: The same for this machine's own identity endpoint. Networks without one silently drop the packets.
MACHINE_TIMEOUT = (2.0, 6.0)


class Line(requests.Session):
    """The session of one fetch.

    Attributes:
        last: The last exchange since `forget`.
        trouble: Why the last call failed, if the network or the server itself was at fault.
        refusal: The last response since `forget` that names an OAuth error (RFC 6749 5.2): msal makes further calls
            after one, to look up aliases of its host.
        verdict: Why the last POST failed, like `trouble`. The token endpoint is the only thing that the SDKs post to,
            and msal's look-up of aliases, which answers 200, would otherwise hide the failure, say Entra's 429.
    """

    def __init__(self) -> None:
        super().__init__()
        self.auth = no_netrc
        limits.mount(self)
        self.forget()

    def forget(self) -> None:
        """Forget all previous calls, so that only the next call counts."""
        self.last: Exchange | None = None
        self.refusal: Exchange | None = None
        self.trouble: FetchFailed | None = None
        self.verdict: FetchFailed | None = None

    def send(self, request: requests.PreparedRequest, **kwargs: Any) -> requests.Response:
        """Make one call. It never follows a redirect, because it may carry a token."""
        url = request.url or ""
        ours = is_machine(url)
        kwargs |= {"timeout": MACHINE_TIMEOUT if ours else TIMEOUT, "allow_redirects": False, "stream": False}
        if ours:
            kwargs["proxies"] = {}  # this endpoint is the machine's own
        self.last = self.trouble = None
        try:
            answer = super().send(request, **kwargs)
        except OSError as error:  # every error of requests is one
            self._judge(request, unsent(url, error))
            raise
        self.last = remembered(url, answer.status_code, answer.headers, answer.content)
        self._judge(request, unwell(self.last))
        if self.trouble is None and "error" in self.last.body:
            self.refusal = self.last
        return answer

    def _judge(self, request: requests.PreparedRequest, trouble: FetchFailed | None) -> None:
        self.trouble = trouble
        if request.method == "POST":
            self.verdict = trouble

    def ask(self, method: str, url: str, **more: Any) -> Exchange:
        """Make one call and return the exchange.

        Raises:
            FetchFailed: There was no response, or it is a login page, a fault of the server, or a request to wait.
        """
        try:
            self.request(method, url, **more)
        except (OSError, ValueError) as error:
            raise self.trouble or unsent(url, error) from None
        if self.trouble is not None or self.last is None:
            raise self.trouble or transient("no-answer", f"{host_of(url)} did not answer.")
        return self.last


def is_machine(url: str) -> bool:
    """Return whether a call goes to this machine's own identity endpoint; all other calls use TLS."""
    return url.startswith("http://")

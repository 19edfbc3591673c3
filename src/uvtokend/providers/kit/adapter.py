"""How a session of requests presents our client certificate (`uvtokend.providers.kit.trust`)."""

from __future__ import annotations

import os
from typing import Any

import requests
from requests.adapters import HTTPAdapter

from uvtokend.providers.kit import trust


def mount(session: requests.Session, adapter: HTTPAdapter | None = None) -> None:
    """Let a session present our client certificate to servers and to proxies.

    Raises:
        FetchFailed: The file that ``SSL_CLIENT_CERT`` names cannot be used.
    """
    session.cert = trust.client_certificate()
    for scheme in ("https://", "http://"):
        session.mount(scheme, adapter or Adapter())


class Adapter(HTTPAdapter):
    """Presents our client certificate to an HTTPS proxy too, which requests alone does not do."""

    def proxy_manager_for(self, proxy: str, **more: Any) -> Any:
        """Return urllib3's manager for a proxy."""
        path = trust.client_certificate()
        if path is not None and proxy.lower().startswith("https:"):
            more["proxy_ssl_context"] = context = trust.own_context(path)
            bundle = trust.ca_bundle()
            context.load_verify_locations(**{"capath" if os.path.isdir(bundle) else "cafile": bundle})
        return super().proxy_manager_for(proxy, **more)

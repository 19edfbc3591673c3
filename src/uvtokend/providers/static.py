"""static: a login and a secret that somebody else renews; it is read anew at every refresh."""

from __future__ import annotations

from datetime import UTC, datetime

from uvtokend.core.model import Credential, Request
from uvtokend.core.state import parse_zulu
from uvtokend.providers.failures import rejected
from uvtokend.providers.secrets import read_secret


def fetch(request: Request) -> Credential:
    """Read the secret.

    Args:
        request: Its options: ``username``, ``password`` (a reference) and maybe ``expires`` (RFC 3339).

    Raises:
        FetchFailed: The secret is not there, or has expired.
    """
    now = datetime.now(UTC)
    expires = parse_zulu(request.option("expires"))
    if expires is not None and expires <= now:
        message = f"The secret has expired: its date in the configuration is {request.option('expires')}."
        raise rejected("expired", message, "renew it, and write its new date as `expires`")
    return Credential(str(request.option("username")), read_secret(request.option("password")), now, expires)

"""nexus: read the user name and password for Sonatype Nexus, or the name code and pass code of a user token.

Nexus has no refresh. A user token may expire some time after its creation, if the administrator turned that on, and no
API returns the end. So both codes are read again from their source.
"""

from __future__ import annotations

from datetime import UTC, datetime

from uvtokend.plugin import Credential, Request, quiet, read_secret, rejected


@quiet
def fetch(request: Request) -> Credential:
    """Read the user name and the password.

    Args:
        request: Its options: ``username`` (text, or a secret reference, as for a name code) and ``password`` (a secret
            reference).

    Raises:
        FetchFailed: A secret cannot be read.
    """
    username = request.option("username")
    kept = not isinstance(username, str)
    login = read_secret(username).reveal() if kept else str(username)
    if not login or not login.isprintable() or ":" in login:
        where = "The secret behind username" if kept else "username"
        raise rejected("bad-options", f"{where} must be one line of text without a colon.")
    # A name code is a secret as well, so it is not shown as the identity.
    return Credential(
        login, read_secret(request.option("password")), datetime.now(UTC), identity=None if kept else login
    )

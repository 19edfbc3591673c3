"""What a JSON Web Token (RFC 7519) says of itself.

It is the server's to verify; we only read, so nothing here is to be relied on.
"""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime
from typing import Any


def claims(token: str) -> dict[str, Any]:
    """Return the claims of a token, without looking at its signature; none of what is no JWT."""
    try:
        middle = token.split(".")[1]
        found = json.loads(base64.urlsafe_b64decode(middle + "=" * (-len(middle) % 4)))
    except (IndexError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def end(token: str) -> datetime | None:
    """Return the end of life that a token names (``exp``, RFC 7519 4.1.4), on its issuer's clock; None without one."""
    told = claims(token).get("exp")
    if isinstance(told, bool) or not isinstance(told, int | float):
        return None
    try:
        return datetime.fromtimestamp(told, UTC)
    except (ValueError, OverflowError, OSError):
        return None

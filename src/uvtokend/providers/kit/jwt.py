"""Read the claims of a JSON Web Token (RFC 7519).

Signatures are not verified (the server does that), so the claims must not be trusted.
"""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime
from typing import Any


def claims(token: str) -> dict[str, Any]:
    """Return the unverified claims of a token; an empty dict if it is not a JWT."""
    try:
        middle = token.split(".")[1]
        document = json.loads(base64.urlsafe_b64decode(middle + "=" * (-len(middle) % 4)))
    except (IndexError, ValueError, RecursionError):
        return {}
    return document if isinstance(document, dict) else {}


def end(token: str) -> datetime | None:
    """Return the expiry of a token (``exp``, RFC 7519 4.1.4) on its issuer's clock; None if it has none."""
    told = claims(token).get("exp")
    if isinstance(told, bool) or not isinstance(told, int | float):
        return None
    try:
        return datetime.fromtimestamp(told, UTC)
    except (ValueError, OverflowError, OSError):
        return None

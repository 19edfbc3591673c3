"""``uvtokend credential-helper get``: read Bazel's request as JSON from standard input, and print the response.

https://github.com/EngFlow/credential-helper-spec, ``spec.md`` and its two schemas.
"""

from __future__ import annotations

import argparse
import base64
import json
import sys

from uvtokend import ask
from uvtokend.cli import console
from uvtokend.errors import OK, NotRunning, UvtokendError

EXAMPLES = ("uvtokend credential-helper get",)
DETAILS = """\
Reads {"uri": "https://…"} from standard input and prints {"headers": …, "expires": …}. In .bazelrc:
  common --credential_helper=HOST=/path/to/a/script
where the script runs: exec uvtokend credential-helper "$@" """

#: The most bytes of a request, which is one URL.
_LIMIT = 64 * 1024
#: The characters of a time up to its seconds.
_SECONDS = len("2026-01-31T08:00:00")


def arguments(own: argparse.ArgumentParser) -> None:
    """Add the arguments of this verb."""
    own.add_argument("action", metavar="get", choices=("get",), help="the only command of the specification")


def run(_args: argparse.Namespace) -> int:
    """Answer one request.

    Raises:
        UvtokendError: The input is not a request, its URL belongs to no index, or there is no valid token.
    """
    uri = _uri(sys.stdin.buffer.read(_LIMIT + 1))
    try:
        credential = ask.credential(uri, None, shim=True)
    except NotRunning as error:
        raise UvtokendError(error.message, error.hint) from None
    if credential is None:
        message = "The requested URI belongs to no index in config.toml."
        raise UvtokendError(message, "uvtokend list")
    console.out(json.dumps(response(credential)) + "\n")
    return OK


def response(credential: ask.ServedCredential) -> dict[str, object]:
    """Return the response for a credential: Basic authentication (RFC 7617), and when to ask again (RFC 3339).

    Bazel refuses a whole response whose time has a fraction of a second (``GetCredentialsResponse.java``,
    `RFC_3339_FORMATTER`), so the fraction is cut off.
    """
    pair = base64.b64encode(f"{credential.login}:{credential.token}".encode()).decode()
    answer: dict[str, object] = {"headers": {"Authorization": [f"Basic {pair}"]}}
    return answer if credential.expires_at is None else {**answer, "expires": f"{credential.expires_at[:_SECONDS]}Z"}


def _uri(request: bytes) -> str:
    hint = 'send one JSON object such as {"uri": "https://example.com/simple/"}'
    try:
        document = json.loads(request) if len(request) <= _LIMIT else None
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict) or not isinstance(document.get("uri"), str):
        message = "Standard input is not a request of the credential helper specification."
        raise UvtokendError(message, hint)
    return str(document["uri"])

"""Temporary credentials in the daemon's own environment: they die, and meanwhile they shadow the login.

A shell that holds the keys of an assumed role, or an access token, hands them on to a daemon that is started from it.
A process's environment never changes afterwards, so after their end every fetch fails, however often one logs in.

What is looked for is what the SDKs read. boto3: botocore ``credentials.py``, `EnvProvider`, which stands before every
profile but one that is chosen by name (`create_credential_resolver`). gcloud: a token and the file of one, either of
which replaces the active account (its authorisation guide; googleapis/google-cloud-python issue 15199, which also says
that google-auth reads neither). azure-identity reads no token from the environment (its ``_constants.py``).
"""

from __future__ import annotations

from uvtokend.core.model import Env, Notice, Request

_AWS_TOKENS = ("AWS_SECURITY_TOKEN", "AWS_SESSION_TOKEN")
_AWS_KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", *_AWS_TOKENS, "AWS_CREDENTIAL_EXPIRATION")
_GCLOUD = ("CLOUDSDK_AUTH_ACCESS_TOKEN", "CLOUDSDK_AUTH_ACCESS_TOKEN_FILE")
#: What the id of a temporary key begins with (IAM user guide, "Understanding unique ID prefixes").
_TEMPORARY_KEY = "ASIA"


def temporary_credentials(environ: Env, request: Request) -> Notice | None:
    """Return the temporary credentials that a request's worker would take from the daemon's environment.

    Args:
        environ: The daemon's environment.
        request: What is fetched; a variable that its own ``env`` sets is no longer the daemon's.
    """
    own = dict(request.env)
    found = {name: text for name, text in environ.items() if text and name not in own}
    names = _temporary(found, request)
    if not names:
        return None
    what = f"The environment that uvtokend was started from holds temporary credentials ({', '.join(names)})."
    message = f"{what} They come before your login now, and will end without being renewed."
    return Notice("temporary-environment", message, f"unset {' '.join(names)} && uvtokend restart")


def _temporary(found: Env, request: Request) -> tuple[str, ...]:
    match request.provider:
        case "aws-codeartifact" if request.option("profile") is None:
            return _temporary_keys(found)
        case "google-artifact-registry" if request.option("source") == "gcloud":
            return tuple(name for name in _GCLOUD if name in found)
    return ()


def _temporary_keys(found: Env) -> tuple[str, ...]:
    key = found.get("AWS_ACCESS_KEY_ID", "")
    if key.startswith(_TEMPORARY_KEY) or (key and any(name in found for name in _AWS_TOKENS)):
        return tuple(name for name in _AWS_KEYS if name in found)
    return ()

"""AWS CodeArtifact.

Sources: the CodeArtifact user guide ("Repository endpoints", "Use CodeArtifact from a VPC") and its API reference;
botocore ``credentials.py`` and ``configprovider.py``; the IAM user guide ("Understanding unique ID prefixes").
"""

from __future__ import annotations

import re

from uvtokend.core.clouds.catalog import Cloud, CloudProgram, Watched
from uvtokend.core.config.values import ACCOUNT, DURATION, TEXT, Option
from uvtokend.core.model import Env, Json, Request
from uvtokend.core.urls import IndexUrl

_REGION = r"(?P<region>[a-z]{2}(?:-[a-z]+)+-[0-9]{1,2})"
_DOMAIN = r"(?P<domain>[a-z][a-z0-9-]{0,48}[a-z0-9])-(?P<owner>[0-9]{12})"
#: Partitions as in botocore's partitions.json.
_HOST = re.compile(
    rf"{_DOMAIN}\.d\.codeartifact\.{_REGION}\.amazonaws\.com(?:\.cn)?|"
    rf"{_DOMAIN.replace('P<', 'P<d_')}\.codeartifact\.{_REGION.replace('P<', 'P<d_')}\.on\.aws"
)
#: Interface endpoints have domain and owner in the path.
_VPC_HOST = re.compile(rf"vpce-[a-z0-9-]+\.d\.codeartifact\.{_REGION}\.vpce\.amazonaws\.com(?:\.cn)?")
_VPC_PATH = re.compile(rf"/pypi/d/{_DOMAIN}/.+")

#: These variables override every profile except one that is chosen by name (botocore, `create_credential_resolver`,
#: `EnvProvider`).
_TOKENS = ("AWS_SECURITY_TOKEN", "AWS_SESSION_TOKEN")
_KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", *_TOKENS, "AWS_CREDENTIAL_EXPIRATION")
#: The beginning of the ID of a temporary key.
_TEMPORARY_KEY = "ASIA"


def _recognize(url: IndexUrl) -> dict[str, str] | None:
    match = _HOST.fullmatch(url.known_host)
    parts = match.groupdict() if match else {}
    if vpc := _VPC_HOST.fullmatch(url.known_host):
        path = _VPC_PATH.fullmatch(url.path)
        parts = {**vpc.groupdict(), **path.groupdict()} if path else {}
    known = {name.removeprefix("d_"): text for name, text in parts.items() if text}
    if not known:
        return None
    return {"domain": known["domain"], "domain-owner": known["owner"], "region": known["region"]}


def _temporary(environ: Env, request: Request) -> tuple[str, ...]:
    key = environ.get("AWS_ACCESS_KEY_ID", "")
    is_temporary = key.startswith(_TEMPORARY_KEY) or (key and any(environ.get(name) for name in _TOKENS))
    if request.option("profile") is not None or not is_temporary:
        return ()
    return tuple(name for name in _KEYS if environ.get(name))


def _defaults(environ: Env) -> dict[str, Json]:
    """Return the current profile, since the daemon may not see the variable. botocore reads the two in this order."""
    profile = environ.get("AWS_DEFAULT_PROFILE") or environ.get("AWS_PROFILE")
    return {"profile": profile} if profile else {}


CLOUD = Cloud(
    provider="aws-codeartifact",
    title="AWS CodeArtifact",
    module="uvtokend.providers.aws.fetch",
    options={
        "profile": Option(TEXT),
        "role-arn": Option(TEXT),
        "domain": Option(TEXT, required=True, from_url=True),
        "domain-owner": Option(ACCOUNT, required=True, from_url=True),
        "region": Option(TEXT, required=True, from_url=True),
        # GetAuthorizationToken, durationSeconds: 0 (as long as the caller's own credentials) or 15 minutes to 12 hours.
        "duration": Option(DURATION, low=900, high=43200, zero=True),
    },
    recognize=_recognize,
    login="aws",
    watched=(
        Watched("~/.aws/config", "AWS_CONFIG_FILE"),
        Watched("~/.aws/credentials", "AWS_SHARED_CREDENTIALS_FILE"),
        Watched("~/.aws/sso/cache"),
        Watched("~/.aws/cli/cache"),
        Watched("~/.aws/login/cache", "AWS_LOGIN_CACHE_DIRECTORY"),  # of `aws login` (botocore utils.py)
    ),
    temporary=_temporary,
    defaults=_defaults,
    program=CloudProgram(
        "aws", "aws sso login", "https://docs.aws.amazon.com/cli/latest/userguide/getting-started-install.html"
    ),
    service_variables=("AWS_*",),
)

"""Classify the exceptions of botocore. The exceptions are those of botocore.exceptions, the codes those of the APIs."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Mapping
from typing import Any

from botocore import exceptions as raised
from botocore.parsers import ResponseParserError

from uvtokend.plugin import Failure, FailureKind, excerpt, parse_http_date, parse_retry_after, show_clock, too_much
from uvtokend.providers.aws.sign_in import ProfileSignIn
from uvtokend.providers.kit import trust

RIGHTS = "ask for codeartifact:GetAuthorizationToken and sts:GetServiceBearerToken"
_RIGHTS_OF = {
    "AssumeRole": "ask for sts:AssumeRole on the role, and to be added to its trust policy",
    "AssumeRoleWithWebIdentity": "ask to be added to the role's trust policy",
    "GetRoleCredentials": "ask for the profile's sso_account_id and sso_role_name in IAM Identity Center",
}
CA_BUNDLE = 'if a proxy opens TLS here, set ca-bundle = "…" in [daemon] of config.toml'
PORTAL = Failure("transient", "captive-portal", "Something between this machine and AWS answered instead of AWS.")

#: Exception -> kind, reason, sentence; ``{profile}`` is the profile's name. The nearest base class counts.
_BY_TYPE: dict[type[BaseException], tuple[FailureKind, str, str]] = {
    raised.ProfileNotFound: ("rejected", "no-profile", "{profile} does not exist."),
    raised.NoCredentialsError: ("login-required", "no-credentials", "No AWS credentials found for {profile}."),
    raised.PartialCredentialsError: (
        "login-required",
        "no-credentials",
        "{profile} has incomplete credentials.",
    ),
    raised.UnauthorizedSSOTokenError: (
        "login-required",
        "sso-expired",
        "The SSO session of {profile} has expired.",
    ),
    raised.SSOTokenLoadError: ("login-required", "sso-expired", "There is no SSO session for {profile}."),
    raised.TokenRetrievalError: ("login-required", "sso-expired", "The SSO session of {profile} has expired."),
    raised.SSOError: ("login-required", "sso-expired", "The SSO session of {profile} cannot be used."),
    raised.LoginError: ("login-required", "login-expired", "The session of aws login has expired for {profile}."),
    raised.LoginInsufficientPermissions: ("rejected", "denied", "AWS refuses to renew the session of aws login."),
    raised.MissingDependencyException: ("rejected", "no-crt", "The session of aws login for {profile} needs awscrt."),
    raised.RefreshWithMFAUnsupportedError: ("login-required", "mfa", "The role of {profile} needs an MFA code."),
    raised.NoRegionError: ("rejected", "no-region", "{profile} has no region for a step of the sign-in."),
    raised.InvalidRegionError: ("rejected", "bad-option", "The region is not a valid AWS region."),
    raised.BaseEndpointResolverError: ("rejected", "bad-option", "AWS has no such service in this region."),
    raised.EndpointProviderError: ("rejected", "bad-option", "AWS has no such service in this region."),
    raised.InvalidConfigError: ("rejected", "bad-profile", "The settings of {profile} are invalid."),
    raised.InfiniteLoopConfigError: ("rejected", "bad-profile", "source_profile of {profile} leads back to itself."),
    raised.ConfigParseError: ("rejected", "bad-profile", "The AWS configuration files cannot be parsed."),
    raised.ConfigNotFound: ("rejected", "bad-profile", "The AWS configuration file does not exist."),
    raised.ParamValidationError: ("rejected", "bad-option", "The AWS API does not allow one of the options."),
    raised.SSLError: ("transient", "tls", "The TLS certificate presented for AWS is not trusted."),
    raised.ProxyConnectionError: ("transient", "unreachable", "The proxy that is set for AWS cannot be used."),
    raised.ConnectTimeoutError: ("transient", "timeout", "AWS did not answer in time."),
    raised.ReadTimeoutError: ("transient", "timeout", "AWS did not answer in time."),
    raised.ConnectionError: ("transient", "unreachable", "AWS cannot be reached."),
    raised.HTTPClientError: ("transient", "unreachable", "AWS cannot be reached."),
    raised.MetadataRetrievalError: ("transient", "no-metadata", "The role of this machine or container is unknown."),
    ResponseParserError: ("transient", "captive-portal", PORTAL.message),
    json.JSONDecodeError: ("rejected", "bad-process", "The credential_process of {profile} did not print JSON."),
    UnicodeDecodeError: ("rejected", "bad-process", "The credential_process of {profile} did not print text."),
    EOFError: ("login-required", "mfa", "The role of {profile} needs an MFA code."),
    FileNotFoundError: ("rejected", "no-file", "A program or file that {profile} names does not exist."),
    PermissionError: ("rejected", "no-file", "A program or file that {profile} names cannot be used: no permission."),
    RecursionError: ("transient", "captive-portal", PORTAL.message),
    RuntimeError: ("login-required", "credentials-expired", "The credentials of {profile} have expired."),
    ValueError: ("rejected", "bad-profile", "The settings of {profile} are invalid."),
}

#: The source that returned no credentials, in botocore's words -> kind, reason, sentence.
_BY_SOURCE: dict[str, tuple[FailureKind, str, str]] = {
    "custom-process": ("login-required", "credential-process", "The credential_process of {profile} failed."),
    "Environment": ("login-required", "no-credentials", "The environment contains no AWS credentials."),
}
_NO_METADATA: tuple[FailureKind, str, str] = (
    "transient",
    "no-metadata",
    "The role of this machine or container is unknown.",
)
_BAD_IDENTITY: tuple[FailureKind, str, str] = (
    "login-required",
    "bad-identity",
    "AWS refuses the web identity: the token in its file has expired or is not for this role.",
)

#: Error code, or operation and error code -> kind, reason, sentence.
_BY_CODE: dict[str, tuple[FailureKind, str, str]] = {
    **dict.fromkeys(
        ("ExpiredToken", "ExpiredTokenException", "RequestExpired", "TokenRefreshRequired"),
        ("login-required", "credentials-expired", "The credentials of {profile} have expired."),
    ),
    **dict.fromkeys(
        ("UnrecognizedClientException", "InvalidClientTokenId", "InvalidAccessKeyId", "AuthFailure"),
        ("login-required", "bad-credentials", "AWS does not know the credentials of {profile}."),
    ),
    **dict.fromkeys(
        ("InvalidSignatureException", "SignatureDoesNotMatch"),
        ("login-required", "bad-credentials", "AWS refuses the signature: the secret key of {profile} is wrong."),
    ),
    **dict.fromkeys(
        (
            "InvalidIdentityToken",
            "IDPRejectedClaim",
            "AssumeRoleWithWebIdentity/ExpiredToken",
            "AssumeRoleWithWebIdentity/ExpiredTokenException",
        ),
        _BAD_IDENTITY,
    ),
    "UnauthorizedException": ("login-required", "bad-identity", "AWS refuses the token of the identity."),
    **dict.fromkeys(
        ("AccessDenied", "AccessDeniedException", "UnauthorizedOperation", "ForbiddenException"),
        ("rejected", "denied", "AWS denied access to {profile}."),
    ),
    "GetRoleCredentials/ResourceNotFoundException": (
        "rejected",
        "denied",
        "AWS SSO has no such account or role as {profile} names.",
    ),
    **dict.fromkeys(
        ("ThrottlingException", "Throttling", "TooManyRequestsException", "RequestLimitExceeded", "SlowDownException"),
        ("transient", "throttled", "AWS is throttling requests."),
    ),
    "IDPCommunicationError": ("transient", "server-error", "AWS could not reach the identity provider."),
    "RegionDisabledException": ("rejected", "bad-option", "The region is disabled for this account."),
    "ResourceNotFoundException": ("rejected", "no-domain", "The CodeArtifact domain does not exist."),
    "ValidationException": ("rejected", "bad-option", "CodeArtifact does not allow one of the options."),
    "ServiceQuotaExceededException": ("rejected", "quota", "A quota of CodeArtifact is used up."),
}
#: The variables that botocore reads for its CA bundle (its ``configprovider.py`` and ``endpoint.py``).
CA_VARIABLES = ("AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE")
#: The exceptions of botocore if TLS fails; the peer's alert may arrive when the connection is already in use.
_OF_TLS = (raised.SSLError, raised.HTTPClientError, FileNotFoundError)
#: The text for ``{profile}`` if the failing keys are not a profile's.
_ENVIRONMENT = "the environment that uvtokend was started from"


def classify(error: Exception, sign_in: ProfileSignIn, renewal: Mapping[str, Any] | None = None) -> Failure:
    """Return what an exception of boto3 or botocore means.

    Args:
        error: The exception. Its text is used only if AWS wrote it; other texts may contain a secret from a
            credential_process.
        sign_in: How a person signs in to the profile.
        renewal: The response of SSO to the renewal of the session, as botocore parsed it.
    """
    if isinstance(error, raised.TokenRetrievalError) and renewal is not None:
        answered = _answered(renewal, "CreateToken", sign_in)
        if answered.kind == "transient":  # botocore treats a server error as the end of the session
            return answered
    if isinstance(error, raised.ClientError):
        return _answered(error.response, error.operation_name, sign_in)
    ours = trust.problem(error, "AWS", CA_VARIABLES) if isinstance(error, _OF_TLS) else None
    if ours is not None:
        return ours.failure
    if isinstance(error, raised.CredentialRetrievalError):
        kind, reason, message = _BY_SOURCE.get(error.kwargs.get("provider", ""), _NO_METADATA)
        hint = sign_in.command if reason == "no-credentials" else sign_in.whoami
        return Failure(kind, reason, _sentence(message, sign_in), hint)
    cause = error.kwargs.get("error") if isinstance(error, raised.HTTPClientError) else error
    if isinstance(cause, MemoryError):  # the worker's limit, because botocore has none
        return too_much("AWS").failure
    for base in type(error).__mro__:
        if base in _BY_TYPE:
            kind, reason, message = _BY_TYPE[base]
            return Failure(kind, reason, _sentence(message, sign_in), _hint(reason, sign_in))
    name = type(error).__name__
    return Failure("transient", "unexpected", f"The AWS library failed with an unexpected error ({name}).")


def garbled(sign_in: ProfileSignIn, renewal: Mapping[str, Any] | None = None) -> Failure:
    """Return the failure if botocore could not parse the response or file that should contain keys.

    Args:
        sign_in: How a person signs in to the profile.
        renewal: See `classify`.
    """
    if renewal is not None and "accessToken" not in renewal:
        return PORTAL
    if sign_in.kind == "process":
        message = f"The credential_process of {sign_in.name} did not print credentials in the format that AWS defines."
        return Failure("rejected", "bad-process", message, sign_in.whoami)
    if sign_in.kind == "sso":
        message = f"The cached AWS SSO session of {sign_in.name} cannot be read."
        return Failure("login-required", "sso-expired", message, sign_in.command)
    kind, reason, message = _NO_METADATA
    return Failure(kind, reason, message, sign_in.whoami)


def _answered(response: Mapping[str, Any], operation: str, sign_in: ProfileSignIn) -> Failure:
    """Classify a response of AWS: by its code, or else by its status."""
    details: Mapping[str, Any] = response.get("Error", {})
    http: Mapping[str, Any] = response.get("ResponseMetadata", {})
    headers: Mapping[str, str] = http.get("HTTPHeaders") or {}
    status, code = int(http.get("HTTPStatusCode", 0)), str(details.get("Code", ""))
    said = excerpt(str(details.get("Message", "")))
    if "Signature expired" in said or "Signature not yet current" in said:
        return Failure("transient", "clock-skew", "This machine's clock differs too much from AWS's.", show_clock())
    wait = _retry_after(headers)
    known = _BY_CODE.get(f"{operation}/{code}") or _BY_CODE.get(code)
    if known is None and (status >= 500 or status in {0, 429}):
        reason = "throttled" if status == 429 else "server-error"
        return Failure("transient", reason, f"AWS answered with HTTP {status}.", None, wait)
    if known is None and (status < 400 or headers.get("content-type", "").startswith("text/html")):
        return PORTAL  # AWS neither redirects these calls nor returns HTML
    kind, reason, message = known or ("rejected", "refused", f"AWS refused the request with HTTP {status}.")
    message = _sentence(message, sign_in)
    sentence = f"{message.removesuffix('.')}: {said.removesuffix('.')}." if said and kind == "rejected" else message
    hint = _RIGHTS_OF.get(operation, RIGHTS) if reason == "denied" else _hint(reason, sign_in)
    return Failure(kind, reason, sentence, hint, wait)


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the seconds to wait; AWS's own header has milliseconds (botocore ``retries/standard.py``)."""
    own = headers.get("x-amz-retry-after", "")
    seconds = str(-(-int(own) // 1000)) if own.isascii() and own.isdigit() and len(own) < 12 else None
    return parse_retry_after(headers.get("retry-after") or seconds, parse_http_date(headers.get("date")))


def _sentence(message: str, sign_in: ProfileSignIn) -> str:
    whole = message.format(profile=_ENVIRONMENT if sign_in.kind == "environment" else sign_in.name)
    return whole[:1].upper() + whole[1:]


def _hint(reason: str, sign_in: ProfileSignIn) -> str | None:
    return {
        "no-credentials": sign_in.command,
        "sso-expired": sign_in.command,
        "login-expired": sign_in.command,
        "credentials-expired": sign_in.command,
        "bad-credentials": sign_in.command,
        "no-region": sign_in.command,
        "no-profile": sign_in.command,
        "mfa": sign_in.whoami,
        "bad-process": sign_in.whoami,
        "no-file": sign_in.whoami,
        "bad-profile": sign_in.whoami,
        "bad-identity": sign_in.whoami,
        "denied": RIGHTS,
        "no-domain": "check domain, domain-owner and region of the index",
        "bad-option": "check domain, domain-owner, region and duration of the index",
        "tls": CA_BUNDLE,
        "no-crt": f"uv pip install --python {shlex.quote(sys.executable)} 'uvtokend[aws-login]'",
    }.get(reason)

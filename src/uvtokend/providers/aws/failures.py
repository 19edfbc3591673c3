"""What botocore raises, and what it means for a person. Exceptions as in botocore.exceptions, codes as in the APIs."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Mapping
from typing import Any

from botocore import exceptions as raised
from botocore.parsers import ResponseParserError

from uvtokend.plugin import Failure, FailureKind, excerpt, parse_http_date, parse_retry_after, show_clock, too_much
from uvtokend.providers.aws.sign_in import Login

RIGHTS = "ask for codeartifact:GetAuthorizationToken and sts:GetServiceBearerToken"
_RIGHTS_OF = {
    "AssumeRole": "ask for sts:AssumeRole on the role, and for a place in its trust policy",
    "AssumeRoleWithWebIdentity": "ask for a place in the role's trust policy",
    "GetRoleCredentials": "ask for the profile's sso_account_id and sso_role_name in IAM Identity Center",
}
CLOCK = show_clock()
CA_BUNDLE = 'if a proxy opens TLS here, set ca-bundle = "…" in [daemon] of the configuration'
PORTAL = Failure("transient", "captive-portal", "Something that is not AWS answered in its place.")

#: Exception -> kind, reason, sentence. The nearest base class counts.
_BY_TYPE: dict[type[BaseException], tuple[FailureKind, str, str]] = {
    raised.ProfileNotFound: ("rejected", "no-profile", "There is no such AWS profile."),
    raised.NoCredentialsError: ("login-required", "no-credentials", "No AWS credentials were found."),
    raised.PartialCredentialsError: ("login-required", "no-credentials", "The AWS credentials are incomplete."),
    raised.UnauthorizedSSOTokenError: ("login-required", "sso-expired", "The AWS SSO session has ended."),
    raised.SSOTokenLoadError: ("login-required", "sso-expired", "There is no AWS SSO session."),
    raised.TokenRetrievalError: ("login-required", "sso-expired", "The AWS SSO session has ended."),
    raised.SSOError: ("login-required", "sso-expired", "The AWS SSO session cannot be used."),
    raised.LoginError: ("login-required", "login-expired", "The session of aws login has ended."),
    raised.LoginInsufficientPermissions: ("rejected", "denied", "AWS refuses to renew the session of aws login."),
    raised.MissingDependencyException: ("rejected", "no-crt", "This kind of login needs awscrt beside botocore."),
    raised.RefreshWithMFAUnsupportedError: ("login-required", "mfa", "The AWS role asks for an MFA code."),
    raised.NoRegionError: ("rejected", "no-region", "No AWS region is known for a step of the login."),
    raised.InvalidRegionError: ("rejected", "bad-option", "The region is not one that AWS could have."),
    raised.BaseEndpointResolverError: ("rejected", "bad-option", "AWS has no such service in this region."),
    raised.EndpointProviderError: ("rejected", "bad-option", "AWS has no such service in this region."),
    raised.InvalidConfigError: ("rejected", "bad-profile", "The AWS profile's settings cannot be used."),
    raised.InfiniteLoopConfigError: ("rejected", "bad-profile", "The profile's source_profile leads in a circle."),
    raised.ConfigParseError: ("rejected", "bad-profile", "The AWS configuration files cannot be read."),
    raised.ConfigNotFound: ("rejected", "bad-profile", "The AWS configuration file is not there."),
    raised.ParamValidationError: ("rejected", "bad-option", "The AWS API does not allow one of the options."),
    raised.SSLError: ("transient", "tls", "The certificate that AWS was answered with is not trusted."),
    raised.ProxyConnectionError: ("transient", "unreachable", "The proxy that is set for AWS could not be used."),
    raised.ConnectTimeoutError: ("transient", "timeout", "AWS did not answer in time."),
    raised.ReadTimeoutError: ("transient", "timeout", "AWS did not answer in time."),
    raised.ConnectionError: ("transient", "unreachable", "AWS could not be reached."),
    raised.HTTPClientError: ("transient", "unreachable", "AWS could not be reached."),
    raised.MetadataRetrievalError: ("transient", "no-metadata", "The instance's or container's role was not told."),
    ResponseParserError: ("transient", "captive-portal", "Something that is not AWS answered in its place."),
    json.JSONDecodeError: ("rejected", "bad-process", "The credential_process did not print JSON."),
    UnicodeDecodeError: ("rejected", "bad-process", "The credential_process did not print text."),
    EOFError: ("login-required", "mfa", "The AWS role asks for an MFA code."),
    FileNotFoundError: ("rejected", "no-file", "A program or file that the AWS profile names is missing."),
    PermissionError: ("rejected", "no-file", "A program or file that the AWS profile names may not be used."),
    RecursionError: ("transient", "captive-portal", "Something that is not AWS answered in its place."),
    RuntimeError: ("login-required", "credentials-expired", "The AWS credentials have expired."),
    ValueError: ("rejected", "bad-profile", "The AWS profile's settings cannot be used."),
}

#: What gave no credentials, in botocore's words -> kind, reason, sentence.
_BY_SOURCE: dict[str, tuple[FailureKind, str, str]] = {
    "custom-process": ("login-required", "credential-process", "The credential_process of the AWS profile failed."),
    "Environment": ("login-required", "no-credentials", "The environment holds no AWS credentials."),
}
_NO_METADATA: tuple[FailureKind, str, str] = (
    "transient",
    "no-metadata",
    "The instance's or container's role was not told.",
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
        ("login-required", "credentials-expired", "The AWS credentials have expired."),
    ),
    **dict.fromkeys(
        ("UnrecognizedClientException", "InvalidClientTokenId", "InvalidAccessKeyId", "AuthFailure"),
        ("login-required", "bad-credentials", "AWS does not know these credentials."),
    ),
    **dict.fromkeys(
        ("InvalidSignatureException", "SignatureDoesNotMatch"),
        ("login-required", "bad-credentials", "AWS refuses the signature: the secret key is wrong."),
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
    "UnauthorizedException": ("login-required", "bad-identity", "AWS refuses the identity's own token."),
    **dict.fromkeys(
        ("AccessDenied", "AccessDeniedException", "UnauthorizedOperation", "ForbiddenException"),
        ("rejected", "denied", "AWS refuses this identity."),
    ),
    "GetRoleCredentials/ResourceNotFoundException": ("rejected", "denied", "SSO has no such account or role."),
    **dict.fromkeys(
        ("ThrottlingException", "Throttling", "TooManyRequestsException", "RequestLimitExceeded", "SlowDownException"),
        ("transient", "throttled", "AWS asks for fewer requests."),
    ),
    "IDPCommunicationError": ("transient", "server-error", "AWS could not ask the identity provider."),
    "RegionDisabledException": ("rejected", "bad-option", "The region is switched off for this account."),
    "ResourceNotFoundException": ("rejected", "no-domain", "CodeArtifact knows no such domain."),
    "ValidationException": ("rejected", "bad-option", "CodeArtifact does not allow one of the options."),
    "ServiceQuotaExceededException": ("rejected", "quota", "A quota of CodeArtifact is used up."),
}


def classify(error: Exception, login: Login, renewal: Mapping[str, Any] | None = None) -> Failure:
    """Return what an exception of boto3 or botocore means.

    Args:
        error: Whatever was raised. Its text is used only where AWS itself wrote it: a credential_process may have
            written a secret into another.
        login: How this profile logs in.
        renewal: What SSO answered when it was asked to renew the session, as botocore parsed it.
    """
    if isinstance(error, raised.TokenRetrievalError) and renewal is not None:
        answered = _answered(renewal, "CreateToken", login)
        if answered.kind == "transient":  # botocore takes a server's trouble for the end of the session
            return answered
    if isinstance(error, raised.ClientError):
        return _answered(error.response, error.operation_name, login)
    if isinstance(error, raised.CredentialRetrievalError):
        kind, reason, message = _BY_SOURCE.get(error.kwargs.get("provider", ""), _NO_METADATA)
        return Failure(kind, reason, message, login.command if reason == "no-credentials" else login.whoami)
    cause = error.kwargs.get("error") if isinstance(error, raised.HTTPClientError) else error
    if isinstance(cause, MemoryError):  # the worker's limit: botocore itself has none
        return too_much("AWS").failure
    for base in type(error).__mro__:
        if base in _BY_TYPE:
            kind, reason, message = _BY_TYPE[base]
            return Failure(kind, reason, message, _hint(reason, login))
    name = type(error).__name__
    return Failure("transient", "unexpected", f"The AWS library failed in a way that it does not explain ({name}).")


def garbled(login: Login, renewal: Mapping[str, Any] | None = None) -> Failure:
    """Return what it means that botocore stumbled over the answer or file from which it wanted to read keys.

    Args:
        login: How this profile logs in.
        renewal: As for `classify`.
    """
    if renewal is not None and "accessToken" not in renewal:
        return PORTAL
    if login.process:
        message = "The credential_process of the AWS profile did not print what botocore asks for."
        return Failure("rejected", "bad-process", message, login.whoami)
    if login.verb == "sso login":
        return Failure("login-required", "sso-expired", "The cached AWS SSO session cannot be read.", login.command)
    kind, reason, message = _NO_METADATA
    return Failure(kind, reason, message, login.whoami)


def _answered(response: Mapping[str, Any], operation: str, login: Login) -> Failure:
    """Classify what AWS answered: by its code, else by the status."""
    details: Mapping[str, Any] = response.get("Error", {})
    http: Mapping[str, Any] = response.get("ResponseMetadata", {})
    headers: Mapping[str, str] = http.get("HTTPHeaders") or {}
    status, code = int(http.get("HTTPStatusCode", 0)), str(details.get("Code", ""))
    said = excerpt(str(details.get("Message", "")))
    if "Signature expired" in said or "Signature not yet current" in said:
        return Failure("transient", "clock-skew", "This machine's clock and that of AWS differ too much.", CLOCK)
    wait = parse_retry_after(headers.get("retry-after"), parse_http_date(headers.get("date")))
    known = _BY_CODE.get(f"{operation}/{code}") or _BY_CODE.get(code)
    if known is None and (status >= 500 or status in {0, 429}):
        reason = "throttled" if status == 429 else "server-error"
        return Failure("transient", reason, f"AWS answered with status {status}.", None, wait)
    if known is None and (status < 400 or headers.get("content-type", "").startswith("text/html")):
        return PORTAL  # AWS neither redirects these calls nor speaks HTML
    kind, reason, message = known or ("rejected", "refused", f"AWS refused the request with status {status}.")
    sentence = f"{message} It said: {said.removesuffix('.')}." if said and kind == "rejected" else message
    hint = _RIGHTS_OF.get(operation, RIGHTS) if reason == "denied" else _hint(reason, login)
    return Failure(kind, reason, sentence, hint, wait)


def _hint(reason: str, login: Login) -> str | None:
    return {
        "no-credentials": login.command,
        "sso-expired": login.command,
        "login-expired": login.command,
        "credentials-expired": login.command,
        "bad-credentials": login.command,
        "no-region": login.command,
        "no-profile": "aws configure list-profiles",
        "mfa": login.whoami,
        "bad-process": login.whoami,
        "no-file": login.whoami,
        "bad-profile": login.whoami,
        "bad-identity": login.whoami,
        "denied": RIGHTS,
        "no-domain": "check domain, domain-owner and region of the index",
        "bad-option": "check domain, domain-owner, region and duration of the index",
        "tls": CA_BUNDLE,
        "no-crt": f"uv pip install --python {shlex.quote(sys.executable)} 'botocore[crt]'",
    }.get(reason)

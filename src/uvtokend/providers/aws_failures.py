"""What botocore raises, and what it means for a person. Exceptions as in botocore.exceptions, codes as in the APIs."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from typing import Any

from botocore import exceptions as raised
from botocore.parsers import ResponseParserError

from uvtokend.core.model import Failure, FailureKind
from uvtokend.providers.failures import excerpt, parse_retry_after

RIGHTS = "ask for codeartifact:GetAuthorizationToken and sts:GetServiceBearerToken"
CLOCK = "check this machine's clock: timedatectl status"
CA_BUNDLE = 'if a proxy opens TLS here, set ca-bundle = "…" in [daemon] of the configuration'
UNREACHABLE = Failure("transient", "unreachable", "AWS could not be reached.")


class Login:
    """How a person logs in to the profile in use.

    Args:
        profile: Its name; None for the default.
    """

    def __init__(self, profile: str | None) -> None:
        self._profile = f" --profile {shlex.quote(profile)}" if profile else ""
        self._verb = "configure"
        self.sso_region: str | None = None
        self.has_process = False

    def learn(self, config: Mapping[str, Any]) -> None:
        """Look at the profile's own settings (AWS CLI user guide, "Configuration and credential file settings")."""
        if "sso_session" in config or "sso_start_url" in config:
            self._verb = "sso login"
        elif "login_session" in config:
            self._verb = "login"
        region = config.get("sso_region")
        self.sso_region = region if isinstance(region, str) else None
        self.has_process = "credential_process" in config

    @property
    def command(self) -> str:
        """The command that logs in."""
        return f"aws {self._verb}{self._profile}"

    @property
    def whoami(self) -> str:
        """The command that shows, at a terminal, what goes wrong; it asks for MFA codes too."""
        return f"aws sts get-caller-identity{self._profile}"


#: Exception -> kind, reason, sentence. The first that fits counts, so subclasses stand before their bases.
_BY_TYPE: tuple[tuple[type[BaseException], FailureKind, str, str], ...] = (
    (raised.ProfileNotFound, "rejected", "no-profile", "There is no such AWS profile."),
    (raised.NoCredentialsError, "login-required", "no-credentials", "No AWS credentials were found."),
    (raised.PartialCredentialsError, "login-required", "no-credentials", "The AWS credentials are incomplete."),
    (raised.UnauthorizedSSOTokenError, "login-required", "sso-expired", "The AWS SSO session has ended."),
    (raised.SSOTokenLoadError, "login-required", "sso-expired", "There is no AWS SSO session."),
    (raised.TokenRetrievalError, "login-required", "sso-expired", "The AWS SSO session has ended."),
    (raised.SSOError, "login-required", "sso-expired", "The AWS SSO session cannot be used."),
    (raised.MissingDependencyException, "rejected", "no-crt", "This kind of login needs awscrt beside botocore."),
    (raised.NoRegionError, "rejected", "no-region", "No AWS region is known for a step of the login."),
    (raised.InvalidConfigError, "rejected", "bad-profile", "The AWS profile's settings cannot be used."),
    (raised.ConfigParseError, "rejected", "bad-profile", "The AWS configuration files cannot be read."),
    (raised.InfiniteLoopConfigError, "rejected", "bad-profile", "The AWS profile's source_profile leads in a circle."),
    (raised.ParamValidationError, "rejected", "bad-option", "CodeArtifact's API does not allow one of the options."),
    (raised.SSLError, "transient", "tls", "The certificate that AWS was answered with is not trusted."),
    (raised.ConnectTimeoutError, "transient", "timeout", "AWS did not answer in time."),
    (raised.ReadTimeoutError, "transient", "timeout", "AWS did not answer in time."),
    (raised.ConnectionError, "transient", "unreachable", "AWS could not be reached."),
    (raised.HTTPClientError, "transient", "unreachable", "AWS could not be reached."),
    (raised.MetadataRetrievalError, "transient", "no-metadata", "The instance's or container's role was not told."),
    (ResponseParserError, "transient", "captive-portal", "Something that is not AWS answered in its place."),
    (json.JSONDecodeError, "rejected", "bad-process", "The credential_process did not print JSON."),
    (EOFError, "login-required", "mfa", "The AWS role asks for an MFA code."),
    (FileNotFoundError, "rejected", "no-file", "A program or file that the AWS profile names is missing."),
    (PermissionError, "rejected", "no-file", "A program or file that the AWS profile names may not be used."),
    (RuntimeError, "login-required", "credentials-expired", "The AWS credentials have expired."),
    (KeyError, "transient", "captive-portal", "Something that is not AWS answered in its place."),
    (ValueError, "rejected", "bad-profile", "The AWS profile's settings cannot be used."),
)

#: Error code -> kind, reason, sentence.
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
        ("InvalidIdentityToken", "IDPRejectedClaim", "UnauthorizedException", "InvalidGrantException"),
        ("login-required", "bad-identity", "AWS refuses the identity's own token."),
    ),
    **dict.fromkeys(
        ("AccessDenied", "AccessDeniedException", "UnauthorizedOperation", "ForbiddenException"),
        ("rejected", "denied", "AWS refuses this identity."),
    ),
    **dict.fromkeys(
        ("ThrottlingException", "Throttling", "TooManyRequestsException", "RequestLimitExceeded"),
        ("transient", "throttled", "AWS asks for fewer requests."),
    ),
    "ResourceNotFoundException": ("rejected", "no-domain", "CodeArtifact knows no such domain."),
    "ValidationException": ("rejected", "bad-option", "CodeArtifact does not allow one of the options."),
    "ServiceQuotaExceededException": ("rejected", "quota", "A quota of CodeArtifact is used up."),
}

_LOGIN_REASONS = frozenset({"no-credentials", "sso-expired", "credentials-expired", "bad-credentials", "bad-identity"})


def classify(error: Exception, login: Login) -> Failure:
    """Return what an exception of boto3 or botocore means.

    Args:
        error: Whatever was raised. Its text is used only where AWS itself wrote it: a credential_process may have
            written a secret into another.
        login: How this profile logs in.
    """
    if isinstance(error, raised.ClientError):
        return _answered(error, login)
    if isinstance(error, raised.CredentialRetrievalError):
        return _not_retrieved(login)
    for kind_of, kind, reason, message in _BY_TYPE:
        if isinstance(error, kind_of):
            return Failure(kind, reason, message, _hint(reason, login))
    name = type(error).__name__
    return Failure("transient", "unexpected", f"The AWS library failed in a way that it does not explain ({name}).")


def _not_retrieved(login: Login) -> Failure:
    if login.has_process:
        message = "The credential_process of the AWS profile failed."
        return Failure("login-required", "credential-process", message, login.whoami)
    return Failure("transient", "no-metadata", "The instance's or container's role was not told.", login.whoami)


def _answered(error: raised.ClientError, login: Login) -> Failure:
    """Classify what AWS answered: by its code, else by the status."""
    details: Mapping[str, Any] = error.response.get("Error", {})
    http: Mapping[str, Any] = error.response.get("ResponseMetadata", {})
    status = int(http.get("HTTPStatusCode", 0))
    said = excerpt(str(details.get("Message", "")))
    if "Signature expired" in said or "Signature not yet current" in said:
        return Failure("transient", "clock-skew", "This machine's clock and that of AWS differ too much.", CLOCK)
    wait = parse_retry_after((http.get("HTTPHeaders") or {}).get("retry-after"))
    known = _BY_CODE.get(str(details.get("Code", "")))
    if known is None and (status >= 500 or status in {0, 429}):
        reason = "throttled" if status == 429 else "server-error"
        return Failure("transient", reason, f"AWS answered with status {status}.", None, wait)
    kind, reason, message = known or ("rejected", "refused", f"AWS refused the request with status {status}.")
    sentence = f"{message} It said: {said}" if said and kind == "rejected" else message
    return Failure(kind, reason, sentence, _hint(reason, login), wait)


def _hint(reason: str, login: Login) -> str | None:
    if reason in _LOGIN_REASONS:
        return login.command
    return {
        "no-profile": "aws configure list-profiles",
        "mfa": login.whoami,
        "bad-process": login.whoami,
        "no-file": login.whoami,
        "bad-profile": login.whoami,
        "denied": RIGHTS,
        "no-domain": "check domain, domain-owner and region of the index",
        "tls": CA_BUNDLE,
        "no-crt": "pip install 'botocore[crt]' where uvtokend is installed",
        "no-region": login.command,
    }.get(reason)

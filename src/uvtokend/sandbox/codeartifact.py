"""A loopback AWS: CodeArtifact's GetAuthorizationToken, and the calls of STS and SSO that a sign-in needs.

Real clients use it through ``AWS_ENDPOINT_URL_CODEARTIFACT``, ``…_STS``, ``…_SSO`` and ``…_SSO_OIDC``. It accepts any
keys, unless `fault` says otherwise.
"""

from __future__ import annotations

import base64
import json
import secrets
import time
from collections.abc import Callable
from datetime import UTC, datetime
from xml.sax.saxutils import escape

from uvtokend.sandbox.web import Answer, Call, Server

ACCOUNT = "123456789012"
_ROLE = f"arn:aws:sts::{ACCOUNT}:assumed-role/dev/me"
_COMMON_TYPE = "http://internal.amazon.com/coral/com.amazon.coral.service/"

Fault = Callable[[Call], Answer | None]


class CodeArtifact:
    """The emulator; a context manager.

    Args:
        life: Seconds that a token is valid.
        fault: A function that is called first for every call; its result, if any, is the response.

    Attributes:
        identities: Access key id -> the ARN of its owner. Other keys belong to an assumed role.
    """

    def __init__(self, life: float = 43200.0, fault: Fault | None = None) -> None:
        self.life = life
        self.fault = fault
        self.tokens: dict[str, float] = {}
        self.identities: dict[str, str] = {}
        self.server = Server(self._answer)
        self.url = self.server.url

    def valid(self, token: str) -> bool:
        """Return whether a package index would accept a token now."""
        return self.tokens.get(token, 0.0) > time.time()

    def issue(self) -> str:
        """Return a new token, without a call."""
        end = time.time() + self.life
        token = jwe(end - self.life, end)
        self.tokens[token] = end
        return token

    @property
    def fetches(self) -> int:
        """The number of requests for a token."""
        return sum(call.path == "/v1/authorization-token" or _target(call) for call in tuple(self.server.calls))

    def environment(self) -> dict[str, str]:
        """Return the environment variables with which real clients use this emulator."""
        services = ("CODEARTIFACT", "STS", "SSO", "SSO_OIDC")
        return {f"AWS_ENDPOINT_URL_{service}": self.url for service in services}

    def close(self) -> None:
        """Stop."""
        self.server.close()

    def __enter__(self) -> CodeArtifact:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _answer(self, call: Call) -> Answer:
        fault = self.fault  # another thread may reset it at any moment
        broken = fault(call) if fault is not None else None
        if broken is not None:
            return broken
        if call.path == "/v1/authorization-token" or _target(call):
            return self._authorization_token(call)
        if call.path == "/v1/repository/endpoint":
            return _repository_endpoint(call)
        if call.path == "/federation/credentials":
            return self._sso_role()
        if call.path == "/token":
            return self._sso_token()
        if call.path == "/container":
            return self._container()
        if call.method == "POST" and call.path == "/":
            return _sts(call.form(), self.identities.get(_access_key(call), _ROLE))
        return error(404, "ResourceNotFoundException", "Nothing here.")

    def _authorization_token(self, call: Call) -> Answer:
        # The API reference's range; boto3 lets any number through.
        duration = int(call.query.get("duration", 0))
        if duration and not 900 <= duration <= 43200:
            return error(400, "ValidationException", "durationSeconds must be 0, or between 900 and 43200.")
        # The request: aws-cli issue 7434 (debug log). The answer's epoch number: aws-cli issue 5382, and the sample of
        # the CodeArtifact guide on NuGet, a float there.
        token = self.issue()
        return Answer.json({"authorizationToken": token, "expiration": self.tokens[token]})

    def _sso_role(self) -> Answer:
        # botocore data/sso: GetRoleCredentials; expiration in milliseconds.
        credentials = {
            "accessKeyId": "ASIAEXAMPLE",
            "secretAccessKey": "example",
            "sessionToken": "example",
            "expiration": int((time.time() + 3600) * 1000),
        }
        return Answer.json({"roleCredentials": credentials})

    def _sso_token(self) -> Answer:
        # botocore data/sso-oidc: CreateToken with grant type refresh_token.
        fresh = {"accessToken": "sso-fresh", "tokenType": "Bearer", "expiresIn": 28800, "refreshToken": "sso-refresh"}
        return Answer.json(fresh)

    def _container(self) -> Answer:
        # ECS developer guide, "Task IAM role": the credentials endpoint.
        return Answer.json(
            {
                "AccessKeyId": "ASIAEXAMPLE",
                "SecretAccessKey": "example",
                "Token": "example",
                "Expiration": _iso(time.time() + 3600),
            }
        )


def error(status: int, code: str, message: str, **headers: str) -> Answer:
    """Return an error of a REST-JSON service.

    The type is in a header, followed by the common type; the body has a lower-case ``message``: recorded from a
    sister service by dd-trace-py's Bedrock fixtures; codes and statuses as in botocore's model of CodeArtifact.
    """
    return Answer.json({"message": message}, status, x_amzn_errortype=f"{code}:{_COMMON_TYPE}", **headers)


def sts_error(status: int, code: str, message: str) -> Answer:
    """Return an error of STS, in XML (STS API reference, "Common errors")."""
    xml = (
        '<ErrorResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><Error><Type>Sender</Type>'
        f"<Code>{escape(code)}</Code><Message>{escape(message)}</Message></Error>"
        "<RequestId>00000000-0000-0000-0000-000000000000</RequestId></ErrorResponse>"
    )
    return Answer(status, xml.encode(), {"Content-Type": "text/xml"})


def jwe(issued: float, end: float) -> str:
    """Return a token in the format of CodeArtifact: five segments, the first one plain JSON.

    The seven keys of the header and a length of about 1200 to 1500 are those of tokens shown in public bug reports,
    among them ansible community.general pull request 1171.
    """
    header = {
        "ver": 1,
        "isu": int(issued),
        "enc": "A128GCM",
        "tag": _random(16),
        "exp": int(end),
        "alg": "A128GCMKW",
        "iv": _random(12),
    }
    return ".".join(
        (
            _base64(json.dumps(header, separators=(",", ":")).encode()),
            _random(16),
            _random(12),
            _random(720),
            _random(16),
        )
    )


def _target(call: Call) -> bool:
    """Return whether a call has the second form that clients use: JSON with a target header (dependabot's proxy)."""
    return (call.headers.get("X-Amz-Target") or "").endswith("GetAuthorizationToken")


def _access_key(call: Call) -> str:
    """Return the access key id that signed a call (AWS Signature Version 4, the Authorization header)."""
    return (call.headers.get("Authorization") or "").partition("Credential=")[2].partition("/")[0]


def _repository_endpoint(call: Call) -> Answer:
    # botocore data/codeartifact: GetRepositoryEndpoint, which `aws codeartifact login` asks for beside the token.
    host = f"{call.query['domain']}-{call.query.get('domain-owner', '123456789012')}.d.codeartifact.eu-central-1"
    url = f"https://{host}.amazonaws.com/{call.query['format']}/{call.query['repository']}/"
    return Answer.json({"repositoryEndpoint": url})


def _sts(form: dict[str, str], caller: str) -> Answer:
    # STS API reference: the sample answers of the three actions; how an assumed role is named: IAM user guide, "IAM
    # identifiers".
    action, role = form.get("Action", ""), caller
    if "RoleArn" in form:
        role = form["RoleArn"].replace(":iam:", ":sts:").replace(":role/", ":assumed-role/")
        role += "/" + form.get("RoleSessionName", "")
    user = f"<AssumedRoleUser><Arn>{escape(role)}</Arn><AssumedRoleId>AROAEXAMPLE:me</AssumedRoleId></AssumedRoleUser>"
    keys = (
        "<Credentials><AccessKeyId>ASIAEXAMPLE</AccessKeyId><SecretAccessKey>example</SecretAccessKey>"
        f"<SessionToken>example</SessionToken><Expiration>{_iso(time.time() + 3600)}</Expiration></Credentials>"
    )
    results = {
        "GetCallerIdentity": f"<Arn>{escape(role)}</Arn><UserId>AROAEXAMPLE:me</UserId><Account>{ACCOUNT}</Account>",
        "AssumeRole": keys + user,
        "AssumeRoleWithWebIdentity": keys + user,
    }
    if action not in results:
        return sts_error(400, "InvalidAction", "Could not find operation.")
    xml = (
        f'<{action}Response xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><{action}Result>{results[action]}'
        f"</{action}Result><ResponseMetadata><RequestId>0</RequestId></ResponseMetadata></{action}Response>"
    )
    return Answer(200, xml.encode(), {"Content-Type": "text/xml"})


def _iso(epoch: float) -> str:
    return datetime.fromtimestamp(epoch, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _random(size: int) -> str:
    return _base64(secrets.token_bytes(size))


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()

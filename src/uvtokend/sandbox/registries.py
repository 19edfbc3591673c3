"""The pages, files and error responses of six real registries, which the loopback index imitates.

Nothing was recorded from a real service; each part names the public report that is its source.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Registry:
    """One kind of registry.

    Args:
        login: The user name for its tokens.
        root: Path of the repository; pages are below ``<root>/simple/``.
        upload: The path to which ``twine`` and ``uv publish`` post.
        files: Path of a file, with ``{name}``, ``{version}`` and ``{file}``; an href in the page, so relative ones are
            relative to the page.
        path: The same path from the root of the host.
        stranger: The ``WWW-Authenticate`` of a 401 for a call without a credential.
        refused: The same for a credential that is invalid or has expired.
        stranger_says, refused_says: The JSON bodies of these responses; empty if unknown.
        bearer: Whether a token is also accepted as ``Authorization: Bearer``.
        download: The response to a file's URL: the file itself, or a redirect to it.
        head: Whether files accept HEAD requests.
        short: Whether versions in paths have no trailing zeros.
    """

    login: str
    root: str
    upload: str
    files: str
    path: str
    stranger: str
    refused: str
    stranger_says: str = ""
    refused_says: str = ""
    bearer: bool = False
    download: Literal["file", "moved-here", "moved-away"] = "file"
    head: bool = True
    short: bool = False

    def href(self, name: str, version: str, file: str) -> str:
        """Return the link to a file as it is in the page."""
        return self.files.format(name=name, version=self._shown(version), file=file)

    def location(self, name: str, version: str, file: str) -> str:
        """Return the absolute path of that link."""
        return self.path.format(name=name, version=self._shown(version), file=file)

    def _shown(self, version: str) -> str:
        """Return ``2.31.0`` as ``2.31`` and ``4.0.0`` as ``4``, where versions are short."""
        while self.short and version.endswith(".0"):
            version = version.removesuffix(".0")
        return version


#: Challenge: seen on the npm endpoints of two domains (confluentinc/mcp-confluent issue 150), assumed to be alike on
#: this one; anonymous, expired and malformed credentials all answer 401 (uv issues 14318, 11899 and 13895). Relative
#: links: the sample of uv issue 1388; files below the page: uv issue 6244; they need the token too: uv issue 1860.
#: Bearer: a developer of CodeArtifact in ansible community.general pull request 1171.
CODEARTIFACT = Registry(
    login="aws",
    root="/pypi/production",
    upload="/pypi/production/",
    files="{version}/{file}",
    path="/pypi/production/simple/{name}/{version}/{file}",
    stranger='Bearer realm="acme/production", Basic realm="acme/production"',
    refused='Bearer realm="acme/production", Basic realm="acme/production"',
    bearer=True,
)

#: 401 for strangers: uv issues 2055 and 12716; for a wrong user name: uv issue 9778. A Basic challenge there is, as
#: npm's message in google-github-actions/deploy-appengine issue 397 shows; its realm is not known. File URLs: uv issues
#: 1709 and 1449; their relative 307: uv issue 13037. That the redirect's target asks for no credential is a guess: its
#: 6 kB carry one.
ARTIFACT_REGISTRY = Registry(
    login="oauth2accesstoken",
    root="/acme-ml/models",
    upload="/acme-ml/models/",
    files="/acme-ml/models/{name}/{file}",
    path="/acme-ml/models/{name}/{file}",
    stranger='Basic realm="loopback"',
    refused='Basic realm="loopback"',
    download="moved-here",
)

_FEED = "/acme/11111111-2222-3333-4444-555555555555/_packaging/66666666-7777-8888-9999-000000000000/pypi/download"
_SCALE_UNIT = 'Basic realm="https://pkgsprodweu1.pkgs.visualstudio.com/"'
#: Challenge for strangers: azure-pipelines-tasks issue 10967; for an expired credential only its Basic part:
#: azure-pipelines-tasks issue 11649. File URLs outside the index root, with identifiers and a normalised version: uv
#: issues 10394 and 13208. Redirect to a blob store with a signed URL: pip issue 10694; HEAD 405: uv issue 11379. The
#: feed lets any user name in with a good token: uv's own integration test with the live service uses ``dummy``.
AZURE = Registry(
    login="VssSessionToken",
    root="/acme/_packaging/platform/pypi",
    upload="/acme/_packaging/platform/pypi/upload/",
    files=f"{_FEED}/{{name}}/{{version}}/{{file}}",
    path=f"{_FEED}/{{name}}/{{version}}/{{file}}",
    stranger=f"Bearer authorization_uri=https://login.windows.net/{'0' * 8}-aaaa-bbbb-cccc-{'0' * 12}, "
    f"{_SCALE_UNIT}, TFS-Federated",
    refused=_SCALE_UNIT,
    download="moved-away",
    head=False,
    short=True,
)

_ARTIFACTORY_REALM = 'Basic realm="Artifactory Realm"'
#: 401 of strangers: puppet-archive issue 489, and logs of npm, wget and curl; of an expired token: JFrog's own
#: vault-plugin-secrets-artifactory matches the text. File URLs of a local repository: uv issues 6610 and 10594; that
#: their links are relative was seen for a remote one only.
ARTIFACTORY = Registry(
    login="person",
    root="/artifactory/api/pypi/pypi-local",
    upload="/artifactory/api/pypi/pypi-local",
    files="../../{name}/{version}/{file}",
    path="/artifactory/api/pypi/pypi-local/{name}/{version}/{file}",
    stranger=_ARTIFACTORY_REALM,
    refused=_ARTIFACTORY_REALM,
    stranger_says='{"errors":[{"status":401,"message":"Authentication is required"}]}',
    refused_says='{"errors":[{"status":401,"message":"Token failed verification: expired"}]}',
    bearer=True,
)

_NEXUS_REALM = 'BASIC realm="Sonatype Nexus Repository Manager"'
#: Challenge, upper-case scheme and all: Shiro as nexus-public uses it, and six users' logs. File URLs: uv issue 1754.
NEXUS = Registry(
    login="namecode",
    root="/repository/pypi-internal",
    upload="/repository/pypi-internal/",
    files="../../packages/{name}/{version}/{file}",
    path="/repository/pypi-internal/packages/{name}/{version}/{file}",
    stranger=_NEXUS_REALM,
    refused=_NEXUS_REALM,
)

#: Challenge, upload and file paths: GitLab's source (``basic_auth_helpers.rb``, ``pypi_packages.rb``); there the
#: SHA-256 of the file replaces name and version.
GITLAB = Registry(
    login="__token__",
    root="/api/v4/projects/42/packages/pypi",
    upload="/api/v4/projects/42/packages/pypi",
    files="/api/v4/projects/42/packages/pypi/files/{name}-{version}/{file}",
    path="/api/v4/projects/42/packages/pypi/files/{name}-{version}/{file}",
    stranger='Basic realm="GitLab Packages Registry"',
    refused='Basic realm="GitLab Packages Registry"',
    stranger_says='{"message":"401 Unauthorized"}',
    refused_says='{"message":"401 Unauthorized"}',
)

REGISTRIES: Mapping[str, Registry] = {
    "codeartifact": CODEARTIFACT,
    "artifact-registry": ARTIFACT_REGISTRY,
    "azure": AZURE,
    "artifactory": ARTIFACTORY,
    "nexus": NEXUS,
    "gitlab": GITLAB,
}

"""Find the missing permission if an index refuses a fresh token, and the words to ask the administrator with.

Sources: AWS CodeArtifact user guide, "Actions, resources, and condition keys" and "Common errors"; Google Artifact
Registry, "Configure access control" and "Troubleshoot Python packages"; Azure Artifacts, "Manage permissions"; JFrog,
"Permissions" and "Hide Existence of Unauthorized Resources"; Sonatype Nexus, "Privileges"; GitLab, "Package registry".
"""

from __future__ import annotations

from urllib.parse import urlsplit

from uvtokend.core import fixes
from uvtokend.core.model import Index

#: Providers whose token is a secret of the person's own.
_FIXED = {"gitlab", "nexus", "static"}


def meaning(index: Index, status: int) -> str:
    """Return the meaning of a refusal of a fresh token, as a sentence.

    Args:
        index: The index that refused the token.
        status: 401, 403 or 404.
    """
    texts = _MEANINGS.get(index.provider, {})
    return texts.get(status, _GENERAL[status])


def renewal(index: Index) -> str | None:
    """Return the command after which a person's own secret is another one; None where the issuer makes the token."""
    if index.provider not in _FIXED or index.request.option("rotate"):
        return None
    references = [value for _, value in index.request.options if isinstance(value, tuple)]
    for reference in references:
        match reference:
            case (("file", str(path)),):
                return f"{fixes.write_secret(path)} && uvtokend refresh {index.name}"
            case (("env", str(variable)),):
                return f"put a new secret into {variable}, then: uvtokend restart"
    return f"replace the secret where config.toml says, then: uvtokend refresh {index.name}"


def request(index: Index, identity: str | None) -> str:
    """Return a sentence to send to the administrator."""
    who = identity or "my account"
    option = index.request.option
    path = [word for word in urlsplit(index.url).path.split("/") if word not in {"", "simple"}]
    match index.provider:
        case "aws-codeartifact":
            domain = f"the domain {option('domain')} (account {option('domain-owner')}, {option('region')})"
            permissions = "codeartifact:ReadFromRepository and codeartifact:GetRepositoryEndpoint"
            what = f"{permissions} on the repository {path[-1] if path else '?'} of {domain}"
        case "google-artifact-registry":
            project, repository = (*path, "?", "?")[:2]
            what = f"the role roles/artifactregistry.reader on the repository {repository} of the project {project}"
        case "azure-artifacts":
            feed = path[path.index("_packaging") + 1] if "_packaging" in path[:-1] else "?"
            role = "Feed and Upstream Reader (Collaborator)"
            what = f"the role {role} on the feed {feed}, which also allows packages to be saved from upstream sources"
        case "jfrog-artifactory":
            what = f"the permission Read on the repository {path[-1] if path else '?'}"
        case "nexus":
            repository = path[path.index("repository") + 1] if "repository" in path[:-1] else "?"
            what = f"the privileges nx-repository-view-pypi-{repository}-browse and -read"
        case "gitlab":
            what = "the role Reporter on the project of this package registry, and a token with the scope read_api"
        case _:
            what = "permission to read it"
    return f'ask the administrator: "Please give {who} {what}. I need it to install packages from {index.url}"'


_GENERAL = {
    401: "the index does not accept the token",
    403: "the token is valid, but its owner may not read this index",
    404: "the index does not exist, or its owner hides it from those who may not read it",
}
_MEANINGS = {
    "aws-codeartifact": {
        401: "CodeArtifact does not accept the token: it was revoked with its role, or belongs to another domain",
        403: "the token is valid, but its identity may not read this repository",
        404: "the domain has no repository of this name",
    },
    "google-artifact-registry": {
        401: "Artifact Registry does not accept the token, or the URL names a project that does not exist",
        403: "the token is valid, but its identity may not read this repository",
        404: "the project has no repository of this name in this location",
    },
    "azure-artifacts": {
        401: "Azure Artifacts does not accept the token: it was revoked, or is for another organization",
        403: "the token is valid, but its owner may not read this feed",
        404: "the organization has no feed of this name that the token's owner may see",
    },
    "jfrog-artifactory": {
        404: "the repository does not exist, or Artifactory hides it because the token's owner may not read it",
    },
    "gitlab": {404: "the project does not exist, or GitLab hides it because the token's owner may not read it"},
}

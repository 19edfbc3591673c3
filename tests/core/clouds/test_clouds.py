"""URL -> provider: which URLs are recognized, which are not, and which indexes share a token."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uvtokend.core import clouds
from uvtokend.core.clouds import CLOUDS, azure_artifacts
from uvtokend.core.clouds.catalog import Cloud
from uvtokend.core.config import values
from uvtokend.core.model import Frozen, Request
from uvtokend.core.urls import IndexUrl
from uvtokend.service import environment

ACME: dict[str, Frozen] = {"domain": "acme", "domain-owner": "123456789012", "region": "eu-central-1"}
D = "acme-123456789012.d.codeartifact"


def recognize(url: str) -> tuple[str, dict[str, str]] | None:
    return clouds.recognize(IndexUrl.parse(url))


def request(provider: str, url: str, options: dict[str, Frozen], env: dict[str, str]) -> Request:
    return clouds.request(provider, IndexUrl.parse(url), options, env)


def test_the_table_of_catalogs() -> None:
    """CLOUDS is a mapping with one catalog per name, and each name loads its own catalog."""
    assert len(CLOUDS) == len([*CLOUDS]) == len({id(cloud) for cloud in CLOUDS.values()})


@pytest.mark.parametrize(
    ("url", "provider", "options"),
    [
        (f"https://{D}.eu-central-1.amazonaws.com/pypi/prod/simple/", "aws-codeartifact", ACME),
        (f"https://{D.upper()}.EU-CENTRAL-1.AMAZONAWS.COM/pypi/prod/simple/", "aws-codeartifact", ACME),
        ("https://acme-123456789012.codeartifact.eu-central-1.on.aws/pypi/prod/simple/", "aws-codeartifact", ACME),
        (
            f"https://{D.replace('acme', 'my-own-acme')}.us-gov-west-1.amazonaws.com/pypi/p/simple/",
            "aws-codeartifact",
            {"domain": "my-own-acme", "domain-owner": "123456789012", "region": "us-gov-west-1"},
        ),
        (f"https://{D}.cn-north-1.amazonaws.com.cn/pypi/p/", "aws-codeartifact", {**ACME, "region": "cn-north-1"}),
        (
            "https://vpce-0a1b-xyz.d.codeartifact.eu-central-1.vpce.amazonaws.com/pypi/d/acme-123456789012/prod/simple/",
            "aws-codeartifact",
            ACME,
        ),
        ("https://europe-west3-python.pkg.dev/acme/models/simple/", "google-artifact-registry", {}),
        ("https://us-python.pkg.dev/acme/models/simple/", "google-artifact-registry", {}),
        ("https://pkgs.dev.azure.com/acme/_packaging/feed/pypi/simple/", "azure-artifacts", {}),
        ("https://pkgs.dev.azure.com/acme/project/_packaging/feed/pypi/simple/", "azure-artifacts", {}),
        ("https://acme.pkgs.visualstudio.com/_packaging/feed/pypi/simple/", "azure-artifacts", {}),
        ("https://acme.jfrog.io/artifactory/api/pypi/pypi-local/simple", "jfrog-artifactory", {}),
        ("https://Acme-Dev.JFrog.io/artifactory/api/pypi/a/simple/", "jfrog-artifactory", {}),
        ("https://acme.pe.jfrog.io/artifactory/api/pypi/a/simple/", "jfrog-artifactory", {}),
        ("https://gitlab.com/api/v4/projects/42/packages/pypi/simple", "gitlab", {}),
        ("https://gitlab.com/api/v4/projects/acme%2Fmodels/packages/pypi/simple/", "gitlab", {}),
        ("https://GitLab.com/api/v4/groups/7/-/packages/pypi/simple", "gitlab", {}),
    ],
)
def test_recognized(url: str, provider: str, options: dict[str, str]) -> None:
    """Each cloud's hosts determine the provider. A CodeArtifact host also gives the domain, its owner and the
    region."""
    assert recognize(url) == (provider, options)
    assert clouds.options_in_url(provider, IndexUrl.parse(url)) == options


@pytest.mark.parametrize(
    "url",
    [
        f"https://{D}.eu-west-1.amazonaws.com.evil.example/pypi/prod/simple/",
        f"https://evil.example/{D}.eu-west-1.amazonaws.com/simple/",
        f"https://evil{D}x.eu-west-1.amazonaws.com/",
        "https://acme-12345678901.d.codeartifact.eu-west-1.amazonaws.com/",
        f"https://{D.replace('1', chr(0xFF11))}.eu-west-1.amazonaws.com/pypi/p/simple/",
        f"https://{D}.eu-west-1.amazonaws.com.cn.evil.example/",
        f"https://{D}.eu-west-1.on.aws/",
        f"https://{D}.eu-west-1.amazonaws.com\\.evil.example/",
        "https://acme-123456789012.codeartifact.eu-west-1.on.aws.evil.example/",
        "https://vpce-0a1b.d.codeartifact.eu-west-1.vpce.amazonaws.com.evil.example/pypi/d/acme-123456789012/p/simple/",
        "https://vpce-0a1b.d.codeartifact.eu-central-1.vpce.amazonaws.com/pypi/prod/simple/",
        "https://europe-python.pkg.dev.evil.example/a/b/simple/",
        "https://npm.pkg.dev/a/b/",
        "https://pkgs.dev.azure.com.evil.example/acme/",
        "https://pkgs.dev.azure.com/",
        "https://.pkgs.visualstudio.com/",
        "https://acme.pkgs.visualstudio.com.evil.example/_packaging/feed/pypi/simple/",
        "https://evil.example.pkgs.visualstudio.com/",
        "https://evilpkgs.dev.azure.com/acme/",
        "https://pkgs.visualstudio.com/",
        "https://acme.jfrog.io.evil.example/artifactory/api/pypi/a/simple/",
        "https://evil.example/acme.jfrog.io/artifactory/api/pypi/a/simple/",
        "https://acme.jfrog.io.evil.example\\.jfrog.io/artifactory/api/pypi/a/simple/",
        "https://evil.example#.jfrog.io/artifactory/api/pypi/a/simple/",
        "https://evil-jfrog.io/artifactory/api/pypi/a/simple/",
        "https://jfrog.io/artifactory/api/pypi/a/simple/",
        "https://.jfrog.io/artifactory/api/pypi/a/simple/",
        "https://-.jfrog.io/artifactory/api/pypi/a/simple/",
        "https://acme.jfrog.io/artifactory/api/npm/a/",
        "https://acme.jfrog.io/artifactory/api/pypi/",
        "https://acme.jfrog.io/other/artifactory/api/pypi/a/simple/",
        "https://artifactory.corp.example/artifactory/api/pypi/a/simple/",
        "https://nexus.corp.example/repository/a/simple/",
        "https://gitlab.com.evil.example/api/v4/projects/42/packages/pypi/simple",
        "https://evilgitlab.com/api/v4/projects/42/packages/pypi/simple",
        "https://gitlab.com/api/v4/projects/42/packages/npm/",
        "https://gitlab.com/api/v4/groups/42/packages/pypi/simple",
        "https://gitlab.com/api/v4/projects/a/b/packages/pypi/simple",
        "https://gitlab.corp.example/api/v4/projects/42/packages/pypi/simple",
        "https://corp.example/simple/",
    ],
)
def test_not_recognized(url: str) -> None:
    """Look-alike hosts and unknown hosts match no provider."""
    assert recognize(url) is None
    assert clouds.options_in_url("aws-codeartifact", IndexUrl.parse(url)) == {}


SPECIAL = {
    f"https://{D}.eu-central-1.amazonaws.com:443/pypi/prod/simple/": "a port",
    f"https://{D}.us-gov-east-1.amazonaws.com/pypi/prod/simple/": "GovCloud",
    f"https://{D}.cn-northwest-1.amazonaws.com.cn/pypi/prod/simple/": "China",
    f"https://{D}.us-iso-east-1.amazonaws.com/pypi/prod/simple/": "an isolated region",
    f"https://{D}.ap-southeast-3.amazonaws.com/pypi/prod/simple/": "a region of three words",
    f"https://{D.replace('acme', 'a1')}.eu-central-1.amazonaws.com/pypi/prod/": "the shortest domain",
    f"https://{D.replace('acme', 'a' * 50)}.eu-central-1.amazonaws.com/pypi/prod/": "the longest domain",
    f"https://{D.replace('acme', 'acme-210987654321')}.eu-central-1.amazonaws.com/pypi/prod/": "a domain with digits",
    "https://acme-123456789012.codeartifact.us-gov-west-1.on.aws/pypi/prod/simple/": "dualstack in GovCloud",
    "https://vpce-0a1b-xyz-eu-west-1a.d.codeartifact.eu-west-1.vpce.amazonaws.com/pypi/d/acme-123456789012/p/": "zone",
    "https://vpce-0a.d.codeartifact.cn-north-1.vpce.amazonaws.com.cn/pypi/d/acme-123456789012/p/": "a VPC in China",
    "https://ACME.PKGS.VisualStudio.com/_packaging/feed/pypi/simple/": "upper case",
    "https://PKGS.dev.Azure.com/acme/_packaging/feed/pypi/simple/": "upper case",
    "https://Europe-West3-Python.PKG.dev/acme/models/simple/": "upper case",
}
#: URLs with a Cyrillic letter, a full-width dot or a Kelvin sign; each character is written by its name.
TRICKS = {
    f"https://{D}.eu-west-1.amazonaws.com./pypi/prod/simple/": "a trailing dot, which a netrc cannot hold",
    "https://pkgs.dev.azure.com./acme/_packaging/feed/pypi/simple/": "a trailing dot",
    f"https://{D}.eu-west-1.amazonaws.com@evil.example/pypi/prod/simple/": "our host as a user",
    f"https://{D}.eu-west-1.amazonaws.com:x@evil.example/pypi/prod/simple/": "our host as a user with a password",
    "https://evil.example\\@pkgs.dev.azure.com/acme/": "a backslash, which ends the host for uv",
    "https://pkgs.dev.azure.com\\@evil.example/acme/": "a backslash",
    "https://evil.example/https://pkgs.dev.azure.com/acme/": "our URL as a path",
    "https://evil.example?pkgs.dev.azure.com/acme/": "our host as a query",
    "https://evil.example#.pkgs.visualstudio.com/": "our host as a fragment",
    "https://pkgs.dev.azure%2Ecom/acme/": "a percent sign",
    "https://pkgs.dev.\N{CYRILLIC SMALL LETTER A}zure.com/acme/": "a Cyrillic letter",
    "https://xn--pkgs-8cd.dev.azure.com/acme/": "an international name",
    "https://p\N{KELVIN SIGN}gs.dev.azure.com/acme/": "a sign that becomes k in lower case",
    "https://pkgs.dev.azure\N{FULLWIDTH FULL STOP}com/acme/": "another dot",
    "https://acme\N{IDEOGRAPHIC FULL STOP}pkgs.visualstudio.com/": "yet another dot",
    f"https://{D}.evil.example.amazonaws.com/pypi/prod/simple/": "a host for a region",
    f"https://{D}.eu-west-1.amazonaws.com.evil/pypi/prod/simple/": "a longer end",
    f"https://{D}.eu-west-1.amazonaws.com.cn.example/pypi/prod/simple/": "a longer end of China's",
    f"https://{D}.eu-west-1.amazonaws.org/pypi/prod/simple/": "another end",
    f"https://{D}.eu-west-1-amazonaws.com/pypi/prod/simple/": "a hyphen for a dot",
    f"https://{D.replace('.d.', '-d.')}.eu-west-1.amazonaws.com/pypi/prod/": "another hyphen for a dot",
    f"https://{D.replace('acme', 'a')}.eu-west-1.amazonaws.com/pypi/prod/": "too short a domain",
    f"https://{D.replace('acme', 'a' * 51)}.eu-west-1.amazonaws.com/pypi/prod/": "too long a domain",
    f"https://{D.replace('acme', 'acme-')}.eu-west-1.amazonaws.com/pypi/prod/": "a domain that ends in a hyphen",
    "https://acme-1234567890123.d.codeartifact.eu-west-1.amazonaws.com/": "13 digits",
    "https://codeartifact.eu-west-1.amazonaws.com/pypi/prod/simple/": "the API",
    "https://vpce-0a.d.codeartifact.eu-west-1.vpce.amazonaws.com/pypi/d/acme/p/": "a VPC without an owner",
    "https://acme-123456789012.codeartifact.eu-west-1.on.aws.evil/pypi/prod/": "a longer end of dualstack's",
    "https://acme.visualstudio.com/_packaging/feed/pypi/simple/": "an organization's portal",
    "https://pkgs.dev.azure.com.acme.pkgs.visualstudio.com.evil.example/x/": "two of our hosts",
    "https://dev.azure.com/acme/_packaging/feed/pypi/simple/": "the portal",
    "https://europe-west3-docker.pkg.dev/acme/models/": "another kind of registry",
    "https://python.pkg.dev/acme/models/simple/": "no location",
    "https://europe-python.pkg.dev.evil/acme/models/simple/": "a longer end",
    "https://europe-pythonXpkg.dev/acme/models/simple/": "a letter for a dot",
}


@pytest.mark.parametrize("url", SPECIAL, ids=SPECIAL.get)
def test_special_hosts(url: str) -> None:
    """Every form of host that a cloud issues is recognized, in any letter case and with any port."""
    assert recognize(url) is not None


@pytest.mark.parametrize("url", TRICKS, ids=TRICKS.get)
def test_look_alikes(url: str) -> None:
    """A host that imitates a cloud's host matches no provider, even if its path is that of a real index."""
    assert recognize(url) is None


def test_which_indexes_share_a_token() -> None:
    """Repositories of one CodeArtifact domain, of one Google identity, and feeds of one Azure organization share a
    token; different options, environments or organizations do not."""
    aws = [request("aws-codeartifact", f"https://x/{repository}", ACME, {}) for repository in "ab"]
    assert aws[0] == aws[1]
    assert aws[0] != request("aws-codeartifact", "https://x/a", {**ACME, "profile": "dev"}, {})
    assert aws[0] != request("aws-codeartifact", "https://x/a", ACME, {"AWS_CONFIG_FILE": "/x"})
    google = [request("google-artifact-registry", f"https://{host}-python.pkg.dev/x", {}, {}) for host in "ab"]
    assert google[0] == google[1]
    assert aws[0].service == google[0].service == ""  # no part of the URL makes another token
    azure = [
        request("azure-artifacts", f"https://pkgs.dev.azure.com/{path}/pypi/simple/", {}, {}).service
        for path in ("acme/_packaging/a", "acme/project/_packaging/b", "other/_packaging/a")
    ]
    assert azure == ["https://pkgs.dev.azure.com/acme"] * 2 + ["https://pkgs.dev.azure.com/other"]
    legacy = request("azure-artifacts", "https://acme.pkgs.visualstudio.com/_packaging/a/", {}, {})
    assert legacy.service == "https://acme.pkgs.visualstudio.com"
    assert request("plug-in", "https://x.example/a", {}, {}).service == "https://x.example/a"


@pytest.mark.parametrize(
    ("url", "platform"),
    [
        ("https://acme.jfrog.io/artifactory/api/pypi/one/simple/", "https://acme.jfrog.io"),
        ("https://ACME.jfrog.io/artifactory/api/pypi/two/simple", "https://acme.jfrog.io"),
        ("https://corp.example:8443/tools/artifactory/api/pypi/one/simple/", "https://corp.example:8443/tools"),
        ("http://127.0.0.1:8082/artifactory/api/pypi/one/simple/", "http://127.0.0.1:8082"),
        ("https://corp.example/pypi/simple/", ""),
    ],
)
def test_the_platform_of_an_artifactory(url: str, platform: str) -> None:
    """All repositories of one JFrog platform share a token, whatever its host. A URL that does not contain
    Artifactory's path has no platform."""
    assert request("jfrog-artifactory", url, {}, {}).service == platform


@pytest.mark.parametrize(
    ("url", "server", "prefix"),
    [
        (
            "https://gitlab.com/api/v4/projects/42/packages/pypi/simple",
            "https://gitlab.com",
            "/projects/42/packages/pypi",
        ),
        ("https://gitlab.com/api/v4/projects/a%2Fb/packages/pypi/simple/", "https://gitlab.com", ""),
        ("https://corp.example/git/api/v4/groups/7/-/packages/pypi/simple", "https://corp.example/git", ""),
        (
            "https://corp.example/git/api/v4/projects/7/packages/pypi/simple",
            "https://corp.example/git",
            "/projects/7/packages/pypi",
        ),
    ],
)
def test_the_server_of_a_gitlab(url: str, server: str, prefix: str) -> None:
    """All projects of one GitLab server share a token. GitLab serves a project's files below its numeric id, so only
    an index URL with that id has its own prefix in uv's store."""
    assert request("gitlab", url, {}, {}).service == server
    assert clouds.store_service("gitlab", IndexUrl.parse(url)) == f"{server}/api/v4{prefix}"


def test_a_gitlab_url_without_the_api_path() -> None:
    """A URL without GitLab's API path has no server, and its prefix in uv's store is its own root."""
    url = "https://corp.example/pypi/simple/"
    assert request("gitlab", url, {}, {}).service == ""
    assert clouds.store_service("gitlab", IndexUrl.parse(url)) == "https://corp.example/pypi"


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("https://gitlab.com/api/v4/projects/42/packages/pypi/simple", "42"),
        (f"https://{D}.eu-central-1.amazonaws.com/pypi/production/simple/", "production"),
        ("https://europe-west3-python.pkg.dev/acme-ml/models/simple/", "models"),
        ("https://pkgs.dev.azure.com/acme/_packaging/platform/pypi/simple/", "platform"),
        ("https://corp.example/simple/", "corp.example"),
        ("https://corp.example/a%20b/", "a-20b"),
        ("https://corp.example/---/", "index"),
    ],
)
def test_a_derived_name_is_one_that_uv_allows(url: str, name: str) -> None:
    """The derived name is the last meaningful segment of the path, otherwise the host."""
    assert IndexUrl.parse(url).name == name
    assert clouds.options_in_url("plug-in", IndexUrl.parse(url)) == {}


@given(st.text(max_size=60))
def test_an_invalid_url_raises_only_valueerror(text: str) -> None:
    """Parsing an arbitrary text as a URL succeeds or raises ValueError."""
    try:
        recognize(f"https://{text}")
        assert IndexUrl.parse(f"https://{text}").name
    except ValueError:
        return


@pytest.mark.parametrize(
    ("provider", "url", "upload"),
    [
        ("aws-codeartifact", f"https://{D}.eu-central-1.amazonaws.com/pypi/prod/simple/", "/pypi/prod/"),
        ("google-artifact-registry", "https://europe-west3-python.pkg.dev/acme/models/simple", "/acme/models/"),
        (
            "azure-artifacts",
            "https://pkgs.dev.azure.com/acme/_packaging/feed/pypi/simple/",
            "/acme/_packaging/feed/pypi/upload/",
        ),
        ("jfrog-artifactory", "https://acme.jfrog.io/artifactory/api/pypi/a/simple", "/artifactory/api/pypi/a/"),
        ("nexus", "https://nexus.example/repository/a/simple", "/repository/a/"),
        (
            "gitlab",
            "https://gitlab.com/api/v4/projects/42/packages/pypi/simple",
            "/api/v4/projects/42/packages/pypi",
        ),
        ("a-plug-in", "https://x.example/a/simple/", "/a/"),
    ],
)
def test_the_upload_url(provider: str, url: str, upload: str) -> None:
    """The upload URL is the one that each service documents for publishing with twine."""
    parsed = IndexUrl.parse(url)
    assert clouds.upload_url(provider, parsed) == f"https://{parsed.host}{upload}"


@pytest.mark.parametrize("cloud", clouds.CLOUDS.values(), ids=lambda cloud: cloud.provider)
def test_a_catalog_is_consistent(cloud: Cloud) -> None:
    """Every way to sign in names existing options, required options have an example for the template, and the
    default of a choice is its first value."""
    for way in cloud.sign_ins:
        assert {*way.needs, *way.takes} <= cloud.options.keys()
        assert all(cloud.options[name].example is not None for name in way.needs)
    for option in cloud.options.values():
        assert (option.kind == values.CHOICE) == bool(option.choices)
        assert option.default is None or option.default == option.choices[0]
        assert option.unless == "" or option.unless in cloud.options
    required = [option for option in cloud.options.values() if option.required and not option.from_url]
    assert all(option.example is not None for option in required)


def test_which_fetches_use_a_one_time_secret() -> None:
    """A JFrog refresh token and a rotated GitLab token work only once."""
    secret = (("env", "X"),)
    assert clouds.spends_one_time_secret(Request("gitlab", options=(("rotate", True), ("token", secret))))
    assert not clouds.spends_one_time_secret(Request("gitlab", options=(("token", secret),)))
    assert clouds.spends_one_time_secret(Request("jfrog-artifactory", options=(("refresh-token", secret),)))
    assert not clouds.spends_one_time_secret(Request("jfrog-artifactory", options=(("access-token", secret),)))
    assert not clouds.spends_one_time_secret(Request("aws-codeartifact"))
    assert not clouds.spends_one_time_secret(Request("a-plug-in"))


@pytest.mark.parametrize(
    ("request_", "programs"),
    [
        (Request("google-artifact-registry", options=(("source", "gcloud"),)), ("gcloud",)),
        (Request("google-artifact-registry"), ()),
        (Request("azure-artifacts", options=(("credential", "cli"),)), ("az",)),
        (Request("azure-artifacts", options=(("credential", "developer-cli"),)), ("azd",)),
        (Request("azure-artifacts"), ()),
        (Request("command", options=(("command", ("prog", "arg")),)), ("prog",)),
        (Request("command"), ()),
        (Request("static"), ()),
    ],
)
def test_which_programs_a_fetch_starts(request_: Request, programs: tuple[str, ...]) -> None:
    """A fetch starts only the programs that the options name."""
    assert clouds.CLOUDS[request_.provider].runs(request_) == programs


@pytest.mark.parametrize(
    ("service", "portal"),
    [
        ("https://pkgs.dev.azure.com/acme", "https://dev.azure.com/acme"),
        ("https://acme.pkgs.visualstudio.com", "https://acme.visualstudio.com"),
        ("http://pkgs.dev.azure.com/acme", None),
        ("https://pkgs.dev.azure.com/acme/project", None),
        ("https://pkgs.dev.azure.com:8443/acme", None),
        ("https://acme.pkgs.visualstudio.com/x", None),
        ("https://evil.example/acme", None),
    ],
)
def test_organizations_of_azure_devops(service: str, portal: str | None) -> None:
    """`organization` accepts only URLs of Azure DevOps organizations, because the token is sent to the service it
    returns."""
    organization = azure_artifacts.organization(service)
    assert (organization.portal if organization else None) == portal


def test_the_files_of_a_sign_in() -> None:
    """The files to watch are the cloud's own, moved by its environment variables, and those that the options name,
    each once."""
    request = Request("google-artifact-registry", options=(("credentials-file", "/key.json"),))
    assert [*clouds.sign_in_paths(request, {})] == ["~/.config/gcloud", "/key.json"]
    moved = {"GOOGLE_APPLICATION_CREDENTIALS": "/adc.json", "CLOUDSDK_CONFIG": "/g"}
    assert [*clouds.sign_in_paths(request, moved)] == ["/adc.json", "/g", "/key.json"]
    plugin = Request("a-plug-in", options=(("credentials-file", "/x"), ("token", (("file", "/y"),))))
    assert [*clouds.sign_in_paths(plugin, {})] == ["/y"]


def test_which_variables_a_service_records() -> None:
    """An installed service records the variables that locate a cloud's files and settings, but no secret."""
    recorded = {
        "AWS_PROFILE": "dev",
        "AWS_CONFIG_FILE": "/c",
        "AWS_WEB_IDENTITY_TOKEN_FILE": "/t",
        "AZURE_CONFIG_DIR": "/a",
        "CLOUDSDK_CONFIG": "/g",
        "GOOGLE_APPLICATION_CREDENTIALS": "/k",
        "JFROG_CLI_HOME_DIR": "/j",
    }
    secrets = dict.fromkeys(
        (
            "AWS_ACCESS_KEY_ID",
            "AWS_SECRET_ACCESS_KEY",
            "AWS_SESSION_TOKEN",
            "AWS_CREDENTIAL_EXPIRATION",
            "AWS_CONTAINER_AUTHORIZATION_TOKEN",
            "AZURE_CLIENT_SECRET",
            "AZURE_PASSWORD",
            "AZURE_CLIENT_CERTIFICATE_PASSWORD",
            "CLOUDSDK_AUTH_ACCESS_TOKEN",
            "JFROG_ACCESS_TOKEN",
        ),
        "canary",
    )
    others = {"HOME": "/home/me", "AWS_REGION": "", "XAWS_PROFILE": "x"}
    kept = environment.record({**recorded, **secrets, **others}, environment.patterns())
    assert dict(kept.variables) == recorded


def test_a_global_pat_is_named() -> None:
    """Each organization that uses a global personal access token gets a notice, because Azure DevOps is about to
    retire them."""
    pat: Frozen = (("env", "PAT"),)
    organizations = [Request("azure-artifacts", f"https://pkgs.dev.azure.com/{name}", (("pat", pat),)) for name in "ab"]
    alone = Request("azure-artifacts", "https://pkgs.dev.azure.com/c", (("pat", (("env", "OTHER"),)),))
    signed_in = Request("azure-artifacts", "https://pkgs.dev.azure.com/d")
    notices = clouds.notices({}, [*organizations, alone, signed_in, Request("nexus"), Request("a-plug-in")])
    assert notices.keys() == {*organizations}
    assert {notice.reason for of_one in notices.values() for notice in of_one} == {"global-pat"}
    assert clouds.notices({}, [organizations[0], alone, signed_in]) == {}


def test_a_pat_for_two_urls_of_one_organization_is_not_global() -> None:
    """The two URL forms of one organization count as one. A self-hosted server is identified by its URL."""
    pat: Frozen = (("env", "PAT"),)
    both = [f"https://{host}" for host in ("pkgs.dev.azure.com/acme", "acme.pkgs.visualstudio.com")]
    assert clouds.notices({}, [Request("azure-artifacts", url, (("pat", pat),)) for url in both]) == {}
    own = [f"https://{host}/tfs/all" for host in ("one.example", "two.example")]
    (of_first, _) = clouds.notices({}, [Request("azure-artifacts", url, (("pat", pat),)) for url in own]).values()
    assert "https://one.example/tfs/all, https://two.example/tfs/all" in of_first[0].message


def test_the_notices_of_a_request() -> None:
    """The notices of a request include temporary credentials in the daemon's environment."""
    request = Request("aws-codeartifact")
    keys = {"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "y", "AWS_SESSION_TOKEN": "z"}
    ((notice,),) = clouds.notices(keys, [request]).values()
    assert notice == clouds.temporary_credentials(keys, request)


#: The options table of the contract. The first value of a choice is its default; "!" marks an option that the file or
#: the URL must contain.
OPTIONS: dict[str, dict[str, str]] = {
    "aws-codeartifact": {
        "profile": "text",
        "role-arn": "text",
        "domain": "text!",
        "domain-owner": "AWS account ID!",
        "region": "text!",
        "duration": "duration 900-43200 or 0",
    },
    "google-artifact-registry": {
        "source": "adc, gcloud = adc",
        "credentials-file": "path",
        "impersonate-service-account": "text",
        "lifetime": "duration 60-43200",
    },
    "azure-artifacts": {
        "credential": (
            "default, cli, developer-cli, environment, managed-identity, workload-identity, pat = default unless pat"
        ),
        "tenant-id": "text",
        "client-id": "text",
        "token": "session, entra",
        "access": "write, read = write",
        "pat": "secret",
        "username": "login",
        "expires": "time",
    },
    "jfrog-artifactory": {
        "username": "login",
        "password": "secret",
        "access-token": "secret",
        "refresh-token": "secret",
        "oidc-provider": "text",
        "oidc-token": "secret",
        "project-key": "text",
        "identity-mapping": "text",
        "source": "jf",
    },
    "gitlab": {
        "token": "secret!",
        "kind": "personal, deploy, job = personal",
        "username": "login",
        "rotate": "truth value",
    },
    "nexus": {"username": "login or secret!", "password": "secret!"},
    "static": {"username": "login!", "password": "secret!", "expires": "time"},
    "command": {"command": "command!"},
}


def described(option: values.Option) -> str:
    words = ", ".join(option.choices) or option.kind.name
    words += "!" if option.required else ""
    words += f" {option.low}-{option.high}" if option.low else ""
    words += " or 0" if option.zero else ""
    words += f" = {option.default}" if option.default else ""
    return f"{words} unless {option.unless}" if option.unless else words


@pytest.mark.parametrize("provider", OPTIONS)
def test_the_options_are_those_of_the_contract(provider: str) -> None:
    """For every provider, the names, kinds, choices, bounds and defaults of the options are those of the contract."""
    options = CLOUDS[provider].options
    assert {name: described(option) for name, option in options.items()} == OPTIONS[provider]
    assert all((option.kind is values.CHOICE) == bool(option.choices) for option in options.values())


def test_which_kinds_are_text_and_which_are_secret() -> None:
    """Only secrets, and logins where allowed, may be references. Numbers and truth values keep their type."""
    kinds = [kind for kind in vars(values).values() if isinstance(kind, values.Kind)]
    assert {kind.name for kind in kinds if kind.may_be_secret} == {"secret", "login or secret"}
    texts = {"text", "login", "AWS account ID", "choice", "hours of the day", "path"}
    assert {kind.name for kind in kinds if kind.is_text} == texts


def test_which_options_come_from_the_url() -> None:
    """Only the options of a CodeArtifact domain are read from the URL."""
    from_url = {
        (name, key) for name, cloud in CLOUDS.items() for key, option in cloud.options.items() if option.from_url
    }
    assert from_url == {("aws-codeartifact", key) for key in ("domain", "domain-owner", "region")}


def test_an_organization_keeps_its_letters() -> None:
    """Only the slashes around the name of an organization are removed; its letter case is kept."""
    url = IndexUrl.parse("https://pkgs.dev.azure.com/XbX/_packaging/feed/pypi/simple/")
    assert CLOUDS["azure-artifacts"].service(url) == "https://pkgs.dev.azure.com/XbX"


@pytest.mark.parametrize(
    ("environ", "file", "provider"),
    [
        ({}, "~/.config/gcloud/credentials.db", "google-artifact-registry"),
        ({"CLOUDSDK_CONFIG": "/g"}, "/g/credentials.db", "google-artifact-registry"),
        ({}, "~/.jfrog/jfrog-cli.conf.v6", "jfrog-artifactory"),
        ({"JFROG_CLI_HOME_DIR": "/j"}, "/j/jfrog-cli.conf.v6", "jfrog-artifactory"),
    ],
)
def test_where_a_program_keeps_a_sign_in_that_must_be_chosen(environ: dict[str, str], file: str, provider: str) -> None:
    """uvtokend looks for the stored sign-in where the cloud's program writes it: at home, or where the program's
    variable says. The provider's option then selects that sign-in."""
    assert clouds.stored_sign_ins(environ, lambda path: path == file) == {provider}
    stored = CLOUDS[provider].stored
    assert stored is not None
    assert stored.options == {"source": "jf" if "jfrog" in provider else "gcloud"}


#: The names in each cloud's own tools: the program, its sign-in command and its page; the files of a sign-in, each with
#: the variable that moves it; the variables that an installed service copies from the shell.
TOOLS: dict[str, tuple[str, str, str]] = {
    "aws-codeartifact": (
        "aws: aws sso login: https://docs.aws.amazon.com/cli/latest/userguide/getting-started-install.html",
        (
            "~/.aws/config AWS_CONFIG_FILE, ~/.aws/credentials AWS_SHARED_CREDENTIALS_FILE, ~/.aws/sso/cache , "
            "~/.aws/cli/cache , ~/.aws/login/cache AWS_LOGIN_CACHE_DIRECTORY"
        ),
        "AWS_*",
    ),
    "google-artifact-registry": (
        "gcloud: gcloud auth application-default login: https://cloud.google.com/sdk/docs/install",
        " GOOGLE_APPLICATION_CREDENTIALS, ~/.config/gcloud CLOUDSDK_CONFIG",
        (
            "CLOUDSDK_* GOOGLE_APPLICATION_CREDENTIALS GOOGLE_CLOUD_* GOOGLE_EXTERNAL_ACCOUNT_* GCE_METADATA_* "
            "NO_GCE_CHECK"
        ),
    ),
    "azure-artifacts": (
        "az: az login: https://learn.microsoft.com/cli/azure/install-azure-cli",
        "~/.azure AZURE_CONFIG_DIR",
        "AZURE_* AZD_CONFIG_DIR IDENTITY_ENDPOINT MSI_ENDPOINT IMDS_ENDPOINT",
    ),
    "jfrog-artifactory": (
        "jf: jf login: https://jfrog.com/getcli/",
        "~/.jfrog/jfrog-cli.conf.v6 JFROG_CLI_HOME_DIR/jfrog-cli.conf.v6",
        "JFROG_CLI_HOME_DIR",
    ),
}


@pytest.mark.parametrize("provider", CLOUDS)
def test_the_tools_of_each_cloud(provider: str) -> None:
    """The sign-in programs, watched files and variables of each cloud are exact. A wrong one means a missed sign-in,
    a service without its variables, or a broken link."""
    cloud = CLOUDS[provider]
    program = "" if cloud.program is None else f"{cloud.program.name}: {cloud.program.sign_in}: {cloud.program.page}"
    watched = ", ".join(f"{file.default} {file.variable}{file.below}" for file in cloud.watched)
    assert (program, watched, " ".join(cloud.service_variables)) == TOOLS.get(provider, ("", "", ""))
    assert cloud.provider == provider


@pytest.mark.parametrize("name", ["Xa", "aX", "XX", "X-X"])
def test_an_organization_may_have_any_name(name: str) -> None:
    """The organization is the path segment, letter for letter. A URL without one has no organization."""
    organization = azure_artifacts.organization(f"https://pkgs.dev.azure.com/{name}/")
    assert organization is not None
    assert (organization.name, organization.portal) == (name, f"https://dev.azure.com/{name}")
    assert azure_artifacts.organization("https://pkgs.dev.azure.com/") is None
    assert recognize("https://pkgs.dev.azure.com/") is None
    assert recognize(f"https://pkgs.dev.azure.com/{name}/_packaging/f/pypi/simple/") == ("azure-artifacts", {})


def test_long_term_keys_are_not_temporary() -> None:
    """No notice is given without AWS keys or with long-term keys."""
    long_term = {"AWS_ACCESS_KEY_ID": "AKIAX", "AWS_SECRET_ACCESS_KEY": "x"}
    temporary = CLOUDS["aws-codeartifact"].temporary
    assert temporary(long_term, Request("aws-codeartifact")) == temporary({}, Request("aws-codeartifact")) == ()


def test_a_catalog_is_imported_once() -> None:
    """Each access to a provider returns the same catalog, even from a mapping that has imported nothing yet."""
    fresh = clouds._Clouds()
    assert fresh["nexus"] is fresh["nexus"] is CLOUDS["nexus"]


def test_the_defaults_of_a_catalog() -> None:
    """A catalog without functions of its own recognizes no URL, starts no program and reports nothing."""
    plain, url = CLOUDS["static"], IndexUrl.parse("https://h.example/a/simple/")
    assert (plain.recognize(url), plain.service(url)) == (None, "")
    assert (plain.prefix(url), plain.upload(url)) == ("https://h.example/a", "https://h.example/a/")
    assert (plain.conflict({}), plain.together([]), plain.defaults({})) == (None, {}, {})
    assert (plain.covers(url), plain.spends(Request("static"))) == (False, False)
    assert (plain.temporary({}, Request("static")), plain.runs(Request("static"))) == ((), ())
    assert (plain.path, plain.login, plain.takes_any_login, plain.sign_ins) == ("", "", False, ())


@pytest.mark.parametrize(
    ("environ", "options"),
    [
        ({}, {}),
        ({"AWS_PROFILE": "a"}, {"profile": "a"}),
        ({"AWS_DEFAULT_PROFILE": "d"}, {"profile": "d"}),
        ({"AWS_PROFILE": "a", "AWS_DEFAULT_PROFILE": "d"}, {"profile": "d"}),
        ({"AWS_PROFILE": ""}, {}),
    ],
)
def test_the_current_aws_profile_is_configured(environ: dict[str, str], options: dict[str, str]) -> None:
    """``uvtokend add`` configures the AWS profile of the shell, because the daemon may not see the variables. Like
    botocore, it prefers AWS_DEFAULT_PROFILE to AWS_PROFILE."""
    assert CLOUDS["aws-codeartifact"].defaults(environ) == options


@pytest.mark.parametrize("name", ["X", "XX", "aX"])
def test_any_organization_is_recognized(name: str) -> None:
    """An organization's root URL is recognized, whatever the organization is called."""
    assert recognize(f"https://pkgs.dev.azure.com/{name}/") == ("azure-artifacts", {})


#: Each provider's title, the path that identifies it on an unknown host, its user name, and where its fetch is.
NAMES: dict[str, tuple[str, str, str, str]] = {
    "aws-codeartifact": ("AWS CodeArtifact", "", "aws", "aws.fetch"),
    "azure-artifacts": ("Azure Artifacts", "", "VssSessionToken", "azure.fetch"),
    "command": ("the output of a program", "", "", "command"),
    "gitlab": ("GitLab", "/api/v4/", "", "gitlab.fetch"),
    "google-artifact-registry": ("Google Artifact Registry", "", "oauth2accesstoken", "google.fetch"),
    "jfrog-artifactory": ("JFrog Artifactory", "/artifactory/api/pypi/", "", "jfrog.fetch"),
    "nexus": ("Sonatype Nexus", "/repository/", "", "nexus"),
    "static": ("a user name and a secret", "", "", "static"),
}


@pytest.mark.parametrize("provider", CLOUDS)
def test_the_title_path_login_and_module_of_each_cloud(provider: str) -> None:
    """A catalog has the right title for people, and the right path, user name and module, without which every fetch
    fails."""
    cloud = CLOUDS[provider]
    assert (cloud.title, cloud.path, cloud.login, cloud.module.removeprefix("uvtokend.providers.")) == NAMES[provider]
    assert cloud.takes_any_login == (provider == "azure-artifacts")
    assert cloud.module.startswith("uvtokend.providers.")


def test_global_tokens_end_in_december_2026() -> None:
    """uvtokend expects global personal access tokens to end when Microsoft retires them ("Retirement of global
    personal access tokens in Azure DevOps")."""
    assert datetime(2026, 12, 1, tzinfo=UTC) == azure_artifacts.GLOBAL_PATS_END


def test_the_kinds_of_values_have_names() -> None:
    """Each kind of option has the name that the reference uses, and the example that a template shows."""
    kinds = [kind for kind in vars(values).values() if isinstance(kind, values.Kind)]
    assert {kind.name: kind.example for kind in kinds} == {
        "text": "NAME",
        "login": "YOU",
        "login or secret": "YOU",
        "AWS account ID": None,
        "secret": {"file": "~/FILE"},
        "choice": None,
        "duration": None,
        "number": None,
        "truth value": None,
        "hours of the day": None,
        "time": None,
        "path": None,
        "command": ["PROGRAM"],
    }

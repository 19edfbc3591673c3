"""URL -> provider: what is recognised, what is not, and what shares a token."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uvtokend.core import indexes

ACME = {"domain": "acme", "domain-owner": "123456789012", "region": "eu-central-1"}
D = "acme-123456789012.d.codeartifact"


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
    ],
)
def test_recognised(url: str, provider: str, options: dict[str, str]) -> None:
    """The clouds' own hosts tell their provider, and CodeArtifact's their domain, owner and region."""
    assert indexes.recognise(url) == (provider, options)
    assert indexes.told_by_url(provider, url) == options


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
        "https://corp.example/simple/",
    ],
)
def test_not_recognised(url: str) -> None:
    """Look-alikes and strangers are nobody's."""
    assert indexes.recognise(url) is None
    assert indexes.told_by_url("aws-codeartifact", url) == {}


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
#: Where a Cyrillic letter, a full-width dot or a Kelvin sign stands, is said by its name.
TRICKS = {
    f"https://{D}.eu-west-1.amazonaws.com./pypi/prod/simple/": "a trailing dot, which no netrc can hold",
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
    "https://acme.visualstudio.com/_packaging/feed/pypi/simple/": "an organisation's portal",
    "https://pkgs.dev.azure.com.acme.pkgs.visualstudio.com.evil.example/x/": "two of our hosts",
    "https://dev.azure.com/acme/_packaging/feed/pypi/simple/": "the portal",
    "https://europe-west3-docker.pkg.dev/acme/models/": "another kind of registry",
    "https://python.pkg.dev/acme/models/simple/": "no location",
    "https://europe-python.pkg.dev.evil/acme/models/simple/": "a longer end",
    "https://europe-pythonXpkg.dev/acme/models/simple/": "a letter for a dot",
}


@pytest.mark.parametrize("url", SPECIAL, ids=SPECIAL.get)
def test_special_hosts(url: str) -> None:
    """Whatever form of their hosts the clouds hand out is known, in any case and with any port."""
    assert indexes.recognise(url) is not None


@pytest.mark.parametrize("url", TRICKS, ids=TRICKS.get)
def test_look_alikes(url: str) -> None:
    """Nobody's host is taken for a cloud's, whoever made it look like one; its path is that of a real index."""
    assert indexes.recognise(url) is None


def test_what_shares_a_token() -> None:
    """All repositories of a domain, all of one Google identity, all feeds of an organisation; others do not."""
    aws = [indexes.request("aws-codeartifact", f"https://x/{repository}", ACME, {}) for repository in "ab"]
    assert aws[0] == aws[1]
    assert aws[0] != indexes.request("aws-codeartifact", "https://x/a", {**ACME, "profile": "dev"}, {})
    assert aws[0] != indexes.request("aws-codeartifact", "https://x/a", ACME, {"AWS_CONFIG_FILE": "/x"})
    google = [indexes.request("google-artifact-registry", f"https://{host}-python.pkg.dev/x", {}, {}) for host in "ab"]
    assert google[0] == google[1]
    azure = [
        indexes.request("azure-artifacts", f"https://pkgs.dev.azure.com/{path}/pypi/simple/", {}, {}).service
        for path in ("acme/_packaging/a", "acme/project/_packaging/b", "other/_packaging/a")
    ]
    assert azure == ["https://pkgs.dev.azure.com/acme"] * 2 + ["https://pkgs.dev.azure.com/other"]
    legacy = indexes.request("azure-artifacts", "https://acme.pkgs.visualstudio.com/_packaging/a/", {}, {})
    assert legacy.service == "https://acme.pkgs.visualstudio.com"
    assert indexes.request("plug-in", "https://x.example/a", {}, {}).service == "https://x.example/a"


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
    """All repositories of one platform share a token, under any host name; a URL that hides it has none."""
    assert indexes.request("jfrog-artifactory", url, {}, {}).service == platform


@pytest.mark.parametrize(
    ("url", "name"),
    [
        (f"https://{D}.eu-central-1.amazonaws.com/pypi/production/simple/", "production"),
        ("https://europe-west3-python.pkg.dev/acme-ml/models/simple/", "models"),
        ("https://pkgs.dev.azure.com/acme/_packaging/platform/pypi/simple/", "platform"),
        ("https://corp.example/simple/", "corp.example"),
        ("https://corp.example/a%20b/", "a-20b"),
        ("https://corp.example/---/", "index"),
    ],
)
def test_a_derived_name_is_one_that_uv_allows(url: str, name: str) -> None:
    """The last telling word of the path, else the host."""
    assert indexes.default_name(url) == name
    assert indexes.told_by_url("plug-in", url) == {}


@given(st.text(max_size=60))
def test_no_url_raises_but_valueerror(text: str) -> None:
    """Whatever stands in a file as a URL ends in an answer or in ValueError."""
    try:
        indexes.recognise(f"https://{text}")
        assert indexes.default_name(f"https://{text}")
    except ValueError:
        return

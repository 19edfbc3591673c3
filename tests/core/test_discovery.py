"""What uv's own configuration says of private indexes."""

from __future__ import annotations

import tomllib

from hypothesis import given
from hypothesis import strategies as st

from uvtokend.core import discovery, edit
from uvtokend.core.discovery import Candidate
from uvtokend.core.model import Json
from uvtokend.core.settings import Source, parse

ACME = "https://acme-123456789012.d.codeartifact.eu-central-1.amazonaws.com/pypi/prod/simple/"
GOOGLE = "https://europe-west3-python.pkg.dev/acme/models/simple/"
DOCUMENT = f"""
index-url = "https://public.example/simple"
extra-index-url = ["{GOOGLE}"]
[[index]]
name = "acme"
url = "{ACME.replace("https://", "https://aws:hunter2@")}"
[[index]]
name = "evil\\u001b[2J"
url = "https://pkgs.dev.azure.com/acme/_packaging/a/pypi/simple/"
"""


def found(text: str) -> list[Candidate]:
    return list(discovery.from_document(tomllib.loads(text), "uv.toml"))


def written(plan: discovery.Plan) -> str:
    """Return what ``init`` writes."""
    return edit.append("", [addition.table for addition in plan.additions])


def test_a_document() -> None:
    """Names and bare URLs with their providers; a credential is noticed and never kept; odd names are dropped."""
    acme, azure, public, google = found(DOCUMENT)
    assert acme == Candidate("acme", ACME, "aws-codeartifact", "uv.toml", credential=True, line=f'url = "{ACME}"')
    assert (azure.name, azure.provider) == (None, "azure-artifacts")
    assert (public.provider, google.provider) == (None, "google-artifact-registry")


def test_what_is_no_index_is_left_out() -> None:
    """Wrong types, broken URLs, local folders and control characters are nobody's."""
    for text in (
        "index = 1",
        "index = [1]",
        "[[index]]\nname = 'a'",
        "[[index]]\nurl = 7",
        'extra-index-url = "x"',
        'index-url = "./folder"',
        'index-url = "https://["',
        'index-url = "https://x.example/\\u001b"',
    ):
        assert found(text) == []


def test_the_environment() -> None:
    """Named and plain URLs, several in one variable."""
    environ = {"UV_INDEX": f"acme={ACME} {GOOGLE}?a=b", "UV_DEFAULT_INDEX": "https://public.example/simple"}
    assert [(one.name, one.provider) for one in discovery.from_environment(environ)] == [
        ("acme", "aws-codeartifact"),
        (None, "google-artifact-registry"),
        (None, None),
    ]


def test_only_what_is_missing_is_added() -> None:
    """Each URL once, none that is configured by URL or by name, and what is written can be read."""
    candidates = [*found(DOCUMENT), *found(DOCUMENT)]
    found_out = discovery.plan(candidates, [], [], "dev")
    providers = [one.candidate.provider for one in found_out.additions]
    assert providers == ["aws-codeartifact", "azure-artifacts", "google-artifact-registry"]
    assert [one.url for one in found_out.unknown] == ["https://public.example/simple"]
    text = written(found_out)
    settings = parse([Source("config.toml", text.encode(), "/")], "/", {})
    assert [index.url for index in settings.indexes] == [one.candidate.url for one in found_out.additions]
    assert settings.indexes[0].request.option("profile") == "dev"
    assert "hunter2" not in text
    assert discovery.plan(candidates, settings.indexes, [], None).additions == ()
    assert discovery.plan(candidates, [], settings.indexes, None).additions == ()
    assert "profile" not in written(discovery.plan(candidates, [], [], None))


@given(st.text(max_size=30), st.text(max_size=30))
def test_no_name_or_url_breaks_the_file(name: str, path: str) -> None:
    """Whatever a hostile project calls its index, what we write is one TOML table with that name and URL."""
    document: dict[str, Json] = {"index": [{"name": name, "url": GOOGLE + path}]}
    for candidate in discovery.from_document(document, "x"):
        (table,) = tomllib.loads(written(discovery.plan([candidate], [], [], None)))["index"]
        assert table["url"] == candidate.url
        assert candidate.name in {None, table["name"]}

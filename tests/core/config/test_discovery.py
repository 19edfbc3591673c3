"""Which private indexes uv's own configuration names, and what `init` proposes to add to config.toml."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uvtokend.core import clouds
from uvtokend.core.config import discovery, edit, init_plan, templates
from uvtokend.core.config.discovery import Candidate
from uvtokend.core.config.init_plan import Proposal
from uvtokend.core.config.settings import parse
from uvtokend.core.config.toml_document import Source
from uvtokend.core.model import Env, Json, Settings
from uvtokend.core.urls import IndexUrl, is_loopback
from uvtokend.core.uv import settings as uv_settings

ACME = "https://acme-123456789012.d.codeartifact.eu-central-1.amazonaws.com/pypi/prod/simple/"
GOOGLE = "https://europe-west3-python.pkg.dev/acme/models/simple/"
AZURE = "https://pkgs.dev.azure.com/{}/_packaging/feed/pypi/simple/"
JFROG = "https://acme.jfrog.io/artifactory/api/pypi/local/simple/"
NEXUS = "https://nexus.example/repository/pypi/simple/"
DOCUMENT = f"""
index-url = "https://public.example/simple"
extra-index-url = ["{GOOGLE}"]
[[index]]
name = "acme"
url = "{ACME.replace("https://", "https://aws:hunter2@")}"
[[index]]
name = "evil\\u001b[2J"
url = "{AZURE.format("acme").replace("https://", "https://acme@")}"
[pip]
index-url = "{JFROG}"
"""


def candidates_in(text: str) -> list[Candidate]:
    return list(discovery.from_document(tomllib.loads(text), "uv.toml"))


def candidate(url: str, name: str | None = None) -> Candidate:
    """Return the candidate that uv's configuration names with this URL."""
    document: dict[str, Json] = {"index": [{"url": url, **({"name": name} if name else {})}]}
    (one,) = discovery.from_document(document, "uv.toml")
    return one


def configured(text: str) -> Settings:
    return parse([Source("config.toml", text.encode(), "/")], "/home/me", {})


def planned(candidates: Sequence[Candidate], text: str = "", profile: str | None = None) -> Proposal:
    there = configured(text)
    return init_plan.plan(candidates, there.indexes, there.disabled, {"AWS_PROFILE": profile or ""}, text)


def written(plan: Proposal, text: str = "") -> str:
    """Return the configuration with the additions of a plan, after checking that the settings accept it."""
    new = edit.append(text, [each.table for each in plan.additions], [draft.remark for draft in plan.drafts])
    configured(new)
    return new


# ------------------------------------------------------------------------------------------- uv's configuration


def test_a_document() -> None:
    """Named indexes and plain URLs are read with their providers. A credential is reported but not kept, and an
    invalid name is dropped."""
    acme, azure, public, google, jfrog = candidates_in(DOCUMENT)
    assert acme == Candidate(
        "acme", IndexUrl.parse(ACME), "aws-codeartifact", "uv.toml", secret=True, line=f'url = "{ACME}"'
    )
    assert (azure.name, azure.provider, azure.user) == (None, "azure-artifacts", "acme")
    assert (public.provider, google.provider) == (None, "google-artifact-registry")
    assert (public.line, google.line) == (
        'index-url = "https://public.example/simple"',
        f'extra-index-url = ["{GOOGLE}"]',
    )
    assert jfrog.provider == "jfrog-artifactory"
    assert "hunter2" not in repr(candidates_in(DOCUMENT))


@pytest.mark.parametrize(
    "text",
    [
        "index = 1",
        "index = [1]",
        "pip = 1",
        "[[index]]\nname = 'a'",
        "[[index]]\nurl = 7",
        'extra-index-url = "x"',
        'index-url = "./directory"',
        'index-url = "https://["',
        'index-url = "https://x.example/\\u001b"',
        'index-url = "https://x.example/a b"',
        'index-url = "https://é.example/"',
        'index-url = "https:///simple"',
    ],
)
def test_entries_that_are_not_indexes_are_ignored(text: str) -> None:
    """Wrong types, broken URLs, local directories and control characters yield no candidate."""
    assert candidates_in(text) == []


def test_names_with_their_urls_as_written() -> None:
    """Every named index is returned with its URL as written, even if invalid: uv may parse the URL differently."""
    document: dict[str, Json] = {
        "index": [{"name": "a", "url": "https:/é.example\\@x/"}, {"url": ACME}, {"name": "b"}, 1],
        "pip": {"index": [{"name": "c", "url": " http:x"}]},
    }
    assert list(discovery.names_in_document(document)) == [
        ("a", "https:/é.example\\@x/"),
        ("b", "None"),
        ("c", " http:x"),
    ]
    assert list(discovery.names_in_document({"index": "x", "pip": 1})) == []
    environ = {"UV_INDEX": f"a=http:x {ACME}", "UV_DEFAULT_INDEX": "b=./y"}
    assert list(discovery.names_in_environment(environ)) == [
        ("a", "http:x", "UV_INDEX"),
        ("b", "./y", "UV_DEFAULT_INDEX"),
    ]


def test_other_projects_that_uv_reads() -> None:
    """The members of a workspace and the paths of sources are returned; values of other types are ignored."""
    table: dict[str, Json] = {
        "workspace": {"members": ["packages/*", 1, ""]},
        "sources": {"a": {"path": "../a"}, "b": [{"path": "b"}, {"index": "x"}], "c": 1, "d": {"path": 1}},
    }
    assert list(discovery.workspace_members(table)) == ["packages/*"]
    assert list(discovery.path_sources(table)) == ["../a", "b"]
    unusable: list[dict[str, Json]] = [{}, {"workspace": 1, "sources": 1}, {"workspace": {"members": 1}}]
    for table in unusable:
        assert [*discovery.workspace_members(table), *discovery.path_sources(table)] == []


def test_requirements_by_a_file_url() -> None:
    """Requirements with a file URL are returned from anywhere in the document; other values are ignored."""
    groups: Json = {"dev": ["a @ file:///a", "b", {"include-group": "c"}], "c": ["c @ file:c"]}
    document: dict[str, Json] = {"project": {"dependencies": ["d@file:///d"]}, "dependency-groups": groups, "x": 1}
    assert sorted(discovery.file_requirements(document)) == ["a @ file:///a", "c @ file:c", "d@file:///d"]


def test_the_number_of_indexes_is_limited() -> None:
    """A document with too many indexes is cut off at the limit."""
    document: dict[str, Json] = {"extra-index-url": [f"https://x.example/{number}" for number in range(500)]}
    assert len(list(discovery.from_document(document, "x"))) == discovery.MOST == 100


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        (
            {"UV_INDEX": f"acme={ACME} {GOOGLE}?a=b", "UV_DEFAULT_INDEX": "https://public.example/simple"},
            [("acme", f"UV_INDEX=acme={ACME}"), (None, f"UV_INDEX={GOOGLE}?a=b"), (None, "UV_DEFAULT_INDEX={}")],
        ),
        (
            {"UV_EXTRA_INDEX_URL": GOOGLE, "UV_INDEX_URL": "https://a:b@public.example/simple"},
            [(None, "UV_INDEX_URL={}"), (None, f"UV_EXTRA_INDEX_URL={GOOGLE}")],
        ),
        ({"UV_INDEX": "./directory name= =", "OTHER": GOOGLE}, []),
    ],
)
def test_the_environment(environ: Env, expected: list[tuple[str | None, str]]) -> None:
    """Variables may hold named and plain URLs, several in one variable. Each candidate knows the line that the user
    must change."""
    said = [(one.name, one.line) for one in discovery.from_environment(environ)]
    assert said == [(name, line.replace("{}", "https://public.example/simple")) for name, line in expected]


@pytest.mark.parametrize(
    ("pyproject", "expected"),
    [({}, None), ({"tool": 1}, None), ({"tool": {"uv": 1}}, None), ({"tool": {"uv": {"pip": {}}}}, {"pip": {}})],
)
def test_the_table_of_uv(pyproject: dict[str, Json], expected: object) -> None:
    """`tool_uv` returns the `[tool.uv]` table, or None if it is missing or not a table."""
    assert discovery.tool_uv(pyproject) == expected


@pytest.mark.parametrize(
    ("workspace", "directory", "expected"),
    [
        ({"members": ["packages/*"]}, "packages/a", True),
        ({"members": ["./packages/*/"]}, "packages/a", True),
        ({"members": ["packages/*"], "exclude": ["packages/a"]}, "packages/a", False),
        ({"members": ["a"]}, "b", False),
        ({"members": "a"}, "a", False),
        ({"members": [1]}, "a", False),
        ({}, "a", False),
        (1, "a", False),
    ],
)
def test_a_workspace_has_members(workspace: Json, directory: str, expected: bool) -> None:
    """A directory is a member if the workspace lists it and does not exclude it."""
    assert discovery.is_member(workspace, directory) is expected


# ------------------------------------------------------------------------------------------ what init proposes


def test_only_missing_indexes_are_added() -> None:
    """Each missing URL is added once, with the current AWS profile and without credentials, and the result is valid."""
    plan = planned([*candidates_in(DOCUMENT), *candidates_in(DOCUMENT)], profile="dev")
    assert [each.table["url"] for each in plan.additions] == [ACME, AZURE.format("acme"), GOOGLE]
    assert [one.url.text for one in plan.unknown] == ["https://public.example/simple"]
    text = written(plan)
    assert "hunter2" not in text
    assert [index.request.option("profile") for index in configured(text).indexes] == ["dev", None, None]
    again = planned(candidates_in(DOCUMENT), text)
    assert (again.additions, again.drafts) == ((), ())
    assert "profile" not in written(planned(candidates_in(DOCUMENT)))


def test_a_disabled_index_stays_disabled() -> None:
    """A disabled index is not added again, with or without the final /simple/ of its URL."""
    off = f'[[index]]\nurl = "{GOOGLE.removesuffix("simple/")}"\nenabled = false\n'
    assert planned([candidate(GOOGLE)], off).additions == ()


def test_names_are_unique() -> None:
    """If two projects use one name, the second index gets another name and a note. A derived name needs no note."""
    other = ACME.replace("prod", "dev")
    plan = planned(
        [candidate(ACME, "a"), candidate(other, "a"), candidate(GOOGLE), candidate(GOOGLE + "models/simple/")]
    )
    assert [each.table["name"] for each in plan.additions] == ["a", "a-2", "models", "models-2"]
    assert [each.note is None for each in plan.additions] == [True, False, True, True]
    assert "'a-2'" in (plan.additions[1].note or "")


@pytest.mark.parametrize(
    ("there", "url"),
    [
        (f'[[index]]\nurl = "{ACME}"\nprofile = "x"\nduration = 3600\n', ACME.replace("prod", "dev")),
        (f'[[index]]\nurl = "{ACME}"\nprofile = "x"\nsink = "memory"\n', ACME.replace("prod", "dev")),
        (f'[[index]]\nurl = "{GOOGLE}"\nenv = {{ A_FILE = "/b" }}\n', GOOGLE.replace("models", "b")),
        (f'[[index]]\nurl = "{JFROG}"\naccess-token = {{ file = "~/t" }}\n', JFROG.replace("local", "remote")),
        (
            (
                f'[[index]]\nurl = "{NEXUS}"\nprovider = "nexus"\nusername = {{ env = "U" }}\n'
                'password = { keyring = { service = "s", username = "u" } }\n'
            ),
            NEXUS.replace("pypi", "second"),
        ),
        (f'[[index]]\nurl = "{NEXUS}"\nprovider = "command"\ncommand = ["/bin/a", "b"]\n', NEXUS.replace("pypi", "b")),
        (
            (
                f'[[index]]\nurl = "{AZURE.format("acme")}"\nsink = "uv-store"\nexpires = 2030-01-01T00:00:00Z\n'
                'pat = { command = ["pass", "x"] }\n'
            ),
            AZURE.format("acme").replace("feed", "b"),
        ),
    ],
)
def test_an_index_of_the_same_tenant_shares_the_sign_in(there: str, url: str) -> None:
    """A second index of a tenant is written with the options of the first, so that both share a token."""
    text = written(planned([candidate(url)], there), there)
    first, second = configured(text).indexes
    assert (first.request, first.sink, second.url) == (second.request, second.sink, url)


def test_another_tenant_on_the_same_host_is_a_conflict() -> None:
    """If an index needs another token for a host that is already in the netrc, it is not added, and the conflict
    names the fix."""
    there = f'[[index]]\nname = "a"\nurl = "{AZURE.format("acme")}"\n'
    plan = planned([candidate(AZURE.format("beta"))], there)
    assert plan.additions == ()
    (sentence,) = plan.conflicts
    assert 'sink = "uv-store" and username = "acme" for \'a\'' in sentence
    fixed = f'{there}sink = "uv-store"\nusername = "acme"\n'
    assert len(configured(written(planned([candidate(AZURE.format("beta"))], fixed), fixed)).indexes) == 2
    other = f'[[index]]\nname = "a"\nurl = "{ACME}"\nprovider = "static"\nusername = "u"\npassword = {{ env = "P" }}\n'
    assert planned([candidate(ACME.replace("prod", "dev"))], other).additions[0].table["provider"] == "static"


VPC = "https://vpce-1-a.d.codeartifact.eu-west-1.vpce.amazonaws.com/pypi/d/{}-123456789012/x/simple/"


def test_two_tenants_on_one_host_go_to_the_store() -> None:
    """A netrc cannot hold two tenants of one host, so both go to uv's store. A caution says if uv cannot use both in
    one run."""
    plan = planned([candidate(VPC.format("one")), candidate(VPC.format("two")), candidate(GOOGLE)])
    assert [each.table.get("sink") for each in plan.additions] == ["uv-store", "uv-store", None]
    (sentence,) = plan.cautions
    assert sentence.startswith("The indexes on vpce-1-a.d.codeartifact.eu-west-1.vpce.amazonaws.com need different")
    assert plan.project == ()
    assert len(configured(written(plan)).indexes) == 3


def test_a_host_in_memory_stays_in_memory() -> None:
    """New indexes on a host with `sink = "memory"` get the same sink, and one caution says what uv then needs."""
    there = f'[[index]]\nname = "a"\nurl = "{ACME}"\nsink = "memory"\n'
    plan = planned([candidate(ACME.replace("prod", "dev")), candidate(ACME.replace("prod", "test"))], there)
    assert [each.table["sink"] for each in plan.additions] == ["memory", "memory"]
    (sentence,) = plan.cautions
    assert "uvtokend keyring install" in sentence
    assert 'keyring-provider = "subprocess"' in sentence


def test_a_sign_in_for_another_domain_is_not_shared() -> None:
    """Another CodeArtifact domain behind the same VPC endpoint needs its own token, so it does not copy the options."""
    there = f'[[index]]\nurl = "{VPC.format("one")}"\nsink = "uv-store"\nprofile = "x"\n'
    (addition,) = planned([candidate(VPC.format("two"), "b")], there).additions
    assert addition.table == {"name": "b", "url": VPC.format("two"), "sink": "uv-store"}


PROJECT = """\
[[tool.uv.index]]
name = "a"
url = "https://acme@pkgs.dev.azure.com/acme/_packaging/feed/pypi/simple/"

[[tool.uv.index]]
name = "acme-files"
url = "https://acme@pkgs.dev.azure.com/acme/"
explicit = true

[[tool.uv.index]]
name = "b"
url = "https://beta@pkgs.dev.azure.com/beta/_packaging/feed/pypi/simple/"

[[tool.uv.index]]
name = "beta-files"
url = "https://beta@pkgs.dev.azure.com/beta/"
explicit = true
"""


def test_each_azure_organization_gets_a_user_name() -> None:
    """User names distinguish two organizations. The plan lists the lines that uv's configuration needs, for
    configured indexes too, and only if they are missing."""
    both = [candidate(AZURE.format("acme"), "a"), candidate(AZURE.format("beta"), "b")]
    plan = planned(both)
    assert [each.table["username"] for each in plan.additions] == ["acme", "beta"]
    assert "\n".join(plan.project) == PROJECT
    assert plan.cautions == ()
    text = written(planned(both[:1]), "").rstrip("\n") + '\nsink = "uv-store"\nusername = "acme"\n'
    assert "\n".join(planned(both, text).project) == PROJECT
    as_written = discovery.from_document({"index": tomllib.loads(PROJECT)["tool"]["uv"]["index"]}, "uv.toml")
    again = planned([*as_written])
    assert ([each.table for each in again.additions], again.project) == ([each.table for each in plan.additions], ())


def test_the_user_name_in_a_url_is_the_login() -> None:
    """uv accepts no login other than the user name in the URL, so it is copied, unless it is the default login or
    invalid."""
    for user, expected in (("me", {"username": "me"}), ("VssSessionToken", {}), ("a%3Ab", {})):
        plan = planned([candidate(AZURE.format("acme").replace("//", f"//{user}@"), "a")])
        assert [each.table for each in plan.additions] == [{"name": "a", "url": AZURE.format("acme"), **expected}]
    feeds = [AZURE.format("acme"), AZURE.format("acme").replace("feed", "b").replace("//", "//me@")]
    settings = configured(written(planned([candidate(url) for url in feeds])))
    assert [index.request.option("username") for index in settings.indexes] == ["me", "me"]


LEGACY = "https://{}.pkgs.visualstudio.com/_packaging/feed/pypi/simple/"


def test_a_user_name_belongs_to_one_organization() -> None:
    """A user name applies only to its organization, even if the organization has its own host. A second feed in uv's
    store gets the same login."""
    plan = planned([candidate(LEGACY.format("one").replace("//", "//me@")), candidate(LEGACY.format("two"))])
    assert [each.table.get("username") for each in plan.additions] == ["me", None]
    there = '[[index]]\nname = "a"\nurl = "{}"\nsink = "uv-store"\n'
    for first in (AZURE.format("acme"), LEGACY.format("acme")):
        plan = planned([candidate(first.replace("feed", "b"), "b")], there.format(first))
        assert [each.table.get("username") for each in plan.additions] == [None]
        assert len(configured(written(plan, there.format(first))).indexes) == 2
        assert (plan.project, plan.cautions) == ((), ())
    old = there.format(LEGACY.format("acme")) + 'tenant-id = "x"\nenv = { A_FILE = "b" }\n'
    assert written(planned([candidate(LEGACY.format("acme").replace("feed", "b"))], old), old).count("tenant-id") == 2


def test_a_shared_login_in_the_store_is_no_caution() -> None:
    """A new index that shares a credential in uv's store needs no caution and no change in uv's configuration."""
    there = f'[[index]]\nurl = "{JFROG}"\nsink = "uv-store"\nusername = "me"\npassword = {{ env = "P" }}\n'
    plan = planned([candidate(JFROG.replace("local", "remote"))], there)
    assert [each.table["sink"] for each in plan.additions] == ["uv-store"]
    assert (plan.project, plan.cautions) == ((), ())


def test_an_unknown_way_to_sign_in_becomes_a_draft() -> None:
    """If only the user knows how to sign in, the plan adds a commented-out table once. Completed and uncommented, it
    is valid."""
    there = "[daemon]\n"
    plan = planned([candidate(JFROG, "j")], there)
    assert plan.additions == ()
    (draft,) = plan.drafts
    text = written(plan, there)
    assert configured(text).indexes == ()
    again = planned([candidate(JFROG, "j")], text)
    assert (again.additions, again.drafts) == ((), ())
    assert again.conflicts == (f"{JFROG} is in the configuration as a comment. Complete it and remove the #.",)
    completed = "\n".join(line.removeprefix("# ") for line in text.splitlines())
    (index,) = configured(completed).indexes
    assert (index.name, index.request.option("username")) == ("j", "YOU")
    for way in ("access-token = ", "refresh-token = ", "oidc-provider = "):
        assert f"## or {way}" in draft.remark
    assert planned([candidate(JFROG, "j")], completed) == Proposal((), (), (), (), (), ())


@pytest.mark.parametrize(
    ("url", "settings"),
    [
        ("https://x.example/simple/", ["provider=static", "username=YOU", 'password = {file = "~/FILE"}']),
        (NEXUS, ["provider=nexus", "username=YOU", 'password = {file = "~/FILE"}']),
        (
            JFROG.replace("jfrog.io", "example"),
            ["provider=jfrog-artifactory", "username=YOU", 'password = {file = "~/FILE"}'],
        ),
    ],
)
def test_the_provider_of_a_self_hosted_server_is_suggested(url: str, settings: list[str]) -> None:
    """The path of an unknown host suggests a provider. The suggestion is only shown, and it makes a valid table."""
    (unknown,) = planned([candidate(url)]).unknown
    assert templates.suggested(unknown.url) == settings
    if settings[1:]:
        lines = [line if " = " in line else line.replace("=", ' = "') + '"' for line in settings]
        configured("\n".join(["[[index]]", f'url = "{url}"', *lines]))


@given(st.text(max_size=30), st.text(max_size=30))
def test_no_name_or_url_breaks_the_file(name: str, path: str) -> None:
    """Whatever names and URLs a hostile project uses, the written text contains exactly those tables."""
    urls = [base + path for base in (GOOGLE, JFROG, AZURE.format("a"), AZURE.format("b"))]
    document: dict[str, Json] = {"index": [{"name": name, "url": url} for url in urls]}
    plan = planned(list(discovery.from_document(document, "x")))
    text = edit.append("", [each.table for each in plan.additions], [each.remark for each in plan.drafts])
    expected = [each.table for each in plan.additions]
    assert tomllib.loads(text) == ({"index": expected} if expected else {})
    assert tomllib.loads("\n".join(plan.project)).keys() <= {"tool"}
    for url in urls:
        for one in discovery.from_document({"index-url": url}, "x"):
            assert tomllib.loads(one.line) == {"index-url": one.url.text}
    assert all(line.isprintable() for line in [*text.splitlines(), *plan.project])


def test_an_unencrypted_index_does_not_block_the_others() -> None:
    """An http:// index of a known provider is left out and reported; the others are added."""
    plan = planned([candidate(ACME), candidate(GOOGLE.replace("https:", "http:"))])
    assert [each.table["url"] for each in plan.additions] == [ACME]
    (sentence,) = plan.conflicts
    assert sentence.startswith(f"{GOOGLE.replace('https:', 'http:')} in uv.toml was left out: with http://")


TOKENS = [
    "a" * 24 + "3" * 28,  # a personal access token of Azure DevOps: 52 of [a-z2-7]
    "glpat-" + "x1" * 10,
    "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJtZSJ9.c2ln",
    "x" * 64,
]
NAMES = ["me", "me@corp.example", "acme-research-and-development", "__token__", "first.last@a-very-long-corp.example"]


@pytest.mark.parametrize("user", TOKENS)
def test_a_user_name_that_looks_like_a_token_is_refused(user: str) -> None:
    """A token written as a user name (https://TOKEN@host/) is treated like a password: reported, but neither copied
    nor shown."""
    url = AZURE.format("acme")
    one, two = candidate(url.replace("://", f"://{user}@")), candidate(AZURE.format("other"))
    assert (one.secret, one.user, one.url.text) == (True, "", url)
    assert user not in repr(planned([one, two]))


@pytest.mark.parametrize("user", NAMES)
def test_an_ordinary_user_name_is_kept(user: str) -> None:
    """uv accepts no login other than the user name in the URL, so the index gets it."""
    one = candidate(AZURE.format("acme").replace("://", f"://{quote(user)}@"))
    assert (one.secret, one.user) == (False, user)
    (addition,) = planned([one]).additions
    assert addition.table["username"] == user


@pytest.mark.parametrize(("length", "token"), [(31, False), (32, True)])
def test_a_user_name_of_32_characters_may_be_a_token(length: int, token: bool) -> None:
    """A user name of 32 characters or more is treated as a token, even if its words are short."""
    user = "word-one.word-two.word-three.word-four"[:length]
    assert candidate(AZURE.format("acme").replace("://", f"://{user}@")).secret == token


@pytest.mark.parametrize(
    ("written", "user", "password"),
    [("", None, False), ("me@", "me", False), ("me:pw@", "me", True), (":pw@", "", True), ("m%40e:@", "m@e", True)],
)
def test_a_url_is_split_into_user_password_and_the_rest(written: str, user: str | None, password: bool) -> None:
    """A URL yields its decoded user name and whether it has a password. The remaining text contains neither."""
    url = IndexUrl.parse(f"https://{written}h.example/simple/")
    assert (url.username, url.password, url.text) == (user, password, "https://h.example/simple/")


@pytest.mark.parametrize(("user", "token"), [("a1" * 10, True), ("a" + "a1" * 9, False), ("a" * 20, False)])
def test_a_word_of_20_characters_with_a_digit_may_be_a_token(user: str, token: bool) -> None:
    """A word of 20 letters and digits that is part of a user name is treated as a token. A word of letters alone is
    a name."""
    for written in (user, f"me-{user}", f"{user}@x"):
        assert candidate(AZURE.format("acme").replace("://", f"://{quote(written)}@")).secret == token


def test_any_http_url_may_be_an_index() -> None:
    """Any HTTP URL may be an index; a user name that the configuration could not hold is left out. The paths of
    workspace members keep their letter case."""
    one = candidate("http://127.0.0.1/simple/".replace("://", "://a%20b@"))
    assert (one.url.text, one.user, one.secret) == ("http://127.0.0.1/simple/", "", False)
    assert discovery.is_member({"members": ["aX/", "./X"]}, "aX")
    assert discovery.is_member({"members": ["aX/", "./X"]}, "X")


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("localhost", True),
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("[::1]", True),
        ("[::2]", False),
        ("10.0.0.1", False),
        ("localhost.example", False),
    ],
)
def test_which_hosts_are_this_machine(host: str, loopback: bool) -> None:
    """The hosts of this machine are 127.0.0.0/8 (RFC 1122, 3.2.1.3), ::1 (RFC 4291, 2.5.3) and localhost (RFC 6761,
    6.3)."""
    assert is_loopback(host) == loopback


@pytest.mark.parametrize("name", ["Xo", "oX"])
def test_an_organization_keeps_its_letters_as_a_user_name(name: str) -> None:
    """Only the slashes around the organization's name are removed; its letter case is kept."""
    assert init_plan._organization(f"https://pkgs.dev.azure.com/{name}/") == name


def test_a_draft_begins_with_a_question() -> None:
    """The first line of a draft asks how the user signs in, and the table follows."""
    (draft,) = planned([candidate(JFROG, "j")]).drafts
    question, first = draft.remark.splitlines()[:2]
    assert question.startswith("## How do you sign in to ")
    assert first == "# [[index]]"


def test_a_user_name_from_a_url_is_not_shown() -> None:
    """In the lines to paste for two organizations on one host, USER replaces a user name that was read from a URL."""
    one = candidate(AZURE.format("acme").replace("://", "://mine@"))
    plan = planned([one, candidate(AZURE.format("other"))])
    assert "mine" not in "".join(plan.project)
    assert "https://USER@pkgs.dev.azure.com/acme" in "".join(plan.project)
    assert "https://other@pkgs.dev.azure.com/other" in "".join(plan.project)


def test_a_stored_sign_in_is_used() -> None:
    """If JFrog's CLI is signed in, the plan uses it. Google's default source stays, since it may work as well."""
    candidates = candidates_in(f'index-url = "{JFROG}"\nextra-index-url = ["{GOOGLE}"]\n')
    plan = init_plan.plan(candidates, (), (), {}, "", clouds.stored_sign_ins({}, lambda path: path != ""))
    tables = {str(addition.candidate.provider): addition.table for addition in plan.additions}
    assert tables["jfrog-artifactory"]["source"] == "jf"
    assert "source" not in tables["google-artifact-registry"]
    assert plan.drafts == ()
    assert init_plan.plan(candidates, (), (), {}).drafts


def test_where_a_program_stores_its_sign_in() -> None:
    """A program's environment variable moves the file that is looked for. If no file exists, no sign-in is stored."""
    paths: list[str] = []

    def exists(path: str) -> bool:
        paths.append(path)
        return False

    assert clouds.stored_sign_ins({"JFROG_CLI_HOME_DIR": "/jf"}, exists) == frozenset()
    assert sorted(paths) == ["/jf/jfrog-cli.conf.v6", "~/.config/gcloud/credentials.db"]


@pytest.mark.parametrize(
    ("url", "placeholder"),
    [
        ("https://…/simple/", "…"),
        ("https://acme.d.codeartifact.<region>.amazonaws.com/pypi/r/simple/", "<region>"),
        ("https://{host}/simple/", "{host}"),
        ("https://pypi.example/.../simple/", "..."),
        ("https://acme-ACCOUNT.d.codeartifact.eu-central-1.amazonaws.com/pypi/r/simple/", "ACCOUNT"),
        ("https://HOST/api/v4/projects/ID/packages/pypi/simple", "HOST"),
        ("https://pkgs.dev.azure.com/ORG/_packaging/FEED/pypi/simple/", "ORG"),
        ("https://pkgs.dev.azure.com/acme/_packaging/FEED/pypi/simple/", None),
        ("https://PyPI.Example/simple/", None),
        (NEXUS, None),
    ],
)
def test_placeholders_in_a_url(url: str, placeholder: str | None) -> None:
    """A placeholder copied from an example is recognized. A feed may have an upper-case name, and a host any letter
    case."""
    assert IndexUrl.parse(url).placeholder == placeholder


def test_a_derived_name_skips_generic_words() -> None:
    """The name is the last meaningful word of the path, or the host. A host that Python and uv read differently is
    unknown."""
    for word in ("simple", "pypi", "_packaging", "packages", "-", "d", "repository", "api", "artifactory"):
        assert IndexUrl.parse(f"https://h.example/{word}/").name == "h.example"
        assert IndexUrl.parse(f"https://h.example/{word}/mine/{word}/").name == "mine"
    assert IndexUrl.parse("https://h.exämple/mine/").known_host == ""


@pytest.mark.parametrize(
    "word",
    [
        "ACCOUNT",
        "ACCOUNT_ID",
        "DOMAIN",
        "FEED",
        "HOST",
        "ID",
        "LOCATION",
        "NAME",
        "ORG",
        "ORGANIZATION",
        "OWNER",
        "PROJECT",
        "REGION",
        "REPO",
        "REPOSITORY",
        "YOUR",
    ],
)
def test_placeholder_words(word: str) -> None:
    """One of these words in upper case in the host is a placeholder. A derived name loses the punctuation around it."""
    assert IndexUrl.parse(f"https://{word}-x.example/simple/").placeholder == word
    assert IndexUrl.parse(f"https://x.example/{word}/{word}/").placeholder == word
    assert IndexUrl.parse(f"https://x.example/{word}/").placeholder is None
    assert IndexUrl.parse(f"https://h.example/-.{word}X.-/").name == f"{word}X"


@pytest.mark.parametrize(("name", "option"), [("corp", " --name corp"), (None, "")])
def test_the_command_that_adds_an_unknown_index(name: str | None, option: str) -> None:
    """The command names a provider, has examples for values that only the user knows, and is quoted for a shell."""
    command = templates.by_hand(IndexUrl.parse("https://x.example/simple/"), name)
    settings = "--set provider=static --set username=YOU --set 'password = {file = \"~/FILE\"}'"
    assert command == f"uvtokend add https://x.example/simple/{option} {settings}"


@pytest.mark.parametrize(
    ("path", "root"),
    [("/a/simple/", "/a"), ("/a/+simple", "/a"), ("/a/Simple//", "/a"), ("/a/b/", "/a/b"), ("/simple", ""), ("", "")],
)
def test_uv_authenticates_below_the_root_of_an_index(path: str, root: str) -> None:
    """The root is the URL without its last segment, if that is ``simple`` or devpi's ``+simple``: files are beside
    it."""
    url = IndexUrl.parse(f"https://h.example{path}")
    assert url.root == f"https://h.example{root}"
    assert uv_settings.root(f"https://h.example{path}").rstrip("/") == url.root

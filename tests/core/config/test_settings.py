"""Parse TOML into Settings, or report every problem at once."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uvtokend.core import clouds
from uvtokend.core.config import toml_document, values
from uvtokend.core.config.settings import parse
from uvtokend.core.config.toml_document import Source
from uvtokend.core.config.values import seconds
from uvtokend.core.model import Settings
from uvtokend.core.urls import IndexUrl
from uvtokend.errors import ConfigError

CODEARTIFACT = "https://acme-123456789012.d.codeartifact.eu-central-1.amazonaws.com/pypi/production/simple/"
STATIC = '[[index]]\nurl = "https://corp.example/simple/"\nprovider = "static"\nusername = "me"\n'
WHOLE = f"""
[daemon]
netrc         = "~/.netrc"
fetch-timeout = "60s"
max-workers   = 4
ca-bundle     = "/etc/ssl/corp.pem"
log-level     = "info"
notify        = false
quiet-hours   = "22:00-07:00"
metrics-file  = "~/metrics/uvtokend.prom"
on-delivered  = ["~/bin/push", "~/x"]

[[index]]
url      = "{CODEARTIFACT}"
name     = "private-registry"
provider = "aws-codeartifact"
sink     = "netrc"
enabled  = true
env      = {{ AWS_CONFIG_FILE = "~/.aws/work" }}
profile  = "dev"
duration = "1h"
"""


def read(user: str | bytes, site: str | None = None, **environ: str) -> Settings:
    text = user if isinstance(user, bytes) else user.encode()
    sources = [] if site is None else [Source("site.toml", site.encode(), "/etc/xdg/uvtokend")]
    sources.append(Source("config.toml", text, "/home/me/.config/uvtokend"))
    return parse(sources, "/home/me", environ, lambda: "/ca.pem")


def problems(user: str | bytes, site: str | None = None) -> list[tuple[str, str]]:
    with pytest.raises(ConfigError) as caught:
        read(user, site)
    assert all(problem.message and problem.hint for problem in caught.value.problems)
    return [(re.sub(r"^(?:index '[^']*'|\[\[index\]\] \d+)", "index", p.where), p.hint) for p in caught.value.problems]


def test_every_key_is_read() -> None:
    """Every key of the contract is read, expanded and checked."""
    settings = read(WHOLE)
    (index,) = settings.indexes
    assert (settings.netrc, settings.fetch_timeout, settings.max_workers) == ("/home/me/.netrc", 60.0, 4)
    assert (settings.ca_bundle, settings.log_level) == ("/etc/ssl/corp.pem", "info")
    assert (settings.notify, settings.quiet_hours) == (False, "22:00-07:00")
    assert settings.metrics_file == "/home/me/metrics/uvtokend.prom"
    assert settings.on_delivered == ("/home/me/bin/push", "/home/me/x")
    assert (index.name, index.host) == (
        "private-registry",
        "acme-123456789012.d.codeartifact.eu-central-1.amazonaws.com",
    )
    assert index.request.env == (("AWS_CONFIG_FILE", "/home/me/.aws/work"),)
    assert dict(index.request.options) == {
        "domain": "acme",
        "domain-owner": "123456789012",
        "region": "eu-central-1",
        "profile": "dev",
        "duration": 3600,
    }


def test_nothing_configured() -> None:
    """Without a file or with an empty one, the defaults apply, and $NETRC determines the netrc."""
    assert parse([], "/home/me", {}).indexes == ()
    assert read("").netrc == "/home/me/.netrc"
    assert read("", NETRC="~/other").netrc == "/home/me/other"
    assert read("", NETRC="/x/../y").netrc == "/y"
    assert parse([], "/", {}).netrc == "/.netrc"
    assert parse([], "/", {"NETRC": "~"}).netrc == "/"
    assert read('[daemon]\nnetrc = "relative"', NETRC="/x").netrc == "/home/me/.config/uvtokend/relative"
    assert read('[daemon]\nca-bundle = "system"\nnotify = true').ca_bundle == "/ca.pem"
    assert read("[daemon]\nnotify = true").notify


def test_the_users_file_overrides_the_sites_file() -> None:
    """The user's file overrides the site's file key by key in [daemon] and by name in the indexes. Paths are
    relative to their own file."""
    site = (
        f'[daemon]\nmax-workers = 2\nlog-level = "debug"\nca-bundle = "corp.pem"\n[[index]]\nurl = "{CODEARTIFACT}"\n'
    )
    settings = read('[daemon]\nmax-workers = 8\n[[index]]\nname = "production"\nprofile = "dev"', site)
    assert (settings.max_workers, settings.log_level) == (8, "debug")
    assert settings.ca_bundle == "/etc/xdg/uvtokend/corp.pem"
    (index,) = settings.indexes
    assert index.request.option("profile") == "dev"
    assert read('[[index]]\nname = "production"\nenabled = false', site).indexes == ()


def test_references_to_secrets() -> None:
    """A secret may be an env, file, command or keyring reference, and paths in it are expanded."""
    for reference, frozen in (
        ('{ env = "VAR" }', (("env", "VAR"),)),
        ('{ file = "~/x" }', (("file", "/home/me/x"),)),
        ('{ command = ["pass", "x"] }', (("command", ("pass", "x")),)),
        ('{ command = ["./tool", "~/x"] }', (("command", ("/home/me/.config/uvtokend/tool", "/home/me/x")),)),
        ('{ keyring = { service = "s", username = "u" } }', (("keyring", (("service", "s"), ("username", "u"))),)),
    ):
        (index,) = read(f"{STATIC}password = {reference}").indexes
        assert index.request.option("password") == frozen


def jfrog(**options: str) -> str:
    """Return a configuration; the value `o` represents a reference to a secret."""
    values = {name: "{ env = 'V' }" if value == "o" else repr(value) for name, value in options.items()}
    lines = [f"{name.replace('_', '-')} = {value}" for name, value in values.items()]
    return "\n".join(['[[index]]\nurl = "https://acme.jfrog.io/artifactory/api/pypi/a/simple/"', *lines])


WAYS = [
    {"username": "me", "password": "o"},
    {"access_token": "o"},
    {"access_token": "o", "username": "me"},
    {"refresh_token": "o"},
    {"refresh_token": "o", "access_token": "o", "username": "me"},
    {"oidc_provider": "ci", "oidc_token": "o"},
    {"oidc_provider": "ci", "oidc_token": "o", "username": "me"},
    {"oidc_provider": "ci", "oidc_token": "o", "project_key": "p", "identity_mapping": "m"},
    {"source": "jf"},
]
NO_WAYS = [
    {},
    {"username": "me"},
    {"password": "o"},
    {"username": "me", "password": "o", "access_token": "o"},
    {"username": "me", "password": "o", "refresh_token": "o"},
    {"oidc_provider": "ci"},
    {"oidc_token": "o"},
    {"oidc_provider": "ci", "oidc_token": "o", "access_token": "o"},
    {"oidc_provider": "ci", "refresh_token": "o"},
    {"source": "jf", "access_token": "o"},
    {"access_token": "o", "project_key": "p"},
]


@pytest.mark.parametrize("options", WAYS, ids=str)
def test_each_way_to_sign_in_to_jfrog(options: dict[str, str]) -> None:
    """Each way to sign in to Artifactory is accepted, and the request has exactly its options."""
    (index,) = read(jfrog(**options)).indexes
    assert {name.replace("-", "_") for name, _ in index.request.options} == options.keys()


@pytest.mark.parametrize("options", NO_WAYS, ids=str)
def test_an_incomplete_or_ambiguous_way_to_sign_in(options: dict[str, str]) -> None:
    """No way to sign in, half a way, or two ways are one problem of the index. Its fix lists every way, and other
    problems are still reported."""
    ((where, hint),) = problems(jfrog(**options))
    assert where == "index"
    ways = "write username and password, or access-token, or refresh-token, or oidc-provider and oidc-token, or source"
    assert hint == f'{ways} = "jf"'
    both = problems(jfrog(**options) + "\nprofile = 1\nenabled = 7")
    assert [where for where, _ in both] == ["index: enabled", "index: profile", "index"]


GITLAB = '[[index]]\nurl = "https://gitlab.com/api/v4/projects/42/packages/pypi/simple"\n'


@pytest.mark.parametrize(
    ("lines", "where"),
    [
        ('token = { file = "~/t" }\nrotate = true', None),
        ('token = { file = "~/t" }\nusername = "me"', None),
        ('token = { env = "T" }\nkind = "deploy"\nusername = "gitlab+deploy-token-1"', None),
        ('token = { env = "CI_JOB_TOKEN" }\nkind = "job"', None),
        ('token = { env = "T" }\nrotate = true', "rotate"),
        ('token = { file = "~/t" }\nkind = "deploy"\nusername = "me"\nrotate = true', "rotate"),
        ('token = { env = "T" }\nkind = "deploy"', "kind"),
        ('token = { env = "T" }\nkind = "job"\nusername = "me"', "username"),
        ('token = { env = "T" }\nusername = "gitlab-ci-token"', "username"),
        ('token = { file = "~/t" }\nrotate = "yes"', "rotate"),
    ],
)
def test_options_of_gitlab(lines: str, where: str | None) -> None:
    """Only a personal access token in a file can be rotated, and each kind of token has its own user name."""
    if where is None:
        assert read(GITLAB + lines).indexes[0].provider == "gitlab"
    else:
        assert [key for key, _ in problems(GITLAB + lines)] == [f"index: {where}"]


@pytest.mark.parametrize(
    ("lines", "where"),
    [
        ('access = "read"', None),
        ('access = "write"\npat = { env = "T" }', None),
        ('access = "read"\npat = { env = "T" }', "access"),
        ('access = "read"\ntoken = "entra"', "access"),
    ],
)
def test_access_of_azure(lines: str, where: str | None) -> None:
    """`access` is accepted only for session tokens, because uvtokend chooses the scope of no other token."""
    azure = '[[index]]\nname = "a"\nurl = "https://pkgs.dev.azure.com/acme/_packaging/feed/pypi/simple/"\n'
    if where is None:
        assert read(azure + lines).indexes[0].provider == "azure-artifacts"
    else:
        assert [key for key, _ in problems(azure + lines)] == [f"index: {where}"]


def test_a_login_may_be_a_secret() -> None:
    """The user name may be a secret reference for Nexus, whose user tokens have a secret name code. It may also be
    plain text."""
    nexus = (
        '[[index]]\nurl = "https://nexus.example/repository/a/simple/"\nprovider = "nexus"\npassword = { env = "P" }\n'
    )
    (index,) = read(f'{nexus}username = "me"').indexes
    assert dict(index.request.options) == {"username": "me", "password": (("env", "P"),)}
    (index,) = read(f'{nexus}username = {{ file = "~/name" }}').indexes
    assert index.request.option("username") == (("file", "/home/me/name"),)
    for wrong in ("'a:b'", "1", "{ name = 'x' }", "''"):
        assert [where for where, _ in problems(f"{nexus}username = {wrong}")] == ["index: username"]
    assert [where for where, _ in problems(nexus)] == ["index"]


def test_a_plug_in_cannot_use_a_built_in_name() -> None:
    """If a plug-in has the name of a built-in provider, the built-in one is used, and the problem says so."""
    with pytest.raises(ConfigError) as caught:
        read("[[index]]\nurl = 'https://x.example/'\nprovider = 'command'\ncommand = ['x']\noptions = {}")
    (problem,) = caught.value.problems
    assert problem.where == "index 'x.example': options"
    assert "command is a built-in provider" in problem.message


def test_other_options() -> None:
    """Times, choices, paths, commands and a plug-in's own options are read and normalized."""
    for expires in ('"2027-01-01T00:00:00Z"', "2027-01-01T01:00:00+01:00"):
        (index,) = read(f'{STATIC}password = {{ env = "V" }}\nexpires = {expires}').indexes
        assert index.request.option("expires") == "2027-01-01T00:00:00Z"
    google = '[[index]]\nurl = "https://eu-python.pkg.dev/a/b/simple/"\nsource = "gcloud"\ncredentials-file = "k.json"'
    (index,) = read(google).indexes
    assert index.request.option("source") == "gcloud"
    assert index.request.option("credentials-file") == "/home/me/.config/uvtokend/k.json"
    plugin = '[[index]]\nurl = "https://x.example/"\nprovider = "mine"\n'
    plugin += 'options = { b = [1, { c = true }], a = 2026-01-01, f = "~/x" }'
    (index,) = read(plugin).indexes
    assert index.request.options == (("a", "2026-01-01"), ("b", (1, (("c", True),))), ("f", "/home/me/x"))
    (index,) = read('[[index]]\nurl = "http://[::1]:8080/"\nprovider = "command"\ncommand = ["x"]').indexes
    assert index.host == "[::1]"
    assert read(f'[[index]]\nurl = "{CODEARTIFACT}"\nduration = 0').indexes[0].request.option("duration") == 0
    named = '[[index]]\nurl = "https://x.example/"\nprovider = "aws-codeartifact"\ndomain = "d"\nregion = "r"\n'
    for owner, text in (("1234567890", "001234567890"), ('"012345678901"', "012345678901")):
        (index,) = read(f"{named}domain-owner = {owner}").indexes
        assert index.request.option("domain-owner") == text
    assert read(f'[[index]]\nname = "_.x-"\nurl = "{CODEARTIFACT}"').indexes[0].name == "_.x-"


def test_an_explicit_default_changes_nothing() -> None:
    """An index that writes the default of an option has the same request as one that omits it, so both share a
    token."""
    for url, default in (
        ("https://eu-python.pkg.dev/a/{}/simple/", 'source = "adc"'),
        ("https://pkgs.dev.azure.com/acme/_packaging/{}/pypi/simple/", 'credential = "default"'),
    ):
        one, other = (f'[[index]]\nurl = "{url.format(feed)}"\n' for feed in "ab")
        a, b = read(f"{one}{other}{default}").indexes
        assert a.request == b.request
    azure = '[[index]]\nurl = "https://pkgs.dev.azure.com/acme/_packaging/a/pypi/simple/"\npat = { env = "P" }\n'
    assert read(f'{azure}credential = "default"').indexes[0].request.option("credential") == "default"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[[index\n", "expected ']]' at the end of an array declaration (column 8)"),
        ("a = 1\na = 2\n", "cannot overwrite a value (column 6)"),
        ('name = "acme\n', "a string is not closed at the end of its line (column 13)"),
        ("x = ", "invalid value"),
        (f"x = {'[' * 5000}", "it is nested too deeply, or a number has too many digits"),
        ('password = "hunter2', "unterminated string"),
    ],
)
def test_invalid_toml_is_explained(text: str, reason: str) -> None:
    """The message contains the reason and the column, but no value from the file."""
    with pytest.raises(ConfigError) as caught:
        read(text)
    (problem,) = caught.value.problems
    assert problem.message == f"Invalid TOML: {reason}."
    assert "hunter2" not in str(problem)


BAD = [
    ("[daemon", "the end"),
    ("x = ", "the end"),
    ("x = 1\ny = ", "the end"),
    ("x = y\n", "line 1"),
    ("x = '''", "the end"),
    (b"\xff", "the file"),
    (b"#" * (toml_document.LIMIT + 1), "the file"),
    (f"x = {'1' * 5000}", "the end"),
    (f"daemon.netrc = 0x{'f' * 17}", "the file"),
    ("daemon.netrc = nan", "the file"),
    (f"x = {'[' * 5000}", "the end"),
    (f"daemon{'.a' * 40} = 1", "the file"),
    ("demon = 1", "demon"),
    ("daemon = 1", "daemon"),
    ("index = 1", "index"),
    ("index = [1]", "index"),
    ("[[index]]", "index"),
    ("[[index]]\nname = 'a'", "index"),
    ("[[index]]\nname = '-x'", "index: name"),
    ("[[index]]\nname = 'ä'", "index: name"),
    ("[[index]]\nname = 1", "index: name"),
    ("[[index]]\nurl = 1", "index: url"),
    ("[[index]]\nurl = 'https://['", "index: url"),
    ("[[index]]\nurl = 'ftp://x.example'", "index: url"),
    ("[[index]]\nname = 'a'\nurl = 'https://x.example:99999/'", "index: url"),
    ('[[index]]\nname = "a"\nurl = "https://x.example/\\u001b"', "index: url"),
    ("[[index]]\nurl = 'https://me:canary@eu-python.pkg.dev/'", "index: url"),
    ("[[index]]\nurl = 'https://me:p/canary@x.example/'", "index: url"),
    ("[[index]]\nurl = 'http://eu-python.pkg.dev/'", "index: url"),
    *(
        (f"[[index]]\nurl = '{url}'\nprovider = 'mine'\noptions = {{}}", "index: url")
        for url in (
            "http://127.0.0.1.example/",
            "http://localhost.example/",
            "http://10.0.0.1/",
            "http://[2001:db8::1]/",
            "https://bücher.example/",
            "https://x%2eexample/",
            "https://evil.example\\.corp.example/",
            "http://[::1%25lo]/",
        )
    ),
    ("[[index]]\nurl = 'https://x.example/'", "index: url"),
    ("[[index]]\nurl = 'https://x.example/'\nprovider = 'statick'", "index: provider"),
    ("[[index]]\nurl = 'https://x.example/'\nprovider = 7", "index: provider"),
    ("[[index]]\nurl = 'https://'\nprovider = 'aws-codeartifact'", "index: url"),
    ("[[index]]\nurl = 'https://x.example/'\nprovider = 'mine'\noptions = 1", "index: options"),
    ("[[index]]\nurl = 'https://x.example/'\nprovider = 'mine'\noptions = {}\nx = 1", "index: x"),
    (
        "[[index]]\nurl = 'https://x.example/'\nprovider = 'aws-codeartifact'\ndomain = 'd'\nregion = 'r'",
        "index",
    ),
    (f"[[index]]\nurl = '{CODEARTIFACT}'\nprofil = 'x'", "index: profil"),
    (f"[[index]]\nurl = '{CODEARTIFACT}'\nprofile = ''", "index: profile"),
    (f"[[index]]\nurl = '{CODEARTIFACT}'\nduration = 800", "index: duration"),
    (f"[[index]]\nurl = '{CODEARTIFACT}'\nduration = 'soon'", "index: duration"),
    (f"[[index]]\nurl = '{CODEARTIFACT}'\noptions = {{}}", "index: options"),
    ("[[index]]\nurl = 'http://[::1]/x/'\nprovider = 'mine'\noptions = {}\nsink = 'uv-store'", "index: sink"),
    (f"[[index]]\nurl = '{CODEARTIFACT}'\nsink = 'x'", "index: sink"),
    (f"[[index]]\nurl = '{CODEARTIFACT}'\nenabled = 'yes'", "index: enabled"),
    (f"[[index]]\nurl = '{CODEARTIFACT}'\nenv = 1", "index: env"),
    (f"[[index]]\nurl = '{CODEARTIFACT}'\nenv = {{ A = 1 }}", "index: env"),
    (f"[[index]]\nurl = '{CODEARTIFACT}'\nenv = {{ 'A=' = 'x' }}", "index: env"),
    (f"[[index]]\nurl = '{CODEARTIFACT}'\nenv = {{ '' = 'x' }}", "index: env"),
    (f'[[index]]\nurl = "{CODEARTIFACT}"\nenv = {{ A = "x\\u0000" }}', "index: env.A"),
    (f"[[index]]\nurl = '{CODEARTIFACT}'\ndomain-owner = 1234567890123", "index: domain-owner"),
    (f"[[index]]\nurl = '{CODEARTIFACT}'\ndomain-owner = true", "index: domain-owner"),
    (f"[[index]]\nurl = '{CODEARTIFACT}'\ndomain-owner = '12'", "index: domain-owner"),
    (f"[[index]]\nurl = '{CODEARTIFACT}'\nenv = {{ aws_secret_x = 'canary' }}", "index: env.aws_secret_x"),
    ("[[index]]\nurl = 'https://eu-python.pkg.dev/a/b'\nsource = 'x'", "index: source"),
    ("[[index]]\nurl = 'https://eu-python.pkg.dev/a/b'\ncredentials-file = 1", "index: credentials-file"),
    ("[[index]]\nurl = 'https://x.example/'\nprovider = 'command'\ncommand = 'x'", "index: command"),
    ("[[index]]\nurl = 'https://x.example/'\nprovider = 'command'\ncommand = []", "index: command"),
    ("[[index]]\nurl = 'https://x.example/'\nprovider = 'command'\ncommand = ['']", "index: command"),
    ("[[index]]\nurl = 'https://x.example/'\nprovider = 'command'\ncommand = [\"a\\u0000\"]", "index: command"),
    (STATIC, "index"),
    (f"{STATIC}password = {{ env = 'A' }}".replace('"me"', '"me:x"'), "index: username"),
    (f"{STATIC}password = {{ env = 'A' }}".replace('"me"', "1"), "index: username"),
    (f"{STATIC}password = 'canary'", "index: password"),
    (f"{STATIC}password = {{ canary = 'canary' }}", "index: password"),
    (f"{STATIC}password = {{ env = 'A', file = 'canary' }}", "index: password"),
    (f"{STATIC}password = {{ env = '' }}", "index: password"),
    (f'{STATIC}password = {{ file = "x\\u0000" }}', "index: password"),
    (f"{STATIC}password = {{ command = 'canary' }}", "index: password"),
    (f"{STATIC}password = {{ keyring = {{ service = 's' }} }}", "index: password"),
    (f"{STATIC}password = {{ env = 'A' }}\nexpires = 'soon'", "index: expires"),
    (f"{STATIC}password = {{ env = 'A' }}\nexpires = 2026-01-01T00:00:00", "index: expires"),
    (f"{STATIC}password = {{ env = 'A' }}\nexpires = 0001-01-01T00:00:00+01:00", "index: expires"),
    ("[daemon]\nfetch-timeout = 0", "daemon.fetch-timeout"),
    ("[daemon]\nfetch-timeout = true", "daemon.fetch-timeout"),
    ("[daemon]\nfetch-timeout = -1", "daemon.fetch-timeout"),
    ("[daemon]\nmax-workers = 0", "daemon.max-workers"),
    ("[daemon]\nlog-level = 'loud'", "daemon.log-level"),
    ("[daemon]\nquiet-hours = '25:00-07:00'", "daemon.quiet-hours"),
    ("[daemon]\nnetrc = 1", "daemon.netrc"),
    ("[daemon]\nnetrc = '~somebody/.netrc'", "daemon.netrc"),
    ("[daemon]\nnotify = 1", "daemon.notify"),
]


def test_a_key_of_thousands_of_parts() -> None:
    """The file has one problem, whether tomllib parses such a key (before 3.14) or refuses it."""
    assert [key for key, _ in problems(f"daemon{'.a' * 5000} = 1")] in (["the file"], ["the end"])


@pytest.mark.parametrize(("text", "where"), BAD, ids=[str(row[0])[:40] for row in BAD])
def test_one_problem(text: str | bytes, where: str) -> None:
    """Each mistake is reported with its key and a fix, and no secret is repeated."""
    reported = problems(text)
    assert [key for key, _ in reported] == [where]
    with pytest.raises(ConfigError) as caught:
        read(text)
    assert "canary" not in caught.value.message.replace("aws_secret_x", "")


def test_all_problems_at_once() -> None:
    """All mistakes in all files are reported together, with the nearest known key if there is one."""
    reported = problems("[daemon]\nfetch-timout = 3\n[[index]]\nurl = 'http://x.example'\n[[index]]\nname = 7", "x = 1")
    assert [where for where, _ in reported] == [
        "x",
        "daemon.fetch-timout",
        "index: name",
        "index: url",
        "index: url",
    ]
    assert reported[1][1] == "did you mean fetch-timeout?"
    assert 'did you mean "static"?' in problems("[[index]]\nurl = 'https://x.e/'\nprovider = 'statik'")[0][1]
    assert "ca-bundle" in problems("[daemon]\nzzz = 1")[0][1]
    keys = [f"k{number}" for number in range(9)]
    assert [where for where, _ in problems("\n".join(f"{key} = 1" for key in keys))] == keys
    rest = "enabled = 1\nsink = 2\nenv = 3\nduration = 4\nprovider = 'aws-codeartifact'\n"
    keys_in_order = [f"index: {key}" for key in ("name", "enabled", "url", "sink", "env", "duration")]
    assert [where for where, _ in problems(f"[[index]]\nname = 'ä'\nurl = 'https://'\n{rest}")] == keys_in_order
    twice = f"[[index]]\nurl = '{CODEARTIFACT}'\nduration = 1\n[[index]]\nurl = '{CODEARTIFACT}'\nduration = 2"
    assert [where for where, _ in problems(twice)] == ["index", "index: duration", "index: duration"]


def test_another_users_home_directory_is_refused() -> None:
    """A path that begins with ``~name`` is refused everywhere, because it would require a user lookup."""
    command = '[[index]]\nurl = "https://x.example/"\nprovider = "command"\ncommand = ["~bob/x"]'
    assert "index: command" in [where for where, _ in problems(command)]
    assert problems(f'{STATIC}password = {{ file = "~bob/x" }}') == [("index: password", "write the whole path")]
    key = '[[index]]\nurl = "https://eu-python.pkg.dev/a/b/"\ncredentials-file = "~bob/k"'
    assert problems(key) == [("index: credentials-file", "write the whole path")]


def test_no_system_bundle() -> None:
    """If the platform's CA bundle has no known location, the user must write its path."""
    with pytest.raises(ConfigError) as caught:
        parse([Source("c", b'[daemon]\nca-bundle = "system"', "/")], "/home/me", {})
    assert [problem.hint for problem in caught.value.problems] == ["write the path of the file"]


def test_names_must_differ() -> None:
    """Two indexes with the same name, derived or not, are a problem, and the fix says what to write."""
    twice = f'[[index]]\nurl = "{CODEARTIFACT}"\n' * 2
    assert problems(twice) == [("index", 'give one of them another name, for example name = "production-2"')]


def test_two_credentials_on_one_host() -> None:
    """Two credentials for one host are a problem for the netrc, and the fix names uv's store."""
    other = f'[[index]]\nname = "b"\nurl = "{CODEARTIFACT}"\nprofile = "b"\n'
    ((where, hint),) = problems(f'[[index]]\nname = "a"\nurl = "{CODEARTIFACT}"\n{other}')
    assert where == "index: url"
    assert "uv-store" in hint
    same = f'[[index]]\nname = "a"\nurl = "{CODEARTIFACT}"\n[[index]]\nname = "b"\nurl = "{CODEARTIFACT}"\n'
    assert len(read(same).indexes) == 2


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (0, 0),
        (90, 90),
        ("20m", 1200),
        ("1h30m", 5400),
        ("2d", 172800),
        ("45s", 45),
        ("0s", 0),
        *((bad, None) for bad in ("", "m", "1x", "-1s", "1m1h", 1.5, True, -1, None)),
    ],
)
def test_durations(text: object, value: int | None) -> None:
    """A duration is a number of seconds, or days, hours, minutes and seconds in this order."""
    assert seconds(text) == value


@given(st.integers(0, 90), st.integers(0, 23), st.integers(0, 59), st.integers(0, 59))
def test_durations_add_up(days: int, hours: int, minutes: int, rest: int) -> None:
    """A duration is the sum of its parts."""
    assert seconds(f"{days}d{hours}h{minutes}m{rest}s") == ((days * 24 + hours) * 60 + minutes) * 60 + rest


KEYS = st.sampled_from(
    ["index", "daemon", "url", "name", "provider", "password", "env", "options", "command", "duration"]
)
VALUES = st.recursive(
    st.integers() | st.booleans() | st.sampled_from(['"x"', '"https://x.example/"', '"static"', '"aws-codeartifact"']),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(KEYS, inner, max_size=3),
)


def toml(value: object) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {toml(item)}" for key, item in value.items()) + " }"
    return "[" + ", ".join(map(toml, value)) + "]" if isinstance(value, list) else str(value).replace("True", "true")


CANARY = "Canary7Xq"


@given(
    st.sampled_from(
        [
            "https://me:{}@x.example/simple/",
            "https://{}@x.example/",
            "http://a:{}@127.0.0.1:1/",
            "https://me:{}/x@x.example/",
            "https://me:x/{}@x.example/",
            "https://me:{}@eu-python.pkg.dev/a/b",
            "https://me:{}@[",
        ]
    ),
    st.sampled_from(["{}", "{} ", "{}\\u0000", "x%40{}", "{}:", "@{}", "ä{}"]),
    st.sampled_from(["", "name = 'x'\n", "name = 1\n", "provider = 'static'\n", "provider = 'statik'\n"]),
    st.integers(1, 2),
)
def test_a_password_in_a_url_is_never_repeated(url: str, password: str, more: str, times: int) -> None:
    """Whatever else is wrong in a table, no message contains any part of the user information in the URL."""
    text = f'[[index]]\n{more}url = "{url.format(password.format(CANARY))}"\n' * times
    with pytest.raises(ConfigError) as caught:
        read(text)
    assert CANARY.lower() not in caught.value.message.lower()


@given(
    st.sampled_from(
        [
            'password = "{}"',
            "password = ['{}']",
            "password = {{ env = 'A', text = '{}' }}",
            "password = {{ text = '{}' }}",
            "password = {{ keyring = '{}' }}",
            "password = '{}",
            "username = ['{}']",
            "expires = '{}'",
            "enabled = '{}'",
            "sink = '{}'",
            "env = {{ MY_TOKEN = '{}' }}",
            "env = {{ A = 1, MY_PASSWORD = '{}' }}",
            "env = {{ A = ['{}'] }}",
        ]
    )
)
def test_no_refused_value_is_repeated(line: str) -> None:
    """A literal that is refused may be a secret, so the message names its key but not its text."""
    with pytest.raises(ConfigError) as caught:
        read(f'[[index]]\nurl = "https://x.example/"\nprovider = "static"\n{line.format(CANARY)}\n')
    assert CANARY not in caught.value.message


@given(
    st.binary(max_size=100)
    | st.dictionaries(KEYS, VALUES).map(lambda d: "\n".join(f"{k} = {toml(v)}" for k, v in d.items()).encode())
)
def test_any_file_gives_settings_or_problems(text: bytes) -> None:
    """Parsing any bytes returns Settings or raises ConfigError."""
    try:
        assert isinstance(read(text), Settings)
    except ConfigError as error:
        assert error.problems  # noqa: PT017 - either result is valid


AZURE = "https://pkgs.dev.azure.com/{}/_packaging/{}/pypi/simple/"


def table(name: str, url: str, **more: str) -> str:
    return f'[[index]]\nname = "{name}"\nurl = "{url}"\n' + "".join(f'{key} = "{text}"\n' for key, text in more.items())


def test_two_tenants_on_one_host_in_uvs_store() -> None:
    """Each Azure organization has its own record in uv's store, and its feeds share it."""
    text = "".join(
        table(name, AZURE.format(org, name), **{"sink": "uv-store", "tenant-id": org})
        for name, org in (("a", "acme"), ("b", "beta"), ("c", "acme"))
    )
    services = [(index.sink, index.service) for index in read(text).indexes]
    acme, beta = ("uv-store", "https://pkgs.dev.azure.com/acme"), ("uv-store", "https://pkgs.dev.azure.com/beta")
    assert services == [acme, beta, acme]


@pytest.mark.parametrize(
    ("provider", "url", "service"),
    [
        ("azure-artifacts", "https://acme.pkgs.visualstudio.com/_packaging/f/pypi/simple/", "https://acme.pkgs.visualstudio.com/"),
        ("azure-artifacts", "https://tfs.example/tfs/Main/_packaging/f/pypi/simple", "https://tfs.example/tfs/Main"),
        ("azure-artifacts", "https://pkgs.dev.azure.com/o/p/_packaging/f/pypi/simple/", "https://pkgs.dev.azure.com/o"),
        ("azure-artifacts", "https://o.pkgs.visualstudio.com/p/_packaging/f/pypi/simple/", "https://o.pkgs.visualstudio.com/"),
        ("google-artifact-registry", "https://eu-python.pkg.dev/p/r/simple/", "https://eu-python.pkg.dev/p/r"),
        ("static", "https://x.example/simple", "https://x.example/"),
        ("static", "https://x.example/api/pypi/simple/simple/", "https://x.example/api/pypi/simple"),
        ("mine", "https://X.example:443/a/", "https://x.example/a"),
    ],
)  # fmt: skip
def test_the_prefix_of_a_record(provider: str, url: str, service: str) -> None:
    """The prefix of a record covers the pages and files of the index, and no other tenant's."""
    assert clouds.store_service(provider, IndexUrl.parse(url)) == service


def test_mixing_the_sinks_of_one_host_is_an_error() -> None:
    """All indexes on one host must have the same sink, because an entry in netrc would shadow a record in uv's
    store."""
    text = table("a", AZURE.format("acme", "f")) + table("b", AZURE.format("acme", "g"), sink="uv-store")
    ((where, hint),) = problems(text)
    assert where == "index: url"
    assert hint == "write the same sink for all indexes on pkgs.dev.azure.com"


def test_two_credentials_for_one_record_are_an_error() -> None:
    """Two accounts of one organization have the same prefix in uv's store, so uvtokend refuses to write both."""
    text = "".join(
        table(name, AZURE.format("acme", name), **{"sink": "uv-store", "tenant-id": name}) for name in ("a", "b")
    )
    assert problems(text) == [("index: url", "give them the same credential")]


def test_a_problem_names_the_index() -> None:
    """A problem identifies the index by its name, or by its number if it has no valid name."""
    text = f'{STATIC}password = "canary"\n[[index]]\nname = "mine"\n[[index]]\nname = "-x"\nurl = 1\n'
    with pytest.raises(ConfigError) as caught:
        read(text)
    assert [problem.where for problem in caught.value.problems] == [
        "[[index]] 3: name",
        "index 'corp.example': password",
        "index 'mine'",
        "[[index]] 3: url",
    ]


@pytest.mark.parametrize(
    "table",
    [
        'url = "https://corp.example/simple/"',
        'url = "https://corp.example/simple/"\nprovider = "static"',
        'url = "http://corp.example/simple/"\nprovider = "nowhere"\nx = 1',
        'url = 7\nprovider = "static"\npassword = "canary"',
        'provider = "nexus"\nurl = "https://corp.example/simple/"\nsink = "attic"\nduration = []',
        "",
    ],
)
def test_a_disabled_index_blocks_nothing(table: str) -> None:
    """A disabled index may be incomplete and is still shown by name. Once enabled, its problems are reported."""
    off = f'[[index]]\nname = "a"\nenabled = false\n{table}'
    settings = read(f"{STATIC}password = {{ env = 'V' }}\n{off}")
    assert [index.name for index in settings.indexes] == ["corp.example"]
    assert [index.name for index in settings.disabled] == ["a"]
    assert problems(off.replace("false", "true"))


def test_the_secrets_of_a_disabled_index_are_recorded() -> None:
    """A disabled, incomplete index keeps its secret references, so that the variables stay hidden from other
    workers."""
    text = '[[index]]\nname = "a"\nenabled = false\nurl = "https://x.example/"\nprovider = "nexus"\n'
    (off,) = read(f"{text}password = {{ env = 'OFF' }}\nusername = 7").disabled
    assert off.request.option("password") == (("env", "OFF"),)


def test_a_ca_bundle_must_exist() -> None:
    """A CA bundle that cannot be read is a problem of the configuration."""
    source = Source("c", b'[daemon]\nca-bundle = "/missing.pem"', "/")
    with pytest.raises(ConfigError) as caught:
        parse([source], "/home/me", {}, unreadable=lambda path: path and "No such file or directory")
    (problem,) = caught.value.problems
    assert problem.where == "daemon.ca-bundle"
    assert "/missing.pem cannot be read: No such file or directory" in problem.message


@pytest.mark.parametrize("option", ["refresh-token = { env = 'T' }"])
def test_a_refresh_token_cannot_be_combined_with_memory(option: str) -> None:
    """A JFrog refresh token works once, so its successor must be saved to disk, which `sink = "memory"` forbids."""
    url = "https://acme.jfrog.io/artifactory/api/pypi/a/simple/"
    text = f'[[index]]\nurl = "{url}"\nsink = "memory"\n'
    assert read(f"{text}access-token = {{ env = 'T' }}").indexes[0].sink == "memory"
    (problem,) = problems(f"{text}{option}")
    assert problem == ("index: sink", 'write sink = "netrc", or remove refresh-token')


def test_two_credentials_in_memory() -> None:
    """Two credentials on one host are allowed if both are in memory, and refused if one of them is in the netrc."""
    other = f'[[index]]\nname = "b"\nurl = "{CODEARTIFACT}"\nprofile = "b"\nsink = "memory"\n'
    both = f'[[index]]\nname = "a"\nurl = "{CODEARTIFACT}"\nsink = "memory"\n{other}'
    assert len(read(both).indexes) == 2
    assert [where for where, _ in problems(f'[[index]]\nname = "a"\nurl = "{CODEARTIFACT}"\n{other}')] == ["index: url"]


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        (f"[[index]]\nurl = '{CODEARTIFACT}'\nduration = 800", 'write 0 or a duration from "15m" to "12h"'),
        ("[daemon]\nfetch-timeout = 0", 'write a duration from "1s" to "10m"'),
        ("[[index]]\nurl = 'https://eu-python.pkg.dev/a/b'\nsource = 'gclod'", 'did you mean "gcloud"?'),
        ("[[index]]\nurl = 'https://eu-python.pkg.dev/a/b'\nsource = 'x'", "one of adc, gcloud"),
        ("[daemon]\nmax-workers = 99", "write 1 to 32"),
        ("[daemon]\non-delivered = 'prog'", 'write a list of texts: ["prog", "arg"]'),
    ],
)
def test_a_hint_is_accepted_by_the_check_that_gives_it(text: str, hint: str) -> None:
    """The fix states bounds as valid durations, names the nearest value, and gives valid examples."""
    assert problems(text)[0][1] == hint


def test_the_defaults() -> None:
    """The defaults are those of the contract, with and without a file."""
    for settings in (parse([], "/home/me", {}), read(""), Settings("")):
        assert (settings.fetch_timeout, settings.max_workers, settings.log_level) == (60.0, 4, "info")
        assert (settings.ca_bundle, settings.notify, settings.on_delivered) == (None, False, ())
    assert parse([], "/home/me", {}).file == ""


@pytest.mark.parametrize("number", [1 << 63, -(1 << 63) - 1, 1 << 64, -(1 << 64)])
def test_numbers_are_limited_to_64_bits(number: int) -> None:
    """TOML guarantees only 64-bit integers, so a number beyond either bound is refused."""
    assert toml_document._unusable({"a": [number]}) is not None
    assert toml_document._unusable({"a": [number], "b": [[0], 0]}) is not None
    assert toml_document._unusable({"a": [(1 << 63) - 1, -(1 << 63), 0]}) is None


@pytest.mark.parametrize(("seconds", "good"), [(59, False), (60, True), (100, True), (101, False), (0, False)])
def test_a_duration_may_be_at_either_bound(seconds: int, good: bool) -> None:
    """A duration may equal its lower or upper bound; 0 is allowed only if the option accepts it."""
    option = values.Option(values.DURATION, low=60, high=100)
    base = values.Base("/home/me", "/home/me")
    if good:
        assert option.check(seconds, base) == seconds
    else:
        with pytest.raises(values.InvalidValueError):
            option.check(seconds, base)
    assert values.Option(values.DURATION, low=60, high=100, zero=True).check(0, base) == 0


def test_the_size_of_a_file_is_limited() -> None:
    """A file of 1 MiB is read; one byte more is refused."""
    assert read("#" * (1 << 20)).indexes == ()
    with pytest.raises(ConfigError):
        read("#" * ((1 << 20) + 1))


@pytest.mark.parametrize(("depth", "good"), [(29, True), (30, False)])
def test_the_nesting_of_values_is_limited(depth: int, good: bool) -> None:
    """Values may be nested 32 levels deep, including the document and the tables around them, since a plug-in's
    options are read recursively."""
    value = f"{{ a = {'[' * depth}{']' * depth} }}"
    table = f'[[index]]\nname = "a"\nurl = "https://x.example/"\nprovider = "p"\noptions = {value}'
    if good:
        read(table)
    else:
        assert problems(table) == [("the file", "remove it")]


def test_an_incomplete_index_that_is_switched_off_shows_its_provider() -> None:
    """The provider of an incomplete disabled index is the configured one or the one recognized from the URL. It is
    empty if neither is known."""
    off = '[[index]]\nname = "a"\nenabled = false\n'
    for more, provider in (
        ('provider = "nexus"', "nexus"),
        ('url = "https://gitlab.com/api/v4/projects/42/packages/pypi/simple"', "gitlab"),
        ('url = "https://x.example/"', ""),
    ):
        (index,) = read(f"{off}{more}").disabled
        assert (index.provider, index.request.provider) == (provider, provider)
        assert index.files == ("config.toml",)
        url = more.partition('url = "')[2].rstrip('"')
        assert (index.url, index.host) == (url, url.partition("://")[2].partition("/")[0])


def test_an_index_knows_its_files() -> None:
    """Each index knows which files configure it: the site's file, the user's file or both."""
    site = f'[[index]]\nname = "a"\nurl = "{CODEARTIFACT}"\n[[index]]\nname = "b"\nurl = "{CODEARTIFACT}"\n'
    env = 'env = { A = "b", A_KEY_FILE = "~/k" }\n'
    own = f'[[index]]\nname = "c"\nurl = "{CODEARTIFACT}"\n{env}'
    settings = read(f'[[index]]\nname = "b"\nsink = "netrc"\n{own}', site.replace('simple/"\n', f'simple/"\n{env}'))
    assert {index.name: {*index.files} for index in settings.indexes} == {
        "a": {"site.toml"},
        "b": {"site.toml", "config.toml"},
        "c": {"config.toml"},
    }
    assert settings.indexes[1].request.env == (("A", "b"), ("A_KEY_FILE", "/home/me/k"))


def test_an_index_in_memory_shares_no_lease_with_one_on_disk() -> None:
    """The request of an index in memory is marked as such, and otherwise equals the request of the same index on
    disk."""
    text = f'[[index]]\nname = "a"\nurl = "{CODEARTIFACT}"\n'
    (disk,), (memory,) = read(text).indexes, read(f'{text}sink = "memory"').indexes
    assert (disk.request.memory, memory.request.memory) == (False, True)
    assert replace(memory.request, memory=False) == disk.request


def messages(text: str) -> list[str]:
    """Return the messages of the problems in a configuration."""
    with pytest.raises(ConfigError) as caught:
        read(text)
    return [problem.message for problem in caught.value.problems]


def test_each_missing_option_is_named() -> None:
    """If a required option is missing, the message names it. It mentions the URL if the option could have come from
    there."""
    text = '[[index]]\nname = "a"\nurl = "https://x.example/"\nprovider = '
    keys = ("domain", "domain-owner", "region")
    assert messages(f'{text}"aws-codeartifact"') == [
        f"The provider aws-codeartifact needs {key}, which is not in this URL." for key in keys
    ]
    assert messages(f'{text}"static"') == [f"The provider static needs {key}." for key in ("username", "password")]


@pytest.mark.parametrize(
    ("text", "keys"),
    [
        ("[daemon]\nca-bundle = 7", ["daemon.ca-bundle"]),
        ('index = [7, { url = "https://" }]', ["index", "index: url"]),
        (f'[[index]]\nurl = "{CODEARTIFACT}"\nenv = {{ A = "a", B = 7 }}', ["index: env"]),
        (f'[[index]]\nurl = "{CODEARTIFACT}"\nprovider = "p"\nsink = "memory"\noptions = 7', ["index: options"]),
        (f'[[index]]\nurl = "{CODEARTIFACT}"\n"a\\u0007" = 1', ["index: a?"]),
        (f"{'a' * 70} = 1", ["a" * 60]),
        ('[[index]]\nurl = "http://[::1]/"\nprovider = "command"\ncommand = ["x"]\nsink = "uv-store"', ["index: sink"]),
    ],
)
def test_each_mistake_is_reported_once(text: str, keys: list[str]) -> None:
    """Each mistake is reported once, with its key cut to what can be shown. The rest of the file is still read."""
    assert [where for where, _ in problems(text)] == keys


def test_uvs_store_accepts_any_https_url() -> None:
    """uv's store accepts any ``https://`` URL, and ``http://`` for the two loopback names that uv knows (uv-auth,
    `check_scheme`)."""
    for url in ("https://x.example/", "https://[::1]/", "http://127.0.0.1/", "http://localhost:8080/"):
        (index,) = read(
            f'[[index]]\nname = "a"\nurl = "{url}"\nprovider = "command"\ncommand = ["x"]\nsink = "uv-store"'
        ).indexes
        assert (index.sink, index.service) == ("uv-store", url.removesuffix("/") + "/")


@pytest.mark.parametrize(
    ("text", "path"),
    [("~", "/home/meX"), ("~/a", "/home/meX/a"), ("a", "/etc/a"), ("/a/../b", "/b"), ("a~", "/etc/a~")],
)
def test_a_path_is_below_the_home_or_the_file(text: str, path: str) -> None:
    """A path with ``~`` is below the person's home; any other is relative to the file. The home may be the root, as
    in a container."""
    assert values.Base("/home/meX", "/etc").path(text) == path
    assert values.Base("/home/meX/", "/etc").path(text) == path
    assert values.Base("/", "/etc").expand("~") == "/"
    assert values.Base("/", "/etc").expand("~/a") == "/a"


@pytest.mark.parametrize(
    ("line", "good"),
    [
        ("max-workers = 0", False),
        ("max-workers = 1", True),
        ("max-workers = 32", True),
        ("max-workers = 33", False),
        ('on-delivered = ["a", 7]', False),
        ('on-delivered = ["a", "b\\u0000"]', False),
        ('on-delivered = ["~me"]', False),
        ('on-delivered = [""]', False),
        ('on-delivered = ["a", ""]', True),
    ],
)
def test_the_daemons_limits_and_commands_are_validated(line: str, good: bool) -> None:
    """A limit includes its bounds. A command needs a program name, and no word of it may contain a NUL character."""
    if good:
        read(f"[daemon]\n{line}")
    else:
        (problem,) = problems(f"[daemon]\n{line}")
        assert problem[0] == f"daemon.{line.partition(' ')[0]}"
    assert str(values.InvalidValueError("Why.", "hint")) == "Why."


@pytest.mark.parametrize("name", ["A_SECRET", "token", "Password_1", "KEYS"])
def test_env_may_not_contain_a_secret(name: str) -> None:
    """A variable whose name sounds like a secret is refused in upper and lower case, unless its name says that it
    holds a file."""
    text = f'[[index]]\nurl = "{CODEARTIFACT}"\nenv = {{ %s = "x" }}'
    assert problems(text % name)[0][0] == f"index: env.{name}"
    assert read(text % f"{name}_FILE").indexes


@pytest.mark.parametrize("level", ["info", "debug", "warning", "error"])
def test_the_log_has_four_levels(level: str) -> None:
    """The log level may be any of these four words."""
    assert read(f'[daemon]\nlog-level = "{level}"').log_level == level


def test_a_token_that_rotates_must_be_kept_on_disk() -> None:
    """A rotating token may not be kept in memory, because its only copy would be lost when the daemon ends."""
    text = f'{GITLAB}token = {{ file = "~/t" }}\nrotate = true\nsink = '
    assert read(f'{text}"netrc"').indexes[0].sink == "netrc"
    assert problems(f'{text}"memory"') == [("index: sink", 'write sink = "netrc", or remove rotate')]

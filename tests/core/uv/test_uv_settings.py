"""uv's configuration from its files and variables, with the location of each value."""

from __future__ import annotations

import tomllib

import pytest

from uvtokend.core.model import Secret
from uvtokend.core.uv import settings
from uvtokend.core.uv.settings import Location, UvConfiguration, UvFile


def document(text: str, file: str = "uv.toml", indexes_only: bool = False) -> UvFile:
    """Return one configuration file of uv."""
    return UvFile(file, text.encode(), tomllib.loads(text), indexes_only)


PROJECT = """\
keyring-provider = "subprocess"
index-url = "https://example.com/default/"
extra-index-url = ["https://example.com/extra/", 7]

[[index]]
name = "acme"
url = "https://aws:pw@Example.com/acme/simple/"
authenticate = "always"
explicit = true
publish-url = "https://example.com/acme/"

[[index]]
url = 7

[sources]
Our_Lib = { index = "acme" }
two = [{ index = "acme" }, { index = "other" }]
local = { path = "." }

[pip]
index-strategy = "unsafe-best-match"
index-url = "https://example.com/pip/"
"""


def test_indexes_have_uvs_order_and_their_locations() -> None:
    """Variables come first, then the files by precedence. Entries that are not indexes are skipped."""
    environ = {"UV_INDEX": "one=https://example.com/one/ https://example.com/two/", "UV_DEFAULT_INDEX": "ftp://x"}
    weak = document('[[index]]\nurl = "https://example.com/user/"\n', "user.toml")
    configuration = settings.read([document(PROJECT), weak], environ)
    assert [
        (index.name, index.url.rpartition("/simple")[0] or index.url, str(index.place))
        for index in configuration.indexes
    ] == [
        ("one", "https://example.com/one/", "UV_INDEX"),
        (None, "https://example.com/two/", "UV_INDEX"),
        ("acme", "https://Example.com/acme", "uv.toml:7"),
        (None, "https://example.com/extra/", "uv.toml:3"),
        (None, "https://example.com/default/", "uv.toml:2"),
        (None, "https://example.com/pip/", "uv.toml:22"),
        (None, "https://example.com/user/", "user.toml:2"),
    ]
    acme = configuration.indexes[2]
    assert (acme.user, acme.password, acme.authenticate, acme.explicit) == ("aws", Secret("pw"), "always", True)
    assert (acme.label, configuration.indexes[1].label) == ("acme", "https://example.com/two/")
    assert configuration.indexes[4].default


def test_settings_come_from_the_source_with_precedence() -> None:
    """A variable overrides the files, and an earlier file the later ones. The `[pip]` table counts too."""
    strong, masked = document(PROJECT), document('index-strategy = "first-index"\n', "pyproject.toml", True)
    configuration = settings.read([masked, strong, document("offline = true\n", "user.toml")], {"UV_OFFLINE": ""})
    assert configuration.settings["index-strategy"].value == "unsafe-best-match"
    assert str(configuration.settings["keyring-provider"].place) == "uv.toml:1"
    assert configuration.settings["offline"].place == Location("user.toml", 1)
    by_variable = settings.read([strong], {"UV_KEYRING_PROVIDER": "disabled"})
    assert by_variable.settings["keyring-provider"].place == Location("UV_KEYRING_PROVIDER")
    assert configuration.pins == {"our-lib": frozenset({"acme"}), "two": frozenset({"acme", "other"})}


@pytest.mark.parametrize("text", ["", "index = 7\nsources = 7\npip = 7\nextra-index-url = 7\n", "index = [7]\n"])
def test_invalid_values_are_ignored(text: str) -> None:
    """Values of a wrong type are ignored; uv itself complains about them."""
    assert settings.read([document(text)], {}) == UvConfiguration()


@pytest.mark.parametrize("url", ["ftp://example.com", "https://", "https://[::1", "https://example.com:0/", "/path"])
def test_urls_without_a_credential(url: str) -> None:
    """Only HTTP URLs with a valid host can have a credential."""
    assert settings.split_url(url) is None


def test_the_variables_of_a_name() -> None:
    """As in uv, the name becomes upper case and every character except an ASCII letter or digit an underscore."""
    assert settings.variable("private-registry.2") == "UV_INDEX_PRIVATE_REGISTRY_2"
    assert settings.variable("grün") == "UV_INDEX_GR_N"


@pytest.mark.parametrize(
    ("url", "root"),
    [
        ("https://example.com/acme/simple/", "https://example.com/acme"),
        ("https://example.com/acme/+simple", "https://example.com/acme"),
        ("https://example.com/acme/Simple", "https://example.com/acme"),
        ("https://example.com/simple", "https://example.com"),
        ("https://example.com/acme/", "https://example.com/acme/"),
    ],
)
def test_the_root_of_an_index(url: str, root: str) -> None:
    """The root is the URL without a final ``simple`` segment."""
    assert settings.root(url) == root


def test_urls_below_other_urls() -> None:
    """Paths are compared by whole segments; the default port and the case of the host do not matter."""
    assert settings.is_below("https://EXAMPLE.com:443/a/b", "https://example.com/a")
    assert settings.is_below("https://example.com", "https://example.com/")
    assert settings.is_below("https://example.com/a/", "https://example.com/a/")
    assert not settings.is_below("https://example.com/ab", "https://example.com/a")
    assert not settings.is_below("https://example.com:8443/a", "https://example.com/a")
    assert not settings.is_below("http://example.com/a", "https://example.com/a")
    assert settings.same_index("https://example.com/a/simple", "https://Example.com/a/simple/")
    assert not settings.same_index("https://example.com/a", "https://example.com/b")


def test_the_deepest_index_covers_a_url() -> None:
    """If one index is below another, the deeper one covers the URL. A URL outside of all has none."""
    text = '[[index]]\nurl = "https://example.com/a/simple"\n[[index]]\nurl = "https://example.com/a/b/simple"\n'
    configuration = settings.read([document(text)], {})
    deep, none = (
        configuration.covering("https://example.com/a/b/simple/x/"),
        configuration.covering("https://example.com/"),
    )
    assert deep is not None
    assert (deep.url, none) == ("https://example.com/a/b/simple", None)


def test_the_line_of_a_text() -> None:
    """`line_of` returns the first line that contains the text, or 0."""
    assert settings.line_of(b"a\nb c\n", "c") == 2
    assert settings.line_of(b"a\n", "x") == 0


def test_two_urls_of_one_index() -> None:
    """Final slashes and the case of the host do not matter; the case of the path does."""
    assert settings.same_index("https://H.example/a/", "https://h.example/a")
    assert not settings.same_index("https://h.example/aX", "https://h.example/a")
    assert not settings.same_index("https://h.example/a", "https://h.example/aX")


@pytest.mark.parametrize("name", ["UV_INDEX_URL", "UV_DEFAULT_INDEX", "UV_INDEX", "UV_EXTRA_INDEX_URL"])
def test_which_variables_name_the_default_index(name: str) -> None:
    """`UV_DEFAULT_INDEX` and its older name define the default index. Without a policy, `authenticate` is "auto"."""
    (index,) = settings.read([], {name: "https://a.example/simple/"}).indexes
    assert index.default == (name in {"UV_INDEX_URL", "UV_DEFAULT_INDEX"})
    assert (index.authenticate, index.user, index.name) == ("auto", "", None)


def test_the_names_of_uvs_settings() -> None:
    """The names are those in uv's reference; some settings have no environment variable."""
    assert {
        **{name: f"UV_{name.upper().replace('-', '_')}" for name in ("keyring-provider", "index-strategy", "no-index")},
        **{name: f"UV_{name.upper().replace('-', '_')}" for name in ("offline", "native-tls", "system-certs")},
        "publish-url": "UV_PUBLISH_URL",
        "check-url": "UV_PUBLISH_CHECK_URL",
        **dict.fromkeys(("http-proxy", "https-proxy", "required-version"), ""),
    } == settings.SETTINGS


def test_a_weaker_file_adds_but_never_replaces() -> None:
    """If two files contain the same setting, the stronger file wins. The indexes and pins of both count, and each
    index is listed once."""
    strong = '[[index]]\nname = "a"\nurl = "https://a.example/"\n[sources]\np = { index = "a" }\n'
    weak = '[[index]]\nname = "b"\nurl = "https://b.example/"\n[sources]\nP = { index = "b" }\n'
    files = [
        document(f"offline = true\nno-index = false\n{strong}", "strong.toml"),
        document(f"offline = false\nno-index = true\nnative-tls = true\n{weak}", "weak.toml"),
    ]
    configuration = settings.read(files, {"UV_NO_INDEX": "1"})
    assert {key: (setting.value, str(setting.place)) for key, setting in configuration.settings.items()} == {
        "offline": (True, "strong.toml:1"),
        "no-index": ("1", "UV_NO_INDEX"),
        "native-tls": (True, "weak.toml:3"),
    }
    assert [index.label for index in configuration.indexes] == ["a", "b"]
    assert configuration.pins == {"p": frozenset({"a", "b"})}
    again = settings.read([files[0], files[0]], {})
    assert [index.label for index in again.indexes] == ["a"]


@pytest.mark.parametrize(
    ("written", "policy"),
    [('"always"', "always"), ('"never"', "never"), ('"auto"', "auto"), ('"x"', "auto"), ("7", "auto")],
)
def test_the_values_of_an_index_table(written: str, policy: str) -> None:
    """An index table sets the authentication policy, the upload URL, and whether the index is explicit or the
    default. Only ``true`` counts as yes."""
    table = '[[index]]\nurl = "https://me@a.example/"\n'
    complete = f'{table}name = "a"\nauthenticate = {written}\nexplicit = true\ndefault = true\npublish-url = "https://up.example/"\n'
    (index,) = settings.read([document(complete)], {}).indexes
    assert (index.authenticate, index.explicit, index.default) == (policy, True, True)
    assert (index.publish_url, index.user, index.password) == ("https://up.example/", "me", None)
    for incomplete in (table, f"{table}name = 7\nexplicit = 1\ndefault = 1\npublish-url = 7\n"):
        (index,) = settings.read([document(incomplete)], {}).indexes
        assert (index.name, index.explicit, index.default, index.publish_url) == (None, False, False, "")
        assert index.label == "https://a.example/"


@pytest.mark.parametrize(("label", "name"), [("a.B-1_", "a.B-1_"), ("", None), ("a/b", None), ("a:b", None)])
def test_the_name_of_an_index_in_a_variable(label: str, name: str | None) -> None:
    """The text before the equals sign is the index's name if it is a valid name. Otherwise the whole word is read as
    a URL."""
    indexes = settings.read([], {"UV_INDEX": f"{label}=https://a.example/"}).indexes
    assert [index.name for index in indexes if index.url == "https://a.example/"] == ([] if name is None else [name])
    assert [index.name for index in settings.read([], {"UV_INDEX": "https://a.example/?x=y"}).indexes] == [None]


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("http://h.example:80/a", "http://h.example/a", True),
        ("https://h.example:443/a", "https://h.example/a", True),
        ("http://h.example:443/a", "http://h.example/a", False),
        ("http://h.example:81/a", "http://h.example/a", False),
        ("https://h.example:80/a", "https://h.example/a", False),
    ],
)
def test_a_scheme_has_its_port(one: str, other: str, same: bool) -> None:
    """The default ports are 80 for http and 443 for https (RFC 9110, 4.2). A URL with its scheme's default port
    equals the one without it."""
    assert settings.same_index(one, other) == settings.is_below(one, other) == same


def test_a_url_loses_its_user_and_nothing_else() -> None:
    """uvtokend removes and decodes the user and the password of a URL, and an empty password counts as none. The
    rest stays unchanged."""
    bare = "https://h.example:8443/a%20b/?q#f"
    for written, user, password in (
        ("", "", None),
        ("me@", "me", None),
        ("me:@", "me", None),
        ("m%40e:p%2Fw@", "m@e", Secret("p/w")),
        (":pw@", "", Secret("pw")),
    ):
        assert settings.split_url(bare.replace("://", f"://{written}")) == (bare, user, password)


@pytest.mark.parametrize("path", ["/simpleX", "/X", "/a/simpler", "/simple+", "", "/"])
def test_only_a_last_simple_is_left_out(path: str) -> None:
    """If the last segment is not exactly ``simple``, the root is the URL itself."""
    assert settings.root(f"https://h.example{path}") == f"https://h.example{path}"
    assert settings.line_of(b"\nb", "b") == 2
    assert settings.line_of(b"b\nb", "b") == 1


def test_the_words_for_yes_and_the_defaults_of_a_uv_index() -> None:
    """The words for yes are those of clap (`BoolishValueParser`). A location without a line is shown as the
    variable's name."""
    assert {"1", "t", "true", "y", "yes", "on"} == settings.TRUE
    assert (str(Location("UV_INDEX")), str(Location("uv.toml", 3))) == ("UV_INDEX", "uv.toml:3")
    assert UvFile("f", b"", {}).indexes_only is False
    plain = settings.UvIndex(None, "https://a.example/", Location("f"))
    assert (plain.user, plain.authenticate, plain.explicit, plain.default) == ("", "auto", False, False)
    assert (plain.publish_url, UvConfiguration().settings, UvConfiguration().pins) == ("", {}, {})


def test_nothing_is_below_a_url_of_another_host() -> None:
    """No URL is below a URL of another host, even if the paths are equal. Every URL of a host is below its root."""
    assert not settings.is_below("https://a.example/x", "https://b.example/x")
    assert settings.is_below("https://a.example/x", "https://a.example")
    assert settings.is_below("https://a.example", "https://a.example")

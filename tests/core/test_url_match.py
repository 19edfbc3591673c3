"""Which index a URL belongs to: it must be below the index's URL, on the same host, and unambiguous."""

from __future__ import annotations

from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uvtokend.core import url_match
from uvtokend.core.model import Index, Request
from uvtokend.core.urls import IndexUrl


def index(name: str, url: str, request: str = "") -> Index:
    return Index(name, url, IndexUrl.parse(url).host, "static", Request("static", request or name))


INDEXES = (
    index("root", "https://root.example/simple/"),
    index("team", "https://h.example/acme/pypi/team/simple/"),
    index("wide", "https://h.example/acme/", "wide"),
    index("deep", "https://h.example/acme/pypi/", "deep"),
    index("port", "https://h.example:8443/acme/simple"),
    index("one", "https://twins.example/one/simple/", "twins"),
    index("two", "https://twins.example/two/simple/", "twins"),
    index("local", "http://127.0.0.1:8080/a/simple/"),
    index("six", "http://[::1]:8080/simple/"),
    index("odd", "https://odd.example/a/../b/simple/"),
)


def names(url: str) -> list[str]:
    asked = url_match.asked_url(url)
    return [] if asked is None else [match.name for match in url_match.matching(asked, INDEXES)]


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://root.example/simple/", ["root"]),
        ("https://root.example/files/alpha-1.whl?x=1#sha256=2", ["root"]),
        ("https://ROOT.Example:443/simple/", ["root"]),
        ("HTTPS://root.example", ["root"]),
        ("https://aws@root.example/simple/", ["root"]),
        ("https://h.example/acme/pypi/team/simple/alpha/", ["team", "deep", "wide"]),
        ("https://h.example/acme/pypi/team", ["team", "deep", "wide"]),
        ("https://h.example/acme/pypi/teams/simple/", ["deep", "wide"]),
        ("https://h.example/acme/other", ["wide"]),
        ("https://h.example:8443/acme/simple/alpha/", ["port"]),
        ("http://127.0.0.1:8080/a/simple/", ["local"]),
        ("http://[::1]:8080/simple/", ["six"]),
    ],
)
def test_the_longest_prefix_comes_first(url: str, expected: list[str]) -> None:
    """Scheme, host and port must be equal, the path is compared by whole segments, and the longest prefix comes
    first."""
    assert names(url) == expected


@pytest.mark.parametrize(
    "url",
    [
        "https://h.example/",
        "https://h.example/acm",
        "https://h.example/acmeshop/simple/",
        "https://h.example.evil.example/acme/",
        "https://evil.example/h.example/acme/",
        "https://h.example@evil.example/acme/",
        "https://xh.example/acme/",
        "https://h.example./acme/",
        "http://h.example/acme/",
        "ftp://h.example/acme/",
        "//h.example/acme/",
        "file:///acme/",
        "https://h.example:80/acme/",
        "https://h.example:8444/acme/",
        "https://h.example:99999/acme/",
        "https://h.example:x/acme/",
        "https://[h.example/acme/",
        "https:///acme/",
        "https://h.example/acme/../secret/",
        "https://h.example/acme/./x",
        "https://h.example/acme/%2e%2E/secret/",
        "https://h.example/acme/.%2e/secret/",
        "https://h.example/acme/x%2fy",
        "https://h.example/acme/x%5Cy",
        "https://h.example/acme\\..\\x",
        "https://h.example\\@evil.example/acme/",
        "https://h.example/acme/ x",
        "https://h.example/acme/\nx",
        "https://h.ex\tample/acme/",
        "https://h.example/acme/\x00",
        "https://hé.example/acme/",
        "https://h%2eexample/acme/",
        "https://h.example//acme/",
        "https://odd.example/b/simple/",
        "https://odd.example/a/",
        "https://h.example/acme/" + "x" * url_match.LIMIT,
        "",
    ],
)
def test_anything_else_matches_nothing(url: str) -> None:
    """Another scheme, host or port, part of a segment, and any ambiguous URL match no index."""
    assert names(url) == []


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("root.example", ["root"]),
        ("ROOT.example:443", ["root"]),
        ("twins.example", ["one"]),
        ("h.example", []),
        ("h.example:8443", ["port"]),
        ("127.0.0.1:8080", []),
        ("http://127.0.0.1:8080", ["local"]),
        ("http://127.0.0.1:8080/", ["local"]),
        ("http://[::1]:8080", ["six"]),
        ("http://root.example", []),
        ("root.example/", []),
        ("root.example/simple/", []),
        ("aws@root.example", []),
        ("root.example.", []),
        ("root.example:444", []),
        ("evil.example", []),
        (":443", []),
    ],
)
def test_a_bare_host_needs_one_credential(host: str, expected: list[str]) -> None:
    """A bare host means https, and matches only if all its indexes share one credential."""
    assert names(host) == expected


def test_two_credentials_on_a_loopback_host() -> None:
    """If the credentials differ, a loopback URL without a path is treated like any other URL."""
    indexes = (index("r", "http://localhost:1/simple/"), index("s", "http://localhost:1/s/simple/"))
    asked = url_match.asked_url("http://localhost:1/")
    assert asked is not None
    assert url_match.matching(asked, indexes) == indexes[:1]


def test_the_user_in_a_url_is_read() -> None:
    """The user name in the URL is returned decoded, because it must be the login. A password is dropped."""
    asked = url_match.asked_url("https://a%40b:pw@h.example/acme/")
    assert asked is not None
    assert asked.user == "a@b"
    assert "pw" not in repr(asked)


@given(st.text(), st.text(alphabet="/.%2efF5cC\\@:?#a "))
def test_no_url_matches_another_origin(text: str, tail: str) -> None:
    """For any text, the matched index has the host that Python's URL parser reads."""
    for url in (text, f"https://h.example{tail}", f"https://h.example/acme/{text}{tail}"):
        for name in names(url):
            match = next(each for each in INDEXES if each.name == name)
            assert urlsplit(url if "://" in url else f"https://{url}").hostname == urlsplit(match.url).hostname


def test_an_invalid_host_has_no_origin() -> None:
    """A URL has an origin only with a known scheme and a valid host."""
    for url in ("https:///x", "ftp://a.example/x", "https://", "https://a b.example/x"):
        assert url_match._origin(urlsplit(url)) is None
    assert url_match._origin(urlsplit("https://a.example/x")) == ("https", "a.example", 443)


@pytest.mark.parametrize("name", ["Xa", "aX", "X"])
def test_only_slashes_are_cut_from_a_path(name: str) -> None:
    """Only slashes and a final ``simple`` are removed; any letter may begin or end the name."""
    assert url_match.root(f"/{name}/") == (name,)
    assert url_match.root(f"/{name}/simple/") == (name,)


def test_the_root_of_an_index() -> None:
    """The root is the path without final slashes and a final segment ``simple``."""
    assert url_match.root("/pypi/aX/simple/") == ("pypi", "aX")
    assert url_match.root("/pypi/aX//") == ("pypi", "aX")


@pytest.mark.parametrize(
    ("text", "only_host"),
    [
        ("http://127.0.0.1", True),
        ("http://127.0.0.1:8080/", True),
        ("http://localhost/", True),
        ("http://127.0.0.1/x", False),
        ("https://127.0.0.1/", False),
        ("http://x.example/", False),
        ("X.example", False),
    ],
)
def test_a_loopback_url_may_mean_a_bare_host(text: str, only_host: bool) -> None:
    """A URL may mean a bare host only if it uses plain HTTP, names this machine and has no path."""
    asked = url_match.asked_url(text)
    assert asked is not None
    assert asked.only_host == only_host
    assert (asked.path is None) == ("://" not in text)


def test_a_url_may_be_as_long_as_the_limit() -> None:
    """A URL of 8192 characters is accepted, and one character more is not. RFC 9110, 4.1, asks for at least 8000."""
    longest = "https://x.example/".ljust(8192, "a")
    assert url_match.asked_url(longest) is not None
    assert url_match.asked_url(f"{longest}a") is None


def test_a_url_without_a_port_has_its_schemes_default() -> None:
    """The default port is 443 for https and 80 for http (RFC 9110, 4.2.1 and 4.2.2)."""
    for text, port in (("https://x.example/", 443), ("http://x.example/", 80), ("x.example", 443), ("x.example:8", 8)):
        asked = url_match.asked_url(text)
        assert asked is not None
        assert asked.origin[2] == port


def test_a_parsed_url_shows_no_user_name() -> None:
    """The `repr` of a parsed URL does not contain the user name, which may be a token."""
    url = IndexUrl.parse("https://t0ken@h.example/a//")
    assert "t0ken" not in repr(url)
    assert url.name == "a"
    plain = IndexUrl("https://h.example/", "https", "h.example", "h.example", "/")
    assert (plain.username, plain.password, plain.plain) == (None, False, True)

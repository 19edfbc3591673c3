"""What a worker gets as its environment."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from uvtokend.core.clouds import CLOUDS
from uvtokend.core.model import Index, Request, Settings
from uvtokend.core.worker_environment import CA_VARIABLES, FIXED, Environments, shown, worker_environment

MINE = Request("static", options=(("password", (("env", "MINE"),)),), env=(("EXTRA", "1"),))
OTHERS = Request("static", options=(("password", (("env", "OTHERS"),)), ("username", "me")))
BOTH = Settings("c", tuple(Index(n, "https://x", n, "static", r) for n, r in (("a", MINE), ("b", OTHERS))))
BASE = {"PATH": "/bin", "MINE": "1", "OTHERS": "2", "HTTPS_PROXY": "http://proxy.example", "NETRC": "~/mine"}


def test_a_secret_reaches_only_its_own_worker() -> None:
    """The daemon's environment, the index's own, and no secret of another index; never our own netrc."""
    mine = worker_environment(BASE, MINE, BOTH)
    assert mine == {
        "PATH": "/bin",
        "MINE": "1",
        "HTTPS_PROXY": "http://proxy.example",
        "EXTRA": "1",
        **FIXED,
    }
    assert "MINE" not in worker_environment(BASE, OTHERS, BOTH)


def test_the_secret_of_an_index_that_is_switched_off_is_still_its_own() -> None:
    """Switching an index off does not hand its variable to the others."""
    off = Settings("c", BOTH.indexes[:1], disabled=BOTH.indexes[1:])
    assert "OTHERS" not in worker_environment(BASE, MINE, off)


def test_every_secret_option_of_every_provider_is_hidden() -> None:
    """Whatever option may hold a reference, its variable is kept from all other indexes' workers."""
    for name, provider in CLOUDS.items():
        for key, option in provider.options.items():
            if option.kind.may_be_secret:
                theirs = Request(name, options=((key, (("env", "THEIRS"),)),))
                settings = Settings("c", (Index("a", "https://x", "x", name, theirs), *BOTH.indexes))
                base = {**BASE, "THEIRS": "3"}
                assert "THEIRS" not in worker_environment(base, MINE, settings)
                assert worker_environment(base, theirs, settings)["THEIRS"] == "3"


def test_a_plug_ins_secrets_are_found_at_any_depth() -> None:
    """A plug-in may keep its references in tables of its own; words that only look alike are none."""
    table = (("login", (("key", (("env", "DEEP"),)), ("user", "me"))), ("run", ("env", "PATH")), ("retries", 3))
    plugin = Request("acme", options=table)
    both = Settings("c", tuple(Index(n, "https://x", n, "acme", r) for n, r in (("a", plugin), ("b", OTHERS))))
    base = {"DEEP": "1", "PATH": "/bin"}
    assert worker_environment(base, plugin, both) == {**base, **FIXED}
    assert worker_environment(base, OTHERS, both) == {"PATH": "/bin", **FIXED}


def certificates(base: dict[str, str], env: dict[str, str], bundle: str | None = None) -> dict[str, str]:
    """Return the variables that name certificates in the environment of a worker."""
    request = Request("static", env=tuple(env.items()))
    found = worker_environment(base, request, Settings("c", ca_bundle=bundle))
    return {name: text for name, text in found.items() if name in (*CA_VARIABLES, "SSL_CERT_DIR")}


def test_the_ca_bundle_reaches_every_sdk_and_helper() -> None:
    """A configured bundle replaces what the daemon's environment names, and what an index names replaces both."""
    whole = dict.fromkeys(CA_VARIABLES, "/corp.pem")
    others = {"AWS_CA_BUNDLE": "/other", "SSL_CERT_DIR": "/certs", "SSL_CERT_FILE": "/ssl.pem"}
    assert certificates(others, {}, "/corp.pem") == whole
    assert certificates({}, {"AWS_CA_BUNDLE": "/own.pem"}, "/corp.pem") == {**whole, "AWS_CA_BUNDLE": "/own.pem"}
    assert certificates(others, {"SSL_CERT_FILE": "/corp.pem"}, "/x.pem") == whole
    assert certificates(others, {"SSL_CERT_DIR": "/own"}, "/corp.pem") == {"SSL_CERT_DIR": "/own"}


def test_the_certificates_of_the_environment() -> None:
    """SSL_CERT_FILE fills only what is not set; without it everything stays as it is."""
    found = certificates({"SSL_CERT_FILE": "/ssl.pem", "AWS_CA_BUNDLE": "/aws.pem", "SSL_CERT_DIR": "/certs"}, {})
    filled = dict.fromkeys(CA_VARIABLES, "/ssl.pem")
    assert found == {**filled, "AWS_CA_BUNDLE": "/aws.pem", "SSL_CERT_DIR": "/certs"}
    assert certificates({"REQUESTS_CA_BUNDLE": "/r.pem"}, {}) == {"REQUESTS_CA_BUNDLE": "/r.pem"}
    assert certificates({}, {}) == {}


def test_an_empty_variable_for_certificates_is_unset() -> None:
    """An SDK may take it for the wish to verify no certificate."""
    for name in (*CA_VARIABLES, "SSL_CERT_DIR"):
        assert certificates({name: ""}, {}) == certificates({}, {name: ""}) == {}
        assert certificates({name: ""}, {}, "/x.pem") == dict.fromkeys(CA_VARIABLES, "/x.pem")


def test_our_netrc_stays_hidden() -> None:
    """An index's own environment cannot bring our netrc back."""
    own = Request("static", env=(("NETRC", "/home/me/.netrc"),))
    assert worker_environment({}, own, Settings("c")) == FIXED


def test_a_proxy_for_everything_is_one_for_https() -> None:
    """botocore does not know ALL_PROXY; a SOCKS proxy is none that it could use, and HTTPS_PROXY wins."""
    proxy = {"ALL_PROXY": "http://proxy.example:3128"}
    assert worker_environment(proxy, MINE, BOTH)["HTTPS_PROXY"] == "http://proxy.example:3128"
    assert worker_environment({"all_proxy": "https://p.example"}, MINE, BOTH)["HTTPS_PROXY"] == "https://p.example"
    assert "HTTPS_PROXY" not in worker_environment({"ALL_PROXY": "socks5://proxy.example"}, MINE, BOTH)
    for name in ("HTTPS_PROXY", "https_proxy"):
        both = worker_environment({**proxy, name: "http://other.example"}, MINE, BOTH)
        assert [text for key, text in both.items() if key.lower() == "https_proxy"] == ["http://other.example"]


def test_what_starts_python_is_left_alone() -> None:
    """A worker is the daemon's own interpreter: what that needed to start, its child needs too."""
    base = {"PYTHONPATH": "/x", "PYTHONHOME": "/y", "VIRTUAL_ENV": "/z"}
    assert worker_environment(base, MINE, BOTH).items() >= base.items()


@given(st.dictionaries(st.sampled_from(["MINE", "OTHERS", "PATH", "NETRC", "SSL_CERT_FILE"]), st.text(max_size=3)))
def test_whatever_the_daemon_has(base: dict[str, str]) -> None:
    """No worker ever sees another index's secret or our netrc, and each sees its own secret as it is."""
    mine, theirs = worker_environment(base, MINE, BOTH), worker_environment(base, OTHERS, BOTH)
    assert (mine.get("MINE"), mine.get("OTHERS")) == (base.get("MINE"), None)
    assert (theirs.get("MINE"), theirs.get("OTHERS")) == (None, base.get("OTHERS"))
    assert mine["NETRC"] == theirs["NETRC"] == "/dev/null"


def test_the_hook_gets_no_secret() -> None:
    """The program of on-delivered gets the daemon's environment without secrets, the names and the netrc."""
    request = Request("static", options=(("password", (("env", "CORP_TOKEN"),)),))
    settings = Settings("config.toml", (Index("corp", "https://corp.example/", "corp.example", "static", request),))
    environments = Environments({"PATH": "/bin", "CORP_TOKEN": "s3cr3t"}, settings)
    assert environments.of_hook(["corp", "other"], "/n") == {
        "PATH": "/bin",
        "UVTOKEND_INDEXES": "corp other",
        "UVTOKEND_NETRC": "/n",
    }


def test_what_the_daemon_tells_of_its_environment() -> None:
    """PATH, proxies without user name and password, and certificates; nothing else."""
    environ = {"PATH": "/bin", "HTTPS_PROXY": "http://me:s3cr3t@proxy.example", "AWS_SECRET_ACCESS_KEY": "s3cr3t"}
    assert shown(environ) == {"PATH": "/bin", "HTTPS_PROXY": "http://***@proxy.example"}


def test_what_decides_whether_a_cloud_can_be_reached() -> None:
    """The daemon reports the proxies, both spellings of each, of the certificates, and of PATH; of nothing else."""
    proxies = [f"{kind}_proxy" for kind in ("https", "http", "all", "no")]
    certificates = ["SSL_CERT_FILE", "SSL_CERT_DIR", "SSL_CLIENT_CERT", "REQUESTS_CA_BUNDLE", "AWS_CA_BUNDLE"]
    names = [*proxies, *(name.upper() for name in proxies), *certificates, "PATH"]
    assert shown({**dict.fromkeys(names, "x"), "HOME": "/h", "TOKEN": "t"}) == dict.fromkeys(names, "x")


def test_every_tool_gets_the_bundle() -> None:
    """OpenSSL, botocore, requests, curl, Node and gcloud each have a variable of their own for it."""
    request = Request("static")
    got = worker_environment({}, request, Settings("config.toml", ca_bundle="/ca.pem"))
    assert {name for name, value in got.items() if value == "/ca.pem"} == {
        *("SSL_CERT_FILE", "AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "NODE_EXTRA_CA_CERTS"),
        "CLOUDSDK_CORE_CUSTOM_CA_CERTS_FILE",
    }


def test_a_worker_never_reads_our_netrc_nor_asks_us() -> None:
    """By the names that requests and our own keyring command know."""
    got = worker_environment({"NETRC": "/home/me/.netrc"}, Request("static"), Settings("config.toml"))
    assert (got["NETRC"], got["UVTOKEND_IN_WORKER"]) == ("/dev/null", "1")

"""The environment of a worker."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from uvtokend.core.clouds import CLOUDS
from uvtokend.core.model import Index, Request, Settings
from uvtokend.core.worker_environment import (
    CA_VARIABLES,
    FIXED,
    Environments,
    shown,
    worker_environment,
    worker_kind,
)

MINE = Request("static", options=(("password", (("env", "MINE"),)),), env=(("EXTRA", "1"),))
OTHERS = Request("static", options=(("password", (("env", "OTHERS"),)), ("username", "me")))
BOTH = Settings("c", tuple(Index(n, "https://x", n, "static", r) for n, r in (("a", MINE), ("b", OTHERS))))
BASE = {"PATH": "/bin", "MINE": "1", "OTHERS": "2", "HTTPS_PROXY": "http://proxy.example", "NETRC": "~/mine"}


def test_a_secret_reaches_only_its_own_worker() -> None:
    """A worker gets the daemon's environment and its index's own, but neither the secret of another index nor our
    netrc."""
    mine = worker_environment(BASE, MINE, BOTH)
    assert mine == {
        "PATH": "/bin",
        "MINE": "1",
        "HTTPS_PROXY": "http://proxy.example",
        "EXTRA": "1",
        **FIXED,
    }
    assert "MINE" not in worker_environment(BASE, OTHERS, BOTH)


def test_the_secret_of_a_disabled_index_stays_hidden() -> None:
    """Disabling an index does not give its secret to the workers of other indexes."""
    off = Settings("c", BOTH.indexes[:1], disabled=BOTH.indexes[1:])
    assert "OTHERS" not in worker_environment(BASE, MINE, off)


def test_every_secret_option_of_every_provider_is_hidden() -> None:
    """The variable that a secret option references is hidden from the workers of all other indexes."""
    for name, provider in CLOUDS.items():
        for key, option in provider.options.items():
            if option.kind.may_be_secret:
                theirs = Request(name, options=((key, (("env", "THEIRS"),)),))
                settings = Settings("c", (Index("a", "https://x", "x", name, theirs), *BOTH.indexes))
                base = {**BASE, "THEIRS": "3"}
                assert "THEIRS" not in worker_environment(base, MINE, settings)
                assert worker_environment(base, theirs, settings)["THEIRS"] == "3"


def test_secrets_in_nested_plug_in_options_are_hidden() -> None:
    """References in nested tables of a plug-in's options are recognized; values that only resemble them are not."""
    table = (("login", (("key", (("env", "DEEP"),)), ("user", "me"))), ("run", ("env", "PATH")), ("retries", 3))
    plugin = Request("acme", options=table)
    both = Settings("c", tuple(Index(n, "https://x", n, "acme", r) for n, r in (("a", plugin), ("b", OTHERS))))
    base = {"DEEP": "1", "PATH": "/bin"}
    assert worker_environment(base, plugin, both) == {**base, **FIXED}
    assert worker_environment(base, OTHERS, both) == {"PATH": "/bin", **FIXED}


def certificates(base: dict[str, str], env: dict[str, str], bundle: str | None = None) -> dict[str, str]:
    """Return the variables in a worker's environment that name certificates."""
    request = Request("static", env=tuple(env.items()))
    environment = worker_environment(base, request, Settings("c", ca_bundle=bundle))
    return {name: text for name, text in environment.items() if name in (*CA_VARIABLES, "SSL_CERT_DIR")}


def test_the_ca_bundle_reaches_every_sdk_and_helper() -> None:
    """A configured bundle replaces the one in the daemon's environment, and one in the index's `env` replaces both."""
    whole = dict.fromkeys(CA_VARIABLES, "/corp.pem")
    others = {"AWS_CA_BUNDLE": "/other", "SSL_CERT_DIR": "/certs", "SSL_CERT_FILE": "/ssl.pem"}
    assert certificates(others, {}, "/corp.pem") == whole
    assert certificates({}, {"AWS_CA_BUNDLE": "/own.pem"}, "/corp.pem") == {**whole, "AWS_CA_BUNDLE": "/own.pem"}
    assert certificates(others, {"SSL_CERT_FILE": "/corp.pem"}, "/x.pem") == whole
    assert certificates(others, {"SSL_CERT_DIR": "/own"}, "/corp.pem") == {"SSL_CERT_DIR": "/own"}


def test_the_certificates_of_the_environment() -> None:
    """SSL_CERT_FILE sets only the variables that are unset. Without it nothing changes."""
    variables = certificates({"SSL_CERT_FILE": "/ssl.pem", "AWS_CA_BUNDLE": "/aws.pem", "SSL_CERT_DIR": "/certs"}, {})
    filled = dict.fromkeys(CA_VARIABLES, "/ssl.pem")
    assert variables == {**filled, "AWS_CA_BUNDLE": "/aws.pem", "SSL_CERT_DIR": "/certs"}
    assert certificates({"REQUESTS_CA_BUNDLE": "/r.pem"}, {}) == {"REQUESTS_CA_BUNDLE": "/r.pem"}
    assert certificates({}, {}) == {}


def test_an_empty_variable_for_certificates_is_unset() -> None:
    """An SDK may take an empty variable as a request to skip verification, so empty ones are removed."""
    for name in (*CA_VARIABLES, "SSL_CERT_DIR"):
        assert certificates({name: ""}, {}) == certificates({}, {name: ""}) == {}
        assert certificates({name: ""}, {}, "/x.pem") == dict.fromkeys(CA_VARIABLES, "/x.pem")


def test_our_netrc_stays_hidden() -> None:
    """An index's own `env` cannot make our netrc visible to the worker."""
    own = Request("static", env=(("NETRC", "/home/me/.netrc"),))
    assert worker_environment({}, own, Settings("c")) == FIXED


def test_all_proxy_is_used_for_https() -> None:
    """botocore ignores ALL_PROXY, so it becomes HTTPS_PROXY, unless that is set or ALL_PROXY is a SOCKS proxy."""
    proxy = {"ALL_PROXY": "http://proxy.example:3128"}
    assert worker_environment(proxy, MINE, BOTH)["HTTPS_PROXY"] == "http://proxy.example:3128"
    assert worker_environment({"all_proxy": "https://p.example"}, MINE, BOTH)["HTTPS_PROXY"] == "https://p.example"
    assert "HTTPS_PROXY" not in worker_environment({"ALL_PROXY": "socks5://proxy.example"}, MINE, BOTH)
    for name in ("HTTPS_PROXY", "https_proxy"):
        both = worker_environment({**proxy, name: "http://other.example"}, MINE, BOTH)
        assert [text for key, text in both.items() if key.lower() == "https_proxy"] == ["http://other.example"]


def test_the_variables_of_python_are_kept() -> None:
    """A worker uses the daemon's own interpreter, so it needs the same Python variables."""
    base = {"PYTHONPATH": "/x", "PYTHONHOME": "/y", "VIRTUAL_ENV": "/z"}
    assert worker_environment(base, MINE, BOTH).items() >= base.items()


@given(st.dictionaries(st.sampled_from(["MINE", "OTHERS", "PATH", "NETRC", "SSL_CERT_FILE"]), st.text(max_size=3)))
def test_secrets_stay_separate_in_any_environment(base: dict[str, str]) -> None:
    """In any environment, a worker sees its own secret, but neither another index's secret nor our netrc."""
    mine, theirs = worker_environment(base, MINE, BOTH), worker_environment(base, OTHERS, BOTH)
    assert (mine.get("MINE"), mine.get("OTHERS")) == (base.get("MINE"), None)
    assert (theirs.get("MINE"), theirs.get("OTHERS")) == (None, base.get("OTHERS"))
    assert mine["NETRC"] == theirs["NETRC"] == "/dev/null"


def test_the_hook_gets_no_secret() -> None:
    """The program of `on-delivered` gets the daemon's environment without secrets, plus the index names and the
    netrc."""
    request = Request("static", options=(("password", (("env", "CORP_TOKEN"),)),))
    settings = Settings("config.toml", (Index("corp", "https://corp.example/", "corp.example", "static", request),))
    environments = Environments({"PATH": "/bin", "CORP_TOKEN": "s3cr3t"}, settings)
    assert environments.of_hook(["corp", "other"], "/n") == {
        "PATH": "/bin",
        "UVTOKEND_INDEXES": "corp other",
        "UVTOKEND_NETRC": "/n",
    }


def test_which_variables_the_daemon_shows() -> None:
    """The daemon shows PATH, certificates, and proxies without user name and password, but nothing else."""
    environ = {"PATH": "/bin", "HTTPS_PROXY": "http://me:s3cr3t@proxy.example", "AWS_SECRET_ACCESS_KEY": "s3cr3t"}
    assert shown(environ) == {"PATH": "/bin", "HTTPS_PROXY": "http://***@proxy.example"}


def test_the_names_of_the_shown_variables() -> None:
    """The daemon shows the proxies in both spellings, the certificate variables and PATH, but nothing else."""
    proxies = [f"{kind}_proxy" for kind in ("https", "http", "all", "no")]
    certificates = ["SSL_CERT_FILE", "SSL_CERT_DIR", "SSL_CLIENT_CERT", "REQUESTS_CA_BUNDLE", "AWS_CA_BUNDLE"]
    names = [*proxies, *(name.upper() for name in proxies), *certificates, "PATH"]
    assert shown({**dict.fromkeys(names, "x"), "HOME": "/h", "TOKEN": "t"}) == dict.fromkeys(names, "x")


def test_every_tool_gets_the_bundle() -> None:
    """OpenSSL, botocore, requests, curl, Node and gcloud each have their own variable for the CA bundle."""
    request = Request("static")
    environment = worker_environment({}, request, Settings("config.toml", ca_bundle="/ca.pem"))
    assert {name for name, value in environment.items() if value == "/ca.pem"} == {
        *("SSL_CERT_FILE", "AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "NODE_EXTRA_CA_CERTS"),
        "CLOUDSDK_CORE_CUSTOM_CA_CERTS_FILE",
    }


def test_a_worker_reads_neither_our_netrc_nor_our_keyring() -> None:
    """NETRC hides our netrc from `requests`, and UVTOKEND_IN_WORKER stops our own keyring command."""
    environment = worker_environment({"NETRC": "/home/me/.netrc"}, Request("static"), Settings("config.toml"))
    assert (environment["NETRC"], environment["UVTOKEND_IN_WORKER"]) == ("/dev/null", "1")


def test_only_equal_environments_share_a_worker() -> None:
    """Requests of one provider share workers if they name the same secret variables and have the same `env`. Then their
    environments are equal, whatever the daemon's environment is."""
    other = Request("static", options=(("password", (("env", "MINE"),)), ("username", "other")), env=MINE.env)
    assert worker_kind(MINE) == worker_kind(other) is not None
    assert worker_environment(BASE, MINE, BOTH) == worker_environment(BASE, other, BOTH)
    strangers = (
        OTHERS,
        Request("static", options=MINE.options),
        Request("nexus", options=MINE.options, env=MINE.env),
        Request("static", options=(("password", (("file", "/secret"),)),), env=MINE.env),
    )
    assert worker_kind(MINE) not in map(worker_kind, strangers)


def test_who_shares_no_worker() -> None:
    """A plug-in, a program of the user, and a request that spends a one-time secret have workers of their own."""
    chain = Request("jfrog-artifactory", options=(("refresh-token", (("file", "/token"),)),))
    alone = [Request("a-plug-in"), Request("command", options=(("command", ("prog",)),)), chain]
    assert {worker_kind(request) for request in alone} == {None}
    shared = {provider for provider in CLOUDS if worker_kind(Request(provider)) is not None}
    assert shared == {*CLOUDS} - {"command"}

"""What a worker gets as its environment."""

from __future__ import annotations

from uvtokend.core.environment import worker_environment
from uvtokend.core.model import Index, Request, Settings

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
        "NETRC": "/dev/null",
    }
    assert "MINE" not in worker_environment(BASE, OTHERS, BOTH)


def test_the_ca_bundle_reaches_every_sdk() -> None:
    """A configured bundle wins everywhere; SSL_CERT_FILE fills only what is not set."""
    names = ("AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE", "SSL_CERT_FILE")
    configured = worker_environment({"AWS_CA_BUNDLE": "/other"}, MINE, Settings("c", ca_bundle="/corp.pem"))
    assert [configured[name] for name in names] == ["/corp.pem"] * 3
    default = worker_environment({"SSL_CERT_FILE": "/ssl.pem", "AWS_CA_BUNDLE": "/aws.pem"}, MINE, Settings("c"))
    assert [default[name] for name in names] == ["/aws.pem", "/ssl.pem", "/ssl.pem"]
    assert not set(names) & worker_environment({}, MINE, Settings("c")).keys()

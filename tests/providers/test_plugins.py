"""Plug-ins as they come: one that is broken harms nobody else, and is named with what repairs it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from support.example_plugin import CODE, install
from uvtokend.core.model import Credential, Failure, Frozen, Request
from uvtokend.providers import worker

#: Works without a server; says its options back as its identity.
SIMPLE = """
from datetime import UTC, datetime
from uvtokend.plugin import Credential, Secret
def fetch(request):
    return Credential("me", Secret("token"), datetime.now(UTC), identity=repr(request.options))
"""
FETCH = Callable[..., Credential | Failure]


@pytest.fixture
def fetch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FETCH]:
    """The worker's fetch, with plug-ins that are installed into the test's directory."""

    def run(provider: str = "acme", **options: Frozen) -> Credential | Failure:
        return worker.fetch(Request(provider, options=tuple(sorted(options.items()))))

    monkeypatch.syspath_prepend(str(tmp_path))
    before = set(sys.modules)
    yield run
    for name in set(sys.modules) - before:
        if name.endswith("_provider"):
            del sys.modules[name]


def failed(outcome: Credential | Failure) -> Failure:
    assert isinstance(outcome, Failure)
    assert "canary" not in repr(outcome)
    return outcome


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("import no_such_module_at_all", "cannot be imported (ModuleNotFoundError: no_such_module_at_all is missing)"),
        ("raise RuntimeError('the-canary')", "cannot be imported (RuntimeError)"),
        ("import sys; sys.exit('the-canary')", "cannot be imported (SystemExit)"),
        ("def fetch(:", "cannot be imported (SyntaxError)"),
        ("def other(request): ...", "cannot be imported (AttributeError)"),
        ("fetch = 'the-canary'", "is not a function"),
    ],
)
def test_one_that_cannot_be_loaded(tmp_path: Path, fetch: FETCH, code: str, words: str) -> None:
    """It is rejected by its package's name, with the command that installs it again; another one works beside it."""
    install(tmp_path, code)
    install(tmp_path, SIMPLE, "good-provider", "[uvtokend.providers]\ngood = good_provider:fetch\n")
    found = failed(fetch())
    assert (found.kind, found.reason) == ("rejected", "broken-provider")
    assert found.message == f"The provider 'acme' of the package acme-provider {words}."
    assert found.hint == f"uv pip install --python {sys.executable} --reinstall acme-provider"
    assert isinstance(fetch("good"), Credential)


@pytest.mark.parametrize("points", [b"[uvtokend.providers]\nacme\n", b"\xff\xfe\xff", b"acme = acme_provider:fetch\n"])
def test_one_whose_entry_points_are_none(tmp_path: Path, fetch: FETCH, points: bytes) -> None:
    """A package that cannot be read is passed over: ours and other plug-ins are found as ever."""
    install(tmp_path)
    (tmp_path / "acme_provider-1.dist-info" / "entry_points.txt").write_bytes(points)
    install(tmp_path, SIMPLE, "good-provider", "[uvtokend.providers]\ngood = good_provider:fetch\n")
    assert failed(fetch()).reason == "no-provider"
    assert isinstance(fetch("good"), Credential)
    assert failed(fetch("static")).reason == "bad-options"


def test_two_of_one_name(tmp_path: Path, fetch: FETCH) -> None:
    """Neither is taken, since nobody can tell which was meant; both packages are named."""
    install(tmp_path, SIMPLE)
    install(tmp_path, SIMPLE, "other-provider", "[uvtokend.providers]\nacme = other_provider:fetch\n")
    found = failed(fetch())
    assert (found.kind, found.reason) == ("rejected", "ambiguous-provider")
    assert found.message == "More than one plug-in provides 'acme': acme-provider, other-provider."
    assert found.hint == f"uv pip uninstall --python {sys.executable} other-provider"


def test_none_takes_the_place_of_ours(tmp_path: Path, fetch: FETCH) -> None:
    """A plug-in that calls itself as a provider of ours is never asked."""
    install(tmp_path, SIMPLE, points="[uvtokend.providers]\nstatic = acme_provider:fetch\n")
    assert failed(fetch("static")).message == "username must be one line of text without a colon."


def test_its_options_reach_it(tmp_path: Path, fetch: FETCH) -> None:
    """They come frozen as they were written, and what it does not know is for itself to refuse; ours refuse too."""
    install(tmp_path, SIMPLE)
    install(tmp_path, CODE, "strict-provider", "[uvtokend.providers]\nstrict = strict_provider:fetch\n")
    outcome = fetch(region="eu", retries=3, key=(("env", "KEY"),))
    assert isinstance(outcome, Credential)
    assert outcome.identity == "(('key', (('env', 'KEY'),)), ('region', 'eu'), ('retries', 3))"
    found = failed(fetch("strict", server="https://acme.example", key=(("env", "PATH"),), colour="red"))
    assert (found.kind, found.reason) == ("rejected", "bad-options")
    assert failed(fetch("command", colour="red")).message == "command knows no option 'colour'."

"""A broken plug-in affects no other provider, and its failure has a fix."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from support.example_plugin import CODE, install
from uvtokend.core.model import Credential, Failure, Frozen, Request
from uvtokend.providers import worker

#: A plug-in that works without a server, and returns its options as the identity.
SIMPLE = """
from datetime import UTC, datetime
from uvtokend.plugin import Credential, Secret
def fetch(request):
    return Credential("me", Secret("token"), datetime.now(UTC), identity=repr(request.options))
"""
FETCH = Callable[..., Credential | Failure]


@pytest.fixture
def fetch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FETCH]:
    """Return the worker's fetch, with plug-ins installed into the test's directory."""

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
def test_a_plug_in_that_cannot_be_loaded(tmp_path: Path, fetch: FETCH, code: str, words: str) -> None:
    """The failure names the package and the command that reinstalls it. Another plug-in still works."""
    install(tmp_path, code)
    install(tmp_path, SIMPLE, "good-provider", "[uvtokend.providers]\ngood = good_provider:fetch\n")
    failure = failed(fetch())
    assert (failure.kind, failure.reason) == ("rejected", "broken-provider")
    assert failure.message == f"The provider 'acme' of the package acme-provider {words}."
    assert failure.hint == f"uv pip install --python {sys.executable} --reinstall acme-provider"
    assert isinstance(fetch("good"), Credential)


@pytest.mark.parametrize("points", [b"[uvtokend.providers]\nacme\n", b"\xff\xfe\xff", b"acme = acme_provider:fetch\n"])
def test_invalid_entry_points(tmp_path: Path, fetch: FETCH, points: bytes) -> None:
    """A package with invalid entry points is skipped; built-in providers and other plug-ins still work."""
    install(tmp_path)
    (tmp_path / "acme_provider-1.dist-info" / "entry_points.txt").write_bytes(points)
    install(tmp_path, SIMPLE, "good-provider", "[uvtokend.providers]\ngood = good_provider:fetch\n")
    assert failed(fetch()).reason == "no-provider"
    assert isinstance(fetch("good"), Credential)
    assert failed(fetch("static")).reason == "bad-options"


def test_two_plug_ins_with_one_name(tmp_path: Path, fetch: FETCH) -> None:
    """If two plug-ins have the same name, neither is used, and both packages are named."""
    install(tmp_path, SIMPLE)
    install(tmp_path, SIMPLE, "other-provider", "[uvtokend.providers]\nacme = other_provider:fetch\n")
    failure = failed(fetch())
    assert (failure.kind, failure.reason) == ("rejected", "ambiguous-provider")
    assert failure.message == "More than one plug-in provides 'acme': acme-provider, other-provider."
    assert failure.hint == f"uv pip uninstall --python {sys.executable} other-provider"


def test_a_plug_in_does_not_replace_a_built_in_provider(tmp_path: Path, fetch: FETCH) -> None:
    """A plug-in with the name of a built-in provider is never used."""
    install(tmp_path, SIMPLE, points="[uvtokend.providers]\nstatic = acme_provider:fetch\n")
    assert failed(fetch("static")).message == "username must be one line of text without a colon."


def test_options_reach_the_plug_in(tmp_path: Path, fetch: FETCH) -> None:
    """A plug-in gets its options frozen, as written, and refuses unknown ones itself. Built-in providers refuse them
    too."""
    install(tmp_path, SIMPLE)
    install(tmp_path, CODE, "strict-provider", "[uvtokend.providers]\nstrict = strict_provider:fetch\n")
    outcome = fetch(region="eu", retries=3, key=(("env", "KEY"),))
    assert isinstance(outcome, Credential)
    assert outcome.identity == "(('key', (('env', 'KEY'),)), ('region', 'eu'), ('retries', 3))"
    failure = failed(fetch("strict", server="https://acme.example", key=(("env", "PATH"),), color_name="red"))
    assert (failure.kind, failure.reason) == ("rejected", "bad-options")
    assert failed(fetch("command", color_name="red")).message == "command knows no option 'color_name'."

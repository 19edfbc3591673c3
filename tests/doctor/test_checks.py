"""Single checks on made-up facts, for what a test machine does not have, such as other clouds and other dates."""

from __future__ import annotations

import json
import os
import threading
import tomllib
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from socket import gethostname
from typing import Any

import pytest

from clouds.tls import TlsProxy
from support.loopback import forget
from support.waiting import PATIENCE
from uvtokend import __version__
from uvtokend.core.config.settings import parse
from uvtokend.core.config.toml_document import Source
from uvtokend.core.model import Entry, Secret, Settings
from uvtokend.core.uv import settings as uv_settings
from uvtokend.core.uv.order import TextFile
from uvtokend.core.uv.settings import UvFile
from uvtokend.disk.uv_projects import Project
from uvtokend.doctor import checks, configuration, daemon, network, permissions, programs, uv
from uvtokend.doctor.facts import Facts
from uvtokend.doctor.finding import Finding, error, note
from uvtokend.sandbox.web import Answer

NOW = datetime(2026, 11, 21, tzinfo=UTC)
STATIC = 'provider = "static"\nusername = "me"\npassword = { file = "/secret" }\n'
URL = 'name = "acme"\nurl = "https://pkgs.example.com/acme/simple/"\n'
ACME = f"[[index]]\n{URL}{STATIC}"
UV = f'[[index]]\n{URL}authenticate = "always"\ndefault = true\n'


def settings(text: str) -> Settings:
    """Parse a config.toml."""
    return parse([Source("config.toml", text.encode(), "/home/me")], "/home/me", {})


def facts(config: str = ACME, uv_toml: str = UV, netrc: bytes | None = None, **environ: str) -> Facts:
    """Return the facts of a machine without problems, except for what the arguments change."""
    uv_files = (UvFile("uv.toml", uv_toml.encode(), tomllib.loads(uv_toml)),)
    project = Project(Path("/nowhere"), Path("/nowhere"), {}, uv_files, ())
    text = b"machine pkgs.example.com login me password token\n" if netrc is None else netrc
    parsed = settings(config)
    return Facts(
        environ=environ,
        now=NOW,
        config="config.toml",
        settings=parsed,
        problems=(),
        project=project,
        uv=uv_settings.read(uv_files, environ),
        uv_path="/usr/bin/uv",
        uv_version=(0, 13, 8),
        netrc_path="/home/me/.netrc",
        named_netrc=None,
        netrc=text,
        unreadable=None,
        uv_netrc=TextFile("/home/me/.netrc", text),
        store=None,
        ours={index.target: Entry(index.host, "me", Secret("token")) for index in parsed.indexes},
        expired={},
        owner=None,
        keyring=False,
        status=None,
    )


def running(base: Facts, **more: Any) -> Facts:
    """Add a running daemon, which reports these values for each index."""
    documents = [
        {"name": index.name, "health": "fresh", "delivered": True, "last_error": None, **more} for index in base.indexes
    ]
    document = {"pid": os.getpid(), "version": __version__, "config": base.config, "netrc": base.netrc_path}
    return replace(base, status={**document, "delivery": {"ok": True, "problem": None}, "indexes": documents})


def named(findings: Iterator[Finding] | list[Finding]) -> list[tuple[str, str]]:
    """Return name and severity of each finding."""
    return [(each.name, each.severity) for each in findings]


def test_a_machine_without_problems() -> None:
    """On a machine without problems, the checks of uv and of the daemon find nothing."""
    assert [each for check in uv.CHECKS for each in check(facts())] == []
    assert [each for check in daemon.CHECKS[:-2] for each in check(running(facts()))] == []


def azure(*organizations: str) -> str:
    """Return a config.toml where these organizations share one token."""
    url = "https://pkgs.dev.azure.com/{}/_packaging/feed/pypi/simple/"
    table = '[[index]]\nname = "{}"\nurl = "{}"\nsink = "uv-store"\nusername = "me"\npat = {{ file = "/pat" }}\n'
    return "".join(table.format(name, url.format(name)) for name in organizations)


def test_one_azure_token_for_several_organizations() -> None:
    """One token for several organizations is a note until Azure DevOps stops accepting it, and then an error."""
    several = facts(azure("one", "two"))
    assert named(configuration.global_pats(several)) == [("global-pat", "note")]
    later = replace(several, now=datetime(2026, 12, 1, tzinfo=UTC))
    (finding,) = configuration.global_pats(later)
    assert finding.severity == "error"
    assert "one, two" in finding.message
    assert named(configuration.global_pats(facts(azure("one")))) == []


def test_a_daemon_of_another_configuration_netrc_or_version() -> None:
    """A daemon with another configuration, another netrc or an older version gets its own finding each."""
    base = running(facts())
    assert base.status is not None
    other = replace(base, status={**base.status, "config": "other.toml"})
    assert named(daemon.two_daemons(other)) == [("other-configuration", "error")]
    assert named(daemon.two_daemons(replace(base, named_netrc="/elsewhere"))) == [("other-netrc", "error")]
    old = replace(base, status={**base.status, "version": "0.1"})
    assert [each.fix for each in daemon.version(old)] == ["uvtokend restart"]


def test_an_unreachable_daemon_is_an_error_only_without_a_token() -> None:
    """An unreachable daemon is an error only if there is no token;
    for another container's daemon there is no fix here.
    """
    elsewhere = replace(facts(), owner="pid 5 on another-container")
    assert [(each.severity, each.fix) for each in daemon.unreachable(elsewhere)] == [("note", None)]
    here = replace(facts(), owner=f"pid 5 on {gethostname()}", ours={})
    assert [(each.severity, each.fix) for each in daemon.unreachable(here)] == [("error", "uvtokend restart")]


def test_an_edited_configuration_is_an_error_if_an_index_is_new() -> None:
    """An edited configuration is a note, but an error if the daemon does not know one of its indexes yet."""
    stale = {"config_stale": "config.toml changed 3 min ago."}
    served = running(facts())
    assert served.status is not None
    assert named(configuration.stale(replace(served, status={**served.status, **stale}))) == [
        ("configuration-stale", "note")
    ]
    unknown = replace(served, status={**served.status, **stale, "indexes": []})
    assert named(configuration.stale(unknown)) == [("configuration-stale", "error")]


@pytest.mark.parametrize(("health", "severity"), [("fresh", "note"), ("expired", "error"), ("none", "error")])
def test_a_failed_refresh_is_an_error_without_a_valid_token(health: str, severity: str) -> None:
    """A failed refresh is a note while the token is valid, and an error afterwards,
    with the daemon's message and fix.
    """
    trouble = {"message": "The config profile (dev) could not be found.", "hint": "aws configure --profile dev"}
    (finding,) = daemon.troubled(running(facts(), health=health, last_error=trouble))
    assert (finding.severity, finding.fix) == (severity, "aws configure --profile dev")
    assert finding.message == "acme: The config profile (dev) could not be found."


def test_an_index_that_the_daemon_does_not_serve() -> None:
    """An index unknown to the daemon, one without a token, and a failed delivery each get the right fix."""
    base = running(facts())
    assert base.status is not None
    (unknown,) = daemon.troubled(replace(base, status={**base.status, "indexes": []}))
    assert unknown.fix == "uvtokend reload"
    (none,) = daemon.troubled(running(facts(), health="none"))
    assert none.fix == "uvtokend refresh acme"
    stale = replace(base, status={**base.status, "config_stale": "config.toml changed 3 min ago."})
    assert [each.fix for each in configuration.stale(stale)] == ["uvtokend reload"]
    problem = {"ok": False, "problem": "No space left.", "hint": None}
    assert named(daemon.delivery(replace(base, status={**base.status, "delivery": problem}))) == [("delivery", "error")]


def test_notices_of_the_daemon() -> None:
    """A notice that the daemon repeats for several indexes is shown once."""
    notice = {"reason": "temporary-environment", "message": "m", "hint": "unset X && uvtokend restart"}
    two = ACME + ACME.replace("acme", "two")
    findings = list(daemon.notices(running(facts(two), notices=[notice])))
    assert [(each.name, each.fix) for each in findings] == [("temporary-environment", "unset X && uvtokend restart")]


def test_the_shells_proxy_and_the_daemons(monkeypatch: pytest.MonkeyPatch) -> None:
    """Variables that differ are shown with both values, but never a proxy's password."""
    theirs = {"HTTPS_PROXY": "http://***@proxy.example:8080"}
    monkeypatch.setattr(daemon, "environment_of", lambda _: theirs)
    (finding,) = daemon.environment(running(facts(SSL_CERT_FILE="/corp.pem")))
    assert "HTTPS_PROXY: here not set, there set, with a password" in finding.message
    assert "SSL_CERT_FILE: here '/corp.pem', there not set" in finding.message
    assert list(daemon.environment(running(facts(HTTPS_PROXY="http://me:secret@proxy.example:8080")))) == []


def test_the_environment_of_the_daemon() -> None:
    """The daemon's environment is read from its status document; a daemon too old to report it has none."""
    assert daemon.environment_of({"environment": {"PATH": "/bin"}}) == {"PATH": "/bin"}
    assert daemon.environment_of({}) is None


GCLOUD = '[[index]]\nname = "g"\nurl = "https://europe-python.pkg.dev/p/r/simple/"\nsource = "gcloud"\n'


def test_a_program_that_is_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A provider's program missing from the shell's or the daemon's PATH is an error;
    one that only a fix needs is a note.
    """
    monkeypatch.setenv("PATH", str(tmp_path))
    base = running(facts(GCLOUD))
    (here,) = programs.missing(base)
    assert (here.name, here.severity, here.culprit) == ("program-missing", "error", "gcloud")
    (hinted,) = programs.missing(running(facts(), last_error={"message": "m", "hint": "aws sso login --profile dev"}))
    assert (hinted.severity, hinted.culprit) == ("note", "aws")
    (tmp_path / "gcloud").write_text("#!/bin/sh\n")
    (tmp_path / "gcloud").chmod(0o700)
    assert list(programs.missing(replace(base, status=None))) == []
    monkeypatch.setattr(programs, "environment_of", lambda _: {"PATH": "/nowhere"})
    (there,) = programs.missing(base)
    assert there.fix == daemon.restart()


def test_temporary_credentials_of_this_shell() -> None:
    """Temporary credentials in this shell are reported, because a daemon started from it would inherit them."""
    config = '[[index]]\nurl = "https://acme-123456789012.d.codeartifact.eu-central-1.amazonaws.com/pypi/r/simple/"\n'
    shell = facts(config, AWS_ACCESS_KEY_ID="ASIAEXAMPLE", AWS_SESSION_TOKEN="example")
    (finding,) = programs.temporary(shell)
    assert (finding.fix or "").startswith("unset AWS_ACCESS_KEY_ID")
    assert list(programs.temporary(running(shell))) == []


def test_a_uv_that_is_too_old() -> None:
    """uv reads its own store since 0.8.15, so an older one is an error; a missing uv is a note."""
    store = facts(azure("one"))
    assert named(uv.uv_version(replace(store, uv_version=(0, 8, 14)))) == [("uv-too-old", "error")]
    assert named(uv.uv_version(replace(store, uv_path=None))) == [("uv-missing", "note")]
    assert named(uv.authenticate_missing(replace(facts(uv_toml=UV.replace("always", "auto")), uv_version=(0, 5)))) == []


def test_a_token_that_is_only_in_memory() -> None:
    """With the memory sink, uv gets the token only from our keyring command,
    which must be installed and switched on.
    """
    memory = facts(ACME + 'sink = "memory"\n')
    assert named(uv.memory_sink(memory)) == [("keyring-missing", "error")]
    shim = replace(memory, keyring=True)
    assert named(uv.memory_sink(shim)) == [("keyring-provider", "error")]
    auto = facts(ACME + 'sink = "memory"\n', UV.replace("always", "auto"), UV_KEYRING_PROVIDER="subprocess")
    assert named(uv.memory_sink(replace(auto, keyring=True))) == [("authenticate-missing", "error")]
    always = facts(ACME + 'sink = "memory"\n', netrc=b"", UV_KEYRING_PROVIDER="subprocess")
    ready = running(replace(always, keyring=True, ours={}))
    assert list(uv.memory_sink(ready)) == list(uv.wrong_credential(ready)) == list(uv.keyring_provider(ready)) == []
    assert ready.has_token(ready.indexes[0])


def test_packages_that_may_come_from_the_public_index() -> None:
    """A private index that uv asks before the public one is a note, unless it is explicit,
    default or pinned; an unsafe index-strategy is an error.
    """
    plain = UV.replace("default = true\n", "")
    assert named(uv.public_fallback(facts(uv_toml=plain))) == [("public-fallback", "note")]
    for more in ("explicit = true\n", "default = true\n"):
        assert named(uv.public_fallback(facts(uv_toml=plain + more))) == []
    assert named(uv.public_fallback(facts(uv_toml=f'{plain}[sources]\nx = {{ index = "acme" }}\n'))) == []
    assert named(uv.public_fallback(facts(UV_INDEX_STRATEGY="unsafe-first-match"))) == [("index-strategy", "error")]
    assert named(uv.public_fallback(facts(uv_toml=f"no-index = true\n{plain}"))) == []


def test_credentials_of_uv_publish() -> None:
    """A UV_PUBLISH_ variable that overrides the netrc is reported,
    and so is an upload URL of a host without a token.
    """
    shell = facts(UV_PUBLISH_TOKEN="x", UV_PUBLISH_URL="https://upload.example/")
    assert [(each.name, each.fix) for each in uv.publishing(shell)] == [
        ("publish-variables", "unset UV_PUBLISH_TOKEN"),
        ("publish-url", None),
    ]


@pytest.mark.parametrize(
    ("table", "words"),
    [
        (
            'url = "https://acme-123456789012.d.codeartifact.eu-central-1.amazonaws.com/pypi/prod/simple/"\n',
            ("codeartifact:ReadFromRepository", "repository prod", "domain acme", "123456789012", "eu-central-1"),
        ),
        (
            'url = "https://europe-python.pkg.dev/my-project/my-repo/simple/"\n',
            ("roles/artifactregistry.reader", "repository my-repo", "project my-project"),
        ),
        (
            'url = "https://pkgs.dev.azure.com/org/_packaging/feed/pypi/simple/"\n',
            ("Feed and Upstream Reader (Collaborator)", "feed feed", "upstream"),
        ),
        (
            'url = "https://acme.jfrog.io/artifactory/api/pypi/py-all/simple/"\naccess-token = { env = "T" }\n',
            ("permission Read", "repository py-all"),
        ),
        (
            f'url = "https://nexus.example/repository/py/simple/"\n{STATIC.replace("static", "nexus")}',
            ("nx-repository-view-pypi-py-browse",),
        ),
        (f'url = "https://pkgs.example.com/simple/"\n{STATIC}', ("permission to read it",)),
    ],
)
def test_which_permission_is_missing(table: str, words: tuple[str, ...]) -> None:
    """For each provider, the sentence for the administrator names the permission, the resource and the identity."""
    (index,) = settings(f"[[index]]\n{table}").indexes
    sentence = permissions.request(index, "arn:me")
    assert sentence.startswith('ask the administrator: "Please give arn:me ')
    for word in (*words, index.url):
        assert word in sentence
    assert {permissions.meaning(index, status) for status in (401, 403, 404)} >= {permissions.meaning(index, 403)}


def test_a_check_that_fails_or_hangs_does_not_affect_others() -> None:
    """A check that fails or hangs becomes a note; errors come first, and equal findings are merged."""
    forever = threading.Event()

    def hangs(_: Facts) -> list[Finding]:
        forever.wait()
        return []

    def breaks(_: Facts) -> list[Finding]:
        raise RuntimeError("s3cret")

    def finds(_: Facts) -> list[Finding]:
        return [note("n", "n"), error("e", "e", "c", "f"), error("e", "again", "c", "f")]

    findings = checks.run(facts(), [hangs, breaks, finds], 0.2)
    forever.set()
    assert [each.name for each in findings] == ["e", "check-slow", "check-failed", "n"]
    assert "s3cret" not in json.dumps([each.json() for each in findings])


def test_a_certificate_that_is_not_trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a CA bundle the fix asks for one; with one in config.toml only,
    the fix is to export it for uv as well.
    """
    forget(monkeypatch, ["PROXY"])
    monkeypatch.setattr(network, "PATIENCE", PATIENCE)  # on a busy machine, two seconds are too short for TLS
    with TlsProxy({"pkgs.example.com": lambda _: Answer(200)}) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        base = facts()
        (index,) = base.indexes
        assert base.settings is not None
        (without_bundle,) = network.index_answers(base, index)
        assert (without_bundle.name, "export SSL_CERT_FILE" in (without_bundle.fix or "")) == ("untrusted", True)
        with_bundle = replace(base, settings=replace(base.settings, ca_bundle=proxy.ca_file))
        (finding,) = network.index_answers(with_bundle, index)
        assert finding.fix == f"export SSL_CERT_FILE={proxy.ca_file}"
        wrong = replace(base, settings=replace(base.settings, ca_bundle=__file__))
        assert named(network.index_answers(wrong, index)) == [("untrusted", "error")]
        monkeypatch.setenv("SSL_CERT_FILE", proxy.ca_file)
        assert list(network.index_answers(base, index)) == []


def test_a_proxy_that_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    """If the proxy refuses, doctor names the variable without its password; NO_PROXY excludes a host from the proxy."""
    with TlsProxy({}) as proxy:
        value = proxy.url.replace("//", "//me:s3cret@")
        monkeypatch.setenv("https_proxy", value)
        base = facts(https_proxy=value)
        (finding,) = network.index_answers(base, base.indexes[0])
        assert (finding.name, finding.fix) == ("proxy", "unset https_proxy")
        assert "s3cret" not in f"{finding.message} {finding.culprit}"
        monkeypatch.setenv("no_proxy", "pkgs.example.com")
        assert network.proxy_variable(base.environ, base.indexes[0]) is None


def test_certificate_variables_that_name_a_missing_file(tmp_path: Path) -> None:
    """A certificate variable that names a missing file is a note;
    one that is empty or names an existing file is fine.
    """
    there = str(tmp_path)
    (tmp_path / "corp.pem").touch()
    shell = facts(SSL_CERT_FILE="/nowhere/a.pem", SSL_CERT_DIR=there, SSL_CLIENT_CERT="")
    assert [(each.severity, each.fix) for each in configuration.trust_variables(shell)] == [
        ("note", "unset SSL_CERT_FILE")
    ]


def test_an_index_of_an_unknown_provider() -> None:
    """For an index that `init` cannot recognize, the fix is a command that names the provider;
    otherwise it is `init`.
    """
    (finding,) = configuration.empty(facts("", UV))
    assert (finding.fix or "").startswith(
        "uvtokend add https://pkgs.example.com/acme/simple/ --name acme --set provider="
    )
    known = UV.replace("pkgs.example.com/acme", "europe-python.pkg.dev/p/r")
    assert [each.fix for each in configuration.empty(facts("", UV + known))] == ["uvtokend init"]
    assert [each.fix for each in configuration.empty(facts("", "offline = true"))] == ["uvtokend init"]


def test_a_directory_without_certificates(tmp_path: Path) -> None:
    """An SSL_CERT_DIR without certificates is reported with its path and the command that unsets it."""
    (finding,) = configuration.trust_variables(facts(SSL_CERT_DIR=str(tmp_path)))
    assert (finding.culprit, finding.fix) == (f"SSL_CERT_DIR={tmp_path}", "unset SSL_CERT_DIR")
    assert f"{tmp_path}, which contains no certificate" in finding.message
    (tmp_path / "corp.pem").write_text("-----BEGIN CERTIFICATE-----\n")
    assert list(configuration.trust_variables(facts(SSL_CERT_DIR=str(tmp_path)))) == []

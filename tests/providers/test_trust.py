"""TLS interception by a company: the settings for certificates reach every SDK and every helper program.

A loopback proxy intercepts TLS with its own certificate authority. Another one demands a client certificate and may
itself be reached over TLS. The variables are uv's, so that what works for uv works for uvtokend.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization

from clouds.azure import AzureCloud
from clouds.gitlab import GitLab
from clouds.google import GoogleCloud
from clouds.jfrog import JFrog
from clouds.tls import TlsProxy
from support import loopback
from support.loopback import forget
from support.netrc_readers import uv
from uvtokend.core import wire
from uvtokend.core.model import Credential, Failure, Request, Settings
from uvtokend.core.worker_environment import CA_VARIABLES, worker_environment
from uvtokend.providers import worker
from uvtokend.providers.kit import bundle
from uvtokend.sandbox.codeartifact import CodeArtifact
from uvtokend.sandbox.web import Answer

#: Variables of this machine that would affect the libraries.
FOREIGN = ("PROXY", "AWS_", "AZURE_", "GOOGLE_", "CLOUDSDK_", "CA_BUNDLE", "CA_CERTS", "SSL_C", "IDENTITY_", "MSI_")
Arrange = Callable[[Path, TlsProxy, pytest.MonkeyPatch], Request]


def aws(home: Path, proxy: TlsProxy, patch: pytest.MonkeyPatch) -> Request:
    """Return a request with keys in the environment."""
    cloud = CodeArtifact()
    hosts = ("codeartifact.eu-central-1", "sts.eu-central-1")
    proxy.sites = {f"{host}.amazonaws.com": cloud.server.site for host in hosts}
    cloud.close()
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        patch.setenv(name, "example")
    where = {"domain": "acme", "domain_owner": "123456789012", "region": "eu-central-1"}
    return loopback.asked("aws-codeartifact", **where)


def google(home: Path, proxy: TlsProxy, patch: pytest.MonkeyPatch) -> Request:
    """Return a request of a service account."""
    cloud = GoogleCloud()
    proxy.sites = cloud.sites
    (home / "account.json").write_text(json.dumps(cloud.service_account()))
    return loopback.asked("google-artifact-registry", credentials_file=str(home / "account.json"))


def azure(home: Path, proxy: TlsProxy, patch: pytest.MonkeyPatch) -> Request:
    """Return a request of a service principal."""
    cloud = AzureCloud()
    proxy.sites = cloud.sites
    client, secret = cloud.application()
    patch.setenv("AZURE_CLIENT_ID", client)
    patch.setenv("AZURE_TENANT_ID", cloud.tenant)
    patch.setenv("AZURE_CLIENT_SECRET", secret)
    return loopback.asked("azure-artifacts", "https://pkgs.dev.azure.com/acme", credential="environment")


def jfrog(home: Path, proxy: TlsProxy, patch: pytest.MonkeyPatch) -> Request:
    """Return a request with a token pair."""
    platform = JFrog()
    proxy.sites = {"acme.jfrog.io": platform.server.site}
    platform.close()
    access, refresh = platform.pair("person")
    files = {name: home / name for name in ("access", "refresh")}
    files["access"].write_text(access)
    files["refresh"].write_text(refresh)
    references = {f"{name}_token": (("file", str(file)),) for name, file in files.items()}
    return loopback.asked("jfrog-artifactory", "https://acme.jfrog.io", **references)


def gitlab(home: Path, proxy: TlsProxy, patch: pytest.MonkeyPatch) -> Request:
    """Return a request with a personal token, whose expiry GitLab is asked for."""
    cloud = GitLab()
    proxy.sites = {"gitlab.com": cloud.server.site}
    cloud.close()
    (home / "token").write_text(cloud.personal())
    return loopback.asked("gitlab", "https://gitlab.com", token=(("file", str(home / "token")),))


PROVIDERS: list[Arrange] = [aws, google, azure, jfrog, gitlab]


@pytest.fixture(params=PROVIDERS, ids=lambda arrange: arrange.__name__)
def arrange(request: pytest.FixtureRequest) -> Arrange:
    prepare: Arrange = request.param
    return prepare


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Clear the environment of all such variables."""
    forget(monkeypatch, FOREIGN)
    for name, value in {"HOME": tmp_path, "XDG_STATE_HOME": tmp_path / "state", "NETRC": os.devnull}.items():
        monkeypatch.setenv(name, str(value))
    return tmp_path


def fetched(request: Request, patch: pytest.MonkeyPatch, ca_bundle: str | None = None) -> Credential | Failure:
    """Fetch in the environment that the daemon would give the worker."""
    environment = worker_environment(os.environ, request, Settings("", ca_bundle=ca_bundle))
    for name in os.environ.keys() - environment.keys():
        patch.delenv(name)
    for name, text in environment.items():
        patch.setenv(name, text)
    return worker.fetch(request)


def directory(home: Path, certificate: str) -> str:
    """Create two directories, of which one has a certificate beside invalid files, and return their list."""
    for name in ("one", "two"):
        (home / name).mkdir()
    (home / "two" / "company.cer").write_text(Path(certificate).read_text())
    (home / "two" / "README").write_text("-----BEGIN CERTIFICATE-----\nbroken\n-----END CERTIFICATE-----\n")
    (home / "two" / "gone.pem").symlink_to("nowhere")
    os.mkfifo(home / "two" / "pipe.pem")
    return f"{home / 'one'}:{home / 'two'}:{home / 'missing'}"


@pytest.mark.parametrize("how", ["ca-bundle", "SSL_CERT_FILE", "SSL_CERT_DIR"])
def test_a_proxy_that_intercepts_tls(arrange: Arrange, how: str, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each way to name the company's authority reaches each provider."""
    with TlsProxy({}) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        request = arrange(home, proxy, monkeypatch)
        if how != "ca-bundle":
            monkeypatch.setenv(how, proxy.ca_file if how == "SSL_CERT_FILE" else directory(home, proxy.ca_file))
        outcome = fetched(request, monkeypatch, proxy.ca_file if how == "ca-bundle" else None)
        assert isinstance(outcome, Credential)
        assert proxy.calls


@pytest.mark.parametrize("over_tls", [False, True], ids=["http", "https"])
def test_a_proxy_that_demands_a_client_certificate(
    arrange: Arrange, over_tls: bool, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SSL_CLIENT_CERT is presented to servers behind a proxy and to the proxy itself."""
    with TlsProxy({}, demanding=True, over_tls=over_tls) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        monkeypatch.setenv("SSL_CLIENT_CERT", proxy.client_file)
        outcome = fetched(arrange(home, proxy, monkeypatch), monkeypatch, proxy.ca_file)
        assert isinstance(outcome, Credential)
        assert proxy.calls


def explained(outcome: Credential | Failure) -> tuple[str, str, str]:
    """Return kind, reason and message of a failure whose fix names the setting."""
    assert isinstance(outcome, Failure)
    assert outcome.hint is not None
    assert "SSL_CLIENT_CERT" in outcome.hint or 'ca-bundle = "system"' in outcome.hint
    return outcome.kind, outcome.reason, outcome.message


@pytest.mark.parametrize("theirs", [False, True], ids=["none", "another authority's"])
def test_a_client_certificate_that_is_refused(
    arrange: Arrange, theirs: bool, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that requires a client certificate, or refuses ours, is distinguished from one that we do not trust."""
    with TlsProxy({}, demanding=True) as proxy, TlsProxy({}) as other:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        if theirs:
            monkeypatch.setenv("SSL_CLIENT_CERT", other.client_file)
        kind, reason, message = explained(fetched(arrange(home, proxy, monkeypatch), monkeypatch, proxy.ca_file))
    assert (kind, reason) == ("rejected", "client-certificate")
    assert ("does not accept" if theirs else "asks for a client certificate") in message


@pytest.mark.parametrize(
    ("text", "words"),
    [(None, "does not exist"), ("no certificate", "contains no certificate")],
    ids=["missing", "no certificate"],
)
def test_a_ca_bundle_that_cannot_be_used(
    arrange: Arrange, text: str | None, words: str, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The failure names the unusable file instead of the server's certificate, and the settings that may name it."""
    file = home / "corp.pem"
    if text is not None:
        file.write_text(text)
    with TlsProxy({}) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        monkeypatch.setenv("SSL_CERT_FILE", str(file))
        kind, reason, message = explained(fetched(arrange(home, proxy, monkeypatch), monkeypatch))
    assert (kind, reason) == ("rejected", "ca-bundle")
    assert f"The CA bundle {file} {words}" in message


def certificate_alone(home: Path, proxy: TlsProxy) -> str:
    """Write a client's certificate without its key."""
    text = Path(proxy.client_file).read_text()
    (home / "alone.pem").write_text(text[text.index("-----BEGIN CERTIFICATE") :])
    return str(home / "alone.pem")


def encrypted(home: Path, proxy: TlsProxy) -> str:
    """Write a client certificate whose key has a passphrase, which OpenSSL would ask for at the terminal."""
    text = Path(proxy.client_file).read_bytes()
    key = serialization.load_pem_private_key(text, None)
    form = (serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL)
    locked = key.private_bytes(*form, serialization.BestAvailableEncryption(b"passphrase"))
    (home / "locked.pem").write_bytes(locked + text[text.index(b"-----BEGIN CERTIFICATE") :])
    return str(home / "locked.pem")


@pytest.mark.parametrize(
    ("prepare", "words"),
    [
        (lambda home, _: str(home / "gone.pem"), "cannot be read: No such file or directory"),
        (certificate_alone, "does not contain a certificate and its unencrypted private key"),
        (encrypted, "does not contain a certificate and its unencrypted private key"),
    ],
    ids=["missing", "without a key", "encrypted"],
)
def test_a_client_certificate_that_cannot_be_used(
    arrange: Arrange,
    prepare: Callable[[Path, TlsProxy], str],
    words: str,
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The unusable file is reported before any request, and no passphrase is asked for."""
    with TlsProxy({}) as proxy:
        monkeypatch.setenv("SSL_CLIENT_CERT", prepare(home, proxy))
        kind, reason, message = explained(fetched(arrange(home, proxy, monkeypatch), monkeypatch))
        assert (kind, reason, proxy.calls) == ("rejected", "client-certificate", [])
    assert words in message


HELPER = """
import json, os, urllib.request
with urllib.request.urlopen("https://issuer.example/token") as answer:
    token = answer.read().decode()
named = {name: os.environ[name] for name in json.loads(os.environ["NAMES"])}
open(os.environ["NAMED"], "w").write(json.dumps(named))
print(json.dumps({"username": "me", "password": token}))
"""


def test_helper_programs(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A user's program gets every variable. Here OpenSSL's own makes Python trust the proxy, with a real worker in
    between."""
    request = loopback.asked("command", command=(sys.executable, "-c", HELPER))
    with TlsProxy({"issuer.example": lambda _: Answer(200, b"s3cr3t")}) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        monkeypatch.setenv("SSL_CERT_DIR", directory(home, proxy.ca_file))
        monkeypatch.setenv("NAMES", json.dumps(CA_VARIABLES))
        monkeypatch.setenv("NAMED", str(home / "named"))
        environment = {
            **worker_environment(os.environ, request, Settings("")),
            "UVTOKEND_REQUEST": wire.encode_request(request),
            "UVTOKEND_FETCH_TIMEOUT": "60",
        }
        command = [sys.executable, "-P", "-m", "uvtokend.providers.worker"]
        done = subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, check=True)
        outcome = wire.decode_answer(done.stdout.rstrip())
        assert isinstance(outcome, Credential), outcome
        named = json.loads((home / "named").read_text())
        assert set(named) == set(CA_VARIABLES)
        (path,) = set(named.values())
        assert Path(path).read_text().strip() == Path(proxy.ca_file).read_text().strip()
    assert outcome.password.reveal() == "s3cr3t"


def test_the_bundle_of_directories(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bundle contains the certificates of the file and the directories, follows their changes, and is written
    only then. A variable that is already set keeps its value."""
    with TlsProxy({}) as one, TlsProxy({}) as two:
        first, second = (Path(proxy.ca_file).read_text() for proxy in (one, two))
        environ = {"SSL_CERT_FILE": two.ca_file, "SSL_CERT_DIR": directory(home, one.ca_file), "AWS_CA_BUNDLE": "/own"}
        changed = dict(environ)
        bundle.gather(changed)
    path = Path(changed["SSL_CERT_FILE"])
    assert (changed["AWS_CA_BUNDLE"], changed["REQUESTS_CA_BUNDLE"]) == ("/own", str(path))
    assert path.read_text() == second + first
    before = path.stat()
    (home / "two" / "company.cer").unlink()
    (home / "two" / "other.pem").write_text(first)
    (again := dict(environ))["SSL_CERT_FILE"] = two.ca_file
    Path(two.ca_file).parent.mkdir()
    Path(two.ca_file).write_text(second)
    bundle.gather(again)
    assert path.stat().st_ino == before.st_ino
    (home / "two" / "other.pem").unlink()
    bundle.gather(again := dict(environ))
    assert Path(again["SSL_CERT_FILE"]).read_text() == second
    shutil.rmtree(Path(two.ca_file).parent)


def test_a_certificate_that_is_cut_off(home: Path) -> None:
    """A truncated certificate does not spoil the following ones, and many of them do not delay the fetch."""
    (home / "certificates").mkdir()
    with TlsProxy({}) as proxy:
        whole = Path(proxy.ca_file).read_text()
    (home / "certificates" / "all.pem").write_text("-----BEGIN CERTIFICATE-----\nMIIB\n" * 20 + whole)
    bundle.gather(environ := {"SSL_CERT_DIR": str(home / "certificates")})
    assert Path(environ["SSL_CERT_FILE"]).read_text() == whole


def test_directories_without_a_certificate(home: Path) -> None:
    """Without certificates no file is written and no variable is set."""
    (home / "empty").mkdir()
    environ = {"SSL_CERT_DIR": f"{home / 'empty'}:"}
    bundle.gather(changed := dict(environ))
    assert changed == environ
    assert not (home / "state").exists()


def test_a_bundle_that_cannot_be_written(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The failure names the state directory, with a command that shows it."""
    (home / "state").write_text("")
    with TlsProxy({}) as proxy:
        monkeypatch.setenv("SSL_CERT_DIR", directory(home, proxy.ca_file))
        failure = worker.fetch(loopback.asked("static", password=(("env", "HOME"),)))
    assert isinstance(failure, Failure)
    assert (failure.kind, failure.reason) == ("rejected", "state-directory")
    assert str(home / "state") in failure.message + str(failure.hint)


def test_uv_reads_the_same_variables(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """uv uses the same variables: it trusts a proxy that demands a certificate, and presents ours."""
    (home / "needs.in").write_text("nothing-like-it\n")
    with TlsProxy({"pkgs.example.com": lambda _: Answer(404)}, demanding=True) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        monkeypatch.setenv("SSL_CERT_DIR", directory(home, proxy.ca_file))
        command = uv("https://pkgs.example.com/simple/", home)
        for name, requests in ((None, 0), ("SSL_CLIENT_CERT", 1)):
            if name is not None:
                monkeypatch.setenv(name, proxy.client_file)
            environment = {**os.environ, "UV_CACHE_DIR": str(home / "cache"), "UV_HTTP_RETRIES": "0"}
            subprocess.run(command, env=environment, cwd=home, capture_output=True, check=False, timeout=60)
            assert len(proxy.calls) == requests

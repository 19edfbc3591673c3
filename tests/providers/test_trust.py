"""TLS that a company takes apart: whatever names certificates reaches every SDK and every helper program.

A loopback proxy intercepts TLS with an authority of its own; another one demands a client certificate, and may itself
be reached over TLS. The variables are those of uv, so that what works for uv works for uvtokend.
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

#: Variables of this machine that would lead a library elsewhere.
FOREIGN = ("PROXY", "AWS_", "AZURE_", "GOOGLE_", "CLOUDSDK_", "CA_BUNDLE", "CA_CERTS", "SSL_C", "IDENTITY_", "MSI_")
Arrange = Callable[[Path, TlsProxy, pytest.MonkeyPatch], Request]


def aws(home: Path, proxy: TlsProxy, patch: pytest.MonkeyPatch) -> Request:
    """Return the request of keys in the environment."""
    cloud = CodeArtifact()
    hosts = ("codeartifact.eu-central-1", "sts.eu-central-1")
    proxy.sites = {f"{host}.amazonaws.com": cloud.server.site for host in hosts}
    cloud.close()
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        patch.setenv(name, "example")
    where = {"domain": "acme", "domain_owner": "123456789012", "region": "eu-central-1"}
    return loopback.asked("aws-codeartifact", **where)


def google(home: Path, proxy: TlsProxy, patch: pytest.MonkeyPatch) -> Request:
    """Return the request of a service account."""
    cloud = GoogleCloud()
    proxy.sites = cloud.sites
    (home / "account.json").write_text(json.dumps(cloud.service_account()))
    return loopback.asked("google-artifact-registry", credentials_file=str(home / "account.json"))


def azure(home: Path, proxy: TlsProxy, patch: pytest.MonkeyPatch) -> Request:
    """Return the request of a service principal."""
    cloud = AzureCloud()
    proxy.sites = cloud.sites
    client, secret = cloud.application()
    patch.setenv("AZURE_CLIENT_ID", client)
    patch.setenv("AZURE_TENANT_ID", cloud.tenant)
    patch.setenv("AZURE_CLIENT_SECRET", secret)
    return loopback.asked("azure-artifacts", "https://pkgs.dev.azure.com/acme", credential="environment")


def jfrog(home: Path, proxy: TlsProxy, patch: pytest.MonkeyPatch) -> Request:
    """Return the request of a token pair."""
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
    """Return the request of a personal token, whose end GitLab is asked for."""
    cloud = GitLab()
    proxy.sites = {"gitlab.com": cloud.server.site}
    cloud.close()
    (home / "token").write_text(cloud.personal())
    return loopback.asked("gitlab", "https://gitlab.com", token=(("file", str(home / "token")),))


PROVIDERS: list[Arrange] = [aws, google, azure, jfrog, gitlab]


@pytest.fixture(params=PROVIDERS, ids=lambda arrange: arrange.__name__)
def arrange(request: pytest.FixtureRequest) -> Arrange:
    found: Arrange = request.param
    return found


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An environment that knows nothing."""
    forget(monkeypatch, FOREIGN)
    for name, value in {"HOME": tmp_path, "XDG_STATE_HOME": tmp_path / "state", "NETRC": os.devnull}.items():
        monkeypatch.setenv(name, str(value))
    return tmp_path


def fetched(request: Request, patch: pytest.MonkeyPatch, ca_bundle: str | None = None) -> Credential | Failure:
    """Fetch with the environment that the daemon would give to the worker."""
    environment = worker_environment(os.environ, request, Settings("", ca_bundle=ca_bundle))
    for name in os.environ.keys() - environment.keys():
        patch.delenv(name)
    for name, text in environment.items():
        patch.setenv(name, text)
    return worker.fetch(request)


def directory(home: Path, certificate: str) -> str:
    """Make two directories, of which one holds a certificate besides what is none, and return their list."""
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
        found = fetched(request, monkeypatch, proxy.ca_file if how == "ca-bundle" else None)
        assert isinstance(found, Credential)
        assert proxy.calls


@pytest.mark.parametrize("over_tls", [False, True], ids=["http", "https"])
def test_a_proxy_that_demands_a_client_certificate(
    arrange: Arrange, over_tls: bool, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SSL_CLIENT_CERT is presented to the servers behind a proxy, and to the proxy itself."""
    with TlsProxy({}, demanding=True, over_tls=over_tls) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        monkeypatch.setenv("SSL_CLIENT_CERT", proxy.client_file)
        found = fetched(arrange(home, proxy, monkeypatch), monkeypatch, proxy.ca_file)
        assert isinstance(found, Credential)
        assert proxy.calls


def explained(found: Credential | Failure) -> tuple[str, str, str]:
    """Return kind, reason and message of a failure whose fix names what to set."""
    assert isinstance(found, Failure)
    assert found.hint is not None
    assert "SSL_CLIENT_CERT" in found.hint or 'ca-bundle = "system"' in found.hint
    return found.kind, found.reason, found.message


@pytest.mark.parametrize("theirs", [False, True], ids=["none", "another authority's"])
def test_a_client_certificate_that_is_refused(
    arrange: Arrange, theirs: bool, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that misses our certificate, or does not accept it, is not confused with one that we do not trust."""
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
    """The file is named instead of the server's certificate, with what may have named it."""
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
    """Write the certificate of a client without its key."""
    text = Path(proxy.client_file).read_text()
    (home / "alone.pem").write_text(text[text.index("-----BEGIN CERTIFICATE") :])
    return str(home / "alone.pem")


def encrypted(home: Path, proxy: TlsProxy) -> str:
    """Write a client certificate whose key needs a passphrase, which OpenSSL would ask the terminal for."""
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
    """The file is named before anything is asked, and nobody is prompted for a passphrase."""
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
    """A program of the user's gets every variable; here OpenSSL's own trusts the proxy, with a real worker between."""
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
        found = wire.decode_answer(done.stdout.rstrip())
        assert isinstance(found, Credential), found
        named = json.loads((home / "named").read_text())
        assert set(named) == set(CA_VARIABLES)
        (path,) = set(named.values())
        assert Path(path).read_text().strip() == Path(proxy.ca_file).read_text().strip()
    assert found.password.reveal() == "s3cr3t"


def test_the_bundle_of_directories(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It holds what the file and the directories hold, follows them, is written once; a variable may keep its own."""
    with TlsProxy({}) as one, TlsProxy({}) as two:
        first, second = (Path(proxy.ca_file).read_text() for proxy in (one, two))
        environ = {"SSL_CERT_FILE": two.ca_file, "SSL_CERT_DIR": directory(home, one.ca_file), "AWS_CA_BUNDLE": "/own"}
        made = dict(environ)
        bundle.gather(made)
    path = Path(made["SSL_CERT_FILE"])
    assert (made["AWS_CA_BUNDLE"], made["REQUESTS_CA_BUNDLE"]) == ("/own", str(path))
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
    """It spoils none that follows, and many of them do not hold up the fetch."""
    (home / "certificates").mkdir()
    with TlsProxy({}) as proxy:
        whole = Path(proxy.ca_file).read_text()
    (home / "certificates" / "all.pem").write_text("-----BEGIN CERTIFICATE-----\nMIIB\n" * 20 + whole)
    bundle.gather(environ := {"SSL_CERT_DIR": str(home / "certificates")})
    assert Path(environ["SSL_CERT_FILE"]).read_text() == whole


def test_directories_without_a_certificate(home: Path) -> None:
    """Nothing is written, and nothing is named."""
    (home / "empty").mkdir()
    environ = {"SSL_CERT_DIR": f"{home / 'empty'}:"}
    bundle.gather(made := dict(environ))
    assert made == environ
    assert not (home / "state").exists()


def test_a_bundle_that_cannot_be_written(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The state directory is named with the command that shows it."""
    (home / "state").write_text("")
    with TlsProxy({}) as proxy:
        monkeypatch.setenv("SSL_CERT_DIR", directory(home, proxy.ca_file))
        found = worker.fetch(loopback.asked("static", password=(("env", "HOME"),)))
    assert isinstance(found, Failure)
    assert (found.kind, found.reason) == ("rejected", "state-directory")
    assert str(home / "state") in found.message + str(found.hint)


def test_uv_reads_the_same_variables(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """uv trusts and presents what these variables name: a proxy that demands a certificate hears of its request."""
    (home / "needs.in").write_text("nothing-like-it\n")
    with TlsProxy({"pkgs.example.com": lambda _: Answer(404)}, demanding=True) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        monkeypatch.setenv("SSL_CERT_DIR", directory(home, proxy.ca_file))
        command = uv("https://pkgs.example.com/simple/", home)
        for name, heard in ((None, 0), ("SSL_CLIENT_CERT", 1)):
            if name is not None:
                monkeypatch.setenv(name, proxy.client_file)
            environment = {**os.environ, "UV_CACHE_DIR": str(home / "cache"), "UV_HTTP_RETRIES": "0"}
            subprocess.run(command, env=environment, cwd=home, capture_output=True, check=False, timeout=60)
            assert len(proxy.calls) == heard

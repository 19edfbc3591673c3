"""The loopback index: the real uv installs from it and publishes to it, and requests without a token are refused."""

from __future__ import annotations

import base64
import hashlib
import http.client
import subprocess
from collections.abc import Iterator, Mapping
from urllib.parse import urlsplit

import pytest

from uvtokend.sandbox.codeartifact import CodeArtifact
from uvtokend.sandbox.index import PACKAGES, VERSIONS, PackageIndex, wheel
from uvtokend.sandbox.machine import AwsMachine
from uvtokend.sandbox.registries import AZURE, CODEARTIFACT, REGISTRIES, Registry

TOKEN = "made-up~token._-+/="


@pytest.fixture(params=sorted(REGISTRIES))
def registry(request: pytest.FixtureRequest) -> Registry:
    """Return each kind of registry in turn."""
    return REGISTRIES[request.param]


@pytest.fixture
def index(registry: Registry) -> Iterator[PackageIndex]:
    """Run an index that accepts one token."""
    with opened(registry) as opening:
        yield opening


@pytest.fixture
def laptop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AwsMachine]:
    """Make a machine without a daemon."""
    with CodeArtifact() as cloud:
        yield AwsMachine(tmp_path_factory.mktemp("l"), cloud)


def opened(registry: Registry) -> PackageIndex:
    return PackageIndex(lambda login, token: (login, token) == (registry.login, TOKEN), registry=registry)


def ask(url: str, method: str = "GET", headers: Mapping[str, str] | None = None) -> http.client.HTTPResponse:
    """Send a plain HTTP request without following redirects."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.netloc, timeout=20)
    try:
        connection.request(method, parts.path, headers=dict(headers or {}))
        answer = connection.getresponse()
        answer.read()
        return answer
    finally:
        connection.close()


def basic(login: str, token: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"{login}:{token}".encode()).decode()}


def install(laptop: AwsMachine, index: PackageIndex, *more: str) -> subprocess.CompletedProcess[str]:
    return laptop.install(laptop.directory / "target", "--default-index", index.url, *more)


@pytest.mark.parametrize("credential", [{}, basic("aws", ""), basic("nobody", TOKEN), {"Authorization": "Basic %"}])
def test_requests_without_a_valid_token_are_refused(
    index: PackageIndex, registry: Registry, credential: dict[str, str]
) -> None:
    """Without a valid token, pages, files and uploads return 401 with the registry's challenge, and are counted."""
    file = index.files["alpha-1.0-py3-none-any.whl"]
    location = registry.location(file.name, file.version, file.file)
    calls = [("GET", index.url), ("GET", f"{index.url}alpha/"), ("GET", index.server.url + location)]
    for method, url in [*calls, ("POST", index.upload_url)]:
        answer = ask(url, method, credential)
        assert answer.status == 401
        assert answer.headers["WWW-Authenticate"] == (registry.refused if credential else registry.stranger)
    assert (index.accepted, index.refused) == (0, 4)


def test_azure_sends_different_challenges() -> None:
    """Azure names its tenant only if no token was sent; CodeArtifact always sends the same challenge."""
    assert "login.windows.net" in AZURE.stranger
    assert AZURE.refused.startswith("Basic ")
    assert CODEARTIFACT.stranger == CODEARTIFACT.refused


def test_a_token_gets_everything(index: PackageIndex, registry: Registry) -> None:
    """With the token, the list, pages and files are returned, and unknown paths return 404."""
    key = basic(registry.login, TOKEN)
    assert ask(index.url, headers=key).status == 200
    assert ask(f"{index.url}alpha/", headers=key).status == 200
    assert ask(f"{index.url}nothing/", headers=key).status == 404
    assert ask(f"{index.url}nothing/1.0/nothing-1.0-py3-none-any.whl", headers=key).status == 404
    location = registry.location("alpha", "2.0", "alpha-2.0-py3-none-any.whl")
    assert (
        ask(index.server.url + location, headers=key).status
        == {"file": 200, "moved-here": 307, "moved-away": 303}[registry.download]
    )
    assert ask(index.server.url + location, "HEAD", key).status == {AZURE.files: 405}.get(registry.files) or 200
    assert index.refused == 0


def test_codeartifact_also_accepts_bearer() -> None:
    """CodeArtifact accepts a token as Basic and as Bearer; Azure's feed accepts only Basic."""
    key = {"Authorization": f"Bearer {TOKEN}"}
    with opened(CODEARTIFACT) as one, opened(AZURE) as other:
        assert ask(one.url, headers=key).status == 200
        assert ask(other.url, headers=key).status == 401


def test_uv_installs_with_only_a_netrc(index: PackageIndex, registry: Registry, laptop: AwsMachine) -> None:
    """uv downloads two packages and their dependencies, and the blob store never receives the credential."""
    laptop.netrc.write_text(f"machine 127.0.0.1 login {registry.login} password {TOKEN}\n")
    done = install(laptop, index, "alpha", "eta==1.1")
    assert done.returncode == 0, done.stderr
    installed = {path.stem: path.read_text() for path in (laptop.directory / "target").glob("*.py")}
    assert installed == {**dict.fromkeys(PACKAGES, f"version = {VERSIONS[-1]!r}\n"), "eta": "version = '1.1'\n"}
    assert index.accepted >= 2 * len(PACKAGES)
    assert index.leaked == 0


def test_uv_fails_with_an_invalid_token(index: PackageIndex, registry: Registry, laptop: AwsMachine) -> None:
    """With an invalid token, uv installs nothing and reports 401."""
    laptop.netrc.write_text(f"machine 127.0.0.1 login {registry.login} password expired\n")
    done = install(laptop, index, "alpha")
    assert done.returncode != 0
    assert "401 Unauthorized" in done.stderr
    assert index.accepted == 0


def test_the_blob_store_refuses_a_credential() -> None:
    """A signed URL with a credential returns 400, so a client that leaks its credential is noticed."""
    with opened(AZURE) as index:
        url = f"{index.blobs.url}/alpha-1.0-py3-none-any.whl"
        assert ask(url).status == 200
        assert ask(url, headers=basic("VssSessionToken", TOKEN)).status == 400
        assert ask(f"{index.blobs.url}/nothing.whl").status == 404
        assert index.leaked == 1


def test_uv_publishes(index: PackageIndex, registry: Registry, laptop: AwsMachine) -> None:
    """The index contains exactly the file that uv published with the netrc's credential."""
    laptop.netrc.write_text(f"machine 127.0.0.1 login {registry.login} password {TOKEN}\n")
    data = wheel("omega", "3.0", ["alpha"])
    path = laptop.directory / "omega-3.0-py3-none-any.whl"
    path.write_bytes(data)
    done = laptop.uv("publish", "--trusted-publishing", "never", "--publish-url", index.upload_url, str(path))
    assert done.returncode == 0, done.stderr
    assert index.files[path.name].data == data
    assert install(laptop, index, "omega").returncode == 0


@pytest.mark.parametrize("data", [b"a\r\nb\rc\n\n", b"\r\n", b"\n", bytes(range(256)) * 3, b"--x\r\n--x--\r\n"])
@pytest.mark.parametrize("honest", [True, False])
def test_an_upload_is_stored_byte_for_byte(data: bytes, honest: bool) -> None:
    """An upload with line breaks or a boundary in its bytes is stored unchanged; one with a wrong digest is refused."""
    digest = hashlib.sha256(data if honest else b"other").hexdigest()
    name = "omega-1.0-py3-none-any.whl"
    body = (
        f'--xyz\r\nContent-Disposition: form-data; name="sha256_digest"\r\n\r\n{digest}\r\n'
        f'--xyz\r\nContent-Disposition: form-data; name="content"; filename="{name}"\r\n'
        "Content-Type: application/octet-stream\r\n\r\n"
    ).encode() + (data + b"\r\n--xyz--\r\n")
    headers = {**basic("aws", TOKEN), "Content-Type": "multipart/form-data; boundary=xyz"}
    with opened(CODEARTIFACT) as index:
        parts = urlsplit(index.upload_url)
        connection = http.client.HTTPConnection(parts.netloc, timeout=20)
        connection.request("POST", parts.path, body, headers)
        assert connection.getresponse().status == (200 if honest else 400)
        connection.close()
        assert (index.files[name].data == data) if honest else (name not in index.files)


@pytest.mark.parametrize("body", [b"", b"nonsense", b"--x--\r\n"])
def test_an_invalid_upload_is_refused(body: bytes) -> None:
    """A form without a file, or a body that is not a form, returns 400."""
    with opened(CODEARTIFACT) as index:
        parts = urlsplit(index.upload_url)
        connection = http.client.HTTPConnection(parts.netloc, timeout=20)
        key = {**basic("aws", TOKEN), "Content-Type": "multipart/form-data; boundary=x"}
        connection.request("POST", parts.path, body, key)
        assert connection.getresponse().status == 400
        connection.close()


def test_wheels_are_reproducible() -> None:
    """The same arguments give the same bytes, so the digests in lock files stay valid."""
    assert wheel("alpha", "1.0", ["beta"]) == wheel("alpha", "1.0", ["beta"])
    assert wheel("alpha", "1.0") != wheel("alpha", "1.1")

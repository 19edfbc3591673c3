"""The loopback index: the real uv installs from it and publishes to it, and nobody else gets anything."""

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
    """Each kind of registry in turn."""
    return REGISTRIES[request.param]


@pytest.fixture
def index(registry: Registry) -> Iterator[PackageIndex]:
    """An index that lets one token in."""
    with opened(registry) as opening:
        yield opening


@pytest.fixture
def laptop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AwsMachine]:
    """A machine without a daemon."""
    with CodeArtifact() as cloud:
        yield AwsMachine(tmp_path_factory.mktemp("l"), cloud)


def opened(registry: Registry) -> PackageIndex:
    return PackageIndex(lambda login, token: (login, token) == (registry.login, TOKEN), registry=registry)


def ask(url: str, method: str = "GET", headers: Mapping[str, str] | None = None) -> http.client.HTTPResponse:
    """Ask with plain HTTP, following nothing."""
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
def test_nobody_gets_in_without_a_token(index: PackageIndex, registry: Registry, credential: dict[str, str]) -> None:
    """Pages, files and uploads answer 401 with the registry's challenge, and count as refused."""
    file = index.files["alpha-1.0-py3-none-any.whl"]
    location = registry.location(file.name, file.version, file.file)
    calls = [("GET", index.url), ("GET", f"{index.url}alpha/"), ("GET", index.server.url + location)]
    for method, url in [*calls, ("POST", index.upload_url)]:
        answer = ask(url, method, credential)
        assert answer.status == 401
        assert answer.headers["WWW-Authenticate"] == (registry.refused if credential else registry.stranger)
    assert (index.accepted, index.refused) == (0, 4)


def test_a_dead_token_is_told_less_by_azure() -> None:
    """Azure names its tenant to strangers only; CodeArtifact offers both schemes to everybody."""
    assert "login.windows.net" in AZURE.stranger
    assert AZURE.refused.startswith("Basic ")
    assert CODEARTIFACT.stranger == CODEARTIFACT.refused


def test_a_token_gets_everything(index: PackageIndex, registry: Registry) -> None:
    """The list, each page, and a file where the page says that it is; what is not there answers 404."""
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


def test_codeartifact_takes_bearer_too() -> None:
    """CodeArtifact lets a token in under either scheme; Azure's feed here does not."""
    key = {"Authorization": f"Bearer {TOKEN}"}
    with opened(CODEARTIFACT) as one, opened(AZURE) as other:
        assert ask(one.url, headers=key).status == 200
        assert ask(other.url, headers=key).status == 401


def test_uv_installs_with_a_netrc_alone(index: PackageIndex, registry: Registry, laptop: AwsMachine) -> None:
    """uv, asked for two packages, downloads them and all that they need; the blob store never sees the credential."""
    laptop.netrc.write_text(f"machine 127.0.0.1 login {registry.login} password {TOKEN}\n")
    done = install(laptop, index, "alpha", "eta==1.1")
    assert done.returncode == 0, done.stderr
    found = {path.stem: path.read_text() for path in (laptop.directory / "target").glob("*.py")}
    assert found == {**dict.fromkeys(PACKAGES, f"version = {VERSIONS[-1]!r}\n"), "eta": "version = '1.1'\n"}
    assert index.accepted >= 2 * len(PACKAGES)
    assert index.leaked == 0


def test_uv_fails_with_a_dead_token(index: PackageIndex, registry: Registry, laptop: AwsMachine) -> None:
    """With a token that is not let in, uv gets nothing and says why."""
    laptop.netrc.write_text(f"machine 127.0.0.1 login {registry.login} password dead\n")
    done = install(laptop, index, "alpha")
    assert done.returncode != 0
    assert "401 Unauthorized" in done.stderr
    assert index.accepted == 0


def test_the_blob_store_refuses_a_credential() -> None:
    """A signed URL with a credential beside it answers 400, so a client that leaks it is noticed."""
    with opened(AZURE) as index:
        url = f"{index.blobs.url}/alpha-1.0-py3-none-any.whl"
        assert ask(url).status == 200
        assert ask(url, headers=basic("VssSessionToken", TOKEN)).status == 400
        assert ask(f"{index.blobs.url}/nothing.whl").status == 404
        assert index.leaked == 1


def test_uv_publishes(index: PackageIndex, registry: Registry, laptop: AwsMachine) -> None:
    """What uv publishes with the netrc's credential is there afterwards, byte for byte."""
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
def test_an_upload_is_taken_to_the_byte(data: bytes, honest: bool) -> None:
    """Awkward bytes come through; a digest that is not that of the file is refused."""
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
def test_an_upload_that_is_none_is_refused(body: bytes) -> None:
    """A form without its file, or no form at all, answers 400."""
    with opened(CODEARTIFACT) as index:
        parts = urlsplit(index.upload_url)
        connection = http.client.HTTPConnection(parts.netloc, timeout=20)
        key = {**basic("aws", TOKEN), "Content-Type": "multipart/form-data; boundary=x"}
        connection.request("POST", parts.path, body, key)
        assert connection.getresponse().status == 400
        connection.close()


def test_wheels_are_the_same_every_time() -> None:
    """A wheel's bytes depend on nothing but what is asked for, so that digests in lock files stay true."""
    assert wheel("alpha", "1.0", ["beta"]) == wheel("alpha", "1.0", ["beta"])
    assert wheel("alpha", "1.0") != wheel("alpha", "1.1")

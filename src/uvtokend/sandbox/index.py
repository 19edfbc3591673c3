"""A loopback package index that requires a valid token: pages, files and uploads."""

from __future__ import annotations

import base64
import hashlib
import io
import threading
import zipfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from email.message import EmailMessage
from email.parser import BytesParser
from email.policy import HTTP
from html import escape

from uvtokend.sandbox.registries import CODEARTIFACT, Registry
from uvtokend.sandbox.web import Answer, Call, Server

#: The packages of the index, and the dependencies of each.
PACKAGES: Mapping[str, tuple[str, ...]] = {
    "alpha": ("beta>=1.1", "gamma"),
    "beta": ("delta",),
    "gamma": ("delta", "epsilon>=1"),
    "delta": (),
    "epsilon": ("zeta<3",),
    "zeta": (),
    "eta": ("theta",),
    "theta": (),
}
VERSIONS = ("1.0", "1.1", "2.0")
#: The path of redirected downloads, whose URLs are signed.
_SIGNED = "/artifacts-downloads/namespaces/acme-ml/repositories/models/downloads/"

Valid = Callable[[str, str], bool]


@dataclass(frozen=True, slots=True)
class File:
    """One file of the index."""

    name: str
    version: str
    file: str
    data: bytes


class PackageIndex:
    """A simple index (PEP 503) with Basic authentication; a context manager.

    Args:
        valid: A function that returns whether a login and a token are accepted now.
        packages: Names and dependencies; each package has the versions 1.0, 1.1 and 2.0.
        registry: The kind of registry to imitate.

    Attributes:
        base: Scheme, host and port of the links: its own, unless there is another server in front of it.
        url: The URL of the index, for uv.
        upload_url: The URL to publish to.
        accepted, refused: The number of calls that were accepted, and that were refused.
        leaked: The number of calls that sent a credential to the blob store, which must never see one.
    """

    def __init__(
        self, valid: Valid, packages: Mapping[str, tuple[str, ...]] = PACKAGES, registry: Registry = CODEARTIFACT
    ) -> None:
        self.valid = valid
        self.registry = registry
        self.files: dict[str, File] = {}
        self.accepted = self.refused = self.leaked = 0
        self._lock = threading.Lock()
        for name, needs in packages.items():
            for version in VERSIONS:
                self.add(f"{name}-{version}-py3-none-any.whl", wheel(name, version, needs))
        self.server = Server(self.answer)
        self.blobs = Server(self._blob)
        self.base = self.server.url
        self.url = f"{self.server.url}{registry.root}/simple/"
        self.upload_url = f"{self.server.url}{registry.upload}"

    def add(self, file: str, data: bytes) -> None:
        """Add a file; package and version are taken from its name."""
        name, version = file.removesuffix(".tar.gz").split("-")[:2]
        self.files[file] = File(name.replace("_", "-").lower(), version, file, data)

    def close(self) -> None:
        """Stop."""
        self.server.close()
        self.blobs.close()

    def __enter__(self) -> PackageIndex:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def answer(self, call: Call) -> Answer:
        """Answer one call."""
        if call.path.startswith(_SIGNED):
            return self._data(call)
        if not self._let_in(call):
            return self._refusal("Authorization" in call.headers)
        if call.method == "POST":
            return self._upload(call)
        page = call.path.removeprefix(f"{self.registry.root}/simple/")
        if page != call.path and page.count("/") <= 1 and (not page or page.endswith("/")):
            return self._page(page.removesuffix("/"))
        return self._download(call)

    def _refusal(self, known: bool) -> Answer:
        """Return 401 for a missing or an invalid credential."""
        registry = self.registry
        challenge = registry.refused if known else registry.stranger
        body = registry.refused_says if known else registry.stranger_says
        kind = {"Content-Type": "application/json;charset=ISO-8859-1"} if body else {}
        return Answer(401, body.encode(), {"WWW-Authenticate": challenge, **kind})

    def _let_in(self, call: Call) -> bool:
        good = self.valid(*_credential(call, self.registry))
        with self._lock:
            self.accepted += good
            self.refused += not good
        return good

    def _page(self, name: str) -> Answer:
        """Answer the list of packages, or of one package's files; attributes as in the sample of uv issue 1388."""
        files = tuple(self.files.values())
        if not name:
            return _page(f'<a href="{name}/">{name}</a>' for name in sorted({file.name for file in files}))
        matching = [file for file in files if file.name == name]
        if not matching:
            return Answer(404)  # with good credentials: uv issues 11096 and 8167
        return _page(self._link(file) for file in matching)

    def _link(self, file: File) -> str:
        href = self.registry.href(file.name, file.version, file.file)
        if href.startswith("/"):
            href = f"{self.base}{href}"
        digest = hashlib.sha256(file.data).hexdigest()
        python = escape(">=3.8")
        return f'<a href="{href}#sha256={digest}" data-requires-python="{python}" data-gpg-sig="false">{file.file}</a>'

    def _download(self, call: Call) -> Answer:
        for file in self.files.values():
            if call.path == self.registry.location(file.name, file.version, file.file):
                if call.method == "HEAD" and not self.registry.head:
                    return Answer(405)
                return self._file(file)
        return Answer(404)

    def _file(self, file: File) -> Answer:
        match self.registry.download:
            case "file":
                return _bytes(file)
            case "moved-here":
                return Answer(307, b"", {"Location": f"{_SIGNED}{file.file}"})
            case "moved-away":
                return Answer(303, b"", {"Location": f"{self.blobs.url}/{file.file}?sig=made-up"})

    def _data(self, call: Call) -> Answer:
        file = self.files.get(call.path.rpartition("/")[2])
        return Answer(404) if file is None else _bytes(file)

    def _blob(self, call: Call) -> Answer:
        """Answer for the blob store. A signed URL and a credential beside it are refused, as by S3 (pull request 1171
        of ansible's community.general)."""
        if "Authorization" in call.headers:
            with self._lock:
                self.leaked += 1
            return Answer(400)
        return self._data(call)

    def _upload(self, call: Call) -> Answer:
        """Accept a file as twine and uv send it: a form with a field ``content`` (packaging.python.org, "Upload API").

        The fields of the form must match the file.
        """
        form = _form(call)
        content = form.get("content")
        file = content.get_filename() if content is not None else None
        data = content.get_payload(decode=True) if content is not None else None
        digest = form.get("sha256_digest")
        if not file or not isinstance(data, bytes) or digest is None:
            return Answer(400)
        if digest.get_content().strip() != hashlib.sha256(data).hexdigest():
            return Answer(400)
        self.add(file, data)
        return Answer(200)


def wheel(name: str, version: str, needs: Iterable[str] = ()) -> bytes:
    """Return a wheel with one module that contains its version; the bytes are reproducible."""
    info = f"{name}-{version}.dist-info"
    requires = "".join(f"Requires-Dist: {need}\n" for need in needs)
    files = {
        f"{name}.py": f"version = {version!r}\n",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{requires}",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: uvtokend\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{path},sha256={_digest(text)},{len(text)}\n" for path, text in files.items())
    files[f"{info}/RECORD"] = f"{record}{info}/RECORD,,\n"
    memory = io.BytesIO()
    with zipfile.ZipFile(memory, "w") as archive:
        for path, text in files.items():
            archive.writestr(zipfile.ZipInfo(path), text)
    return memory.getvalue()


def _digest(text: str) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()


def _bytes(file: File) -> Answer:
    return Answer(200, file.data, {"Content-Type": "application/octet-stream"})


def _page(links: Iterable[str]) -> Answer:
    body = "<!DOCTYPE html><html><body>\n" + "\n".join(links) + "\n</body></html>\n"
    return Answer(200, body.encode(), {"Content-Type": "text/html; charset=UTF-8"})


def _form(call: Call) -> dict[str, EmailMessage]:
    head = f"Content-Type: {call.headers.get('Content-Type')}\r\n\r\n".encode()
    message = BytesParser(EmailMessage, policy=HTTP).parsebytes(head + call.body)
    parts = [part for part in message.iter_parts() if isinstance(part, EmailMessage)]
    return {str(part.get_param("name", header="content-disposition")): part for part in parts}


def _credential(call: Call, registry: Registry) -> tuple[str, str]:
    """Return login and token of a call; both are empty if the call has no readable credential."""
    scheme, _, text = (call.headers.get("Authorization") or "").partition(" ")
    if scheme.lower() == "bearer" and registry.bearer:
        return registry.login, text
    if scheme.lower() != "basic":
        return "", ""
    try:
        login, _, token = base64.b64decode(text, validate=True).decode().partition(":")
    except ValueError:
        return "", ""
    return login, token

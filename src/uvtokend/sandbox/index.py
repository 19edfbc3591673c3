"""A loopback package index that lets nobody in without a living token: pages, files and uploads."""

from __future__ import annotations

import base64
import hashlib
import io
import zipfile
from collections.abc import Callable, Iterable
from email.parser import BytesParser
from email.policy import HTTP

from uvtokend.sandbox.web import Answer, Call, Server

#: The path of a repository, as CodeArtifact has it.
ROOT = "/pypi/production"
#: Seen on CodeArtifact's npm endpoint (confluentinc/mcp-confluent issue 150); assumed to be alike on this one.
_CHALLENGE = {"WWW-Authenticate": 'Basic realm="acme/production"'}

Valid = Callable[[str, str], bool]


class PackageIndex:
    """A simple index (PEP 503) with Basic authentication; a context manager.

    Args:
        valid: Tells whether a login and a token are let in now.
        packages: Names; each has versions 1.0 and 2.0.
        host: The loopback name to listen on.
    """

    def __init__(self, valid: Valid, packages: tuple[str, ...] = ("alpha", "beta"), host: str = "127.0.0.1") -> None:
        self.valid = valid
        self.files: dict[str, dict[str, bytes]] = {}
        self.accepted = 0
        self.refused = 0
        for name in packages:
            for version in ("1.0", "2.0"):
                self.add(f"{name}-{version}-py3-none-any.whl", wheel(name, version))
        self.server = Server(self._answer, host)
        self.url = f"{self.server.url}{ROOT}/simple/"
        self.upload_url = f"{self.server.url}{ROOT}/"

    def add(self, file: str, data: bytes) -> None:
        """Offer a file."""
        self.files.setdefault(file.partition("-")[0].replace("_", "-").lower(), {})[file] = data

    def close(self) -> None:
        """Stop."""
        self.server.close()

    def __enter__(self) -> PackageIndex:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _answer(self, call: Call) -> Answer:
        login, token = _basic(call)
        if not self.valid(login, token):
            # Without a token, and with one that has died, pages and files answer 401: uv issues 14318, 1860 and 11899.
            self.refused += 1
            return Answer(401, b"", dict(_CHALLENGE))
        self.accepted += 1
        if call.method == "POST":
            return self._upload(call)
        return self._read(call.path.removeprefix(f"{ROOT}/simple").strip("/").split("/"))

    def _read(self, path: list[str]) -> Answer:
        """Answer a page or a file; relative links as in the sample of uv issue 1388, files below the page (6244)."""
        if path == [""]:
            return _page(f'<a href="{name}/">{name}</a>' for name in sorted(self.files))
        files = self.files.get(path[0], {})
        if len(path) == 1 and files:
            return _page(
                f'<a href="{_version(file)}/{file}#sha256={hashlib.sha256(data).hexdigest()}" '
                f'data-requires-python="&gt;=3.8" data-gpg-sig="false">{file}</a>'
                for file, data in sorted(files.items())
            )
        if len(path) == 3 and path[2] in files:
            return Answer(200, files[path[2]], {"Content-Type": "application/octet-stream"})
        return Answer(404)  # uv issue 11096: a wrong path with good credentials

    def _upload(self, call: Call) -> Answer:
        """Take a file as twine sends it: a form with the field ``content``."""
        head = f"Content-Type: {call.headers.get('Content-Type')}\r\n\r\n".encode()
        for part in BytesParser(policy=HTTP).parsebytes(head + call.body).iter_parts():
            file, data = part.get_filename(), part.get_payload(decode=True)
            if file is not None and isinstance(data, bytes):
                self.add(file, data)
        return Answer(200)


def wheel(name: str, version: str) -> bytes:
    """Return a wheel with one module that knows its version."""
    info = f"{name}-{version}.dist-info"
    files = {
        f"{name}.py": f"version = {version!r}\n",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: uvtokend\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{path},sha256={_digest(text)},{len(text)}\n" for path, text in files.items())
    files[f"{info}/RECORD"] = f"{record}{info}/RECORD,,\n"
    memory = io.BytesIO()
    with zipfile.ZipFile(memory, "w") as archive:
        for path, text in files.items():
            archive.writestr(path, text)
    return memory.getvalue()


def _digest(text: str) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()


def _version(file: str) -> str:
    return file.split("-")[1]


def _page(links: Iterable[str]) -> Answer:
    body = "<!DOCTYPE html><html><body>\n" + "\n".join(links) + "\n</body></html>\n"
    return Answer(200, body.encode(), {"Content-Type": "text/html; charset=UTF-8"})


def _basic(call: Call) -> tuple[str, str]:
    scheme, _, text = (call.headers.get("Authorization") or "").partition(" ")
    if scheme.lower() != "basic":
        return "", ""
    login, _, token = base64.b64decode(text).decode(errors="replace").partition(":")
    return login, token

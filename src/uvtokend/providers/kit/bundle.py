"""Create one CA bundle of all trusted certificates, for SDKs and helper programs that cannot read a directory.

uv trusts all certificates of ``SSL_CERT_FILE`` and ``SSL_CERT_DIR``, and reads every file of the directories (uv's
documentation, "TLS certificates").
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import ssl
import stat
from collections.abc import Iterable, Iterator, MutableMapping
from pathlib import Path

from uvtokend import paths
from uvtokend.core.worker_environment import CA_VARIABLES
from uvtokend.errors import UvtokendError
from uvtokend.providers.kit.failures import rejected

#: The most bytes of one file with certificates, and the most files of a directory; a system's bundle has 250 KiB.
_LIMIT = 4 << 20
_FILES = 4096
_CERTIFICATE = re.compile(rb"-----BEGIN CERTIFICATE-----[^-]*-----END CERTIFICATE-----")


def gather(environ: MutableMapping[str, str]) -> None:
    """Create one CA bundle from ``SSL_CERT_FILE`` and ``SSL_CERT_DIR``, and set the variables with which programs find
    it.

    Args:
        environ: The environment of this worker. A variable that names another bundle is not changed.

    Raises:
        FetchFailed: The bundle cannot be written.
    """
    directories, file = environ.get("SSL_CERT_DIR"), environ.get("SSL_CERT_FILE")
    if not directories:
        return
    sources = [*([Path(file)] if file else []), *(path for name in directories.split(":") for path in _files(name))]
    certificates = _valid(dict.fromkeys(piece for source in sources for piece in _pieces(source)))
    if not certificates:
        return  # like uv, the SDKs then trust nothing that these directories do not contain
    bundle = _kept(f"{file}\n{directories}", b"\n".join([*certificates, b""]))
    for name in CA_VARIABLES:
        if environ.get(name) in {None, "", file}:
            environ[name] = bundle


def _files(directory: str) -> list[Path]:
    """Return the files of a directory, in a fixed order; a directory that cannot be read has none."""
    try:
        return sorted(Path(directory).iterdir())[:_FILES] if directory else []
    except OSError:
        return []


def _pieces(path: Path) -> Iterator[bytes]:
    """Yield the texts in a file that look like certificates; a file that cannot be read has none."""
    try:
        if stat.S_ISREG(path.stat().st_mode):
            with path.open("rb") as file:
                yield from _CERTIFICATE.findall(file.read(_LIMIT))
    except OSError:
        return


def _valid(pieces: Iterable[bytes]) -> list[bytes]:
    """Return the certificates that OpenSSL can read. It would refuse a whole bundle because of one that it cannot."""
    context, valid = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), []
    for piece in pieces:
        with contextlib.suppress(ssl.SSLError, ValueError):
            context.load_verify_locations(cadata=piece.decode("ascii"))
            valid.append(piece)
    return valid


def _kept(identity: str, text: bytes) -> str:
    """Return a file with this content in the state directory, always the same one for the same variables."""
    try:
        directory = paths.state_directory()
        paths.private_directory(directory)
        path = Path(directory, f"certificates-{hashlib.sha256(identity.encode()).hexdigest()[:16]}.pem")
        if not path.is_file() or path.read_bytes() != text:
            new = path.with_suffix(f".{os.getpid()}")
            new.write_bytes(text)
            new.replace(path)
    except UvtokendError as error:
        raise rejected("state-directory", f"{error.message}.", error.hint) from None
    except OSError as error:
        message = f"The CA bundle of SSL_CERT_DIR cannot be written to {error.filename}: {error.strerror}."
        raise rejected("state-directory", message, f"ls -ld {paths.quoted(paths.state_directory())}") from None
    return str(path)

"""Provide the platform's own certificates as one file that every SDK and helper can read.

Linux has such a file. macOS has Apple's roots in ``/etc/ssl/cert.pem``. The certificates that an administrator or a
device management added are in the system keychain, which only Apple's own programs read. So both are written to one
file in the state directory, and written again when one of them has changed.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence

from uvtokend import paths
from uvtokend.disk import files
from uvtokend.errors import UvtokendError

#: Debian, Fedora, SUSE, Alpine.
PLACES = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
)
#: macOS: the roots of LibreSSL, and the keychain of this machine's administrator.
ROOTS, KEYCHAIN = "/etc/ssl/cert.pem", "/Library/Keychains/System.keychain"
#: security(1): all certificates of a keychain, in PEM.
EXPORT = ("/usr/bin/security", "find-certificate", "-a", "-p")
#: Seconds that the command gets, and the most bytes of its output.
PATIENCE, LIMIT = 20.0, 8 << 20
_PEM = b"-----BEGIN CERTIFICATE-----"


def bundle() -> str:
    """Return the path of the file.

    Raises:
        UvtokendError: There is no file; the message says why.
    """
    if sys.platform == "darwin":
        path = merged(os.path.join(paths.state_directory(), "ca-bundle.pem"), ROOTS, KEYCHAIN, EXPORT)
    else:
        path = _known()
    return path


def _known() -> str:
    place = next((place for place in PLACES if os.path.exists(place)), None)
    if place is None:
        raise UvtokendError("This system has no CA bundle in a known place.")
    return place


def merged(path: str, roots: str, keychain: str, export: Sequence[str]) -> str:
    """Return a file with all certificates of a Mac. It is written if it is missing or older than its sources.

    Args:
        path: The file.
        roots: The file of Apple's roots.
        keychain: The keychain of the administrator.
        export: The command that prints the certificates of a keychain, without the keychain's name.

    Raises:
        UvtokendError: The certificates cannot be read, or the file cannot be written.
    """
    try:
        if not _is_older(path, roots, keychain):
            return path
        with open(roots, "rb") as file:
            text = file.read(LIMIT)
        paths.private_directory(os.path.dirname(path))
        files.replace(path, text.rstrip(b"\n") + b"\n" + _exported([*export, keychain]))
    except OSError as error:
        message = f"The certificates of this Mac cannot be read: {error.strerror}: {error.filename}."
        raise UvtokendError(message, "write the path of a file with your network's certificates") from error
    return path


def _is_older(path: str, *sources: str) -> bool:
    """Return whether a file is missing or older than one of its sources. Raise OSError if a source is missing."""
    changed = max(os.stat(source).st_mtime_ns for source in sources)
    try:
        return os.stat(path).st_mtime_ns < changed
    except FileNotFoundError:
        return True


def _exported(command: Sequence[str]) -> bytes:
    """Return the output of a program, if it is certificates or nothing."""
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=PATIENCE, check=False)  # noqa: S603
    except subprocess.TimeoutExpired:
        raise TimeoutError(0, f"no answer within {PATIENCE:g} s", command[0]) from None
    if done.returncode != 0 or (done.stdout and _PEM not in done.stdout):
        said = " ".join(done.stderr.decode(errors="replace").split()) or f"status {done.returncode}"
        raise OSError(0, said, command[0])
    return done.stdout[:LIMIT]

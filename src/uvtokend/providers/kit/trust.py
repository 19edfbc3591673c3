"""Present the client certificate of a fetch, and find the problem with our own certificates when TLS fails.

uv presents ``SSL_CLIENT_CERT`` to every server that asks for a client certificate (its documentation, "TLS
certificates"). So does uvtokend; no SDK reads that variable.
"""

from __future__ import annotations

import os
import re
import ssl
from collections.abc import Iterator

from uvtokend.core.worker_environment import CA_VARIABLES
from uvtokend.errors import FetchFailed
from uvtokend.providers.kit.failures import rejected, transient

#: The variables that requests reads, in this order; botocore reads a variable of its own before them.
VARIABLES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
CLIENT = "SSL_CLIENT_CERT"
#: The alerts of a server that refuses or requires a client certificate (RFC 8446 6; TLS 1.2 has no alert for it). If
#: the server closes at once, the alert may be lost, since TLS 1.3 lets the client write before (CPython's own text).
_BROKEN_OFF = "EOF occurred in violation of protocol"
_REFUSED = re.compile(r"ALERT_(HANDSHAKE_FAILURE|BAD_CERTIFICATE|UNKNOWN_CA|ACCESS_DENIED|CERTIFICATE_\w+)")


def client_certificate() -> str | None:
    """Return the PEM file with the certificate and the key that this machine presents, or None.

    Raises:
        FetchFailed: The file that ``SSL_CLIENT_CERT`` names cannot be used.
    """
    path = os.environ.get(CLIENT)
    if not path:
        return None
    try:
        own_context(path)
    except OSError as error:
        why = "does not contain a certificate and its unencrypted private key, in PEM"
        if not isinstance(error, ssl.SSLError):
            why = f"cannot be read: {error.strerror or 'the system refused'}"
        raise rejected("client-certificate", f"{CLIENT} names {path}, which {why}.", _client_fix()) from None
    return path


def ca_bundle(variables: tuple[str, ...] = VARIABLES) -> str:
    """Return the CA bundle that an SDK uses.

    Args:
        variables: See `problem`.
    """
    if (bundle := _named(variables)) is not None:
        return bundle
    from requests.utils import DEFAULT_CA_BUNDLE_PATH  # noqa: PLC0415 - botocore needs no requests, which costs 0.07 s

    return DEFAULT_CA_BUNDLE_PATH


def problem(error: BaseException, host: str, variables: tuple[str, ...] = VARIABLES) -> FetchFailed | None:
    """Return what is wrong with our own certificates, if that explains why TLS failed; otherwise None.

    Args:
        error: The exception of the SDK; its text contains OpenSSL's.
        host: The host that was called.
        variables: The variables that this SDK reads for its CA bundle, the first one first.
    """
    bundle = _named(variables)
    if bundle is not None and (why := _unusable(bundle)) is not None:
        fix = f'correct {" or ".join(dict.fromkeys(_names(bundle)))}, or write ca-bundle = "system" in [daemon]'
        return rejected("ca-bundle", f"The CA bundle {bundle} {why}.", fix)
    said = str(error)
    if _BROKEN_OFF in said:
        return transient("unreachable", f"{host} broke off the TLS connection.", _client_fix("if it asks for one: "))
    if _REFUSED.search(said) is None:
        return None
    if path := os.environ.get(CLIENT):
        message = f"{host} does not accept the client certificate that {CLIENT} names, {path}."
    else:
        message = f"{host} asks for a client certificate."
    return rejected("client-certificate", message, _client_fix())


def _client_fix(when: str = "") -> str:
    return f'{when}set env = {{ {CLIENT} = "/path/to/certificate-and-key.pem" }} for this index'


def own_context(path: str) -> ssl.SSLContext:
    """Return a context that presents a certificate.

    Args:
        path: Of the PEM file with the certificate and its key.

    Raises:
        OSError: It cannot be used.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_cert_chain(path, password="")  # without a password, OpenSSL would ask at the terminal
    return context


def _named(variables: tuple[str, ...]) -> str | None:
    return next((value for name in variables if (value := os.environ.get(name))), None)


def _names(bundle: str) -> Iterator[str]:
    """Yield the settings that a person may have made: the variables with this path, or the one that sets them all."""
    named = [name for name in CA_VARIABLES if os.environ.get(name) == bundle]
    yield from ("ca-bundle", "SSL_CERT_FILE") if len(named) == len(CA_VARIABLES) else named


def _unusable(bundle: str) -> str | None:
    if os.path.isdir(bundle):
        return None
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(bundle)
    except ssl.SSLError:
        return "contains no certificate in PEM, or a damaged one"
    except OSError as error:
        return "does not exist" if isinstance(error, FileNotFoundError) else f"cannot be read: {error.strerror}"
    return None

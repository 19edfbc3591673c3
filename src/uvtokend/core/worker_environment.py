"""What a worker gets as its environment."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from uvtokend.core.model import Env, Frozen, Request, Settings

#: `requests` would send our own netrc entry to the cloud, even over an explicit Bearer header. And a helper that asks
#: keyring must not end up at the daemon, which waits for this very worker: `uvtokend.ask` looks for the second one.
FIXED = {"NETRC": "/dev/null", "UVTOKEND_IN_WORKER": "1"}
_USER = re.compile(r"//[^/]*@")
#: What botocore, requests (google-auth, azure-identity), OpenSSL and gcloud (its core/custom_ca_certs_file) read.
CA_VARIABLES = ("AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE", "SSL_CERT_FILE", "CLOUDSDK_CORE_CUSTOM_CA_CERTS_FILE")

#: Proxies and certificates: what decides whether a cloud can be reached.
NETWORK = (
    *("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy", "NO_PROXY", "no_proxy"),
    *("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "AWS_CA_BUNDLE"),
)


def shown(environ: Env) -> dict[str, str]:
    """Return what the daemon tells of its environment, which nobody else can read: PATH, proxies without user names."""
    return {name: _USER.sub("//***@", environ[name]) for name in (*NETWORK, "PATH") if name in environ}


def worker_environment(base: Env, request: Request, settings: Settings) -> dict[str, str]:
    """Return the environment of the worker of one request; see `Environments`."""
    return Environments(base, settings).of(request)


class Environments:
    """The environments of workers: the daemon's and the index's own, less the secrets of other indexes.

    Args:
        base: The daemon's environment.
        settings: All indexes, whose secrets are not for each other's workers, also of disabled ones; and the CA bundle.
    """

    def __init__(self, base: Env, settings: Settings) -> None:
        self._base = base
        self._certificates = _certificates(base, settings)
        everybody = (*settings.indexes, *settings.disabled)
        self._secrets = {name for index in everybody for name in secret_variables(index.request)}

    def of(self, request: Request) -> dict[str, str]:
        """Return the environment of the worker of one request."""
        hidden = self._secrets - secret_variables(request)
        environment = {name: text for name, text in self._base.items() if name not in hidden}
        return {**environment, **self._certificates, **dict(request.env), **FIXED}

    def of_hook(self, names: Iterable[str], netrc: str) -> dict[str, str]:
        """Return the environment of the program of ``on-delivered``: no secret and no token is in it.

        Args:
            names: The configured indexes.
            netrc: The path of the netrc.
        """
        environment = {name: text for name, text in self._base.items() if name not in self._secrets}
        return {**environment, "UVTOKEND_INDEXES": " ".join(names), "UVTOKEND_NETRC": netrc}


def secret_variables(request: Request) -> set[str]:
    """Return the names of the variables that a request's secret references name."""
    return {name for _, value in request.options for name in _variables(value)}


def _variables(value: Frozen) -> set[str]:
    """Return the variables of ``{ env = "VAR" }``, frozen ``(("env", "VAR"),)``, at any depth of a plug-in's tables."""
    match value:
        case (("env", str(name)),):
            return {name}
        case tuple():
            return {name for item in value for name in _variables(item)}
    return set()


def _certificates(base: Env, settings: Settings) -> Mapping[str, str]:
    if settings.ca_bundle is not None:
        return dict.fromkeys(CA_VARIABLES, settings.ca_bundle)
    default = base.get("SSL_CERT_FILE")
    return {name: default for name in CA_VARIABLES if name not in base} if default else {}

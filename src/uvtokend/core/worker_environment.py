"""The environment of a worker, and what requests must have in common to share a worker."""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterable

from uvtokend.core.clouds import CLOUDS
from uvtokend.core.model import Env, Frozen, Request, Settings

#: `requests` would send our own netrc entry to the cloud instead of an explicit Bearer header. And a helper that asks
#: keyring must not reach the daemon, which waits for this worker: `uvtokend.ask` checks the second variable.
FIXED = {"NETRC": "/dev/null", "UVTOKEND_IN_WORKER": "1"}
_USER = re.compile(r"//[^/]*@")
#: The variables that name a CA bundle: OpenSSL, Go and .NET, botocore and aws, requests (google-auth, azure-identity,
#: az), curl, Node, and gcloud (its core/custom_ca_certs_file).
CA_VARIABLES = (
    "SSL_CERT_FILE",
    "AWS_CA_BUNDLE",
    "REQUESTS_CA_BUNDLE",
    "CURL_CA_BUNDLE",
    "NODE_EXTRA_CA_CERTS",
    "CLOUDSDK_CORE_CUSTOM_CA_CERTS_FILE",
)
#: The variables that replace the default certificates of OpenSSL, of Go and of uv.
_WHOLE = ("SSL_CERT_FILE", "SSL_CERT_DIR")

#: Proxies and certificates, which decide whether a cloud can be reached.
NETWORK = (
    *("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy", "NO_PROXY", "no_proxy"),
    *("SSL_CERT_FILE", "SSL_CERT_DIR", "SSL_CLIENT_CERT", "REQUESTS_CA_BUNDLE", "AWS_CA_BUNDLE"),
)


def shown(environ: Env) -> dict[str, str]:
    """Return the part of its environment that the daemon shows: PATH, and proxies without user names."""
    return {name: _USER.sub("//***@", environ[name]) for name in (*NETWORK, "PATH") if name in environ}


def worker_environment(base: Env, request: Request, settings: Settings) -> dict[str, str]:
    """Return the environment of the worker of one request; see `Environments`."""
    return Environments(base, settings).of(request)


class Environments:
    """The environments of workers: the daemon's and the index's own, less the secrets of other indexes.

    Args:
        base: The daemon's environment.
        settings: The settings with the CA bundle and all indexes, even disabled ones: no worker gets another index's
            secret.
    """

    def __init__(self, base: Env, settings: Settings) -> None:
        self._base = base
        self._bundle = settings.ca_bundle
        everybody = (*settings.indexes, *settings.disabled)
        self._secrets = {name for index in everybody for name in secret_variables(index.request)}

    def of(self, request: Request) -> dict[str, str]:
        """Return the environment of the worker of one request."""
        hidden = self._secrets - secret_variables(request)
        base, own = {name: text for name, text in self._base.items() if name not in hidden}, dict(request.env)
        rest = {name: text for name, text in {**base, **own}.items() if name not in (*CA_VARIABLES, *_WHOLE)}
        return {**_proxied(rest), **_trust(base, self._bundle, own), **FIXED}

    def of_hook(self, names: Iterable[str], netrc: str) -> dict[str, str]:
        """Return the environment of the ``on-delivered`` program; it contains no secret and no token.

        Args:
            names: The configured indexes.
            netrc: The path of the netrc.
        """
        environment = {name: text for name, text in self._base.items() if name not in self._secrets}
        return {**environment, "UVTOKEND_INDEXES": " ".join(names), "UVTOKEND_NETRC": netrc}


def worker_kind(request: Request) -> Hashable:
    """Return what is equal for all requests that one worker may fetch, one after the other; None if it shares none.

    Their workers have the same code and the same environment. So no worker ever has a secret variable of an index that
    it does not fetch for. A plug-in does not share workers, since its author need not know about it. Neither does a
    request that spends a one-time secret, since only the end of its worker shows that the successor is saved.
    """
    cloud = CLOUDS.get(request.provider)
    if cloud is None or not cloud.shares_worker or cloud.spends(request):
        return None
    return request.provider, request.env, frozenset(secret_variables(request))


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


def _trust(base: Env, bundle: str | None, own: Env) -> dict[str, str]:
    """Return the variables that name certificates.

    ``ca-bundle`` overrides the daemon's variables, and the index's own variables override both. A variable that names a
    file or directory for OpenSSL replaces everything below it. A program with a variable of its own gets that file too,
    unless the variable is set. An empty one counts as unset: an older botocore takes an empty AWS_CA_BUNDLE or
    REQUESTS_CA_BUNDLE for the wish to verify nothing (``httpsession.py``), a newer one fails.
    """
    trusted: dict[str, str] = {}
    for layer in (base, {"SSL_CERT_FILE": bundle} if bundle is not None else {}, own):
        if not layer.keys().isdisjoint(_WHOLE):
            trusted = {}
        trusted |= {name: layer[name] for name in (*CA_VARIABLES, *_WHOLE) if name in layer}
    trusted = {name: value for name, value in trusted.items() if value}
    if file := trusted.get("SSL_CERT_FILE"):
        trusted = dict.fromkeys(CA_VARIABLES, file) | trusted
    return trusted


def _proxied(environment: Env) -> dict[str, str]:
    """Name the proxy of ``ALL_PROXY`` for HTTPS too: botocore does not know the former."""
    proxy = environment.get("all_proxy") or environment.get("ALL_PROXY") or ""
    known = environment.get("https_proxy") or environment.get("HTTPS_PROXY")
    return {**environment, **({"HTTPS_PROXY": proxy} if proxy.startswith("http") and not known else {})}

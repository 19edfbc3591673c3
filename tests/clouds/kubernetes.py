"""A loopback Kubernetes API server with discovery and one Secret, as kubectl 1.32 was seen to use it.

Evidence: the calls of a real kubectl, recorded against this server. Their meaning: Kubernetes API concepts,
"Server-Side Apply" (PATCH with ``application/apply-patch+yaml``, ``fieldManager``, ``force``), "API discovery" and
"OpenAPI v3"; the Status object of API conventions, "Response status kind"; every authenticated user may read
discovery and OpenAPI: RBAC, "API discovery roles".
"""

from __future__ import annotations

import base64
from typing import Any, Self

import yaml

from clouds.tls import TlsProxy
from uvtokend.sandbox.web import Answer, Call

#: The resources of discovery: group and version, plural, kind.
RESOURCES = (
    ("v1", "secrets", "Secret"),
    ("v1", "configmaps", "ConfigMap"),
    ("v1", "serviceaccounts", "ServiceAccount"),
    ("v1", "pods", "Pod"),
    ("batch/v1", "jobs", "Job"),
    ("apps/v1", "deployments", "Deployment"),
    ("rbac.authorization.k8s.io/v1", "roles", "Role"),
    ("rbac.authorization.k8s.io/v1", "rolebindings", "RoleBinding"),
)
HOST = "kubernetes.example"
TOKEN = "service-account-token"


class Kubernetes:
    """The API server, reached over TLS through a loopback proxy; a context manager.

    Args:
        name: The one Secret that its account may get and patch.

    Attributes:
        secrets: The decoded data of each Secret.
        allowed: Whether the role binding exists.
    """

    def __init__(self, name: str) -> None:
        self.secrets: dict[str, dict[str, bytes]] = {name: {}}
        self.allowed = True
        self._proxy = TlsProxy({HOST: self._reply})

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._proxy.close()

    @property
    def calls(self) -> list[Call]:
        """All calls, in order."""
        return [call for _, call in self._proxy.calls]

    def kubeconfig(self) -> str:
        """Return a configuration with which kubectl uses this server."""
        proxy = self._proxy
        cluster = {"server": f"https://{HOST}", "certificate-authority": proxy.ca_file, "proxy-url": proxy.url}
        return yaml.safe_dump(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "clusters": [{"name": "here", "cluster": cluster}],
                "users": [{"name": "me", "user": {"token": TOKEN}}],
                "contexts": [{"name": "here", "context": {"cluster": "here", "user": "me"}}],
                "current-context": "here",
            }
        )

    def _reply(self, call: Call) -> Answer:
        if call.headers.get("Authorization") != f"Bearer {TOKEN}":
            return _status(401, "Unauthorized", "Unauthorized")
        document = _discovery(call.path)
        if document is not None:
            return Answer.json(document)
        name = call.path.removeprefix("/api/v1/namespaces/default/secrets/")
        if not self.allowed or name not in self.secrets or call.method != "PATCH":
            message = 'secrets "netrc" is forbidden: User "system:serviceaccount:default:uvtokend" cannot patch'
            return _status(403, "Forbidden", message)
        return self._apply(name, call)

    def _apply(self, name: str, call: Call) -> Answer:
        given = yaml.safe_load(call.body)
        applies = call.headers["Content-Type"] == "application/apply-patch+yaml" and call.query.get("fieldManager")
        if not applies or given["kind"] != "Secret" or given["metadata"]["name"] != name:
            return _status(400, "BadRequest", "this is not a server-side apply of that Secret")
        self.secrets[name] = {key: base64.b64decode(value) for key, value in given["data"].items()}
        return Answer.json({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "namespace": "default"}})


def _status(code: int, reason: str, message: str) -> Answer:
    status = {"apiVersion": "v1", "kind": "Status", "status": "Failure", "reason": reason, "message": message}
    return Answer.json({**status, "code": code}, code)


def _discovery(path: str) -> dict[str, Any] | None:
    groups = sorted({version.partition("/")[0] for version, _, _ in RESOURCES if "/" in version})
    versions = {f"/apis/{version}" if "/" in version else f"/api/{version}": version for version, _, _ in RESOURCES}
    if path == "/version":
        return {"major": "1", "minor": "32", "gitVersion": "v1.32.0"}
    if path == "/api":
        return {"kind": "APIVersions", "versions": ["v1"]}
    if path == "/apis":
        entries = [{"groupVersion": f"{group}/v1", "version": "v1"} for group in groups]
        listed = [
            {"name": group, "versions": [entry], "preferredVersion": entry}
            for group, entry in zip(groups, entries, strict=True)
        ]
        return {"kind": "APIGroupList", "apiVersion": "v1", "groups": listed}
    if path in versions:
        resources = [
            {"name": plural, "singularName": kind.lower(), "namespaced": True, "kind": kind, "verbs": ["get", "patch"]}
            for version, plural, kind in RESOURCES
            if version == versions[path]
        ]
        return {"kind": "APIResourceList", "groupVersion": versions[path], "resources": resources}
    if path == "/openapi/v3":
        return {"paths": {"api/v1": {"serverRelativeURL": "/openapi/v3/api/v1?hash=1"}}}
    if path == "/openapi/v3/api/v1":
        patch = {
            "parameters": [{"name": "fieldValidation", "in": "query", "schema": {"type": "string"}}],
            "x-kubernetes-action": "patch",
            "x-kubernetes-group-version-kind": {"group": "", "version": "v1", "kind": "Secret"},
        }
        paths = {"/api/v1/namespaces/{namespace}/secrets/{name}": {"patch": patch}}
        return {"openapi": "3.0.0", "info": {"title": "Kubernetes", "version": "v1.32.0"}, "paths": paths}
    return None

"""The manifests and the hook of ``secret.yaml`` with the real kubectl, against an emulated API server."""

from __future__ import annotations

import base64
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from clouds.kubernetes import TOKEN as ACCOUNT_TOKEN
from clouds.kubernetes import Kubernetes
from support.desk import TOKEN, Desk, desk
from support.waiting import until

__all__ = ["desk"]
pytestmark = pytest.mark.kubectl

KUBERNETES = Path(__file__).parent.parent.parent / "packaging" / "kubernetes"


@pytest.fixture
def api(desk: Desk) -> Iterator[Kubernetes]:
    """Emulate an API server, and configure the hook of ``secret.yaml`` in the home directory."""
    documents = list(yaml.safe_load_all((KUBERNETES / "secret.yaml").read_text()))
    (script,) = (document["data"]["apply.sh"] for document in documents if document["kind"] == "ConfigMap")
    (desk.home / "apply.sh").write_text(script)
    (account,) = (document["metadata"]["name"] for document in documents if document["kind"] == "Secret")
    with Kubernetes(account) as server:
        (desk.home / "kubeconfig").write_text(server.kubeconfig())
        desk.extra["KUBECONFIG"] = str(desk.home / "kubeconfig")
        desk.configure(("a", "a.example"), daemon=f'[daemon]\non-delivered = ["/bin/sh", "{desk.home}/apply.sh"]\n')
        yield server


def test_the_hook_applies_the_netrc_as_a_secret(desk: Desk, api: Kubernetes) -> None:
    """After each delivery, the hook applies a Secret that contains the netrc byte for byte."""
    desk.run("once")
    assert api.secrets["netrc"] == {".netrc": desk.netrc.read_bytes()}
    assert TOKEN.encode() in api.secrets["netrc"][".netrc"]
    (applied,) = (call for call in api.calls if call.method == "PATCH")
    assert applied.query["fieldManager"] == "uvtokend"
    assert applied.query["force"] == "true"
    assert base64.b64encode(desk.netrc.read_bytes()) in applied.body


def test_a_missing_permission_is_reported(desk: Desk, api: Kubernetes) -> None:
    """Without the role binding, the token is still delivered to the netrc, and ``status`` names the failing hook."""
    api.allowed = False
    desk.run("start")
    document = until(lambda: (shown := desk.document("status"))["delivery"]["problem"] and shown)
    assert document["indexes"][0]["delivered"]
    assert "on-delivered" in document["delivery"]["problem"]
    assert ACCOUNT_TOKEN not in document["delivery"]["problem"]


@pytest.mark.parametrize("file", sorted(KUBERNETES.glob("*.yaml")), ids=lambda file: file.name)
def test_kubectl_accepts_the_manifests(file: Path, desk: Desk, api: Kubernetes) -> None:
    """kubectl knows the kind and version of every object in the manifests."""
    command = ["kubectl", "create", "--dry-run=client", "--validate=false", "--output=name", f"--filename={file}"]
    done = subprocess.run(command, env=desk.env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == len(list(yaml.safe_load_all(file.read_text())))

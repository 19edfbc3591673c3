"""The manifests and the hook of ``secret.yaml`` with a real kubectl, against an emulated API server."""

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
    """An API server, and a home directory whose configuration is that of ``secret.yaml``."""
    documents = list(yaml.safe_load_all((KUBERNETES / "secret.yaml").read_text()))
    (script,) = (document["data"]["apply.sh"] for document in documents if document["kind"] == "ConfigMap")
    (desk.home / "apply.sh").write_text(script)
    (account,) = (document["metadata"]["name"] for document in documents if document["kind"] == "Secret")
    with Kubernetes(account) as server:
        (desk.home / "kubeconfig").write_text(server.kubeconfig())
        desk.extra["KUBECONFIG"] = str(desk.home / "kubeconfig")
        desk.configure(("a", "a.example"), daemon=f'[daemon]\non-delivered = ["/bin/sh", "{desk.home}/apply.sh"]\n')
        yield server


def test_the_secret_is_the_netrc(desk: Desk, api: Kubernetes) -> None:
    """After each delivery the hook applies the Secret on the server's side, with the netrc as it is, byte for byte."""
    desk.run("once")
    assert api.secrets["netrc"] == {".netrc": desk.netrc.read_bytes()}
    assert TOKEN.encode() in api.secrets["netrc"][".netrc"]
    (applied,) = (call for call in api.calls if call.method == "PATCH")
    assert applied.query["fieldManager"] == "uvtokend"
    assert applied.query["force"] == "true"
    assert base64.b64encode(desk.netrc.read_bytes()) in applied.body


def test_a_missing_permission_is_told(desk: Desk, api: Kubernetes) -> None:
    """Without the role binding the token is delivered to the netrc anyway, and ``status`` names the hook."""
    api.allowed = False
    desk.run("start")
    document = until(lambda: (found := desk.document("status"))["delivery"]["problem"] and found)
    assert document["indexes"][0]["delivered"]
    assert "on-delivered" in document["delivery"]["problem"]
    assert ACCOUNT_TOKEN not in document["delivery"]["problem"]


@pytest.mark.parametrize("file", sorted(KUBERNETES.glob("*.yaml")), ids=lambda file: file.name)
def test_kubectl_takes_the_manifests(file: Path, desk: Desk, api: Kubernetes) -> None:
    """Each object of each manifest has a kind and a version that kubectl maps to a resource."""
    command = ["kubectl", "create", "--dry-run=client", "--validate=false", "--output=name", f"--filename={file}"]
    done = subprocess.run(command, env=desk.env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == len(list(yaml.safe_load_all(file.read_text())))

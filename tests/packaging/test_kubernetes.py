"""The manifests and CI files are valid according to the published schemas,
and use existing commands and configurations.
"""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from uvtokend.cli.verbs import VERBS
from uvtokend.core.config.settings import parse
from uvtokend.core.config.toml_document import Source

PACKAGING = Path(__file__).parent.parent.parent / "packaging"
MANIFESTS = sorted((PACKAGING / "kubernetes").glob("*.yaml"))
DOCUMENTS = [(file.stem, document) for file in MANIFESTS for document in yaml.safe_load_all(file.read_text())]


def containers() -> list[dict[str, Any]]:
    """Return every container of every pod."""
    pods = [document["spec"] for _, document in DOCUMENTS if document["kind"] == "Pod"]
    pods += [
        document["spec"]["template"]["spec"] for _, document in DOCUMENTS if "template" in document.get("spec", {})
    ]
    return [container for pod in pods for container in (*pod.get("initContainers", ()), *pod["containers"])]


@pytest.mark.parametrize(("file", "document"), DOCUMENTS, ids=[f"{file}-{doc['kind']}" for file, doc in DOCUMENTS])
def test_a_manifest_is_valid(file: str, document: dict[str, Any]) -> None:
    """Every manifest is valid according to the published schema, which allows no unknown key."""
    assert file
    kubernetes_validate.validate(document, "1.31", strict=True)


def test_every_container_has_least_privilege() -> None:
    """No container runs as root, gains privileges or writes to its root file system."""
    assert len(containers()) == 5
    for container in containers():
        security = container["securityContext"]
        assert security["allowPrivilegeEscalation"] is False
        assert security["readOnlyRootFilesystem"] is True
        assert security["capabilities"] == {"drop": ["ALL"]}


def test_the_role_names_one_secret() -> None:
    """The pod's role can read and change only that one Secret."""
    (role,) = (document for _, document in DOCUMENTS if document["kind"] == "Role")
    assert role["rules"] == [
        {"apiGroups": [""], "resources": ["secrets"], "resourceNames": ["netrc"], "verbs": ["get", "patch"]}
    ]


def test_the_configurations_are_valid() -> None:
    """Every config.toml in a ConfigMap is a valid configuration."""
    texts = [document["data"]["config.toml"] for _, document in DOCUMENTS if document["kind"] == "ConfigMap"]
    assert len(texts) == 2
    for text in texts:
        settings = parse([Source("config.toml", text.encode(), "/")], "/home/me", {})
        assert settings.netrc == "/run/uvtokend/private/netrc"


def test_every_uvtokend_command_exists() -> None:
    """Probes, arguments and CI jobs use commands that exist in this version."""
    words = [container["args"] for container in containers() if "args" in container]
    probes = ("startupProbe", "livenessProbe", "readinessProbe")
    asked = [
        container[probe]["exec"]["command"] for container in containers() for probe in probes if probe in container
    ]
    words += [command[1:] for command in asked if command[0] == "uvtokend"]
    for file in (PACKAGING / "ci").glob("*.yml"):
        lines = [line.strip().removeprefix("- ") for line in file.read_text().splitlines()]
        words += [shlex.split(line)[1:] for line in lines if line.startswith("uvtokend ")]
        assert yaml.safe_load(file.read_text())
    assert len(words) >= 6
    assert {line[0] for line in words} <= set(VERBS)


def test_the_image_runs_one_unprivileged_process() -> None:
    """The image does not run as root, checks its health with `status`, and starts uvtokend without a shell."""
    lines = (PACKAGING / "container" / "Containerfile").read_text().splitlines()
    assert "USER 65532:65532" in lines
    assert 'ENTRYPOINT ["uvtokend"]' in lines
    assert any(line.startswith("HEALTHCHECK ") and line.endswith('CMD ["uvtokend", "status"]') for line in lines)

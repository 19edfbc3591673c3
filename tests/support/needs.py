"""What some tests need and not every machine has. Such tests have a marker, and are left out with a reason."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from support.namespace import missing_for_mounts
from support.places import benchmark_cache
from uvtokend.service import launchd

_LINUX, _MAC = sys.platform == "linux", sys.platform == "darwin"


def _missing_for_linux() -> str | None:
    return None if _LINUX else "this is not Linux; the marker of each test gives its reason"


def _missing_for_macos() -> str | None:
    return None if _MAC else "this is not a Mac"


def _missing_for_gui() -> str | None:
    if not _MAC:
        return "this is not a Mac"
    return None if launchd.domain() is not None else "nobody is logged in on the screen of this Mac"


def _missing_for_systemd() -> str | None:
    if not _LINUX or os.getuid() != 0:
        return "a private systemd needs Linux and root"
    if not shutil.which("systemctl") or not any(Path(p, "systemd/systemd").exists() for p in ("/usr/lib", "/lib")):
        return "systemd is not installed: apt-get install systemd dbus-user-session"
    return missing_for_mounts()


def _missing_for_root() -> str | None:
    return "only root sees the connections of daemon and workers" if os.getuid() else None


def _missing_for_ensurepip() -> str | None:
    if importlib.util.find_spec("ensurepip") is not None:
        return None
    return "this Python has no ensurepip: apt-get install python3-venv"


def _missing_for_curl() -> str | None:
    return None if shutil.which("curl") else "curl is not installed: apt-get install curl"


def _missing_for_strace() -> str | None:
    if not _LINUX:
        return "this is not Linux"
    return None if shutil.which("strace") else "strace is not installed: apt-get install strace"


def _missing_for_gcloud() -> str | None:
    return None if shutil.which("gcloud") else "gcloud, which is part of the Google Cloud CLI, is not installed"


def _missing_for_kubectl() -> str | None:
    return None if shutil.which("kubectl") else "kubectl is not installed: apt-get install kubernetes-client"


def _missing_for_ansible() -> str | None:
    return None if shutil.which("ansible-playbook") else "Ansible is not installed: apt-get install ansible-core"


def _missing_for_systemd_creds() -> str | None:
    if os.getuid() != 0 or not shutil.which("systemd-creds"):
        return "the machine's key needs root and systemd-creds"
    return missing_for_mounts()


def dotnet_program() -> Path | None:
    """Return the path of Microsoft's credential provider, a self-contained .NET program; None if it is not installed.

    It is part of artifacts-keyring, in this environment or in the one that the benchmark keeps.
    """
    spec = importlib.util.find_spec("artifacts_keyring")
    packages = [Path(spec.origin).parent] if spec is not None and spec.origin is not None else []
    packages += benchmark_cache().glob("artifacts-keyring/lib/python*/site-packages/artifacts_keyring")
    name = "CredentialProvider.Microsoft"
    programs = (package / "plugins" / "plugins" / "netcore" / name / name for package in packages)
    return next((program for program in programs if os.access(program, os.X_OK)), None)


def _missing_for_artifacts_keyring() -> str | None:
    if importlib.util.find_spec("artifacts_keyring") is not None:
        return None
    command = f"uv pip install --python {sys.executable} artifacts-keyring"
    return f"Microsoft's artifacts-keyring (76 MB) is not installed: {command}"


#: Marker -> a function that returns why its tests cannot run here, or None.
NEEDS: Mapping[str, Callable[[], str | None]] = {
    "linux": _missing_for_linux,
    "macos": _missing_for_macos,
    "gui": _missing_for_gui,
    "systemd": _missing_for_systemd,
    "mounts": missing_for_mounts,
    "root": _missing_for_root,
    "ensurepip": _missing_for_ensurepip,
    "curl": _missing_for_curl,
    "strace": _missing_for_strace,
    "artifacts_keyring": _missing_for_artifacts_keyring,
    "gcloud": _missing_for_gcloud,
    "kubectl": _missing_for_kubectl,
    "ansible": _missing_for_ansible,
    "systemd_creds": _missing_for_systemd_creds,
}

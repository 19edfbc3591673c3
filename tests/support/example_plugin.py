"""A small provider as anybody may write one, complete: it keeps the contract, and is broken in many ways on purpose."""

from __future__ import annotations

from pathlib import Path

#: What its author would have in ``acme_provider.py``.
CODE = """
import json
import logging
import os
import sys
import time
import urllib.error
import urllib.request
from datetime import UTC, datetime, timedelta

from uvtokend.core.model import Credential, Secret
from uvtokend.providers.kit.failures import rejected, transient
from uvtokend.providers.kit.secrets import read_secret


def fetch(request):
    options = dict(request.options)
    server, key = options.pop("server", None), read_secret(options.pop("key", None))
    if not isinstance(server, str) or options:
        raise rejected("bad-options", "The options of acme are server and key.")
    token, seconds = _ask(server, key)
    now = datetime.now(UTC)
    return Credential("acme", Secret(token), now, now + timedelta(seconds=seconds), None, "me@acme.example")


def _ask(server, key):
    wanted = urllib.request.Request(f"{server}/token", headers={"X-Key": key.reveal()})
    try:
        with urllib.request.urlopen(wanted, timeout=10) as answer:
            found = json.load(answer)
    except urllib.error.HTTPError as error:
        refused = error.code in (401, 403)
    except OSError:
        refused = False
    else:
        return found["token"], found["seconds"]
    if refused:
        raise rejected("wrong-key", "acme does not accept the key.", "acme keys renew")
    raise transient("unreachable", "acme cannot be reached.")
"""


def install(folder: Path, code: str = CODE, package: str = "acme-provider", points: str = "") -> Path:
    """Install the plug-in into a folder, as an installer would; it is found where the folder is on Python's path."""
    module = package.replace("-", "_")
    info = folder / f"{module}-1.dist-info"
    info.mkdir(parents=True)
    (folder / f"{module}.py").write_text(code)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1\n")
    (info / "entry_points.txt").write_text(points or f"[uvtokend.providers]\nacme = {module}:fetch\n")
    return folder

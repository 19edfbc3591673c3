"""A small, complete provider, as any author would write it. Tests break it in many ways."""

from __future__ import annotations

from pathlib import Path

#: The text of the author's ``acme_provider.py``.
CODE = """
import json
import logging
import os
import sys
import time
import urllib.error
import urllib.request
from datetime import UTC, datetime, timedelta

from uvtokend.plugin import Credential, Secret, read_secret, rejected, transient


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
            document = json.load(answer)
    except urllib.error.HTTPError as error:
        refused = error.code in (401, 403)
    except OSError:
        refused = False
    else:
        return document["token"], document["seconds"]
    if refused:
        raise rejected("wrong-key", "acme does not accept the key.", "acme keys renew")
    raise transient("unreachable", "acme cannot be reached.")
"""


def install(directory: Path, code: str = CODE, package: str = "acme-provider", points: str = "") -> Path:
    """Install the plug-in into a directory, as an installer would;
    workers with that directory on their path find it.
    """
    module = package.replace("-", "_")
    info = directory / f"{module}-1.dist-info"
    info.mkdir(parents=True)
    (directory / f"{module}.py").write_text(code)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1\n")
    (info / "entry_points.txt").write_text(points or f"[uvtokend.providers]\nacme = {module}:fetch\n")
    return directory

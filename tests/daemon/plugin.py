"""A test provider, installed for the workers like any author's plug-in: by an entry point."""

from __future__ import annotations

import os
from pathlib import Path

CODE = """
import os, signal, subprocess, sys, time
from datetime import UTC, datetime, timedelta
from uvtokend.plugin import Credential, Failure, FetchFailed, Secret

def save(path):
    with open(path, "w") as file:
        file.write("successor")

def fetch(request):
    how = request.option("how")
    note = request.option("note")
    if how == "save":
        signal.signal(signal.SIGTERM, lambda *_: (time.sleep(0.5), save(request.option("saved")), os._exit(0)))
    if how == "deaf":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if note:
        helper = subprocess.Popen(["sleep", "600"], start_new_session=request.option("agent") is True)
        with open(note + ".new", "w") as file:
            file.write(f"{os.getpid()} {helper.pid}")
        os.rename(note + ".new", note)
    if how in {"hang", "save", "deaf"}:
        time.sleep(600)
    if how == "die":
        os._exit(7)
    if how == "raise":
        raise RuntimeError("the-canary")
    if how == "login":
        raise FetchFailed(Failure("login-required", "sso-expired", "Sign in.", "aws sso login"))
    if how == "nonsense":
        return "a token"
    if how == "print":
        print("the-canary" * 10000)
        print("the-canary", file=sys.stderr)
    if how == "stdin":
        assert sys.stdin.read() == ""
    if how == "environment":
        assert "UVTOKEND_REQUEST" not in os.environ
        return Credential(os.environ["WHO"], Secret("t"), datetime.now(UTC))
    if how == "line-break":
        return Credential("me", Secret("a\\nmachine evil.example login x password y"), datetime.now(UTC))
    if how == "grows":
        filled = [bytearray(b"x") * (1 << 20) for _ in iter(int, 1)]
    if how == "huge":
        return Credential("me", Secret("x" * 1000000), datetime.now(UTC))
    now = datetime.now(UTC)
    life = request.option("life") or 3600
    return Credential("me", Secret(f"t{time.time_ns()}"), now, now + timedelta(seconds=life), None, "me@example.com")
"""


def install(directory: Path) -> dict[str, str]:
    """Install the plug-in into a directory and return an environment in which it is the provider ``made-up``."""
    info = directory / "made_up-1.dist-info"
    info.mkdir(parents=True)
    (directory / "made_up.py").write_text(CODE)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: made-up\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[uvtokend.providers]\nmade-up = made_up:fetch\n")
    return {**os.environ, "PYTHONPATH": str(directory)}

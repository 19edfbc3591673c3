"""A user's machine in a temporary folder: home, configuration, netrc, a real daemon and a real uv."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from uvtokend.errors import UvtokendError
from uvtokend.sandbox.codeartifact import ACCOUNT, CodeArtifact

#: What a user's shell may hold that must not reach the inside.
_FOREIGN = ("AWS_", "UV_", "UVTOKEND_", "XDG_", "PIP_", "PYTHONPATH", "NETRC", "NOTIFY_SOCKET", "VIRTUAL_ENV")
_PROXIES = ("http_proxy", "https_proxy", "all_proxy")
#: Seconds for a daemon to come or to go.
_PATIENCE = 30


class Laptop:
    """Everything that a uvtokend and a uv of their own need.

    Args:
        folder: An empty folder; nothing is written elsewhere.
        cloud: Where the tokens come from.
    """

    def __init__(self, folder: Path, cloud: CodeArtifact) -> None:
        self.folder = folder
        self.cloud = cloud
        self.netrc = folder / "home" / ".netrc"
        self.config = folder / "home" / "config.toml"
        for name in ("home", "run", "tmp"):
            (folder / name).mkdir(mode=0o700)
        (folder / "home" / "aws").write_text(
            "[dev]\naws_access_key_id = AKIAEXAMPLE\naws_secret_access_key = example\n"
        )
        kept = {name: text for name, text in os.environ.items() if not _foreign(name)}
        self.environment = {
            **kept,
            "HOME": str(folder / "home"),
            "TMPDIR": str(folder / "tmp"),
            "NETRC": str(self.netrc),
            "UVTOKEND_CONFIG": str(self.config),
            "UVTOKEND_SOCKET": str(folder / "run" / "control.sock"),
            "UV_NO_CONFIG": "1",
            "UV_NO_PROGRESS": "1",
            "UV_CACHE_DIR": str(folder / "cache"),
            "UV_PYTHON": sys.executable,
            "UV_PYTHON_DOWNLOADS": "never",
            "UV_LINK_MODE": "copy",
        }
        self.daemon: subprocess.Popen[bytes] | None = None

    def configure(self, *urls: str, extra: str = "") -> None:
        """Write a configuration with one index for each URL, all of one CodeArtifact domain."""
        env = {**self.cloud.environment(), "AWS_SHARED_CREDENTIALS_FILE": str(self.folder / "home" / "aws")}
        inside = ", ".join(f'{name} = "{text}"' for name, text in env.items())
        tables = [
            f'[[index]]\nname = "demo-{number}"\nurl = "{url}"\nprovider = "aws-codeartifact"\nprofile = "dev"\n'
            f'domain = "acme"\ndomain-owner = "{ACCOUNT}"\nregion = "eu-central-1"\nenv = {{ {inside} }}\n'
            for number, url in enumerate(urls)
        ]
        self.config.write_text(extra + "\n".join(tables))

    def start(self) -> None:
        """Start the daemon in the foreground of its own session."""
        self.daemon = subprocess.Popen(
            [sys.executable, "-m", "uvtokend", "run", "--quiet"],
            env=self.environment,
            stdin=subprocess.DEVNULL,
            start_new_session=True,  # a Ctrl-C is for us; we end the daemon ourselves
        )

    def stop(self) -> None:
        """End the daemon, by force if it must be."""
        if self.daemon is None:
            return
        self.daemon.terminate()
        try:
            self.daemon.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            self.daemon.kill()
            self.daemon.wait()

    def uvtokend(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a command of ours."""
        return self.run([sys.executable, "-m", "uvtokend", *arguments])

    def uv(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run the real uv."""
        return self.run([find_uv(), *arguments], **environment)

    def run(self, command: list[str], **environment: str) -> subprocess.CompletedProcess[str]:
        """Run a command inside."""
        return subprocess.run(
            command,
            env={**self.environment, **environment},
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )


def find_uv() -> str:
    """Return the uv beside our Python, or the one on the PATH.

    Raises:
        UvtokendError: There is none.
    """
    beside = Path(sys.executable).parent / "uv"
    found = str(beside) if beside.exists() else shutil.which("uv")
    if found is None:
        raise UvtokendError("uv was not found.", f"{sys.executable} -m pip install uv")
    return found


def _foreign(name: str) -> bool:
    return name.startswith(_FOREIGN) or name.lower() in _PROXIES

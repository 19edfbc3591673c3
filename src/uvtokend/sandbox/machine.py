"""A user's machine in a temporary directory: home, configuration, netrc, a real daemon and a real uv."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from uvtokend import paths
from uvtokend.errors import UvtokendError
from uvtokend.sandbox.codeartifact import ACCOUNT, CodeArtifact

#: The variables of the user's environment, besides PATH, that commands inside get: languages and libraries. UV_*,
#: AWS_*, NETRC, proxies and many more would change what uv and boto3 do.
_KEPT: tuple[str, ...] = ("LANG", "LC_ALL", "LC_CTYPE", "TZ", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "PYTHONPATH")
#: Seconds that a daemon may take to stop.
_PATIENCE = 10.0
#: Seconds that a command may take.
_LIMIT = 120.0


class Machine:
    """A separate environment for a uvtokend and a uv.

    Args:
        directory: An empty directory; nothing is written elsewhere.

    Attributes:
        environment: The environment of every command that is run here; this Python is the first on the PATH.
        daemon: The daemon's process, once it was started.

    Raises:
        UvtokendError: The directory's path is too long.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.home = directory / "home"
        self.netrc = self.home / ".netrc"
        self.config = self.home / "config.toml"
        self.state = self.home / ".local" / "state" / "uvtokend"
        self.output = directory / "daemon.log"
        self.daemon: subprocess.Popen[bytes] | None = None
        socket = str(directory / "run" / "control.sock")
        if len(os.fsencode(socket)) > paths.SUN_PATH_MAX:
            message = f"The path of the temporary directory is too long for a unix socket in it: {directory}"
            raise UvtokendError(message, "set TMPDIR=/tmp")
        for name in ("home", "run", "tmp"):
            (directory / name).mkdir(mode=0o700)
        self.environment = {name: os.environ[name] for name in _KEPT if name in os.environ} | {
            "PATH": os.pathsep.join([os.path.dirname(sys.executable), os.environ.get("PATH", os.defpath)]),
            "HOME": str(self.home),
            "TMPDIR": str(directory / "tmp"),
            "NETRC": str(self.netrc),
            "XDG_CONFIG_DIRS": str(self.home / "etc"),
            "XDG_STATE_HOME": str(self.state.parent),
            "UVTOKEND_CONFIG": str(self.config),
            "UVTOKEND_SOCKET": socket,
            "UV_CACHE_DIR": str(directory / "cache"),
            "UV_LINK_MODE": "copy",
            "UV_NO_PROGRESS": "1",
            "UV_PYTHON_DOWNLOADS": "never",
        }

    def write(self, *tables: str) -> None:
        """Write uvtokend's configuration.

        Args:
            tables: The parts of the configuration, in TOML.
        """
        self.config.write_text("\n".join(tables), encoding="utf-8")
        self.config.chmod(0o600)

    def start(self, env: Mapping[str, str] | None = None) -> None:
        """Start the daemon in its own session, so that Ctrl-C does not reach it. Only the daemon gets `env`."""
        with self.output.open("ab") as output:
            self.daemon = subprocess.Popen(
                self.ourselves("run", "--quiet"),
                env={**self.environment, **(env or {})},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    def stop(self) -> None:
        """Stop the daemon; kill it if it does not stop."""
        if self.daemon is None:
            return
        self.daemon.terminate()
        try:
            self.daemon.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            self.daemon.kill()
            self.daemon.wait()

    @staticmethod
    def ourselves(*arguments: str) -> list[str]:
        """Return the command line of a uvtokend command."""
        return [sys.executable, "-P", "-m", "uvtokend", *arguments]

    def uvtokend(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a uvtokend command."""
        return self.run(self.ourselves(*arguments))

    def uv(
        self, *arguments: str, cwd: Path | None = None, env: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run the real uv."""
        return self.run([find_uv(), *arguments], cwd, env)

    def install(
        self, target: Path, *arguments: str, env: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Install packages into a directory with uv, without a cache."""
        # Without --python and --target, uv would install into our own environment.
        where = ("--python", sys.executable, "--target", str(target))
        return self.uv("pip", "install", "--no-cache", *where, *arguments, env=env)

    def run(
        self, command: Sequence[str], cwd: Path | None = None, env: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a command inside. After two minutes, it is killed with all processes that it started."""
        process = subprocess.Popen(
            command,
            env={**self.environment, **(env or {})},
            cwd=cwd or self.directory,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            errors="replace",
            start_new_session=True,
        )
        try:
            out, err = process.communicate(timeout=_LIMIT)
        except BaseException as error:
            with contextlib.suppress(ProcessLookupError, PermissionError):  # EPERM: macOS, if the leader has ended
                os.killpg(process.pid, signal.SIGKILL)
            out, err = process.communicate()
            if not isinstance(error, subprocess.TimeoutExpired):
                raise
        return subprocess.CompletedProcess(command, process.returncode, out, err)


class AwsMachine(Machine):
    """A machine with AWS keys.

    Args:
        directory: An empty directory; nothing is written elsewhere.
        cloud: The emulator that issues the tokens.
    """

    def __init__(self, directory: Path, cloud: CodeArtifact) -> None:
        super().__init__(directory)
        self.cloud = cloud
        keys = "[dev]\naws_access_key_id = AKIAEXAMPLE\naws_secret_access_key = example\n"
        (self.home / "aws").write_text(keys, encoding="utf-8")

    def configure(self, **urls: str) -> None:
        """Write uvtokend's configuration: index names and their URLs, all of one CodeArtifact domain."""
        env = {**self.cloud.environment(), "AWS_SHARED_CREDENTIALS_FILE": str(self.home / "aws")}
        inside = ", ".join(f"{name} = {json.dumps(text)}" for name, text in env.items())
        tables = [
            f'[[index]]\nname = "{name}"\nurl = "{url}"\nprovider = "aws-codeartifact"\nprofile = "dev"\n'
            f'domain = "acme"\ndomain-owner = "{ACCOUNT}"\nregion = "eu-central-1"\nenv = {{ {inside} }}\n'
            for name, url in urls.items()
        ]
        self.write(*tables)


def find_uv() -> str:
    """Return the path of the uv that is installed beside this Python, otherwise of the one on the PATH.

    Raises:
        UvtokendError: uv is not installed.
    """
    try:
        from uv import find_uv_bin  # noqa: PLC0415 - uv is only installed for the demo and the tests

        return find_uv_bin()
    except (ImportError, FileNotFoundError):
        uv = shutil.which("uv")
    if uv is None:
        message = "uv was not found, neither beside this Python nor on the PATH."
        raise UvtokendError(message, f"{shlex.quote(sys.executable)} -m pip install uv")
    return uv

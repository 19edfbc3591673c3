"""An ordinary user who has installed uvtokend, beside a real ``systemd --user``; ``systemd_user.sh`` explains how."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

import uvtokend

PACKAGE = Path(uvtokend.__file__).parent
#: The most seconds for all scripts of a test.
_PATIENCE = 150.0
SCRIPT = Path(__file__).parent / "systemd_user.sh"
#: The output of an index's command.
ANSWER = '{"username": "me", "password": "s3cr3t-token", "expires_in": 3600}'
#: Endpoints of single services (botocore, "Configuration: services").
AWS = """\
[default]
region = eu-central-1
services = local
aws_access_key_id = AKIAEXAMPLE
aws_secret_access_key = example
[profile sso]
region = eu-central-1
services = local
sso_session = corp
sso_account_id = 123456789012
sso_role_name = dev
[sso-session corp]
sso_start_url = https://corp.awsapps.com/start
sso_region = eu-central-1
sso_registration_scopes = sso:account:access
[profile process]
region = eu-central-1
services = local
credential_process = /bin/bash /home/tester/process
[services local]
codeartifact =
  endpoint_url = {url}
sts =
  endpoint_url = {url}
sso =
  endpoint_url = {url}
sso_oidc =
  endpoint_url = {url}
"""

#: The beginning of every script.
HEAD = """
set -eu
show() { systemctl --user show uvtokend --property="$1" --value; }
# Wait until a command succeeds.
await() { for _ in $(seq 300); do ! eval "$1" >/dev/null 2>&1 || return 0; sleep 0.1; done; echo "timed out: $1"; }
"""

#: A program like that of `uv tool install`, from a copy of the package. A guard tick every 25 s would be too slow for
#: tests.
PROGRAM = """\
#!{python} -P
import sys
sys.path.insert(0, {lib!r})
if "run" in sys.argv:
    from uvtokend.daemon import timer
    timer.GUARD_TICK = 0.5
from uvtokend.cli.main import main
sys.exit(main())
"""


@dataclass(frozen=True)
class Person:
    """An ordinary user.

    Args:
        home: The home directory.
        reaches: Directories that this user can access even if they are in a closed one.
        place: The path of the home directory inside the namespace.
    """

    home: Path
    reaches: tuple[Path, ...] = ()
    place: str = "/home/tester"

    def __call__(self, *scripts: str) -> list[str]:
        """Run scripts beside a real user manager, each in its own login session; return the lines that they print."""
        code = [sys.base_prefix, sys.prefix, *map(str, (PACKAGE.parent, *self.reaches))]
        command = [str(SCRIPT), str(self.home), *code, "--", *(HEAD + script for script in scripts)]
        # After SIGTERM the script stops everything that it started, so it must get SIGTERM even if we are killed.
        words = ["setpriv", "--pdeathsig", "TERM", *command]
        env = {**os.environ, "TESTER_HOME": self.place}
        with subprocess.Popen(words, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            try:
                output, errors = process.communicate(timeout=_PATIENCE)
            except BaseException:
                process.terminate()
                raise
        assert process.returncode == 0, output + errors
        return output.splitlines()

    def write(self, name: str, text: str, mode: int = 0o600) -> None:
        """Write a file below the home directory."""
        file = self.home / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        file.chmod(mode)

    def configure(self, *commands: str) -> None:
        """Configure an index for each command, which prints a credential."""
        tables = (
            f'[[index]]\nname = "{Path(command).name}"\nurl = "https://{Path(command).name}.example/simple/"\n'
            f'provider = "command"\ncommand = ["/bin/bash", "{command}"]\n'
            for command in commands
        )
        self.write(".config/uvtokend/config.toml", "".join(tables))

    def installs(self) -> None:
        """Install the program."""
        shutil.copytree(PACKAGE, self.home / "lib" / "uvtokend", ignore=shutil.ignore_patterns("__pycache__"))
        program = PROGRAM.format(python=sys.executable, lib=f"{self.place}/lib")
        self.write(".local/bin/uvtokend", program, 0o755)


@pytest.fixture
def person(tmp_path: Path) -> Person:
    """Return a user who has installed the program."""
    someone = Person(tmp_path)
    someone.installs()
    return someone

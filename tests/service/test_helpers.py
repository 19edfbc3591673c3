"""Third-party helper programs in the service, with and without the hardened layer, under a real ``systemd --user``."""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import shutil
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from support.needs import dotnet_program
from support.person import ANSWER, AWS, Person, person
from uvtokend.sandbox.codeartifact import ACCOUNT, CodeArtifact

__all__ = ["person"]

START = "https://corp.awsapps.com/start"
FEED = "https://pkgs.dev.azure.com/acme/_packaging/platform/pypi/simple/"
#: The input of Microsoft's credential provider (artifacts-credprovider, README, "Environment Variables").
ENDPOINTS = json.dumps({"endpointCredentials": [{"endpoint": FEED, "username": "me", "password": "dotnet-token"}]})


@dataclass(frozen=True)
class Helper:
    """A program that is run as the command of an index.

    Args:
        program: The program that must be installed; None if it always is.
        command: Lines of a shell script.
        says: The last line that it must print.
        writes: The directory below the home directory that it writes to.
    """

    program: str | None
    command: str
    says: str
    writes: str | None = None

    @property
    def present(self) -> bool:
        """Whether this machine has the program."""
        return self.program is None or shutil.which(self.program) is not None


#: Third-party programs are tested if they are installed.
HELPERS: Mapping[str, Helper] = {
    # Just-in-time compilers (node, Java, .NET) write machine code into memory and execute it.
    "jit": Helper(None, f"{sys.executable} -c 'import mmap; mmap.mmap(-1, 4096, prot=7); print(4950)'", "4950"),
    "node": Helper(
        "node", "node -e 'let s = 0; for (let i = 0; i < 1e7; i++) s += i % 100; console.log(s/1e5)'", "4950"
    ),
    "java": Helper("java", "java -Xmx64m -Xshare:auto /home/tester/Sum.java", "4950"),
    # Without this variable, .NET requires libicu.
    "dotnet": Helper(
        str(dotnet_program() or "dotnet"),
        f"export DOTNET_SYSTEM_GLOBALIZATION_INVARIANT=1 VSS_NUGET_EXTERNAL_FEED_ENDPOINTS={shlex.quote(ENDPOINTS)}\n"
        f"{dotnet_program()} -Uri {FEED} -IsRetry False -NonInteractive True -OutputFormat Json",
        '{"Username":"me","Password":"dotnet-token"}',
    ),
    # With a token file, gcloud calls no server, but still writes its log and its databases.
    "gcloud": Helper("gcloud", "gcloud auth print-access-token", "gcloud-token", ".config/gcloud"),
    "az": Helper(
        "az",
        "az config set core.output=json 2>/dev/null; az config get core.output --query value --output tsv",
        "json",
        ".azure",
    ),
    "ssh-add": Helper("ssh-add", "ssh-add -l | grep -c ED25519", "1"),
    "busctl": Helper(
        "busctl",
        "busctl --user call org.freedesktop.DBus / org.freedesktop.DBus NameHasOwner s org.freedesktop.systemd1",
        "b true",
    ),
    # The Secret Service of a desktop, used over the session bus.
    "secret-tool": Helper("secret-tool", "secret-tool lookup service corp", "keyring-secret"),
    "keyring": Helper(
        "secret-tool",
        f"{sys.executable} -m keyring --keyring-backend keyring.backends.SecretService.Keyring get corp me",
        "keyring-secret",
    ),
}
SUM = """
class Sum {
    public static void main(String[] args) {
        long sum = 0;
        for (int i = 0; i < 10_000_000; i++) sum += i % 100;
        System.out.println(sum / 100_000);
    }
}
"""
LAYERS = """
export CLOUDSDK_AUTH_ACCESS_TOKEN_FILE=/home/tester/gcloud-token
if command -v ssh-agent >/dev/null; then
  eval "$(ssh-agent)" >/dev/null
  ssh-keygen -q -t ed25519 -N "" -f key
  ssh-add -q key 2>/dev/null
fi
if command -v secret-tool gnome-keyring-daemon >/dev/null; then
  printf login | gnome-keyring-daemon --unlock --components=secrets >/dev/null 2>&1
  printf keyring-secret | secret-tool store --label=corp service corp username me
fi
for layer in "" --hardened; do
  rm -rf seen .config/gcloud .azure
  mkdir seen
  cp rotating .aws/sso/cache/*.json
  uvtokend service install $layer >installed 2>&1 || sed "s/^/refused /" installed
  # The second daemon finds valid tokens, and fetches none by itself.
  if [ -n "$layer" ]; then uvtokend refresh >/dev/null 2>&1 || uvtokend status; else await 'uvtokend status'; fi
  uvtokend status --json | tr -d '\\n' | grep -o '"health": "[a-z]*"' | sed "s/^/layer$layer /"
  echo "layer$layer privileges $(show NoNewPrivileges)"
  cat seen/* | sed "s/^/layer$layer /"
  echo "layer$layer sso $(grep -c sso-fresh .aws/sso/cache/*.json)"
  for directory in .config/gcloud .azure; do [ ! -d $directory ] || echo "layer$layer wrote $directory"; done
done
kill "${SSH_AGENT_PID-}" 2>/dev/null || true
journalctl --user 2>&1 | sed "s/^/journal /"
"""


@pytest.mark.systemd
def test_helpers_work_under_both_layers(person: Person) -> None:
    """Helpers that compile at run time, write files, use sockets or botocore's SSO cache work in both layers.

    The test confirms that the hardened layer forbids new privileges. Third-party programs that are not installed are
    left out; a small program that is always present has the same requirements.
    """
    present = {name: helper for name, helper in HELPERS.items() if helper.present}
    for name, helper in present.items():
        script = f"said=$({helper.command} 2>&1 | tail -n 1)\necho \"{name} $said\" >~/seen/{name}\necho '{ANSWER}'\n"
        person.write(name, script)
    person.write("gcloud-token", "gcloud-token\n")
    person.write("Sum.java", SUM)
    answer = {"Version": 1, "AccessKeyId": "AKIAEXAMPLE", "SecretAccessKey": "example"}
    person.write("process", f"{HELPERS['jit'].command} >/dev/null && echo '{json.dumps(answer)}'")
    ended = datetime.fromtimestamp(time.time() - 60, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    later = datetime.fromtimestamp(time.time() + 86400, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    session = {"accessToken": "sso-old", "startUrl": START, "region": "eu-central-1", "expiresAt": ended}
    session |= {"refreshToken": "r", "clientId": "c", "clientSecret": "s", "registrationExpiresAt": later}
    person.write("rotating", json.dumps(session))
    person.write(f".aws/sso/cache/{hashlib.sha1(b'corp').hexdigest()}.json", "{}")
    tables = "".join(
        f'[[index]]\nname = "{profile}"\nurl = "https://{profile}.example/simple/"\nprovider = "aws-codeartifact"\n'
        f'domain = "acme"\ndomain-owner = "{ACCOUNT}"\nregion = "eu-central-1"\nprofile = "{profile}"\n'
        for profile in ("sso", "process")
    )
    programs = (helper.program for helper in present.values() if helper.program and os.path.isabs(helper.program))
    person = replace(person, reaches=tuple(Path(program).parent for program in programs))
    with CodeArtifact() as cloud:
        person.write(".aws/config", AWS.format(url=cloud.url))
        person.configure(*(f"/home/tester/{name}" for name in present))
        config = person.home / ".config/uvtokend/config.toml"
        config.write_text(config.read_text() + tables)
        said = person(LAYERS)
    for layer, privileges in (("layer", "no"), ("layer--hardened", "yes")):
        lines = [line.removeprefix(f"{layer} ") for line in said if line.startswith(f"{layer} ")]
        assert f"privileges {privileges}" in lines, said
        assert lines.count('"health": "fresh"') == len(present) + 2, said
        heard = {line for line in lines if line.partition(" ")[0] in present}
        assert heard == {f"{name} {helper.says}" for name, helper in present.items()}
        assert "sso 1" in lines, said
        writing = [f"wrote {helper.writes}" for helper in present.values() if helper.writes is not None]
        assert [line for line in lines if line.startswith("wrote ")] == writing
    journal = " ".join(line for line in said if line.startswith("journal "))
    secrets = ("s3cr3t", "sso-fresh", "gcloud-token", "dotnet-token", "keyring-secret")
    assert [secret for secret in secrets if secret in journal] == []

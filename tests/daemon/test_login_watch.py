"""The sign-in files and how soon a sign-in is noticed, with real files, real programs and the real daemon."""

from __future__ import annotations

import hashlib
import json
import os
import pty
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psutil
import pytest

from clouds.azure import ORGANIZATION, AzureCloud
from clouds.google import GoogleCloud
from clouds.tls import TlsProxy
from support.daemons import status
from support.waiting import until
from uvtokend.core.model import Request
from uvtokend.daemon.login_watch import Watch
from uvtokend.sandbox.codeartifact import CodeArtifact
from uvtokend.sandbox.machine import AwsMachine


def watch(directory: Path) -> Watch:
    return Watch(lambda request: {"HOME": str(directory), **dict(request.env)})


def test_two_sign_ins_of_one_provider(tmp_path: Path) -> None:
    """Indexes with different sign-in files are watched separately, and neither is fetched again without a sign-in."""
    one, two = (Request("aws-codeartifact", env=(("AWS_CONFIG_FILE", str(tmp_path / name)),)) for name in "ab")
    watched = watch(tmp_path)
    for name, request in (("a", one), ("b", two)):
        (tmp_path / name).write_text("[default]")
        watched.begins(request)
    assert [watched.fails(request) for request in (one, two)] == [False, False]
    assert [watched.changed(request) for request in (one, two)] == [False, False]
    (tmp_path / "b").write_text("[default]\nregion = x")
    assert [watched.changed(request) for request in (one, two)] == [False, True]


def test_a_sign_in_during_a_fetch(tmp_path: Path) -> None:
    """A change of the sign-in files during a failed fetch causes one more fetch, but not a third if the fetch itself
    changes them."""
    request = Request("azure-artifacts")
    watched = watch(tmp_path)
    (tmp_path / ".azure").mkdir()

    def fetch(number: int) -> bool:
        watched.begins(request)
        (tmp_path / ".azure" / "msal_token_cache.json").write_text("x" * number)
        return watched.fails(request)

    assert [fetch(number) for number in range(1, 5)] == [True, False, True, False]
    watched.begins(request)
    assert not watched.fails(request)
    assert fetch(9)
    watched.succeeds(request)
    assert fetch(10)


@pytest.mark.parametrize(
    ("request_", "file"),
    [
        (Request("aws-codeartifact"), ".aws/sso/cache/x.json"),
        (Request("aws-codeartifact"), ".aws/config"),
        (Request("aws-codeartifact"), ".aws/cli/cache/x.json"),
        (Request("aws-codeartifact"), ".aws/login/cache/x.json"),
        (Request("aws-codeartifact", env=(("AWS_SHARED_CREDENTIALS_FILE", "~/work"),)), "work"),
        (Request("google-artifact-registry"), ".config/gcloud/application_default_credentials.json"),
        (Request("google-artifact-registry"), ".config/gcloud/credentials.db"),
        (Request("google-artifact-registry", env=(("CLOUDSDK_CONFIG", "~/g"),)), "g/credentials.db"),
        (Request("google-artifact-registry", options=(("credentials-file", "~/key.json"),)), "key.json"),
        (Request("azure-artifacts"), ".azure/azureProfile.json"),
        (Request("static", options=(("password", (("file", "~/secret"),)),)), "secret"),
    ],
)
def test_the_files_that_a_sign_in_changes(tmp_path: Path, request_: Request, file: str) -> None:
    """Every file that a sign-in creates or changes is watched, wherever the index's `env` moves it."""
    watched = watch(tmp_path)
    watched.begins(request_)
    assert not watched.fails(request_)
    (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / file).write_text("x")
    assert watched.changed(request_)
    watched.begins(request_)
    (tmp_path / file).write_text("xy")
    assert watched.changed(request_)


# ------------------------------------------------------------------------------------------------------- the daemon

AZ = """#!/bin/sh
read -r typed && echo "az read $typed" >> {record}
(: < /dev/tty) 2> /dev/null && echo "az has a terminal" >> {record}
[ -e "$HOME/.azure/azureProfile.json" ] && exec cat {home}/az.json
echo "ERROR: Please run 'az login' to setup account." >&2
exit 1
"""
GCLOUD = """#!/bin/sh
read -r typed && echo "gcloud read $typed" >> {record}
(: < /dev/tty) 2> /dev/null && echo "gcloud has a terminal" >> {record}
[ "$CLOUDSDK_CORE_DISABLE_PROMPTS" = 1 ] || echo "gcloud may ask" >> {record}
[ -e "$CLOUDSDK_CONFIG/credentials.db" ] && exec cat {home}/gcloud.json
echo "ERROR: (gcloud.config.config-helper) You do not currently have an active account selected." >&2
exit 1
"""
#: The programs that other programs run to show a web page.
BROWSERS = ("xdg-open", "sensible-browser", "x-www-browser", "www-browser", "gio", "open", "firefox", "chromium")
START = "https://acme.awsapps.example/start"


@pytest.fixture
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[AwsMachine, AzureCloud, GoogleCloud]]:
    """Return a machine with an index of each cloud, without any sign-in, but with a terminal and browsers."""
    azure, google = AzureCloud(), GoogleCloud()
    sites = {**azure.sites, **google.sites}
    with CodeArtifact() as cloud, TlsProxy(sites) as proxy:
        laptop = AwsMachine(tmp_path_factory.mktemp("l"), cloud)
        home = laptop.home
        record = home / "record"
        programs = {"az": AZ, "gcloud": GCLOUD, **dict.fromkeys(BROWSERS, '#!/bin/sh\necho "$0 $@" >> {record}\n')}
        (home / "bin").mkdir()
        for name, script in programs.items():
            (home / "bin" / name).write_text(script.format(record=record, home=home))
            (home / "bin" / name).chmod(0o755)
        own = {"HTTPS_PROXY": proxy.url, "REQUESTS_CA_BUNDLE": proxy.ca_file, "NO_GCE_CHECK": "true"}
        sso = {**cloud.environment(), "AWS_CONFIG_FILE": str(home / "aws-config")}
        laptop.environment |= {
            "PATH": f"{home / 'bin'}:{os.defpath}",
            "BROWSER": str(home / "bin" / "firefox"),
            "DISPLAY": ":0",
            "CLOUDSDK_CONFIG": str(home / "gcloud"),
        }
        (home / "aws-config").write_text(
            f"[sso-session corp]\nsso_start_url = {START}\nsso_region = eu-central-1\n"
            "sso_registration_scopes = sso:account:access\n[profile dev]\nsso_session = corp\n"
            "sso_account_id = 123456789012\nsso_role_name = dev\nregion = eu-central-1\n"
        )
        acme = "acme-123456789012.d.codeartifact.eu-central-1.amazonaws.com"
        indexes = {
            "aws": (f"https://{acme}/pypi/p/simple/", 'profile = "dev"', sso),
            "adc": ("https://europe-west3-python.pkg.dev/a/m/simple/", 'source = "adc"', own),
            "gcloud": ("https://us-python.pkg.dev/a/m/simple/", 'source = "gcloud"', own),
            "azure": (f"https://pkgs.dev.azure.com/{ORGANIZATION}/_packaging/f/pypi/simple/", "", own),
        }
        tables = []
        for name, (url, options, env) in indexes.items():
            inside = ", ".join(f"{key} = {json.dumps(text)}" for key, text in env.items())
            tables.append(f'[[index]]\nname = "{name}"\nurl = "{url}"\n{options}\nenv = {{ {inside} }}\n')
        laptop.config.write_text("\n".join(tables))
        laptop.config.chmod(0o600)
        yield laptop, azure, google
        laptop.stop()


def start_at_a_terminal(laptop: AwsMachine) -> int:
    """Start the daemon as a shell would, with a terminal that it could open and text typed there. Return our end of
    it."""
    ours, its = pty.openpty()
    take = "import fcntl, os, sys, termios; os.setsid(); fcntl.ioctl(0, termios.TIOCSCTTY, 0); "
    run = "os.execv(sys.executable, [sys.executable, '-P', '-m', 'uvtokend', 'run', '--quiet'])"
    with laptop.output.open("ab") as output:
        laptop.daemon = subprocess.Popen(
            [sys.executable, "-c", take + run], env=laptop.environment, stdin=its, stdout=output, stderr=output
        )
    os.close(its)
    os.write(ours, b"typed\n" * 20)
    return ours


def by_name(laptop: AwsMachine) -> dict[str, Any]:
    return {index["name"]: index for index in status(laptop)["indexes"]}


def all_blocked(indexes: dict[str, Any]) -> dict[str, Any] | None:
    return indexes if indexes and all(one["state"] == "blocked" for one in indexes.values()) else None


def test_a_missing_sign_in_and_a_new_one(world: tuple[AwsMachine, AzureCloud, GoogleCloud]) -> None:
    """Each index is blocked with the exact fix, no program asks or opens a page, and a new sign-in is noticed."""
    laptop, azure, google = world
    home = laptop.home
    terminal = start_at_a_terminal(laptop)
    blocked = until(lambda: all_blocked(by_name(laptop)))
    assert {name: one["last_error"]["hint"].partition(" --tenant")[0] for name, one in blocked.items()} == {
        "aws": f"AWS_CONFIG_FILE={home}/aws-config aws sso login --profile dev",
        "adc": "gcloud auth application-default login",
        "gcloud": "gcloud auth login",
        "azure": "az login",
    }
    assert {one["last_error"]["kind"] for one in blocked.values()} == {"login-required"}
    assert not (home / "record").exists()

    for directory in (".azure", "gcloud", ".aws/sso/cache"):
        (home / directory).mkdir(parents=True)
    (home / "az.json").write_text(azure.az_answer(azure.user_token()))
    (home / ".azure" / "azureProfile.json").write_text("{}")
    answer = {"credential": {"access_token": google.user_token("me@example.com"), "token_expiry": zulu(3600)}}
    (home / "gcloud.json").write_text(json.dumps(answer))
    (home / "gcloud" / "credentials.db").write_text("x")
    (home / "gcloud" / "application_default_credentials.json").write_text(json.dumps(google.user()))
    token = {"accessToken": "sso", "startUrl": START, "region": "eu-central-1", "expiresAt": zulu(3600)}
    file = home / ".aws" / "sso" / "cache" / f"{hashlib.sha1(b'corp').hexdigest()}.json"
    file.write_text(json.dumps(token))
    until(lambda: all(one["delivered"] for one in by_name(laptop).values()))
    assert laptop.daemon is not None
    assert psutil.Process(laptop.daemon.pid).terminal()
    assert not (home / "record").exists()
    os.close(terminal)


def zulu(seconds: float) -> str:
    return (datetime.now(UTC) + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")

"""Many indexes in one daemon: which share a token, which must not, and what a worker can see."""

from __future__ import annotations

import json
import netrc
import os
import signal
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from clouds import google
from clouds.tls import TlsProxy
from support.daemons import status
from support.example_plugin import install
from support.waiting import until
from uvtokend.sandbox.codeartifact import CodeArtifact
from uvtokend.sandbox.machine import AwsMachine

#: A provider that records everything it can see, and returns a token that names its host.
SPY = """
import json, os, stat, subprocess, time
from datetime import UTC, datetime, timedelta
from urllib.parse import urlsplit
import psutil
from uvtokend.core.model import Credential, Secret
from uvtokend.providers.kit.secrets import read_secret

def fetch(request):
    options = dict(request.options)
    me, helper = psutil.Process(), psutil.Popen(["sleep", "60"])
    kinds = {}
    for number in range(256):
        try:
            kinds[number] = stat.S_IFMT(os.fstat(number).st_mode)
        except OSError:
            pass  # not open

    def shown(look):
        try:
            return look()
        except psutil.AccessDenied:  # a worker hides them from all but root, itself included
            return None

    seen = {
        "environment": dict(os.environ),
        "environment at the start": shown(me.environ),
        "arguments": me.cmdline(),
        "a helper's environment": helper.environ(),
        "request": repr(request),
        "files": shown(lambda: [file.path for file in me.open_files()]),
        "kinds": sorted(set(kinds.values())),
        "secret": read_secret(options["key"]).reveal(),
    }
    with open(options["note"] + ".new", "w") as file:
        json.dump(seen, file)
    os.rename(options["note"] + ".new", options["note"])
    time.sleep(options.get("pause", 0))
    host, now = urlsplit(request.service).hostname, datetime.now(UTC)
    token = f"for-{host}-{time.time_ns()}"
    return Credential("me", Secret(token), now, now + timedelta(hours=1), None, f"me@{host}")
"""


@pytest.fixture
def laptop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AwsMachine]:
    """Make a machine with the spy provider installed, and stop its daemon afterwards."""
    with CodeArtifact() as cloud:
        machine = AwsMachine(tmp_path_factory.mktemp("l"), cloud)
        site = install(machine.directory / "site", SPY, "spy", "[uvtokend.providers]\nspy = spy:fetch\n")
        machine.environment["PYTHONPATH"] = os.pathsep.join([str(site), *os.environ.get("PYTHONPATH", "").split()])
        yield machine
        machine.stop()


def configure(laptop: AwsMachine, *tables: str) -> None:
    laptop.config.write_text("\n".join(f"[[index]]\n{table}" for table in tables))
    laptop.config.chmod(0o600)


def tokens(laptop: AwsMachine) -> dict[str, str]:
    """Return host -> token, as Python's own netrc module reads them."""
    if not laptop.netrc.exists():
        return {}
    return {host: entry[2] for host, entry in netrc.netrc(str(laptop.netrc)).hosts.items()}


def delivered(laptop: AwsMachine) -> list[dict[str, Any]]:
    """Return the indexes of the status once all of them are delivered."""

    def look() -> list[dict[str, Any]]:
        indexes: list[dict[str, Any]] = status(laptop)["indexes"]
        return indexes if all(index["delivered"] for index in indexes) else []

    return list(until(look))


def spied(laptop: AwsMachine, name: str, host: str, more: str = "") -> str:
    options = f'note = "{laptop.directory / name}", key = {{ env = "SECRET_{name.upper()}" }}'
    return f"""name = "{name}"\nurl = "https://{host}/simple/"\nprovider = "spy"\nenv = {{ WHO = "only-{name}" }}
options = {{ {options}{more} }}\n"""


def test_a_worker_sees_no_secret_of_another_index(laptop: AwsMachine) -> None:
    """A worker sees only its own index's secret, in its environment, arguments, helpers and open files."""
    names = ("one", "two", "three")
    laptop.environment |= {f"SECRET_{name.upper()}": f"secret-of-{name}" for name in names}
    configure(laptop, *(spied(laptop, name, f"{name}.example") for name in names))
    laptop.start()
    delivered(laptop)
    for name in names:
        text = (laptop.directory / name).read_text()
        seen = json.loads(text)
        assert seen["secret"] == f"secret-of-{name}"
        at_the_start = seen["environment at the start"]
        assert at_the_start is None or at_the_start["WHO"] == f"only-{name}"
        assert seen["environment"]["WHO"] == f"only-{name}"
        others = {word for other in names if other != name for word in (f"secret-of-{other}", f"only-{other}")}
        assert not [word for word in others if word in text]
        assert f"secret-of-{name}" not in f"{seen['arguments']} {seen['request']}"
        assert [file for file in seen["files"] or () if ".so" not in file] == []  # libffi keeps its library open
        assert not {kind for kind in seen["kinds"] if kind == 0o140000}, "the worker inherited a socket of the daemon"


def test_a_token_is_written_only_for_its_host(laptop: AwsMachine) -> None:
    """If indexes change hosts during their fetches, no host ever gets a token that was fetched for another."""
    laptop.environment |= {"SECRET_ONE": "secret-of-one", "SECRET_TWO": "secret-of-two"}

    def assign(one: str, two: str) -> None:
        more = ", pause = 0.2"
        configure(laptop, spied(laptop, "one", one, more), spied(laptop, "two", two, more))

    def written(*hosts: str) -> bool:
        return set(tokens(laptop)) == set(hosts)

    def under_way(host: str) -> bool:
        note = laptop.directory / "one"
        return note.exists() and f"https://{host}/" in note.read_text()

    assign("a.example", "b.example")
    laptop.start()
    until(partial(written, "a.example", "b.example"))
    assert laptop.daemon is not None
    for one, two in [("b.example", "a.example"), ("a.example", "c.example")]:
        for hosts in ((one, two), (two, one), (one, two)):
            assign(*hosts)
            laptop.daemon.send_signal(signal.SIGHUP)
            until(partial(under_way, hosts[0]))
            assert all(token.startswith(f"for-{host}-") for host, token in tokens(laptop).items())
        until(partial(written, one, two))
        assert all(token.startswith(f"for-{host}-") for host, token in tokens(laptop).items())
    assert {index["identity"] for index in delivered(laptop)} == {"me@a.example", "me@c.example"}


def test_two_profiles_are_two_identities(laptop: AwsMachine) -> None:
    """Two indexes with two AWS profiles get two tokens, and status shows the identity of each."""
    people = {"alice": "arn:aws:iam::123456789012:user/alice", "build": "arn:aws:iam::123456789012:user/build"}
    laptop.cloud.identities = {f"AKIA{name.upper()}": arn for name, arn in people.items()}
    keys = [f"[{name}]\naws_access_key_id = AKIA{name.upper()}\naws_secret_access_key = x\n" for name in people]
    (laptop.home / "aws").write_text("".join(keys))
    laptop.configure(**{name: f"https://{name}.example/simple/" for name in people})
    tables = laptop.config.read_text().split("\n\n")
    tables = [table.replace('"dev"', f'"{name}"') for name, table in zip(people, tables, strict=True)]
    laptop.config.write_text("\n\n".join(tables))
    laptop.start()
    assert {index["name"]: index["identity"] for index in delivered(laptop)} == people
    assert laptop.cloud.fetches == 2
    assert len(set(tokens(laptop).values())) == 2


def test_ten_indexes_of_one_google_identity(laptop: AwsMachine, tmp_path: Path) -> None:
    """For repositories in ten regions, google-auth fetches one token, and every host gets it."""
    cloud = google.GoogleCloud()
    key = tmp_path / "key.json"
    builder = cloud.service_account()
    key.write_text(json.dumps(builder))
    hosts = {f"europe-west{number}-python.pkg.dev" for number in range(1, 11)}
    with TlsProxy(cloud.sites) as proxy:
        env = f'env = {{ HTTPS_PROXY = "{proxy.url}", REQUESTS_CA_BUNDLE = "{proxy.ca_file}", NO_GCE_CHECK = "true" }}'
        tables = [
            f'name = "i{number}"\nurl = "https://{host}/acme/r{number}/simple/"\ncredentials-file = "{key}"\n{env}\n'
            for number, host in enumerate(sorted(hosts))
        ]
        configure(laptop, *tables)
        laptop.start()
        indexes = delivered(laptop)
        assert len(indexes) == 10
        assert {index["identity"] for index in indexes} == {builder["client_email"]}
        assert [(host, call.path) for host, call in proxy.calls] == [(google.OAUTH_HOST, "/token")]
    assert set(tokens(laptop)) == hosts
    (token,) = set(tokens(laptop).values())
    assert cloud.valid(token)

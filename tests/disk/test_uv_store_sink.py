"""Delivery to uv's own credential store, written and read by the real uv."""

from __future__ import annotations

import base64
import dataclasses
import fcntl
import json
import os
import shutil
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from support.daemons import status
from uvtokend import paths
from uvtokend.core import fixes, uv_store
from uvtokend.core.model import Entry, Secret
from uvtokend.disk import files
from uvtokend.disk import uv_store_sink as sinks
from uvtokend.disk.uv_store_sink import UvStoreSink
from uvtokend.errors import DeliveryFailed
from uvtokend.sandbox.codeartifact import CodeArtifact
from uvtokend.sandbox.index import PackageIndex
from uvtokend.sandbox.machine import AwsMachine, find_uv
from uvtokend.sandbox.registries import AZURE
from uvtokend.sandbox.web import Answer, Call, Server

ACME, BETA = "https://pkgs.dev.azure.com/acme", "https://pkgs.dev.azure.com/beta"
LOGIN = "VssSessionToken"
COMMENTED = b"# mine\n[[credential]] # first\nservice = 'https://f.example'\nusername = 'f'\npassword = 'theirs'\n"


def entry(service: str = ACME, token: str = "token-1") -> Entry:
    return Entry("pkgs.dev.azure.com", LOGIN, Secret(token), service)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Return the path of a store that does not exist yet."""
    (tmp_path / "state").mkdir()
    return tmp_path / "credentials" / "credentials.toml"


@pytest.fixture
def sink(file: Path) -> Iterator[UvStoreSink]:
    """Return a sink that owns the store."""
    owner = UvStoreSink(str(file), str(file.parent.parent / "state"))
    yield owner
    owner.close()


def uv(file: Path, *arguments: str, secret: str | None = None) -> subprocess.CompletedProcess[str]:
    environment = {"HOME": str(file.parent.parent), "UV_CREDENTIALS_DIR": str(file.parent), "PATH": os.defpath}
    words = [find_uv(), "auth", *arguments, "--no-config", "--no-cache"]
    return subprocess.run(words, env=environment, input=secret, capture_output=True, text=True, check=False)


def token_for_uv(file: Path, url: str, username: str | None = LOGIN) -> str | None:
    """Return the token that uv takes from the store for a URL, or None."""
    done = uv(file, "token", url, *(["--username", username] if username else []))
    return done.stdout.strip() if done.returncode == 0 else None


def test_a_hung_uv_is_killed(sink: UvStoreSink, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hung uv is killed with its children and leaves no zombie. We then write the record ourselves and report it."""
    fake = tmp_path / "bin" / "uv"
    fake.parent.mkdir()
    fake.write_text(f"#!/bin/sh\n[ $1 = auth ] || exec echo uv 99.0.0\necho $$ > {tmp_path}/pid\nexec sleep 1000\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{fake.parent}:{os.defpath}")
    monkeypatch.setattr(sinks, "_LIMIT", 0.5)
    delivery = sink.deliver([entry()], {})
    assert delivery.note == f"{file} was written directly: uv's own command did not do it."
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


def test_uv_writes_and_reads_the_store(sink: UvStoreSink, file: Path) -> None:
    """Two tenants on one host have their own tokens, the store is private, and an unchanged token is not written
    again."""
    delivery = sink.deliver([entry(), entry(BETA, "token-2")], {})
    assert (delivery.changed, delivery.note) == (True, None)
    assert [token_for_uv(file, f"{service}/_packaging/x/pypi/") for service in (ACME, BETA)] == ["token-1", "token-2"]
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    before = files.fingerprint(str(file))
    assert not sink.deliver([entry(), entry(BETA, "token-2")], {}).changed
    assert files.fingerprint(str(file)) == before
    assert sink.deliver([entry(token="token-3")], {}).changed
    assert [token_for_uv(file, ACME), token_for_uv(file, BETA)] == ["token-3", None]


def test_an_unused_store_is_not_created(sink: UvStoreSink, file: Path) -> None:
    """If the store is not used, its directory is not created."""
    assert not sink.deliver([], {}).changed
    assert not file.parent.exists()


def test_foreign_records_stay(sink: UvStoreSink, file: Path) -> None:
    """Foreign records stay when our records are delivered and removed."""
    assert uv(file, "login", "https://f.example", "--username", "f", "--password", "-", secret="theirs").returncode == 0
    sink.deliver([entry()], {})
    assert token_for_uv(file, "https://f.example/x", "f") == "theirs"
    sink.deliver([], {})
    assert token_for_uv(file, "https://f.example/x", "f") == "theirs"
    assert token_for_uv(file, ACME) is None
    assert not os.path.exists(paths.uv_ledger_file(str(file)))


def test_a_store_with_comments_is_edited_directly(sink: UvStoreSink, file: Path) -> None:
    """uv's command would drop the comments, so we edit the file ourselves and report it. uv reads the result."""
    file.parent.mkdir(mode=0o700)
    file.write_bytes(COMMENTED)
    delivery = sink.deliver([entry()], {})
    assert delivery.note is not None
    assert "would drop the comments" in delivery.note
    assert file.read_bytes().startswith(COMMENTED)
    assert (token_for_uv(file, ACME), token_for_uv(file, "https://f.example", "f")) == ("token-1", "theirs")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    sink.deliver([], {})
    assert file.read_bytes().rstrip(b"\n") == COMMENTED.rstrip(b"\n")


@pytest.mark.parametrize(
    ("program", "why"),
    [
        (None, "no uv was found"),
        ("#!/bin/sh\necho uv 0.9.30\n", "uv 0.9.30 does not replace the file in one step"),
        ("#!/bin/sh\necho something else\n", "does not replace the file in one step"),
        ("#!/bin/sh\necho uv 9.0.0\nexit 1\n", "did not do it"),
    ],
)
def test_without_a_suitable_uv_the_store_is_written_directly(
    sink: UvStoreSink, file: Path, monkeypatch: pytest.MonkeyPatch, program: str | None, why: str
) -> None:
    """If uv is missing, too old or fails, we write the file ourselves and the status says why. uv reads the result."""
    tools = file.parent.parent / "bin"
    tools.mkdir()
    if program is not None:
        (tools / "uv").write_text(program)
        (tools / "uv").chmod(0o755)
    monkeypatch.setenv("PATH", str(tools))
    monkeypatch.setenv("HOME", str(tools))
    monkeypatch.setattr("sys.executable", str(tools / "python"))
    delivery = sink.deliver([entry(), entry(BETA, "token-2")], {})
    assert delivery.note is not None
    assert why in delivery.note
    monkeypatch.undo()
    assert [token_for_uv(file, ACME), token_for_uv(file, BETA)] == ["token-1", "token-2"]


@pytest.fixture
def uv_calls(file: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the file that records the arguments and environment of each call of uv."""
    tools = file.parent.parent / "bin"
    tools.mkdir()
    spy, record = tools / "uv", tools / "seen"
    spy.write_text(f'#!/bin/sh\n{{ echo "$@"; env; }} >> {record}\nexec {find_uv()} "$@"\n')
    spy.chmod(0o755)
    record.touch()
    monkeypatch.setenv("PATH", f"{tools}:{os.defpath}")
    return record


def test_the_token_is_in_no_argument_and_no_environment(sink: UvStoreSink, file: Path, uv_calls: Path) -> None:
    """uv gets the token on its standard input, never in an argument, the environment or the ledger."""
    assert sink.deliver([entry(token="canary")], {}).note is None
    record = uv_calls.read_text()
    assert "auth login https://pkgs.dev.azure.com/acme --username VssSessionToken --password -" in record
    assert "canary" not in record
    assert "canary" not in Path(paths.uv_ledger_file(str(file))).read_text()
    assert sink.deliver([], {ACME: []}).note is None
    assert "auth logout https://pkgs.dev.azure.com/acme --username VssSessionToken" in uv_calls.read_text()


def test_a_secret_user_name_is_in_no_argument(sink: UvStoreSink, file: Path, uv_calls: Path) -> None:
    """uv's command takes the user name as an argument, which others can see, so a record with a secret one is
    written directly."""
    secret = Entry("nexus.example", "canary", Secret("token-1"), "https://nexus.example/a")
    assert "as an argument" in (sink.deliver([secret], {secret.service: []}, {secret.service}).note or "")
    assert token_for_uv(file, secret.service, "canary") == "token-1"
    assert sink.deliver([], {}).changed  # the removal no longer knows that it was secret
    assert token_for_uv(file, secret.service, "canary") is None
    assert "--version" in uv_calls.read_text()  # uv was available but not used
    assert "canary" not in uv_calls.read_text()


@pytest.mark.parametrize(
    ("login", "service"),
    [(LOGIN, ACME), ("me", ACME), ("me", f"{ACME}/_packaging/f/pypi"), ("me", f"{ACME}/_packaging")],
)
def test_a_foreign_record_is_never_overwritten(sink: UvStoreSink, file: Path, login: str, service: str) -> None:
    """A foreign record is reported with the command that removes it. After that command ours is delivered."""
    uv(file, "login", service, "--username", login, "--password", "-", secret="theirs")
    before = file.read_bytes()
    urls = {ACME: [f"{ACME}/_packaging/f/pypi/simple/"]}
    delivery = sink.deliver([entry()], urls)
    assert delivery.foreign == {ACME}
    assert file.read_bytes() == before
    hint = delivery.problems[0].hint.split()
    assert hint[:3] == ["uv", "auth", "logout"]
    assert uv(file, *hint[2:]).returncode == 0
    assert not sink.deliver([entry()], urls).foreign
    assert token_for_uv(file, ACME) == "token-1"


def test_a_foreign_bearer_token_is_reported(sink: UvStoreSink, file: Path) -> None:
    """uv's command cannot remove a bearer token, so the fix names the file."""
    file.parent.mkdir(mode=0o700)
    file.write_text(f'[[credential]]\nservice = "{ACME}"\nscheme = "bearer"\ntoken = "theirs"\n')
    delivery = sink.deliver([entry()], {})
    assert delivery.foreign == {ACME}
    assert delivery.problems[0].hint == f"take it out of {file}"


def test_a_record_without_a_user_name_is_written_directly(sink: UvStoreSink, file: Path) -> None:
    """uv's command refuses an empty user name, which Artifactory's tokens may have. We write and remove the record,
    and uv sends it."""
    authorizations: list[str | None] = []

    def site(call: Call) -> Answer:
        authorizations.append(call.headers["Authorization"])
        return Answer(404 if authorizations[-1] else 401)

    with Server(site) as index:
        delivery = sink.deliver([Entry("127.0.0.1", "", Secret("token-1"), f"{index.url}/")], {})
        assert delivery.note is not None
        assert "no empty user name" in delivery.note
        environment = {
            "HOME": str(file.parent.parent),
            "UV_CREDENTIALS_DIR": str(file.parent),
            "PATH": os.environ["PATH"],
        }
        words = [
            find_uv(),
            "pip",
            "compile",
            "-",
            "--no-cache",
            "--no-config",
            "--default-index",
            f"{index.url}/simple",
        ]
        subprocess.run(words, env=environment, input="x", capture_output=True, text=True, check=False)
    assert f"Basic {base64.b64encode(b':token-1').decode()}" in authorizations
    sink.deliver([], {})
    assert "token-1" not in file.read_text()


def test_a_store_that_uv_cannot_read_is_not_changed(sink: UvStoreSink, file: Path) -> None:
    """A store that uv cannot read stays unchanged, and the fix is a uv command that shows the error."""
    file.parent.mkdir(mode=0o700)
    file.write_text("[[credential]]\nservice = 'https://x.example'\n")
    with pytest.raises(DeliveryFailed) as caught:
        sink.deliver([entry()], {})
    assert caught.value.reason == "store-unreadable"
    assert uv(file, *(caught.value.hint or "").split()[2:]).returncode != 0
    assert file.read_text() == "[[credential]]\nservice = 'https://x.example'\n"


def test_a_locked_store_is_waited_for(sink: UvStoreSink, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the lock is released soon, the delivery continues; otherwise it fails and writes nothing."""
    monkeypatch.setattr(sinks, "PATIENCE", 1)
    file.parent.mkdir(mode=0o700)
    file.write_bytes(COMMENTED)
    with open(f"{file}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(DeliveryFailed) as caught:
            sink.deliver([entry()], {})
        assert (caught.value.reason, caught.value.hint) == ("store-locked", fixes.users_of(f"{file}.lock"))
        assert file.read_bytes() == COMMENTED
        monkeypatch.setattr(sinks, "PATIENCE", 30)
        threading.Timer(0.1, fcntl.flock, (lock, fcntl.LOCK_UN)).start()
        assert sink.deliver([entry()], {}).changed
    with open(f"{file}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # our lock is released


def test_our_record_with_a_foreign_comment_is_kept(sink: UvStoreSink, file: Path) -> None:
    """A foreign comment inside our record would be lost, so the delivery fails with the command that removes the
    record."""
    sink.deliver([entry()], {})
    file.write_text(file.read_text().replace("username", "# mine\nusername"))
    with pytest.raises(DeliveryFailed) as caught:
        sink.deliver([entry(token="token-2")], {})
    assert caught.value.reason == "store-edited"
    assert "# mine" in file.read_text()
    assert uv(file, *(caught.value.hint or "").split()[2:]).returncode == 0
    sink.deliver([entry(token="token-2")], {})
    assert token_for_uv(file, ACME) == "token-2"


def test_a_symlinked_store_stays_a_link(sink: UvStoreSink, file: Path) -> None:
    """A store that is a symbolic link stays one, whether uv or uvtokend writes it."""
    real = file.parent.parent / "dotfiles.toml"
    file.parent.mkdir(mode=0o700)
    file.symlink_to(real)
    for text in (b"", COMMENTED):
        real.write_bytes(text)
        sink.deliver([entry()], {})
        assert file.is_symlink()
        assert uv_store.parse(real.read_bytes())[-1].secret.reveal() == "token-1"


def test_a_directory_that_others_may_write_is_refused(sink: UvStoreSink, file: Path) -> None:
    """Others could put their own store into such a directory, so nothing is delivered."""
    file.parent.mkdir()
    file.parent.chmod(0o777)
    with pytest.raises(DeliveryFailed) as caught:
        sink.deliver([entry()], {})
    assert (caught.value.reason, caught.value.hint) == ("open-directory", f"chmod go-w {file.parent}")


def test_one_store_has_one_owner(sink: UvStoreSink, file: Path) -> None:
    """A second daemon gets an error that names the owner."""
    sink.deliver([entry()], {})
    second = UvStoreSink(str(file), str(file.parent.parent / "state"))
    with pytest.raises(DeliveryFailed) as caught:
        second.deliver([entry()], {})
    assert caught.value.reason == "not-owner"
    assert f"pid {os.getpid()}" in caught.value.message


# ------------------------------------------------------------------------------------------------- end to end

PYPROJECT = """\
[project]
name = "work"
version = "1"
requires-python = ">=3.11"
dependencies = ["alpha", "eta"]

[tool.uv.sources]
{sources}
"""


@dataclasses.dataclass
class World:
    """Two organizations' feeds on one host, a laptop, and a project that needs both."""

    laptop: AwsMachine
    project: Path
    feeds: dict[str, PackageIndex]
    pats: dict[str, str]

    @property
    def store(self) -> Path:
        return self.laptop.home / ".local/share/uv/credentials/credentials.toml"

    def rotate(self, org: str, pat: str) -> None:
        self.pats[org] = pat
        (self.laptop.home / org).write_text(pat)

    def sync(self) -> subprocess.CompletedProcess[str]:
        shutil.rmtree(self.project / ".venv", ignore_errors=True)
        return self.laptop.uv("sync", "--no-cache", "--python", sys.executable, cwd=self.project)

    def until(self, condition: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        deadline = time.monotonic() + 40
        while not condition(document := status(self.laptop)):
            assert time.monotonic() < deadline, json.dumps(document, indent=1)
            time.sleep(0.02)
        return document


@pytest.fixture
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Return the world with the daemon not started yet."""
    directory = tmp_path_factory.mktemp("s")  # a short path, since a socket is in it
    pats: dict[str, str] = {}
    feeds: dict[str, PackageIndex] = {}

    def front(call: Call) -> Answer:
        return feeds[call.path.split("/")[1]].answer(call)

    with CodeArtifact() as cloud, Server(front) as host:
        laptop = AwsMachine(directory, cloud)
        project = directory / "project"
        project.mkdir()
        created = World(laptop, project, feeds, pats)
        tables, sources, indexes = [], [], []
        for org, package in (("acme", "alpha"), ("beta", "eta")):
            moved = {name: getattr(AZURE, name).replace("/acme", f"/{org}") for name in ("root", "files", "path")}
            feed = PackageIndex(
                lambda login, token, org=org: (login, token) == (org, pats[org]),  # type: ignore[misc]
                registry=dataclasses.replace(AZURE, **moved),
            )
            feed.base = host.url
            feeds[org] = feed
            created.rotate(org, f"first-{org}")
            url = f"{host.url}{feed.registry.root}/simple/"
            tables.append(
                f'[[index]]\nname = "{org}"\nurl = "{url}"\nprovider = "azure-artifacts"\nsink = "uv-store"\n'
                f'username = "{org}"\ncredential = "pat"\npat = {{ file = "~/{org}" }}\n'
            )
            # uv distinguishes the two only by the user name, and Azure's files are outside the index, so uv needs an
            # index for the organization as well.
            mine = host.url.replace("://", f"://{org}@")
            named = f"{mine}{feed.registry.root}/simple/"
            indexes.append(f'[[tool.uv.index]]\nname = "{org}"\nurl = "{named}"\nauthenticate = "always"\n')
            indexes.append(f'[[tool.uv.index]]\nname = "{org}-files"\nurl = "{mine}/{org}/"\nexplicit = true\n')
            sources.append(f'{package} = {{ index = "{org}" }}')
        laptop.config.write_text("\n".join(tables))
        laptop.config.chmod(0o600)
        text = PYPROJECT.format(sources="\n".join(sources)) + "\n".join(indexes)
        (project / "pyproject.toml").write_text(text)
        yield created
        laptop.stop()
        for feed in feeds.values():
            feed.close()


def delivered(document: dict[str, Any]) -> bool:
    return document["pid"] is not None and all(index["delivered"] for index in document["indexes"])


def test_two_organizations_on_one_host_install_in_one_sync(world: World) -> None:
    """Two tokens for one host, which a netrc cannot hold, are delivered and refreshed, and `purge` removes both."""
    world.laptop.start()
    document = world.until(delivered)
    assert [(index["sink"], index["username"]) for index in document["indexes"]] == [
        ("uv-store", "acme"),
        ("uv-store", "beta"),
    ]
    assert not any("notices" in index for index in document["indexes"])
    done = world.sync()
    assert done.returncode == 0, done.stderr
    world.rotate("acme", "second-acme")
    world.rotate("beta", "second-beta")
    assert world.sync().returncode != 0  # the index refuses the old tokens
    assert world.laptop.uvtokend("refresh").returncode == 0
    done = world.sync()
    assert done.returncode == 0, done.stderr
    assert all(feed.leaked == 0 for feed in world.feeds.values())
    assert not world.laptop.netrc.exists()
    text = world.store.read_text()
    assert "second-acme" in text
    assert "first" not in text
    assert world.laptop.uvtokend("purge").returncode == 0
    assert "second" not in world.store.read_text()
    assert not os.path.exists(paths.uv_ledger_file(str(world.store)))


def test_a_restart_keeps_the_records_in_the_store(world: World) -> None:
    """`status` without a daemon reads the store, and the next start writes nothing."""
    world.laptop.start()
    world.until(delivered)
    assert world.laptop.daemon is not None
    world.laptop.daemon.kill()
    world.laptop.daemon.wait()
    document = json.loads(world.laptop.uvtokend("status", "--json").stdout)
    assert document["pid"] is None
    assert [index["health"] for index in document["indexes"]] == ["fresh", "fresh"]
    before = world.store.stat()
    world.laptop.start()
    world.until(delivered)
    assert world.store.stat() == before


def test_a_netrc_entry_for_the_host_can_be_adopted(world: World) -> None:
    """A netrc entry would shadow the store, so it is reported. After `adopt` the store is used, and `purge` restores
    the entry."""
    world.laptop.netrc.write_text("machine 127.0.0.1 login me password mine\n")
    world.laptop.netrc.chmod(0o600)
    world.laptop.start()
    document = world.until(
        lambda document: document["pid"] is not None and document["indexes"][0]["last_error"] is not None
    )
    assert [index["delivered"] for index in document["indexes"]] == [False, False]
    assert document["indexes"][0]["last_error"]["hint"] == "uvtokend adopt acme"
    assert world.laptop.uvtokend("adopt", "acme").returncode == 0
    world.until(delivered)
    done = world.sync()
    assert done.returncode == 0, done.stderr
    assert world.laptop.uvtokend("purge").returncode == 0
    assert world.laptop.netrc.read_text() == "machine 127.0.0.1 login me password mine\n"


def test_from_the_netrc_to_the_store(world: World) -> None:
    """If the configuration moves an index from the netrc to uv's store, its entry in the netrc, which would shadow
    the store, is removed."""
    text = world.laptop.config.read_text()
    first, _, _ = text.partition("\n\n")
    world.laptop.config.write_text(first.replace("uv-store", "netrc"))
    world.laptop.start()
    world.until(delivered)
    assert "first-acme" in world.laptop.netrc.read_text()
    world.laptop.config.write_text(text)
    assert world.laptop.uvtokend("reload").returncode == 0
    world.until(lambda document: delivered(document) and len(document["indexes"]) == 2)
    assert "first-acme" not in world.laptop.netrc.read_text()
    done = world.sync()
    assert done.returncode == 0, done.stderr

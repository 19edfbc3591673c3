"""Delivery into uv's own credential store, with the real uv as its writer and its reader."""

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
    """A store that does not exist yet."""
    (tmp_path / "state").mkdir()
    return tmp_path / "credentials" / "credentials.toml"


@pytest.fixture
def sink(file: Path) -> Iterator[UvStoreSink]:
    """A sink that owns the store."""
    made = UvStoreSink(str(file), str(file.parent.parent / "state"))
    yield made
    made.close()


def uv(file: Path, *arguments: str, secret: str | None = None) -> subprocess.CompletedProcess[str]:
    environment = {"HOME": str(file.parent.parent), "UV_CREDENTIALS_DIR": str(file.parent), "PATH": os.defpath}
    words = [find_uv(), "auth", *arguments, "--no-config", "--no-cache"]
    return subprocess.run(words, env=environment, input=secret, capture_output=True, text=True, check=False)


def believed(file: Path, url: str, username: str | None = LOGIN) -> str | None:
    """Return the token that uv itself takes from the store for a URL."""
    done = uv(file, "token", url, *(["--username", username] if username else []))
    return done.stdout.strip() if done.returncode == 0 else None


def test_a_uv_that_hangs_is_ended(
    sink: UvStoreSink, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is killed with its children and leaves no zombie; we write the record ourselves and say so."""
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


def test_uv_delivers_and_uv_reads_it_back(sink: UvStoreSink, file: Path) -> None:
    """Two tenants on one host have a token each; file and directory are private; nothing is written twice."""
    delivery = sink.deliver([entry(), entry(BETA, "token-2")], {})
    assert (delivery.changed, delivery.note) == (True, None)
    assert [believed(file, f"{service}/_packaging/x/pypi/") for service in (ACME, BETA)] == ["token-1", "token-2"]
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    before = files.fingerprint(str(file))
    assert not sink.deliver([entry(), entry(BETA, "token-2")], {}).changed
    assert files.fingerprint(str(file)) == before
    assert sink.deliver([entry(token="token-3")], {}).changed
    assert [believed(file, ACME), believed(file, BETA)] == ["token-3", None]


def test_nothing_wanted_and_nothing_ours_touches_nothing(sink: UvStoreSink, file: Path) -> None:
    """Who does not use the store finds no directory of it."""
    assert not sink.deliver([], {}).changed
    assert not file.parent.exists()


def test_what_others_put_there_by_uv_stays(sink: UvStoreSink, file: Path) -> None:
    """Foreign records survive delivery and purge; only ours come and go."""
    assert uv(file, "login", "https://f.example", "--username", "f", "--password", "-", secret="theirs").returncode == 0
    sink.deliver([entry()], {})
    assert believed(file, "https://f.example/x", "f") == "theirs"
    sink.deliver([], {})
    assert believed(file, "https://f.example/x", "f") == "theirs"
    assert believed(file, ACME) is None
    assert not os.path.exists(paths.uv_ledger_file(str(file)))


def test_a_store_with_comments_is_edited_to_the_byte_and_says_so(sink: UvStoreSink, file: Path) -> None:
    """uv's own command would drop them; uv reads what we wrote."""
    file.parent.mkdir(mode=0o700)
    file.write_bytes(COMMENTED)
    delivery = sink.deliver([entry()], {})
    assert delivery.note is not None
    assert "would drop the comments" in delivery.note
    assert file.read_bytes().startswith(COMMENTED)
    assert (believed(file, ACME), believed(file, "https://f.example", "f")) == ("token-1", "theirs")
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
def test_without_a_uv_that_keeps_the_promises_it_is_written_directly(
    sink: UvStoreSink, file: Path, monkeypatch: pytest.MonkeyPatch, program: str | None, why: str
) -> None:
    """No uv, one too old, or one that fails: we write, uv reads it, and the status says why."""
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
    assert [believed(file, ACME), believed(file, BETA)] == ["token-1", "token-2"]


@pytest.fixture
def seen(file: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that tells with what arguments and environment each uv was started; empty at first."""
    tools = file.parent.parent / "bin"
    tools.mkdir()
    spy, told = tools / "uv", tools / "seen"
    spy.write_text(f'#!/bin/sh\n{{ echo "$@"; env; }} >> {told}\nexec {find_uv()} "$@"\n')
    spy.chmod(0o755)
    told.touch()
    monkeypatch.setenv("PATH", f"{tools}:{os.defpath}")
    return told


def test_the_secret_is_in_no_argument_and_no_environment(sink: UvStoreSink, file: Path, seen: Path) -> None:
    """What uv is started with shows nothing; the token comes on its standard input."""
    assert sink.deliver([entry(token="canary")], {}).note is None
    told = seen.read_text()
    assert "auth login https://pkgs.dev.azure.com/acme --username VssSessionToken --password -" in told
    assert "canary" not in told
    assert "canary" not in Path(paths.uv_ledger_file(str(file))).read_text()
    assert sink.deliver([], {ACME: []}).note is None
    assert "auth logout https://pkgs.dev.azure.com/acme --username VssSessionToken" in seen.read_text()


def test_a_user_name_that_is_a_secret_is_in_no_argument(sink: UvStoreSink, file: Path, seen: Path) -> None:
    """uv's command takes it as one, which everybody sees: such a record comes and goes without that command."""
    secret = Entry("nexus.example", "canary", Secret("token-1"), "https://nexus.example/a")
    assert "as an argument" in (sink.deliver([secret], {secret.service: []}, {secret.service}).note or "")
    assert believed(file, secret.service, "canary") == "token-1"
    assert sink.deliver([], {}).changed  # whoever takes it out knows no longer what it was
    assert believed(file, secret.service, "canary") is None
    assert "--version" in seen.read_text()  # uv was there, and was not asked
    assert "canary" not in seen.read_text()


@pytest.mark.parametrize(
    ("login", "service"),
    [(LOGIN, ACME), ("me", ACME), ("me", f"{ACME}/_packaging/f/pypi"), ("me", f"{ACME}/_packaging")],
)
def test_a_foreign_record_is_never_overwritten(sink: UvStoreSink, file: Path, login: str, service: str) -> None:
    """It is told with the command that takes it out, and after that command ours is delivered."""
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
    assert believed(file, ACME) == "token-1"


def test_a_bearer_token_of_somebody_is_told_too(sink: UvStoreSink, file: Path) -> None:
    """uv's command knows none, so the fix names the file."""
    file.parent.mkdir(mode=0o700)
    file.write_text(f'[[credential]]\nservice = "{ACME}"\nscheme = "bearer"\ntoken = "theirs"\n')
    delivery = sink.deliver([entry()], {})
    assert delivery.foreign == {ACME}
    assert delivery.problems[0].hint == f"take it out of {file}"


def test_a_record_without_a_user_name_is_written_directly_and_used(sink: UvStoreSink, file: Path) -> None:
    """uv's command refuses it, and uv sends it; it goes again, too. Artifactory's tokens may have none."""
    heard: list[str | None] = []

    def site(call: Call) -> Answer:
        heard.append(call.headers["Authorization"])
        return Answer(404 if heard[-1] else 401)

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
    assert f"Basic {base64.b64encode(b':token-1').decode()}" in heard
    sink.deliver([], {})
    assert "token-1" not in file.read_text()


def test_a_store_that_uv_cannot_read_is_left_alone(sink: UvStoreSink, file: Path) -> None:
    """Not a byte of it changes, and the fix is uv's own complaint."""
    file.parent.mkdir(mode=0o700)
    file.write_text("[[credential]]\nservice = 'https://x.example'\n")
    with pytest.raises(DeliveryFailed) as caught:
        sink.deliver([entry()], {})
    assert caught.value.reason == "store-unreadable"
    assert uv(file, *(caught.value.hint or "").split()[2:]).returncode != 0
    assert file.read_text() == "[[credential]]\nservice = 'https://x.example'\n"


def test_a_lock_that_is_held_is_waited_for_briefly(
    sink: UvStoreSink, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that goes soon is only waited for; one that stays is an error, and nothing is written."""
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
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # and we hold it no longer


def test_our_record_edited_by_hand_is_told_and_kept(sink: UvStoreSink, file: Path) -> None:
    """A comment within it would be lost; the command that takes it out is named."""
    sink.deliver([entry()], {})
    file.write_text(file.read_text().replace("username", "# mine\nusername"))
    with pytest.raises(DeliveryFailed) as caught:
        sink.deliver([entry(token="token-2")], {})
    assert caught.value.reason == "store-edited"
    assert "# mine" in file.read_text()
    assert uv(file, *(caught.value.hint or "").split()[2:]).returncode == 0
    sink.deliver([entry(token="token-2")], {})
    assert believed(file, ACME) == "token-2"


def test_a_symlinked_store_stays_a_link(sink: UvStoreSink, file: Path) -> None:
    """Into a dotfiles repository, say; by uv's command and by ours."""
    real = file.parent.parent / "dotfiles.toml"
    file.parent.mkdir(mode=0o700)
    file.symlink_to(real)
    for text in (b"", COMMENTED):
        real.write_bytes(text)
        sink.deliver([entry()], {})
        assert file.is_symlink()
        assert uv_store.parse(real.read_bytes())[-1].secret.reveal() == "token-1"


def test_a_folder_that_others_may_write_is_refused(sink: UvStoreSink, file: Path) -> None:
    """They could put a store of theirs there."""
    file.parent.mkdir()
    file.parent.chmod(0o777)
    with pytest.raises(DeliveryFailed) as caught:
        sink.deliver([entry()], {})
    assert (caught.value.reason, caught.value.hint) == ("open-directory", f"chmod go-w {file.parent}")


def test_one_store_has_one_owner(sink: UvStoreSink, file: Path) -> None:
    """A second daemon is told who owns it."""
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
    """Two organisations' feeds on one host, a laptop, and a project that needs both."""

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
        while not condition(found := status(self.laptop)):
            assert time.monotonic() < deadline, json.dumps(found, indent=1)
            time.sleep(0.02)
        return found


@pytest.fixture
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Everything, with the daemon not started yet."""
    folder = tmp_path_factory.mktemp("s")  # a short path, since a socket is in it
    pats: dict[str, str] = {}
    feeds: dict[str, PackageIndex] = {}

    def front(call: Call) -> Answer:
        return feeds[call.path.split("/")[1]].answer(call)

    with CodeArtifact() as cloud, Server(front) as host:
        laptop = AwsMachine(folder, cloud)
        project = folder / "project"
        project.mkdir()
        made = World(laptop, project, feeds, pats)
        tables, sources, indexes = [], [], []
        for org, package in (("acme", "alpha"), ("beta", "eta")):
            moved = {name: getattr(AZURE, name).replace("/acme", f"/{org}") for name in ("root", "files", "path")}
            feed = PackageIndex(
                lambda login, token, org=org: (login, token) == (org, pats[org]),  # type: ignore[misc]
                registry=dataclasses.replace(AZURE, **moved),
            )
            feed.base = host.url
            feeds[org] = feed
            made.rotate(org, f"first-{org}")
            url = f"{host.url}{feed.registry.root}/simple/"
            tables.append(
                f'[[index]]\nname = "{org}"\nurl = "{url}"\nprovider = "azure-artifacts"\nsink = "uv-store"\n'
                f'username = "{org}"\ncredential = "pat"\npat = {{ file = "~/{org}" }}\n'
            )
            # uv tells the two apart by the user name alone, and Azure's files lie outside the index, so that uv has
            # to be told of the organisation as well.
            mine = host.url.replace("://", f"://{org}@")
            named = f"{mine}{feed.registry.root}/simple/"
            indexes.append(f'[[tool.uv.index]]\nname = "{org}"\nurl = "{named}"\nauthenticate = "always"\n')
            indexes.append(f'[[tool.uv.index]]\nname = "{org}-files"\nurl = "{mine}/{org}/"\nexplicit = true\n')
            sources.append(f'{package} = {{ index = "{org}" }}')
        laptop.config.write_text("\n".join(tables))
        laptop.config.chmod(0o600)
        text = PYPROJECT.format(sources="\n".join(sources)) + "\n".join(indexes)
        (project / "pyproject.toml").write_text(text)
        yield made
        laptop.stop()
        for feed in feeds.values():
            feed.close()


def delivered(document: dict[str, Any]) -> bool:
    return document["pid"] is not None and all(index["delivered"] for index in document["indexes"])


def test_two_organisations_on_one_host_install_in_one_sync(world: World) -> None:
    """Two tokens for one host, which no netrc could hold; both rotate, and purge takes both out."""
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
    assert world.sync().returncode != 0  # the index lets nobody in with the old ones
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


def test_a_restart_keeps_what_stands_in_the_store(world: World) -> None:
    """The status without a daemon knows it, and the next start writes nothing."""
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


def test_a_netrc_entry_for_the_host_is_told_and_can_be_adopted(world: World) -> None:
    """uv would take it first. After `adopt` the store counts; after `purge` it is there again."""
    world.laptop.netrc.write_text("machine 127.0.0.1 login me password mine\n")
    world.laptop.netrc.chmod(0o600)
    world.laptop.start()
    document = world.until(lambda found: found["pid"] is not None and found["indexes"][0]["last_error"] is not None)
    assert [index["delivered"] for index in document["indexes"]] == [False, False]
    assert document["indexes"][0]["last_error"]["hint"] == "uvtokend adopt acme"
    assert world.laptop.uvtokend("adopt", "acme").returncode == 0
    world.until(delivered)
    done = world.sync()
    assert done.returncode == 0, done.stderr
    assert world.laptop.uvtokend("purge").returncode == 0
    assert world.laptop.netrc.read_text() == "machine 127.0.0.1 login me password mine\n"


def test_from_the_netrc_to_the_store(world: World) -> None:
    """A changed configuration moves the entry: the netrc, which would shadow the store, is emptied."""
    text = world.laptop.config.read_text()
    first, _, _ = text.partition("\n\n")
    world.laptop.config.write_text(first.replace("uv-store", "netrc"))
    world.laptop.start()
    world.until(delivered)
    assert "first-acme" in world.laptop.netrc.read_text()
    world.laptop.config.write_text(text)
    assert world.laptop.uvtokend("reload").returncode == 0
    world.until(lambda found: delivered(found) and len(found["indexes"]) == 2)
    assert "first-acme" not in world.laptop.netrc.read_text()
    done = world.sync()
    assert done.returncode == 0, done.stderr

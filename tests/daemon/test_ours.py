"""Which netrc entries are ours: never a user's own entry, and every entry of ours wherever it is."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.waiting import until
from uvtokend.core.netrc.block import BEGIN, END
from uvtokend.sandbox.machine import Machine

OWN = b"machine a.example login me password hunter2\nmachine ftp.example login me password mine\n"


@pytest.fixture
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """Return a machine whose index takes its password from the environment."""
    created = Machine(tmp_path_factory.mktemp("m"))
    created.environment["PASSWORD"] = "hunter2"
    del created.environment["NETRC"]
    configure(created)
    yield created
    created.stop()


def configure(machine: Machine, *hosts: str, netrc: str = "~/.netrc", username: str = '"me"') -> None:
    """Write a configuration with static indexes."""
    tables = [
        f'[[index]]\nname = "{host[0]}"\nurl = "https://{host}/simple/"\nprovider = "static"\nusername = {username}\n'
        'password = { env = "PASSWORD" }\n'
        for host in hosts or ("a.example",)
    ]
    machine.write(f'[daemon]\nnetrc = "{netrc}"\n', *tables)


def block(*hosts: str) -> bytes:
    """Return our block for these hosts."""
    return b"".join([BEGIN, b"\n", *(f"machine {h} login me password hunter2\n".encode() for h in hosts), END, b"\n"])


def test_a_users_entry_with_the_same_values_is_foreign(machine: Machine) -> None:
    """A user's own entry with the same login and password stays byte for byte, and the fix is `adopt`."""
    machine.netrc.write_bytes(OWN)
    done = machine.uvtokend("once")
    assert done.returncode == 1
    assert "uvtokend adopt a" in done.stdout
    assert machine.netrc.read_bytes() == OWN
    assert machine.uvtokend("once").returncode == 1
    assert machine.netrc.read_bytes() == OWN
    assert machine.uvtokend("adopt", "a").returncode == 0
    assert machine.uvtokend("once").returncode == 0
    assert machine.netrc.read_bytes() == block("a.example") + OWN.splitlines(keepends=True)[1]
    assert machine.uvtokend("purge").returncode == 0
    assert machine.netrc.read_bytes() == OWN


def test_an_entry_that_was_delivered_is_taken_back(machine: Machine) -> None:
    """If a program rewrites the netrc without its comments, our entry loses its marks but is still recognized."""
    machine.netrc.write_bytes(OWN.splitlines(keepends=True)[1])
    assert machine.uvtokend("once").returncode == 0
    machine.netrc.write_bytes(OWN)
    assert machine.uvtokend("once").returncode == 0
    assert machine.netrc.read_bytes() == block("a.example") + OWN.splitlines(keepends=True)[1]
    assert machine.uvtokend("purge").returncode == 0
    assert machine.netrc.read_bytes() == OWN.splitlines(keepends=True)[1]


def test_an_entry_of_a_removed_index_is_foreign_again(machine: Machine) -> None:
    """After our entry was removed, an entry with the same values that the user writes is foreign."""
    configure(machine, "a.example", "b.example")
    assert machine.uvtokend("once").returncode == 0
    configure(machine, "b.example")
    assert machine.uvtokend("once").returncode == 0
    own = OWN + machine.netrc.read_bytes()
    machine.netrc.write_bytes(own)
    configure(machine, "a.example", "b.example")
    assert machine.uvtokend("once").returncode == 1
    assert OWN in machine.netrc.read_bytes()


def test_a_lost_state_and_a_removed_index_leave_nothing(machine: Machine) -> None:
    """Without a state file, the block alone tells which entries are ours."""
    configure(machine, "a.example", "b.example")
    machine.netrc.write_bytes(OWN.splitlines(keepends=True)[1])
    assert machine.uvtokend("once").returncode == 0
    assert machine.netrc.read_bytes() == block("a.example", "b.example") + OWN.splitlines(keepends=True)[1]
    (machine.state / "state.json").unlink()
    configure(machine, "b.example")
    assert machine.uvtokend("once").returncode == 0
    assert machine.netrc.read_bytes() == block("b.example") + OWN.splitlines(keepends=True)[1]


def test_moving_the_netrc_cleans_the_former_one(machine: Machine) -> None:
    """The first delivery to the new netrc cleans the former one. If uvtokend created the former file, it is deleted;
    foreign text stays."""
    other = machine.home / "other"
    for before, after in ((b"", None), (OWN[44:], OWN[44:])):
        machine.netrc.unlink(missing_ok=True)
        other.unlink(missing_ok=True)
        if before:
            machine.netrc.write_bytes(before)
        configure(machine)
        assert machine.uvtokend("once").returncode == 0
        configure(machine, netrc=str(other))
        assert machine.uvtokend("once").returncode == 0
        assert block("a.example") in other.read_bytes()
        assert (machine.netrc.read_bytes() if machine.netrc.exists() else None) == after
        assert machine.uvtokend("purge").returncode == 0


def test_a_former_netrc_that_cannot_be_cleaned_is_reported(machine: Machine) -> None:
    """The status names the former netrc until it is clean. `purge` cleans it and says which files it cleaned."""
    assert machine.uvtokend("once").returncode == 0
    (machine.home / "..netrc.uvtokend").mkdir()
    configure(machine, netrc="~/other")
    done = machine.uvtokend("once")
    assert done.returncode == 0
    assert str(machine.netrc) in status(machine)["delivery"]["problem"]
    assert machine.uvtokend("purge").returncode == 1
    (machine.home / "..netrc.uvtokend").rmdir()
    done = machine.uvtokend("purge")
    assert (done.returncode, f"Removed our entries from {machine.netrc}." in done.stderr) == (0, True)
    assert {path.name for path in machine.home.iterdir()} == {"config.toml", ".local"}
    assert not machine.state.exists()


def status(machine: Machine) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(machine.uvtokend("status", "--json").stdout)
    return document


def test_a_secret_user_name_is_only_in_the_sink(machine: Machine) -> None:
    """A secret user name, such as Nexus's name code, is in neither the state file nor the ledger."""
    machine.environment["NAME"] = "name-code"
    configure(machine, username='{ env = "NAME" }')
    machine.config.write_text(machine.config.read_text().replace('"static"', '"nexus"'))
    assert machine.uvtokend("once").returncode == 0
    assert b"name-code" in machine.netrc.read_bytes()
    machine.config.write_text(machine.config.read_text() + 'sink = "uv-store"\n')
    assert machine.uvtokend("once").returncode == 0
    store = machine.home / ".local/share/uv/credentials"
    files_with_name = {
        path.name for path in [*machine.home.rglob("*")] if path.is_file() and b"name-code" in path.read_bytes()
    }
    assert files_with_name == {"credentials.toml"}
    assert {path.name for path in store.iterdir()} >= {"credentials.toml", "credentials.toml.uvtokend"}


@pytest.mark.parametrize("version", [1, 2])
def test_a_hostile_state_file_costs_one_fetch(machine: Machine, version: int) -> None:
    """Times in the year 9999 after a clock step of another boot stop no command."""
    assert machine.uvtokend("once").returncode == 0
    file = machine.state / "state.json"
    document = json.loads(file.read_text())
    document["boot"]["at"] = "2000-01-01T00:00:00Z"
    for record in document["tokens"]:
        record |= {"issued_at": "9999-12-31T23:59:59Z", "places": record["targets"], "login": "me", "sha256": "x"}
        record |= {"expires_at": "9999-12-31T23:59:59Z", "refresh_at": "8999-12-31T23:59:59Z"}
    document |= {"version": version, "netrc": str(machine.netrc), "created": True}
    file.write_text(json.dumps(document))
    assert machine.uvtokend("status").returncode == 3
    assert machine.uvtokend("once").returncode == 0
    file.write_text(json.dumps(document))
    assert machine.uvtokend("purge").returncode == 0
    assert not machine.netrc.exists()


@pytest.mark.parametrize("name", ["state.json", "state.json.new", "events.jsonl"])
def test_a_pipe_in_the_state_directory_blocks_nothing(machine: Machine, name: str) -> None:
    """With a pipe in place of a state file, `once`, `status`, `log` and `purge` still end, and the token is
    delivered."""
    machine.state.mkdir(mode=0o700, parents=True)
    machine.state.parent.chmod(0o700)
    os.mkfifo(machine.state / name)
    assert machine.uvtokend("once").returncode == 0
    assert machine.uvtokend("status").returncode == 3
    assert machine.uvtokend("log").returncode == 0
    assert machine.uvtokend("purge").returncode == 0
    assert not machine.state.exists()


def test_other_configurations_keep_their_netrc(machine: Machine) -> None:
    """Two configurations with different netrcs may be used in turn without cleaning each other's. `purge` cleans
    both."""
    other = machine.home / "other.toml"
    configure(machine, netrc="~/second")
    other.write_bytes(machine.config.read_bytes())
    other.chmod(0o600)
    configure(machine)
    for _ in range(2):
        assert machine.uvtokend("once").returncode == 0
        assert machine.uvtokend("--config", str(other), "once").returncode == 0
    files = [machine.netrc, machine.home / "second"]
    assert [file.read_bytes() for file in files] == [block("a.example")] * 2
    assert machine.uvtokend("purge").returncode == 0
    assert not any(file.exists() for file in files)


def test_the_former_store_is_cleaned(machine: Machine, tmp_path: Path) -> None:
    """If uv's credentials directory moved, the next delivery cleans the former store."""
    machine.config.write_text(machine.config.read_text() + 'sink = "uv-store"\n')
    former = machine.home / ".local/share/uv/credentials/credentials.toml"
    assert machine.uvtokend("once").returncode == 0
    assert b"hunter2" in former.read_bytes()
    machine.environment["UV_CREDENTIALS_DIR"] = str(tmp_path / "uv")
    (tmp_path / "uv").mkdir(mode=0o700)
    assert machine.uvtokend("once").returncode == 0
    assert b"hunter2" in (tmp_path / "uv/credentials.toml").read_bytes()
    with contextlib.suppress(FileNotFoundError):
        assert b"hunter2" not in former.read_bytes()


def test_a_netrc_whose_link_changes_is_cleaned(machine: Machine) -> None:
    """If a dotfiles manager changes the netrc's link, a running daemon writes the new file, names it in its status and
    cleans the old one."""
    first, second = (machine.home / name for name in ("first", "second"))
    for file in (first, second):
        file.write_bytes(OWN.splitlines(keepends=True)[1])
    machine.netrc.symlink_to(first)
    machine.start()
    until(lambda: b"a.example" in first.read_bytes())
    (machine.home / "new").symlink_to(second)
    (machine.home / "new").rename(machine.netrc)
    done = machine.uvtokend("refresh")
    assert (done.returncode, "already has an owner" in done.stdout) == (0, False)
    assert first.read_bytes() == OWN.splitlines(keepends=True)[1]
    assert second.read_bytes() == block("a.example") + OWN.splitlines(keepends=True)[1]
    assert json.loads(machine.uvtokend("status", "--json").stdout)["netrc"] == str(second)

"""With `sink = "memory"` no file ever contains a token, and the real uv and pip still get it."""

from __future__ import annotations

import contextlib
import os
import stat
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.daemons import await_ready
from support.issuing import CANARY, Issuing
from support.unprivileged import as_user
from support.waiting import PATIENCE, until
from uvtokend.cli import client

#: ``ROTATIONS=100 pytest tests/e2e/test_memory.py``, run by hand, also searches every disk of the machine.
ROTATIONS = int(os.environ.get("ROTATIONS", "8"))
EVERYWHERE = "ROTATIONS" in os.environ
#: File systems that are not disks: the kernel creates their files as they are read.
VIRTUAL = {"proc", "sysfs", "cgroup2", "devpts", "mqueue", "securityfs", "debugfs", "tracefs", "bpf"}
MEMORY = 'sink = "memory"'


@pytest.fixture
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Issuing]:
    """Make a machine with one index in memory, and our keyring first on PATH; its daemon is not started."""
    made = Issuing(tmp_path_factory.mktemp("m"))
    made.configure(MEMORY)
    assert made.uvtokend("keyring", "install", str(made.home / "bin")).returncode == 0
    made.environment["PATH"] = f"{made.home / 'bin'}{os.pathsep}{made.environment['PATH']}"
    yield made
    made.close()


def holding(machine: Issuing) -> list[Path]:
    """Return every file of the machine that contains a token or a part of one."""
    while True:
        files = [path for path in machine.directory.rglob("*") if path.is_file() and not path.is_symlink()]
        assert machine.config in files
        with contextlib.suppress(FileNotFoundError):  # the daemon has just replaced one of them: look again
            return [path for path in files if CANARY.encode() in path.read_bytes() and path.name != "issue"]


def changed_anywhere(since: float) -> list[Path]:
    """Return every file on the disks of this machine that has changed since then and contains a token."""
    mounts = {line.split()[1]: line.split()[2] for line in Path("/proc/mounts").read_text().splitlines()}
    holders, seen = [], 0
    for top, directories, names in os.walk("/"):
        directories[:] = [name for name in directories if mounts.get(os.path.join(top, name)) not in VIRTUAL]
        for path in (Path(top, name) for name in names):
            with contextlib.suppress(OSError):
                status = path.lstat()
                if stat.S_ISREG(status.st_mode) and status.st_mtime >= since:
                    seen += 1
                    holders += [path] if CANARY.encode() in path.read_bytes() else []
    assert seen
    return holders


def authenticated(machine: Issuing) -> str:
    """Return the index's URL with the user name that `keyring` needs."""
    return machine.index.url.replace("://", "://me@")


def test_no_file_holds_a_token(machine: Issuing, monkeypatch: pytest.MonkeyPatch) -> None:
    """No file of the machine contains a token after each rotation, after an install by uv, and after a keyring call."""
    monkeypatch.setenv("UVTOKEND_SOCKET", machine.environment["UVTOKEND_SOCKET"])
    began = time.time()
    machine.begin()
    for rotation in range(ROTATIONS):
        assert client.call("refresh", timeout=PATIENCE)["indexes"][0]["delivered"]
        assert holding(machine) == [], rotation
    token = machine.tokens[-1]
    done = machine.run(["keyring", "get", machine.index.url, "me"])
    assert (done.returncode, done.stdout) == (0, f"{token}\n")
    where = machine.directory / "target"
    installed = machine.install(
        where, "--keyring-provider", "subprocess", "--index-url", authenticated(machine), "alpha"
    )
    assert installed.returncode == 0, installed.stderr
    assert (where / "alpha.py").exists()
    assert machine.uvtokend("stop").returncode == 0
    assert holding(machine) == []
    assert not machine.netrc.exists()
    assert len(machine.tokens) == ROTATIONS + 1
    if EVERYWHERE:
        assert changed_anywhere(began - 1) == [machine.directory / "issue"]


def test_moving_to_memory_and_back(machine: Issuing) -> None:
    """When an index moves to memory, its entry is removed before the next fetch;
    moved back, it gets the newest token.
    """
    machine.configure()
    machine.begin()
    assert holding(machine) == [machine.netrc]
    # The program reads the netrc while it makes a token; our entry must already be gone.
    seen = machine.directory / "seen"
    program = machine.directory / "issue"
    program.write_text(program.read_text().replace("#!/bin/sh\n", f"#!/bin/sh\ncat {machine.netrc} >> {seen}\n"))
    machine.configure(MEMORY)
    assert machine.uvtokend("reload").returncode == 0
    until(lambda: len(machine.tokens) == 2)
    await_ready(machine)
    assert CANARY not in seen.read_text()
    assert holding(machine) == []
    machine.configure()
    assert machine.uvtokend("reload").returncode == 0
    await_ready(machine)
    assert holding(machine) == [machine.netrc]


def test_a_start_after_the_change(machine: Issuing) -> None:
    """If the index moved to memory while no daemon ran, the next daemon removes the entry and fetches a new token."""
    machine.configure()
    machine.begin()
    machine.stop()
    machine.configure(MEMORY)
    machine.begin()
    assert holding(machine) == []
    assert len(machine.tokens) == 2


def test_without_a_daemon(machine: Issuing) -> None:
    """Without a daemon, `once` skips the index, `ensure` refuses, and `exec` and `token` fetch the token themselves."""
    done = machine.uvtokend("once")
    assert done.returncode == 0
    assert "Skipped acme" in done.stderr
    assert machine.tokens == []
    done = machine.uvtokend("ensure", "--", "true")
    assert (done.returncode, "fix: uvtokend start" in done.stderr) == (1, True)
    assert machine.uvtokend("token", "acme").stdout == f"{CANARY}-1\n"
    assert machine.uvtokend("exec", "acme", "--", "sh", "-c", "echo $UV_INDEX_ACME_PASSWORD").stdout == f"{CANARY}-2\n"
    assert holding(machine) == []


@pytest.mark.linux("only Linux makes a process undumpable")
def test_the_daemons_memory_is_protected(machine: Issuing) -> None:
    """The daemon dumps no core, and other processes of the same user cannot attach to it."""
    machine.begin()
    assert machine.daemon is not None
    status = Path(f"/proc/{machine.daemon.pid}/status").read_text()
    assert "\nUid:" in status
    core = next(line for line in Path(f"/proc/{machine.daemon.pid}/limits").read_text().splitlines() if "core" in line)
    assert core.split()[4] == "0"
    assert os.stat(f"/proc/{machine.daemon.pid}/maps").st_uid == 0


@pytest.mark.linux("only Linux makes a process undumpable")
def test_an_undumpable_process_cannot_be_read() -> None:
    """A process of the same user can read another process before it calls `protect`, and not afterwards."""
    script = """
    import uvtokend.undumpable
    def readable():
        child = os.fork()
        if child == 0:
            try:
                open(f"/proc/{os.getppid()}/maps").close()
            except PermissionError:
                os._exit(1)
            os._exit(0)
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)  # as after an exec; giving up root has already made this process undumpable
    before = readable()
    uvtokend.undumpable.protect()
    print(before, readable())
    """
    done = as_user(script, imports="uvtokend.undumpable, resource, ctypes")
    assert done.stdout.split() == ["True", "False"], done.stderr

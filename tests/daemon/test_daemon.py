"""The whole daemon as a process, with real boto3 in its workers, an emulated cloud, and failures of every kind."""

from __future__ import annotations

import json
import netrc
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psutil
import pytest

from support.daemons import is_ready, status
from support.issuing import Issuing
from support.unprivileged import hidden
from support.waiting import PATIENCE, until
from uvtokend import clock
from uvtokend.sandbox.codeartifact import CodeArtifact
from uvtokend.sandbox.machine import AwsMachine, Machine
from uvtokend.sandbox.web import Answer, Call

FOREIGN = b"# my own\r\nmachine mine.example login me password \xff'mine'\n\n\tmacdef x\n y\n"


@pytest.fixture
def laptop(tmp_path_factory: pytest.TempPathFactory, cloud: CodeArtifact) -> Iterator[AwsMachine]:
    """Return a machine with one index, whose daemon is stopped at the end."""
    machine = AwsMachine(tmp_path_factory.mktemp("l"), cloud)
    machine.configure(a="https://a.example/simple/")
    yield machine
    machine.stop()


@pytest.fixture
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Issuing]:
    """Return a machine with one index whose tokens come from a program, so that no SDK is loaded."""
    created = Issuing(tmp_path_factory.mktemp("m"))
    created.configure(a="https://a.example/simple/")
    yield created
    created.close()


def index(laptop: Machine, name: str = "a") -> dict[str, Any]:
    return next(one for one in status(laptop)["indexes"] if one["name"] == name)


def tokens(laptop: Machine) -> dict[str, str]:
    """Return the tokens that Python's netrc reads, by host."""
    if not laptop.netrc.exists():
        return {}
    return {host: entry[2] for host, entry in netrc.netrc(str(laptop.netrc)).hosts.items()}


def written(laptop: Machine) -> list[bytes]:
    """Return the tokens of the entries for a.example, even from a file that Python's netrc refuses."""
    return re.findall(rb"^machine a\.example login \S+ password (\S+)", laptop.netrc.read_bytes(), re.MULTILINE)


def start(laptop: Machine) -> None:
    laptop.start()
    until(lambda: status(laptop)["pid"] and index(laptop)["delivered"])


def test_one_request_serves_ten_indexes(laptop: AwsMachine, cloud: CodeArtifact) -> None:
    """Indexes of one CodeArtifact domain share one token, which is delivered for each of their hosts."""
    laptop.configure(**{f"i{number}": f"https://h{number % 3}.example/r{number}/simple/" for number in range(10)})
    laptop.start()
    until(lambda: len(status(laptop)["indexes"]) == 10 and is_ready(laptop))
    assert cloud.fetches == 1
    assert set(tokens(laptop)) == {"h0.example", "h1.example", "h2.example"}
    assert len(set(tokens(laptop).values())) == 1


def test_a_kill_at_any_moment(machine: Issuing) -> None:
    """After SIGKILL at a random moment the next start works, keeps a delivered token, and leaves foreign text
    unchanged."""
    machine.netrc.write_bytes(FOREIGN)
    dice = random.Random(7)
    for _ in range(6):
        machine.start()
        time.sleep(dice.uniform(0.05, 0.9))
        assert machine.daemon is not None
        machine.daemon.kill()
        machine.daemon.wait()
        assert machine.netrc.read_bytes().endswith(FOREIGN)
    start(machine)
    fetched = len(machine.tokens)
    assert machine.daemon is not None
    machine.daemon.kill()
    machine.daemon.wait()
    start(machine)
    assert len(machine.tokens) == fetched
    assert machine.netrc.read_bytes().endswith(FOREIGN)
    assert machine.uvtokend("stop").returncode == 0
    assert machine.uvtokend("purge").returncode == 0
    assert machine.netrc.read_bytes() == FOREIGN


def test_expiry_fails_closed(machine: Issuing) -> None:
    """If no new token can be fetched, the entry is removed when its token expires, and written again with the next
    token."""
    machine.set_life(6)
    start(machine)
    machine.fail()
    assert machine.uvtokend("refresh").returncode == 1
    end = datetime.fromisoformat(index(machine)["expires_at"])
    until(lambda: "a.example" not in tokens(machine))
    assert datetime.now(UTC) >= end
    expired = until(lambda: index(machine)["health"] == "expired" and index(machine))
    assert (expired["health"], expired["delivered"]) == ("expired", False)
    assert expired["last_error"]["kind"] == "transient"
    assert machine.uvtokend("status").returncode == 1
    machine.set_life(3600)
    assert machine.uvtokend("refresh").returncode == 0
    assert tokens(machine)["a.example"] in machine.tokens


def test_expired_entries_go_before_the_first_fetch(machine: Issuing) -> None:
    """A daemon that starts with an expired entry removes it, even if the issuer is unreachable."""
    start(machine)
    machine.stop()
    state = machine.state / "state.json"
    document = json.loads(state.read_text())
    for name in ("issued_at", "refresh_at", "expires_at", "wall_end"):
        before = datetime.fromisoformat(document["tokens"][0][name])
        document["tokens"][0][name] = (before - timedelta(hours=2)).isoformat()
    state.write_text(json.dumps(document))
    assert "a.example" in tokens(machine)
    machine.fail()
    machine.start()
    until(lambda: "a.example" not in tokens(machine))


def test_a_hung_fetch_delays_no_other(laptop: AwsMachine, cloud: CodeArtifact) -> None:
    """A hung fetch is killed at its deadline with its helpers, while another index gets its token at once."""
    note = laptop.directory / "pid"
    (laptop.home / "hang").write_text(
        f"[profile hang]\ncredential_process = sh -c 'echo $$ > {note}; exec sleep 600'\n"
    )
    table = laptop.config.read_text()
    hang = table.replace('"a"', '"b"').replace("a.example", "b.example").replace('"dev"', '"hang"')
    hang = hang.replace("env = {", f'env = {{ AWS_CONFIG_FILE = "{laptop.home / "hang"}",')
    laptop.config.write_text(f'[daemon]\nfetch-timeout = "4s"\n{table}\n{hang}')
    laptop.start()
    until(lambda: note.exists() and note.read_text().strip())
    helper = psutil.Process(int(note.read_text()))
    until(lambda: status(laptop)["pid"] and index(laptop, "a")["delivered"])
    helper.wait(PATIENCE)
    until(lambda: (index(laptop, "b")["last_error"] or {}).get("reason") == "deadline")


def test_a_cloud_that_never_answers(laptop: AwsMachine, cloud: CodeArtifact) -> None:
    """If the cloud never answers, the fetch ends at its deadline and `refresh` reports it."""
    text = laptop.config.read_text()
    laptop.config.write_text(f'[daemon]\nfetch-timeout = "3s"\n{text}')

    def silent(_: Call) -> Answer | None:
        time.sleep(8)
        return None

    cloud.fault = silent
    laptop.start()
    until(lambda: status(laptop)["pid"])
    assert laptop.uvtokend("refresh").returncode == 1
    assert index(laptop)["last_error"]["reason"] == "deadline"


def test_a_sign_in_is_noticed(laptop: AwsMachine, cloud: CodeArtifact) -> None:
    """The index is blocked with the exact fix, and its token is fetched as soon as the sign-in files change."""
    keys = (laptop.home / "aws").read_text()
    (laptop.home / "aws").write_text("")
    laptop.config.write_text(laptop.config.read_text().replace('profile = "dev"\n', ""))
    laptop.start()
    until(lambda: status(laptop)["pid"] and index(laptop)["state"] == "blocked")
    assert index(laptop)["last_error"]["hint"].endswith("aws configure sso")
    assert "aws configure" in laptop.uvtokend("status").stdout
    (laptop.home / "aws").write_text(keys.replace("[dev]", "[default]"))
    until(lambda: index(laptop)["delivered"])


@pytest.mark.parametrize("own_state", [True, False])
def test_a_netrc_has_one_owner(machine: Issuing, own_state: bool) -> None:
    """A second daemon with another socket, and even another state directory, exits and names the owner."""
    start(machine)
    assert machine.daemon is not None
    other = {"XDG_STATE_HOME": str(machine.directory / "other state")} if own_state else {}
    second = machine.run(
        [sys.executable, "-P", "-m", "uvtokend", "run"],
        env={"UVTOKEND_SOCKET": str(machine.directory / "run" / "other.sock"), **other},
    )
    assert second.returncode == 1
    assert f"pid {machine.daemon.pid} on " in second.stderr


def test_a_slow_truncating_writer(machine: Issuing) -> None:
    """A program such as ``gpg -d x > ~/.netrc`` empties the netrc at once and writes much later. Meanwhile the delivery
    fails and names the program.

    Once its text is written, ours is added above it, and no byte is lost.
    """
    machine.netrc.write_bytes(FOREIGN)
    start(machine)
    script = "import sys; f = open(sys.argv[1], 'wb', 0); print(flush=True); f.write(sys.stdin.buffer.read())"
    words = [sys.executable, "-c", script, str(machine.netrc)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as writer:
        assert writer.stdin is not None
        assert writer.stdout is not None
        writer.stdout.readline()
        assert machine.uvtokend("refresh").returncode == 1
        assert f"(pid {writer.pid})" in status(machine)["delivery"]["problem"]
        assert machine.netrc.read_bytes() == b""
        writer.stdin.write(b"# new\n" + FOREIGN)
    until(lambda: status(machine)["delivery"]["ok"] and index(machine)["delivered"])
    assert machine.netrc.read_bytes().endswith(b"#uvtokend:end\n# new\n" + FOREIGN)
    assert len(written(machine)) == 1


def test_reload_is_all_or_nothing(laptop: AwsMachine, cloud: CodeArtifact) -> None:
    """An invalid configuration is refused with all its problems. A valid one is loaded without a new fetch."""
    start(laptop)
    good = laptop.config.read_text()
    laptop.config.write_text(good.replace('profile = "dev"', 'profil = "dev"\nduration = 7'))
    refused = laptop.uvtokend("reload")
    assert refused.returncode == 2
    assert "profil" in refused.stderr
    assert "duration" in refused.stderr
    assert index(laptop)["delivered"]
    laptop.config.write_text(good + good.replace('"a"', '"b"').replace("a.example", "b.example"))
    assert laptop.uvtokend("reload").returncode == 0
    until(lambda: index(laptop, "b")["delivered"])
    assert cloud.fetches == 1
    laptop.config.write_text("")
    assert laptop.daemon is not None
    laptop.daemon.send_signal(signal.SIGHUP)
    until(lambda: not tokens(laptop))


def test_temporary_credentials_in_the_environment_get_a_notice(laptop: AwsMachine) -> None:
    """Temporary credentials in the daemon's environment work, but a notice says that they will expire, with the fix
    and without the keys."""
    temporary = {"AWS_ACCESS_KEY_ID": "ASIACANARY", "AWS_SECRET_ACCESS_KEY": "canary", "AWS_SESSION_TOKEN": "canary"}
    laptop.write(laptop.config.read_text().replace('profile = "dev"\n', ""))
    laptop.start(temporary)
    until(lambda: status(laptop)["pid"] and index(laptop)["delivered"])
    (notice,) = index(laptop)["notices"]
    names = " ".join(sorted(temporary))
    assert (notice["reason"], notice["hint"]) == ("temporary-environment", f"unset {names} && uvtokend restart")
    output = laptop.uvtokend("status").stdout
    assert notice["hint"] in output
    assert "CANARY" not in (output + laptop.output.read_text()).upper()


def set_back(laptop: Machine, step: timedelta) -> bool:
    """Change the state file as if the wall clock had been behind when it was written. Return False if the boot is
    unknown."""
    file = laptop.state / "state.json"
    document = json.loads(file.read_text())
    if document["boot"] is None or not document["boot"]["id"]:
        return False
    times = [(document["boot"], "at"), *((one, name) for one in document["tokens"] for name in one if "_at" in name)]
    for holder, name in times:
        if holder[name] is not None:
            holder[name] = (datetime.fromisoformat(holder[name]) - step).isoformat()
    file.write_text(json.dumps(document))
    return True


def test_a_clock_set_while_the_daemon_was_stopped_removes_no_token(machine: Issuing) -> None:
    """By the wall clock the token has expired, but by the boot's clock it is valid, so it stays and is refreshed at
    once. It is removed only if a time service keeps the wall clock, because then the machine was paused."""
    machine.set_life(43200)
    start(machine)
    machine.stop()
    before = tokens(machine)
    if not set_back(machine, timedelta(days=1)):
        return  # this system does not identify its boots
    machine.fail()
    if clock.synchronized():
        machine.start()
        until(lambda: status(machine)["pid"] and index(machine)["last_error"])
        assert tokens(machine) == {}
        return
    start(machine)
    assert tokens(machine) == before
    assert index(machine)["health"] == "stale"
    assert index(machine)["life_left_s"] > 11 * 3600


def test_a_paused_machine_fetches_at_once(machine: Issuing) -> None:
    """A restored snapshot looks like a clock step. A recovered token may have expired, so it is replaced."""
    machine.set_life(43200)
    assert machine.uvtokend("once").returncode == 0
    before = tokens(machine)
    if not set_back(machine, timedelta(hours=20)):
        return  # this system does not identify its boots
    assert machine.uvtokend("once").returncode == 0
    assert len(machine.tokens) == 2
    assert tokens(machine) != before
    assert machine.uvtokend("once").returncode == 0
    assert len(machine.tokens) == 2


@pytest.mark.parametrize("zone", ["America/New_York", "Pacific/Kiritimati"])
def test_the_time_zone_does_not_matter(machine: Issuing, zone: str) -> None:
    """All times are in UTC, so neither the time zone nor summer time delays a refresh."""
    machine.set_life(4)
    machine.start({"TZ": zone})
    until(lambda: len(machine.tokens) >= 2)
    delivered_index = until(lambda: status(machine)["pid"] and index(machine)["delivered"] and index(machine))
    assert 0 <= delivered_index["life_left_s"] <= 4
    shown = datetime.fromisoformat(delivered_index["expires_at"])
    assert abs((shown - datetime.now(UTC)).total_seconds()) < 60


def test_the_daemon_waits_for_a_configuration(machine: Issuing) -> None:
    """Without a configuration the daemon waits for one, and starts to work as soon as there is one."""
    text = machine.config.read_text()
    machine.config.write_text("")
    machine.start()
    until(lambda: status(machine)["pid"])
    shown = machine.uvtokend("status")
    assert (shown.returncode, "uvtokend init" in shown.stdout) == (0, True)
    machine.config.write_text(text)
    until(lambda: "a.example" in tokens(machine))


def test_a_program_that_drops_our_comments(machine: Issuing) -> None:
    """An entry without its marks that equals ours is taken back at the next delivery and not duplicated."""
    start(machine)
    bare = "\n".join(line for line in machine.netrc.read_text().splitlines() if not line.startswith("#"))
    machine.netrc.write_text(f"{bare}\nmachine mine.example login me password mine\n")
    assert machine.uvtokend("refresh").returncode == 0
    assert machine.netrc.read_text().count("a.example") == 1
    assert set(tokens(machine)) == {"a.example", "mine.example"}


def test_a_program_that_restores_an_older_entry(machine: Issuing) -> None:
    """If another program writes back an older entry of ours without its marks, it is recognized as ours."""
    start(machine)
    bare = "\n".join(line for line in machine.netrc.read_text().splitlines() if not line.startswith("#"))
    for _ in range(2):
        assert machine.uvtokend("refresh").returncode == 0
    machine.netrc.write_text(f"{bare}\nmachine mine.example login me password mine\n")
    assert machine.uvtokend("refresh").returncode == 0
    assert machine.netrc.read_text().count("a.example") == 1
    assert set(tokens(machine)) == {"a.example", "mine.example"}


def test_a_rival_that_changes_our_block_twice_blocks_the_index(machine: Issuing) -> None:
    """The daemon repairs the first change. A second one within a minute blocks the index until the user asks for a
    refresh."""
    machine.netrc.write_bytes(FOREIGN)
    start(machine)
    [ours] = written(machine)
    theirs = machine.netrc.read_bytes().replace(ours, b"theirs")
    machine.netrc.write_bytes(theirs)
    until(lambda: index(machine)["delivered"] and written(machine) == [ours])
    machine.netrc.write_bytes(theirs)
    until(lambda: index(machine)["state"] == "blocked")
    contested = index(machine)
    assert (contested["last_error"]["reason"], contested["delivered"]) == ("contested", False)
    assert contested["last_error"]["hint"].endswith("uvtokend refresh")
    assert machine.netrc.read_bytes() == theirs
    assert machine.uvtokend("refresh").returncode == 0
    assert written(machine)[0].decode() in machine.tokens
    assert machine.netrc.read_bytes().endswith(FOREIGN)


def test_a_foreign_entry_blocks_until_adopted(machine: Issuing) -> None:
    """A foreign entry stays until the user adopts it, and `purge` restores it."""
    before = b"machine a.example login me password old\n# kept\n"
    machine.netrc.write_bytes(before)
    machine.start()
    until(lambda: status(machine)["pid"] and index(machine)["last_error"])
    assert machine.netrc.read_bytes() == before
    assert index(machine)["last_error"]["hint"] == "uvtokend adopt a"
    assert machine.uvtokend("adopt", "a").returncode == 0
    until(lambda: index(machine)["delivered"])
    assert machine.uvtokend("purge").returncode == 0
    assert machine.netrc.read_bytes() == before


def test_a_netrc_that_cannot_be_written(machine: Issuing) -> None:
    """If a directory is in the netrc's place, the status says so, and the delivery succeeds once it is removed."""
    machine.netrc.mkdir()
    machine.start()
    until(lambda: status(machine)["pid"] and index(machine)["last_error"])
    until(lambda: index(machine)["last_error"]["kind"] == "delivery")
    assert not status(machine)["delivery"]["ok"]
    machine.netrc.rmdir()
    until(lambda: index(machine)["delivered"])


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (Answer.json({"authorizationToken": "a\nmachine evil.example", "expiration": 4e9}), "control-character"),
        (Answer.json({"authorizationToken": "x" * 20000, "expiration": 4e9}), "too-long"),
        (Answer.json({"authorizationToken": "expired", "expiration": 1e9}), "expired-on-arrival"),
    ],
    ids=["line-break", "giant", "expired"],
)
def test_a_hostile_answer(laptop: AwsMachine, cloud: CodeArtifact, answer: Answer, reason: str) -> None:
    """A token that would break the netrc, or that has expired, is refused with a reason, and the netrc stays
    unchanged."""
    laptop.netrc.write_bytes(FOREIGN)
    cloud.fault = lambda call: answer if call.path == "/v1/authorization-token" else None
    laptop.start()
    until(lambda: status(laptop)["pid"] and index(laptop)["last_error"])
    assert index(laptop)["last_error"]["reason"] == reason
    assert laptop.netrc.read_bytes() == FOREIGN


def test_the_token_is_only_in_the_netrc(laptop: AwsMachine, cloud: CodeArtifact) -> None:
    """The token is not in the state file, the log, the status, an argument list or the daemon's environment."""
    start(laptop)
    assert laptop.uvtokend("refresh").returncode == 0
    output = (
        laptop.uvtokend("status", "--json").stdout + laptop.uvtokend("status").stdout + laptop.uvtokend("log").stdout
    )
    files = [path for path in laptop.directory.rglob("*") if path.is_file() and path != laptop.netrc]
    assert laptop.daemon is not None
    process = psutil.Process(laptop.daemon.pid)
    output += " ".join(process.cmdline()) + ("" if hidden(process) else str(process.environ()))
    for token in cloud.tokens:
        assert token not in output
        assert token[200:260] not in output
        assert not [path for path in files if token.encode() in path.read_bytes()]


@pytest.mark.linux("/proc lists the loaded libraries")
def test_the_daemon_is_small(laptop: AwsMachine) -> None:
    """The daemon loads neither SDKs nor TLS, which only its workers need, and stays below 48 MiB."""
    start(laptop)
    assert laptop.daemon is not None
    maps, process = Path(f"/proc/{laptop.daemon.pid}/maps"), psutil.Process(laptop.daemon.pid)
    if maps.exists() and not hidden(process):
        assert not [name for name in ("botocore", "libssl") if name in maps.read_text()]
    assert process.memory_info().rss < 48 * 2**20

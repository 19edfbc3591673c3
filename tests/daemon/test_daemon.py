"""The whole daemon as a process: real boto3 in its workers, the emulated cloud, and everything that can go wrong."""

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
    """A machine with one index, whose daemon is ended at the end."""
    machine = AwsMachine(tmp_path_factory.mktemp("l"), cloud)
    machine.configure(a="https://a.example/simple/")
    yield machine
    machine.stop()


@pytest.fixture
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Issuing]:
    """A machine with one index whose tokens a program issues: the law is the daemon's, and no SDK need be loaded."""
    made = Issuing(tmp_path_factory.mktemp("m"))
    made.configure(a="https://a.example/simple/")
    yield made
    made.close()


def index(laptop: Machine, name: str = "a") -> dict[str, Any]:
    return next(one for one in status(laptop)["indexes"] if one["name"] == name)


def tokens(laptop: Machine) -> dict[str, str]:
    """Return what Python's own netrc reads: host -> token."""
    if not laptop.netrc.exists():
        return {}
    return {host: entry[2] for host, entry in netrc.netrc(str(laptop.netrc)).hosts.items()}


def written(laptop: Machine) -> list[bytes]:
    """Return the tokens of a.example's entries, also in a file that Python's netrc refuses."""
    return re.findall(rb"^machine a\.example login \S+ password (\S+)", laptop.netrc.read_bytes(), re.MULTILINE)


def start(laptop: Machine) -> None:
    laptop.start()
    until(lambda: status(laptop)["pid"] and index(laptop)["delivered"])


def test_one_request_serves_ten_indexes(laptop: AwsMachine, cloud: CodeArtifact) -> None:
    """All repositories of a domain share one token, on every host; a uv finds each of them."""
    laptop.configure(**{f"i{number}": f"https://h{number % 3}.example/r{number}/simple/" for number in range(10)})
    laptop.start()
    until(lambda: len(status(laptop)["indexes"]) == 10 and is_ready(laptop))
    assert cloud.fetches == 1
    assert set(tokens(laptop)) == {"h0.example", "h1.example", "h2.example"}
    assert len(set(tokens(laptop).values())) == 1


def test_a_kill_at_any_moment(machine: Issuing) -> None:
    """After SIGKILL the next start works at once; a token that stands is kept; foreign text is intact."""
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
    """The cloud is away: the token stands to its end, then its entry goes, and comes back with the next token."""
    machine.set_life(6)
    start(machine)
    machine.fail()
    assert machine.uvtokend("refresh").returncode == 1
    end = datetime.fromisoformat(index(machine)["expires_at"])
    until(lambda: "a.example" not in tokens(machine))
    assert datetime.now(UTC) >= end
    found = until(lambda: index(machine)["health"] == "expired" and index(machine))
    assert (found["health"], found["delivered"]) == ("expired", False)
    assert found["last_error"]["kind"] == "transient"
    assert machine.uvtokend("status").returncode == 1
    machine.set_life(3600)
    assert machine.uvtokend("refresh").returncode == 0
    assert tokens(machine)["a.example"] in machine.tokens


def test_expired_entries_go_before_the_first_fetch(machine: Issuing) -> None:
    """A daemon that starts over a token that died takes it out, also while the cloud is away."""
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


def test_a_fetch_that_hangs_delays_nobody(laptop: AwsMachine, cloud: CodeArtifact) -> None:
    """It is gone at its deadline with its helpers, while another index got its token at once."""
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
    """The SDK's endpoint accepts and is silent: the deadline ends it, and a refresh is answered."""
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


def test_a_new_login_is_noticed(laptop: AwsMachine, cloud: CodeArtifact) -> None:
    """Blocked, with the exact command; and as soon as the login's files change, the token is fetched."""
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
def test_one_owner_for_a_netrc(machine: Issuing, own_state: bool) -> None:
    """A second daemon with another socket, and even another state directory, gives way and names the owner."""
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
    """``gpg -d x > ~/.netrc`` empties the file at once and writes later: it is waited for and named, also by a refresh.

    When its text is there, ours is above it, and not a byte of it is lost.
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


def test_reload_takes_all_or_nothing(laptop: AwsMachine, cloud: CodeArtifact) -> None:
    """A bad configuration is refused whole with every problem; a good one is taken without a new fetch."""
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


def test_temporary_credentials_in_its_environment_are_spoken_of(laptop: AwsMachine) -> None:
    """They work for now, and the status says that they will not for long, with the command; the keys are not shown."""
    temporary = {"AWS_ACCESS_KEY_ID": "ASIACANARY", "AWS_SECRET_ACCESS_KEY": "canary", "AWS_SESSION_TOKEN": "canary"}
    laptop.write(laptop.config.read_text().replace('profile = "dev"\n', ""))
    laptop.start(temporary)
    until(lambda: status(laptop)["pid"] and index(laptop)["delivered"])
    (notice,) = index(laptop)["notices"]
    names = " ".join(sorted(temporary))
    assert (notice["reason"], notice["hint"]) == ("temporary-environment", f"unset {names} && uvtokend restart")
    shown = laptop.uvtokend("status").stdout
    assert notice["hint"] in shown
    assert "CANARY" not in (shown + laptop.output.read_text()).upper()


def set_back(laptop: Machine, step: timedelta) -> bool:
    """Change the state file as if the wall clock had been behind when it was written; False if no boot is known."""
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


def test_a_clock_that_was_set_while_it_was_away_removes_no_token(machine: Issuing) -> None:
    """By the wall clock it has expired, by the boot's it is valid: it stays, due at once, though the cloud is down.
    Only where a time service keeps the wall clock, the machine must have been paused, and the token is removed."""
    machine.set_life(43200)
    start(machine)
    machine.stop()
    before = tokens(machine)
    if not set_back(machine, timedelta(days=1)):
        return  # this system does not tell its boots apart
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


def test_a_machine_that_was_paused_fetches_at_once(machine: Issuing) -> None:
    """A restored snapshot looks like a clock that was set: what was recovered may have expired, so it is replaced."""
    machine.set_life(43200)
    assert machine.uvtokend("once").returncode == 0
    before = tokens(machine)
    if not set_back(machine, timedelta(hours=20)):
        return  # this system does not tell its boots apart
    assert machine.uvtokend("once").returncode == 0
    assert len(machine.tokens) == 2
    assert tokens(machine) != before
    assert machine.uvtokend("once").returncode == 0
    assert len(machine.tokens) == 2


@pytest.mark.parametrize("zone", ["America/New_York", "Pacific/Kiritimati"])
def test_no_time_zone_puts_a_refresh_off(machine: Issuing, zone: str) -> None:
    """All times are UTC: the machine's time zone and summer time do not matter."""
    machine.set_life(4)
    machine.start({"TZ": zone})
    until(lambda: len(machine.tokens) >= 2)
    found = until(lambda: status(machine)["pid"] and index(machine)["delivered"] and index(machine))
    assert 0 <= found["life_left_s"] <= 4
    shown = datetime.fromisoformat(found["expires_at"])
    assert abs((shown - datetime.now(UTC)).total_seconds()) < 60


def test_it_waits_for_a_configuration(machine: Issuing) -> None:
    """Without one it runs and waits; with one it begins by itself."""
    text = machine.config.read_text()
    machine.config.write_text("")
    machine.start()
    until(lambda: status(machine)["pid"])
    shown = machine.uvtokend("status")
    assert (shown.returncode, "uvtokend init" in shown.stdout) == (0, True)
    machine.config.write_text(text)
    until(lambda: "a.example" in tokens(machine))


def test_a_rival_that_drops_our_comments_does_not_lock_us_out(machine: Issuing) -> None:
    """An entry without its marks that equals ours is taken back at the next delivery; nothing is doubled."""
    start(machine)
    bare = "\n".join(line for line in machine.netrc.read_text().splitlines() if not line.startswith("#"))
    machine.netrc.write_text(f"{bare}\nmachine mine.example login me password mine\n")
    assert machine.uvtokend("refresh").returncode == 0
    assert machine.netrc.read_text().count("a.example") == 1
    assert set(tokens(machine)) == {"a.example", "mine.example"}


def test_a_rival_that_read_the_netrc_long_ago_does_not_lock_us_out(machine: Issuing) -> None:
    """Its text without comments may hold a token from before the last deliveries: it is ours as well."""
    start(machine)
    bare = "\n".join(line for line in machine.netrc.read_text().splitlines() if not line.startswith("#"))
    for _ in range(2):
        assert machine.uvtokend("refresh").returncode == 0
    machine.netrc.write_text(f"{bare}\nmachine mine.example login me password mine\n")
    assert machine.uvtokend("refresh").returncode == 0
    assert machine.netrc.read_text().count("a.example") == 1
    assert set(tokens(machine)) == {"a.example", "mine.example"}


def test_a_fight_over_our_block_ends_in_blocked(machine: Issuing) -> None:
    """The first change is undone; a second one within a minute stays, until the person who ended it says refresh."""
    machine.netrc.write_bytes(FOREIGN)
    start(machine)
    [ours] = written(machine)
    theirs = machine.netrc.read_bytes().replace(ours, b"theirs")
    machine.netrc.write_bytes(theirs)
    until(lambda: index(machine)["delivered"] and written(machine) == [ours])
    machine.netrc.write_bytes(theirs)
    until(lambda: index(machine)["state"] == "blocked")
    found = index(machine)
    assert (found["last_error"]["reason"], found["delivered"]) == ("contested", False)
    assert found["last_error"]["hint"].endswith("uvtokend refresh")
    assert machine.netrc.read_bytes() == theirs
    assert machine.uvtokend("refresh").returncode == 0
    assert written(machine)[0].decode() in machine.tokens
    assert machine.netrc.read_bytes().endswith(FOREIGN)


def test_a_foreign_entry_blocks_and_adopt_takes_it_over(machine: Issuing) -> None:
    """It is left alone until the person says so, and purge gives it back."""
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
    """A directory in its place: the status says so with the fix, and it recovers by itself."""
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
        (Answer.json({"authorizationToken": "dead", "expiration": 1e9}), "expired-on-arrival"),
    ],
    ids=["line-break", "giant", "dead"],
)
def test_a_hostile_answer(laptop: AwsMachine, cloud: CodeArtifact, answer: Answer, reason: str) -> None:
    """A token that would break the file, or is dead, is refused by name, and the file stays clean."""
    laptop.netrc.write_bytes(FOREIGN)
    cloud.fault = lambda call: answer if call.path == "/v1/authorization-token" else None
    laptop.start()
    until(lambda: status(laptop)["pid"] and index(laptop)["last_error"])
    assert index(laptop)["last_error"]["reason"] == reason
    assert laptop.netrc.read_bytes() == FOREIGN


def test_the_token_is_nowhere_but_in_the_netrc(laptop: AwsMachine, cloud: CodeArtifact) -> None:
    """Not in the state, the log, the status, an argument list or a printed environment."""
    start(laptop)
    assert laptop.uvtokend("refresh").returncode == 0
    said = laptop.uvtokend("status", "--json").stdout + laptop.uvtokend("status").stdout + laptop.uvtokend("log").stdout
    files = [path for path in laptop.directory.rglob("*") if path.is_file() and path != laptop.netrc]
    assert laptop.daemon is not None
    process = psutil.Process(laptop.daemon.pid)
    said += " ".join(process.cmdline()) + ("" if hidden(process) else str(process.environ()))
    for token in cloud.tokens:
        assert token not in said
        assert token[200:260] not in said
        assert not [path for path in files if token.encode() in path.read_bytes()]


@pytest.mark.linux("/proc tells which libraries are loaded")
def test_the_daemon_is_light(laptop: AwsMachine) -> None:
    """It carries no SDK and no TLS: what a fetch needs is loaded in its worker."""
    start(laptop)
    assert laptop.daemon is not None
    maps, process = Path(f"/proc/{laptop.daemon.pid}/maps"), psutil.Process(laptop.daemon.pid)
    if maps.exists() and not hidden(process):
        assert not [name for name in ("botocore", "libssl") if name in maps.read_text()]
    assert process.memory_info().rss < 48 * 2**20

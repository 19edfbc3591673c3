"""The user unit under a real ``systemd --user``: started, refreshed, reloaded, killed, refused and stopped.

An ordinary user's manager, with a journal, runs in its own namespaces; ``systemd_user.sh`` explains how.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from support.person import ANSWER, AWS, Person, person
from uvtokend.sandbox.codeartifact import CodeArtifact

__all__ = ["person"]

ROOT = Path(__file__).parent.parent.parent
UNIT = ROOT / "systemd" / "uvtokend.service"
README = ROOT / "README.md"

STEPS = """
echo "user $(id -u)"
systemd-analyze verify --user --man=no "$HOME/.config/systemd/user/uvtokend.service" 2>&1 | sed "s/^/verify /"
systemctl --user daemon-reload
systemctl --user start uvtokend
echo "type $(show Type) state $(show ActiveState) umask $(show UMask) core $(show LimitCORE)"
echo "watchdog $(show WatchdogUSec)"
uvtokend refresh 2>&1
await '[ "$(show StatusText)" = "1 of 1 indexes have a valid token" ]'
echo "text $(show StatusText)"
first=$(show MainPID)
systemctl --user reload uvtokend
uvtokend status >/dev/null && echo "reloaded"
kill -KILL "$first"
for _ in $(seq 200); do
  second=$(show MainPID)
  [ "$second" = 0 ] || [ "$second" = "$first" ] || ! uvtokend status >/dev/null 2>&1 || break
  sleep 0.1
done
echo "restarted $(show NRestarts) state $(show ActiveState)"
grep -c machine .netrc
systemctl --user stop uvtokend
echo "stopped state $(show ActiveState) result $(show Result)"
uvtokend status >/dev/null 2>&1 || echo "status $?"
echo "nonsense = 1" >"$HOME/.config/uvtokend/config.toml"
systemctl --user start uvtokend 2>/dev/null || true
for _ in $(seq 100); do [ "$(show ActiveState)" != failed ] || break; sleep 0.1; done
echo "refused state $(show ActiveState) status $(show ExecMainStatus) restarts $(show NRestarts)"
for _ in $(seq 100); do
  journalctl --user -u uvtokend >journal 2>&1
  ! grep -q nonsense journal || break
  sleep 0.1
done
sed "s/^/journal /" journal
"""


INSTALL = """
export AWS_PROFILE=dev HTTPS_PROXY=http://me:s3cr3t@proxy.example:3128
uvtokend start --wait 20 >/dev/null 2>&1
rm seen
uvtokend service install 2>&1 | sed "s/^/install /"
uvtokend refresh 2>/dev/null
echo "state $(show ActiveState) enabled $(show UnitFileState) pid $(show MainPID)"
echo "mode $(stat -c %a .config/uvtokend/service.env)"
grep -E "^(AWS_PROFILE|HTTPS_PROXY)=" seen | sed "s/^/environment /"
systemd-analyze verify --user --man=no .config/systemd/user/uvtokend.service 2>&1 | sed "s/^/verify /"
uvtokend service status | sed "s/^/status /"
uvtokend stop 2>/dev/null
echo "stopped $(show ActiveState)"
uvtokend start >/dev/null 2>&1
echo "started $(show ActiveState)"
uvtokend service install --hardened >hardened 2>&1 || sed "s/^/refused /" hardened
echo "layer $(show NoNewPrivileges) state $(show ActiveState)"
uvtokend status >/dev/null && echo fresh
mkdir whole
cat .config/systemd/user/uvtokend.service .config/systemd/user/uvtokend.service.d/hardened.conf >whole/uvtokend.service
score=$(systemd-analyze security --user --offline=true whole/uvtokend.service 2>/dev/null | tail -1)
echo "score $score"
uvtokend service uninstall 2>&1 | sed "s/^/uninstall /"
echo "left $(find .config -type f | sort | tr "\\n" " ")"
uvtokend service status | sed "s/^/status /"
"""


@pytest.fixture
def tester(person: Person) -> Person:
    """Return a user with one index."""
    person.write("corp", f"env >~/seen; echo '{ANSWER}'")
    person.configure("/home/tester/corp")
    return person


@pytest.mark.systemd
def test_the_unit(tmp_path: Path, tester: Person) -> None:
    """The unit reports READY and a status, restarts after a crash with the same token,
    but not if the configuration is invalid.

    The journal contains the reason why the configuration was refused, and never a token.
    """
    units = tmp_path / ".config/systemd/user"
    (units / "uvtokend.service.d").mkdir(parents=True)
    shutil.copy(UNIT, units)
    (units / "uvtokend.service.d" / "soon.conf").write_text("[Service]\nRestartSec=100ms\n")
    said = tester(STEPS)
    assert "user 54321" in said
    assert "type notify state active umask 0077 core 0" in said
    assert "watchdog 1min 40s" in said
    assert "text 1 of 1 indexes have a valid token" in said
    assert "reloaded" in said
    assert "restarted 1 state active" in said
    assert "stopped state inactive result success" in said
    assert "status 3" in said
    assert "refused state failed status 2 restarts 0" in said
    journal = [line for line in said if line.startswith("journal ")]
    assert any("nonsense" in line for line in journal)
    assert not any("s3cr3t" in line for line in said)
    # systemd-analyze always exits with 0, so its output must be empty
    assert [line for line in said if line.startswith("verify ")] == []


@pytest.mark.systemd
def test_the_service_is_installed_and_removed(tester: Person) -> None:
    """install replaces a daemon that was started by hand, records this shell without its secrets,
    and uninstall leaves nothing.

    `stop` and `start` use the manager. The hardened layer is tested before it is used, and tokens are fetched in it.
    """
    said = tester(INSTALL)
    assert any(line.startswith("state active enabled enabled pid ") for line in said), said
    assert "mode 600" in said
    assert [line for line in said if line.startswith("environment ")] == ["environment AWS_PROFILE=dev"]
    assert "install Not recorded, because it may hold a secret: HTTPS_PROXY" in said
    assert any(
        line.startswith("status systemd unit /home/tester/.config") and "active (running)" in line for line in said
    )
    assert "stopped inactive" in said
    assert "started active" in said
    assert "layer yes state active" in said, said
    assert "fresh" in said
    (score,) = (line for line in said if line.startswith("score "))
    assert float(re.findall(r"[0-9]+\.[0-9]+", score)[0]) <= 2.5, score
    assert "left .config/uvtokend/config.toml " in said
    assert said[-2:] == ["status No systemd user unit is installed.", "status   fix: uvtokend service install"]
    assert not any("s3cr3t" in line for line in said)
    assert [line for line in said if line.startswith("verify ")] == []


SOON = """
[Service]
RestartSec=100ms
WatchdogSec=5
TimeoutStopSec=5
ExecStopPost=/bin/sh -c 'echo $$SERVICE_RESULT >>%h/ends'
"""
SUPERVISION = """
systemctl --user daemon-reload
systemctl --user start uvtokend
uvtokend refresh >/dev/null 2>&1
# SIGHUP loads a new index whose fetch hangs; then the unit is stopped during that fetch.
sed 's/corp/slow/g' .config/uvtokend/config.toml >more
cat more >>.config/uvtokend/config.toml
kill -HUP "$(show MainPID)"
await 'pgrep -f "^sleep 600"'
uvtokend status slow --json | tr -d '\\n' | grep -o '"state": "[a-z]*"'
systemctl --user stop uvtokend
echo "stopped state $(show ActiveState) result $(show Result) helpers $(pgrep -c -f "^sleep 600" || true)"
# The watchdog kills a daemon that hangs, and the next daemon has the token.
systemctl --user start uvtokend
kill -STOP "$(show MainPID)"
await '[ "$(show NRestarts)" = 1 ] && uvtokend status corp'
echo "watchdog restarts $(show NRestarts) state $(show ActiveState)"
# After the installation is removed, the daemon ends and is not restarted, even if the unit is started again.
rm -r lib
await '[ "$(show ActiveState)" = inactive ]'
echo "gone state $(show ActiveState) result $(show Result) status $(show ExecMainStatus)"
rm .local/bin/uvtokend
systemctl --user reset-failed uvtokend 2>/dev/null || true
systemctl --user start uvtokend 2>/dev/null || true
await '[ "$(show ActiveState)" = failed ]'
echo "missing state $(show SubState) status $(show ExecMainStatus) restarts $(show NRestarts)"
await 'journalctl --user -u uvtokend | grep installation'
journalctl --user 2>&1 | sed "s/^/journal /"
echo "ends $(tr "\\n" " " <ends)"
"""


@pytest.mark.systemd
def test_the_manager_watches_the_daemon(tester: Person) -> None:
    """systemd stops the daemon within 5 s during a fetch that hangs, and restarts it if the daemon itself hangs.

    If the installation or the program is gone, the unit is not restarted. The journal of the user contains no token.
    """
    units = ".config/systemd/user"
    tester.write(f"{units}/uvtokend.service", UNIT.read_text())
    tester.write(f"{units}/uvtokend.service.d/soon.conf", SOON)
    tester.write("slow", "sleep 600")
    said = tester(SUPERVISION)
    assert '"state": "fetching"' in said
    assert "stopped state inactive result success helpers 0" in said
    assert "watchdog restarts 1 state active" in said
    assert "gone state inactive result success status 0" in said
    assert "missing state failed status 203 restarts 0" in said
    journal = [line for line in said if line.startswith("journal ")]
    assert "ends success watchdog success exit-code " in said  # the last start could not execute the removed program
    assert any("its installation is gone" in line for line in journal)
    assert not any("s3cr3t" in line for line in said)


PROJECT = """\
[project]
name = "x"
version = "1"
[[tool.uv.index]]
name = "acme"
url = "https://acme-123456789012.d.codeartifact.eu-central-1.amazonaws.com/pypi/prod/simple/"
"""
NEWCOMER = """
cd project
uvtokend init --yes 2>&1 | sed "s/^/init /"
uvtokend service install >/dev/null 2>&1
uvtokend status >/dev/null && echo "fresh at first"
cp ~/.netrc ~/first
"""
AGAIN = """
await 'uvtokend status'
echo "state $(show ActiveState) enabled $(show UnitFileState)"
uvtokend status --json | tr -d '\n' | grep -o '"health": "[a-z]*"'
cd
rm first
uv() { echo "uv $*"; rm -r lib .local/bin/uvtokend; }
"""
#: These directories, which all programs share, stay although they are empty.
SHARED = {"./.config", "./.local/state"}


@pytest.mark.systemd
def test_a_new_user_logs_in_again(person: Person) -> None:
    """After ``init``, ``service install`` and another login, the tokens are fresh without any further command.

    The commands in the README's "Uninstall" then leave the home directory exactly as it was before.
    """
    commands = re.search(r"^## Uninstall\n.*?^```sh\n(.*?)^```$", README.read_text(), re.MULTILINE | re.DOTALL)
    assert commands is not None
    uninstall = (
        f"{{\n{commands[1]}}} >/dev/null 2>uninstalled\nrm uninstalled\nfind . ! -name manager.log | sed 's/^/left /'\n"
    )
    with CodeArtifact() as cloud:
        person.write("project/pyproject.toml", PROJECT)
        person.write(".aws/config", AWS.format(url=cloud.url))
        person.write(".netrc", "# mine\nmachine mine.example login me password mine\n")
        before = {f"./{file.relative_to(person.home)}" for file in person.home.rglob("*")}
        said = person(NEWCOMER, AGAIN + uninstall)
    assert any(line.startswith("init acme: works, as arn:aws:sts::") for line in said), said
    assert "fresh at first" in said
    assert "state active enabled enabled" in said
    assert '"health": "fresh"' in said
    left = {line.removeprefix("left ") for line in said if line.startswith("left ")}
    assert left - before == {".", *SHARED}
    assert {name for name in before - left if "/lib" not in name} == {"./.local/bin/uvtokend"}
    assert (person.home / ".netrc").read_text() == "# mine\nmachine mine.example login me password mine\n"

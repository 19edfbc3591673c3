"""The user unit under a real ``systemd --user``: started, refreshed, reloaded, killed, refused and stopped.

An ordinary user's manager, with a journal, in namespaces of its own: ``systemd_user.sh`` says how.
"""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import uvtokend

TESTS = Path(__file__).parent
UNIT = TESTS.parent.parent / "systemd" / "uvtokend.service"

STEPS = """
set -eu
echo "user $(id -u)"
show() { systemctl --user show uvtokend --property="$1" --value; }
systemd-analyze verify --user --man=no "$HOME/.config/systemd/user/uvtokend.service" 2>&1 | sed "s/^/verify /"
systemctl --user daemon-reload
systemctl --user start uvtokend
echo "type $(show Type) state $(show ActiveState) umask $(show UMask) core $(show LimitCORE)"
echo "watchdog $(show WatchdogUSec)"
uvtokend refresh 2>&1
for _ in $(seq 100); do case "$(show StatusText)" in *valid*) break ;; esac; sleep 0.1; done
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
set -eu
show() { systemctl --user show uvtokend --property="$1" --value; }
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
def tester(tmp_path: Path) -> Callable[[str], list[str]]:
    """Run a script as an ordinary user with one index, beside a real user manager; return what it printed."""
    binaries, config = tmp_path / ".local/bin", tmp_path / ".config/uvtokend"
    for folder in (binaries, config):
        folder.mkdir(parents=True)
    (binaries / "uvtokend").write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -P -m uvtokend "$@"\n')
    (binaries / "uvtokend").chmod(0o755)
    (config / "config.toml").write_text(
        '[[index]]\nname = "corp"\nurl = "https://corp.example/simple/"\nprovider = "command"\n'
        'command = ["/bin/sh", "/home/tester/.config/uvtokend/fetch"]\n'
    )
    (config / "config.toml").chmod(0o600)
    answer = '{"username": "me", "password": "s3cr3t-token", "expires_in": 3600}'
    (config / "fetch").write_text(f"env >~/seen; echo '{answer}'")
    code = [sys.base_prefix, sys.prefix, str(Path(uvtokend.__file__).parent.parent)]

    def run(script: str) -> list[str]:
        command = [str(TESTS / "systemd_user.sh"), str(tmp_path), *code, "--", "bash", "-c", script]
        done = subprocess.run(command, capture_output=True, text=True, timeout=110, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout.splitlines()

    return run


@pytest.mark.systemd
def test_the_unit(tmp_path: Path, tester: Callable[[str], list[str]]) -> None:
    """READY and a STATUS worth reading, restart after a crash with the token kept, none after a bad configuration.

    The journal tells why the configuration was refused, and never a token.
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
    # it ends with 0 whatever it finds; unknown keys are only told
    assert [line for line in said if line.startswith("verify ")] == []


@pytest.mark.systemd
def test_the_service_is_installed_and_removed(tester: Callable[[str], list[str]]) -> None:
    """Install takes over from a daemon started by hand, records this shell without its secrets, and leaves nothing.

    `stop` and `start` go through the manager; the hardened layer is probed, and fresh tokens come under it as well.
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
    assert "left .config/uvtokend/config.toml .config/uvtokend/fetch " in said
    assert said[-1] == "status No systemd user unit is installed."
    assert not any("s3cr3t" in line for line in said)
    assert [line for line in said if line.startswith("verify ")] == []

"""The service with unusual paths, shells and units, under a real ``systemd --user``."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from support.desk import Desk, desk
from support.person import ANSWER, Person, person
from uvtokend.errors import UvtokendError
from uvtokend.service import systemd

__all__ = ["desk", "person"]

UNUSUAL = """/home/a b %h "q" $HOME 'x' \\n é [*]?"""
RECORDED = """
export PATH="$HOME/my tools:$PATH" AWS_PROFILE='a "b" $c \\d %e `f`'
for layer in "" --hardened; do
  rm -f seen
  uvtokend service install $layer >installed 2>&1 || cat installed
  uvtokend refresh >/dev/null 2>&1
  echo "state $(show ActiveState) $(show NoNewPrivileges)"
  grep -E "^(AWS_PROFILE|PATH)=" seen
done
systemd-analyze verify --user --man=no .config/systemd/user/uvtokend.service 2>&1 | sed "s/^/verify /"
uvtokend service uninstall 2>/dev/null
find .config -type f
"""


@pytest.mark.systemd
def test_a_home_directory_with_an_unusual_name(tmp_path: Path) -> None:
    """Quotes, dollars, backslashes, percents and patterns in paths and variables reach the daemon unchanged."""
    person = replace(Person(tmp_path), place=UNUSUAL)
    person.installs()
    person.write("corp", f"env >seen; echo '{ANSWER}'")
    person.write(
        ".config/uvtokend/config.toml",
        '[[index]]\nname = "corp"\nurl = "https://corp.example/simple/"\nprovider = "command"\n'
        """command = ["/bin/bash", "-c", 'cd && . ./corp']\n""",
    )
    path = f"PATH={UNUSUAL}/my tools:{UNUSUAL}/.local/bin:/usr/local/bin:/usr/bin:/bin"
    seen = [path, """AWS_PROFILE=a "b" $c \\d %e `f`"""]
    first, second, rest = (lines := person(RECORDED))[:3], lines[3:6], lines[6:]
    assert (first[0], sorted(first[1:], reverse=True)) == ("state active no", seen)
    assert (second[0], sorted(second[1:], reverse=True)) == ("state active yes", seen)
    assert rest == [".config/uvtokend/config.toml"]


BROKEN = """
(unset XDG_RUNTIME_DIR DBUS_SESSION_BUS_ADDRESS; uvtokend service install 2>&1) | sed "s/^/hidden /"
find .config -type f
uvtokend service install >/dev/null 2>&1
mkdir .config/systemd/user/uvtokend.service.d
echo "[Service]
Environment=AWS_REGION=here" >.config/systemd/user/uvtokend.service.d/own.conf
sed -i "s/WatchdogSec=.*/WatchdogSec=7/" .config/systemd/user/uvtokend.service
uvtokend service install >/dev/null 2>&1
uvtokend refresh >/dev/null 2>&1
grep Watchdog .config/systemd/user/uvtokend.service
grep AWS_REGION seen
echo "[Serv" >.config/systemd/user/uvtokend.service
systemctl --user kill --signal=KILL uvtokend
systemctl --user daemon-reload
await '[ "$(show ActiveState)" != active ]'
uvtokend service uninstall 2>/dev/null
echo "uninstall $?"
find .config -type f
"""


@pytest.mark.systemd
def test_units_that_others_edited_or_broke(person: Person) -> None:
    """install repairs an old unit and keeps the user's drop-in; uninstall removes even a unit that cannot be loaded.

    In a shell of `su`, which does not know the manager's address, install names the variable to set.
    """
    person.write("corp", f"env >~/seen; echo '{ANSWER}'")
    person.configure("/home/tester/corp")
    lines = person(BROKEN)
    hidden = [line for line in lines if line.startswith("hidden ")]
    assert hidden[-1] == "hidden   fix: export XDG_RUNTIME_DIR=/run/user/54321 && uvtokend service install"
    config, own = ".config/uvtokend/config.toml", ".config/systemd/user/uvtokend.service.d/own.conf"
    rest = [line for line in lines if line not in hidden]
    assert rest[:3] == [config, "WatchdogSec=100", "AWS_REGION=here"]
    assert rest[3] == "uninstall 0"
    assert sorted(rest[4:]) == sorted([config, own])


@pytest.mark.parametrize("path", ["/home/a\nExecStart=x", "/home/a\x7f", os.fsdecode(b"/home/\xff")])
def test_a_path_that_no_unit_can_contain(path: str) -> None:
    """A path with a line break, which systemd would read as another setting, is refused before anything is written."""
    with pytest.raises(UvtokendError, match="no systemd unit can hold"):
        systemd.refuse_unprintable(["/usr/bin/uvtokend", path])


@pytest.mark.root
def test_root_in_another_users_home(desk: Desk) -> None:
    """With sudo and the user's HOME, install and uninstall refuse, since root would own the files."""
    desk.configure(("a", "a.example"))
    for path in (desk.home, *desk.home.rglob("*")):
        os.chown(path, 12345, 12345)
    before = sorted(desk.home.rglob("*"))
    for order in ("install", "uninstall"):
        assert "run uvtokend without sudo" in desk.run("service", order, status=1).stderr
    assert sorted(desk.home.rglob("*")) == before

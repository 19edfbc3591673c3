"""What `doctor` says about a service of a real ``systemd --user``: the test runs each printed fix, and it works."""

from __future__ import annotations

import sys

import pytest

from support.patient import INDEX, PROJECT
from support.person import Person, person
from uvtokend.sandbox.index import PackageIndex
from uvtokend.sandbox.machine import find_uv

__all__ = ["person"]

#: A replacement for logind, which cannot run beside the real user manager of the tests.
LOGINCTL = """\
#!/bin/sh
case "$1" in
  enable-linger) touch ~/lingers ;;
  show-user) [ -e ~/lingers ] && echo yes || echo no ;;
esac
"""
STEPS = """
export UV_PYTHON={python} UV_NO_PROGRESS=1
cd project
# Print doctor's first finding as `NAME: message`, and run its fix in this shell, as a person does.
repair() {{
  uvtokend doctor --offline >../said || true
  sed -n "1s/^/$1 /p" ../said
  fix=$(sed -n 's/^  fix: //p' ../said | head -1)
  echo "$1 fix $fix"
  eval "$fix" >../repaired 2>&1 || sed "s/^/failed /" ../repaired
}}
judge() {{ {uv} lock --no-cache --upgrade >../said 2>&1 && echo "$1 installs" || echo "$1 fails"; }}
export PATH=$HOME/tools:$PATH:$(dirname {uv})
uvtokend start >/dev/null 2>&1
judge manual
repair service
echo "state $(show ActiveState) enabled $(show UnitFileState)"
repair lingering
echo "well $(uvtokend doctor --offline)"
mkdir ../more
mv ../tools/corp-token ../more
export PATH=$HOME/more:$PATH
uvtokend stop >/dev/null 2>&1
: >~/.netrc
uvtokend start >/dev/null 2>&1
judge program
repair program
judge repaired
export NO_PROXY=127.0.0.1
repair network
echo "well $(uvtokend doctor --offline)"
judge last
"""


@pytest.mark.systemd
def test_each_fix_for_the_service_works(person: Person) -> None:
    """No service, no lingering, a program and a variable that only the shell has:
    doctor reports each, and its fix works.
    """
    with PackageIndex(lambda login, token: (login, token) == ("me", "good")) as index:
        person.write("tools/corp-token", '#!/bin/sh\necho \'{"username": "me", "password": "good"}\'\n', 0o755)
        person.write("tools/loginctl", LOGINCTL, 0o755)
        person.write("project/pyproject.toml", (PROJECT + INDEX).format(url=index.url))
        table = f'[[index]]\nname = "acme"\nurl = "{index.url}"\nprovider = "command"\ncommand = ["corp-token"]\n'
        person.write(".config/uvtokend/config.toml", table)
        said = person(STEPS.format(python=sys.executable, uv=find_uv()))
    assert [line for line in said if line.endswith((" installs", " fails"))] == [
        "manual installs",
        "program fails",
        "repaired installs",
        "last installs",
    ], said
    assert "service note: No service starts uvtokend at the next login." in said
    assert "service fix uvtokend service install" in said
    assert "state active enabled enabled" in said
    assert "lingering note: The service ends when you log out, and with it the refreshing of tokens." in said
    assert "lingering fix loginctl enable-linger" in said
    begins = "program error: corp-token is on PATH in this shell, but not in the daemon's environment; acme needs it"
    assert f"{begins} there." in said
    assert "program fix uvtokend service install && uvtokend restart" in said
    begins = "network note: The daemon was started with other network settings than this shell has (NO_PROXY: here"
    assert any(line.startswith(begins) for line in said)
    well = "well Checked 1 index, not asked: no problems found."
    assert [line for line in said if line.startswith("well ")] == [well, well], said
    assert [line for line in said if line.startswith("failed ")] == []

"""The launchd agent, tested without a Mac: the form, keys and types of its plist (launchd.plist(5)).

`launchctl` is a script that records its calls and fails for the words that a test chooses.
"""

from __future__ import annotations

import os
import plistlib
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from uvtokend.cli import start
from uvtokend.errors import UvtokendError
from uvtokend.service import LAUNCHD_LABEL, environment, launchd, manager

SHIPPED = Path(__file__).parent.parent.parent / "launchd" / f"{LAUNCHD_LABEL}.plist"
TYPES: dict[str, type] = {
    "Label": str,
    "ProgramArguments": list,
    "EnvironmentVariables": dict,
    "RunAtLoad": bool,
    "KeepAlive": dict,
    "ThrottleInterval": int,
    "ExitTimeOut": int,
    "Umask": int,
}
DOMAIN = f"gui/{os.getuid()}"


class Mac:
    """A home directory and a `launchctl` that fails for chosen subcommands."""

    def __init__(self, directory: Path) -> None:
        self.asked = directory / "asked"
        self.failing = directory / "failing"
        self.failing.write_text("")
        self.agent = directory / "Library" / "LaunchAgents" / f"{LAUNCHD_LABEL}.plist"
        program = directory / "launchctl"
        program.write_text(
            f'#!/bin/sh\necho "$*" >> "{self.asked}"\n'
            f'if grep -qx "$1" "{self.failing}"; then echo "$1 failed: 5: Input/output error" >&2; exit 5; fi\n'
            'printf "\\tstate = running\\n\\tpid = 4711\\n"\n'
        )
        program.chmod(0o755)

    def fail(self, *words: str) -> None:
        """Make launchctl fail for these subcommands."""
        self.failing.write_text("".join(f"{word}\n" for word in words))

    def orders(self) -> list[str]:
        """Return the calls of launchctl since the last call of this method."""
        calls = self.asked.read_text().splitlines() if self.asked.exists() else []
        self.asked.unlink(missing_ok=True)
        return calls


@pytest.fixture
def mac(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Mac:
    """Return a machine that claims to be a Mac."""
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    return Mac(tmp_path)


def test_the_shipped_agent_has_known_keys() -> None:
    """The shipped agent has only known keys of the right type, because launchd silently ignores others."""
    agent = plistlib.loads(SHIPPED.read_bytes())
    assert {key: type(value) for key, value in agent.items()} == TYPES
    assert agent["Label"] == SHIPPED.stem
    assert all(isinstance(text, str) for text in agent["EnvironmentVariables"].values())


def test_the_agent_runs_the_daemon() -> None:
    """The agent runs uvtokend with umask 077 and normal priority,
    and restarts it after a crash but not after a stop.
    """
    agent = plistlib.loads(launchd.property_list(["/p/uvtokend"], [("PATH", "/mine"), ("NETRC", "/n")], "/log"))
    assert agent["ProgramArguments"] == ["/p/uvtokend", "run", "--quiet"]
    assert agent["Umask"] == 0o077
    assert agent["KeepAlive"] == {"SuccessfulExit": False}
    assert agent["EnvironmentVariables"] == {"PATH": f"/mine:{launchd.USUAL_PATH}", "NETRC": "/n"}
    assert agent["StandardErrorPath"] == "/log"
    assert "ProcessType" not in agent


def test_an_agent_is_installed_and_removed(mac: Mac) -> None:
    """install writes the agent with mode 644, loads and starts it; uninstall unloads it and deletes its files."""
    assert launchd.install(["/p/uvtokend"], []) == mac.agent
    assert mac.agent.stat().st_mode & 0o777 == 0o644
    target = f"{DOMAIN}/{LAUNCHD_LABEL}"
    assert mac.orders() == [
        f"print {DOMAIN}",
        f"bootout {target}",
        f"bootstrap {DOMAIN} {mac.agent}",
        f"kickstart {target}",
    ]
    assert launchd.lines() == [f"launchd agent {mac.agent}: state = running, pid = 4711"]
    launchd.log_file().write_text("said before")
    mac.orders()
    assert launchd.uninstall() == mac.agent
    assert mac.orders() == [f"print {DOMAIN}", f"bootout {target}"]
    assert [path for path in (mac.agent, launchd.log_file()) if path.exists()] == []
    assert launchd.uninstall() is None
    assert launchd.lines() == ["No launchd agent is installed."]


def test_a_loaded_agent_is_only_started(mac: Mac) -> None:
    """`bootstrap` fails for a loaded agent; that is fine as long as `kickstart` succeeds."""
    launchd.install(["/p/uvtokend"], [])
    mac.orders()
    mac.fail("bootstrap")
    service = manager.installed()
    assert service is not None
    assert mac.orders() == [f"print {DOMAIN}"]
    service.start()
    assert mac.orders() == [f"bootstrap {DOMAIN} {mac.agent}", f"kickstart {DOMAIN}/{LAUNCHD_LABEL}"]


def test_without_a_screen_the_service_is_not_used(mac: Mac) -> None:
    """Over SSH there is no gui domain: install says when the agent will start, and `start` runs the daemon itself."""
    mac.fail("print")
    with pytest.raises(UvtokendError, match="not logged in on the screen"):
        launchd.install(["/p/uvtokend"], [])
    assert mac.agent.exists()
    assert manager.installed() is None
    assert launchd.lines() == [
        f"launchd agent {mac.agent}: you are not logged in on the screen, so launchd does not run it."
    ]


def test_the_usual_directories_are_on_the_path(mac: Mac) -> None:
    """The agent's PATH has the shell's directories first, then those of gcloud,
    uv, Homebrew, MacPorts and Nix, once each.
    """
    launchd.install(["/p/uvtokend"], [("PATH", "/mine:/usr/bin")])
    directories = launchd.variables(mac.agent)["PATH"].split(":")
    assert directories[:2] == ["/mine", "/usr/bin"]
    home = mac.agent.parent.parent.parent
    assert {f"{home}/google-cloud-sdk/bin", "/opt/homebrew/bin", "/usr/local/bin", "/opt/local/bin"} <= set(directories)
    assert len(directories) == len(set(directories))


def test_an_agent_that_ends_slowly_is_waited_for(mac: Mac, monkeypatch: pytest.MonkeyPatch) -> None:
    """If bootout returns EINPROGRESS, uvtokend waits until launchd no longer knows the agent
    before it loads another.
    """
    monkeypatch.setattr(launchd, "_IN_PROGRESS", 5)
    launchd.install(["/p/uvtokend"], [])
    target = f"{DOMAIN}/{LAUNCHD_LABEL}"
    mac.fail("bootout")
    mac.orders()
    # Patch only launchd's `time`: subprocess also sleeps while it waits for a program.
    monkeypatch.setattr(launchd, "time", SimpleNamespace(sleep=lambda _: mac.fail("bootout", "print")))
    launchd._unload(target)
    assert mac.orders() == [f"bootout {target}", f"print {target}", f"print {target}"]


def test_an_error_quotes_launchd(mac: Mac) -> None:
    """If launchd refuses a disabled agent, the error quotes launchd and names System Settings
    and the command to enable it.
    """
    mac.fail("bootstrap", "kickstart")
    with pytest.raises(UvtokendError) as caught:
        launchd.install(["/p/uvtokend"], [])
    assert "bootstrap failed: 5: Input/output error kickstart failed" in caught.value.message
    assert "System Settings > Login Items" in caught.value.message
    assert caught.value.hint == f"launchctl enable {DOMAIN}/{LAUNCHD_LABEL} && uvtokend start"
    assert launchd.lines() == [f"launchd agent {mac.agent}: state = running, pid = 4711"]


def test_the_label_comes_from_the_agent(mac: Mac) -> None:
    """The label is read from the agent, since a package may rename the file;
    for an unreadable agent it is the file's name.
    """
    mac.agent.parent.mkdir(parents=True)
    other = mac.agent.with_name("com.example.uvtokend.plist")
    other.write_bytes(plistlib.dumps({"Label": "io.example.renamed"}))
    service = manager.installed()
    assert service is not None
    assert service.why_command == f"launchctl print {DOMAIN}/io.example.renamed"
    other.write_text("not a property list")
    assert launchd.label(other) == "com.example.uvtokend"


@pytest.mark.parametrize(
    ("shell", "another"),
    [
        ({}, False),
        ({"XDG_STATE_HOME": "/s"}, True),
        ({"XDG_CONFIG_HOME": "/c"}, False),
        ({"XDG_CONFIG_HOME": ""}, True),
        ({"XDG_RUNTIME_DIR": "/r"}, True),
        ({"UVTOKEND_SOCKET": "/r/s"}, True),
    ],
)
def test_a_shell_with_other_directories(
    mac: Mac, shell: dict[str, str], another: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """launchd's daemon sees only the recorded variables, so a shell with other directories starts its own daemon."""
    for name in (*environment.PLACES, "UVTOKEND_SOCKET", "UVTOKEND_CONFIG"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", "/c")
    recorded = environment.record(os.environ, environment.patterns()).variables
    assert ("XDG_CONFIG_HOME", "/c") in recorded
    launchd.install(["/p/uvtokend"], recorded)
    service = manager.installed()
    assert service is not None
    for name, value in shell.items():
        monkeypatch.setenv(name, value)
    assert start._wants_another(None, service) is another


def test_the_runtime_directory_is_recorded_for_launchd(mac: Mac) -> None:
    """XDG_RUNTIME_DIR is recorded for launchd, whose daemon would otherwise use another socket;
    systemd sets it itself.
    """
    assert mac.orders() == []
    recorded = environment.record({"XDG_RUNTIME_DIR": "/r"}, environment.patterns())
    assert recorded.variables == (("XDG_RUNTIME_DIR", "/r"),)


def test_the_shipped_files_match_the_installed_ones() -> None:
    """The shipped unit and agent are the same as those that `service install` writes."""
    packaging = SHIPPED.parent.parent / "packaging"
    script = "import service_files as s; print([str(f) for f, text in s.shipped().items() if f.read_bytes() != text])"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(packaging), *sys.path])}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n", "run: python packaging/service_files.py"


def misconfigured(directory: Path, label: str) -> dict[str, str]:
    """Write an invalid configuration, and return the environment that launchd gives to a daemon with a label."""
    file = directory / "config.toml"
    file.write_text("nonsense = 1")
    file.chmod(0o600)
    return {
        "PYTHONPATH": os.pathsep.join(sys.path),
        "HOME": str(directory),
        "UVTOKEND_CONFIG": str(file),
        "XPC_SERVICE_NAME": label,
    }


@pytest.mark.parametrize(
    ("label", "expected"), [(LAUNCHD_LABEL, 0), ("com.example.uvtokend", 0), ("application.com.apple.Terminal", 2)]
)
def test_an_invalid_configuration_is_not_restarted(label: str, expected: int, tmp_path: Path) -> None:
    """launchd restarts a daemon after any status but 0, so under launchd an invalid configuration exits with 0."""
    environment = misconfigured(tmp_path, label)
    command = [sys.executable, "-m", "uvtokend", "run", "--quiet"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == expected
    assert "nonsense" in done.stderr


@pytest.mark.parametrize(("label", "kept"), [(LAUNCHD_LABEL, False), ("", True)])
def test_the_output_file_of_launchd_does_not_grow(label: str, kept: bool, tmp_path: Path) -> None:
    """launchd only appends to the output file, so the daemon truncates a long one when it starts under launchd."""
    output = tmp_path / "uvtokend.log"
    output.write_text("x" * (1 << 17))
    environment = misconfigured(tmp_path, label)
    with output.open("ab") as errors:
        command = [sys.executable, "-m", "uvtokend", "run", "--quiet"]
        subprocess.run(command, env=environment, stderr=errors, timeout=60, check=False)
    assert ("x" in output.read_text()[:1]) is kept
    assert "nonsense" in output.read_text()

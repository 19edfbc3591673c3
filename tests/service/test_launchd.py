"""The launchd agent, as far as it can be checked without a Mac: the plist's form, keys and types (launchd.plist(5)).

`launchctl` is a program that records how it is called and answers as a table says.
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
    """A home directory and a `launchctl` that fails for the words it is told to fail for."""

    def __init__(self, folder: Path) -> None:
        self.asked = folder / "asked"
        self.failing = folder / "failing"
        self.failing.write_text("")
        self.agent = folder / "Library" / "LaunchAgents" / f"{LAUNCHD_LABEL}.plist"
        program = folder / "launchctl"
        program.write_text(
            f'#!/bin/sh\necho "$*" >> "{self.asked}"\n'
            f'if grep -qx "$1" "{self.failing}"; then echo "$1 failed: 5: Input/output error" >&2; exit 5; fi\n'
            'printf "\\tstate = running\\n\\tpid = 4711\\n"\n'
        )
        program.chmod(0o755)

    def fail(self, *words: str) -> None:
        """Let launchctl refuse these orders."""
        self.failing.write_text("".join(f"{word}\n" for word in words))

    def orders(self) -> list[str]:
        """Return what launchctl was asked for, and forget it."""
        said = self.asked.read_text().splitlines() if self.asked.exists() else []
        self.asked.unlink(missing_ok=True)
        return said


@pytest.fixture
def mac(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Mac:
    """Give a machine that says it is a Mac."""
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    return Mac(tmp_path)


def test_keys_and_types() -> None:
    """The shipped agent has known keys with their types only: launchd ignores others in silence."""
    agent = plistlib.loads(SHIPPED.read_bytes())
    assert {key: type(value) for key, value in agent.items()} == TYPES
    assert agent["Label"] == SHIPPED.stem
    assert all(isinstance(text, str) for text in agent["EnvironmentVariables"].values())


def test_what_it_runs() -> None:
    """It runs uvtokend itself with umask 077, again after a crash but not after a stop, at normal priority."""
    agent = plistlib.loads(launchd.property_list(["/p/uvtokend"], [("PATH", "/mine"), ("NETRC", "/n")], "/log"))
    assert agent["ProgramArguments"] == ["/p/uvtokend", "run", "--quiet"]
    assert agent["Umask"] == 0o077
    assert agent["KeepAlive"] == {"SuccessfulExit": False}
    assert agent["EnvironmentVariables"] == {"PATH": f"/mine:{launchd.USUAL_PATH}", "NETRC": "/n"}
    assert agent["StandardErrorPath"] == "/log"
    assert "ProcessType" not in agent


def test_an_agent_is_installed_and_removed(mac: Mac) -> None:
    """Install writes the agent with mode 644, loads and starts it; uninstall unloads it and leaves no file."""
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
    """`bootstrap` fails for an agent that is loaded: what counts is that `kickstart` works."""
    launchd.install(["/p/uvtokend"], [])
    mac.orders()
    mac.fail("bootstrap")
    found = manager.installed()
    assert found is not None
    assert mac.orders() == [f"print {DOMAIN}"]
    found.start()
    assert mac.orders() == [f"bootstrap {DOMAIN} {mac.agent}", f"kickstart {DOMAIN}/{LAUNCHD_LABEL}"]


def test_without_a_screen_the_service_is_not_used(mac: Mac) -> None:
    """Over SSH there is no gui domain: install says when the agent starts, and `start` runs the daemon itself."""
    mac.fail("print")
    with pytest.raises(UvtokendError, match="not logged in on the screen"):
        launchd.install(["/p/uvtokend"], [])
    assert mac.agent.exists()
    assert manager.installed() is None
    assert launchd.lines() == [
        f"launchd agent {mac.agent}: you are not logged in on the screen, so launchd does not run it."
    ]


def test_the_usual_places_are_on_the_path(mac: Mac) -> None:
    """Those of the shell come first; then gcloud's and uv's own below the home, Homebrew's, MacPorts', Nix's."""
    launchd.install(["/p/uvtokend"], [("PATH", "/mine:/usr/bin")])
    places = launchd.variables(mac.agent)["PATH"].split(":")
    assert places[:2] == ["/mine", "/usr/bin"]
    home = mac.agent.parent.parent.parent
    assert {f"{home}/google-cloud-sdk/bin", "/opt/homebrew/bin", "/usr/local/bin", "/opt/local/bin"} <= set(places)
    assert len(places) == len(set(places))


def test_an_agent_that_ends_slowly_is_waited_for(mac: Mac, monkeypatch: pytest.MonkeyPatch) -> None:
    """bootout answers EINPROGRESS while the process ends: nothing is loaded before launchd has forgotten it."""
    monkeypatch.setattr(launchd, "_IN_PROGRESS", 5)
    launchd.install(["/p/uvtokend"], [])
    target = f"{DOMAIN}/{LAUNCHD_LABEL}"
    mac.fail("bootout")
    mac.orders()
    # Not time.sleep itself: subprocess sleeps, too, while it waits for a program.
    monkeypatch.setattr(launchd, "time", SimpleNamespace(sleep=lambda _: mac.fail("bootout", "print")))
    launchd._unload(target)
    assert mac.orders() == [f"bootout {target}", f"print {target}", f"print {target}"]


def test_a_refusal_keeps_launchds_words(mac: Mac) -> None:
    """A disabled agent fails with 5: the words, the way to enable it and System Settings are named."""
    mac.fail("bootstrap", "kickstart")
    with pytest.raises(UvtokendError) as caught:
        launchd.install(["/p/uvtokend"], [])
    assert "bootstrap failed: 5: Input/output error kickstart failed" in caught.value.message
    assert "System Settings > Login Items" in caught.value.message
    assert caught.value.hint == f"launchctl enable {DOMAIN}/{LAUNCHD_LABEL} && uvtokend start"
    assert launchd.lines() == [f"launchd agent {mac.agent}: state = running, pid = 4711"]


def test_the_label_comes_from_the_agent(mac: Mac) -> None:
    """A package may have renamed the file; one that cannot be read is known by its name."""
    mac.agent.parent.mkdir(parents=True)
    other = mac.agent.with_name("com.example.uvtokend.plist")
    other.write_bytes(plistlib.dumps({"Label": "io.example.renamed"}))
    found = manager.installed()
    assert found is not None
    assert found.why_command == f"launchctl print {DOMAIN}/io.example.renamed"
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
    """launchd's daemon sees no variable but the recorded ones: a shell that differs looks for another daemon."""
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
    """systemd sets it itself; launchd's daemon would bind its socket elsewhere without it."""
    assert mac.orders() == []
    recorded = environment.record({"XDG_RUNTIME_DIR": "/r"}, environment.patterns())
    assert recorded.variables == (("XDG_RUNTIME_DIR", "/r"),)


def test_what_is_shipped_is_what_is_installed() -> None:
    """The unit and the agent that packages ship come from the text that `service install` writes."""
    packaging = SHIPPED.parent.parent / "packaging"
    script = "import service_files as s; print([str(f) for f, text in s.shipped().items() if f.read_bytes() != text])"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(packaging), *sys.path])}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n", "run: python packaging/service_files.py"


@pytest.mark.parametrize(
    ("label", "expected"), [(LAUNCHD_LABEL, 0), ("com.example.uvtokend", 0), ("application.com.apple.Terminal", 2)]
)
def test_a_bad_configuration_is_not_restarted(label: str, expected: int, tmp_path: Path) -> None:
    """launchd restarts after every status but 0: so a problem for a person ends with 0."""
    (tmp_path / "config.toml").write_text("nonsense = 1")
    (tmp_path / "config.toml").chmod(0o600)
    environment = {
        "PYTHONPATH": os.pathsep.join(sys.path),
        "HOME": str(tmp_path),
        "UVTOKEND_CONFIG": str(tmp_path / "config.toml"),
        "XPC_SERVICE_NAME": label,
    }
    command = [sys.executable, "-m", "uvtokend", "run", "--quiet"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == expected
    assert "nonsense" in done.stderr


@pytest.mark.parametrize(("label", "kept"), [(LAUNCHD_LABEL, False), ("", True)])
def test_the_file_of_launchd_does_not_grow(label: str, kept: bool, tmp_path: Path) -> None:
    """launchd only appends to it: a start under launchd begins it again when it is long."""
    output = tmp_path / "uvtokend.log"
    output.write_text("x" * (1 << 17))
    (tmp_path / "config.toml").write_text("nonsense = 1")
    (tmp_path / "config.toml").chmod(0o600)
    environment = {
        "PYTHONPATH": os.pathsep.join(sys.path),
        "HOME": str(tmp_path),
        "UVTOKEND_CONFIG": str(tmp_path / "config.toml"),
        "XPC_SERVICE_NAME": label,
    }
    with output.open("ab") as errors:
        command = [sys.executable, "-m", "uvtokend", "run", "--quiet"]
        subprocess.run(command, env=environment, stderr=errors, timeout=60, check=False)
    assert ("x" in output.read_text()[:1]) is kept
    assert "nonsense" in output.read_text()

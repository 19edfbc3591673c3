"""Which variables of a shell's environment a service records: those that helper programs need, and no secret."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from platformdirs import unix

from uvtokend.cli import service
from uvtokend.errors import UvtokendError
from uvtokend.service import autostart, environment, manager, systemd


def test_known_variables_are_recorded() -> None:
    """Variables that helper programs need are recorded; unknown and empty ones are not."""
    environ = {"PATH": "/bin", "CLOUDSDK_CONFIG": "/c", "EDITOR": "vi", "AWS_PROFILE": "dev", "NETRC": ""}
    recorded = environment.record(environ, environment.patterns())
    assert recorded.variables == (("AWS_PROFILE", "dev"), ("CLOUDSDK_CONFIG", "/c"), ("PATH", "/bin"))
    assert recorded.refused == ()


@pytest.mark.parametrize("name", ["AWS_A\nLD_PRELOAD", "AWS_A B", 'AWS_"A', "AWS_%%", "AWS_É"])
def test_an_invalid_name_is_not_recorded(name: str) -> None:
    """A name that no shell accepts is not recorded,
    because a line break in it could set any variable of the service.
    """
    assert environment.record({name: "/x"}, environment.patterns()).variables == ()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("HTTPS_PROXY", "http://me:s3cr3t@proxy.example:3128"),
        ("https_proxy", "http://me@proxy.example:3128"),
        ("CLOUDSDK_AUTH_ACCESS_TOKEN", "s3cr3t"),
        ("CLOUDSDK_API_KEY", "s3cr3t"),
        ("PATH", "/bin\n/other"),
    ],
)
def test_no_secret_is_recorded(name: str, value: str) -> None:
    """A variable that may contain a secret, or contains a line break, is not recorded, and its name is reported."""
    recorded = environment.record({name: value}, environment.patterns())
    assert (recorded.variables, recorded.refused) == ((), (name,))
    assert "s3cr3t" not in repr(recorded)


def test_the_path_of_a_secret_is_recorded() -> None:
    """A variable with the path of a secret's file is recorded, because it contains no secret."""
    recorded = environment.record({"CLOUDSDK_AUTH_ACCESS_TOKEN_FILE": "/f"}, environment.patterns())
    assert recorded.variables == (("CLOUDSDK_AUTH_ACCESS_TOKEN_FILE", "/f"),)


@pytest.mark.parametrize("value", ["plain", "with space", 'a"b', "a\\b", "$HOME `id`", "a=b;c#d", "'single'", "ünï"])
def test_a_shell_reads_the_recorded_values(value: str, tmp_path: Path) -> None:
    """A POSIX shell reads the recorded value back unchanged; it interprets double quotes as systemd does."""
    file = tmp_path / "service.env"
    file.write_text(environment.environment_file([("NAME", value)]))
    script = '. "$1"; printf %s "$NAME"'
    said = subprocess.run(["/bin/sh", "-c", script, "sh", file], capture_output=True, text=True, check=True, env={})
    assert said.stdout == value


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["/usr/bin/uvtokend"], "/usr/bin/uvtokend"),
        (["/opt/My Tools/uvtokend"], '"/opt/My Tools/uvtokend"'),
        (["/h/100%/u", "$HOME"], '/h/100%%/u "$$HOME"'),
        (["/h/$HOME/u"], '/usr/bin/env "/h/$$HOME/u"'),
        (['/q"\\/u', "-P"], '/usr/bin/env "/q\\"\\\\/u" -P'),
    ],
)
def test_the_command_line_of_a_unit(words: list[str], line: str) -> None:
    """Spaces, quotes, specifiers and variables reach the program unchanged (systemd.service(5), "Command lines")."""
    assert systemd.command_line(words) == line


def test_the_autostart_entry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The autostart entry starts the daemon by its absolute path, and uninstall deletes the entry."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    file = autostart.install(["/opt/My Tools/uvtokend"])
    assert file == tmp_path / "autostart" / "uvtokend.desktop"
    assert 'Exec="/opt/My Tools/uvtokend" start --wait 0\n' in file.read_text()
    assert autostart.uninstall() == file
    assert autostart.uninstall() is None


def test_uninstall_without_a_manager_removes_the_link(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the user manager does not answer, as under sudo, uninstall also deletes the symlink that enabled the unit."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setattr(systemd, "available", lambda: False)
    units = tmp_path / "systemd" / "user"
    (units / "default.target.wants").mkdir(parents=True)
    (units / systemd.UNIT).write_text(systemd.unit())
    (units / "default.target.wants" / systemd.UNIT).symlink_to(units / systemd.UNIT)
    assert systemd.uninstall() == units / systemd.UNIT
    assert not units.parent.exists()


@pytest.mark.parametrize("name", ["UVTOKEND_CONFIG", "UVTOKEND_SOCKET"])
def test_install_refuses_variables_that_the_service_would_not_see(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """install refuses while a UVTOKEND_ variable is set: the service would not see it and so run another daemon."""
    for variable in ("UVTOKEND_CONFIG", "UVTOKEND_SOCKET"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setenv(name, str(tmp_path / "other"))
    with pytest.raises(UvtokendError) as caught:
        service.install(hardened=False, config_file=None)
    assert caught.value.hint == f"unset {name} && uvtokend service install"
    assert list(tmp_path.iterdir()) == []


def test_the_status_of_a_service_that_does_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`service status` prints the right fix: `install` without a manager, `start` with a unit.

    In a shell of `su`, the fix sets XDG_RUNTIME_DIR. With an autostart entry, no fix is needed.
    """

    def shown() -> list[str]:
        service.status()
        return capsys.readouterr().out.splitlines()

    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(manager, "installed", lambda: None)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))  # no systemctl
    assert shown() == ["The systemd user manager does not answer.", "  fix: uvtokend service install"]
    unit = tmp_path / "systemd" / "user" / systemd.UNIT
    unit.parent.mkdir(parents=True)
    unit.write_text(systemd.unit())
    assert shown()[-1] == "  fix: uvtokend start"
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    monkeypatch.setattr(os.path, "isdir", lambda path: path == f"/run/user/{os.getuid()}/systemd")
    assert shown()[-1] == f"  fix: export XDG_RUNTIME_DIR=/run/user/{os.getuid()}"
    autostart.install(["uvtokend"])
    assert shown()[-1] == f"autostart entry {autostart.file_of()}"


@pytest.mark.parametrize("base", ["/x", "", " ", None])
def test_units_are_where_platformdirs_says(base: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """The user's own directories of units are those that platformdirs names, without importing it."""
    for name in ("XDG_CONFIG_HOME", "XDG_DATA_HOME"):
        monkeypatch.delenv(name, raising=False) if base is None else monkeypatch.setenv(name, base)
    configuration, data, *_ = manager.unit_directories()
    assert configuration == str(unix.Unix().user_config_path / "systemd" / "user")
    assert data == str(unix.Unix().user_data_path / "systemd" / "user")

"""doctor and explain on real machines: notes, netrcs, disks, a running daemon, and the printed text."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from support.namespace import in_namespace
from support.patient import TOKEN, Patient, patient, prepared_machine
from support.unprivileged import as_user

__all__ = ["patient", "prepared_machine"]


def shown(patient: Patient, severity: str, *arguments: str) -> list[dict[str, str]]:
    """Return the findings of one severity."""
    return [each for each in patient.doctor("--offline", *arguments) if each["severity"] == severity]


NETRCS: dict[str, tuple[Callable[[str], str], int]] = {
    "an unknown word": (lambda text: text + "machine a.example login me pasword x\n", 4),
    "a comment of several words": (lambda text: f"{text}\n# two words\n", 5),
    "a byte order mark": (lambda text: "\ufeff" + text, 1),
    "a second entry": (lambda text: f"{text}machine 127.0.0.1 login me password mine\n", 4),
    "machine without a host": (lambda text: f"{text}machine", 4),
}


@pytest.mark.parametrize("name", NETRCS)
def test_a_netrc_that_uv_reads_differently(patient: Patient, name: str) -> None:
    """uv reads some netrcs differently and does not say so; doctor's first problem names file and line."""
    change, line = NETRCS[name]
    good = patient.netrc.read_text()
    patient.netrc.write_text(change(good))
    assert not patient.uv()
    first = shown(patient, "error")[0]
    assert first["name"] in {"netrc-syntax", "wrong-credential", "foreign-entry"}
    assert re.search(rf"\.netrc(: line |:){line}\b", f"{first['message']} {first['culprit']}")
    if name == "an unknown word":
        assert first["fix"] == "write password instead of pasword"
    patient.netrc.write_text(good)
    assert shown(patient, "error") == []
    assert patient.uv(), patient.said


def test_notes_do_not_affect_the_exit_status(patient: Patient) -> None:
    """Notes name their culprit and do not change the exit status, and uv installs in spite of them."""
    patient.netrc.chmod(0o644)
    patient.netrc.write_text(patient.netrc.read_text() + "default login d password p\n")
    (patient.project / ".env").write_text("UV_INDEX_ACME_PASSWORD=s3cret\nOTHER=1\n")
    text = patient.pyproject.read_text().replace('name = "acme"', 'name = "ours"').replace("default = true\n", "")
    patient.pyproject.write_text(text.replace("//127", "//aws@127"))
    patient.env.update(
        NETRC="/nowhere/netrc",
        UV_PUBLISH_TOKEN="s3cret",
        UV_KEYRING_PROVIDER="subprocess",
        SSL_CERT_FILE="/nowhere/corp.pem",
    )
    assert shown(patient, "error") == []
    assert patient.uv(), patient.said
    notes = {each["name"]: each for each in shown(patient, "note")}
    assert notes.keys() >= {
        "netrc-mode",
        "netrc-syntax",
        "netrc-missing",
        "dotenv",
        "name-differs",
        "user-in-url",
        "public-fallback",
        "publish-variables",
        "keyring-provider",
        "certificate-variable",
        "not-running",
    }
    assert "s3cret" not in str(notes)
    patient.repair(notes["netrc-mode"]["fix"])
    assert patient.netrc.stat().st_mode & 0o777 == 0o600
    patient.repair(notes["user-in-url"]["fix"])
    assert "aws@" not in patient.pyproject.read_text()
    assert {"netrc-mode", "user-in-url"}.isdisjoint(each["name"] for each in shown(patient, "note"))


def test_an_invalid_config_toml(patient: Patient) -> None:
    """An invalid config.toml is doctor's first problem, with the culprit."""
    good = patient.machine.config.read_text()
    patient.machine.config.write_text(good + "[[index\n")
    first = shown(patient, "error")[0]
    assert first["name"] == "configuration"
    assert "config.toml" in first["culprit"]
    patient.machine.config.write_text(good.replace('"static"', '"statik"'))
    assert "statik" in str(shown(patient, "error")[0]) or "static" in shown(patient, "error")[0]["fix"]
    patient.machine.config.write_text(good)
    assert shown(patient, "error") == []


def test_a_disabled_index(patient: Patient) -> None:
    """A disabled index is an error if uv uses it in this project, and no finding otherwise."""
    patient.machine.config.write_text(patient.machine.config.read_text() + "enabled = false\n")
    patient.netrc.write_text("")
    assert not patient.uv()
    assert [each["name"] for each in shown(patient, "error")] == ["index-disabled"]
    patient.write_project("")
    assert shown(patient, "error") == []


def test_a_project_given_as_an_argument(patient: Patient) -> None:
    """doctor examines the project named as an argument; a missing directory is wrong usage."""
    patient.project.rename(patient.machine.home / "moved")
    patient.project.mkdir()
    (patient.machine.home / "moved" / "uv.toml").write_text("not toml")
    findings = patient.doctor("--offline", str(patient.machine.home / "moved"))
    assert [each["name"] for each in findings if each["severity"] == "error"] == ["uv-configuration"]
    assert patient.ours("doctor", "/nowhere/at/all")[0] == 2


def test_a_failed_refresh_is_a_note_while_the_token_is_valid(patient: Patient) -> None:
    """When a refresh fails, doctor reports the daemon's message as a note while the token is valid;
    then it disappears.
    """
    assert patient.ours("start")[0] == 0
    assert [each for each in patient.doctor() if each["severity"] == "error"] == []
    assert "not-running" not in str(patient.doctor("--offline"))
    (patient.machine.home / "secret").unlink()
    assert patient.ours("refresh")[0] == 1
    troubles = [each for each in patient.doctor("--offline") if each["name"] == "index-trouble"]
    assert [each["severity"] for each in troubles] == ["note"]
    assert "secret" in troubles[0]["message"]
    (patient.machine.home / "secret").write_text(TOKEN)
    (patient.machine.home / "secret").chmod(0o600)
    assert patient.ours("refresh")[0] == 0
    assert "index-trouble" not in str(patient.doctor("--offline"))


def test_a_daemon_on_another_socket(patient: Patient) -> None:
    """If the daemon listens on another socket, doctor names its pid, and the fix is not to start a second one."""
    assert patient.ours("start")[0] == 0
    elsewhere = patient.machine.directory / "elsewhere"
    elsewhere.mkdir(mode=0o700, exist_ok=True)
    patient.env["UVTOKEND_SOCKET"] = str(elsewhere / "s")
    assert patient.uv(), patient.said
    first = shown(patient, "note")[0]
    assert (first["name"], first["fix"]) == ("other-daemon", "unset UVTOKEND_SOCKET")
    assert "pid " in first["message"]
    patient.repair(first["fix"])
    assert "other-daemon" not in str(patient.doctor("--offline"))


def test_a_variable_that_only_this_shell_has(patient: Patient) -> None:
    """If only this shell has a proxy variable, doctor names it with both values,
    and the fix passes it to the daemon.
    """
    assert patient.ours("start")[0] == 0
    patient.env["NO_PROXY"] = "127.0.0.1"
    (finding,) = [each for each in patient.doctor("--offline") if each["name"] == "environment-differs"]
    assert "NO_PROXY: here '127.0.0.1', there not set" in finding["message"]
    patient.repair(finding["fix"])
    assert "environment-differs" not in str(patient.doctor("--offline"))


def test_a_configuration_that_was_edited(patient: Patient) -> None:
    """If config.toml was edited, `status` and doctor first name the command that loads it."""
    assert patient.ours("start")[0] == 0
    text = patient.machine.config.read_text()
    patient.machine.config.write_text(text.replace('"acme"', '"second"').replace("/simple/", "/other/simple/") + text)
    finding = shown(patient, "error")[0]
    assert (finding["name"], finding["fix"]) == ("configuration-stale", "uvtokend reload")
    lines = patient.ours("status")[1].splitlines()
    assert lines[1].startswith("config.toml changed ")
    assert lines[2] == "  fix: uvtokend reload"
    patient.repair(finding["fix"])
    assert "configuration-stale" not in str(patient.doctor("--offline"))


def test_the_text_that_doctor_prints(patient: Patient) -> None:
    """doctor prints message, culprit and fix of each finding and a last line with the counts, but never a token."""
    patient.env.update(UV_INDEX_ACME_USERNAME="aws", UV_INDEX_ACME_PASSWORD=f"old-{TOKEN}")
    status, out, err = patient.ours("doctor", "--offline")
    assert (status, err) == (1, "")
    lines = out.splitlines()
    assert lines[0].startswith("error: uv sends another credential than uvtokend's token to 127.0.0.1")
    assert lines[1] == "  fix: unset UV_INDEX_ACME_USERNAME UV_INDEX_ACME_PASSWORD"
    assert lines[-1] == "Checked 1 index, not asked: 1 error, 1 note."
    assert TOKEN not in out


def test_explain_shows_which_credential_uv_sends(patient: Patient) -> None:
    """explain exits with 0 if uv sends our token and else with 1; it names each source,
    masks secrets and gives the fix.
    """
    status, out, _ = patient.ours("explain", f"{patient.index.url}alpha/")
    assert (status, f"{patient.netrc}:2" in out, "pyproject.toml:9" in out) == (0, True, True)
    assert "uv sends uvtokend's token" in out
    patient.env.update(UV_INDEX_ACME_USERNAME="aws", UV_INDEX_ACME_PASSWORD=f"old-{TOKEN}")
    status, out, _ = patient.ours("explain", patient.index.url)
    assert status == 1
    assert "login aws, password ****, from a variable (UV_INDEX_ACME_PASSWORD)" in out
    assert "login aws, password ****, from the netrc" in out
    assert "  fix: unset UV_INDEX_ACME_USERNAME UV_INDEX_ACME_PASSWORD" in out
    assert TOKEN not in out
    patient.env.clear()
    patient.netrc.write_text("")
    status, out, _ = patient.ours("explain", patient.index.url)
    assert (status, "uv sends nothing" in out, "fix: uvtokend start" in out) == (1, True, True)
    patient.env["UV_KEYRING_PROVIDER"] = "subprocess"
    assert "what the keyring command answers" in patient.ours("explain", patient.index.url)[1]
    status, out, _ = patient.ours("explain", "https://pkgs.example.com/")
    assert (status, "uv sends no credential." in out) == (1, True)
    assert patient.ours("explain", "pkgs.example.com")[0] == 2


def mounted(patient: Patient, setup: str) -> str:
    """Run doctor as root of a new mount namespace in which a shell script has mounted something."""
    command = patient.machine.ourselves("doctor", "--offline")
    environment = {**patient.machine.environment, "D": str(patient.machine.home)}
    done = in_namespace(setup, command, environment, patient.project)
    return done.stdout + done.stderr


FULL = """
mkdir "$D/full"
mount -t tmpfs -o size=64k none "$D/full"
mv "$D/.netrc" "$D/full/netrc"
ln -s full/netrc "$D/.netrc"
head -c 40000 /dev/zero > "$D/full/fill"
"""


@pytest.mark.mounts
@pytest.mark.parametrize(
    ("setup", "words"),
    [
        ('mount --bind "$D" "$D"; mount -o remount,bind,ro "$D"', "a read-only file system"),
        (FULL, "full, is full"),
        ('mount --bind "$D/.netrc" "$D/.netrc"', "is mounted as a single file"),
    ],
    ids=["read-only", "full", "single file"],
)
def test_problems_of_the_file_system(patient: Patient, setup: str, words: str) -> None:
    """doctor names the real path of a read-only mount, of a full disk behind a symlink, and of a single-file mount."""
    out = mounted(patient, setup)
    assert words in out
    assert str(patient.machine.home) in out


def test_a_home_that_cannot_be_written(open_directory: Path) -> None:
    """A directory that is not writable is reported with its `chmod`; a missing one that can be created is fine."""
    script = """
        import sys
        from uvtokend.doctor import disk
        for finding in disk.directory("netrc", sys.argv[1]):
            print(finding.name, finding.fix)
    """
    home = open_directory / "home"
    home.mkdir(0o777)
    home.chmod(0o777)
    assert as_user(script, str(home), imports="uvtokend.doctor.disk, sys").stdout == ""
    home.chmod(0o555)
    done = as_user(script, str(home), imports="uvtokend.doctor.disk, sys")
    assert done.stdout == f"directory-closed chmod u+wx {home}\n", done.stderr


def test_doctor_does_not_block_on_pipes(patient: Patient) -> None:
    """doctor does not block if the netrc and pyproject.toml are pipes that nothing writes to."""
    patient.netrc.unlink()
    os.mkfifo(patient.netrc)
    patient.pyproject.unlink()
    os.mkfifo(patient.pyproject)
    assert next(each["severity"] for each in patient.doctor("--offline")) == "error"

"""Mistakes of newcomers in their shell and their files: doctor's first problem names the cause, and its fix works.

The real uv confirms both.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator

import pytest

from support.patient import INDEX, TOKEN, Patient, prepared


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Patient]:
    """Return one machine for all tests of this file."""
    with prepared(tmp_path_factory.mktemp("d")) as patient:
        yield patient


@pytest.fixture
def patient(machine: Patient) -> Patient:
    """Return the machine, reset to a working state."""
    machine.reset()
    return machine


def first(patient: Patient, *arguments: str) -> dict[str, str]:
    """Return the first error that doctor prints."""
    return next(each for each in patient.doctor(*arguments) if each["severity"] == "error")


def only_in_the_users_file(patient: Patient) -> None:
    """Name the index only in the user's uv.toml; this test's public index does not have the package."""
    patient.env["UV_DEFAULT_INDEX"] = patient.public_url.replace("/simple/", "/empty/simple/")
    patient.write_project("")
    file = patient.machine.home / ".config" / "uv" / "uv.toml"
    file.parent.mkdir(parents=True, exist_ok=True)
    text = INDEX.replace("[[tool.uv.index]]", "[[index]]").replace("default = true\n", "")
    file.write_text(text.format(url=patient.index.url))
    assert patient.uv(), patient.said


def no_config(patient: Patient) -> None:
    only_in_the_users_file(patient)
    patient.env["UV_NO_CONFIG"] = "1"


def other_config(patient: Patient) -> None:
    only_in_the_users_file(patient)
    empty = patient.machine.home / "other.toml"
    empty.write_text("")
    patient.env["UV_CONFIG_FILE"] = str(empty)


def offline(patient: Patient) -> None:
    patient.env["UV_OFFLINE"] = "1"


def replaced(patient: Patient) -> None:
    patient.env["UV_DEFAULT_INDEX"] = patient.public_url.replace("/simple/", "/empty/simple/")


@pytest.mark.parametrize(
    ("breaks", "name", "fix"),
    [
        (no_config, "configuration-ignored", "unset UV_NO_CONFIG"),
        (other_config, "configuration-ignored", "unset UV_CONFIG_FILE"),
        (offline, "offline", "unset UV_OFFLINE"),
        (replaced, "default-replaced", "unset UV_DEFAULT_INDEX"),
    ],
    ids=["UV_NO_CONFIG", "UV_CONFIG_FILE", "UV_OFFLINE", "UV_DEFAULT_INDEX"],
)
def test_a_variable_that_hides_the_index_from_uv(
    patient: Patient, breaks: Callable[[Patient], None], name: str, fix: str
) -> None:
    """If a variable prevents uv from asking the index, doctor names it, and the fix unsets it."""
    breaks(patient)
    assert not patient.uv()
    finding = first(patient, "--offline")
    assert (finding["name"], finding["fix"]) == (name, fix)
    patient.repair(fix)
    assert patient.uv(), patient.said


def test_a_secret_that_is_no_longer_valid(patient: Patient) -> None:
    """If the index refuses a secret that the user wrote to a file,
    the fix writes a new one to that file and refreshes.
    """
    (patient.machine.home / "secret").write_text("last-year's")
    patient.netrc.unlink()
    shutil.rmtree(patient.machine.state)
    assert patient.ours("start")[0] == 0
    assert not patient.uv()
    finding = first(patient)
    secret = patient.machine.home / "secret"
    assert (finding["name"], finding["fix"]) == ("index-401", f"(umask 077; cat > {secret}) && uvtokend refresh acme")
    done = patient.run(["sh", "-c", finding["fix"].replace("cat", f"printf {TOKEN}")])
    assert done.returncode == 0, done.stderr
    assert patient.uv(), patient.said


def test_a_url_without_simple(patient: Patient) -> None:
    """If the URL does not end with /simple/, the fix names the right URL and both files that contain it."""
    short = re.sub("simple/$", "", patient.index.url)
    patient.configure(url=short)
    patient.pyproject.write_text(patient.pyproject.read_text().replace(patient.index.url, short))
    assert patient.ours("start")[0] == 0
    assert not patient.uv()
    finding = first(patient)
    assert finding["name"] == "index-404"
    assert "does not end with /simple/" in finding["message"]
    assert finding["fix"].startswith(
        f"write {patient.index.url} in {patient.machine.config} and where uv has the URL, then"
    )
    patient.configure()
    patient.pyproject.write_text(patient.pyproject.read_text().replace(short, patient.index.url))
    patient.repair(finding["fix"].rpartition("then: ")[2])
    assert patient.uv(), patient.said


def test_a_netrc_that_is_a_directory(patient: Patient) -> None:
    """If the netrc is a directory, doctor and `status` give the same fix, once."""
    patient.netrc.unlink()
    patient.netrc.mkdir()
    assert patient.ours("start")[0] == 0
    assert not patient.uv()
    fix = f"mv {patient.netrc} {patient.netrc}.old"
    assert patient.ours("status")[1].splitlines()[2] == f"  fix: {fix}"
    errors = [each for each in patient.doctor("--offline") if each["severity"] == "error"]
    assert [each["fix"] for each in errors] == [fix]
    patient.repair(fix)
    assert patient.ours("refresh")[0] == 0
    assert patient.uv(), patient.said


def test_a_state_directory_that_is_a_file(patient: Patient) -> None:
    """If the state directory is a file, doctor names the command that moves it away; then the daemon starts."""
    shutil.rmtree(patient.machine.state)
    patient.machine.state.write_text("notes")
    patient.netrc.write_text("")
    assert patient.ours("start")[0] == 1
    assert not patient.uv()
    finding = first(patient, "--offline")
    assert finding["name"] == "not-a-directory"
    assert finding["fix"] == f"mv {patient.machine.state} {patient.machine.state}.old"
    patient.repair(finding["fix"])
    assert patient.ours("start")[0] == 0
    assert patient.uv(), patient.said


def test_a_secret_that_is_a_directory(patient: Patient) -> None:
    """If a secret's path is a directory, the fix moves it away and writes the secret; after a refresh, uv installs."""
    secret = patient.machine.home / "secret"
    secret.unlink()
    secret.mkdir()
    patient.netrc.write_text("")
    assert patient.ours("start")[0] == 0
    assert not patient.uv()
    line, fix = patient.ours("status")[1].splitlines()[1:3]
    assert line == f"acme: {secret} is a directory."
    assert fix == f"  fix: mv {secret} {secret}.old && (umask 077; cat > {secret})"
    assert patient.run(["sh", "-c", fix.removeprefix("  fix: ").replace("cat", f"printf {TOKEN}")]).returncode == 0
    assert patient.ours("refresh")[0] == 0
    assert patient.uv(), patient.said

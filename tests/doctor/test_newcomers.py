"""What newcomers do in their shell and their files: the first problem names it, and its fix repairs it.

The real uv judges, before and after.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator

import pytest

from support.patient import INDEX, TOKEN, Patient, prepared


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Patient]:
    """One machine for all tests of this file."""
    with prepared(tmp_path_factory.mktemp("d")) as patient:
        yield patient


@pytest.fixture
def patient(machine: Patient) -> Patient:
    """The machine as it was when everything worked."""
    machine.reset()
    return machine


def first(patient: Patient, *arguments: str) -> dict[str, str]:
    """Return the first error that doctor prints."""
    return next(each for each in patient.doctor(*arguments) if each["severity"] == "error")


def only_in_the_users_file(patient: Patient) -> None:
    """Name the index in the user's uv.toml alone; the public index of these tests does not have the package."""
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
def test_a_variable_that_keeps_uv_from_the_index(
    patient: Patient, breaks: Callable[[Patient], None], name: str, fix: str
) -> None:
    """The token is good, and uv does not even ask the index: the variable is named, and unset."""
    breaks(patient)
    assert not patient.uv()
    found = first(patient, "--offline")
    assert (found["name"], found["fix"]) == (name, fix)
    patient.repair(fix)
    assert patient.uv(), patient.said


def test_a_secret_that_is_no_longer_good(patient: Patient) -> None:
    """Fetching again cannot help where the token is the person's own: the file to write is named."""
    (patient.machine.home / "secret").write_text("last-year's")
    patient.netrc.unlink()
    shutil.rmtree(patient.machine.state)
    assert patient.ours("start")[0] == 0
    assert not patient.uv()
    found = first(patient)
    secret = patient.machine.home / "secret"
    assert (found["name"], found["fix"]) == ("index-401", f"(umask 077; cat > {secret}) && uvtokend refresh acme")
    done = patient.run(["sh", "-c", found["fix"].replace("cat", f"printf {TOKEN}")])
    assert done.returncode == 0, done.stderr
    assert patient.uv(), patient.said


def test_a_url_without_its_last_part(patient: Patient) -> None:
    """The root of a repository is no index: the longer URL is written in both files, and uv installs."""
    short = re.sub("simple/$", "", patient.index.url)
    patient.configure(url=short)
    patient.pyproject.write_text(patient.pyproject.read_text().replace(patient.index.url, short))
    assert patient.ours("start")[0] == 0
    assert not patient.uv()
    found = first(patient)
    assert found["name"] == "index-404"
    assert "does not end with /simple/" in found["message"]
    assert found["fix"].startswith(
        f"write {patient.index.url} in {patient.machine.config} and where uv has the URL, then"
    )
    patient.configure()
    patient.pyproject.write_text(patient.pyproject.read_text().replace(short, patient.index.url))
    patient.repair(found["fix"].rpartition("then: ")[2])
    assert patient.uv(), patient.said


def test_a_netrc_that_is_a_directory(patient: Patient) -> None:
    """doctor and status give the same fix, and tell it once."""
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
    """It is named with the command that moves it away; then the daemon starts and uv installs."""
    shutil.rmtree(patient.machine.state)
    patient.machine.state.write_text("notes")
    patient.netrc.write_text("")
    assert patient.ours("start")[0] == 1
    assert not patient.uv()
    found = first(patient, "--offline")
    assert found["name"] == "not-a-directory"
    assert found["fix"] == f"mv {patient.machine.state} {patient.machine.state}.old"
    patient.repair(found["fix"])
    assert patient.ours("start")[0] == 0
    assert patient.uv(), patient.said


def test_a_secret_that_is_a_directory(patient: Patient) -> None:
    """status gives the command that moves it away and takes the secret; the next look finds the token good."""
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

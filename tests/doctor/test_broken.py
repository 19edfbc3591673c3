"""Set-ups as users break them: doctor's first problem names the cause, its fix repairs it, and the real uv judges."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from support.patient import TOKEN, Patient, environment_of
from uvtokend.sandbox.index import PackageIndex, wheel
from uvtokend.sandbox.machine import Machine

PUBLIC_TOO = """\
[[tool.uv.index]]
name = "acme"
url = "{url}"
authenticate = "always"

[[tool.uv.index]]
name = "public"
url = "{public}"
default = true
"""


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Patient]:
    """A machine on which everything works; the daemon does not run, since a token is there."""
    folder = tmp_path_factory.mktemp("d")
    with (
        PackageIndex(lambda login, token: (login, token) == ("aws", TOKEN)) as index,
        PackageIndex(lambda *_: True) as public,
    ):
        public.add("alpha-9.9-py3-none-any.whl", wheel("alpha", "9.9"))
        machine = Machine(folder)
        machine.environment = dict(environment_of(machine))
        patient = Patient(machine, index, public)
        patient.configure()
        patient.write_project()
        status, out, err = patient.ours("once")
        assert status == 0, (out, err)
        patient.save()
        yield patient


@pytest.fixture
def patient(prepared: Patient) -> Patient:
    """The machine as it was when everything worked."""
    prepared.reset()
    return prepared


@dataclass(frozen=True)
class Case:
    """One way to break it.

    Args:
        breaks: Does it, as a user would.
        name: The name of the finding that must come first.
        words: What its message or its culprit must hold.
        uv_fails: The real uv fails with it; otherwise it installs, though not as it should.
    """

    id: str
    breaks: Callable[[Patient], None]
    name: str
    words: tuple[str, ...]
    uv_fails: bool = True


def replace(patient: Patient, old: str, new: str) -> None:
    text = patient.pyproject.read_text()
    assert old in text
    patient.pyproject.write_text(text.replace(old, new))


def variables(patient: Patient) -> None:
    patient.env.update(UV_INDEX_ACME_USERNAME="aws", UV_INDEX_ACME_PASSWORD="stale")


def password_in_url(patient: Patient) -> None:
    replace(patient, "http://127", "http://aws:stale@127")


def user_in_url(patient: Patient) -> None:
    replace(patient, "http://127", "http://me@127")


def user_of_another(patient: Patient) -> None:
    other = patient.index.url.replace("//", "//x@").replace("/simple/", "/other/simple/")
    text = patient.pyproject.read_text()
    patient.pyproject.write_text(f'{text}\n[[tool.uv.index]]\nname = "other"\nurl = "{other}"\nexplicit = true\n')


def unknown_word(patient: Patient) -> None:
    patient.netrc.write_text(patient.netrc.read_text() + "machine a.example login me pasword x\n")


def other_netrc(patient: Patient) -> None:
    (patient.machine.home / "other").write_text("machine a.example login me password x\n")
    patient.env["NETRC"] = str(patient.machine.home / "other")


def foreign(patient: Patient) -> None:
    patient.netrc.write_text(f"machine {patient.host} login me password mine\n")


def shadowing(patient: Patient) -> None:
    patient.netrc.write_text(patient.netrc.read_text() + f"machine {patient.host} login me password mine\n")


def only_pip(patient: Patient) -> None:
    patient.write_project("")
    file = patient.machine.home / ".config" / "pip" / "pip.conf"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f"[global]\nindex-url = {patient.index.url}\n")
    # The public index of these tests, which does not have the package.
    patient.env["UV_DEFAULT_INDEX"] = patient.public_url.replace("/simple/", "/empty/simple/")


def other_url(patient: Patient) -> None:
    replace(patient, "/simple/", "/other/simple/")


def no_token(patient: Patient) -> None:
    patient.netrc.write_text("")


def never(patient: Patient) -> None:
    replace(patient, '"always"', '"never"')


def trust(patient: Patient) -> None:
    patient.env["SSL_CERT_FILE"] = "/nowhere/corp.pem"


def unsafe(patient: Patient) -> None:
    patient.write_project(f'[tool.uv]\nindex-strategy = "unsafe-best-match"\n\n{PUBLIC_TOO}')


def stranger(patient: Patient) -> None:
    patient.netrc.write_text("")
    patient.write_project(PUBLIC_TOO.replace('authenticate = "always"\n', ""))


CASES = [
    Case("no token", no_token, "not-running", ("acme", "no token")),
    Case("uv's URL is another one", other_url, "url-differs", ("/other/simple/", "pyproject.toml:")),
    Case("stale variables", variables, "environment-credential", ("UV_INDEX_ACME_PASSWORD",)),
    Case("a password in the URL", password_in_url, "password-in-url", ("pyproject.toml:9",)),
    Case("a user name in the URL", user_in_url, "user-in-url", ("'me'", "'aws'", "pyproject.toml:9")),
    Case("a user name in another URL", user_of_another, "user-of-another-index", ("'x'", "'other'")),
    Case("NETRC differs", other_netrc, "netrc-differs", ("NETRC=", "/other")),
    Case("only in pip.conf", only_pip, "only-pip", ("pip.conf",)),
    Case("authenticate is never", never, "authenticate-never", ('"never"', "pyproject.toml")),
]


def problems(patient: Patient, *arguments: str) -> list[dict[str, str]]:
    """Return the errors that doctor prints."""
    return [each for each in patient.doctor(*arguments) if each["severity"] == "error"]


def test_where_all_is_well_uv_installs(patient: Patient) -> None:
    """No error, and exit status 0, is what uv confirms."""
    assert problems(patient) == []
    assert patient.uv(), patient.said


@pytest.mark.parametrize("case", CASES, ids=[case.id for case in CASES])
def test_the_first_problem_is_the_cause_and_its_fix_repairs_it(patient: Patient, case: Case) -> None:
    """uv fails; doctor's first problem names why; what it prints as the fix makes doctor content, and uv install."""
    case.breaks(patient)
    assert patient.uv() != case.uv_fails, patient.said
    first = problems(patient, "--offline")[0]
    assert first["name"] == case.name
    for word in case.words:
        assert word in f"{first['message']} {first['culprit']}"
    patient.repair(first["fix"])
    assert patient.uv(), patient.said
    assert [each["name"] for each in problems(patient)] == []

"""Typical mistakes of users: doctor's first problem names the cause and its fix works, as the real uv confirms."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from support.patient import Patient, patient, prepared_machine
from uvtokend.sandbox.web import Answer

__all__ = ["patient", "prepared_machine"]

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


@dataclass(frozen=True)
class Case:
    """One mistake of a user.

    Args:
        breaks: Makes the mistake, as a user would.
        name: The name of the finding that must come first.
        words: Words that its message or its culprit must contain.
        uv_fails: Whether the real uv fails because of it; otherwise uv installs, but not as it should.
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
    # This test's public index does not have the package.
    patient.env["UV_DEFAULT_INDEX"] = patient.public_url.replace("/simple/", "/empty/simple/")


def other_url(patient: Patient) -> None:
    replace(patient, "/simple/", "/other/simple/")


def no_token(patient: Patient) -> None:
    patient.netrc.write_text("")


def never(patient: Patient) -> None:
    replace(patient, '"always"', '"never"')


def expired(patient: Patient) -> None:
    """Let the token expire, in the state file and at the index."""
    file = patient.machine.state / "state.json"
    document = json.loads(file.read_text())
    for record in document["tokens"]:
        record["expires_at"] = "2026-01-01T00:00:00Z"
    file.write_text(json.dumps(document))
    patient.answer(lambda answer: Answer(401) if not patient.restarted() else answer)


def never_started(patient: Patient) -> None:
    patient.netrc.unlink()
    shutil.rmtree(patient.machine.state)


def no_policy_and_no_token(patient: Patient) -> None:
    """Let the private index answer 404 without a token, so that uv takes the public package of the same name."""
    patient.netrc.write_text("")
    patient.answer(lambda answer: Answer(404) if answer.status == 401 else answer)
    patient.write_project(PUBLIC_TOO.replace('authenticate = "always"\n', ""))


def unsafe(patient: Patient) -> None:
    patient.write_project(f'[tool.uv]\nindex-strategy = "unsafe-best-match"\n\n{PUBLIC_TOO}')


def pip_variable(patient: Patient) -> None:
    only_pip(patient)
    (patient.machine.home / ".config/pip/pip.conf").unlink()
    patient.env["PIP_INDEX_URL"] = patient.index.url


def proxy(patient: Patient) -> None:
    patient.env["HTTP_PROXY"] = "http://127.0.0.1:1"


def store_record(patient: Patient) -> None:
    """Remove the netrc entry and put an old record of `uv auth login` into uv's store."""
    patient.netrc.write_text("")
    service = patient.index.url.removesuffix("/simple/")
    assert patient.uv("auth", "login", service, "--username", "me", "--password", "old"), patient.said


def broken_configuration(patient: Patient) -> None:
    patient.machine.config.write_text(patient.machine.config.read_text() + "[[index\n")


def disabled(patient: Patient) -> None:
    text = patient.machine.config.read_text()
    patient.machine.config.write_text(text + "enabled = false\n")
    patient.netrc.write_text("")


CASES = [
    Case("token expired, daemon off", expired, "not-running", ("acme", "expired")),
    Case("uv's URL is another one", other_url, "url-differs", ("/other/simple/", "pyproject.toml:")),
    Case("404 to strangers", no_policy_and_no_token, "authenticate-missing", ("acme", "next index"), uv_fails=False),
    Case("stale variables", variables, "environment-credential", ("UV_INDEX_ACME_PASSWORD",)),
    Case("a password in the URL", password_in_url, "password-in-url", ("pyproject.toml:9",)),
    Case("a user name in the URL", user_in_url, "user-in-url", ("'me'", "'aws'", "pyproject.toml:9")),
    Case("a user name in another URL", user_of_another, "user-of-another-index", ("'x'", "'other'")),
    Case("NETRC differs", other_netrc, "netrc-differs", ("NETRC=", "/other")),
    Case("a foreign entry", foreign, "foreign-entry", ("127.0.0.1", ".netrc:1")),
    Case("only in pip.conf", only_pip, "only-pip", ("pip.conf",)),
    Case("only in PIP_INDEX_URL", pip_variable, "only-pip", ("PIP_INDEX_URL",)),
    Case("never started", never_started, "not-running", ("acme", "no token")),
    Case("no token", no_token, "not-running", ("acme", "no token")),
    Case("authenticate is never", never, "authenticate-never", ('"never"', "pyproject.toml")),
    Case("index-strategy", unsafe, "index-strategy", ("unsafe-best-match", "pyproject.toml"), uv_fails=False),
    Case("an old record in uv's store", store_record, "store-record", ("credential store",)),
]
ONLINE = [
    Case("a wrong proxy", proxy, "proxy", ("HTTP_PROXY=http://127.0.0.1:1",)),
]


def problems(patient: Patient, *arguments: str) -> list[dict[str, str]]:
    """Return the errors that doctor prints."""
    return [each for each in patient.doctor(*arguments) if each["severity"] == "error"]


def test_without_problems_uv_installs(patient: Patient) -> None:
    """On a correct machine doctor reports no error, and the real uv installs."""
    assert problems(patient) == []
    assert patient.uv(), patient.said


@pytest.mark.parametrize("case", [*CASES, *ONLINE], ids=[case.id for case in [*CASES, *ONLINE]])
def test_the_first_problem_is_the_cause_and_its_fix_works(patient: Patient, case: Case) -> None:
    """When uv fails, doctor's first problem names the cause, and following the printed fixes makes uv install."""
    case.breaks(patient)
    assert patient.uv() != case.uv_fails, patient.said
    offline = ["--offline"] if case in CASES else []
    first = problems(patient, *offline)[0]
    assert first["name"] == case.name
    for word in case.words:
        assert word in f"{first['message']} {first['culprit']}"
    patient.repair(first["fix"])
    for _ in range(2):  # the first mistake may have hidden another one
        more = problems(patient)
        if more:
            patient.repair(more[0]["fix"])
    assert patient.uv(), patient.said
    assert problems(patient) == []

"""What doctor concludes from an index's responses, and what it never sends."""

from __future__ import annotations

import base64
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from support.patient import LOGIN, TOKEN, Patient, patient, prepared_machine
from uvtokend.core.fixes import set_clock
from uvtokend.sandbox.web import Answer, Call, Server

__all__ = ["patient", "prepared_machine"]


def first(patient: Patient) -> dict[str, str]:
    """Return the first error that doctor prints."""
    return next(each for each in patient.doctor() if each["severity"] == "error")


@pytest.mark.parametrize(("status", "words"), [(403, "may not read this index"), (404, "hides it from those")])
def test_a_fresh_token_without_permission(patient: Patient, status: int, words: str) -> None:
    """For 403 and 404, doctor explains the status and gives a sentence to send to the administrator."""
    patient.answer(lambda _: Answer(status))
    assert not patient.uv()
    finding = first(patient)
    assert finding["name"] == f"index-{status}"
    assert words in finding["message"]
    assert finding["fix"].startswith('ask the administrator: "Please give ')
    assert patient.index.url in finding["fix"]
    patient.answer(lambda answer: answer)
    assert all(each["severity"] == "note" for each in patient.doctor())
    assert patient.uv(), patient.said


def test_a_single_401_does_not_count(patient: Patient) -> None:
    """Artifactory sometimes answers 401 to a valid token, so doctor reports only two 401 in a row."""
    answers = iter([401])
    patient.answer(lambda answer: Answer(next(answers, answer.status), answer.body, answer.headers))
    assert all(each["severity"] == "note" for each in patient.doctor())
    patient.answer(lambda _: Answer(401))
    finding = first(patient)  # the user wrote this secret, so the fix also says how to write a new one
    assert (finding["name"], finding["fix"].rpartition(" && ")[2]) == ("index-401", "uvtokend refresh acme")


@pytest.mark.parametrize("status", [200, 401])
def test_a_clock_that_is_five_hours_behind(patient: Patient, status: int) -> None:
    """doctor compares the clock with the index's Date header; a difference is an error only if the token is refused."""
    date = format_datetime(datetime.now(UTC) + timedelta(hours=5), usegmt=True)
    patient.answer(
        lambda answer: Answer(answer.status if status == 200 else 401, answer.body, {**answer.headers, "Date": date})
    )
    assert patient.uv() == (status == 200), patient.said
    finding = next(each for each in patient.doctor() if each["name"] == "clock")
    assert finding["severity"] == ("note" if status == 200 else "error")
    if status == 401:
        assert first(patient) == finding
    assert "behind" in finding["message"]
    assert finding["fix"] == set_clock()


def test_an_index_that_fails_is_not_an_error(patient: Patient) -> None:
    """A 503 and an invalid Date header are notes at most."""
    patient.answer(lambda _: Answer(503, b"", {"Date": "yesterday"}))
    assert [each["name"] for each in patient.doctor() if each["severity"] == "error"] == []


def test_an_index_that_is_down(patient: Patient) -> None:
    """If nothing listens at the index's address, doctor reports `unreachable`, and uv fails."""
    patient.index.server.down()
    try:
        assert first(patient)["name"] == "unreachable"
        assert not patient.uv()
    finally:
        patient.index.server.up()


def test_doctor_sends_only_our_token_and_only_to_the_index(patient: Patient) -> None:
    """doctor and explain send no foreign credential, follow no redirect, and run no keyring command."""
    patient.env.update(UV_INDEX_ACME_USERNAME="e", UV_INDEX_ACME_PASSWORD="foreign", UV_KEYRING_PROVIDER="subprocess")
    programs = patient.machine.home / "bin"
    programs.mkdir()
    (programs / "keyring").write_text(f"#!/bin/sh\ntouch {patient.machine.home}/keyring-was-run\n")
    (programs / "keyring").chmod(0o700)
    patient.env["PATH"] = f"{programs}:{patient.machine.environment['PATH']}"
    seen: list[Call] = []

    def elsewhere(call: Call) -> Answer:
        seen.append(call)
        return Answer(200)

    with Server(elsewhere) as other:
        patient.answer(lambda _: Answer(302, b"", {"Location": f"{other.url}/sign-in"}))
        patient.index.server.calls.clear()
        patient.doctor()
        patient.ours("explain", patient.index.url)
    assert seen == []
    sent = [call.headers["Authorization"] for call in patient.index.server.calls]
    assert sent == ["Basic " + base64.b64encode(f"{LOGIN}:{TOKEN}".encode()).decode()]
    assert [call.path for call in patient.index.server.calls] == ["/pypi/production/simple/"]
    assert not (patient.machine.home / "keyring-was-run").exists()


def test_packages_that_an_unauthenticated_run_has_locked(patient: Patient) -> None:
    """If a run without a token has locked the public package of the same name,
    doctor reports it, and its fix unlocks it.
    """
    both = '[[tool.uv.index]]\nname = "acme"\nurl = "{url}"\n\n[[tool.uv.index]]\nurl = "{public}"\ndefault = true\n'
    patient.write_project(both)
    patient.answer(lambda _: Answer(404))
    assert patient.uv("lock", "--no-cache"), patient.said
    lock = patient.project / "uv.lock"
    assert "9.9" in lock.read_text()
    patient.answer(lambda answer: answer)
    finding = first(patient)
    assert finding["name"] == "locked-from-public"
    assert "alpha" in finding["message"]
    assert "localhost" in finding["message"]
    patient.repair(finding["fix"])
    assert "9.9" not in lock.read_text()
    assert [each for each in patient.doctor() if each["severity"] == "error"] == []


def test_every_index_is_asked_once(patient: Patient) -> None:
    """doctor asks each of five indexes once, and reports each of them."""
    index = patient.machine.config.read_text()
    more = [index.replace('"acme"', f'"acme{number}"').replace("/production/", f"/r{number}/") for number in range(4)]
    patient.machine.config.write_text("\n".join([index, *more]))
    patient.index.server.calls.clear()
    findings = patient.doctor()
    assert sorted(call.path.split("/")[2] for call in patient.index.server.calls) == [
        "production",
        *(f"r{number}" for number in range(4)),
    ]
    assert sum(each["name"] == "index-404" for each in findings) == 4


def test_an_index_that_answers_json(patient: Patient) -> None:
    """An index may answer JSON (PEP 691); an invalid body is not an error."""
    kind = {"Content-Type": "application/vnd.pypi.simple.v1+json"}
    for body in (b'{"projects": [{"name": "alpha"}]}', b"[", b"{}"):
        patient.answer(lambda _, body=body: Answer(200, body, kind))  # type: ignore[misc]
        assert all(each["severity"] == "note" for each in patient.doctor())

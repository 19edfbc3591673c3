"""What doctor makes of an index's answers, and what it never sends."""

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
    """Return the first problem that doctor prints."""
    return next(each for each in patient.doctor() if each["severity"] == "error")


@pytest.mark.parametrize(("status", "words"), [(403, "may not read this index"), (404, "hides it from those")])
def test_a_fresh_token_without_permission(patient: Patient, status: int, words: str) -> None:
    """uv fails; doctor says what the answer means and gives a sentence that can be sent to the administrator."""
    patient.answer(lambda _: Answer(status))
    assert not patient.uv()
    found = first(patient)
    assert found["name"] == f"index-{status}"
    assert words in found["message"]
    assert found["fix"].startswith('ask the administrator: "Please give ')
    assert patient.index.url in found["fix"]
    patient.answer(lambda answer: answer)
    assert all(each["severity"] == "note" for each in patient.doctor())
    assert patient.uv(), patient.said


def test_one_401_proves_nothing(patient: Patient) -> None:
    """Artifactory answers some 401 to a good token; only the second one in a row counts."""
    answers = iter([401])
    patient.answer(lambda answer: Answer(next(answers, answer.status), answer.body, answer.headers))
    assert all(each["severity"] == "note" for each in patient.doctor())
    patient.answer(lambda _: Answer(401))
    found = first(patient)  # the token is the person's own, so fetching it again alone would not help
    assert (found["name"], found["fix"].rpartition(" && ")[2]) == ("index-401", "uvtokend refresh acme")


@pytest.mark.parametrize("status", [200, 401])
def test_a_clock_that_is_five_hours_behind(patient: Patient, status: int) -> None:
    """The index's own Date tells; the fix sets the clock. It is an error where the token is refused, as uv confirms."""
    date = format_datetime(datetime.now(UTC) + timedelta(hours=5), usegmt=True)
    patient.answer(
        lambda answer: Answer(answer.status if status == 200 else 401, answer.body, {**answer.headers, "Date": date})
    )
    assert patient.uv() == (status == 200), patient.said
    found = next(each for each in patient.doctor() if each["name"] == "clock")
    assert found["severity"] == ("note" if status == 200 else "error")
    if status == 401:
        assert first(patient) == found
    assert "behind" in found["message"]
    assert found["fix"] == set_clock()


def test_an_index_in_trouble_is_no_error_of_ours(patient: Patient) -> None:
    """A 503 and nonsense for a Date are notes at most."""
    patient.answer(lambda _: Answer(503, b"", {"Date": "yesterday"}))
    assert [each["name"] for each in patient.doctor() if each["severity"] == "error"] == []


def test_nobody_answers(patient: Patient) -> None:
    """A closed port and a server that does not speak HTTP are told apart."""
    patient.index.server.down()
    try:
        assert first(patient)["name"] == "unreachable"
        assert not patient.uv()
    finally:
        patient.index.server.up()


def test_only_our_token_goes_out_and_only_to_the_index(patient: Patient) -> None:
    """No foreign, variable or URL credential is sent, no redirect is followed, and no keyring is run."""
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
    """uv locks the public package while the private index hides; doctor finds the trace, and its fix removes it."""
    both = '[[tool.uv.index]]\nname = "acme"\nurl = "{url}"\n\n[[tool.uv.index]]\nurl = "{public}"\ndefault = true\n'
    patient.write_project(both)
    patient.answer(lambda _: Answer(404))
    assert patient.uv("lock", "--no-cache"), patient.said
    lock = patient.project / "uv.lock"
    assert "9.9" in lock.read_text()
    patient.answer(lambda answer: answer)
    found = first(patient)
    assert found["name"] == "locked-from-public"
    assert "alpha" in found["message"]
    assert "localhost" in found["message"]
    patient.repair(found["fix"])
    assert "9.9" not in lock.read_text()
    assert [each for each in patient.doctor() if each["severity"] == "error"] == []


def test_five_indexes_are_asked_side_by_side(patient: Patient) -> None:
    """Each is asked once; one that never answers does not keep the others from being reported."""
    index = patient.machine.config.read_text()
    more = [index.replace('"acme"', f'"acme{number}"').replace("/production/", f"/r{number}/") for number in range(4)]
    patient.machine.config.write_text("\n".join([index, *more]))
    patient.index.server.calls.clear()
    found = patient.doctor()
    assert sorted(call.path.split("/")[2] for call in patient.index.server.calls) == [
        "production",
        *(f"r{number}" for number in range(4)),
    ]
    assert sum(each["name"] == "index-404" for each in found) == 4


def test_json_lists_are_understood(patient: Patient) -> None:
    """A simple index may answer JSON (PEP 691), or something that is neither."""
    kind = {"Content-Type": "application/vnd.pypi.simple.v1+json"}
    for body in (b'{"projects": [{"name": "alpha"}]}', b"[", b"{}"):
        patient.answer(lambda _, body=body: Answer(200, body, kind))  # type: ignore[misc]
        assert all(each["severity"] == "note" for each in patient.doctor())

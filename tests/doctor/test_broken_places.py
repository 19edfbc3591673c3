"""Homes, mounts, disks and certificates as users break them: the first problem names the cause, and the fix repairs it.

The real uv judges, before and after.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator

import pytest

from clouds.tls import TlsProxy
from support.mounts import namespace, sh
from support.patient import Patient, patient, prepared_machine
from uvtokend.sandbox.web import Answer, Call

__all__ = ["patient", "prepared_machine"]


def first(patient: Patient, *arguments: str) -> dict[str, str]:
    """Return the first finding of doctor."""
    found: dict[str, str] = patient.doctor(*arguments)[0]
    return found


def forget(patient: Patient) -> None:
    """Make the machine one on which uvtokend has never run."""
    patient.netrc.unlink()
    shutil.rmtree(patient.machine.state)


# ------------------------------------------------------------------------------------------------------ other homes


def elsewhere(patient: Patient) -> str:
    """Let this shell have another, empty home directory, and return it."""
    home = patient.machine.directory / "elsewhere"
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir(mode=0o700)
    patient.env["HOME"] = str(home)
    return str(home)


def test_a_shell_with_another_home(patient: Patient) -> None:
    """The daemon answers and its token is fresh, but uv reads another netrc: status says so first, and doctor too."""
    assert patient.ours("start")[0] == 0
    home = elsewhere(patient)
    assert not patient.uv()
    status, out, _ = patient.ours("status")
    assert (status, out.splitlines()[0]) == (0, "The index is ready.")
    assert out.splitlines()[1].startswith(f"uv in this shell finds no netrc (HOME={home})")
    assert first(patient, "--offline")["name"] == "netrc-differs"
    fix = out.splitlines()[2].removeprefix("  fix: ")
    assert fix == f"export HOME={patient.machine.home}"
    patient.repair(fix)
    assert patient.uv(), patient.said
    assert "uv in this shell" not in patient.ours("status")[1]


def test_another_home_with_its_own_configuration(patient: Patient) -> None:
    """Where config.toml is looked for in the wrong home, too, nobody is sent to set everything up again."""
    usual = patient.machine.home / ".config" / "uvtokend"
    usual.mkdir(parents=True)
    patient.machine.config.rename(usual / "config.toml")
    patient.env["UVTOKEND_CONFIG"] = ""
    assert patient.ours("start")[0] == 0
    elsewhere(patient)
    assert not patient.uv()
    found = first(patient, "--offline")
    assert (found["name"], found["severity"]) == ("other-home", "error")
    assert found["fix"] == f"export HOME={patient.machine.home}"
    patient.repair(found["fix"])
    assert patient.uv(), patient.said
    assert all(each["severity"] == "note" for each in patient.doctor("--offline"))


def test_another_home_and_another_socket(patient: Patient) -> None:
    """Where not even the daemon answers, it is found anyway, and its home is named."""
    usual = patient.machine.home / ".config" / "uvtokend"
    usual.mkdir(parents=True)
    patient.machine.config.rename(usual / "config.toml")
    patient.env["UVTOKEND_CONFIG"] = ""
    assert patient.ours("start")[0] == 0
    home = elsewhere(patient)
    patient.env["UVTOKEND_SOCKET"] = f"{home}/s"
    status, out, _ = patient.ours("status")
    assert (status, out.splitlines()[0]) == (0, "No index is configured yet. Set one up with: uvtokend init")
    assert out.splitlines()[1].startswith(f"This shell has HOME={home}, but your daemon serves ")
    assert not patient.uv()
    patient.repair(out.splitlines()[2].removeprefix("  fix: "))
    assert patient.uv(), patient.said
    status, out, _ = patient.ours("status")  # the socket is still another one: uv works, and the rest is told
    assert (status, "keeps" in out.splitlines()[0]) == (3, True)
    patient.repair(out.splitlines()[1].removeprefix("  fix: "))
    status, out, _ = patient.ours("status")
    assert (status, out.splitlines()[0]) == (0, "The index is ready.")


# ----------------------------------------------------------------------------------------------------- certificates


@pytest.fixture
def private(patient: Patient) -> Iterator[tuple[Patient, TlsProxy]]:
    """Let the index be behind the certificate of a company's own authority."""

    def site(call: Call) -> Answer:
        answer = patient.index.answer(call)
        return Answer(answer.status, answer.body.replace(patient.index.base.encode(), b""), answer.headers)

    with TlsProxy({"pkgs.example.com": site}) as proxy:
        url = patient.index.url.replace(patient.index.base, "https://pkgs.example.com")
        patient.configure(url=url)
        text = patient.pyproject.read_text()
        patient.pyproject.write_text(text.replace(patient.index.url, url))
        patient.env["HTTPS_PROXY"] = proxy.url
        patient.env["SSL_CERT_FILE"] = ""
        assert patient.ours("once")[0] == 0
        yield patient, proxy


def test_a_certificate_of_the_company_that_uv_does_not_know(private: tuple[Patient, TlsProxy]) -> None:
    """The bundle of config.toml is uvtokend's alone: doctor tries it, and says how uv gets it."""
    patient, proxy = private
    text = patient.machine.config.read_text()
    patient.machine.config.write_text(f'[daemon]\nca-bundle = "{proxy.ca_file}"\n{text}')
    assert not patient.uv()
    found = next(each for each in patient.doctor() if each["severity"] == "error")
    assert (found["name"], found["fix"]) == ("untrusted", f"export SSL_CERT_FILE={proxy.ca_file}")
    patient.repair(found["fix"])
    assert patient.uv(), patient.said
    assert all(each["severity"] == "note" for each in patient.doctor())


def test_a_ca_bundle_that_is_not_there(private: tuple[Patient, TlsProxy]) -> None:
    """It is refused with its path before anything else is said; with a path that exists, all is well."""
    patient, proxy = private
    patient.env["SSL_CERT_FILE"] = "/nowhere/corp.pem"
    text = patient.machine.config.read_text()
    patient.machine.config.write_text(f'[daemon]\nca-bundle = "/nowhere/corp.pem"\n{text}')
    assert not patient.uv()
    found = first(patient)
    assert found["name"] == "configuration"
    assert "/nowhere/corp.pem" in found["message"]
    assert found["culprit"].endswith("config.toml: daemon.ca-bundle")
    assert found["fix"].startswith("write the path of an existing file")
    status, out, err = patient.ours("status")
    assert (status, "config.toml is invalid: daemon.ca-bundle: /nowhere/corp.pem" in out) == (3, True)
    assert "fix: write the path of an existing file" in err
    patient.machine.config.write_text(f'[daemon]\nca-bundle = "{proxy.ca_file}"\n{text}')
    found = next(each for each in patient.doctor() if each["severity"] == "error")
    assert found["name"] == "untrusted"
    patient.repair(found["fix"])
    assert patient.uv(), patient.said


# ------------------------------------------------------------------------------------------------ the public index


def test_a_package_that_the_private_index_does_not_have(patient: Patient) -> None:
    """uv takes the public package of that name without a word; with the fix it takes it from the private index only."""
    both = '[[tool.uv.index]]\nname = "acme"\nurl = "{url}"\nauthenticate = "always"\n\n'
    patient.write_project(both + '[[tool.uv.index]]\nname = "public"\nurl = "{public}"\ndefault = true\n')
    patient.answer(lambda answer: answer if answer.status == 401 else Answer(404))
    assert patient.uv(), patient.said
    assert "9.9" in (patient.project / "uv.lock").read_text()
    (patient.project / "uv.lock").unlink()
    found = first(patient)
    assert found["name"] == "public-fallback" or found["name"] == "index-404"
    told = next(each for each in patient.doctor("--offline") if each["name"] == "public-fallback")
    assert "'acme' does not have comes from public" in told["message"]
    patient.repair(told["fix"])
    patient.pyproject.write_text(f'{patient.pyproject.read_text()}\n[tool.uv.sources]\nalpha = {{ index = "acme" }}\n')
    assert not patient.uv()  # as it should be: it is not there
    patient.answer(lambda answer: answer)
    assert patient.uv(), patient.said
    assert "9.9" not in (patient.project / "uv.lock").read_text()
    assert "public-fallback" not in str(patient.doctor("--offline"))


# ------------------------------------------------------------------------------------------------ directories, disks


def ordinary() -> list[str]:
    """Return what stands before a command that must not have root's right to write everywhere (setpriv(1))."""
    return ["setpriv", "--bounding-set=-dac_override,-dac_read_search"] if os.geteuid() == 0 else []


@pytest.mark.parametrize(("directory", "mode"), [("home", "u+wx"), ("home/.local/state/uvtokend", "700")])
def test_a_directory_that_may_not_be_written(patient: Patient, directory: str, mode: str) -> None:
    """A home directory of mode 0555, or a state directory: named with the command that opens it; then uv installs."""
    patient.netrc.unlink()
    closed = patient.machine.directory / directory
    if directory != "home":
        shutil.rmtree(patient.machine.state)
        closed.mkdir(parents=True)
    closed.chmod(0o555)
    patient.inside[:] = ordinary()
    assert not patient.uv()
    failed = patient.ours("start")
    assert str(closed) in failed[1] + failed[2]
    assert "  fix: chmod " in failed[1] + failed[2], failed
    found = first(patient, "--offline")
    assert (found["name"], found["fix"]) == ("directory-closed", f"chmod {mode} {closed}")
    patient.repair(found["fix"])
    assert patient.ours("once")[0] == 0
    assert patient.uv(), patient.said


@pytest.fixture
def inside(patient: Patient) -> Iterator[list[str]]:
    """Let every command of the machine run in a mount namespace of its own."""
    with namespace(patient.project) as words:
        patient.inside[:] = words
        yield words
        patient.inside.clear()


MOUNT = 'mkdir -p "$D/$AT"; mount -t tmpfs -o size=256k,mode=700 none "$D/$AT"; ln -s "$AT/netrc" "$D/.netrc"\n'
TOUCH = 'touch "$D/$AT/netrc"; chmod 600 "$D/$AT/netrc"\n'
STATE = 'rm -rf "$D/.local/state/uvtokend"; mkdir -m 700 -p "$D/.local/state/uvtokend"\n'


@pytest.mark.mounts
@pytest.mark.parametrize(
    ("at", "what"), [("mnt", "netrc"), (".local/state", "state file")], ids=["the netrc's", "the state's"]
)
def test_a_read_only_mount(patient: Patient, inside: list[str], at: str, what: str) -> None:
    """The real path is named, and the command that lets it be written; then uvtokend delivers and uv installs."""
    forget(patient)
    place = str(patient.machine.home / at)
    script = MOUNT.replace('ln -s "$AT/netrc" "$D/.netrc"', 'ln -s "$AT/netrc" "$D/.netrc"' if at == "mnt" else ":")
    script += TOUCH if at == "mnt" else STATE
    sh(inside, f'{script}mount -o remount,ro "$D/$AT"', D=str(patient.machine.home), AT=at)
    assert not patient.uv()
    status, out, err = patient.ours("once" if at == "mnt" else "start")  # without a state file, once delivers
    assert status == 1
    assert "read-only" in (out + err).lower()
    found = first(patient, "--offline")
    assert found["name"] == "read-only"
    assert f"The {what} is in {place}" in found["message"]
    assert found["fix"] == f"sudo mount -o remount,rw {place}"
    patient.repair(found["fix"])
    assert patient.ours("once")[0] == 0
    assert patient.uv(), patient.said


@pytest.mark.mounts
@pytest.mark.parametrize("at", ["full", ".local/state"], ids=["the netrc's", "everything's"])
def test_a_full_disk(patient: Patient, inside: list[str], at: str) -> None:
    """The directory is named by its real path; when there is room again, uvtokend delivers and uv installs."""
    forget(patient)
    place = str(patient.machine.home / at)
    known = {"D": str(patient.machine.home), "AT": at}
    filled = 'cat /dev/zero > "$D/$AT/fill" 2> "$D/why" || grep -q "No space" "$D/why"'
    sh(inside, f"{MOUNT}{TOUCH}{STATE}{filled}", **known)
    patient.freed = lambda: sh(inside, 'rm "$D/$AT/fill"', **known)
    assert not patient.uv()
    status, out, err = patient.ours("once")
    assert status == 1
    assert re.search(r"\b(full|[Nn]o space)\b", out + err)
    found = first(patient, "--offline")
    assert found["name"] == "disk-full"
    assert place in found["message"]
    assert found["fix"] == f"delete what you do not need there: df -h {place}"
    patient.repair(found["fix"])
    assert patient.ours("once")[0] == 0
    assert patient.uv(), patient.said

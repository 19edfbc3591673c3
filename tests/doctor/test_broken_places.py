"""Broken homes, mounts, disks and certificates: doctor's first problem names the cause, and its fix works.

The real uv confirms both.
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
    """Return doctor's first finding."""
    finding: dict[str, str] = patient.doctor(*arguments)[0]
    return finding


def reset(patient: Patient) -> None:
    """Delete the netrc and the state, as if uvtokend had never run."""
    patient.netrc.unlink()
    shutil.rmtree(patient.machine.state)


# ------------------------------------------------------------------------------------------------------ other homes


def elsewhere(patient: Patient) -> str:
    """Give this shell another, empty home directory, and return its path."""
    home = patient.machine.directory / "elsewhere"
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir(mode=0o700)
    patient.env["HOME"] = str(home)
    return str(home)


def test_a_shell_with_another_home(patient: Patient) -> None:
    """If this shell's HOME differs, the daemon's tokens are fresh but uv reads another netrc;
    `status` and doctor say so.
    """
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
    """If config.toml is also missing in the other home,
    doctor names the right HOME and does not suggest a new setup.
    """
    usual = patient.machine.home / ".config" / "uvtokend"
    usual.mkdir(parents=True)
    patient.machine.config.rename(usual / "config.toml")
    patient.env["UVTOKEND_CONFIG"] = ""
    assert patient.ours("start")[0] == 0
    elsewhere(patient)
    assert not patient.uv()
    finding = first(patient, "--offline")
    assert (finding["name"], finding["severity"]) == ("other-home", "error")
    assert finding["fix"] == f"export HOME={patient.machine.home}"
    patient.repair(finding["fix"])
    assert patient.uv(), patient.said
    assert all(each["severity"] == "note" for each in patient.doctor("--offline"))


def test_another_home_and_another_socket(patient: Patient) -> None:
    """If the socket differs too, uvtokend still finds the daemon, and names its home."""
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
    status, out, _ = patient.ours("status")  # the socket still differs: uv works, and status names the fix
    assert (status, "keeps" in out.splitlines()[0]) == (3, True)
    patient.repair(out.splitlines()[1].removeprefix("  fix: "))
    status, out, _ = patient.ours("status")
    assert (status, out.splitlines()[0]) == (0, "The index is ready.")


# ----------------------------------------------------------------------------------------------------- certificates


@pytest.fixture
def private(patient: Patient) -> Iterator[tuple[Patient, TlsProxy]]:
    """Put the index behind a certificate of a company's own authority."""

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


def test_a_company_certificate_that_uv_does_not_trust(private: tuple[Patient, TlsProxy]) -> None:
    """If only config.toml names the company's CA bundle, doctor says how uv gets it too."""
    patient, proxy = private
    text = patient.machine.config.read_text()
    patient.machine.config.write_text(f'[daemon]\nca-bundle = "{proxy.ca_file}"\n{text}')
    assert not patient.uv()
    finding = next(each for each in patient.doctor() if each["severity"] == "error")
    assert (finding["name"], finding["fix"]) == ("untrusted", f"export SSL_CERT_FILE={proxy.ca_file}")
    patient.repair(finding["fix"])
    assert patient.uv(), patient.said
    assert all(each["severity"] == "note" for each in patient.doctor())


def test_a_ca_bundle_that_does_not_exist(private: tuple[Patient, TlsProxy]) -> None:
    """A CA bundle that does not exist is doctor's first problem, with its path; with an existing path the fix works."""
    patient, proxy = private
    patient.env["SSL_CERT_FILE"] = "/nowhere/corp.pem"
    text = patient.machine.config.read_text()
    patient.machine.config.write_text(f'[daemon]\nca-bundle = "/nowhere/corp.pem"\n{text}')
    assert not patient.uv()
    finding = first(patient)
    assert finding["name"] == "configuration"
    assert "/nowhere/corp.pem" in finding["message"]
    assert finding["culprit"].endswith("config.toml: daemon.ca-bundle")
    assert finding["fix"].startswith("write the path of an existing file")
    status, out, err = patient.ours("status")
    assert (status, "config.toml is invalid: daemon.ca-bundle: /nowhere/corp.pem" in out) == (3, True)
    assert "fix: write the path of an existing file" in err
    patient.machine.config.write_text(f'[daemon]\nca-bundle = "{proxy.ca_file}"\n{text}')
    finding = next(each for each in patient.doctor() if each["severity"] == "error")
    assert finding["name"] == "untrusted"
    patient.repair(finding["fix"])
    assert patient.uv(), patient.said


# ------------------------------------------------------------------------------------------------ the public index


def test_a_package_that_the_private_index_does_not_have(patient: Patient) -> None:
    """uv silently takes the public package of that name; with the fix, it uses the private index only."""
    both = '[[tool.uv.index]]\nname = "acme"\nurl = "{url}"\nauthenticate = "always"\n\n'
    patient.write_project(both + '[[tool.uv.index]]\nname = "public"\nurl = "{public}"\ndefault = true\n')
    patient.answer(lambda answer: answer if answer.status == 401 else Answer(404))
    assert patient.uv(), patient.said
    assert "9.9" in (patient.project / "uv.lock").read_text()
    (patient.project / "uv.lock").unlink()
    problem = first(patient)
    assert problem["name"] == "public-fallback" or problem["name"] == "index-404"
    finding = next(each for each in patient.doctor("--offline") if each["name"] == "public-fallback")
    assert "'acme' does not have comes from public" in finding["message"]
    patient.repair(finding["fix"])
    patient.pyproject.write_text(f'{patient.pyproject.read_text()}\n[tool.uv.sources]\nalpha = {{ index = "acme" }}\n')
    assert not patient.uv()  # correct: the private index does not have it
    patient.answer(lambda answer: answer)
    assert patient.uv(), patient.said
    assert "9.9" not in (patient.project / "uv.lock").read_text()
    assert "public-fallback" not in str(patient.doctor("--offline"))


# ------------------------------------------------------------------------------------------------ directories, disks


def unprivileged() -> list[str]:
    """Return the prefix of a command that must not have root's permission to write everywhere (setpriv(1))."""
    return ["setpriv", "--bounding-set=-dac_override,-dac_read_search"] if os.geteuid() == 0 else []


@pytest.mark.parametrize(("directory", "mode"), [("home", "u+wx"), ("home/.local/state/uvtokend", "700")])
def test_a_directory_that_cannot_be_written(patient: Patient, directory: str, mode: str) -> None:
    """If the home or the state directory is not writable, doctor names it with the `chmod` that fixes it."""
    patient.netrc.unlink()
    closed = patient.machine.directory / directory
    if directory != "home":
        shutil.rmtree(patient.machine.state)
        closed.mkdir(parents=True)
    closed.chmod(0o555)
    patient.inside[:] = unprivileged()
    assert not patient.uv()
    failed = patient.ours("start")
    assert str(closed) in failed[1] + failed[2]
    assert "  fix: chmod " in failed[1] + failed[2], failed
    finding = first(patient, "--offline")
    assert (finding["name"], finding["fix"]) == ("directory-closed", f"chmod {mode} {closed}")
    patient.repair(finding["fix"])
    assert patient.ours("once")[0] == 0
    assert patient.uv(), patient.said


@pytest.fixture
def inside(patient: Patient) -> Iterator[list[str]]:
    """Run every command of the machine in its own mount namespace."""
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
    """If the netrc or the state file is on a read-only mount, doctor names its real path and the remount command."""
    reset(patient)
    mount = str(patient.machine.home / at)
    script = MOUNT.replace('ln -s "$AT/netrc" "$D/.netrc"', 'ln -s "$AT/netrc" "$D/.netrc"' if at == "mnt" else ":")
    script += TOUCH if at == "mnt" else STATE
    sh(inside, f'{script}mount -o remount,ro "$D/$AT"', D=str(patient.machine.home), AT=at)
    assert not patient.uv()
    status, out, err = patient.ours("once" if at == "mnt" else "start")  # without a state file, once delivers
    assert status == 1
    assert "read-only" in (out + err).lower()
    finding = first(patient, "--offline")
    assert finding["name"] == "read-only"
    assert f"The {what} is in {mount}" in finding["message"]
    assert finding["fix"] == f"sudo mount -o remount,rw {mount}"
    patient.repair(finding["fix"])
    assert patient.ours("once")[0] == 0
    assert patient.uv(), patient.said


@pytest.mark.mounts
@pytest.mark.parametrize("at", ["full", ".local/state"], ids=["the netrc's", "everything's"])
def test_a_full_disk(patient: Patient, inside: list[str], at: str) -> None:
    """If the disk is full, doctor names the directory's real path; once there is room, uvtokend delivers again."""
    reset(patient)
    mount = str(patient.machine.home / at)
    known = {"D": str(patient.machine.home), "AT": at}
    filled = 'cat /dev/zero > "$D/$AT/fill" 2> "$D/why" || grep -q "No space" "$D/why"'
    sh(inside, f"{MOUNT}{TOUCH}{STATE}{filled}", **known)
    patient.freed = lambda: sh(inside, 'rm "$D/$AT/fill"', **known)
    assert not patient.uv()
    status, out, err = patient.ours("once")
    assert status == 1
    assert re.search(r"\b(full|[Nn]o space)\b", out + err)
    finding = first(patient, "--offline")
    assert finding["name"] == "disk-full"
    assert mount in finding["message"]
    assert finding["fix"] == f"delete what you do not need there: df -h {mount}"
    patient.repair(finding["fix"])
    assert patient.ours("once")[0] == 0
    assert patient.uv(), patient.said

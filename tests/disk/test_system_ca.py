"""``ca-bundle = "system"`` on a Mac: one file with Apple's roots and those of the system keychain."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from uvtokend.disk import system_ca
from uvtokend.errors import UvtokendError

APPLE = "-----BEGIN CERTIFICATE-----\napple\n-----END CERTIFICATE-----\n"
COMPANY = APPLE.replace("apple", "company")


class Mac:
    """The certificate files of a Mac, and a `security` that prints a keychain as text."""

    def __init__(self, directory: Path) -> None:
        self.bundle = directory / "state" / "ca-bundle.pem"
        self.roots, self.keychain = directory / "cert.pem", directory / "System.keychain"
        self.roots.write_text(APPLE)
        self.keychain.write_text(COMPANY)
        self.calls = directory / "calls"
        self.script = f'echo "$*" >> {self.calls}; cat "$3"'

    def merged(self) -> str:
        """Return the path of the merged bundle."""
        export = ("sh", "-c", self.script, "security", "-a", "-p")
        return system_ca.merged(str(self.bundle), str(self.roots), str(self.keychain), export)


@pytest.fixture
def mac(tmp_path: Path) -> Mac:
    """Return a Mac with a company's certificate."""
    return Mac(tmp_path)


def test_the_bundle_has_both_sources(mac: Mac) -> None:
    """Apple's roots and the company's are in one private file. An empty keychain adds nothing."""
    assert mac.merged() == str(mac.bundle)
    assert mac.bundle.read_text() == APPLE + COMPANY
    assert stat.S_IMODE(mac.bundle.stat().st_mode) == 0o600
    assert mac.calls.read_text() == f"-a -p {mac.keychain}\n"
    mac.bundle.unlink()
    mac.keychain.write_text("")
    assert Path(mac.merged()).read_text() == APPLE


def test_the_bundle_is_written_again_only_after_a_change(mac: Mac) -> None:
    """A certificate that is added later appears at the next call. Without a change no program runs."""
    mac.merged()
    mac.merged()
    assert len(mac.calls.read_text().splitlines()) == 1
    later = mac.bundle.stat().st_mtime_ns + 10**9
    mac.keychain.write_text(COMPANY * 2)
    os.utime(mac.keychain, ns=(later, later))
    assert Path(mac.merged()).read_text() == APPLE + COMPANY * 2


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("echo 'SecKeychainOpen: denied' >&2; exit 1", "SecKeychainOpen: denied"),
        ("echo nonsense", "status 0"),
        ("sleep 60", "no answer within 0.1 s"),
    ],
)
def test_a_program_that_fails(mac: Mac, script: str, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """If `security` fails, the option is refused with the reason, because an incomplete bundle would fail later
    without one."""
    monkeypatch.setattr(system_ca, "PATIENCE", 0.1 if "sleep" in script else 20.0)
    mac.script = script
    with pytest.raises(UvtokendError, match=words):
        mac.merged()
    assert not mac.bundle.exists()


def test_without_apples_roots(mac: Mac) -> None:
    """If Apple's file is missing, the error names it."""
    mac.roots.unlink()
    with pytest.raises(UvtokendError, match=str(mac.roots)):
        mac.merged()

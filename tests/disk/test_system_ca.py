"""``ca-bundle = "system"`` on a Mac: one file of Apple's roots and those of the system keychain."""

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
    """The files of a Mac, and a `security` that prints a keychain as a text file."""

    def __init__(self, folder: Path) -> None:
        self.bundle = folder / "state" / "ca-bundle.pem"
        self.roots, self.keychain = folder / "cert.pem", folder / "System.keychain"
        self.roots.write_text(APPLE)
        self.keychain.write_text(COMPANY)
        self.asked = folder / "asked"
        self.script = f'echo "$*" >> {self.asked}; cat "$3"'

    def merged(self) -> str:
        """Ask for the bundle."""
        export = ("sh", "-c", self.script, "security", "-a", "-p")
        return system_ca.merged(str(self.bundle), str(self.roots), str(self.keychain), export)


@pytest.fixture
def mac(tmp_path: Path) -> Mac:
    """A Mac of a company."""
    return Mac(tmp_path)


def test_both_are_in_it(mac: Mac) -> None:
    """Apple's roots and the company's are in one private file; an empty keychain adds nothing."""
    assert mac.merged() == str(mac.bundle)
    assert mac.bundle.read_text() == APPLE + COMPANY
    assert stat.S_IMODE(mac.bundle.stat().st_mode) == 0o600
    assert mac.asked.read_text() == f"-a -p {mac.keychain}\n"
    mac.bundle.unlink()
    mac.keychain.write_text("")
    assert Path(mac.merged()).read_text() == APPLE


def test_it_is_written_anew_only_after_a_change(mac: Mac) -> None:
    """A certificate that device management adds later counts at the next look; otherwise no program is run."""
    mac.merged()
    mac.merged()
    assert len(mac.asked.read_text().splitlines()) == 1
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
    """The option is refused with the reason: a bundle without the company's root would fail later, and darkly."""
    monkeypatch.setattr(system_ca, "PATIENCE", 0.1 if "sleep" in script else 20.0)
    mac.script = script
    with pytest.raises(UvtokendError, match=words):
        mac.merged()
    assert not mac.bundle.exists()


def test_without_apples_roots(mac: Mac) -> None:
    """The missing file is named."""
    mac.roots.unlink()
    with pytest.raises(UvtokendError, match=str(mac.roots)):
        mac.merged()

"""Write the unit and the agent that packages ship, from the text that `uvtokend service install` uses as well.

python packaging/service_files.py
"""

from pathlib import Path

from uvtokend.service import LAUNCHD_LABEL, launchd, systemd

ROOT = Path(__file__).resolve().parent.parent
#: A package puts the program where every user's launchd finds it; `uvtokend service install` names the user's own.
PACKAGED_PROGRAM = "/usr/local/bin/uvtokend"


def shipped() -> dict[Path, bytes]:
    """Return each file and its text."""
    return {
        ROOT / "systemd" / systemd.UNIT: systemd.unit().encode(),
        ROOT / "launchd" / f"{LAUNCHD_LABEL}.plist": launchd.property_list([PACKAGED_PROGRAM]),
    }


if __name__ == "__main__":
    for file, text in shipped().items():
        file.write_bytes(text)

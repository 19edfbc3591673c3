"""Where uvtokend keeps its files below a home directory on each platform, as `uvtokend.paths` has it."""

from __future__ import annotations

import sys
from pathlib import Path

_MAC = "Library/Application Support"


def config_file(home: Path, platform: str = sys.platform) -> Path:
    """Return the configuration file."""
    return home / (_MAC if platform == "darwin" else ".config") / "uvtokend" / "config.toml"


def state_directory(home: Path, platform: str = sys.platform) -> Path:
    """Return the state directory."""
    return home / (_MAC if platform == "darwin" else ".local/state") / "uvtokend"

"""Where uvtokend keeps its files below a home directory on each platform, as in `uvtokend.paths`."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path

_MAC = "Library/Application Support"


def config_file(home: Path, platform: str = sys.platform) -> Path:
    """Return the configuration file."""
    return home / (_MAC if platform == "darwin" else ".config") / "uvtokend" / "config.toml"


def state_directory(home: Path, platform: str = sys.platform) -> Path:
    """Return the state directory."""
    return home / (_MAC if platform == "darwin" else ".local/state") / "uvtokend"


def benchmark_cache() -> Path:
    """Return the directory, in the user's cache, where the benchmark keeps the peers installed."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    root = Path(base) if os.path.isabs(base) else Path.home() / ".cache"
    with contextlib.suppress(OSError):
        root.mkdir(parents=True, exist_ok=True)
    return root / "uvtokend-bench"

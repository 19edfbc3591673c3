"""``python -m uvtokend`` is ``uvtokend``."""

from __future__ import annotations

import sys

from uvtokend.cli.main import main

if __name__ == "__main__":
    sys.exit(main())

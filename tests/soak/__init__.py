"""The soak: everything that happens to a laptop in a year, against the real thing. See run.py."""

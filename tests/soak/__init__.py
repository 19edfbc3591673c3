"""The soak test: a year's worth of faults against the real daemon, in minutes. See run.py."""

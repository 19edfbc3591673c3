"""Mutation testing of the code that decides: `python tests/mutation/run.py`."""

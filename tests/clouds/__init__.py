"""Emulated clouds that only tests use, and a test environment for each."""

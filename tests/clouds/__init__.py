"""Emulated clouds that only tests use, and a world around each."""

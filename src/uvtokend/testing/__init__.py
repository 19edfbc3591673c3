"""Tests for authors of providers; see `uvtokend.testing.contract`."""

from uvtokend.testing.contract import ProviderContract, asked

__all__ = ["ProviderContract", "asked"]

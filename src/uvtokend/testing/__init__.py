"""What the author of a provider tests it with: see `uvtokend.testing.contract`."""

from uvtokend.testing.contract import ProviderContract, asked

__all__ = ["ProviderContract", "asked"]

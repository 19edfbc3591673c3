"""uvtokend keeps the tokens of private Python indexes fresh in the netrc that uv reads."""

__version__ = "0.1.0"

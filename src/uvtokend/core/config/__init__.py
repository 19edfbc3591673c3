"""``config.toml``: from text to settings, and edits that keep everything else to the byte."""

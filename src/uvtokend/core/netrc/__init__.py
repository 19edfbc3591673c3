"""The netrc: its grammar as uv reads it, and the managed block that is ours."""

"""Code that the providers share: HTTP, secrets, programs, failures."""

"""What the providers share: HTTP, secrets, programs, failures."""

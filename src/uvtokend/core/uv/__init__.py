"""What uv does with its own configuration and credentials, as pure functions that read nothing themselves."""

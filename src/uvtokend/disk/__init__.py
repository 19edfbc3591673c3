"""The file system, for the daemon and the commands."""

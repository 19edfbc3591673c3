"""What the daemon and the commands use of the file system."""

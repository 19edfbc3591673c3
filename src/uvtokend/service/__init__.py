"""The service manager that runs the daemon at login: systemd's user manager, launchd, or the desktop's autostart."""

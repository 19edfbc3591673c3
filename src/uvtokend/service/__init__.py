"""The service manager that runs the daemon at login: systemd's user manager, launchd, or the desktop's autostart."""

#: What launchd calls our agent; it stands in ``XPC_SERVICE_NAME`` of the processes that launchd starts.
LAUNCHD_LABEL = "io.github.uvtokend"

"""The service manager that runs the daemon at login: systemd's user manager, launchd, or the desktop's autostart."""

from collections.abc import Mapping

#: What launchd calls our agent; it stands in ``XPC_SERVICE_NAME`` of the processes that launchd starts.
LAUNCHD_LABEL = "io.github.uvtokend"


def by_launchd(environ: Mapping[str, str]) -> bool:
    """Return whether launchd has started this process, as our agent or as one that a company has named otherwise.

    Args:
        environ: The environment; its ``XPC_SERVICE_NAME`` is the label of the agent.
    """
    return "uvtokend" in environ.get("XPC_SERVICE_NAME", "")

"""The service manager that runs the daemon at login: systemd's user manager, launchd, or the desktop's autostart."""

from collections.abc import Mapping

#: The name of our unit.
SYSTEMD_UNIT = "uvtokend.service"
#: The label of our agent, which launchd sets as ``XPC_SERVICE_NAME`` for the processes that it starts.
LAUNCHD_LABEL = "io.github.uvtokend"


def by_launchd(environ: Mapping[str, str]) -> bool:
    """Return whether launchd has started this process, as our agent or under a label of a company's own.

    Args:
        environ: The environment; its ``XPC_SERVICE_NAME`` is the label of the agent.
    """
    return "uvtokend" in environ.get("XPC_SERVICE_NAME", "")

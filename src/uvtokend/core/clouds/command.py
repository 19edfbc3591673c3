"""Any index: the user's own program prints the credential."""

from __future__ import annotations

from uvtokend.core.clouds.catalog import Cloud
from uvtokend.core.config.values import COMMAND, Option
from uvtokend.core.model import Request


def _runs(request: Request) -> tuple[str, ...]:
    command = request.option("command")
    return (str(command[0]),) if isinstance(command, tuple) and command else ()


CLOUD = Cloud(
    provider="command",
    title="the output of a program",
    module="uvtokend.providers.command",
    options={"command": Option(COMMAND, required=True)},
    shares_worker=False,  # a program may leave processes behind, which end with their worker
    runs=_runs,
)

"""Any index: a user name and a secret from elsewhere, or the answer of a program."""

from __future__ import annotations

from uvtokend.core.clouds.catalog import Cloud
from uvtokend.core.config.values import COMMAND, LOGIN, SECRET, TIME, Option
from uvtokend.core.model import Request


def _runs(request: Request) -> tuple[str, ...]:
    command = request.option("command")
    return (str(command[0]),) if isinstance(command, tuple) and command else ()


STATIC = Cloud(
    provider="static",
    title="a user name and a secret",
    options={
        "username": Option(LOGIN, required=True),
        "password": Option(SECRET, required=True),
        "expires": Option(TIME),
    },
)
COMMAND_OUTPUT = Cloud(
    provider="command",
    title="the output of a program",
    options={"command": Option(COMMAND, required=True)},
    runs=_runs,
)

"""Fetch tokens without a daemon, for `token` and `exec`. Nothing is delivered, and nothing is remembered."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable
from datetime import UTC, datetime

from uvtokend.core.agent import admit
from uvtokend.core.model import Credential, Failure, Index, Request, Settings
from uvtokend.core.worker_environment import worker_environment
from uvtokend.daemon.worker import Workers


def fetch(settings: Settings, indexes: Iterable[Index]) -> dict[Request, Credential | Failure]:
    """Return the outcome of one fetch for each request; nothing is delivered or remembered.

    Args:
        settings: The configuration.
        indexes: The indexes that need a token.
    """
    hosts = {index.request: index.host for index in indexes}
    return asyncio.run(_fetch(settings, hosts))


async def _fetch(settings: Settings, hosts: dict[Request, str]) -> dict[Request, Credential | Failure]:
    loop = asyncio.get_running_loop()
    waiting = {request: loop.create_future() for request in hosts}
    workers = Workers(
        settings.max_workers,
        settings.fetch_timeout,
        lambda request: worker_environment(os.environ, request, settings),
        lambda request, outcome: waiting[request].set_result(admit(outcome, hosts[request], datetime.now(UTC))),
    )
    try:
        for request in hosts:
            workers.start(request)
        return {request: await future for request, future in waiting.items()}
    finally:
        await workers.close()

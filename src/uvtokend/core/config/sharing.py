"""Find the configured index whose token serves a new index, too."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from uvtokend.core import clouds
from uvtokend.core.config.edit import Table
from uvtokend.core.model import Frozen, Index, Json
from uvtokend.core.urls import IndexUrl


def shared(url: IndexUrl, provider: str | None, known: Iterable[Index]) -> tuple[Index, Table] | None:
    """Return a configured index whose token serves a new index on its host, and the options for the new index.

    Args:
        url: The URL of the new index.
        provider: The provider recognized from the URL, or None.
        known: The configured indexes.
    """
    for index in known:
        in_url = clouds.options_in_url(index.provider, url)
        env = dict(index.request.env)
        request = clouds.request(index.provider, url, {**dict(index.request.options), **in_url}, env)
        request = replace(request, memory=index.request.memory)
        if index.host == url.host and request == index.request:
            options = {key: thawed(value) for key, value in request.options if key not in in_url}
            named: Table = {} if index.provider == provider else {"provider": index.provider}
            inside: Table = {"env": thawed(request.env)} if env else {}
            return index, {**named, **options, **inside}
    return None


def thawed(value: Frozen) -> Json:
    """Return an option as it is written in the configuration."""
    if not isinstance(value, tuple):
        return value
    pairs = [item for item in value if isinstance(item, tuple)]
    return {str(key): thawed(inner) for key, inner in pairs} if pairs else [thawed(item) for item in value]

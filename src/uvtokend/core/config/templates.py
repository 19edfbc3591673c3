"""Write what a person completes: the table of an index whose sign-in only its user knows, and the command for one."""

from __future__ import annotations

import shlex

from uvtokend.core.clouds import CLOUDS
from uvtokend.core.config import edit
from uvtokend.core.config.edit import Table
from uvtokend.core.urls import IndexUrl


def template(provider: str, name: str, url: IndexUrl) -> str:
    """Return a comment for the configuration: its lines that begin with a single ``#`` are a table to complete.

    Args:
        provider: The provider.
        name: The name of the index.
        url: The index.
    """
    ways = _ways(provider)
    table = edit.render({"name": name, "url": url.text, **ways[0]})
    lines = [f"## How do you sign in to {url.host}? Complete these lines and remove the # in front of each:"]
    lines += [f"# {line}" for line in table.splitlines()]
    lines += [f"## or {edit.inline(way)}" for way in ways[1:]]
    return "\n".join([*lines, ""])


def mark(url: IndexUrl) -> str:
    """Return the line by which the template of an index is recognized in a configuration."""
    return edit.inline({"url": url.text})


def by_hand(url: IndexUrl, name: str | None) -> str:
    """Return the command that adds an index whose provider was not recognized, with examples for what it cannot know.

    Args:
        url: The index.
        name: As uv knows it; None if it has none.
    """
    settings = [word for each in suggested(url) for word in ("--set", each)]
    return shlex.join(["uvtokend", "add", url.text, *(["--name", name] if name else []), *settings])


def suggested(url: IndexUrl) -> list[str]:
    """Return the settings with which ``uvtokend add`` accepts an index whose provider was not recognized.

    It is guessed by the path of the URL; `static` serves every index that takes a user name and a password or token.
    """
    provider = next((name for name, each in CLOUDS.items() if each.path and each.path in url.path), "static")
    options = [
        f"{key}={value}" if isinstance(value, str) else edit.inline({key: value})
        for key, value in _ways(provider)[0].items()
    ]
    return [f"provider={provider}", *options]


def _ways(provider: str) -> list[Table]:
    """Return each way to sign in, with examples for the values that only the user knows."""
    cloud = CLOUDS[provider]
    required = tuple(name for name, option in cloud.options.items() if option.required)
    ways = [way.needs for way in cloud.sign_ins] or [required]
    return [{name: cloud.options[name].example for name in names} for names in ways]

"""Sonatype Nexus Repository, on self-hosted servers. Source: its documentation of PyPI repositories."""

from __future__ import annotations

from uvtokend.core.clouds.catalog import Cloud
from uvtokend.core.config.values import LOGIN_OR_SECRET, SECRET, Option

CLOUD = Cloud(
    provider="nexus",
    title="Sonatype Nexus",
    module="uvtokend.providers.nexus",
    options={
        "username": Option(LOGIN_OR_SECRET, required=True),
        "password": Option(SECRET, required=True),
    },
    path="/repository/",
)

"""Any index: a user name and a secret from a file, a variable or the desktop's keyring."""

from __future__ import annotations

from uvtokend.core.clouds.catalog import Cloud
from uvtokend.core.config.values import LOGIN, SECRET, TIME, Option

CLOUD = Cloud(
    provider="static",
    title="a user name and a secret",
    module="uvtokend.providers.static",
    options={
        "username": Option(LOGIN, required=True),
        "password": Option(SECRET, required=True),
        "expires": Option(TIME),
    },
)

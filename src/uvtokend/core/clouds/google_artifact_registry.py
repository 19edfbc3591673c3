"""Google Artifact Registry.

Sources: Artifact Registry's documentation of Python repositories; google-auth ``_cloud_sdk.py`` and
``environment_vars.py``; gcloud's authorization guide (a token, or the file of one, replaces the active account), and
googleapis/google-cloud-python issue 15199, which says that google-auth reads neither.
"""

from __future__ import annotations

import re

from uvtokend.core.clouds.catalog import Cloud, CloudProgram, StoredSignIn, Watched
from uvtokend.core.config.values import CHOICE, DURATION, PATH, TEXT, Option
from uvtokend.core.model import Env, Request
from uvtokend.core.urls import IndexUrl

_HOST = re.compile(r"[a-z0-9-]+-python\.pkg\.dev")
_TEMPORARY = ("CLOUDSDK_AUTH_ACCESS_TOKEN", "CLOUDSDK_AUTH_ACCESS_TOKEN_FILE")


def _recognize(url: IndexUrl) -> dict[str, str] | None:
    return {} if _HOST.fullmatch(url.known_host) else None


def _uses_gcloud(request: Request) -> bool:
    return request.option("source") == "gcloud"


def _temporary(environ: Env, request: Request) -> tuple[str, ...]:
    return tuple(name for name in _TEMPORARY if environ.get(name)) if _uses_gcloud(request) else ()


def _runs(request: Request) -> tuple[str, ...]:
    return ("gcloud",) if _uses_gcloud(request) else ()


CLOUD = Cloud(
    provider="google-artifact-registry",
    title="Google Artifact Registry",
    module="uvtokend.providers.google.fetch",
    options={
        "source": Option(CHOICE, ("adc", "gcloud"), default="adc"),
        "credentials-file": Option(PATH),
        "impersonate-service-account": Option(TEXT),
        "lifetime": Option(DURATION, low=60, high=43200),
    },
    recognize=_recognize,
    login="oauth2accesstoken",
    watched=(
        Watched("", "GOOGLE_APPLICATION_CREDENTIALS"),
        Watched("~/.config/gcloud", "CLOUDSDK_CONFIG"),
    ),
    temporary=_temporary,
    program=CloudProgram(
        "gcloud", "gcloud auth application-default login", "https://cloud.google.com/sdk/docs/install"
    ),
    stored=StoredSignIn(
        {"source": "gcloud"}, Watched("~/.config/gcloud/credentials.db", "CLOUDSDK_CONFIG", "/credentials.db")
    ),
    runs=_runs,
    service_variables=(
        "CLOUDSDK_*",
        "GOOGLE_APPLICATION_CREDENTIALS",
        "GOOGLE_CLOUD_*",
        "GOOGLE_EXTERNAL_ACCOUNT_*",
        "GCE_METADATA_*",
        "NO_GCE_CHECK",
    ),
)

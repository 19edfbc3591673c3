"""Temporary credentials in the daemon's environment shadow a sign-in and will expire."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uvtokend.core.clouds import temporary_credentials
from uvtokend.core.model import Frozen, Request

AWS = "aws-codeartifact"
GOOGLE = "google-artifact-registry"
AZURE = "azure-artifacts"
LONG_TERM = {"AWS_ACCESS_KEY_ID": "AKIAEXAMPLE", "AWS_SECRET_ACCESS_KEY": "the-canary"}
ROLE = {"AWS_ACCESS_KEY_ID": "ASIAEXAMPLE", "AWS_SECRET_ACCESS_KEY": "the-canary", "AWS_SESSION_TOKEN": "the-canary"}
GCLOUD = {"CLOUDSDK_AUTH_ACCESS_TOKEN": "the-canary"}
NAMES = [*ROLE, "AWS_SECURITY_TOKEN", "AWS_PROFILE", *GCLOUD, "AZURE_CLIENT_SECRET", "SYSTEM_ACCESSTOKEN"]


def request_for(provider: str, env: tuple[tuple[str, str], ...] = (), **options: Frozen) -> Request:
    return Request(provider, options=tuple(options.items()), env=env)


@pytest.mark.parametrize(
    ("environ", "request_", "names"),
    [
        ({}, request_for(AWS), ""),
        (LONG_TERM, request_for(AWS), ""),
        (ROLE, request_for(AWS), "AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY AWS_SESSION_TOKEN"),
        (ROLE, request_for(AWS, role_arn="arn"), "AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY AWS_SESSION_TOKEN"),
        ({**ROLE, "AWS_PROFILE": "dev"}, request_for(AWS), "AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY AWS_SESSION_TOKEN"),
        (ROLE, request_for(AWS, profile="dev"), ""),
        (ROLE, request_for(AWS, env=(("AWS_ACCESS_KEY_ID", ""),)), ""),
        ({**LONG_TERM, "AWS_SESSION_TOKEN": ""}, request_for(AWS), ""),
        (
            {**LONG_TERM, "AWS_SECURITY_TOKEN": "x", "AWS_CREDENTIAL_EXPIRATION": "2026-01-01T00:00:00Z"},
            request_for(AWS),
            "AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY AWS_SECURITY_TOKEN AWS_CREDENTIAL_EXPIRATION",
        ),
        ({"AWS_SESSION_TOKEN": "x"}, request_for(AWS), ""),
        ({"AWS_ACCESS_KEY_ID": "ASIAEXAMPLE"}, request_for(AWS), "AWS_ACCESS_KEY_ID"),
        (GCLOUD, request_for(GOOGLE, source="gcloud"), "CLOUDSDK_AUTH_ACCESS_TOKEN"),
        (
            {"CLOUDSDK_AUTH_ACCESS_TOKEN_FILE": "/x"},
            request_for(GOOGLE, source="gcloud"),
            "CLOUDSDK_AUTH_ACCESS_TOKEN_FILE",
        ),
        (GCLOUD, request_for(GOOGLE, source="adc"), ""),
        (GCLOUD, request_for(GOOGLE), ""),
        ({**ROLE, **GCLOUD}, request_for(AZURE), ""),
        ({**ROLE, **GCLOUD}, request_for("command"), ""),
    ],
)
def test_which_variables_shadow_a_sign_in(environ: dict[str, str], request_: Request, names: str) -> None:
    """Temporary AWS keys shadow every sign-in except a named profile. An access token in the environment shadows
    only gcloud's account."""
    notice = temporary_credentials(environ, request_)
    assert (notice.hint if notice else "") == (f"unset {names} && uvtokend restart" if names else "")


@given(
    st.dictionaries(st.sampled_from(NAMES), st.sampled_from(["", "ASIA-the-canary"])), st.sampled_from([AWS, GOOGLE])
)
def test_the_notice_about_temporary_credentials(environ: dict[str, str], provider: str) -> None:
    """The notice names only variables that are set, unsetting them removes the shadow, and no value is shown."""
    request = request_for(provider, source="gcloud") if provider == GOOGLE else request_for(provider)
    notice = temporary_credentials(environ, request)
    if notice is None:
        return
    named = (notice.hint or "").removeprefix("unset ").partition(" &&")[0].split()
    assert all(environ[name] for name in named)
    assert temporary_credentials({name: environ[name] for name in environ if name not in named}, request) is None
    assert "canary" not in repr(notice)
    assert notice.reason == "temporary-environment"

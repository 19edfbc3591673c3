"""Which variables of the daemon's own environment shadow a login, and die."""

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


def asked(provider: str, env: tuple[tuple[str, str], ...] = (), **options: Frozen) -> Request:
    return Request(provider, options=tuple(options.items()), env=env)


@pytest.mark.parametrize(
    ("environ", "request_", "names"),
    [
        ({}, asked(AWS), ""),
        (LONG_TERM, asked(AWS), ""),
        (ROLE, asked(AWS), "AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY AWS_SESSION_TOKEN"),
        (ROLE, asked(AWS, role_arn="arn"), "AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY AWS_SESSION_TOKEN"),
        ({**ROLE, "AWS_PROFILE": "dev"}, asked(AWS), "AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY AWS_SESSION_TOKEN"),
        (ROLE, asked(AWS, profile="dev"), ""),
        (ROLE, asked(AWS, env=(("AWS_ACCESS_KEY_ID", ""),)), ""),
        ({**LONG_TERM, "AWS_SESSION_TOKEN": ""}, asked(AWS), ""),
        (
            {**LONG_TERM, "AWS_SECURITY_TOKEN": "x", "AWS_CREDENTIAL_EXPIRATION": "2026-01-01T00:00:00Z"},
            asked(AWS),
            "AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY AWS_SECURITY_TOKEN AWS_CREDENTIAL_EXPIRATION",
        ),
        ({"AWS_SESSION_TOKEN": "x"}, asked(AWS), ""),
        ({"AWS_ACCESS_KEY_ID": "ASIAEXAMPLE"}, asked(AWS), "AWS_ACCESS_KEY_ID"),
        (GCLOUD, asked(GOOGLE, source="gcloud"), "CLOUDSDK_AUTH_ACCESS_TOKEN"),
        (
            {"CLOUDSDK_AUTH_ACCESS_TOKEN_FILE": "/x"},
            asked(GOOGLE, source="gcloud"),
            "CLOUDSDK_AUTH_ACCESS_TOKEN_FILE",
        ),
        (GCLOUD, asked(GOOGLE, source="adc"), ""),
        (GCLOUD, asked(GOOGLE), ""),
        ({**ROLE, **GCLOUD}, asked(AZURE), ""),
        ({**ROLE, **GCLOUD}, asked("command"), ""),
    ],
)
def test_what_shadows_what(environ: dict[str, str], request_: Request, names: str) -> None:
    """Temporary keys come before every login but a named profile; an access token before gcloud's account alone."""
    found = temporary_credentials(environ, request_)
    assert (found.hint if found else "") == (f"unset {names} && uvtokend restart" if names else "")


@given(
    st.dictionaries(st.sampled_from(NAMES), st.sampled_from(["", "ASIA-the-canary"])), st.sampled_from([AWS, GOOGLE])
)
def test_what_is_said(environ: dict[str, str], provider: str) -> None:
    """Whatever is there: the variables that are named are set, after the fix nothing shadows, no value is told."""
    request = asked(provider, source="gcloud") if provider == GOOGLE else asked(provider)
    found = temporary_credentials(environ, request)
    if found is None:
        return
    named = (found.hint or "").removeprefix("unset ").partition(" &&")[0].split()
    assert all(environ[name] for name in named)
    assert temporary_credentials({name: environ[name] for name in environ if name not in named}, request) is None
    assert "canary" not in repr(found)
    assert found.reason == "temporary-environment"

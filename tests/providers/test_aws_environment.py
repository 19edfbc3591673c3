"""Which credentials the real SDK uses first, compared with `uvtokend.core.clouds.temporary_credentials`."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from uvtokend.core.clouds import temporary_credentials
from uvtokend.core.model import Request
from uvtokend.providers.aws import fetch as aws
from uvtokend.sandbox.codeartifact import CodeArtifact

OPTIONS = {"domain": "acme", "domain-owner": "123456789012", "region": "eu-central-1"}


@pytest.mark.parametrize("own", [{}, {"AWS_PROFILE": "dev"}, {"AWS_SECURITY_TOKEN": "temporary"}])
@pytest.mark.parametrize("profile", [None, "dev"])
def test_keys_of_the_environment_against_a_profile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own: dict[str, str], profile: str | None
) -> None:
    """boto3 signs with temporary keys in the environment exactly if we say that they shadow the sign-in."""
    for name in list(os.environ):
        if name.startswith("AWS_") or name.upper().endswith("_PROXY"):
            monkeypatch.delenv(name)
    (tmp_path / ".aws").mkdir()
    (tmp_path / ".aws" / "credentials").write_text(
        "[dev]\naws_access_key_id = AKIALOGIN\naws_secret_access_key = example\n"
    )
    environ = {"AWS_ACCESS_KEY_ID": "ASIASHELL", "AWS_SECRET_ACCESS_KEY": "example", "AWS_SESSION_TOKEN": "x", **own}
    options = OPTIONS if profile is None else {**OPTIONS, "profile": profile}
    request = Request("aws-codeartifact", options=tuple(sorted(options.items())))
    with CodeArtifact() as cloud:
        for name, text in {**environ, **cloud.environment(), "HOME": str(tmp_path)}.items():
            monkeypatch.setenv(name, text)
        aws.fetch(request)
        signed = next(call for call in cloud.server.calls if call.path == "/v1/authorization-token").headers
    shadowed = "Credential=ASIASHELL/" in (signed["Authorization"] or "")
    assert shadowed == (temporary_credentials(environ, request) is not None) == (profile is None)
    assert signed.get("X-Amz-Security-Token") == (own.get("AWS_SECURITY_TOKEN", "x") if shadowed else None)

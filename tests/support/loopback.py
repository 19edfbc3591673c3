"""What the tests of all providers share: requests, programs, an isolated environment, and failures without secrets."""

from __future__ import annotations

import os
import traceback
from collections.abc import Iterable
from pathlib import Path

import pytest

from uvtokend.core.model import Failure, Frozen, Request
from uvtokend.errors import FetchFailed

CANARY = "CANARY-of-a-secret-that-must-never-be-shown"


def asked(provider: str, service: str = "", /, **options: Frozen) -> Request:
    """Return a request with options; underscores in their names become hyphens."""
    pairs = sorted((name.replace("_", "-"), value) for name, value in options.items())
    return Request(provider, service, tuple(pairs))


def quiet(caught: pytest.ExceptionInfo[FetchFailed], secrets: Iterable[str] = (CANARY,)) -> Failure:
    """Return a failure after checking that nothing that could be logged of it contains a secret."""
    shown = "".join(traceback.format_exception(caught.value)) + repr(caught.value.failure)
    assert not [secret for secret in secrets if secret in shown]
    return caught.value.failure


def program(path: Path, script: str) -> str:
    """Make an executable shell script."""
    path.parent.mkdir(exist_ok=True)
    path.write_text("#!/bin/sh\n" + script)
    path.chmod(0o755)
    return str(path)


def forget(patch: pytest.MonkeyPatch, words: Iterable[str]) -> None:
    """Delete the variables whose names contain one of these words, since they could lead to a real service."""
    for name in list(os.environ):
        if any(word in name.upper() for word in words):
            patch.delenv(name)

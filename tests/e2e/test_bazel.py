"""The Bazel credential helper, compared with its specification, with what Bazel reads, and with uv's own helper.

Sources: EngFlow/credential-helper-spec, ``spec.md`` and ``schemas/``; bazelbuild/bazel,
``src/main/java/com/google/devtools/build/lib/authandtls/credentialhelper/`` and the tests of the same name
(``CredentialHelper.java``, ``GetCredentialsResponse.java``, ``GetCredentialsResponseTest.java``).
"""

from __future__ import annotations

import base64
import json
import re
import subprocess
from collections.abc import Iterator, Mapping
from datetime import datetime

import pytest

from support.issuing import LOGIN, Issuing
from uvtokend import ask
from uvtokend.cli import credential_helper
from uvtokend.sandbox.machine import find_uv

#: The only time format that Bazel accepts (``GetCredentialsResponse.java``, `RFC_3339_FORMATTER`, pattern
#: ``yyyy-MM-dd'T'HH:mm:ssXXX``); Java's DateTimeFormatter was seen to refuse a fraction of a second.
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(Z|[+-]\d\d:\d\d)")


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Issuing]:
    """Make a machine with a running daemon that delivers the token to uv's own store."""
    made = Issuing(tmp_path_factory.mktemp("b"))
    made.configure('sink = "uv-store"')
    made.begin()
    yield made
    made.close()


def helper(
    machine: Issuing, request: str, *arguments: str, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run the helper as Bazel does: with ``get`` as its only argument and the request on standard input."""
    command = machine.ourselves("credential-helper", *(arguments or ("get",)))
    environment = {**machine.environment, **(env or {})}
    return subprocess.run(command, env=environment, input=request, capture_output=True, text=True, check=False)


def read_as_bazel(text: str) -> tuple[dict[str, list[str]], datetime | None]:
    """Return headers and expiry as `GetCredentialsResponse.GsonTypeAdapter.read` does, and fail where it would."""
    document = json.loads(text)
    assert isinstance(document, dict)
    headers = document.get("headers", {})
    assert isinstance(headers, dict)
    for values in headers.values():
        assert isinstance(values, list)
        assert all(isinstance(value, str) for value in values)
    if "expires" not in document:
        return headers, None
    assert isinstance(document["expires"], str)
    assert TIME.fullmatch(document["expires"]), document["expires"]
    return headers, datetime.fromisoformat(document["expires"])


def test_the_request_and_the_response(machine: Issuing) -> None:
    """For a URI below the index, the helper returns one Authorization header and an expiry that Bazel can read."""
    # Bazel's JSON writer escapes "=", "&" and "'"; unknown properties are ignored (spec.md, "Input").
    uri = json.dumps({"uri": f"{machine.index.url}alpha/?a=b", "more": ["is", "ignored"]}).replace("=", "\\u003d")
    done = helper(machine, uri)
    assert (done.returncode, done.stderr) == (0, "")
    headers, ends = read_as_bazel(done.stdout)
    ((name, (value,)),) = headers.items()
    assert name == "Authorization"
    scheme, _, pair = value.partition(" ")
    assert scheme == "Basic"
    assert base64.b64decode(pair).decode() == f"{LOGIN}:{machine.tokens[-1]}"
    assert ends is not None


@pytest.mark.parametrize("ends", ["2026-01-31T08:00:00Z", "2026-01-31T08:00:00.123Z", None])
def test_an_expiry_that_bazel_reads(ends: str | None) -> None:
    """The expiry has no fraction of a second, which Bazel would refuse; an unknown expiry is left out."""
    _, read = read_as_bazel(json.dumps(credential_helper.response(ask.ServedCredential("me", "t", ends))))
    assert read == (None if ends is None else datetime.fromisoformat("2026-01-31T08:00:00Z"))


def test_an_unsupported_request_is_an_error(machine: Issuing) -> None:
    """For a URI of no index and for an invalid request, the helper exits with 1 and gives a reason."""
    for request in (
        '{"uri": "grpcs://example.com/com.example.package.Service/Method"}',
        '{"uri": "https://api.example.org/rest/endpoint"}',
        "{}",
        "[]",
        "nonsense",
        "",
        '{"uri": 1}',
        json.dumps({"uri": "x" * 10_000_000}),
    ):
        done = helper(machine, request)
        assert (done.returncode, done.stdout) == (1, "")
        assert "fix: " in done.stderr


def test_commands_and_a_stopped_daemon(machine: Issuing) -> None:
    """A missing or unknown command exits with 2 and prints the usage; without a daemon, the helper exits with 1."""
    for arguments in (("store",), ("get-credentials",)):
        done = helper(machine, "{}", *arguments)
        assert (done.returncode, done.stdout) == (2, "")
        assert "get" in done.stderr
    none = machine.uvtokend("credential-helper")
    assert (none.returncode, none.stdout, "get" in none.stderr) == (2, "", True)
    nowhere = {"UVTOKEND_SOCKET": str(machine.directory / "run" / "nobody.sock")}
    done = helper(machine, json.dumps({"uri": machine.index.url}), env=nowhere)
    assert (done.returncode, done.stdout, "uvtokend start" in done.stderr) == (1, "", True)


def test_uvs_own_helper_answers_the_same_headers(machine: Issuing) -> None:
    """`uv auth helper --protocol bazel get`, which reads our token from uv's store, returns the same headers.

    uv names no expiry, and for an unknown URI it returns no headers instead of an error.
    """
    for uri in (machine.index.url, f"{machine.index.url}alpha/", f"{machine.index.base}/elsewhere/"):
        request = json.dumps({"uri": uri})
        ours = helper(machine, request)
        command = [find_uv(), "auth", "helper", "--protocol", "bazel", "--preview-features", "auth-helper", "get"]
        theirs = subprocess.run(
            command, env=machine.environment, input=request, capture_output=True, text=True, check=False
        )
        assert theirs.returncode == 0, theirs.stderr
        headers, _ = read_as_bazel(theirs.stdout)
        assert headers == (read_as_bazel(ours.stdout)[0] if ours.returncode == 0 else {}), uri
    assert ours.returncode == 1

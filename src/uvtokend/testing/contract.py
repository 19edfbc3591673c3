"""The contract of every provider, built-in or plug-in, as a test suite to inherit from.

A provider is a function ``fetch(request: Request) -> Credential`` behind the entry-point group ``uvtokend.providers``.
The author of a provider tests it like this::

    import pytest
    from uvtokend.testing import ProviderContract

    class TestAcme(ProviderContract):
        failures = {"wrong-key": "rejected", "unreachable": "transient"}

        @pytest.fixture(autouse=True)
        def world(self, monkeypatch):                     # whatever the provider needs: servers, files, variables
            self.server = acme_server()
            monkeypatch.setenv("ACME_KEY", "key-0123456789abcdef")
            with self.server:
                yield

        def works(self):                                  # an index table, as a user would write it
            return f'''
            url = "https://packages.example/simple/"
            provider = "acme"
            options = {{ server = "{self.server.url}", key = {{ env = "ACME_KEY" }} }}
            '''

        def fails(self, reason):                          # makes the world fail so, and returns the table
            self.server.fault = reason
            return self.works()

        def secrets(self):                                # what must never show, beside the token itself
            return ["key-0123456789abcdef"]

The package must be installed (``pip install -e .``), so that uvtokend finds the provider by its entry point, as it will
for users. uvtokend's own reader parses the table: the provider gets frozen options, tables as sorted tuples of pairs,
and a reference such as ``{ env = "ACME_KEY" }`` in the form that `uvtokend.plugin.read_secret` reads.

Every test creates the world again and fetches in a child process. So the world must consist of things that a child
process sees: variables, files, sockets; not patched functions. Each world is used by two fetches: one by the real
worker, started as the daemon starts it, and one by a witness that enables all logs. The tests check:

* the provider returns before the deadline, prints nothing, prompts nobody (its input is closed, and there is no
  terminal) and leaves no process behind;
* its times are aware and in UTC: issued in the past, expiring in the future, the refresh between the two;
* its login contains no colon, and a netrc can hold the login and the token;
* no secret or part of a secret is in a repr, a log record of any level, an exception with everything attached to it
  (``__cause__``, ``__context__``, ``args``), the output, or the configuration;
* a failure is a `FetchFailed` with the promised kind and reason, a sentence, and a hint or None; no other exception
  escapes;
* an unknown option is rejected; `uvtokend.plugin.rejected` creates such a failure.

This module needs nothing but uvtokend itself. Any test runner that calls methods named ``test_…`` can run it; pytest
runs one test for each failure.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import re
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import IO, Any, ClassVar, get_args
from urllib.parse import quote, quote_plus

import psutil

from uvtokend.core import wire
from uvtokend.core.clouds import CLOUDS
from uvtokend.core.config import settings
from uvtokend.core.config.toml_document import Source
from uvtokend.core.model import Credential, Entry, Failure, FailureKind, Request, Secret, Settings
from uvtokend.core.netrc import block
from uvtokend.core.worker_environment import worker_environment
from uvtokend.errors import DeliveryFailed
from uvtokend.providers import loading, plugins

__all__ = ["ProviderContract", "asked"]

#: A text shorter than this can appear by chance.
SHORTEST_SECRET = 8
#: This many consecutive characters of a secret reveal too much of it.
PART = 20
#: Characters; longer messages are cut off on the wire.
LONGEST_SENTENCE = 1000
#: Seconds that a process may take to exit.
_GRACE = 0.5
_KEBAB = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
#: The worker's own reasons for failures that a provider did not classify.
_UNCLASSIFIED = frozenset({"unexpected", "no-provider", "ambiguous-provider", "broken-provider"})


def asked(table: str) -> Request:
    """Return the request that a provider gets for an index.

    Args:
        table: The index as it is in ``config.toml`` below ``[[index]]``.

    Raises:
        ConfigError: The table is invalid; the error contains every problem.
    """
    source = Source("the index table", f"[[index]]\n{table}".encode(), "/")
    (index,) = settings.parse([source], os.path.expanduser("~"), {}).indexes
    return index.request


class ProviderContract:
    """Inherit from this class and define what your provider needs; the module's docstring is the guide.

    Attributes:
        failures: Each reason that the provider knows (one kebab-case word) with its kind: ``transient``,
            ``login-required`` or ``rejected``.
        patience: Seconds that a fetch may take; by default the daemon's default deadline.
    """

    failures: ClassVar[Mapping[str, FailureKind]] = {}
    patience: float = 60.0

    def works(self) -> str:
        """Return an index table with which the provider gets a token."""
        raise NotImplementedError

    def fails(self, reason: str) -> str:
        """Create the world in which the provider fails for a reason, and return the index table."""
        raise NotImplementedError

    def secrets(self) -> Collection[str]:
        """Return every text that must stay secret. It is called before and after the fetch."""
        raise NotImplementedError

    def pytest_generate_tests(self, metafunc: Any) -> None:
        """Create one test for each failure (a hook of pytest). Without failures, one test fails."""
        if "reason" in metafunc.fixturenames:
            metafunc.parametrize("reason", sorted(self.failures) or [""])

    # ------------------------------------------------------------------------------------------------- the tests

    def test_it_is_found_by_its_name(self) -> None:
        """Exactly one package provides the name, and only uvtokend provides the names of uvtokend's own providers."""
        name = asked(self.works()).provider
        points = plugins.claims(name)
        packages = sorted({plugins.package(point) for point in points})
        _hold(points, f"no installed package has an entry point {name!r} in the group {plugins.GROUP!r}")
        if name in CLOUDS:
            message = f"{name!r} is uvtokend's own, which wins: give the provider of {packages} another name"
            _hold(packages == [loading.OWN_PACKAGE], message)
        _hold(len(points) == 1, f"more than one package calls a provider {name!r}: {packages}")

    def test_a_token_through_the_worker(self) -> None:
        """The worker prints one line with a credential that can be delivered, in time, and reveals no secret."""
        table = self.works()
        run = self._run("uvtokend.providers.worker", table)
        outcome = wire.decode_answer(run.out)
        if isinstance(outcome, Failure):
            _hold(False, f"the worker failed ({outcome.reason}): {self._masked(outcome.message)}")
        else:
            self._deliverable(outcome)
            self._hide({"the standard error": run.err}, outcome.password)

    def test_a_token_under_observation(self) -> None:
        """Called directly with all logs enabled, the provider returns valid times and reveals no secret."""
        seen = self._watch(self.works())
        _hold(seen["kind"] == "credential", _said(seen))
        _right_times(**seen["times"])
        token = str(seen["token"])
        self._hide({**seen["shown"], "the logs": "\n".join(seen["logged"])}, token)

    def test_a_failure_through_the_worker(self, reason: str) -> None:
        """The worker reports the promised failure, in time and without revealing a secret."""
        run = self._run("uvtokend.providers.worker", self._failing(reason))
        outcome = wire.decode_answer(run.out)
        if isinstance(outcome, Credential):
            _hold(False, f"{reason}: the worker got a token")
        else:
            self._promised(reason, outcome.kind, outcome.reason)
            self._hide({"the failure": repr(outcome)})

    def test_a_failure_under_observation(self, reason: str) -> None:
        """Called directly with all logs enabled, the provider raises only a `FetchFailed` without a secret."""
        seen = self._watch(self._failing(reason))
        self._hide({**seen.get("shown", {}), "the logs": "\n".join(seen["logged"])})
        _hold(seen["kind"] == "failure", f"{reason}: {_said(seen)}")
        told = seen["failure"]
        _well_told(**told)
        self._promised(reason, told["kind"], told["reason"])

    def test_an_option_that_it_does_not_know(self) -> None:
        """The provider rejects an unknown option with a sentence: nobody notices a misspelled option without effect."""
        known = asked(self.works())
        wanted = replace(known, options=tuple(sorted((*known.options, ("no-such-option", 1)))))
        run = self._ended("uvtokend.providers.worker", wanted)
        outcome = wire.decode_answer(run.out)
        refused = isinstance(outcome, Failure) and outcome.kind == "rejected" and outcome.reason not in _UNCLASSIFIED
        _hold(refused, "an option that the provider does not know is not refused as rejected")

    # ------------------------------------------------------------------------------------------------- what is held

    def _failing(self, reason: str) -> str:
        _hold(reason, "failures is empty, and every provider can fail: name the reasons that yours knows")
        return self.fails(reason)

    def _run(self, module: str, table: str) -> _Run:
        self._hide({"the configuration": table})
        run = self._ended(module, asked(table))
        self._hide({"the standard error": run.err})
        return run

    def _ended(self, module: str, request: Request) -> _Run:
        run = _run(module, request, self.patience)
        _hold(not run.late, f"it did not end within {self.patience:g} s")
        _hold(not run.left, f"it left a process behind: {', '.join(run.left)}")
        _hold(run.out, f"it ended the whole process, with status {run.status}, instead of returning or raising")
        return run

    def _watch(self, table: str) -> dict[str, Any]:
        run = self._run("uvtokend.testing.witness", table)
        seen: dict[str, Any] = json.loads(run.out)
        self._hide({"what it printed": seen["printed"]}, str(seen.get("token", "")))
        _hold(not seen["asked"], f"it asks a person ({', '.join(seen['asked'])}), but it did not fail")
        _hold(not seen["printed"], "it prints to standard output, which the daemon ignores")
        return seen

    def _deliverable(self, credential: Credential) -> None:
        _right_times(
            *(
                None if moment is None else (moment.timestamp(), 0)
                for moment in (credential.issued_at, credential.expires_at, credential.refresh_after)
            )
        )
        try:
            block.check(Entry("host.example", credential.login, credential.password))
        except DeliveryFailed as error:
            _hold(False, f"{error.reason}: {error.message}")
        self._hide({"the login": credential.login, "the identity": str(credential.identity)}, credential.password)

    def _promised(self, reason: str, kind: str, actual: str) -> None:
        promised = self.failures[reason]
        _hold((kind, actual) == (promised, reason), f"it fails as {kind}, {actual}; promised is {promised}, {reason}")

    def _hide(self, shown: Mapping[str, str], *tokens: str) -> None:
        """Check that no secret or part of one is visible; the message says where, but not what."""
        known = list(self.secrets())
        _hold(
            all(len(text) >= SHORTEST_SECRET for text in known),
            f"a secret of the test is shorter than \
{SHORTEST_SECRET} characters, and so shows up by chance: make up a longer one",
        )
        for number, secret in enumerate([*known, *filter(None, tokens)]):
            name = f"secret number {number + 1}" if number < len(known) else "the token"
            text = secret.reveal() if isinstance(secret, Secret) else secret
            places = [place for place, said in shown.items() if _holds(said, text)]
            _hold(not places, f"{name}, or a part of it, shows in {', '.join(places)}")

    def _masked(self, text: str) -> str:
        return "****" if any(_holds(text, secret) for secret in self.secrets()) else text


def _hold(condition: object, otherwise: str) -> None:
    if not condition:
        raise AssertionError(otherwise)


def _said(seen: Mapping[str, Any]) -> str:
    match seen["kind"]:
        case "credential":
            return "it got a token, and was to fail"
        case "failure":
            return f"it failed ({seen['failure']['reason']}), and was to get a token"
        case "escaped":
            return f"a {seen['type']} escaped; only FetchFailed may"
        case "nonsense":
            return f"it returned a {seen['type']} instead of a Credential"
    return f"it returned a Credential, but {seen['wrong']}"


def _right_times(
    issued_at: Sequence[float] | None, expires_at: Sequence[float] | None, refresh_after: Sequence[float] | None
) -> None:
    """Check that the times make sense; each is a POSIX time and its UTC offset in seconds."""
    for name, moment in (("issued_at", issued_at), ("expires_at", expires_at), ("refresh_after", refresh_after)):
        _hold(moment is None or moment[1] == 0, f"{name} is not in UTC")
    now, begins = time.time(), issued_at[0] if issued_at else 0.0
    _hold(begins <= now, "issued_at is in the future")
    _hold(not expires_at or expires_at[0] > now, "expires_at is in the past")
    early = refresh_after and refresh_after[0] < begins
    late = refresh_after and expires_at and refresh_after[0] > expires_at[0]
    _hold(not early and not late, "refresh_after lies outside of the token's life")


def _well_told(kind: object, reason: object, message: object, hint: object, retry_after: object) -> None:
    """Check that a failure has the form that programs and people rely on."""
    _hold(kind in get_args(FailureKind), f"{kind!r} is not a kind: {', '.join(get_args(FailureKind))}")
    _hold(isinstance(reason, str) and _KEBAB.fullmatch(reason), "the reason is not one word in kebab case")
    _hold(reason not in _UNCLASSIFIED, f"the reason {reason!r} is the worker's own word for what is not classified")
    line = isinstance(message, str) and message.isprintable() and len(message) <= LONGEST_SENTENCE
    _hold(line and str(message).endswith((".", "!", "?")), "the message is not a sentence of one line")
    good = hint is None or (isinstance(hint, str) and hint.strip() and hint.isprintable())
    _hold(good, "the hint is neither None nor a command of one line")
    waits = isinstance(retry_after, int | float) and not isinstance(retry_after, bool) and 0 <= retry_after < 1e9
    _hold(retry_after is None or waits, "retry_after is not a number of seconds")


def _holds(text: str, secret: str) -> bool:
    """Return whether a text contains a secret or a part of it, also as encoded in a URL, JSON, a repr or HTTP Basic."""
    lines = [line for line in secret.splitlines() if len(line) >= SHORTEST_SECRET and not line.startswith("-----")]
    forms = {form for line in lines for form in (line, quote(line), quote_plus(line), json.dumps(line)[1:-1])}
    if any(form[at : at + PART] in text for form in forms for at in range(max(1, len(form) - PART + 1))):
        return True
    # Whatever login precedes the secret, its middle has one of three forms in base64.
    basic = (base64.b64encode(b"x" * shift + secret.encode())[4:-4].decode() for shift in range(3))
    return any(len(form) >= SHORTEST_SECRET and form in text for form in basic)


# ------------------------------------------------------------------------------------------------------ the processes


@dataclass(frozen=True, slots=True)
class _Run:
    out: bytes
    err: str
    status: int
    late: bool
    left: tuple[str, ...]


def _run(module: str, request: Request, patience: float) -> _Run:
    """Run the worker or the witness as the daemon runs the worker, and find the processes that it leaves behind."""
    mark = uuid.uuid4().hex
    environment = {
        **worker_environment(os.environ, request, Settings("")),
        "UVTOKEND_REQUEST": wire.encode_request(request),
        "UVTOKEND_FETCH_TIMEOUT": str(patience),
        "UVTOKEND_CONTRACT": mark,
    }
    # Files, not pipes: a process that is left behind would keep a pipe open.
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        process = subprocess.Popen(  # noqa: S603 - our own interpreter
            [sys.executable, "-P", "-m", module],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            start_new_session=True,
            cwd="/",
            env=environment,
        )
        late = False
        try:
            process.wait(patience)
        except subprocess.TimeoutExpired:
            late = True
        finally:
            process.kill()
            status = process.wait()
            left = _left(mark)
        return _Run(_read(out), _read(err).decode(errors="replace"), status, late, left if not late else ())


def _read(file: IO[bytes]) -> bytes:
    file.seek(0)
    return file.read()


def _left(mark: str) -> tuple[str, ...]:
    """Kill the processes that inherited a mark, and return the names of those that did not exit by themselves."""
    _, alive = psutil.wait_procs(list(_marked(mark)), _GRACE)
    names = []
    for process in alive:
        with contextlib.suppress(psutil.Error):
            names.append(process.name())
            process.kill()
    return tuple(names)


def _marked(mark: str) -> Iterator[psutil.Process]:
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.environ().get("UVTOKEND_CONTRACT") == mark:
                yield process

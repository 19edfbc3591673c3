"""The protocols of the worker and the control socket, whose input is treated as hostile."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uvtokend import errors
from uvtokend.core import wire
from uvtokend.core.model import Credential, Failure, Notice, Request, Secret, SignInEnd
from uvtokend.core.wire import Command, Invalid

NOW = datetime(2026, 1, 31, 8, tzinfo=UTC)
TIMES = st.datetimes(datetime(2000, 1, 1), datetime(2100, 1, 1)).map(  # noqa: DTZ001 - made aware below
    lambda time: time.replace(tzinfo=UTC, microsecond=time.microsecond // 1000 * 1000)
)
LINES = st.text(st.characters(exclude_categories=["C", "Z"]), max_size=30)


@given(
    st.builds(
        Credential,
        LINES,
        LINES.map(Secret),
        TIMES,
        st.none() | TIMES,
        st.none() | TIMES,
        st.none() | LINES,
        st.none() | LINES,
        st.none() | st.floats(-1e6, 1e6),
    )
)
def test_a_credential_survives_the_wire(credential: Credential) -> None:
    """The daemon reads exactly the credential that the worker wrote, token included."""
    line = wire.encode_answer(credential)
    assert line.count(b"\n") == 1
    back = wire.decode_answer(line)
    assert back == credential
    assert isinstance(back, Credential)
    assert back.password.reveal() == credential.password.reveal()
    assert repr(back.password) == "****"


@given(
    st.sampled_from(["transient", "login-required", "rejected"]),
    LINES,
    LINES,
    st.none() | LINES,
    st.none() | st.floats(0, 9),
)
def test_a_failure_survives_the_wire(kind: str, reason: str, text: str, hint: str | None, wait: float | None) -> None:
    """A failure is read back with its kind, sentence, hint and wait."""
    failure = Failure(kind, reason, text, hint, wait)  # type: ignore[arg-type]
    assert wire.decode_answer(wire.encode_answer(failure)) == failure


def test_control_characters_of_a_failure_do_not_reach_a_terminal() -> None:
    """A sentence from outside becomes one printable line of limited length."""
    failure = Failure("rejected", "x", "a\x1b[2Jb\nc" + "d" * 5000)
    back = wire.decode_answer(wire.encode_answer(failure))
    assert isinstance(back, Failure)
    assert back.message.startswith("a [2Jb cd")
    assert len(back.message) == 1000


@pytest.mark.parametrize("end", ["9999-12-31T23:59:59.999999Z", "9999-12-31T23:59:59+14:00", "9000-01-01T00:00:00Z"])
def test_an_expiry_at_the_end_of_time_is_none(end: str) -> None:
    """Some issuers mean "never" by the last possible time, with which a shifted clock could not compute."""
    line = {"login": "a", "password": "p", "issued_at": "2026-01-31T08:00:00Z", "expires_at": end, "refresh_after": end}
    credential = wire.decode_answer(json.dumps({"credential": line}).encode())
    assert isinstance(credential, Credential)
    assert (credential.expires_at, credential.refresh_after) == (None, None)


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"null",
        b"[]",
        b"{}",
        b"\xff\xfe",
        b'{"credential": {}}',
        b'{"credential": {"login": 1, "password": "p", "issued_at": "2026-01-31T08:00:00Z", "expires_at": null}}',
        b'{"credential": {"login": "a", "password": "SECRET", "issued_at": "2026-01-31T08:00:00", "expires_at": null}}',
        b'{"credential": {"login": "a", "password": "SECRET", "issued_at": null, "expires_at": null}}',
        b'{"failure": {"kind": "odd", "reason": "r", "message": "m"}}',
        b'{"failure": {"kind": "transient", "reason": "r", "message": "m", "retry_after": "soon"}}',
        b'{"failure": {"kind": "transient", "reason": "r", "message": "m", "retry_after": NaN}}',
        b'{"credential": {"login": "a", "password": "p", "issued_at": "0001-01-01T00:00:00Z", "expires_at": null}}',
        b"[" * 50000,
    ],
)
def test_garbage_is_a_failure_and_is_not_repeated(line: bytes) -> None:
    """Invalid output of a worker becomes a failure whose message contains none of it."""
    failure = wire.decode_answer(line)
    assert isinstance(failure, Failure)
    assert (failure.kind, failure.reason) == ("rejected", "garbage")
    assert "SECRET" not in repr(failure)


@given(st.binary(max_size=200))
def test_no_worker_line_raises(line: bytes) -> None:
    """Decoding any bytes returns a credential or a failure, and no worker takes another request after nonsense."""
    outcome, again = wire.decode_reply(line)
    assert isinstance(outcome, Credential | Failure)
    assert not again


@pytest.mark.parametrize("again", [True, False])
def test_a_worker_says_whether_it_takes_another_request(again: bool) -> None:
    """Only the word for it counts, with a credential as with a failure."""
    issued = datetime(2026, 1, 31, 8, tzinfo=UTC)
    for outcome in (Credential("aws", Secret("t"), issued), Failure("transient", "throttled", "Later.")):
        line = wire.encode_answer(outcome, again)
        assert wire.decode_reply(line) == (outcome, again)
        assert wire.decode_answer(line) == outcome
        assert wire.decode_reply(line.replace(b"true", b"1")) == (outcome, False)


def test_an_order_survives_the_wire() -> None:
    """A request for a worker that has answered is one line, with the seconds that it may take."""
    request = Request("static", "https://a\nb", options=(("command", ("prog", "a\nb")),), env=(("A", "1\n"),))
    line = wire.encode_order(request, 12.5)
    assert wire.decode_order(line) == (request, 12.5)
    assert line.count(b"\n") == 1


def test_a_request_survives_the_wire() -> None:
    """A request is read back with its options as tuples, so that it compares equal."""
    options = (("command", ("prog", "arg")), ("password", (("env", "VAR"),)), ("duration", 900), ("x", None))
    request = Request("aws-codeartifact", "https://x", options, (("A", "b"),))
    assert wire.decode_request(wire.encode_request(request)) == request
    assert request.option("duration") == 900
    assert request.option("none") is None


@given(
    st.binary(max_size=200)
    | st.recursive(
        st.none() | st.integers() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["jsonrpc", "method", "id", "params"]), inner),
    ).map(lambda value: json.dumps(value).encode())
)
def test_no_control_line_raises(line: bytes) -> None:
    """Decoding any line returns a command, or an error that says what is wrong."""
    assert isinstance(wire.decode_command(line), Command | Invalid)


@pytest.mark.parametrize(
    ("line", "code"),
    [
        (b"{", errors.PARSE_ERROR),
        (b'{"jsonrpc": "2.0", "id": NaN, "method": "status"}', errors.PARSE_ERROR),
        (b'{"jsonrpc": "2.0", "id": 1e999, "method": "status"}', errors.PARSE_ERROR),
        (b"[" * 50000, errors.PARSE_ERROR),
        (b"[] []", errors.PARSE_ERROR),
        (b'\xef\xbb\xbf{"jsonrpc": "2.0", "id": 1, "method": "status"}', errors.PARSE_ERROR),
        (b" \t[]\r\n", errors.INVALID_REQUEST),
        (b"[]", errors.INVALID_REQUEST),
        (b'{"method": "status"}', errors.INVALID_REQUEST),
        (b'{"jsonrpc": "2.0", "method": 7}', errors.INVALID_REQUEST),
        (b'{"jsonrpc": "2.0", "method": "status", "id": {}}', errors.INVALID_REQUEST),
        (b'{"jsonrpc": "2.0", "method": "status", "id": true}', errors.INVALID_REQUEST),
        (b'{"jsonrpc": "2.0", "method": "status", "params": []}', errors.INVALID_PARAMS),
    ],
)
def test_the_error_code_of_an_invalid_line(line: bytes, code: int) -> None:
    """Each kind of invalid line has its JSON-RPC error code."""
    invalid = wire.decode_command(line)
    assert isinstance(invalid, Invalid)
    assert invalid.code == code


@pytest.mark.parametrize(
    ("line", "silent"),
    [
        (b'{"jsonrpc": "2.0", "method": "status"}', True),
        (b'{"jsonrpc": "2.0", "method": "status", "params": []}', True),
        (b'{"jsonrpc": "2.0", "id": null, "method": "status"}', False),
        (b'{"jsonrpc": "2.0", "id": 0, "method": "status"}', False),
        (b'{"method": "status"}', False),  # not a request at all, so it needs an answer
        (b"{", False),
    ],
)
def test_a_request_without_an_id_is_a_notification(line: bytes, silent: bool) -> None:
    """According to JSON-RPC 2.0, section 4.1, a request without an id gets no answer, not even for invalid
    parameters."""
    assert wire.decode_command(line).notification == silent


def test_an_id_may_have_a_fraction() -> None:
    """A finite number with a fraction is a valid ID in JSON-RPC and is returned unchanged."""
    command = wire.decode_command(b'{"jsonrpc": "2.0", "id": 1.5, "method": "status"}')
    assert isinstance(command, Command)
    assert command.id == 1.5


def test_control_answers() -> None:
    """Results, errors and events are single lines of JSON-RPC 2.0."""
    command = wire.decode_command(b'{"jsonrpc": "2.0", "id": 7, "method": "status", "params": {"names": ["a"]}}')
    assert command == Command(7, "status", {"names": ["a"]})
    assert json.loads(wire.encode_result(7, {"a": 1})) == {"jsonrpc": "2.0", "id": 7, "result": {"a": 1}}
    assert wire.encode_result("x", wire.Encoded('{"a": 1}')) == wire.encode_result("x", {"a": 1})
    error = {"jsonrpc": "2.0", "id": 7, "error": {"code": -1, "message": "no"}}
    assert json.loads(wire.encode_error(7, -1, "no")) == error
    assert json.loads(wire.encode_error(7, -1, "no", {"x": 1}))["error"] == {**error["error"], "data": {"x": 1}}  # type: ignore[dict-item]
    event = {"jsonrpc": "2.0", "method": "event", "params": {"at": "now"}}
    assert json.loads(wire.encode_event({"at": "now"})) == event
    assert wire.CONTROL_LIMIT == 65536


def test_a_secret_is_masked() -> None:
    """`repr`, `str`, format and the repr of a dataclass mask a secret."""
    secret = Secret("hunter2")
    credential = Credential("u", secret, NOW, NOW + timedelta(1))
    assert "hunter2" not in f"{secret} {secret!r} {secret!s} {secret:>20} {credential} %s" % secret
    assert secret.reveal() == "hunter2"


def test_the_end_of_a_sign_in_goes_over_the_wire() -> None:
    """The end of a sign-in is optional and validated strictly, and its texts become single lines."""
    end = SignInEnd("the sign-in", NOW, "aws sso login")
    credential = Credential("u", Secret("p"), NOW, sign_in_end=end)
    line = wire.encode_answer(credential)
    assert wire.decode_answer(line) == credential
    without = replace(credential, sign_in_end=None)
    assert wire.decode_answer(wire.encode_answer(without)) == without
    for broken in (line.replace(b'"at": "2', b'"at": "x'), line.replace(b'"command"', b'"x"')):
        assert isinstance(wire.decode_answer(broken), Failure)
    cut = wire.decode_answer(line.replace(b"the sign-in", b"the\\nsign-in"))
    assert isinstance(cut, Credential)
    assert cut.sign_in_end == SignInEnd("the sign-in", NOW, "aws sso login")


def test_a_notice_goes_over_the_wire() -> None:
    """A notice is optional and validated strictly, and its texts become single lines."""
    for notice in (Notice("missing-scope", "It cannot rotate itself.", "ask"), Notice("throttled", "Later.")):
        credential = Credential("u", Secret("p"), NOW, notice=notice)
        line = wire.encode_answer(credential)
        assert wire.decode_answer(line) == credential
        assert isinstance(wire.decode_answer(line.replace(b'"reason"', b'"x"')), Failure)
    cut = wire.decode_answer(line.replace(b"Later.", b"Much\\nlater."))
    assert isinstance(cut, Credential)
    assert cut.notice == Notice("throttled", "Much later.")


def test_a_sign_in_without_an_end_is_dropped() -> None:
    """A sign-in without an end has nothing to report."""
    assert wire._sign_in_end(None) is None
    assert wire._sign_in_end({"at": None, "name": "x", "command": "y"}) is None


@pytest.mark.parametrize(("issued", "good"), [("1970-01-01T00:00:00Z", True), ("1969-12-31T23:59:59Z", False)])
def test_a_time_before_1970_is_invalid(issued: str, good: bool) -> None:
    """A machine without a clock battery starts at 1970, so that time is valid. An earlier time makes the answer
    invalid."""
    line = {"login": "a", "password": "p", "issued_at": issued, "expires_at": None}
    assert isinstance(wire.decode_answer(json.dumps({"credential": line}).encode()), Credential) == good


def test_the_codes_and_sizes_of_the_protocol() -> None:
    """The error codes are those of JSON-RPC 2.0, section 5.1, and two of the range for servers. A line has at most
    64 KiB."""
    codes = (errors.PARSE_ERROR, errors.INVALID_REQUEST, errors.METHOD_NOT_FOUND, errors.INVALID_PARAMS)
    assert codes == (-32700, -32600, -32601, -32602)
    assert (errors.REFUSED, errors.NO_MATCH) == (-32001, -32002)
    assert (wire.WORKER_LIMIT, wire.CONTROL_LIMIT) == (65536, 65536)
    assert (Command(1, "x", {}).notification, Invalid(1, -1, "x").notification) == (False, False)

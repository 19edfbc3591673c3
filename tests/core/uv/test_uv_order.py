"""Which credential uv sends: our prediction compared with a table of what the real uv sent."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from support.arrangements import ARRANGEMENTS, BEARER, KEYRING, NETRC, STORE
from support.uv_judge import Arrangement, Stage, wire
from uvtokend.core.uv.order import AUTHENTICATE_SINCE, STORE_SINCE, Decision, Sources, decide
from uvtokend.disk import uv_files, uv_projects


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """Return a stage that writes arrangements to files."""
    stage = Stage(tmp_path_factory.mktemp("uv"))
    yield stage
    stage.close()


def decided(stage: Stage, arrangement: Arrangement, version: tuple[int, ...] = (), path: str = "") -> Decision:
    """Return our prediction for the files and variables that uv would read."""
    project, environment = stage.set(arrangement)
    uv = uv_projects.project(str(project), environment).configuration(environment)
    netrc = uv_files.text_file(uv_files.netrc(environment))
    sources = Sources(uv, environment, netrc, uv_files.store(environment), version)
    return decide(sources, f"{stage.url}{path}")


@pytest.mark.parametrize("arrangement", ARRANGEMENTS, ids=[each.name for each in ARRANGEMENTS])
def test_our_prediction_is_what_uv_does(stage: Stage, arrangement: Arrangement) -> None:
    """We predict whether uv sends anything, and its first and its last credential."""
    decision = decided(stage, arrangement)
    assert decision.stops == (arrangement.sends == ())
    if decision.stops:
        return
    if decision.sent is not None and decision.sent.source == "keyring":
        assert arrangement.sends[-1].endswith(":kp")
        return
    assert arrangement.sends[-1] == wire(decision)
    assert (arrangement.sends[0] == "-") == (decision.anonymous_first or decision.sent is None)


def test_older_versions_of_uv(stage: Stage) -> None:
    """Before 0.8.15 uv does not read its store, and before 0.6.6 it ignores `authenticate`."""
    assert wire(decided(stage, Arrangement("store", store=STORE), (0, 8, 14))) == "-"
    assert wire(decided(stage, Arrangement("store", store=STORE), (0, 8, 15))) == "aws:stored"
    never = Arrangement("never", NETRC, authenticate="never")
    assert wire(decided(stage, never, (0, 6, 5))) == "aws:token"
    assert wire(decided(stage, never, (0, 6, 6))) == "-"


def test_shadowed_credentials_are_listed(stage: Stage) -> None:
    """Every other credential for the host is listed with its file, its line and the reason why uv does not send it."""
    many = Arrangement("many", f"default login d password x\n{NETRC}{NETRC}", user="u:p", store=STORE)
    shadowed = decided(stage, many).shadowed
    assert [(each.credential.source, each.credential.place.line) for each in shadowed] == [
        ("netrc", 3),
        ("netrc", 1),
        ("netrc", 2),
        ("store", 2),
    ]
    assert {each.why for each in shadowed} == {"uv has found a credential before it looks here"}
    doubled = decided(stage, Arrangement("twice", NETRC * 2)).shadowed
    assert ["the last entry" in each.why for each in doubled] == [True]


def test_a_shadowed_credential_need_not_be_text(stage: Stage) -> None:
    """A shadowed entry that is not UTF-8 is listed like any other."""
    project, environment = stage.set(Arrangement("bytes", NETRC * 2))
    uv = uv_projects.project(str(project), environment).configuration(environment)
    netrc = uv_files.text_file(uv_files.netrc(environment))
    assert netrc is not None
    binary = replace(netrc, text=netrc.text.replace(b"login aws", b"login \xff\xfe", 1))
    (shadowed,) = decide(Sources(uv, environment, binary), stage.url).shadowed
    assert shadowed.credential.login == "\ufffd\ufffd"


def test_why_a_credential_is_not_sent(stage: Stage) -> None:
    """The reason distinguishes another login, a policy, and a source that uv does not use."""
    other = decided(stage, Arrangement("other", NETRC, user="me")).shadowed
    assert "its login is not 'me'" in other[0].why
    never = decided(stage, Arrangement("never", NETRC, authenticate="never")).shadowed
    assert 'authenticate = "never"' in never[0].why
    tie = decided(stage, Arrangement("none", store=STORE + BEARER, keyring="k\n", top=KEYRING))
    assert (tie.sent, tie.shadowed) == (None, ())


def test_the_url_may_contain_a_user_name(stage: Stage) -> None:
    """A user name in the given URL counts like one in uv's configuration. The URL may be that of a file."""
    project, environment = stage.set(Arrangement("user", NETRC))
    uv = uv_projects.project(str(project), environment).configuration(environment)
    netrc = uv_files.text_file(uv_files.netrc(environment))
    with_user = stage.url.replace("//", "//me@")
    assert wire(decide(Sources(uv, environment, netrc), f"{with_user}alpha/")) == "me:"
    sent = decide(Sources(uv, environment, netrc), f"{with_user}alpha/").sent
    assert sent is not None
    assert (sent.source, str(sent.place)) == ("url", "the given URL")
    assert wire(decided(stage, Arrangement("file", NETRC), path="alpha/")) == "aws:token"
    with pytest.raises(ValueError, match="ftp"):
        decide(Sources(uv, environment), "ftp://example.com")


def test_a_url_outside_of_every_index(stage: Stage) -> None:
    """For a URL outside of every index, uv still uses a password that it read for the same host."""
    project, environment = stage.set(Arrangement("password", user="u:p"))
    uv = uv_projects.project(str(project), environment).configuration(environment)
    base = stage.server.url
    nameless = Arrangement("nameless", more='[[index]]\nurl = "http://n:np@localhost/simple"\n')
    assert wire(decided(stage, nameless)) == "-"
    assert wire(decide(Sources(uv, environment), f"{base}/elsewhere/")) == "u:p"
    assert wire(decide(Sources(uv, environment), f"{base}/elsewhere/".replace("//", "//u@"))) == "u:p"
    assert decide(Sources(uv, environment), "https://example.com/").sent is None


def test_the_first_uv_versions_with_a_store_and_authenticate() -> None:
    """uvtokend knows the first versions of uv with a credential store of its own and with ``authenticate``."""
    assert (STORE_SINCE, AUTHENTICATE_SINCE) == ((0, 8, 15), (0, 6, 6))

"""The contract test for providers: a correct plug-in passes it, and it detects each kind of defect."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import pytest

from support import example_plugin
from uvtokend.core.model import FailureKind
from uvtokend.sandbox.web import Answer, Call, Server
from uvtokend.testing import ProviderContract


class Example(ProviderContract):
    """The test that the example's author would write; `code` is the author's module."""

    failures: ClassVar[dict[str, FailureKind]] = {"unreachable": "transient", "wrong-key": "rejected"}
    patience = 20.0
    code = example_plugin.CODE

    @pytest.fixture(autouse=True)
    def world(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        """Install the plug-in, and run a server that issues tokens."""
        yield from self.made(tmp_path, monkeypatch)

    def made(self, directory: Path, patch: pytest.MonkeyPatch) -> Iterator[None]:
        site = example_plugin.install(directory / "site", self.code)
        patch.syspath_prepend(str(site))
        patch.setenv("PYTHONPATH", str(site))
        self.key = "key-" + secrets.token_hex(16)
        self.accepted = self.key
        patch.setenv("ACME_KEY", self.key)
        with Server(self.answer) as server:
            self.url = server.url
            yield

    def answer(self, call: Call) -> Answer:
        if call.headers["X-Key"] != self.accepted:
            return Answer(401, f"not {call.headers['X-Key']}".encode())
        return Answer.json({"token": secrets.token_urlsafe(60), "seconds": 3600})

    def works(self) -> str:
        return f"""
        url = "https://packages.example/simple/"
        provider = "acme"
        options = {{ server = "{self.url}", key = {{ env = "ACME_KEY" }} }}
        """

    def fails(self, reason: str) -> str:
        if reason == "unreachable":
            return self.works().replace(self.url, "http://127.0.0.1:9")
        self.accepted = "another"
        return self.works()

    def secrets(self) -> list[str]:
        return [self.key]


class TestExample(Example):
    """The example passes the contract test."""


NOW = "    now = datetime.now(UTC)\n"
LAST = "    return Credential("
TOKEN = "    token, seconds = _ask(server, key)\n"
REFUSED = '    if refused:\n        raise rejected("wrong-key"'
WORKS, SEEN = "test_a_token_through_the_worker", "test_a_token_under_observation"
FAILS, FAILURE = "test_a_failure_through_the_worker", "test_a_failure_under_observation"

#: Mistakes of authors: a line of the example, its replacement, the test that detects it, and words of its message.
DEFECTS: dict[str, tuple[str, str, str, str]] = {
    "naive times, to the worker": (NOW, "    now = datetime.now()\n", WORKS, "one of its times has no time zone"),
    "naive times": (NOW, "    now = datetime.now()\n", SEEN, "one of its times has no time zone"),
    "local times": (
        NOW,
        "    from datetime import timezone\n    now = datetime.now(timezone(timedelta(hours=2)))\n",
        SEEN,
        "issued_at is not in UTC",
    ),
    "issued tomorrow": (NOW, NOW + "    now += timedelta(days=1)\n", WORKS, "issued_at is in the future"),
    "ended yesterday": (NOW, NOW + "    seconds = -86400\n", SEEN, "expires_at is in the past"),
    "refresh after the end": (
        "seconds=seconds), None,",
        "seconds=seconds), now + timedelta(days=9),",
        SEEN,
        "refresh_after lies outside",
    ),
    "colon in the login": ('Credential("acme"', 'Credential("ac:me"', WORKS, "login-colon"),
    "line break in the token": (TOKEN, TOKEN + "    token += '\\nmachine'\n", WORKS, "control-character"),
    "a bare password": ("Secret(token)", "token", SEEN, "its password is not a Secret"),
    "token as identity": ('"me@acme.example"', "token", WORKS, "the token, or a part of it, shows in the identity"),
    "no credential": (LAST, "    return (", SEEN, "returned a tuple instead of a Credential"),
    "prints": (NOW, NOW + "    print('hello')\n", SEEN, "prints to standard output"),
    "prints the token": (NOW, NOW + "    os.write(1, token.encode())\n", WORKS, "shows in the standard error"),
    "complains with the key": (
        NOW,
        NOW + "    sys.stderr.write(key.reveal())\n",
        SEEN,
        "secret number 1, or a part of it, shows in the standard error",
    ),
    "logs the token": (NOW, NOW + "    logging.getLogger('acme').debug('got %s', token)\n", SEEN, "the logs"),
    "logs a part": (NOW, NOW + "    logging.info('got %s…', token[10:40])\n", SEEN, "a part of it, shows in the logs"),
    "logs it beside": (NOW, NOW + "    logging.info('got', extra={'h': [key.reveal()]})\n", SEEN, "the logs"),
    "logs HTTP Basic": (
        NOW,
        NOW + "    import base64; logging.info(base64.b64encode(b'me:' + token.encode()))\n",
        SEEN,
        "shows in the logs",
    ),
    "asks": (NOW, "    try:\n        input('Password: ')\n    except EOFError:\n        pass\n" + NOW, SEEN, "asks a"),
    "asks the terminal": (NOW, "    import getpass\n    getpass.getpass()\n" + NOW, SEEN, "opens the terminal"),
    "opens a browser": (
        NOW,
        "    import webbrowser\n    webbrowser.register('x', None, webbrowser.GenericBrowser('true'))\n"
        "    webbrowser.open('http://127.0.0.1:9')\n" + NOW,
        SEEN,
        "opens a browser",
    ),
    "leaves a helper": (
        NOW,
        "    import subprocess\n    subprocess.Popen(['sleep', '60'], start_new_session=True)\n" + NOW,
        WORKS,
        "left a process behind: sleep",
    ),
    "hangs": (NOW, NOW + "    time.sleep(60)\n", WORKS, "did not end within 1 s"),
    "ends it all": (NOW, NOW + "    os._exit(3)\n", WORKS, "ended the whole process, with status 3"),
    "exits": (NOW, NOW + "    sys.exit(3)\n", SEEN, "a SystemExit escaped"),
    "takes any option": (" or options:", ":", "test_an_option_that_it_does_not_know", "is not refused"),
    "lets a builtin out": ("    except OSError:", "    except KeyError:", FAILURE, "a URLError escaped"),
    "lets a builtin out to the worker": (
        "    except OSError:",
        "    except KeyError:",
        FAILS,
        "transient, unexpected",
    ),
    "another kind": ('rejected("wrong-key"', 'transient("wrong-key"', FAILS, "fails as transient, wrong-key"),
    "another reason": ('"wrong-key"', '"wrong"', FAILURE, "fails as rejected, wrong; promised"),
    "no failure": (REFUSED, '    return "x" * 30, 60\n' + REFUSED, FAILS, "the worker got a token"),
    "no failure, seen": (REFUSED, '    return "x" * 30, 60\n' + REFUSED, FAILURE, "got a token, and was to fail"),
    "no sentence": ('"acme does not accept the key."', '"Forbidden"', FAILURE, "not a sentence"),
    "two lines": ('"acme keys renew"', '"acme\\nkeys"', FAILURE, "the hint is neither"),
    "key in the message": (
        '"acme does not accept the key."',
        'f"acme does not accept {key.reveal()}."',
        FAILURE,
        "secret number 1, or a part of it, shows in the traceback",
    ),
    "key in the context": (
        "        refused = error.code in (401, 403)",
        "        raise rejected('wrong-key', 'No.') from ValueError(key.reveal())",
        FAILURE,
        "shows in the traceback, the chain",
    ),
    "key behind from None": (
        "        refused = error.code in (401, 403)",
        "        error.msg = key.reveal()\n        raise rejected('wrong-key', 'No.') from None",
        FAILURE,
        "shows in the chain of exceptions",
    ),
    "a wait that is none": (
        REFUSED,
        '    if refused:\n        raise transient("wrong-key", "No.", None, -1)\n' + REFUSED,
        FAILURE,
        "retry_after is not a number",
    ),
}


@pytest.mark.parametrize("defect", DEFECTS)
def test_each_defect_is_caught(defect: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A provider with one defect fails the test for it, with a message that names the defect and contains no secret."""
    line, instead, test, words = DEFECTS[defect]
    assert example_plugin.CODE.count(line) == 1
    contract = Example()
    contract.code = example_plugin.CODE.replace(line, instead)
    contract.patience = 1.0 if defect == "hangs" else 20.0
    world = contract.made(tmp_path, monkeypatch)
    next(world)
    reason = "unreachable" if "builtin" in defect else "wrong-key"
    with pytest.raises(AssertionError) as caught:
        getattr(contract, test)(*([reason] if "failure" in test else []))
    world.close()  # type: ignore[attr-defined]
    assert words in str(caught.value)
    assert not [secret for secret in contract.secrets() if secret in str(caught.value)]

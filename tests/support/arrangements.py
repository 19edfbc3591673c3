"""Arrangements of credentials for one index, with the requests that uv sends in each."""

from __future__ import annotations

from support.uv_judge import Arrangement as A  # noqa: N817 - a table of them is easier to read

NETRC = "machine HOST login aws password token\n"
_SERVICE = 'service = "http://HOST:PORT/acme/"\n'
STORE = f'[[credential]]\n{_SERVICE}username = "aws"\nscheme = "basic"\npassword = "stored"\n'
BEARER = f'[[credential]]\n{_SERVICE}scheme = "bearer"\ntoken = "stored"\n'
DEEPER = '\n[[credential]]\nservice = "http://HOST:PORT/acme/simple/"\nusername = "deep"\npassword = "deeper"\n'
KEYRING = 'keyring-provider = "subprocess"\n'


def _other(user: str = "", more: str = "explicit = true\n") -> str:
    """Return a second index on the same host."""
    return f'[[index]]\nname = "other"\nurl = "http://{user}HOST:PORT/other/simple/"\n{more}'


def _env(user: str | None = None, password: str | None = None, name: str = "ACME") -> dict[str, str]:
    both = {f"UV_INDEX_{name}_USERNAME": user, f"UV_INDEX_{name}_PASSWORD": password}
    return {name: text for name, text in both.items() if text is not None}


ARRANGEMENTS = [
    A("nothing at all", sends=("-",)),
    A("nothing at all, always", authenticate="always"),
    # netrc: which file, which entry
    A("netrc", NETRC, sends=("-", "aws:token")),
    A("netrc, always", NETRC, authenticate="always", sends=("aws:token",)),
    A("netrc, never", NETRC, authenticate="never", sends=("-",)),
    A(
        "NETRC names another file",
        NETRC,
        files={"other": NETRC.replace("token", "second")},
        env={"NETRC": "HOME/other"},
        sends=("-", "aws:second"),
    ),
    A(
        "NETRC with a tilde",
        NETRC,
        files={"other": NETRC.replace("token", "second")},
        env={"NETRC": "~/other"},
        sends=("-", "aws:second"),
    ),
    A("NETRC names a missing file", NETRC, env={"NETRC": "HOME/missing"}, sends=("-", "aws:token")),
    A("NETRC is empty", NETRC, env={"NETRC": ""}, sends=("-", "aws:token")),
    A(
        "NETRC with a variable",
        NETRC,
        files={"other": "machine x\n"},
        env={"NETRC": "$HOME/other"},
        sends=("-", "aws:token"),
    ),
    A("NETRC names an empty file", NETRC, files={"other": ""}, env={"NETRC": "HOME/other"}, sends=("-",)),
    A("NETRC names a directory", NETRC, env={"NETRC": "HOME"}, sends=("-",)),
    A("duplicates: the last one wins", NETRC + NETRC.replace("token", "second"), sends=("-", "aws:second")),
    A("duplicates of two logins", NETRC + "machine HOST login me password mine\n", user="aws", sends=("aws:",)),
    A("default only", "default login d password dp\n", sends=("-", "d:dp")),
    A("default after the entry", NETRC + "default login d password dp\n", sends=("-", "aws:token")),
    A("default before the entry", "default login d password dp\n" + NETRC, sends=("-", "aws:token")),
    A("two defaults", "default login d password dp\ndefault login e password ep\n", sends=("-", "e:ep")),
    A(
        "an entry with another login does not fall back to default",
        NETRC + "default login d password dp\n",
        user="d",
        sends=("d:",),
    ),
    A("host with a port never matches", "machine HOST:PORT login aws password token\n", sends=("-",)),
    A("another host", "machine example.com login aws password token\n", sends=("-",)),
    A("an unknown word makes uv ignore the file", "machine HOST login aws password token port 21\n", sends=("-",)),
    A("a comment of two words after a blank line", f"{NETRC}\n# two words\n", sends=("-",)),
    A("a comment of one word", f"#one\n{NETRC}", sends=("-", "aws:token")),
    A("an open macro swallows the entry", f"macdef x\nfoo\n{NETRC}", sends=("-",)),
    A("a quoted password", 'machine HOST login aws password "to \\"ken"\n', sends=("-", 'aws:to "ken')),
    A("login without a password", "machine HOST login aws\n", sends=("-", "aws:")),
    A("login without a password, always", "machine HOST login aws\n", authenticate="always", sends=("aws:",)),
    A("password without a login", "machine HOST password token\n", sends=("-", ":token")),
    A("user is another word for login", "machine HOST user aws password token\n", sends=("-", "aws:token")),
    # the URL
    A("a password in the URL", NETRC, user="u:p", sends=("u:p",)),
    A("a password in the URL, never", NETRC, user="u:p", authenticate="never", sends=("u:p",)),
    A("a user name in the URL that fits", NETRC, user="aws", sends=("aws:token",)),
    A("a user name in the URL that fits, always", NETRC, user="aws", authenticate="always", sends=("aws:token",)),
    A("a user name in the URL that differs", NETRC, user="me", sends=("me:",)),
    A("a user name in the URL that differs, always", NETRC, user="me", authenticate="always"),
    A("a user name in the URL, never", NETRC, user="aws", authenticate="never", sends=("aws:",)),
    A("an empty password in the URL", NETRC, user="aws:", sends=("aws:token",)),
    A("a password alone in the URL", NETRC, user=":p", sends=(":p",)),
    A("percent signs in the URL", user="a%40b:p%3A", sends=("a@b:p:",)),
    # variables
    A("variables", NETRC, env=_env("e", "ep"), sends=("e:ep",)),
    A("variables, always", NETRC, env=_env("e", "ep"), authenticate="always", sends=("e:ep",)),
    A("variables, never", NETRC, env=_env("e", "ep"), authenticate="never", sends=("-",)),
    A("variables and a password in the URL", NETRC, user="u:p", env=_env("e", "ep"), sends=("u:p",)),
    A("variables and the same user name in the URL", NETRC, user="e", env=_env("e", "ep"), sends=("e:ep",)),
    A("variables and another user name in the URL", NETRC, user="aws", env=_env("e", "ep"), sends=("aws:token",)),
    A("a user name in a variable that fits", NETRC, env=_env("aws"), sends=("aws:", "aws:token")),
    A("a user name in a variable that differs", NETRC, env=_env("e"), sends=("e:",)),
    A("a user name in a variable that differs, always", NETRC, env=_env("e"), authenticate="always"),
    A("a password in a variable", NETRC, env=_env(None, "ep"), sends=(":ep",)),
    A("empty variables hide the netrc", NETRC, env=_env("", ""), sends=(":",)),
    A("an empty user name in a variable does not", NETRC, env=_env(""), sends=("-", "aws:token")),
    A(
        "variables of another index on the host",
        NETRC,
        env=_env("o", "op", "OTHER"),
        more=_other(),
        sends=("-", "o:op"),
    ),
    A("variables of an index that does not exist", NETRC, env=_env("o", "op", "OTHER"), sends=("-", "aws:token")),
    # another index on the same host
    A("a password in another index's URL", NETRC, more=_other("o:op@"), sends=("-", "o:op")),
    A("a password in another index's URL, always", NETRC, more=_other("o:op@"), authenticate="always", sends=("o:op",)),
    A("a password in another index's URL for our user name", user="o", more=_other("o:op@"), sends=("o:op",)),
    A(
        "a password in another index's URL for another user name",
        NETRC,
        user="aws",
        more=_other("o:op@"),
        sends=("aws:token",),
    ),
    A("a user name in another index's URL hides the netrc", NETRC, more=_other("x@"), sends=("-", "x:")),
    A("a user name in another index's URL that fits the netrc", NETRC, more=_other("aws@"), sends=("-", "aws:token")),
    # uv's own store
    A("store", store=STORE, sends=("-", "aws:stored")),
    A("store, always", store=STORE, authenticate="always", sends=("aws:stored",)),
    A("store, another user name", store=STORE, user="x", sends=("x:",)),
    A("store, the same user name", store=STORE, user="aws", sends=("aws:stored",)),
    A("a bearer token in the store", store=BEARER, sends=("-", "bearer stored")),
    A("a bearer token in the store and a user name", store=BEARER, user="aws", sends=("aws:",)),
    A("netrc comes before the store", NETRC, store=STORE, sends=("-", "aws:token")),
    A(
        "netrc with another login falls through to the store",
        "machine HOST login x password y\n",
        store=STORE,
        user="aws",
        sends=("aws:stored",),
    ),
    A("the longest prefix in the store", store=STORE + DEEPER, sends=("-", "deep:deeper")),
    A("two records of one prefix", store=STORE + STORE.replace('"aws"', '"me"'), sends=("-",)),
    A(
        "two records of one prefix and a user name",
        store=STORE + STORE.replace('"aws"', '"me"'),
        user="me",
        sends=("me:stored",),
    ),
    A("a store that is not TOML", store=STORE + "[", sends=("-",)),
    A("a store for another port", store=STORE.replace("PORT", "1"), sends=("-",)),
    # keyring
    A("keyring without a user name is not asked", keyring="kp\n", top=KEYRING, sends=("-",)),
    A("keyring with a user name", keyring="kp\n", top=KEYRING, user="aws", sends=("aws:kp",)),
    A("keyring, always", keyring="ku\nkp\n", top=KEYRING, authenticate="always", sends=("ku:kp",)),
    A("netrc comes before the keyring", NETRC, keyring="kp\n", top=KEYRING, user="aws", sends=("aws:token",)),
    A(
        "netrc with another login falls through to the keyring",
        NETRC,
        keyring="kp\n",
        top=KEYRING,
        user="x",
        sends=("x:kp",),
    ),
    A(
        "keyring by a variable",
        keyring="kp\n",
        env={"UV_KEYRING_PROVIDER": "subprocess"},
        user="aws",
        sends=("aws:kp",),
    ),
    A("keyring is not asked unless it is set", keyring="kp\n", user="aws", sends=("aws:",)),
]

"""uv's own settings and credentials: would uv send our token to each index, and nowhere else?"""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import quote, urlsplit, urlunsplit

from uvtokend.core.model import Index
from uvtokend.core.uv.order import STORE_SINCE, Decision, UvCredential
from uvtokend.core.uv.settings import TRUE, UvIndex, realm, same_index
from uvtokend.doctor import edits
from uvtokend.doctor.facts import Facts
from uvtokend.doctor.finding import Finding, error, note

#: uv's own variables that give a credential to the publishing command.
_PUBLISH = ("UV_PUBLISH_TOKEN", "UV_PUBLISH_USERNAME", "UV_PUBLISH_PASSWORD")


def index_unknown(facts: Facts) -> Iterator[Finding]:
    """uv knows an index of config.toml under another URL, or not at all."""
    for index in facts.indexes:
        if facts.known_to_uv(index) is not None:
            continue
        near = _nearest(facts, index)
        if near is not None:
            message = (
                f"uv and uvtokend have different URLs for {index.name}: uv has {near.url} ({near.place}), "
                f"config.toml has {index.url}. The token is for the one in config.toml only."
            )
            yield error("url-differs", message, str(near.place), edits.with_url(facts, near, index.url))
        elif facts.uv.indexes or facts.project.root is not None:
            message = f"uv does not use {index.name} here: no configuration that uv reads in this directory names it."
            yield note("index-unused", message, index.url, _add_index(index))


def default_replaced(facts: Facts) -> Iterator[Finding]:
    """A variable of this shell puts another index in the place of ours, which is the project's default index."""
    replacing = next((each for each in facts.uv.indexes if each.default), None)
    for index in facts.indexes:
        known = facts.known_to_uv(index)
        if known is None or not known.default or replacing is None or replacing.place.line:
            continue
        if not same_index(replacing.url, known.url):
            message = (
                f"{replacing.place} in this shell replaces {index.name}, the default index of {known.place}, by "
                f"{replacing.url}."
            )
            yield error("default-replaced", message, str(replacing.place), f"unset {replacing.place.name}")


def offline(facts: Facts) -> Iterator[Finding]:
    """uv asks no index at all."""
    setting = facts.uv.settings.get("offline")
    if setting is not None and str(setting.value).lower() in TRUE and facts.indexes:
        message = f"uv is set to be offline ({setting.place}), so it installs only what is in its cache."
        yield error("offline", message, str(setting.place), edits.delete_line(setting.place))


def name_differs(facts: Facts) -> Iterator[Finding]:
    """uv and config.toml call the same URL by two names."""
    for index in facts.indexes:
        known = facts.known_to_uv(index)
        if known is not None and known.name is not None and known.name != index.name:
            message = (
                f"uv calls this index {known.name!r} ({known.place}), config.toml calls it {index.name!r}. Commands of "
                "uvtokend that set variables for uv, such as exec, need the same name."
            )
            yield note("name-differs", message, index.url, f'write name = "{known.name}" in {facts.config}')


def wrong_credential(facts: Facts) -> Iterator[Finding]:
    """uv would send another credential than ours."""
    for index in facts.indexes:
        known = facts.known_to_uv(index)
        decision = facts.decision(index.url)
        if known is None or decision.sent is None or facts.is_ours(decision.sent):
            continue
        yield explained(facts, index, decision, decision.sent)


def explained(facts: Facts, index: Index, decision: Decision, sent: UvCredential) -> Finding:
    """Return why uv sends another credential than ours to an index, and the fix."""
    where = f"uv sends another credential than uvtokend's token to {index.host}"
    match sent.source:
        case "environment":
            return _environment(sent, where)
        case "url":
            return _url(facts, index, decision, sent)
        case "netrc":
            return _netrc(index, sent)
        case "store":
            service = _service(facts, sent)
            message = f"{where}: the record of {service} in its own credential store."
            return error("store-record", message, str(sent.place), f"uv auth logout {service} --username {sent.login}")
        case "keyring":
            message = (
                f"uv asks the keyring command for {index.host}, because keyring-provider is set and no token is there."
            )
            return note("keyring-provider", message, str(sent.place), f"uvtokend refresh {index.name}")


def _environment(sent: UvCredential, where: str) -> Finding:
    stem = sent.place.name.rpartition("_")[0]
    message = f"{where}: the variable {sent.place} in this shell comes before the netrc."
    return error("environment-credential", message, sent.place.name, f"unset {stem}_USERNAME {stem}_PASSWORD")


def _url(facts: Facts, index: Index, decision: Decision, sent: UvCredential) -> Finding:
    owner = decision.index
    clean = edits.without_user(facts, sent.place)
    if owner is None or sent.place != owner.place:
        other = next((each.label for each in facts.uv.indexes if each.place == sent.place), "another index")
        login = _login(facts, index)
        named = edits.with_url(facts, owner, _with(index, login)) if owner is not None and login else clean
        message = (
            f"The URL of {other!r} ({sent.place}) has the user name {sent.login!r}, and uv uses it for every index on "
            f"{index.host} whose URL has none, {index.name} too."
        )
        return error("user-of-another-index", message, str(sent.place), named)
    if sent.secret is not None:
        message = (
            f"The password in the index URL ({sent.place}) comes before uvtokend's token. It is written in clear, so "
            "replace it where it was made, too."
        )
        return error("password-in-url", message, str(sent.place), clean)
    message = (
        f"The user name {sent.login!r} in the index URL ({sent.place}) is not the token's login "
        f"{_login(facts, index)!r}, so uv sends it with an empty password."
    )
    return error("user-in-url", message, str(sent.place), clean)


def _login(facts: Facts, index: Index) -> str:
    entry = facts.ours.get(index.target)
    return entry.login if entry is not None and not index.login_is_secret else ""


def _with(index: Index, login: str) -> str:
    parts = urlsplit(index.url)
    return urlunsplit(parts._replace(netloc=f"{quote(login, safe='')}@{parts.netloc}")) if login else index.url


def _netrc(index: Index, sent: UvCredential) -> Finding:
    message = (
        f"The entry for {index.host} in {sent.place} is not uvtokend's, so uvtokend leaves it alone and uv sends it."
    )
    return error("foreign-entry", message, str(sent.place), f"uvtokend adopt {index.name}")


def _service(facts: Facts, sent: UvCredential) -> str:
    text = facts.store.text.decode(errors="replace").splitlines() if facts.store is not None else []
    line = text[sent.place.line - 1] if 0 < sent.place.line <= len(text) else ""
    return line.partition("=")[2].strip().strip("\"'")


def user_in_url(facts: Facts) -> Iterator[Finding]:
    """An index URL contains a password in clear text, even if uv does not send it here."""
    for index in facts.uv.indexes:
        if index.password is not None and not any(each.url == index.url for each in facts.indexes):
            message = f"The URL of {index.label!r} has a password in clear; uv copies it into exported requirements."
            yield note("password-in-url", message, str(index.place), edits.without_user(facts, index.place))


def unnecessary_user(facts: Facts) -> Iterator[Finding]:
    """A URL contains the right user name: it works until the token's login changes."""
    for index in facts.indexes:
        known = facts.known_to_uv(index)
        if known is not None and known.user and known.password is None and known.user == _login(facts, index):
            message = f"The URL of {index.name} has the user name {known.user!r}. It fits now and is not necessary."
            yield note("user-in-url", message, str(known.place), edits.without_user(facts, known.place))


def authenticate_missing(facts: Facts) -> Iterator[Finding]:
    """Without ``authenticate = "always"`` uv asks twice, and may take a package from elsewhere without a token."""
    for index in facts.indexes:
        known = facts.known_to_uv(index)
        if known is None or known.authenticate == "always" or (facts.uv_version and facts.uv_version < (0, 6, 6)):
            continue
        if known.authenticate == "never":
            message = f'{index.name} has authenticate = "never" ({known.place}), so uv never sends the token.'
            yield error("authenticate-never", message, str(known.place), edits.always(facts, known))
            continue
        alone = known.explicit or known.default
        consequence = "" if alone else ", and without a token it takes a package of the same name from the next index"
        message = f'{index.name} is without authenticate = "always": uv asks without the token first{consequence}.'
        report = note if alone or facts.has_token(index) else error
        yield report("authenticate-missing", message, str(known.place), edits.always(facts, known))


def public_fallback(facts: Facts) -> Iterator[Finding]:
    """Packages that a private index does not have are installed from the next index: dependency confusion."""
    strategy = facts.uv.settings.get("index-strategy")
    private = [known for index in facts.indexes if (known := facts.known_to_uv(index)) is not None]
    if strategy is not None and str(strategy.value).startswith("unsafe-") and private:
        message = (
            f"index-strategy = {strategy.value!r} ({strategy.place}) lets a public package of the same name replace a "
            "private one."
        )
        fix = edits.set_line(strategy.place, 'index-strategy = "first-index"')
        yield error("index-strategy", message, str(strategy.place), fix)
    pinned = {name for names in facts.uv.pins.values() for name in names}
    public = _public(facts)
    for known in private:
        if public is None or known.explicit or known.default:
            continue
        message = f"A package that {known.label!r} does not have comes from {public}, no matter which program wrote it."
        fix = f"{edits.explicit(facts, known)}, and pin its packages under [tool.uv.sources]"
        if known.name in pinned:
            continue
        yield note("public-fallback", message, str(known.place), fix)


def _public(facts: Facts) -> str | None:
    """Return the indexes after the private ones. Every host that is not configured here counts as public."""
    hosts = {index.host for index in facts.indexes}
    default = next((index for index in facts.uv.indexes if index.default), None)
    if "no-index" in facts.uv.settings or (default is not None and realm(default.url)[1] in hosts):
        others = [index for index in facts.uv.indexes if not index.explicit and realm(index.url)[1] not in hosts]
        return others[0].label if others and "no-index" not in facts.uv.settings else None
    return default.label if default is not None else "uv's public default index"


def keyring_provider(facts: Facts) -> Iterator[Finding]:
    """``keyring-provider = "subprocess"`` runs a program for each index that has no token."""
    setting = facts.uv.settings.get("keyring-provider")
    if setting is not None and setting.value == "subprocess" and facts.indexes and not facts.keyring:
        message = (
            "keyring-provider is set: wherever uv finds no token, it runs the keyring command, with no time limit."
        )
        fix = edits.delete_line(setting.place)
        yield note("keyring-provider", message, str(setting.place), fix)


def memory_sink(facts: Facts) -> Iterator[Finding]:
    """A token is never on disk, so uv gets it only through the keyring command."""
    for index in (index for index in facts.indexes if index.sink == "memory"):
        setting, known = facts.uv.settings.get("keyring-provider"), facts.known_to_uv(index)
        if not facts.keyring:
            message = f"The token of {index.name} is never on disk, and the keyring command for it is not on PATH."
            yield error("keyring-missing", message, index.name, "uvtokend keyring install")
        elif setting is None or setting.value != "subprocess":
            message = f"The token of {index.name} is never on disk, and uv asks no keyring command for it."
            yield error("keyring-provider", message, index.name, "export UV_KEYRING_PROVIDER=subprocess")
        elif known is not None and known.authenticate != "always" and not known.user:
            message = f'uv asks the keyring command for {index.name} only with authenticate = "always".'
            yield error("authenticate-missing", message, str(known.place), edits.always(facts, known))


def uv_version(facts: Facts) -> Iterator[Finding]:
    """The uv on PATH is too old for an index."""
    if facts.uv_path is None:
        if facts.indexes:
            yield note("uv-missing", "uv is not on PATH in this shell.", None, None)
        return
    version = ".".join(map(str, facts.uv_version))
    for index in facts.indexes:
        if index.sink == "uv-store" and facts.uv_version and facts.uv_version < STORE_SINCE:
            message = f"{index.name} is delivered to uv's own credential store, which uv {version} does not read yet."
            yield error("uv-too-old", message, facts.uv_path, "uv self update")


def publishing(facts: Facts) -> Iterator[Finding]:
    """Variables and settings make ``uv publish`` use another credential or another host."""
    hosts = {index.host for index in facts.indexes}
    names = [name for name in _PUBLISH if facts.environ.get(name)]
    if names and hosts:
        message = f"uv publish takes its credential from {', '.join(names)} in this shell, not from the netrc."
        yield note("publish-variables", message, names[0], f"unset {' '.join(names)}")
    for key, what in (("publish-url", "uploads go to"), ("check-url", "uv publish looks for existing files at")):
        setting = facts.uv.settings.get(key)
        host = urlsplit(str(setting.value)).hostname if setting is not None else None
        if setting is not None and host and hosts and host not in hosts:
            message = f"{key} is set ({setting.place}): {what} {host}, which uvtokend keeps no token for."
            yield note("publish-url", message, str(setting.place), None)


def unreadable(facts: Facts) -> Iterator[Finding]:
    """A file of uv's configuration cannot be read."""
    for sentence in facts.project.problems:
        yield error("uv-configuration", sentence, None, None)


def _nearest(facts: Facts, index: Index) -> UvIndex | None:
    """Return the index of uv's that is probably meant: one with the same name, or an unknown one on the same host."""
    named = next((each for each in facts.uv.indexes if each.name == index.name), None)
    ours = {each.url.rstrip("/") for each in facts.indexes}
    near = [
        each
        for each in facts.uv.indexes
        if realm(each.url)[1] == index.host and each.url.rstrip("/") not in ours and each.name is None
    ]
    return named or next(iter(near), None)


def _add_index(index: Index) -> str:
    return (
        "if this project needs it, add to pyproject.toml: [[tool.uv.index]] with "
        f'name = "{index.name}", url = "{index.url}", authenticate = "always"'
    )


CHECKS = (
    unreadable,
    wrong_credential,
    index_unknown,
    default_replaced,
    offline,
    name_differs,
    user_in_url,
    unnecessary_user,
    authenticate_missing,
    public_fallback,
    keyring_provider,
    memory_sink,
    uv_version,
    publishing,
)

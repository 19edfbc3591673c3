"""The environment of a command that `uvtokend exec` runs: which variable carries which credential, and when to refuse.

uv and twine bind some of these variables only to a name, or to nothing. So each variable is set only if uv or twine can
send it to no host but the index's own:

* ``UV_INDEX_<NAME>_USERNAME`` and ``_PASSWORD`` are bound to the index *name*: uv sends them to the host that its
  configuration gives for the name. So that host must be the index's own.
* ``UV_PUBLISH_USERNAME``, ``UV_PUBLISH_PASSWORD``, ``TWINE_USERNAME`` and ``TWINE_PASSWORD`` are bound to nothing. They
  are set for only one index, together with the variables that name its upload URL.

Sources: uv's reference of environment variables; twine's documentation, "Environment Variables".
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from urllib.parse import urlsplit

from uvtokend.core import clouds, url_match
from uvtokend.core.model import Env, Secret
from uvtokend.core.urls import IndexUrl
from uvtokend.errors import UsageError

#: Variables that choose a target by a name that uv or twine looks up elsewhere.
_BY_NAME = ("UV_PUBLISH_INDEX", "TWINE_REPOSITORY")
#: The commands that publish: their verbs, and their options that name a target.
_PUBLISH = {
    "uv": ("publish", ("--publish-url", "--index")),
    "twine": ("upload", ("--repository-url", "--repository", "-r")),
}
_BY_URL = ("UV_PUBLISH_URL", "TWINE_REPOSITORY_URL")


@dataclass(frozen=True, slots=True)
class Access:
    """One index and its credential.

    Args:
        name: The name of the index in uv's configuration.
        url: The index URL.
        provider: The provider of the index.
        login: The user name.
        token: The token.
    """

    name: str
    url: str
    provider: str
    login: str
    token: Secret


def env_name(name: str) -> str:
    """Return an index name as uv writes it in its variables.

    uv crates/uv-distribution-types/src/index_name.rs, `to_env_var`: ASCII letters in upper case, digits, else ``_``.
    """
    return "".join(each.upper() if each.isascii() and each.isalnum() else "_" for each in name)


def check_names(names: Iterable[str]) -> None:
    """Refuse index names if two of them need the same variable.

    Raises:
        UsageError: Two names need the same variable.
    """
    seen: dict[str, str] = {}
    for name in names:
        other = seen.setdefault(env_name(name), name)
        if other != name:
            message = f"The indexes {other!r} and {name!r} need the same variable, UV_INDEX_{env_name(name)}_PASSWORD."
            raise UsageError(message, "name only one of them, or rename one in config.toml and in uv's files")


def check_uv(name: str, url: str, known: Iterable[tuple[str, str, str]]) -> None:
    """Refuse an index if uv's own configuration has the same name for another host.

    Args:
        name: The name of the index.
        url: Its URL in config.toml.
        known: Name, URL and source of each named index in uv's configuration here, as written: uv accepts URLs with
            backslashes, missing slashes or other letters, in which Python reads another host or none.

    Raises:
        UsageError: uv would send the token to that host.
    """
    for theirs, elsewhere, source in known:
        if env_name(theirs) == env_name(name) and not _same_origin(url, elsewhere):
            message = (
                f"In {source}, uv's index {theirs!r} is on the host {_host(elsewhere)}, but the index {name!r} of "
                f"config.toml is on {_host(url)}: uv would send this token to {_host(elsewhere)}."
            )
            raise UsageError(message, f"correct the URL in {source}, or rename one of the two indexes")


def check_targets(name: str, upload: str, environ: Env) -> None:
    """Refuse an environment that already names another upload URL.

    Args:
        name: The index.
        upload: Its upload URL.
        environ: The environment that the command would inherit.

    Raises:
        UsageError: A plain ``uv publish`` or ``twine upload`` would use that URL, or fail.
    """
    others = [key for key in _BY_NAME if environ.get(key, name) not in {"", name}]
    others += [key for key in _BY_URL if environ.get(key, "").rstrip("/") not in {"", upload.rstrip("/")}]
    if others:
        what = f"{others[0]} is set and names" if len(others) == 1 else f"{' and '.join(others)} are set and name"
        message = f"{what} another target than the index {name!r}, which publishes to {upload}."
        raise UsageError(message, f"unset {' '.join(others)}")


def check_publishing(name: str, provider: str, url: str, command: Sequence[str]) -> None:
    """Refuse to run ``uv publish`` or ``twine upload`` with a target other than the index, or without a target.

    Args:
        name: The index.
        provider: Its provider.
        url: The index URL.
        command: The command line.

    Raises:
        UsageError: The token would be sent to another host, or nothing can be published to the index.
    """
    programs = {word.rpartition("/")[2].partition("@")[0] for word in command}  # also `uvx twine@6`, `env uv`
    options = [option for program in programs & _PUBLISH.keys() for option in _options(program, command)]
    if not options:
        return
    upload = upload_url(provider, url)
    if upload is None:
        server = url.partition("/api/v4/")[0]
        message = f"The index {name!r} is a GitLab group, but packages are published to a project."
        raise UsageError(message, f"uvtokend add {server}/api/v4/projects/ID/packages/pypi/simple")
    for option, value in _values(command, options):
        if value != name and value.rstrip("/") != upload.rstrip("/"):
            message = f"{option} names another target than the index {name!r}, which publishes to {upload}."
            raise UsageError(message, f"remove {option} from the command")


def _options(program: str, command: Sequence[str]) -> Collection[str]:
    """Return the options that name a target; none if a command line does not publish with this program."""
    verb, options = _PUBLISH[program]
    return options if verb in command else ()


def _values(command: Sequence[str], options: Collection[str]) -> Iterator[tuple[str, str]]:
    for word, following in pairwise([*command, ""]):
        option, equals, value = word.partition("=")
        # argparse, which twine uses, accepts the beginning of an option's name
        if option in options or (len(option) > 3 and any(each.startswith(option) for each in options)):
            yield option, value if equals else following


def environment(accesses: Iterable[Access], environ: Env) -> dict[str, str]:
    """Return the environment of the command. It contains the secrets, so only the command may receive it.

    Args:
        accesses: The indexes with their credentials. For a single index, the variables for publishing are set, too.
        environ: The environment that the command would inherit.
    """
    chosen = tuple(accesses)
    result = dict(environ)
    for access in chosen:
        key = f"UV_INDEX_{env_name(access.name)}"
        result[f"{key}_USERNAME"], result[f"{key}_PASSWORD"] = access.login, access.token.reveal()
    if len(chosen) == 1 and (upload := upload_url(chosen[0].provider, chosen[0].url)) is not None:
        login, token = chosen[0].login, chosen[0].token.reveal()
        for key in _BY_NAME:  # `check_targets` saw that they name this index; the URL names it without doubt
            result.pop(key, None)
        result.pop("UV_PUBLISH_TOKEN", None)  # another credential, which uv refuses together with a user name
        result |= {"UV_PUBLISH_URL": upload, "UV_PUBLISH_USERNAME": login, "UV_PUBLISH_PASSWORD": token}
        result |= {"TWINE_REPOSITORY_URL": upload, "TWINE_USERNAME": login, "TWINE_PASSWORD": token}
    return result


def upload_url(provider: str, url: str) -> str | None:
    """Return the upload URL of an index, or None if nothing can be published to it.

    Args:
        provider: Its provider.
        url: The index URL.
    """
    parsed = IndexUrl.parse(url)
    if provider == "gitlab" and "/groups/" in parsed.path:
        return None  # GitLab's group endpoint lists the packages of its projects; packages are published to a project
    return clouds.upload_url(provider, parsed)


def _same_origin(one: str, other: str) -> bool:
    ours, theirs = url_match.asked_url(one), url_match.asked_url(other)
    return ours is not None and theirs is not None and ours.origin == theirs.origin


def _host(url: str) -> str:
    asked = url_match.asked_url(url)
    if asked is None or "://" not in url:
        return "a host that cannot be told for certain"
    return urlsplit(url).netloc.rpartition("@")[2]

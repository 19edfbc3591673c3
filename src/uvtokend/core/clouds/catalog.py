"""The type of a catalog: plain values and pure functions about one cloud, without an SDK and without the disk.

Adding a cloud means one file beside this one. The file is named after the provider and contains one `Cloud`, ``CLOUD``.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field

from uvtokend.core.config.values import Option
from uvtokend.core.model import Env, Frozen, Json, Notice, Request
from uvtokend.core.urls import IndexUrl


@dataclass(frozen=True, slots=True)
class SignInOptions:
    """One of several sets of options that a person can sign in with.

    Args:
        needs: The options that the set consists of.
        takes: Options that it may contain in addition.
    """

    needs: tuple[str, ...]
    takes: tuple[str, ...] = ()

    def fits(self, written: set[str]) -> bool:
        """Return whether options make exactly this set."""
        return {*self.needs} <= written <= {*self.needs, *self.takes}


@dataclass(frozen=True, slots=True)
class Watched:
    """A file or directory that changes when a person signs in.

    Args:
        default: The default path; ``~`` is the worker's home directory. Empty if there is no default.
        variable: The environment variable that names another path, or empty.
        below: The text to add to the variable's value.
    """

    default: str
    variable: str = ""
    below: str = ""

    def path(self, environ: Env) -> str:
        """Return the path in an environment, with ``~`` not expanded; empty if there is none."""
        named = environ.get(self.variable)
        return f"{named}{self.below}" if named else self.default


@dataclass(frozen=True, slots=True)
class CloudProgram:
    """The command line program of a cloud.

    Args:
        name: Its name on PATH.
        sign_in: The plain sign-in command, for a person who has not signed in yet.
        page: The URL of its installation page.
    """

    name: str
    sign_in: str
    page: str


@dataclass(frozen=True, slots=True)
class StoredSignIn:
    """A sign-in that a cloud's program keeps, and that a fetch uses only if an option says so.

    Args:
        options: The options in config.toml that choose it.
        file: The file that exists once a person has signed in with the program.
    """

    options: Mapping[str, Json]
    file: Watched


@dataclass(frozen=True, slots=True)
class Conflict:
    """Options that do not work together, although each value is valid by itself.

    Args:
        key: The option that is reported.
        message: What is wrong, in a sentence.
        hint: What to write instead.
    """

    key: str
    message: str
    hint: str


def _nothing_in_url(_: IndexUrl) -> dict[str, str] | None:
    return None


def _one_for_all(_: IndexUrl) -> str:
    return ""


def _root(url: IndexUrl) -> str:
    return url.root


def _root_directory(url: IndexUrl) -> str:
    return f"{url.root}/"


def _no_conflict(_: Mapping[str, Frozen]) -> Conflict | None:
    return None


def _never(_: object) -> bool:
    return False


def _none_of_them(_: Env, __: Request) -> tuple[str, ...]:
    return ()


def _no_programs(_: Request) -> tuple[str, ...]:
    return ()


def _nothing_to_say(_: Collection[Request]) -> dict[Request, Notice]:
    return {}


def _nothing_more(_: Env) -> dict[str, Json]:
    return {}


@dataclass(frozen=True, slots=True)
class Cloud:
    """Everything pure that uvtokend knows about one kind of issuer.

    Args:
        provider: Its name in config.toml.
        title: Its name for people.
        module: The module of its `fetch` function. The entry point in pyproject.toml names the same function.
        options: The options, by key.
        recognize: Returns the options that an index URL contains, or None if the URL is not one of this cloud's.
        service: Returns the part of an index URL that belongs to the request: the tenant if tokens differ by tenant;
            otherwise empty.
        prefix: Returns the URL prefix of the pages and files of an index.
        upload: Returns the URL that packages are published to.
        covers: Returns whether a URL is not an index but only covers the files of a tenant.
        path: A part of the URL's path that identifies the provider on an unknown host.
        login: The user name of its credentials, if it is always the same or has a default.
        takes_any_login: Whether the service accepts any user name, so that a user name can distinguish two tenants.
        sign_ins: The ways to sign in. The options must make exactly one of them, unless this is empty.
        conflict: Returns the first conflict between options whose values are all valid, or None.
        watched: The files that change when a person signs in. Files that an option names are always watched.
        temporary: Returns the names of set variables with temporary credentials that override the sign-in.
        together: Returns notices about some requests that follow from the other requests.
        defaults: Returns options for a new index, from the environment of a person's shell.
        spends: Returns whether a fetch spends a one-time secret, so that its worker must never be killed.
        shares_worker: Whether a worker may fetch for one index after another.
        program: Its command line program.
        stored: The sign-in that the program keeps, if a fetch uses it only if an option says so.
        runs: Returns the programs that a fetch starts, by their names on PATH.
        service_variables: The environment variables to record for a service; ``*`` at the end matches any rest.
            Variables that may contain a secret are left out.
    """

    provider: str
    title: str
    module: str
    options: Mapping[str, Option]
    recognize: Callable[[IndexUrl], dict[str, str] | None] = _nothing_in_url
    service: Callable[[IndexUrl], str] = _one_for_all
    prefix: Callable[[IndexUrl], str] = _root
    upload: Callable[[IndexUrl], str] = _root_directory
    covers: Callable[[IndexUrl], bool] = _never
    path: str = ""
    login: str = ""
    takes_any_login: bool = False
    sign_ins: tuple[SignInOptions, ...] = ()
    conflict: Callable[[Mapping[str, Frozen]], Conflict | None] = _no_conflict
    watched: tuple[Watched, ...] = ()
    temporary: Callable[[Env, Request], tuple[str, ...]] = _none_of_them
    together: Callable[[Collection[Request]], Mapping[Request, Notice]] = _nothing_to_say
    defaults: Callable[[Env], dict[str, Json]] = _nothing_more
    spends: Callable[[Request], bool] = _never
    shares_worker: bool = True
    program: CloudProgram | None = None
    stored: StoredSignIn | None = None
    runs: Callable[[Request], tuple[str, ...]] = _no_programs
    service_variables: tuple[str, ...] = field(default=())

    def spelled(self, key: str) -> str:
        """Return an option as a person would write it: with its value if only one is possible."""
        choices = self.options[key].choices
        return f'{key} = "{choices[0]}"' if len(choices) == 1 else key

    def is_undecided(self, written: Iterable[str]) -> bool:
        """Return whether options make no complete way to sign in, or mix two ways."""
        known = {name for way in self.sign_ins for name in (*way.needs, *way.takes)}
        return bool(self.sign_ins) and not any(way.fits(known & {*written}) for way in self.sign_ins)

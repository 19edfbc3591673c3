"""The project: its lock file, the indexes that only pip knows, and .env."""

from __future__ import annotations

import configparser
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from uvtokend.core.model import Json
from uvtokend.core.uv.settings import is_below, normal_name, root, same_index, split_url
from uvtokend.disk import uv_files, uv_projects
from uvtokend.doctor.facts import Facts
from uvtokend.doctor.finding import Finding, error, note

_PIP_KEYS = ("index-url", "extra-index-url")
_DOTENV = re.compile(r"^\s*(?:export\s+)?(UV_[A-Z0-9_]+|NETRC)\s*=", re.MULTILINE)


def only_pip(facts: Facts) -> Iterator[Finding]:
    """Only pip's configuration, which uv does not read, names an index."""
    for index in facts.indexes:
        if facts.known_to_uv(index) is not None:
            continue
        for place, url in pip_indexes(facts.environ):
            if same_index(url, index.url):
                message = f"Only pip's configuration ({place}) names {index.name}; uv does not read it."
                yield error("only-pip", message, place, lines_for_uv(index.name, index.url, facts.environ))
                break


def lines_for_uv(name: str, url: str, environ: Mapping[str, str]) -> str:
    """Return the fix that adds an index to the user's configuration of uv."""
    target = Path(environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config"), "uv", "uv.toml")
    return f'add to {target}:\n[[index]]\nname = "{name}"\nurl = "{url}"\nauthenticate = "always"'


def pip_indexes(environ: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Yield the place and the URL of each index that pip knows (pip user guide, "Configuration")."""
    for variable in ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL"):
        for word in environ.get(variable, "").split():
            yield from _url(variable, word)
    home = os.path.expanduser("~")
    config = environ.get("XDG_CONFIG_HOME") or os.path.join(home, ".config")
    files = [
        f"{config}/pip/pip.conf",
        f"{home}/.pip/pip.conf",
        f"{home}/Library/Application Support/pip/pip.conf",
        "/etc/pip.conf",
    ]
    for file in [environ.get("PIP_CONFIG_FILE", ""), *files]:
        text = uv_files.text_file(file or None)
        parser = configparser.RawConfigParser(strict=False)
        try:
            parser.read_string(text.text.decode(errors="replace") if text is not None else "")
        except configparser.Error:
            continue
        for section in parser.sections():
            for key, value in parser.items(section):
                if key.replace("_", "-") in _PIP_KEYS:
                    for word in value.split():
                        yield from _url(file, word)


def _url(place: str, text: str) -> Iterator[tuple[str, str]]:
    split = split_url(text)
    if split is not None:
        yield place, split[0]


def ignored_files(facts: Facts) -> Iterator[Finding]:
    """A variable of this shell makes uv ignore the file that names an index of ours."""
    names = [name for name in ("UV_NO_CONFIG", "UV_CONFIG_FILE") if facts.environ.get(name)]
    missing = [index for index in facts.indexes if facts.known_to_uv(index) is None]
    if not (names and missing):
        return
    without = {name: value for name, value in facts.environ.items() if name not in names}
    usual = uv_projects.project(str(facts.project.directory), without).configuration(without)
    for index in missing:
        known = next((each for each in usual.indexes if same_index(each.url, index.url)), None)
        if known is not None:
            message = (
                f"uv does not use {index.name} here: {' and '.join(names)} in this shell makes it ignore {known.place}."
            )
            yield error("configuration-ignored", message, names[0], f"unset {' '.join(names)}")


def lock_trace(facts: Facts) -> Iterator[Finding]:
    """Packages that are pinned to a private index were locked from another one, by a run without a token."""
    private = {index.name: index.url for index in facts.indexes}
    for name, registry in locked(facts):
        for pin in facts.uv.pins.get(name, ()):
            if pin in private and registry and not is_below(registry, root(private[pin])):
                message = f"uv.lock has {name} from {registry}, although it is pinned to {pin}."
                yield error("locked-elsewhere", message, _lock(facts), f"uv lock --upgrade-package {name}")


def locked(facts: Facts) -> Iterator[tuple[str, str]]:
    """Yield the name and the registry of each package in ``uv.lock``."""
    file = _lock(facts)
    document = uv_files.toml_file(Path(file)) if file else None
    packages = document.get("package") if document else None
    for package in packages if isinstance(packages, list) else []:
        if isinstance(package, dict) and isinstance(package.get("name"), str):
            source: Json = package.get("source")
            registry = source.get("registry") if isinstance(source, dict) else None
            yield normal_name(str(package["name"])), registry if isinstance(registry, str) else ""


def _lock(facts: Facts) -> str:
    return str(facts.project.root / "uv.lock") if facts.project.root is not None else ""


def dotenv(facts: Facts) -> Iterator[Finding]:
    """``.env`` contains variables of uv, which uv does not read for itself."""
    directory = facts.project.root or facts.project.directory
    file = uv_files.text_file(str(directory / ".env"))
    names = sorted({*_DOTENV.findall(file.text.decode(errors="replace"))}) if file is not None else []
    if names and facts.indexes:
        message = f".env sets {', '.join(names)}. uv does not read .env for its own settings and credentials."
        yield note("dotenv", message, file.path if file is not None else None, None)


CHECKS = (only_pip, ignored_files, lock_trace, dotenv)

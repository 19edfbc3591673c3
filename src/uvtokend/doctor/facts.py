"""Everything that the checks read, read once and never changed."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from uvtokend import paths, shim
from uvtokend.core.model import Entry, Index, Problem, Settings
from uvtokend.core.netrc import block
from uvtokend.core.state import State
from uvtokend.core.uv.order import Decision, Sources, TextFile, UvCredential, decide
from uvtokend.core.uv.settings import UvConfiguration, UvIndex, same_index
from uvtokend.disk import cleanup, configuration, locks, uv_files, uv_projects
from uvtokend.disk.answering import answered
from uvtokend.disk.netrc_sink import NetrcSink
from uvtokend.disk.state_file import Store
from uvtokend.disk.uv_projects import Project
from uvtokend.disk.uv_store_sink import UvStoreSink
from uvtokend.errors import ConfigError, DeliveryFailed, UvtokendError

#: Seconds that ``uv --version`` may take.
_PATIENCE = 5.0


@dataclass(frozen=True, slots=True)
class Facts:
    """The facts at one moment.

    Args:
        environ: The environment of this shell, which uv would inherit.
        now: The wall clock, aware UTC.
        config: Our configuration file.
        settings: Its settings; None if it is invalid.
        problems: Its problems.
        project: uv's own files for the project.
        uv: The configuration in them.
        uv_path: The uv on PATH; None if there is none.
        uv_version: Its version; empty if unknown.
        netrc_path: The netrc that uvtokend writes, or has written last, with symlinks resolved.
        named_netrc: The netrc that config.toml names, with symlinks resolved, or None.
        netrc: The text of the netrc; None if it is missing or cannot be read.
        unreadable: Why the netrc cannot be read.
        uv_netrc: The netrc that uv reads in this shell.
        store: uv's own credential store.
        ours: Our entries and records on disk: host or URL prefix -> entry.
        expired: The expired ones among them: host or URL prefix -> time.
        owner: The process that owns the netrc although no daemon answers here, as ``pid N on HOST``.
        keyring: Whether the first ``keyring`` on PATH is one that `uvtokend keyring install` created.
        status: The daemon's status document; None if no daemon answers.
        unreadable_fix: The fix if the netrc cannot be read.
    """

    environ: Mapping[str, str]
    now: datetime
    config: str
    settings: Settings | None
    problems: tuple[Problem, ...]
    project: Project
    uv: UvConfiguration
    uv_path: str | None
    uv_version: tuple[int, ...]
    netrc_path: str
    named_netrc: str | None
    netrc: bytes | None
    unreadable: str | None
    uv_netrc: TextFile | None
    store: TextFile | None
    ours: Mapping[str, Entry]
    expired: Mapping[str, datetime]
    owner: str | None
    keyring: bool
    status: Mapping[str, Any] | None
    unreadable_fix: str | None = None

    @property
    def indexes(self) -> tuple[Index, ...]:
        """The enabled indexes in config.toml."""
        return self.settings.indexes if self.settings is not None else ()

    @property
    def served(self) -> str:
        """The configuration file of the daemon, or of this shell if no daemon answers."""
        return str(self.status["config"]) if self.status is not None else self.config

    def decision(self, url: str) -> Decision:
        """Return uv's decision about a URL.

        Raises:
            ValueError: It is not an HTTP URL.
        """
        return decide(Sources(self.uv, self.environ, self.uv_netrc, self.store, self.uv_version), url)

    def is_ours(self, credential: UvCredential) -> bool:
        """Return whether a credential is from uvtokend, delivered or through its keyring command."""
        if credential.source == "keyring":
            return self.keyring and self.status is not None
        pair = (credential.login, credential.secret)
        return any(pair == (entry.login, entry.password) for entry in self.ours.values())

    def has_token(self, index: Index) -> bool:
        """Return whether uv can find our credential for an index: on disk, or in the memory of the daemon."""
        return bool(self.said(index).get("delivered")) if index.sink == "memory" else index.target in self.ours

    def known_to_uv(self, index: Index) -> UvIndex | None:
        """Return uv's index of the same URL."""
        return next((each for each in self.uv.indexes if same_index(each.url, index.url)), None)

    def said(self, index: Index) -> Mapping[str, Any]:
        """Return the daemon's status of an index; empty if it does not run or does not know the index."""
        listed = self.status["indexes"] if self.status is not None else ()
        return next((each for each in listed if each["name"] == index.name), {})


def gather(place: str | None, config: str | None, status: Mapping[str, Any] | None) -> Facts:
    """Read all facts.

    Args:
        place: The project's directory; None for the current one.
        config: Another configuration file of ours.
        status: The daemon's status document; None where no daemon answers.

    Raises:
        UsageError: The place does not exist, or there is no home directory.
        UvtokendError: A file system does not answer.
    """
    environ = dict(os.environ)
    project = uv_projects.project(place, environ)
    settings, problems = _settings(config)
    known = answered(Store(paths.state_directory()).load, paths.state_file())
    file = paths.config_file(config)
    named = _named_netrc(settings, environ)
    written = next((path for path, each in known.netrcs.items() if each.config in {file, ""}), None)
    default = settings.netrc if settings is not None else paths.usual_netrc()
    netrc = str(status["netrc"]) if status is not None else named or written or default
    netrc_path, text, failure = answered(lambda: _netrc(netrc), netrc)
    ours = _ours(netrc_path, text, known)
    now = datetime.now(UTC)
    uv_path, uv_version = _uv()
    return Facts(
        environ=environ,
        now=now,
        config=file,
        settings=settings,
        problems=problems,
        project=project,
        uv=project.configuration(environ),
        uv_path=uv_path,
        uv_version=uv_version,
        netrc_path=netrc_path,
        named_netrc=named,
        netrc=text,
        unreadable=None if failure is None else failure.message,
        unreadable_fix=None if failure is None else failure.hint,
        uv_netrc=uv_files.text_file(uv_files.netrc(environ)),
        store=uv_files.store(environ),
        ours=ours,
        expired=_expired(ours, known, now),
        owner=_owner(netrc_path) if status is None else None,
        keyring=shim.is_ours(shutil.which("keyring") or os.devnull),
        status=status,
    )


def _settings(config: str | None) -> tuple[Settings | None, tuple[Problem, ...]]:
    try:
        return configuration.load(config), ()
    except ConfigError as error:
        return None, error.problems


def _netrc(netrc: str) -> tuple[str, bytes | None, DeliveryFailed | None]:
    path = os.path.realpath(netrc)
    if not os.path.exists(path):
        return path, None, None
    try:
        return path, NetrcSink(path).read(), None
    except DeliveryFailed as error:
        return path, None, error


def _named_netrc(settings: Settings | None, environ: Mapping[str, str]) -> str | None:
    """Return the netrc that config.toml names; by default the one of ``NETRC``, which may differ in each shell."""
    path = settings.netrc if settings is not None else None
    here = environ.get("NETRC")
    by_shell = bool(here) and path == os.path.abspath(os.path.expanduser(here or ""))
    by_default = path == paths.usual_netrc()
    return None if path is None or by_shell or by_default else os.path.realpath(path)


def _owner(netrc: str) -> str | None:
    owner = locks.netrc_owner(netrc)
    return str(owner) if owner is not None else None


def _ours(path: str, text: bytes | None, known: State) -> dict[str, Entry]:
    entries = dict(block.block_entries(text, cleanup.ours(NetrcSink(path), known, ()))) if text is not None else {}
    if os.path.exists(paths.uv_ledger_file()):
        try:
            entries |= UvStoreSink(paths.uv_credentials_file(), paths.state_directory()).entries()
        except UvtokendError:
            return entries
    return entries


def _expired(entries: Mapping[str, Entry], known: State, now: datetime) -> dict[str, datetime]:
    return {
        target: record.expires_at
        for record in known.records
        for target in record.targets
        if record.expires_at is not None and record.expires_at <= now
        if target in entries and entries[target].digest == record.digest
    }


def _uv() -> tuple[str | None, tuple[int, ...]]:
    """Return the uv on PATH and its version."""
    path = shutil.which("uv")
    if path is None:
        return None, ()
    try:
        done = subprocess.run([path, "--version"], capture_output=True, timeout=_PATIENCE, check=False, cwd="/")  # noqa: S603
    except (OSError, subprocess.TimeoutExpired):
        return path, ()
    match = re.match(rb"uv (\d+)\.(\d+)\.(\d+)", done.stdout)
    return path, tuple(int(part) for part in match.groups()) if match else ()

"""The launchd agent: its property list, and loading and unloading it. From Apple's sources; not run on a Mac.

Facts, from launchd.plist(5) and launchctl(1):

1. launchd expands neither ``~`` nor variables, and gives an agent none of the shell's environment.
2. It restarts according to ``KeepAlive`` alone, and no exit status but 0 prevents a restart. So under launchd `uvtokend
   run` ends with 0 if only a person can help.
3. ``ProcessType`` is not set: ``Background`` would lower the CPU, disk and network priority of the daemon and of all
   its children (xnu, osfmk/kern/task_policy.c), which has time limits of 20 to 60 s. The default limits only slightly.
4. An agent belongs to the domain ``gui/UID``, which exists only while that user is logged in on the screen. Over SSH it
   may be missing; then the daemon is started directly.
5. ``bootstrap`` of a loaded agent fails with 5 ("Input/output error"); so does ``bootstrap`` of a disabled agent.
6. ``bootout`` does not wait for the end of the process: its status is EINPROGRESS then, and ``bootstrap`` would fail.
7. launchd appends to ``StandardErrorPath`` (launchd, src/core.c, job_setup_fd) and never shortens it.
"""

from __future__ import annotations

import os
import plistlib
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from xml.parsers.expat import ExpatError

from uvtokend import paths
from uvtokend.disk import files
from uvtokend.errors import UvtokendError
from uvtokend.service import LAUNCHD_LABEL, programs

#: Directories for helper programs that launchd's own PATH does not name.
USUAL_PATH = (
    "/opt/homebrew/bin:/usr/local/bin:/opt/local/bin:/nix/var/nix/profiles/default/bin:/usr/bin:/bin:/usr/sbin:/sbin"
)
#: The same, below the home directory, as the installers of gcloud, uv and Nix choose.
OWN_PLACES = ("google-cloud-sdk/bin", ".local/bin", ".nix-profile/bin")
#: EINPROGRESS of macOS (bsd/sys/errno.h); the seconds between two checks of an ending agent, and their number.
_IN_PROGRESS, _LOOK, _LOOKS = 36, 0.1, 300


def property_list(words: Sequence[str], variables: Sequence[tuple[str, str]] = (), log: str | None = None) -> bytes:
    """Return the text of the property list.

    Args:
        words: The absolute command that is uvtokend. Login Items shows the name of its first word.
        variables: The environment of the daemon and its workers.
        log: The absolute path of the file for standard error.
    """
    agent: dict[str, object] = {
        "Label": LAUNCHD_LABEL,
        "ProgramArguments": [*words, "run", "--quiet"],
        "EnvironmentVariables": {**dict(variables), "PATH": _search_path(variables)},
        "RunAtLoad": True,
        "KeepAlive": {"SuccessfulExit": False},
        "ThrottleInterval": 10,
        "ExitTimeOut": 25,
        "Umask": 0o077,
    }
    if log is not None:
        agent["StandardErrorPath"] = log
    return plistlib.dumps(agent, sort_keys=False)


def _search_path(variables: Sequence[tuple[str, str]]) -> str:
    """Return the search path of helper programs: the recorded shell's, then the usual directories."""
    recorded = dict(variables).get("PATH", "").split(":")
    return ":".join(dict.fromkeys(filter(None, [*recorded, *USUAL_PATH.split(":")])))


def file_of() -> Path:
    """Return the property list of this user's own agent."""
    return Path.home() / "Library" / "LaunchAgents" / f"{LAUNCHD_LABEL}.plist"


def log_file() -> Path:
    """Return the file for the daemon's messages before its own log is open."""
    return Path.home() / "Library" / "Logs" / "uvtokend.log"


def domain() -> str | None:
    """Return the domain of this user's agents; None if the user is not logged in on the screen."""
    name = f"gui/{os.getuid()}"
    done = _launchctl("print", name)
    return name if done is not None and done.returncode == 0 else None


def install(words: Sequence[str], variables: Sequence[tuple[str, str]]) -> Path:
    """Write the agent, load it and start it.

    Args:
        words: The absolute command that is uvtokend.
        variables: The environment of the daemon and its workers.

    Returns:
        The property list.

    Raises:
        UvtokendError: The agent cannot be written, or launchd refuses it.
    """
    file, log = file_of(), log_file()
    try:
        for directory in (file.parent, log.parent):
            paths.make_directory(str(directory))
        own = dict(variables).get("PATH", "").split(":") + [f"{Path.home()}/{place}" for place in OWN_PLACES]
        recorded = [*((name, value) for name, value in variables if name != "PATH"), ("PATH", ":".join(own))]
        files.replace(str(file), property_list(words, recorded, str(log)))
        file.chmod(0o644)
    except OSError as error:
        raise UvtokendError(f"Cannot write the agent {file}: {error.strerror}.", f"ls -ld {file.parent}") from error
    where = domain()
    if where is None:
        message = (
            f"The agent {file} is written, but launchd has no gui domain for you: you are not logged in on the screen"
        )
        raise UvtokendError(f"{message}. It starts at your next login.", "uvtokend start")
    _unload(f"{where}/{LAUNCHD_LABEL}")
    start(file, where)
    return file


def start(file: Path, where: str) -> None:
    """Load an agent if it is not loaded, and start it.

    Args:
        file: The property list.
        where: The domain.

    Raises:
        UvtokendError: launchd refuses; the message quotes it.
    """
    target = f"{where}/{label(file)}"
    loaded = _launchctl("bootstrap", where, str(file))
    started = _launchctl("kickstart", target)
    if started is None or started.returncode != 0:
        said = " ".join(f"{_words(loaded)} {_words(started)}".split())
        message = f"launchd does not start {target}: {said}. It may be disabled in System Settings > Login Items"
        raise UvtokendError(message, f"launchctl enable {target} && uvtokend start")


def _unload(target: str) -> None:
    """Unload an agent, if it is loaded, and wait for its end."""
    done = _launchctl("bootout", target)
    if done is None or done.returncode != _IN_PROGRESS:
        return
    for _ in range(_LOOKS):
        known = _launchctl("print", target)
        if known is None or known.returncode != 0:
            return
        time.sleep(_LOOK)


def uninstall() -> Path | None:
    """Stop and unload the agent and delete its files; return the property list, or None if there was none."""
    file = file_of()
    if not file.is_file():
        return None
    where = domain()
    if where is not None:
        _unload(f"{where}/{label(file)}")
    file.unlink()
    log_file().unlink(missing_ok=True)
    return file


def label(file: Path) -> str:
    """Return the label in a property list; its file name if it cannot be read."""
    value = _content(file).get("Label")
    return value if isinstance(value, str) else file.stem


def variables(file: Path) -> dict[str, str]:
    """Return the environment of the daemon in a property list; launchd adds nothing from a shell."""
    recorded = _content(file).get("EnvironmentVariables")
    return {str(name): str(text) for name, text in recorded.items()} if isinstance(recorded, dict) else {}


def lines() -> list[str]:
    """Return launchd's report on the agent, as lines for a person."""
    file = file_of()
    if not file.is_file():
        return ["No launchd agent is installed."]
    where = domain()
    if where is None:
        return [f"launchd agent {file}: you are not logged in on the screen, so launchd does not run it."]
    done = _launchctl("print", f"{where}/{label(file)}")
    if done is None or done.returncode != 0:
        return [f"launchd agent {file}: not loaded ({_words(done)})"]
    known = ("state =", "pid =", "last exit code =")
    said = [line.strip() for line in done.stdout.splitlines() if line.strip().startswith(known)]
    return [f"launchd agent {file}: {', '.join(said)}"]


def _content(file: Path) -> dict[str, object]:
    """Return the content of a property list; empty if it cannot be read."""
    try:
        content = plistlib.loads(file.read_bytes())
    except (OSError, ValueError, ExpatError, plistlib.InvalidFileException):
        return {}
    return content if isinstance(content, dict) else {}


def _words(done: subprocess.CompletedProcess[str] | None) -> str:
    return "launchctl does not answer" if done is None else " ".join(done.stderr.split())


def _launchctl(*arguments: str) -> subprocess.CompletedProcess[str] | None:
    return programs.run("launchctl", *arguments)

"""The user unit of systemd: its text, and installing and uninstalling it.

One source for every unit: ``systemd/uvtokend.service``, which packages ship, is the same text with the program's path
of `uv tool install` and pipx.

The default layer is thin, because in a user manager nearly every sandboxing option implies ``NoNewPrivileges=`` or a
user namespace (systemd.exec(5)). With them a ``credential_process`` under snap, sudo or a just-in-time compiler fails,
and so do agents whose sockets are in the runtime directory. `HARDENED` is the second layer, for users who need none of
these.
"""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path

from uvtokend import paths
from uvtokend.disk import files
from uvtokend.errors import UvtokendError
from uvtokend.service import SYSTEMD_UNIT, programs

UNIT = SYSTEMD_UNIT
#: Where `uv tool install` and pipx link the program.
USUAL_PROGRAM = "%h/.local/bin/uvtokend"
USUAL_ENVIRONMENT = "-%E/uvtokend/service.env"
#: Directories for helper programs that are not on the user manager's own PATH.
USUAL_PATH = "%h/.local/bin:/usr/local/bin:/usr/bin:/bin:/snap/bin"

_TEXT = """\
# The daemon that keeps the tokens of private Python indexes fresh: uvtokend help service
[Unit]
Description=uvtokend, fresh tokens for private Python indexes
Documentation=man:uvtokend(1)

[Service]
Type=notify
NotifyAccess=main
ExecStart={program} run
ExecReload=kill -HUP $MAINPID
Restart=on-failure
RestartSec=5
# 2: a configuration that only a person can fix. 203: the program was removed. A daemon that finds that ends with 0.
RestartPreventExitStatus=2 203
# Only the daemon gets SIGTERM. A worker that spends a one-time secret has 20 s to save its successor.
KillMode=mixed
TimeoutStopSec=25
# The daemon reports to the watchdog every 30 s, and only while fetches and deliveries make progress.
WatchdogSec=100
UMask=0077
LimitCORE=0
Environment=PATH={path}
# Written by: uvtokend service install
EnvironmentFile={environment}

[Install]
WantedBy=default.target
"""

#: The opt-in layer. Without PrivateUsers=, systemd 252 accepts the mount options in a user manager and ignores them.
#: The runtime of .NET ends at once (HRESULT 0x8007054F) where it must not set the processors of a thread.
HARDENED = """\
# Written by: uvtokend service install --hardened
# No helper program that needs new privileges (snap, sudo) works under it. /tmp stays: agents have their sockets there.
[Service]
NoNewPrivileges=yes
PrivateUsers=yes
PrivateDevices=yes
PrivateMounts=yes
DevicePolicy=closed
ProtectSystem=strict
ReadWritePaths=%h /tmp /var/tmp -%t
ProtectClock=yes
ProtectControlGroups=yes
ProtectHostname=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
ProtectProc=invisible
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
CapabilityBoundingSet=
AmbientCapabilities=
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallFilter=~@privileged @resources
SystemCallFilter=@chown sched_setaffinity
SystemCallErrorNumber=EPERM
"""


def unit(program: str = USUAL_PROGRAM, environment: str = USUAL_ENVIRONMENT, path: str = USUAL_PATH) -> str:
    """Return the text of the unit.

    Args:
        program: The command before ``run``, as ``ExecStart=`` reads it.
        environment: The environment file, as ``EnvironmentFile=`` reads it.
        path: The search path of helper programs if the environment file sets no PATH.
    """
    return _TEXT.format(program=program, environment=environment, path=path)


def command_line(words: Sequence[str]) -> str:
    """Quote a command for ``ExecStart=``: systemd.service(5), "Command lines"; systemd.unit(5), "Specifiers".

    The path of the program itself must not contain quotes, backslashes or dollars, even quoted, so env(1) finds such a
    one. It becomes the program, with the same process id.
    """
    if re.search(r"""["'\\$]""", words[0]):
        words = ["/usr/bin/env", *words]
    return " ".join(_quoted(word) for word in words)


def _quoted(word: str) -> str:
    plain = word.replace("%", "%%").replace("$", "$$")
    if re.fullmatch(r"[A-Za-z0-9_@%+=:,./~-]+", plain):
        return plain
    return '"' + plain.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _file_name(path: str) -> str:
    """Quote a path for ``EnvironmentFile=``, which takes it for a pattern: systemd.exec(5), glob(7)."""
    return re.sub(r"([*?\[\]\\])", r"\\\1", path).replace("%", "%%")


def refuse_unprintable(paths: Iterable[str]) -> None:
    """Refuse paths that no unit file can hold, before anything is written.

    Raises:
        UvtokendError: One of them contains a line break, another control character or something that is not UTF-8.
    """
    for path in paths:
        if not path.isprintable():
            message = f"The path {path!a} contains a character that no systemd unit can hold"
            raise UvtokendError(f"{message}.", "move it to a directory whose name is plain text")


def directory() -> Path:
    """Return the directory of this user's own units: systemd.unit(5), "User Unit Search Path"."""
    from platformdirs import user_config_path  # noqa: PLC0415 - only for a service

    return user_config_path() / "systemd" / "user"


def available() -> bool:
    """Return whether this user's service manager answers."""
    done = _systemctl("show-environment")
    return done is not None and done.returncode == 0


def runtime_of_manager() -> Path | None:
    """Return the runtime directory of this user's manager if it runs but this shell does not know the directory.

    pam_systemd(8) sets the variable at a login, su and sudo do not.
    """
    directory = Path(f"/run/user/{os.getuid()}")
    hidden = not os.environ.get("XDG_RUNTIME_DIR") and (directory / "systemd" / "private").exists()
    return directory if hidden else None


def install(words: Sequence[str], environment_file: str, hardened: bool) -> Path:
    """Write the unit, and make the manager enable and start it.

    Args:
        words: The absolute command that is uvtokend.
        environment_file: The absolute path of the environment file.
        hardened: Whether to add the second layer; see `probe`.

    Returns:
        The unit file.

    Raises:
        UvtokendError: The unit cannot be written, or the manager refuses.
    """
    file = directory() / UNIT
    layer = file.with_name(f"{UNIT}.d") / "hardened.conf"
    text = unit(command_line(words), f"-{_file_name(environment_file)}")
    try:
        _write(file, text)
        if hardened:
            _write(layer, HARDENED)
        else:
            _delete(layer)
    except OSError as error:
        raise UvtokendError(f"Cannot write the unit {file}: {error.strerror}.", f"ls -ld {file.parent}") from error
    ask("daemon-reload")
    ask("enable", UNIT)
    ask("restart", UNIT)
    return file


def uninstall() -> Path | None:
    """Stop, disable and delete the unit; return the deleted file, or None if this user has no unit.

    Raises:
        UvtokendError: The manager refuses to stop it.
    """
    file = directory() / UNIT
    if not file.is_file():
        return None
    if available():
        _stop()
    (file.parent / "default.target.wants" / UNIT).unlink(missing_ok=True)  # without a manager, remove the link
    _delete(file.with_name(f"{UNIT}.d") / "hardened.conf")
    _delete(file)
    if available():
        ask("daemon-reload")
        _systemctl("reset-failed", UNIT)
    for empty in (file.parent / "default.target.wants", file.parent, file.parent.parent):
        with contextlib.suppress(OSError):  # other users have units of their own
            empty.rmdir()
    return file


def _stop() -> None:
    """Disable and stop the unit; a unit that the manager cannot load does not run.

    Raises:
        UvtokendError: The manager refuses to stop it.
    """
    try:
        ask("disable", "--now", UNIT)
    except UvtokendError:
        shown = _systemctl("show", UNIT, "--property=ActiveState", "--value")
        if shown is None or shown.stdout.strip() not in {"inactive", "failed"}:
            raise


def lines() -> list[str]:
    """Return the manager's report on the unit, as lines for a person."""
    properties = ("LoadState", "ActiveState", "SubState", "Result", "UnitFileState", "StatusText", "FragmentPath")
    done = _systemctl("show", UNIT, *(f"--property={name}" for name in properties))
    if done is None or done.returncode != 0:
        return ["The systemd user manager does not answer."]
    said = dict(line.split("=", 1) for line in done.stdout.splitlines() if "=" in line)
    if said.get("LoadState") == "not-found":
        return ["No systemd user unit is installed."]
    result = "" if said.get("Result") in {"success", ""} else f", {said['Result']}"
    state = f"{said.get('ActiveState')} ({said.get('SubState')}{result}), {said.get('UnitFileState')}"
    told = [f"systemd unit {said.get('FragmentPath')}: {state}"]
    if said.get("StatusText"):
        told.append(f"  {said['StatusText']}")
    if said.get("ActiveState") != "active":
        told += [f"  {line}" for line in last_lines()]
    return told


def last_lines(count: int = 5) -> list[str]:
    """Return the last lines of the unit's journal, none if it cannot be read."""
    done = programs.run("journalctl", "--user", "--unit", UNIT, "--lines", str(count), "--output", "cat", "--no-pager")
    return done.stdout.splitlines() if done is not None and done.returncode == 0 else []


def lingering() -> bool | None:
    """Return whether this user's services run while the user is logged out; None if logind does not say."""
    done = programs.run("loginctl", "show-user", str(os.getuid()), "--property=Linger", "--value")
    if done is None or done.returncode != 0:
        return None
    return done.stdout.strip() == "yes"


def ask(*arguments: str) -> None:
    """Send a command to the user manager.

    Raises:
        UvtokendError: The manager refuses; the message says why.
    """
    done = _systemctl(*arguments)
    if done is None or done.returncode != 0:
        said = " ".join(done.stderr.split()) if done else "it does not answer"
        message = f"systemctl --user {' '.join(arguments)} failed: {said}"
        raise UvtokendError(message, f"journalctl --user -u {UNIT} -n 20")


def probe(words: Sequence[str]) -> None:
    """Run ``uvtokend --version`` under the second layer, since kernels and managers differ.

    Args:
        words: The absolute command that is uvtokend.

    Raises:
        UvtokendError: This system cannot run uvtokend under the second layer.
    """
    home = '"' + str(Path.home()).replace("\\", "\\\\").replace('"', '\\"') + '"'
    command = ["systemd-run", "--user", "--wait", "--collect", "--quiet", "--pipe"]
    for line in HARDENED.splitlines():
        if "=" in line:  # specifiers are not expanded in a transient unit
            command += ["--property", line.replace("%h", home).replace(" -%t", "")]
    done = programs.run(*command, "--", *words, "--version")
    if done is None or done.returncode != 0:
        said = " ".join(done.stderr.split()) if done else "systemd-run does not answer"
        message = f"This system cannot run uvtokend with the hardened settings: {said or 'it ended at once'}"
        raise UvtokendError(message, "uvtokend service install")


def _systemctl(*arguments: str) -> subprocess.CompletedProcess[str] | None:
    return programs.run("systemctl", "--user", *arguments)


def _write(file: Path, text: str) -> None:
    paths.make_directory(str(file.parent))
    files.replace(str(file), text.encode())


def _delete(file: Path) -> None:
    """Delete a file of ours, and its directory if that is empty and only ours."""
    file.unlink(missing_ok=True)
    if file.parent.name == f"{UNIT}.d":
        with contextlib.suppress(OSError):
            file.parent.rmdir()

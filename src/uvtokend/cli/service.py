"""``uvtokend service``: run the daemon at every login, with systemd, launchd or the desktop's autostart."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from pathlib import Path

from uvtokend import paths
from uvtokend.cli import console
from uvtokend.cli.start import start
from uvtokend.cli.stop import stop
from uvtokend.core.model import Settings
from uvtokend.core.worker_environment import secret_variables
from uvtokend.disk import configuration, files
from uvtokend.errors import OK, NotRunning, UsageError, UvtokendError
from uvtokend.service import autostart, environment, launchd, manager, systemd

EXAMPLES = ("uvtokend service install", "uvtokend service status", "uvtokend service uninstall")
DETAILS = """\
`install` writes a systemd user unit or a launchd agent with absolute paths, records the variables of this shell that
helper programs need (never a secret), starts the service and waits for the first tokens. `uninstall` leaves no file of
it."""

#: Seconds that the service gets to answer and to deliver its first tokens.
WAIT = 60.0


def arguments(own: argparse.ArgumentParser) -> None:
    """Add the arguments of this verb."""
    actions = ("install", "uninstall", "status")
    own.add_argument("order", metavar="ACTION", choices=actions, help="install, uninstall or status")
    own.add_argument("--hardened", action="store_true", help="with install: add a strict sandbox (systemd only)")


def run(args: argparse.Namespace) -> int:
    """Install, uninstall or show the service.

    Raises:
        UsageError: --hardened was given with another action than install.
    """
    if args.order == "install":
        return install(args.hardened, args.config)
    if args.hardened:
        raise UsageError("--hardened goes with install only.", "uvtokend service install --hardened")
    return uninstall() if args.order == "uninstall" else status()


def install(hardened: bool, config_file: str | None) -> int:
    """Install the service, start it and wait for the first tokens.

    Args:
        hardened: Whether to add the second layer of sandboxing (systemd only).
        config_file: Another configuration file.

    Raises:
        ConfigError: The configuration is invalid.
        UvtokendError: The service could not be installed or started; the message says why.
    """
    for name in ("UVTOKEND_CONFIG", "UVTOKEND_SOCKET"):
        if os.environ.get(name):
            message = f"{name} is set in this shell, but a service uses the default configuration and socket."
            raise UvtokendError(message, f"unset {name} && uvtokend service install")
    if config_file is not None:
        raise UvtokendError("A service reads the default configuration file only.", "uvtokend service install")
    settings = configuration.load(config_file)
    paths.check_home(environment.file_of(paths.config_file()))
    words = manager.program()
    recorded = environment.record(os.environ, environment.patterns())
    _explain(recorded, settings)
    file = _put(words, recorded, hardened, config_file)
    console.say(f"Installed {file}.")
    if sys.platform != "darwin":
        _advise_lingering()
    return start(config_file, WAIT)


def uninstall() -> int:
    """Stop the service and delete every file that `install` wrote; tokens and configuration stay.

    Raises:
        UvtokendError: The service manager refuses to stop it.
    """
    recorded = Path(environment.file_of(paths.config_file()))
    paths.check_home(str(recorded))
    with console.Ticking("Stopping the service"):
        removed = [launchd.uninstall()] if sys.platform == "darwin" else [systemd.uninstall(), autostart.uninstall()]
    if recorded.is_file():
        recorded.unlink()
        removed.append(recorded)
    gone = [str(file) for file in removed if file is not None]
    console.say(f"Removed {', '.join(gone)}." if gone else "No service is installed.")
    if gone:
        console.say("Delivered tokens stay until they expire. To remove everything: uvtokend purge")
    return OK


def status() -> int:
    """Show the service manager's report, and the command that makes the service run."""
    console.out("".join(f"{line}\n" for line in manager.lines()))
    entry = autostart.file_of()
    by_desktop = sys.platform != "darwin" and entry.is_file()
    if by_desktop:
        console.out(f"autostart entry {entry}\n")
    fix = None if by_desktop else _fix_of_absence()
    if fix is not None:
        console.out(f"  fix: {fix}\n")
    return OK


def _fix_of_absence() -> str | None:
    """Return the command that helps if no service is installed, or if its manager does not answer."""
    if manager.installed() is not None:
        return None
    unit = launchd.file_of() if sys.platform == "darwin" else systemd.directory() / systemd.UNIT
    # A shell of su or sudo has no XDG_RUNTIME_DIR, and systemctl needs it to find the manager.
    runtime = f"/run/user/{os.getuid()}"
    if not os.environ.get("XDG_RUNTIME_DIR") and os.path.isdir(f"{runtime}/systemd") and not systemd.available():
        return f"export XDG_RUNTIME_DIR={runtime}"
    return "uvtokend start" if unit.is_file() else "uvtokend service install"


def _put(words: list[str], recorded: environment.Recorded, hardened: bool, config_file: str | None) -> Path:
    """Write the service for this machine's manager and start it."""
    if sys.platform == "darwin":
        _make_way()
        with console.Ticking("Starting the service"):
            file = launchd.install(words, recorded.variables)
    else:
        file = _put_on_linux(words, recorded, hardened, config_file)
    return file


def _put_on_linux(words: list[str], recorded: environment.Recorded, hardened: bool, config_file: str | None) -> Path:
    if not systemd.available():
        if (runtime := systemd.runtime_of_manager()) is not None:
            message = "Your systemd user manager runs, but this shell has no XDG_RUNTIME_DIR, as after su or sudo."
            raise UvtokendError(message, f"export XDG_RUNTIME_DIR={runtime} && uvtokend service install")
        console.say("The systemd user manager does not answer, so the desktop's autostart is used.")
        return autostart.install(words)
    file = environment.file_of(paths.config_file(config_file))
    systemd.refuse_unprintable([*words, file])
    if hardened:
        with console.Ticking("Trying the hardened settings"):
            systemd.probe(words)
    try:
        paths.make_directory(os.path.dirname(file))
        files.replace(file, environment.environment_file(recorded.variables).encode())
    except OSError as error:
        raise UvtokendError(f"Cannot write {file}: {error.strerror}.", f"ls -ld {os.path.dirname(file)}") from error
    _make_way()
    with console.Ticking("Starting the service"):
        return systemd.install(words, file, hardened)


def _make_way() -> None:
    """Stop a daemon that was started by hand, since a netrc has only one owner."""
    try:
        stop()
    except NotRunning:
        return


def _explain(recorded: environment.Recorded, settings: Settings) -> None:
    """Show which variables are recorded and which are not, since the service sees no others of this shell."""
    console.say("Recorded from this shell for the service and its helper programs:")
    for name, value in recorded.variables:
        console.say(f"  {name}={shlex.quote(value)}")
    for name in recorded.refused:
        console.say(f"Not recorded, because it may hold a secret: {name}")
    for name in sorted(_secrets(settings)):
        console.say(f"The service cannot see the variable {name}, which holds a secret for your configuration.")
        console.say('  fix: keep the secret in a file and write { file = "~/…" } instead of { env = … }')


def _secrets(settings: Settings) -> set[str]:
    return {name for index in settings.indexes for name in secret_variables(index.request)}


def _advise_lingering() -> None:
    if systemd.lingering() is False:
        console.say("The service runs while you are logged in. To keep it running after you log out (builds, cron):")
        console.say("  loginctl enable-linger")

"""Where uvtokend keeps its files: the configuration, the state directory and the control socket.

Every directory is the one that platformdirs names. `status` must start almost as fast as Python itself, but importing
platformdirs doubles that time. So the two paths that `status` needs, the socket and the state directory, are computed
here. A test checks that both ways agree.
"""

# Importing pathlib takes a third of Python's own startup time; os.path is already loaded.

from __future__ import annotations

import errno
import os
import stat
import sys

from uvtokend.errors import UsageError, UvtokendError

APP = "uvtokend"
#: Longest path of a unix socket in bytes, without its final NUL: unix(7), and sys/un.h of macOS.
SUN_PATH_MAX = 103 if sys.platform == "darwin" else 107
PRIVATE = 0o700
#: The uid that root has inside a user namespace, such as systemd's PrivateUsers creates (kernel.overflowuid).
NOBODY = 65534


def home_directory() -> str:
    """Return the user's home directory: the value of ``HOME``, otherwise the passwd entry.

    Raises:
        UsageError: Neither is an absolute path. In a container, for example, a uid may have no passwd entry.
    """
    home = os.path.expanduser("~")
    if not os.path.isabs(home) or os.environ.get("HOME") == "":  # an empty HOME would mean the root directory
        message = "Cannot determine your home directory: HOME is not an absolute path."
        raise UsageError(message, "set HOME to an absolute path")
    return home


def config_file(explicit: str | None = None) -> str:
    """Return the user's configuration file.

    Args:
        explicit: The value of `--config`, which overrides ``UVTOKEND_CONFIG``.

    Raises:
        UsageError: The file is in the home directory, which is unknown.
    """
    named = explicit or os.environ.get("UVTOKEND_CONFIG")
    if named:
        return _absolute(named)
    if not os.path.isabs(os.environ.get("XDG_CONFIG_HOME", "")):
        home_directory()  # without it, platformdirs raises RuntimeError or uses the current directory
    from platformdirs import user_config_dir  # noqa: PLC0415 - see the module's docstring

    return os.path.join(user_config_dir(APP, False), "config.toml")


def site_config_file() -> str:
    """Return the configuration file that a company can distribute. The user's file overrides it.

    On macOS the path does not depend on the interpreter. For Homebrew's Python, platformdirs names a directory of
    Homebrew (platformdirs/macos.py), to which no company's tool would write.
    """
    if sys.platform == "darwin" and not os.environ.get("XDG_CONFIG_DIRS"):
        return os.path.join("/Library/Application Support", APP, "config.toml")
    from platformdirs import site_config_dir  # noqa: PLC0415 - see the module's docstring

    return os.path.join(site_config_dir(APP, False), "config.toml")


def state_directory() -> str:
    """Return the directory of the state file, the events and the locks. It may not exist yet.

    Raises:
        UsageError: The directory is in the home directory, which is unknown.
    """
    base = os.environ.get("XDG_STATE_HOME", "")
    if not os.path.isabs(base):
        default = "Library/Application Support" if sys.platform == "darwin" else ".local/state"
        base = os.path.join(home_directory(), default)
    return os.path.join(base, APP)


def state_file() -> str:
    """Return the file that records what was delivered. It contains no secrets."""
    return os.path.join(state_directory(), "state.json")


def events_file() -> str:
    """Return the file of the latest events, one JSON object per line."""
    return os.path.join(state_directory(), "events.jsonl")


def prompt_file() -> str:
    """Return the small file that a shell prompt reads while the daemon runs; see `uvtokend.core.prompt`."""
    return os.path.join(state_directory(), "prompt")


def reminders_file() -> str:
    """Return the file that remembers which desktop notifications are shown; see `uvtokend.core.reminders`."""
    return os.path.join(state_directory(), "reminders.json")


def chains_directory() -> str:
    """Return the directory of refresh tokens that can be used once. They are secrets, so its mode is 0700."""
    return os.path.join(state_directory(), "chains")


def socket_file() -> str:
    """Return the control socket: in the user's runtime directory, or in the state directory if there is none.

    Raises:
        UvtokendError: The path is too long for a unix socket.
    """
    named = os.environ.get("UVTOKEND_SOCKET")
    path = _absolute(named) if named else os.path.join(_runtime_directory() or state_directory(), "control.sock")
    if len(os.fsencode(path)) > SUN_PATH_MAX:
        message = f"The path of the control socket is longer than the {SUN_PATH_MAX} bytes of a unix socket: {path}"
        raise UvtokendError(message, "set UVTOKEND_SOCKET to a shorter path, in a directory of your own with mode 0700")
    return path


def uv_netrc() -> str | None:
    """Return the netrc that uv reads in this shell: the first of ``$NETRC`` and ``~/.netrc`` that exists.

    Source: uv crates/uv-netrc/src/lib.rs, `get_file`; the same as `uvtokend.disk.uv_files.netrc`, at less cost.
    """
    home, named = os.environ.get("HOME", ""), os.environ.get("NETRC", "")
    if home and (named == "~" or named.startswith("~/")):
        named = home + named[1:]
    usual = os.path.join(home, ".netrc") if home else ""
    return next((os.path.abspath(path) for path in (named, usual) if path and os.path.exists(path)), None)


def usual_netrc() -> str:
    """Return the netrc that every program reads unless it is told otherwise."""
    return os.path.expanduser("~/.netrc")


def shell_fix(netrc: str, config: str) -> str:
    """Return the command after which uv in this shell reads a netrc.

    Args:
        netrc: The path, which uv does not read now.
        config: The configuration file of the daemon that writes it.
    """
    if os.path.realpath(usual_netrc()) == os.path.realpath(netrc):
        return "unset NETRC"
    home, name = os.path.split(netrc)
    if name == ".netrc" and home != os.path.expanduser("~") and config.startswith(f"{home}/"):
        return f"export HOME={quoted(home)}" + (" && unset NETRC" if os.environ.get("NETRC") else "")
    return f"export NETRC={quoted(netrc)}"


def uv_credentials_file() -> str:
    """Return uv's own credential store.

    Sources: uv crates/uv-auth/src/store.rs, ``directory_path``; crates/uv-state/src/lib.rs. On macOS uv prefers its
    previous directory if that exists, even over ``XDG_DATA_HOME``.
    """
    directory = os.environ.get("UV_CREDENTIALS_DIR")
    if directory:
        return os.path.join(_absolute(directory), "credentials.toml")
    former = os.path.join(os.path.expanduser("~"), "Library", "Application Support", "uv")
    if sys.platform == "darwin" and os.path.isdir(former):
        return os.path.join(former, "credentials", "credentials.toml")
    base = os.environ.get("XDG_DATA_HOME", "")
    if not os.path.isabs(base):
        base = os.path.join(os.path.expanduser("~"), ".local", "share")
    return os.path.join(base, "uv", "credentials", "credentials.toml")


def uv_ledger_file(store: str | None = None) -> str:
    """Return the ledger: the file beside uv's credential store that says which of its records are ours.

    Args:
        store: The path of the store; by default the store that uv uses now.
    """
    return f"{store or uv_credentials_file()}.uvtokend"


def check_home(*used: str) -> None:
    """Refuse to write into another user's home directory, as with ``sudo``. That user could not read the files.

    A home directory of root is accepted if this process can write to it, because containers run with arbitrary uids.

    Args:
        used: The files and directories that will be written. If none of them is in the home directory, its owner does
            not matter.

    Raises:
        UvtokendError: ``HOME`` belongs to another user, and contains one of the files.
    """
    home = home_directory()
    inside = [
        path for path in used if f"{os.path.realpath(path)}/".startswith(f"{os.path.realpath(home).rstrip('/')}/")
    ]
    try:
        owner = os.stat(home).st_uid
    except OSError:
        return
    if owner == os.geteuid() or not inside:
        return
    if owner in (0, NOBODY) and all(os.access(_existing(path), os.W_OK | os.X_OK) for path in inside):
        return
    message = f"The home directory {home} belongs to {_user(owner)}, but uvtokend runs as {_user(os.geteuid())}."
    own = "set HOME to a directory that you can write"
    raise UvtokendError(message, f"run uvtokend without sudo, or {own}" if os.geteuid() == 0 else own)


def _user(uid: int) -> str:
    import pwd  # noqa: PLC0415 - only needed for a message

    try:
        return f"{pwd.getpwuid(uid).pw_name} (uid {uid})"
    except KeyError:
        return f"uid {uid}"


def _existing(path: str) -> str:
    """Return the nearest directory at or above a path that exists."""
    parent = os.path.dirname(path)
    return path if os.path.isdir(path) or parent == path else _existing(parent)


def private_directory(path: str) -> None:
    """Create a directory with mode 0700, or check that it is private.

    Args:
        path: The absolute path of the directory.

    Raises:
        UvtokendError: The path belongs to another user, does not have mode 0700, is a symlink or not a directory, or
            cannot be created.
    """
    try:
        make_directory(path)
    except OSError as error:
        raise unusable(error, path, f"The directory {path} cannot be created") from error
    check_private(path)


def unusable(error: OSError, path: str, what: str, closed: str | None = None) -> UvtokendError:
    """Return the error, with its fix, for a file or directory of uvtokend that cannot be used.

    Args:
        error: The system error.
        path: The file or directory.
        what: The beginning of the message: what cannot be done.
        closed: The fix if permission is denied; by default, choosing another directory.
    """
    directory = quoted(_existing(path))
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return UvtokendError(f"{what}: there is no space left on its disk.", f"df -h {directory}")
    hint = f"ls -ld {directory}"
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        hint = closed or f"set {_chosen_by(path)} to a directory that you can write"
    return UvtokendError(f"{what}: {error.strerror}.", hint)


def _chosen_by(path: str) -> str:
    """Return the environment variable that determines a path."""
    bases: dict[str, str] = {}
    for name in ("UVTOKEND_SOCKET", "UVTOKEND_CONFIG", "XDG_STATE_HOME", "XDG_CONFIG_HOME", "XDG_RUNTIME_DIR"):
        value = os.environ.get(name, "")
        base = os.path.dirname(value) if name.startswith("UVT") else value
        if base and f"{path}/".startswith(f"{base}/"):
            bases[base] = name
    return bases[max(bases, key=len)] if bases else "HOME"


def check_private(path: str) -> None:
    """Check that no other user can access a directory. A missing directory passes.

    Args:
        path: The absolute path of the directory.

    Raises:
        UvtokendError: The path belongs to another user, does not have mode 0700, is a symlink or not a directory.
    """
    try:
        info = os.lstat(path)
    except FileNotFoundError:
        return
    except OSError as error:
        raise unusable(error, path, f"The directory {path} cannot be read") from error
    mode = stat.S_IMODE(info.st_mode)
    if stat.S_ISLNK(info.st_mode):
        message = f"{path} is a symbolic link, but uvtokend needs a directory of its own there."
        raise UvtokendError(message, f"rm {quoted(path)}")
    if not stat.S_ISDIR(info.st_mode):
        message = f"{path} is not a directory."
        raise UvtokendError(message, f"rm {quoted(path)}")
    if info.st_uid != os.geteuid():
        message = f"The directory {path} belongs to {_user(info.st_uid)}, but uvtokend runs as {_user(os.geteuid())}."
        raise UvtokendError(message, f"set {_chosen_by(path)} to a path in a directory of your own with mode 0700")
    if mode & 0o777 != PRIVATE:
        message = f"Other users can access the directory {path} (mode {mode:04o}, not 0700)."
        raise UvtokendError(message, f"chmod 700 {quoted(path)}")


def inode(path: str) -> tuple[int, int] | None:
    """Return what distinguishes a file from any earlier file at the same path; None if there is no file."""
    try:
        info = os.lstat(path)
    except OSError:
        return None
    return info.st_dev, info.st_ino


def quoted(path: str) -> str:
    """Quote a path for a command to paste. On macOS the usual path contains a space."""
    from shlex import quote  # noqa: PLC0415 - it imports re, which the hot path does not need

    return quote(path)


def _runtime_directory() -> str | None:
    for base in (os.environ.get("XDG_RUNTIME_DIR", ""), f"/run/user/{os.geteuid()}"):
        if os.path.isabs(base) and _usable(base):
            return os.path.join(base.rstrip("/") or "/", APP)
    return None


def _usable(directory: str) -> bool:
    """Return whether a directory can be our runtime directory. After ``su``, the variable names another user's."""
    try:
        info = os.lstat(directory)
    except OSError:
        return False
    return stat.S_ISDIR(info.st_mode) and info.st_uid == os.geteuid() and not info.st_mode & 0o022


def make_directory(path: str) -> None:
    """Create a directory and its parents with mode 0700. Existing directories stay unchanged.

    Args:
        path: The absolute path of the directory.

    Raises:
        OSError: The directory cannot be created.
    """
    if os.path.lexists(path):
        return
    parent = os.path.dirname(path)
    if not os.path.isdir(parent):
        make_directory(parent)
    try:
        os.mkdir(path, PRIVATE)
    except FileExistsError:
        return  # another uvtokend created it first; the caller checks the result


def _absolute(path: str) -> str:
    return os.path.abspath(os.path.expanduser(path))

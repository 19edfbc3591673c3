"""Where uvtokend keeps its files: the configuration, the state directory and the control socket.

Every directory is the one that platformdirs names. `status` must start almost as fast as Python itself, and importing
platformdirs takes as long again. So the two answers that `status` needs, the socket and the state directory, are worked
out here. A test holds them equal.
"""

# pathlib would cost a third of Python's own start; os.path is there already.

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
#: Root as it appears in a user namespace, such as systemd's PrivateUsers creates (kernel.overflowuid).
NOBODY = 65534


def home_directory() -> str:
    """Return the user's home directory: the value of ``HOME``, or else the passwd entry.

    Raises:
        UsageError: Neither is an absolute path: in a container, a process may run as a uid without a name.
    """
    home = os.path.expanduser("~")
    if not os.path.isabs(home) or os.environ.get("HOME") == "":  # an empty one would lead to the root directory
        message = "Cannot determine your home directory: HOME is not an absolute path."
        raise UsageError(message, "set HOME to an absolute path")
    return home


def config_file(explicit: str | None = None) -> str:
    """Return the user's configuration file.

    Args:
        explicit: What `--config` names; wins over ``UVTOKEND_CONFIG``.

    Raises:
        UsageError: It lies in the home directory, which is unknown.
    """
    named = explicit or os.environ.get("UVTOKEND_CONFIG")
    if named:
        return _absolute(named)
    if not os.path.isabs(os.environ.get("XDG_CONFIG_HOME", "")):
        home_directory()  # without it, platformdirs raises RuntimeError or uses the current directory
    from platformdirs import user_config_dir  # noqa: PLC0415 - see the module's docstring

    return os.path.join(user_config_dir(APP, False), "config.toml")


def site_config_file() -> str:
    """Return the configuration file that a company may hand out, beneath the user's.

    On macOS it does not depend on the interpreter: platformdirs names a directory of Homebrew for Homebrew's Python
    (platformdirs/macos.py), which no company's tool would write.
    """
    if sys.platform == "darwin" and not os.environ.get("XDG_CONFIG_DIRS"):
        return os.path.join("/Library/Application Support", APP, "config.toml")
    from platformdirs import site_config_dir  # noqa: PLC0415 - see the module's docstring

    return os.path.join(site_config_dir(APP, False), "config.toml")


def state_directory() -> str:
    """Return the directory of the state file, the events and the locks. It need not exist.

    Raises:
        UsageError: It lies in the home directory, which is unknown.
    """
    base = os.environ.get("XDG_STATE_HOME", "")
    if not os.path.isabs(base):
        default = "Library/Application Support" if sys.platform == "darwin" else ".local/state"
        base = os.path.join(home_directory(), default)
    return os.path.join(base, APP)


def state_file() -> str:
    """Return the file that remembers what was delivered; it holds no secret."""
    return os.path.join(state_directory(), "state.json")


def events_file() -> str:
    """Return the file of the last events, one JSON object per line."""
    return os.path.join(state_directory(), "events.jsonl")


def prompt_file() -> str:
    """Return the small file that a shell prompt reads while the daemon runs; see `uvtokend.core.prompt`."""
    return os.path.join(state_directory(), "prompt")


def chains_directory() -> str:
    """Return the directory of the chains of refresh tokens, which are secrets: 0700."""
    return os.path.join(state_directory(), "chains")


def socket_file() -> str:
    """Return the control socket: in the user's runtime directory, or in the state directory if there is none.

    Raises:
        UvtokendError: The path is longer than a unix socket's may be.
    """
    named = os.environ.get("UVTOKEND_SOCKET")
    path = _absolute(named) if named else os.path.join(_runtime_directory() or state_directory(), "control.sock")
    if len(os.fsencode(path)) > SUN_PATH_MAX:
        message = f"The path of the control socket is longer than the {SUN_PATH_MAX} bytes of a unix socket: {path}"
        raise UvtokendError(message, "set UVTOKEND_SOCKET to a shorter path, in a directory of your own with mode 0700")
    return path


def uv_credentials_file() -> str:
    """Return uv's own credential store.

    uv crates/uv-auth/src/store.rs, ``directory_path``; crates/uv-state/src/lib.rs: on macOS uv prefers its former
    directory if that exists, even over ``XDG_DATA_HOME``.
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
    """Return the file beside a credential store of uv's that tells which of its records are ours.

    Args:
        store: The store; by default the one that uv uses now.
    """
    return f"{store or uv_credentials_file()}.uvtokend"


def check_home(*used: str) -> None:
    """Refuse to work in another user's home directory, as with ``sudo``: that user could not read the files then.

    A home directory of root's is accepted where this process can write: containers run with arbitrary uids.

    Args:
        used: The files and directories that will be written; others' homes do not matter where none lies inside.

    Raises:
        UvtokendError: ``HOME`` belongs to another user, and one of them lies inside.
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
    import pwd  # noqa: PLC0415 - only to explain

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

    Raises:
        UvtokendError: It is not ours, not 0700, a symlink or not a directory, or it cannot be created.
    """
    try:
        make_directory(path)
    except OSError as error:
        raise unusable(error, path, f"The directory {path} cannot be created") from error
    check_private(path)


def unusable(error: OSError, path: str, what: str, closed: str | None = None) -> UvtokendError:
    """Return the error that says why a file or directory of uvtokend's own cannot be used, with the fix.

    Args:
        error: The system's error.
        path: The file or directory.
        what: What cannot be done, as the beginning of a sentence.
        closed: The fix if permission is denied; by default another place.
    """
    directory = quoted(_existing(path))
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return UvtokendError(f"{what}: there is no space left on its disk.", f"df -h {directory}")
    hint = f"ls -ld {directory}"
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        hint = closed or f"set {_chosen_by(path)} to a directory that you can write"
    return UvtokendError(f"{what}: {error.strerror}.", hint)


def _chosen_by(path: str) -> str:
    """Return the environment variable that decides where a path lies."""
    for name in ("UVTOKEND_SOCKET", "UVTOKEND_CONFIG", "XDG_STATE_HOME", "XDG_CONFIG_HOME", "XDG_RUNTIME_DIR"):
        value = os.environ.get(name)
        if value and f"{path}/".startswith(f"{os.path.dirname(value) if name.startswith('UVT') else value}/"):
            return name
    return "HOME"


def check_private(path: str) -> None:
    """Check that nobody else can put anything into a directory; one that does not exist passes.

    Raises:
        UvtokendError: It is not ours, not 0700, a symlink or not a directory.
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
    """Return what tells a file from every other one that was at its path, or None if there is none."""
    try:
        info = os.lstat(path)
    except OSError:
        return None
    return info.st_dev, info.st_ino


def quoted(path: str) -> str:
    """Quote a path for a command that a person can paste: macOS has a space in the usual one."""
    from shlex import quote  # noqa: PLC0415 - it imports re, which the hot path does without

    return quote(path)


def _runtime_directory() -> str | None:
    for base in (os.environ.get("XDG_RUNTIME_DIR", ""), f"/run/user/{os.geteuid()}"):
        if os.path.isabs(base) and _usable(base):
            return os.path.join(base.rstrip("/") or "/", APP)
    return None


def _usable(directory: str) -> bool:
    """Return whether a directory can be the runtime directory: after ``su`` the variable names another user's."""
    try:
        info = os.lstat(directory)
    except OSError:
        return False
    return stat.S_ISDIR(info.st_mode) and info.st_uid == os.geteuid() and not info.st_mode & 0o022


def make_directory(path: str) -> None:
    """Create a directory, and those above it, with mode 0700; one that exists stays as it is.

    Raises:
        OSError: It cannot be created.
    """
    if os.path.lexists(path):
        return
    parent = os.path.dirname(path)
    if not os.path.isdir(parent):
        make_directory(parent)
    try:
        os.mkdir(path, PRIVATE)
    except FileExistsError:
        return  # another uvtokend was faster; the caller checks what is there


def _absolute(path: str) -> str:
    return os.path.abspath(os.path.expanduser(path))

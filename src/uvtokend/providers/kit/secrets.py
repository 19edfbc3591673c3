"""Read a secret from the place that the configuration names. The configuration itself never contains secrets."""

from __future__ import annotations

import errno
import os
import shlex
import stat
import sys
from datetime import datetime

from uvtokend.core import fixes
from uvtokend.core.model import Frozen, Secret
from uvtokend.core.rfc3339 import parse_zulu
from uvtokend.providers.kit import jwt, programs
from uvtokend.providers.kit.failures import login_required, rejected, transient

#: Seconds that a program may take to print a secret: a password store may have to ask its agent.
COMMAND_TIMEOUT = 20.0
#: The most bytes of a secret in a netrc entry.
LIMIT = 16 * 1024
#: What the user must do before such a secret expires.
RENEW = "replace the secret where config.toml says; if expires is set, change it, too, then: uvtokend reload"


def read_secret(reference: Frozen) -> Secret:
    """Return the secret of a reference, without a trailing line break.

    Args:
        reference: The frozen form of the settings: ``(("env", "VAR"),)``, ``(("file", "/absolute"),)``,
            ``(("command", ("prog", "arg")),)`` or ``(("keyring", (("service", "s"), ("username", "u"))),)``.

    Raises:
        FetchFailed: There is no valid secret in that place; the failure contains the fix.
    """
    match reference:
        case (("env", str(name)),):
            return _from_env(name)
        case (("file", str(path)),):
            return _from_file(path)
        case (("command", (str(program), *rest)),):
            command = (program, *(str(word) for word in rest))
            said = programs.answer(command, COMMAND_TIMEOUT)
            return checked(said, f"The output of {os.path.basename(program)}")
        case (("keyring", (("service", str(service)), ("username", str(username)))),):
            return _from_keyring(service, username)
    raise rejected("bad-options", "The option is not a reference to a secret.")


def place(reference: Frozen) -> str:
    """Return the place for a new secret, as the end of a sentence; `reference` as in `read_secret`."""
    match reference:
        case (("env", str(name)),):
            return f"into {name} of the environment that starts uvtokend, then: uvtokend restart"
        case (("file", str(path)),):
            return f"into the file {path}"
        case (("command", (str(program), *_)),):
            return f"where {os.path.basename(program)} reads it"
        case (("keyring", (("service", str(service)), ("username", str(username)))),):
            return f"into the keyring: {shlex.join(['keyring', 'set', service, username])}"
    return "where the configuration says"


def end_of(secret: Secret, expires: Frozen, now: datetime) -> datetime | None:
    """Return when a secret that only the user can renew expires; None if unknown.

    Args:
        secret: The secret. A JWT (RFC 7519) contains its own expiry.
        expires: The expiry in the configuration, ISO 8601 with a time zone, or None. The earlier of the two counts.
        now: The current time, aware UTC.

    Raises:
        FetchFailed: The secret has expired, or `expires` is not a time.
    """
    ends = min(filter(None, (_time(expires), jwt.end(secret.reveal()))), default=None)
    if ends is not None and ends <= now:
        raise rejected("expired", f"This secret ended at {ends:%Y-%m-%d %H:%M} UTC.", RENEW)
    return ends


def _time(text: Frozen) -> datetime | None:
    if text is None:
        return None
    try:
        if isinstance(text, str) and (time := parse_zulu(text)) is not None:
            return time
    except (ValueError, OverflowError):
        pass
    raise rejected("bad-options", "expires is not a time with a time zone; write it as 2026-12-31T00:00:00Z.")


def checked(raw: bytes | str, source: str, hint: str | None = None) -> Secret:
    """Return a secret that a netrc entry can hold.

    Args:
        raw: The bytes that were read. One trailing line break is removed.
        source: The place that was read, as the subject of a sentence.
        hint: The command that fixes an invalid secret.

    Raises:
        FetchFailed: The secret is empty, too long, or contains line breaks or other control characters.
    """
    try:
        text = raw.decode() if isinstance(raw, bytes) else raw
        size = len(text.encode())
    except UnicodeError:
        raise rejected("bad-secret", f"{source} is not UTF-8 text.", hint) from None
    text = text.removesuffix("\n").removesuffix("\r")
    if not text.strip():
        raise rejected("empty-secret", f"{source} is empty.", hint)
    if size > LIMIT:
        raise rejected("bad-secret", f"{source} is longer than {LIMIT // 1024} KiB.", hint)
    if not text.isprintable():
        message = f"{source} holds a line break or another control character, which no credential has."
        raise rejected("bad-secret", message, hint)
    return Secret(text)


def _from_env(name: str) -> Secret:
    text = os.environ.get(name)
    hint = f"set {name} in the environment that starts uvtokend, then: uvtokend restart"
    if text is None:
        raise rejected("no-secret", f"The variable {name} is not set for uvtokend.", hint)
    return checked(text, f"The variable {name}", hint)


def _from_file(path: str) -> Secret:
    quoted = shlex.quote(path)
    write = fixes.write_secret(path)  # takes the secret from the terminal, not from the arguments
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # a FIFO would block
        with open(handle, "rb", closefd=True) as file:
            if not stat.S_ISREG(os.fstat(handle).st_mode):
                raise rejected("no-secret", f"{path} is not a file.", f"ls -ld {quoted}")
            return checked(file.read(programs.LIMIT), f"The file {path}", write)
    except IsADirectoryError:
        raise rejected("no-secret", f"{path} is a directory.", f"mv {quoted} {quoted}.old && {write}") from None
    except (FileNotFoundError, NotADirectoryError):
        raise rejected("no-secret", f"The file {path} does not exist.", write) from None
    except PermissionError:
        raise rejected("no-secret", f"The file {path} may not be read.", f"ls -ld {quoted}") from None
    except (OSError, ValueError) as error:
        why = (isinstance(error, OSError) and error.errno and os.strerror(error.errno)) or "its name is invalid"
        if isinstance(error, OSError) and error.errno in {errno.EIO, errno.ESTALE, errno.EMFILE, errno.ENFILE}:
            raise transient("unreadable", f"The file {path} cannot be read at the moment: {why}.") from None
        raise rejected("no-secret", f"The file {path} cannot be read: {why}.", f"ls -ld {quoted}") from None


def _from_keyring(service: str, username: str) -> Secret:
    try:
        import keyring  # noqa: PLC0415 - an optional extra
        from keyring.errors import KeyringLocked, NoKeyringError  # noqa: PLC0415
    except ImportError:
        message = "The configuration names a keyring, and the keyring library is not installed beside uvtokend."
        raise rejected("no-keyring", message, "uv tool install 'uvtokend[keyring]'") from None
    where = f"The keyring entry of {service} for {username}"
    hint = shlex.join(["keyring", "set", service, username])
    _forbid_dialogs()
    try:
        secret = keyring.get_password(service, username)
    except KeyringLocked:
        hint = "unlock it, or log in to the desktop"
        raise login_required("keyring-locked", "The keyring is locked.", hint) from None
    except NoKeyringError:
        message = "There is no keyring on this machine, or none that a background process can reach."
        raise rejected("no-keyring", message, "keyring diagnose") from None
    except Exception as error:  # noqa: BLE001 - a backend is third-party code, and its text may contain the secret
        _check_keychain(error, service, username)
        message = f"The keyring failed ({type(error).__name__})."
        raise transient("keyring-failed", message, "keyring diagnose") from None
    if secret is None:
        raise rejected("no-secret", f"{where} does not exist.", hint)
    return checked(secret, where, hint)


def _forbid_dialogs() -> None:
    """Make the Keychain of macOS fail at once, instead of a dialog that waits for a person until the deadline."""
    if sys.platform == "darwin":
        from uvtokend import darwin  # noqa: PLC0415 - macOS only

        darwin.forbid_keychain_dialogs()


def _check_keychain(error: Exception, service: str, username: str) -> None:
    """Raise the failure if the Keychain allows this program to read an entry only after a person agrees.

    The Keychain binds an entry to the signature of the program that wrote it. uv's Pythons are signed ad hoc, so each
    upgrade counts as another program.
    """
    from uvtokend import darwin  # noqa: PLC0415 - only after a failure

    if (status := darwin.keychain_refusal(error)) != 0:
        message = (
            f"The Keychain lets this Python read the entry of {service} for {username} only if you agree in a dialog, "
            f"and a background program cannot show it (OSStatus {status})."
        )
        raise login_required("keychain-refused", message, fixes.read_keychain(service, username)) from None

"""A backend for the keyring library, so that twine, poetry and all who import keyring get the daemon's tokens.

It is found through the entry point group ``keyring.backends``. keyring's own chainer asks it first, and the next
backend if the service does not belong to an index of ours. No SDK is imported here, and nothing is stored.
"""

from __future__ import annotations

from keyring.backend import KeyringBackend
from keyring.credentials import SimpleCredential

from uvtokend import ask
from uvtokend.errors import UvtokendError


class UvtokendKeyring(KeyringBackend):
    """Ask the daemon, and hold nothing."""

    #: Before the system's stores (5 and less), after keyring's chainer (10).
    priority = 9.95

    def get_password(self, service: str, username: str) -> str | None:
        """Return the token for a URL; None if it belongs to no index of ours, or there is no valid token."""
        credential = _ask(service, username)
        return None if credential is None else credential.token

    def get_credential(self, service: str, username: str | None) -> SimpleCredential | None:
        """Return login and token for a URL; None as in `get_password`."""
        credential = _ask(service, username)
        return None if credential is None else SimpleCredential(credential.login, credential.token)

    def set_password(self, service: str, username: str, password: str) -> None:
        """Refuse: another backend stores passwords. keyring's chainer goes on to it."""
        raise NotImplementedError

    def delete_password(self, service: str, username: str) -> None:
        """Refuse, as `set_password`."""
        raise NotImplementedError


def _ask(service: str, username: str | None) -> ask.ServedCredential | None:
    try:
        return ask.credential(service, username)
    except UvtokendError as error:
        ask.say(error)
        return None

"""Keep SDKs quiet: a provider returns a credential or raises one classified failure, and nothing else."""

from __future__ import annotations

import functools
import logging
import warnings
from collections.abc import Callable

from uvtokend.core.model import Credential, Request
from uvtokend.errors import FetchFailed
from uvtokend.providers.kit.failures import transient

Provider = Callable[[Request], Credential]


def quiet(fetch: Provider) -> Provider:
    """Disable the logs and warnings of a provider, and let only a `FetchFailed` without context leave it.

    Debug logs of SDKs contain tokens, and their advice is for application developers. An exception keeps the exception
    that caused it, even with ``from None``, and the text of that one may contain a secret.
    """

    @functools.wraps(fetch)
    def alone(request: Request) -> Credential:
        before = logging.root.manager.disable
        logging.disable()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return fetch(request)
        except FetchFailed as error:
            failed = FetchFailed(error.failure)
        except Exception as error:  # noqa: BLE001 - nothing escapes unclassified
            name = type(error).__name__
            failed = transient("unexpected", f"The fetch failed with an unexpected error ({name}).")
        finally:
            logging.disable(before)
        raise failed  # outside of the except block it has no context

    return alone

"""What a provider lets out: a credential, or one failure that stands alone. Nothing of what an SDK said on the way."""

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
    """Let a provider log nothing, warn of nothing, and raise nothing but a `FetchFailed` on which nothing hangs.

    SDKs' debug logs print tokens, their advice is for developers of applications, and an exception keeps what it was
    raised from, also behind ``from None``: an SDK's text, in which a helper may have written a secret.
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
            failed = transient("unexpected", f"The fetch failed in a way that it does not explain ({name}).")
        finally:
            logging.disable(before)
        raise failed  # out here it has no context

    return alone

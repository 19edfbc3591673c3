"""Call functions that use files, whose file system may never answer, in threads of their own.

Such a thread may hang, but neither the loop nor the end of the daemon waits for it, as they would for the threads of
the loop's pool.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import TypeVar

_T = TypeVar("_T")


def aside(function: Callable[[], _T], name: str) -> asyncio.Future[_T]:
    """Call a function in a thread of its own, and return the future of its result or exception.

    Args:
        function: The function. If the future is canceled, the function still runs to its end.
        name: The name of the thread.
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[_T] = loop.create_future()

    def end(result: _T | None, error: Exception | None) -> None:
        if done.done():  # canceled
            return
        if error is not None:
            done.set_exception(error)
        else:
            done.set_result(result)  # type: ignore[arg-type] # without an error it is the result

    def work() -> None:
        result, error = None, None
        try:
            result = function()
        except Exception as raised:  # noqa: BLE001 - it is raised in the loop
            error = raised
        with contextlib.suppress(RuntimeError):  # the loop has ended
            loop.call_soon_threadsafe(end, result, error)

    threading.Thread(target=work, name=name, daemon=True).start()
    return done

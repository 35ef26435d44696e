"""Handled exceptions of which the user gets no message: each leaves a line in the log."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

_logger = logging.getLogger("vidrestore")


@contextmanager
def logged(*errors: type[BaseException], what: str = "") -> Iterator[None]:
    """Suppress expected exceptions, as `contextlib.suppress` does, and log them.

    Args:
        *errors: The classes of exceptions that are expected and change nothing for the user.
        what: The action that fails then, as the start of a sentence, such as "removing a.mp4";
            default: empty, not named.

    Yields:
        Nothing.
    """
    try:
        yield
    except errors as error:
        log_handled(error, what)


def log_handled(error: BaseException, what: str = "") -> None:
    """Log a handled exception and the function that raised it, at the level DEBUG.

    Args:
        error: The exception.
        what: The action that failed, as the start of a sentence; default: empty, not named.
    """
    failed = f"{what} failed; " if what else ""
    traceback = error.__traceback__
    while traceback is not None and traceback.tb_next is not None:
        traceback = traceback.tb_next
    if traceback is None:
        _logger.debug("%shandled: %r", failed, error)
    else:
        code = traceback.tb_frame.f_code
        line = traceback.tb_lineno
        _logger.debug("%shandled in %s, line %d: %r", failed, code.co_name, line, error)

"""Exceptions that are handled here and told to no user: each leaves a line in the log."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

_logger = logging.getLogger("vidrestore")


@contextmanager
def logged(*errors: type[BaseException], what: str = "") -> Iterator[None]:
    """Go on after the block where one of `errors` is raised in it, as `contextlib.suppress` does.

    Args:
        errors: Kinds of exceptions that are expected and change nothing for the user.
        what: What fails then, as the start of a sentence: "removing a.mp4"; default: not named.
    """
    try:
        yield
    except errors as error:
        log_handled(error, what)


def log_handled(error: BaseException, what: str = "") -> None:
    """Leave a line about an exception that is handled, with the place that it came from.

    Args:
        error: The exception, while it is handled.
        what: What failed, as the start of a sentence; default: not named.
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

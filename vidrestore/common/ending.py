"""The end of a command: its message and its process. This module loads little at import."""

from __future__ import annotations

import atexit
import os
import sys
import threading
from collections.abc import Sequence
from typing import NoReturn

from vidrestore.common.interruption import STATUS


def failed(
    kind: str, message: str, status: int, given: Sequence[str], lines: Sequence[str] = ()
) -> int:
    """Print the message of a failure: as an event to standard output with --json, else to stderr.

    Args:
        kind: The name of the error's class, or "interrupted".
        message: The message, one sentence.
        status: The exit status.
        given: The arguments of the command line.
        lines: The message as the lines that a terminal shows. Default: one line.

    Returns:
        `status`.
    """
    if "--json" in given:
        import json

        from vidrestore.common.events import Failure

        print(json.dumps(Failure(kind, message).as_dict()), flush=True)
    else:
        from vidrestore.common.quoting import printable

        shown = "\n  ".join(map(printable, lines or (message,)))
        print(f"vidrestore: {shown}", file=sys.stderr)
    return status


def interrupted(given: Sequence[str]) -> int:
    """Print the message of an interruption.

    Args:
        given: The arguments of the command line.

    Returns:
        The exit status, 130.
    """
    return failed("interrupted", "interrupted; no unfinished output was written", STATUS, given)


def leave(status: int) -> NoReturn:
    """End the process after the exit handlers, without destroying what the interpreter holds.

    To destroy the modules of torch takes 0.7 s, in which libraries may crash: the process of a
    command that succeeded would then end by a signal. Where other threads of Python still run, or
    the output cannot be flushed, the interpreter ends the process in its usual way.

    Args:
        status: The exit status.
    """
    if threading.active_count() > 1:
        sys.exit(status)
    atexit._run_exitfuncs()
    try:
        for stream in filter(None, (sys.stdout, sys.stderr)):  # a window has neither
            stream.flush()
    except OSError:
        sys.exit(status)  # the interpreter reports the error
    os._exit(status)

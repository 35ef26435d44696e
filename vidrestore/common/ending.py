"""The message of a command that failed or was interrupted; it loads little at import."""

from __future__ import annotations

import sys
from collections.abc import Sequence

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
    return failed("interrupted", "interrupted; no output was written", STATUS, given)

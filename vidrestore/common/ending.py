"""How a command says that it failed or was interrupted; light, since it may be needed early."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from vidrestore.common.interruption import STATUS


def failed(kind: str, message: str, status: int, given: Sequence[str]) -> int:
    """Say it as `given`, the arguments, ask for.

    Returns:
        `status`, with which to leave.
    """
    if "--json" in given:
        import json

        from vidrestore.common.events import Failure

        print(json.dumps(Failure(kind, message).as_dict()), flush=True)
    else:
        from vidrestore.common.quoting import printable

        print(f"vidrestore: {printable(message)}", file=sys.stderr)
    return status


def interrupted(given: Sequence[str]) -> int:
    """Say it, and return the status with which to leave."""
    return failed("interrupted", "interrupted; no output was written", STATUS, given)
